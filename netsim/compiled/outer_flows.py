"""Outer entries: a tunnel's own conversation, one record for its entries in the sending and in the receiving namespace.

Many flows may travel in one of them. As long as it is only one direction of one flow, that is its *owner*, whose time of the
last packet counts for both, so that the fast path need not touch it; else it keeps its own.

What a tuple consists of, but for the source port, is the tunnel's two *ends*. There are as many of them as nodes, whereas
there may be an entry for every flow and direction: so ends have a table, and an entry the numbers of its two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.flow_index import after, crowded, fitting, home, insert, inverted_ports, remove, tuple_hash
from netsim.compiled.flow_records import (
    ASSURED,
    GENERIC,
    N_ENDS,
    N_OUTER_FREE,
    N_OUTER_TOMBS,
    N_OUTERS,
    NUMBER,
    OUTER_HIGH,
    OWNED,
    SEEN_REPLY,
    UDP,
    UDP_STREAM,
    FlowState,
    bits_of,
    far_of,
    near_of,
    outer_key,
    ports_of,
)
from netsim.compiled.flows import elsewhere
from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.unit import unit

U = np.uint64


# -- what an entry says ------------------------------------------------------------------------------------------------
@kernel
def outer_last(s: FlowState, number: Int) -> Int:
    entry = s.outer[number]
    last = np.int64(entry["last"])
    if not bits_of(entry) & OWNED:
        return last
    hot = s.hot[last >> 1]
    return np.int64(hot["last1"]) if last & 1 else np.int64(hot["last0"])


@kernel
def outer_timeout(s: FlowState, number: Int) -> Int:
    """Milliseconds that the entry lives on after a packet. UDP is a stream once it is assured."""
    entry = s.outer[number]
    near = s.ends[near_of(entry)]
    state = GENERIC if near["proto"] != 17 else UDP_STREAM if bits_of(entry) & ASSURED else UDP
    return np.int64(s.timeouts[near["settings"], state])


@kernel
def outer_alive(s: FlowState, number: Int, now: Int) -> Int:
    return outer_last(s, number) + outer_timeout(s, number) > now


@inner
def settled(s: FlowState, entry: Any) -> Int:
    """Will the tunnel's next packets meet the same rules and timeout? If both ends speak with the same tuple (IPIP and
    flanneld), only once both have: replies make its packets ESTABLISHED, and UDP a stream."""
    if s.ends[near_of(entry)]["proto"] != 17:
        return bits_of(entry) & SEEN_REPLY != 0
    ports = ports_of(s, entry)
    return ports >> 16 != ports & 0xFFFF or bits_of(entry) & ASSURED != 0


@inner
def outer_hash(s: FlowState, entry: Any) -> Int:
    near, far = s.ends[near_of(entry)], s.ends[far_of(entry)]
    return tuple_hash(near["proto"], near["address"], far["address"], ports_of(s, entry), near["ipv6"])


@inner
def fits(s: FlowState, entry: Any, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int) -> Int:
    """Is this the entry's tuple?"""
    near, far = s.ends[near_of(entry)], s.ends[far_of(entry)]
    same = near["address"] == src and far["address"] == dst and near["proto"] == proto and near["ipv6"] == ipv6
    return same and ports_of(s, entry) == ports


# -- ends --------------------------------------------------------------------------------------------------------------
@inner
def end_home(ends: Any, ns: Int, address: Int, settings: Int) -> Int:
    h = (U(address) << U(32) | U(ns) << U(8) | U(settings)) * U(0x9E3779B97F4A7C15)
    return (h ^ h >> U(32)) & U(ends.shape[0] - 1)


@inner
def end_place(ends: Any, ns: Int, proto: Int, address: Int, port: Int, ipv6: Int, settings: Int) -> Int:
    """The row of this end, or the free one where it belongs."""
    at = end_home(ends, ns, address, settings)
    while ends[at]["proto"] != 0:
        held = ends[at]
        if held["address"] == address and held["ns"] == ns and held["port"] == port and held["proto"] == proto:
            if held["ipv6"] == ipv6 and held["settings"] == settings:
                return at
        at = (at + U(1)) & U(ends.shape[0] - 1)
    return at


@kernel
def end_number(s: FlowState, ns: Int, proto: Int, address: Int, port: Int, ipv6: Int, settings: Int) -> Int:
    """The number of this end, which is made if there is none. The caller sees to the room."""
    at = end_place(s.ends, ns, proto, address, port, ipv6, settings)
    end = s.ends[at]
    if end["proto"] == 0:
        end["ns"], end["proto"], end["address"] = ns, proto, address
        end["port"], end["ipv6"], end["settings"] = port, ipv6, settings
        s.counts[N_ENDS] += 1
    return np.int64(at)


@kernel
def room_for_ends(s: FlowState) -> Int:
    return 2 * (s.counts[N_ENDS] + 2) <= s.ends.shape[0]


