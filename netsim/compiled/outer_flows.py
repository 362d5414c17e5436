"""Outer entries: a tunnel's own conversation, one record for its entries in the sending and in the receiving namespace.

Many flows may travel in one of them. As long as it is only one direction of one flow, that is its *owner*, whose time of the
last packet counts for both, so that the fast path need not touch it; else it keeps its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.flow_index import after, crowded, fitting, home, insert, inverted_ports, remove, tuple_hash
from netsim.compiled.flow_records import (
    N_OUTER_FREE,
    N_OUTER_TOMBS,
    N_OUTERS,
    NUMBER,
    OUTER_HIGH,
    SEEN_REPLY,
    UDP_STREAM,
    FlowState,
)
from netsim.compiled.flows import elsewhere
from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.unit import unit

U = np.uint64


@kernel
def outer_last(s: FlowState, number: Int) -> Int:
    entry = s.outer[number]
    if entry["owner"] == 0:
        return np.int64(entry["last"])
    hot = s.hot[entry["owner"] >> 1]
    return np.int64(hot["last1"]) if entry["owner"] & 1 else np.int64(hot["last0"])


@kernel
def outer_alive(s: FlowState, number: Int, now: Int) -> Int:
    entry = s.outer[number]
    return outer_last(s, number) + np.int64(s.timeouts[entry["settings"], entry["state"]]) > now


@inner
def settled(entry: Any) -> Int:
    """Will the tunnel's next packets meet the same rules and timeout? If both ends speak with the same tuple (IPIP and
    flanneld), only once both have: replies make its packets ESTABLISHED, and UDP a stream."""
    if entry["proto"] != 17:
        return entry["status"] & SEEN_REPLY != 0
    return entry["ports"] >> 16 != entry["ports"] & 0xFFFF or entry["state"] == UDP_STREAM


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
        if entry["proto"] != proto or (entry["status"] & 1) != ipv6 or (entry["ns0"] != ns and entry["ns1"] != ns):
            continue
        same = entry["src"] == src and entry["dst"] == dst and entry["ports"] == ports
        turned = entry["src"] == dst and entry["dst"] == src and entry["ports"] == inverted_ports(proto, ports)
        if (same or turned) and outer_alive(s, number, now):  # a dead one may be before it, begun from the other side
            return number << 1 | (0 if same else 1)
    return 0


@kernel
def room_for_outer(s: FlowState) -> Int:
    unused = s.counts[N_OUTER_FREE] != 0 or s.counts[OUTER_HIGH] + 1 < s.outer.shape[0]
    return unused and not crowded(s.outer_slots, s.counts[N_OUTERS] + 1, s.counts[N_OUTER_TOMBS])


@unit
@kernel
def new_outer(s: FlowState, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int, ns0: Int, ns1: Int) -> Int:
    """A linked outer entry: the dead one of the same tuple, or a new record; 0 if there is no room."""
    h = tuple_hash(proto, src, dst, ports, ipv6)
    at = fitting(s.outer_slots, h, home(s.outer_slots, h))
    while s.outer_slots[at] != 0:
        number = np.int64(s.outer_slots[at] & NUMBER)
        at = fitting(s.outer_slots, h, after(s.outer_slots, at))
        entry = s.outer[number]
        if entry["proto"] == proto and entry["src"] == src and entry["dst"] == dst and entry["ports"] == ports:
            if entry["ns0"] == ns0 and entry["ns1"] == ns1 and (entry["status"] & 1) == ipv6:
                return number
    if not room_for_outer(s):
        return 0
    number = s.counts[N_OUTER_FREE]
    if number != 0:
        s.counts[N_OUTER_FREE] = np.int64(s.outer[number]["src"])
    else:
        s.counts[OUTER_HIGH] += 1
        number = s.counts[OUTER_HIGH]
    entry = s.outer[number]
    entry["src"], entry["dst"], entry["ports"] = src, dst, ports
    entry["proto"] = proto
    entry["ns0"], entry["ns1"] = ns0, ns1
    entry["status"] = ipv6
    entry["owner"] = 0
    if insert(s.outer_slots, h, number):
        s.counts[N_OUTER_TOMBS] -= 1
    s.counts[N_OUTERS] += 1
    return number


@kernel
def drop_outer(s: FlowState, number: Int) -> None:
    entry = s.outer[number]
    h = tuple_hash(entry["proto"], entry["src"], entry["dst"], entry["ports"], np.int64(entry["status"] & 1))
    s.counts[N_OUTER_TOMBS] += remove(s.outer_slots, h, number)
    entry["proto"] = 0
    entry["src"] = np.uint32(s.counts[N_OUTER_FREE])
    s.counts[N_OUTER_FREE] = number
    s.counts[N_OUTERS] -= 1


@kernel
def index_outers(s: FlowState) -> None:
    """Write the index anew from the records: after growing, or to get rid of tombs."""
    s.outer_slots[:] = 0
    s.counts[N_OUTER_TOMBS] = 0
    for number in range(1, s.counts[OUTER_HIGH] + 1):
        entry = s.outer[number]
        if entry["proto"] != 0:
            v6 = np.int64(entry["status"] & 1)
            insert(s.outer_slots, tuple_hash(entry["proto"], entry["src"], entry["dst"], entry["ports"], v6), number)