@kernel
def move_ends(s: FlowState, ends: Any) -> None:
    """Into another table, empty but for the row that is nobody's: outer entries then say the rows of that one."""
    for number in range(1, s.counts[OUTER_HIGH] + 1):
        entry = s.outer[number]
        if entry["key"] == U(0):
            continue
        near, far = s.ends[near_of(entry)], s.ends[far_of(entry)]
        rows = _moved(near, ends), _moved(far, ends)
        entry["key"] = outer_key(rows[0], rows[1], ports_of(s, entry) >> 16, bits_of(entry))


@inner
def _moved(end: Any, ends: Any) -> Int:
    at = end_place(ends, end["ns"], end["proto"], end["address"], end["port"], end["ipv6"], end["settings"])
    ends[at] = end
    return at


# -- entries -----------------------------------------------------------------------------------------------------------
@unit
@kernel
def find_outer(s: FlowState, ns: Int, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int, now: Int) -> Int:
    """The living outer entry of ``ns`` with this tuple: number << 1 | direction; ``NONE``, ``ELSEWHERE``."""
    h = tuple_hash(proto, src, dst, ports, ipv6)
    if elsewhere(s, h):
        return -1
    at = fitting(s.outer_slots, h, home(s.outer_slots, h))
    while s.outer_slots[at] != 0:
        number = np.int64(s.outer_slots[at] & NUMBER)
        at = fitting(s.outer_slots, h, after(s.outer_slots, at))
        entry = s.outer[number]
        if s.ends[near_of(entry)]["ns"] != ns and s.ends[far_of(entry)]["ns"] != ns:
            continue
        same = fits(s, entry, proto, src, dst, ports, ipv6)
        if not same and not fits(s, entry, proto, dst, src, inverted_ports(proto, ports), ipv6):
            continue
        if outer_alive(s, number, now):  # a dead one may be before it, begun from the other side
            return number << 1 | (0 if same else 1)
    return 0


@kernel
def room_for_outer(s: FlowState) -> Int:
    """Are there a record, slots and rows of ends for one more entry? If not, the caller grows the tables."""
    unused = s.counts[N_OUTER_FREE] != 0 or s.counts[OUTER_HIGH] + 1 < s.outer.shape[0]
    slots = not crowded(s.outer_slots, s.counts[N_OUTERS] + 1, s.counts[N_OUTER_TOMBS])
    return unused and slots and room_for_ends(s)


@unit
@kernel
def new_outer(
    s: FlowState, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int, ns0: Int, ns1: Int, settings: Int
) -> Int:
    """A linked outer entry: the dead one of the same tuple, whose bits and times it still has, or a new record without any;
    0 if there is no room."""
    if not room_for_outer(s):
        return 0
    near = end_number(s, ns0, proto, src, ports & 0xFFFF, ipv6, settings)
    far = end_number(s, ns1, proto, dst, ports & 0xFFFF, ipv6, settings)
    h = tuple_hash(proto, src, dst, ports, ipv6)
    at = fitting(s.outer_slots, h, home(s.outer_slots, h))
    while s.outer_slots[at] != 0:
        number = np.int64(s.outer_slots[at] & NUMBER)
        at = fitting(s.outer_slots, h, after(s.outer_slots, at))
        entry = s.outer[number]
        if fits(s, entry, proto, src, dst, ports, ipv6):
            if s.ends[near_of(entry)]["ns"] == ns0 and s.ends[far_of(entry)]["ns"] == ns1:
                entry["key"] = outer_key(near, far, ports >> 16, bits_of(entry))  # the settings may be others
                return number
    number = s.counts[N_OUTER_FREE]
    if number != 0:
        s.counts[N_OUTER_FREE] = np.int64(s.outer[number]["last"])
    else:
        s.counts[OUTER_HIGH] += 1
        number = s.counts[OUTER_HIGH]
    s.outer[number]["key"] = outer_key(near, far, ports >> 16, 0)
    if insert(s.outer_slots, h, number):
        s.counts[N_OUTER_TOMBS] -= 1
    s.counts[N_OUTERS] += 1
    return number


@kernel
def drop_outer(s: FlowState, number: Int) -> None:
    entry = s.outer[number]
    s.counts[N_OUTER_TOMBS] += remove(s.outer_slots, outer_hash(s, entry), number)
    entry["key"] = 0
    entry["last"] = np.uint32(s.counts[N_OUTER_FREE])
    s.counts[N_OUTER_FREE] = number
    s.counts[N_OUTERS] -= 1


@kernel
def index_outers(s: FlowState) -> None:
    """Write the index anew from the records: after growing, or to get rid of tombs."""
    s.outer_slots[:] = 0
    s.counts[N_OUTER_TOMBS] = 0
    for number in range(1, s.counts[OUTER_HIGH] + 1):
        if s.outer[number]["key"] != U(0):
            insert(s.outer_slots, outer_hash(s, s.outer[number]), number)
