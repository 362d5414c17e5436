"""Connections at rest: one record a flow for the conntrack entries of *all* namespaces on its way.

The entries that one connection has on its way (the sender's node, the receiver's node, …) are seen by the same packets,
so they share state and timers, and their tuples follow from two: ``s0`` as the first namespace sees the packets of the
original direction, ``s1`` behind the one namespace that translates (``s0`` everywhere before it, ``s1`` everywhere after
it). That is what a record holds; ``ns`` lists the namespaces in order. A connection that does not fit (two namespaces
translate, or its packets stop reaching all of them) is *thawed*: it becomes ordinary entries of the interpreter's tables.

Where the bytes are, per flow:

    index   4 B a slot   8 bits of tag | 24 bits of flow number; at most half full; one slot for s0, one for s1 if it differs
    hot     64 B         one cache line: keys of both directions, ends, class, times, counters: all that an established
                         packet reads or writes (index line + this line are the two lines a packet costs)
    cold    32 B         what only first packets and changes of state touch
    packets 4 B          of both directions, without those that ``hot`` counts
    tcp     64 B         one cache line: windows (TCP alone; the third line of its packets)
    outer   40 B         one per tunnel's tuple and direction, shared by flows whose outer tuples collide

The hash is symmetric (both directions of a tuple meet in one slot). Times are milliseconds of simulated
time, 32 bits: 49 days.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.unit import unit

U = np.uint64
Array = Any  # a structured array; numba knows its fields

HOT = np.dtype(
    [
        ("s0_src", "u4"),
        ("s0_dst", "u4"),
        ("s0_ports", "u4"),  # source << 16 | destination; ICMP echo: identifier << 16 | type << 8 | code
        ("s1_src", "u4"),
        ("s1_dst", "u4"),
        ("s1_ports", "u4"),
        ("proto", "u1"),  # 0: the record is free
        ("state", "u1"),  # a column of ``FlowState.timeouts``
        ("status", "u2"),
        ("end0", "u4"),  # origin of the original direction, receiver of replies
        ("end1", "u4"),
        ("class0", "u2"),  # row of ``FlowState.classes`` for packets of this direction; 0: take the slow path
        ("class1", "u2"),
        ("last0", "u4"),  # ms of the last packet of this direction
        ("last1", "u4"),
        ("packets0", "u4"),  # that took the fast path since they were last folded into ``packets`` and rule counters
        ("packets1", "u4"),
        ("bytes0", "u4"),
        ("bytes1", "u4"),
    ]
)
COLD = np.dtype(
    [
        ("born", "u4"),
        ("ns", "u4", 3),
        ("outer0", "u4"),  # number of the outer entry that packets of this direction travel in, 0: none
        ("outer1", "u4"),
        ("count", "u1"),  # namespaces in ``ns``
        ("nat_at", "u1"),  # which of them translates; ``count`` if none
        ("settings", "u1"),  # row of ``FlowState.timeouts``
        ("spare", "u1"),
        ("masquerade", "u4"),  # device name number
    ]
)
OUTER = np.dtype(
    [
        ("src", "u4"),
        ("dst", "u4"),
        ("ports", "u4"),
        ("proto", "u1"),  # 0: free
        ("state", "u1"),
        ("status", "u1"),
        ("settings", "u1"),
        ("ns0", "u4"),
        ("ns1", "u4"),
        ("born", "u4"),
        ("last", "u4"),  # meaningful while ``owner`` is 0
        ("owner", "u4"),  # flow << 1 | direction whose ``last`` counts, 0: kept here
        ("spare", "u4"),
    ]
)
CLASS = np.dtype(
    [
        ("verdict", "u1"),
        ("ttl", "u1"),  # what the way takes from the TTL
        ("longest", "u2"),  # bytes of the largest packet that passes untouched
        ("rules", "u4"),  # evaluated per packet
        ("timeout", "u4"),  # ms that the entries live on after a packet
        ("outer_timeout", "u4"),  # ms that the tunnel's entry does; the largest number without a tunnel
        ("tcp", "u1"),  # 1: the windows must be looked at
        ("outer_kept", "u1"),  # 1: the outer entry keeps its own time
        ("masqueraded", "u1"),
        ("hits", "u1"),  # rules that match such a packet
        ("least", "u1"),  # TTLs up to this end on the way
        ("spare", "u1", 3),
        (
            "profile",
            "u4",
        ),  # first row of ``FlowState.profiles``: (which of the flow's namespaces << 30 | table << 26 | rule) each
    ]
)
assert HOT.itemsize == 64
assert COLD.itemsize == 32
assert OUTER.itemsize == 40

# Status bits of a flow (``Hot.status``) and of an outer entry.
IPV6, SNAT, DNAT, SEEN_REPLY, ASSURED = 1, 2, 4, 8, 16

# Columns of ``timeouts``: what an entry's life depends on. The first ten are TCP's states.
TCP_STATES = ("NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2")
UDP, UDP_STREAM, ICMP_ECHO, ICMPV6_ECHO, GENERIC = 10, 11, 12, 13, 14
TIMEOUT_NAMES = (
    "tcp_timeout_none",
    "tcp_timeout_syn_sent",
    "tcp_timeout_syn_recv",
    "tcp_timeout_established",
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
    "tcp_timeout_close",
    "tcp_timeout_syn_sent",
    "udp_timeout",
    "udp_timeout_stream",
    "icmp_timeout",
    "icmpv6_timeout",
    "generic_timeout",
)

NONE, ELSEWHERE = 0, -1  # answers of ``find``: no entry; the interpreter may hold one
TOMB = np.uint32(0xFFFFFFFF)
TAG = np.uint32(0xFF000000)
NUMBER = np.uint32(0x00FFFFFF)
MOST = 0x00FFFFFE
GONE = U(2)  # in ``elsewhere``: no hash, but the search goes on


class FlowState(NamedTuple):
    """The arrays that kernels see. Flow and outer numbers start at 1."""

    slots: npt.NDArray[np.uint32]
    outer_slots: npt.NDArray[np.uint32]
    hot: Array
    cold: Array
    outer: Array
    tcp: Array
    packets: npt.NDArray[np.uint32]
    timeouts: npt.NDArray[np.uint32]  # (settings, 16) ms
    sources: npt.NDArray[np.uint32]  # heads of the chains by source, node = flow << 1 | stage
    sources_next: npt.NDArray[np.uint32]  # (flows, 2)
    elsewhere: npt.NDArray[np.uint64]  # hashes of tuples that the interpreter's tables hold
    classes: Array
    profiles: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int64]  # see the places below


# Places in ``counts``.
(
    N_FLOWS,
    N_FREE,
    N_OUTERS,
    N_OUTER_FREE,
    N_CLASSES,
    N_ELSEWHERE,
    N_TOMBS,
    N_OUTER_TOMBS,
    HIGH,
    OUTER_HIGH,
    N_PROFILES,
) = range(11)
COUNTS = 16


def aligned(count: int, dtype: np.dtype[np.void]) -> Array:
    """Zeros that begin on a cache line: a record of 64 bytes must not straddle two."""
    room = np.zeros(count * dtype.itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + count * dtype.itemsize].view(dtype)


@kernel
def tuple_hash(proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int) -> Int:
    """Symmetric: a tuple and its inverse have one hash. Of ICMP the identifier counts alone: the type changes sides."""
    if proto == 1 or proto == 58:
        a = U(src) << U(16) | U(ports) >> U(16)
        b = U(dst) << U(16) | U(ports) >> U(16)
    else:
        a = U(src) << U(16) | U(ports) >> U(16)
        b = U(dst) << U(16) | (U(ports) & U(0xFFFF))
    low = min(a, b)
    high = max(a, b)
    h = low * U(0x9E3779B97F4A7C15)
    h ^= h >> U(32)
    h = (h + high) * U(0xD6E8FEB86659FD93)
    h ^= h >> U(32)
    h = (h + (U(proto) | U(ipv6) << U(8))) * U(0xA24BAED4963EE407)
    return h ^ h >> U(29)


@kernel
def inverted_ports(proto: Int, ports: Int) -> Int:
    """The ports of the other direction; for ICMP echo the other type, with the same identifier."""
    if proto == 1:
        kind = (ports >> 8) & 0xFF
        return (ports & 0xFFFF0000) | (0 if kind == 8 else 8) << 8
    if proto == 58:
        kind = (ports >> 8) & 0xFF
        return (ports & 0xFFFF0000) | (129 if kind == 128 else 128) << 8
    return (ports >> 16 | ports << 16) & 0xFFFFFFFF


@kernel
def tag(h: Int) -> Int:
    return np.uint32(h >> U(32)) & TAG


@inner
def fitting(slots: npt.NDArray[np.uint32], h: Int, start: Int) -> Int:
    """The place of the first slot from ``start`` on whose tag fits a hash; of an empty one (0) if there is none."""
    mask = U(slots.shape[0] - 1)
    wanted = tag(h)
    at = start & mask
    while slots[at] != 0 and (slots[at] & TAG != wanted or slots[at] == TOMB):
        at = (at + U(1)) & mask
    return at


@kernel
def last_of(s: FlowState, flow: Int) -> Int:
    hot = s.hot[flow]
    return max(np.int64(hot["last0"]), np.int64(hot["last1"]))


@kernel
def alive(s: FlowState, flow: Int, now: Int) -> Int:
    hot = s.hot[flow]
    life = np.int64(s.timeouts[s.cold[flow]["settings"], hot["state"]])
    return hot["proto"] != 0 and last_of(s, flow) + life > now


@kernel
def entry_at(s: FlowState, flow: Int, ns: Int) -> Int:
    """The place of ``ns`` among the flow's namespaces; -1 if it holds no entry there."""
    cold = s.cold[flow]
    for place in range(np.int64(cold["count"])):
        if cold["ns"][place] == ns:
            return place
    return -1


@kernel
def elsewhere(s: FlowState, h: Int) -> Int:
    """May the interpreter's tables hold this tuple? (Only its hash is kept: a false yes costs time, never exactness.)"""
    if s.counts[N_ELSEWHERE] == 0:
        return False
    mask = U(s.elsewhere.shape[0] - 1)
    at = h >> U(1) & mask
    while s.elsewhere[at] != U(0):
        if s.elsewhere[at] == h | U(1):
            return True
        at = (at + U(1)) & mask
    return False


@kernel
def add_elsewhere(s: FlowState, h: Int) -> Int:
    """True if the hash is new. The caller sees to the room."""
    mask = U(s.elsewhere.shape[0] - 1)
    at = h >> U(1) & mask
    while s.elsewhere[at] != U(0):
        if s.elsewhere[at] == h | U(1):
            return False
        at = (at + U(1)) & mask
    s.elsewhere[at] = h | U(1)
    s.counts[N_ELSEWHERE] += 1
    return True


@kernel
def remove_elsewhere(s: FlowState, h: Int) -> None:
    mask = U(s.elsewhere.shape[0] - 1)
    at = h >> U(1) & mask
    while s.elsewhere[at] != U(0):
        if s.elsewhere[at] == h | U(1):
            s.elsewhere[at] = GONE
            return
        at = (at + U(1)) & mask


@unit
@kernel
def find(s: FlowState, ns: Int, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int, now: Int) -> Int:
    """The entry of ``ns`` for this tuple: flow << 1 | direction (1: the tuple is a reply). ``NONE`` or ``ELSEWHERE``."""
    h = tuple_hash(proto, src, dst, ports, ipv6)
    if elsewhere(s, h):
        return -1
    at = fitting(s.slots, h, h)
    while s.slots[at] != 0:
        flow = np.int64(s.slots[at] & NUMBER)
        at = fitting(s.slots, h, at + U(1))
        hot = s.hot[flow]
        if hot["proto"] != proto or (hot["status"] & 1) != ipv6:
            continue
        place = entry_at(s, flow, ns)
        if place < 0 or not alive(s, flow, now):
            continue
        nat_at = s.cold[flow]["nat_at"]
        if place <= nat_at:
            if hot["s0_src"] == src and hot["s0_dst"] == dst and hot["s0_ports"] == ports:
                return flow << 1
        elif hot["s1_src"] == src and hot["s1_dst"] == dst and hot["s1_ports"] == ports:
            return flow << 1
        turned = inverted_ports(proto, ports)
        if place >= nat_at:
            if hot["s1_src"] == dst and hot["s1_dst"] == src and hot["s1_ports"] == turned:
                return flow << 1 | 1
        elif hot["s0_src"] == dst and hot["s0_dst"] == src and hot["s0_ports"] == turned:
            return flow << 1 | 1
    return 0


@kernel
def find_any(s: FlowState, proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int) -> Int:
    """A flow whose first packets look like this (0) or whose replies do (1), wherever it has entries; 0 if there is none.

    This is the fast path's key: a packet of the original direction enters as ``s0``, a reply as ``s1`` turned round."""
    h = tuple_hash(proto, src, dst, ports, ipv6)
    at = fitting(s.slots, h, h)
    turned = inverted_ports(proto, ports)
    while s.slots[at] != 0:
        flow = np.int64(s.slots[at] & NUMBER)
        at = fitting(s.slots, h, at + U(1))
        hot = s.hot[flow]
        if hot["proto"] != proto or (hot["status"] & 1) != ipv6:
            continue
        if hot["s0_src"] == src and hot["s0_dst"] == dst and hot["s0_ports"] == ports:
            return flow << 1
        if hot["s1_src"] == dst and hot["s1_dst"] == src and hot["s1_ports"] == turned:
            return flow << 1 | 1
    return 0


@kernel
def source_hash(s: FlowState, proto: Int, src: Int, port: Int) -> Int:
    h = (U(src) << U(24) ^ U(port) << U(8) ^ U(proto)) * U(0x9E3779B97F4A7C15)
    return np.int64(h >> U(24) & U(s.sources.shape[0] - 1))


@kernel
def source_key(proto: Int, src: Int, port: Int, ipv6: Int) -> Int:
    """What ``elsewhere`` keeps of a source: the hash of a tuple that nothing else has."""
    return tuple_hash(proto, src, 0xFFFFFFFF, port << 16, ipv6)


@unit
def same_source(s: FlowState, ns: Int, proto: Int, src: Int, port: Int, ipv6: Int, now: Int) -> Int:
    """Does ``ns`` hold another connection from this address and port (``find_appropriate_src``)?"""
    node = np.int64(s.sources[source_hash(s, proto, src, port)])
    while node != 0:
        flow, stage = node >> 1, node & 1
        hot = s.hot[flow]
        if hot["proto"] == proto and (hot["status"] & 1) == ipv6 and alive(s, flow, now):
            place = entry_at(s, flow, ns)
            if place >= 0:
                behind = place > s.cold[flow]["nat_at"]
                have = hot["s1_src"] if behind else hot["s0_src"]
                have_port = (hot["s1_ports"] if behind else hot["s0_ports"]) >> 16
                if have == src and have_port == port:
                    return 1
        node = np.int64(s.sources_next[flow, stage])
    return 0


@kernel
def insert(slots: npt.NDArray[np.uint32], h: Int, number: Int) -> Int:
    """True if a tomb was reused."""
    mask = U(slots.shape[0] - 1)
    at = h & mask
    while slots[at] != 0 and slots[at] != TOMB:
        at = (at + U(1)) & mask
    reused = slots[at] == TOMB
    slots[at] = tag(h) | np.uint32(number)
    return reused


@kernel
def remove(slots: npt.NDArray[np.uint32], h: Int, number: Int) -> Int:
    mask = U(slots.shape[0] - 1)
    wanted = tag(h) | np.uint32(number)
    at = h & mask
    while slots[at] != 0:
        if slots[at] == wanted:
            slots[at] = TOMB
            return True
        at = (at + U(1)) & mask
    return False


@kernel
def _chain_source(s: FlowState, flow: Int, stage: Int, proto: Int, src: Int, port: Int) -> None:
    head = source_hash(s, proto, src, port)
    s.sources_next[flow, stage] = s.sources[head]
    s.sources[head] = np.uint32(flow << 1 | stage)


@kernel
def _unchain_source(s: FlowState, flow: Int, stage: Int, proto: Int, src: Int, port: Int) -> None:
    head = source_hash(s, proto, src, port)
    wanted = np.int64(flow << 1 | stage)
    node = np.int64(s.sources[head])
    before = np.int64(0)
    while node != 0:
        after = s.sources_next[node >> 1, node & 1]
        if node == wanted:
            if before == 0:
                s.sources[head] = after
            else:
                s.sources_next[before >> 1, before & 1] = after
            return
        before = node
        node = np.int64(after)


@unit
@kernel
def link_flow(s: FlowState, flow: Int) -> Int:
    """Make a filled-in record findable."""
    hot = s.hot[flow]
    v6 = np.int64(hot["status"] & 1)
    a = tuple_hash(hot["proto"], hot["s0_src"], hot["s0_dst"], hot["s0_ports"], v6)
    b = tuple_hash(hot["proto"], hot["s1_src"], hot["s1_dst"], hot["s1_ports"], v6)
    if insert(s.slots, a, flow):
        s.counts[N_TOMBS] -= 1
    if a != b and insert(s.slots, b, flow):
        s.counts[N_TOMBS] -= 1
    _chain_source(s, flow, 0, hot["proto"], hot["s0_src"], hot["s0_ports"] >> 16)
    if hot["s0_src"] != hot["s1_src"] or hot["s0_ports"] >> 16 != hot["s1_ports"] >> 16:
        _chain_source(s, flow, 1, hot["proto"], hot["s1_src"], hot["s1_ports"] >> 16)
    s.counts[N_FLOWS] += 1
    return 0


@kernel
def new_flow(s: FlowState) -> Int:
    """A free record, cleared; 0 if there is none (the caller grows the table)."""
    free = s.counts[N_FREE]
    if free != 0:
        s.counts[N_FREE] = np.int64(s.hot[free]["s0_src"])
        return free
    if s.counts[HIGH] + 1 >= s.hot.shape[0]:
        return 0
    s.counts[HIGH] += 1
    return s.counts[HIGH]


@unit
def drop_flow(s: FlowState, flow: Int) -> Int:
    """Forget a flow; its outer entries keep their own time from now on."""
    hot = s.hot[flow]
    cold = s.cold[flow]
    v6 = np.int64(hot["status"] & 1)
    disown(s, cold["outer0"], flow << 1, hot["last0"])
    disown(s, cold["outer1"], flow << 1 | 1, hot["last1"])
    a = tuple_hash(hot["proto"], hot["s0_src"], hot["s0_dst"], hot["s0_ports"], v6)
    b = tuple_hash(hot["proto"], hot["s1_src"], hot["s1_dst"], hot["s1_ports"], v6)
    s.counts[N_TOMBS] += remove(s.slots, a, flow)
    if a != b:
        s.counts[N_TOMBS] += remove(s.slots, b, flow)
    _unchain_source(s, flow, 0, hot["proto"], hot["s0_src"], hot["s0_ports"] >> 16)
    if hot["s0_src"] != hot["s1_src"] or hot["s0_ports"] >> 16 != hot["s1_ports"] >> 16:
        _unchain_source(s, flow, 1, hot["proto"], hot["s1_src"], hot["s1_ports"] >> 16)
    hot["proto"] = 0
    hot["class0"] = 0
    hot["class1"] = 0
    hot["s0_src"] = np.uint32(s.counts[N_FREE])
    s.counts[N_FREE] = flow
    s.counts[N_FLOWS] -= 1
    return 0


@kernel
def disown(s: FlowState, number: Int, owner: Int, last: Int) -> None:
    if number != 0 and s.outer[number]["owner"] == owner:
        s.outer[number]["owner"] = 0
        s.outer[number]["last"] = last


@kernel
def rebuild(s: FlowState) -> None:
    """Fill empty indexes from the records (after growing, or to get rid of tombs)."""
    for flow in range(1, s.counts[HIGH] + 1):
        hot = s.hot[flow]
        if hot["proto"] == 0:
            continue
        v6 = np.int64(hot["status"] & 1)
        a = tuple_hash(hot["proto"], hot["s0_src"], hot["s0_dst"], hot["s0_ports"], v6)
        b = tuple_hash(hot["proto"], hot["s1_src"], hot["s1_dst"], hot["s1_ports"], v6)
        insert(s.slots, a, flow)
        if a != b:
            insert(s.slots, b, flow)
        _chain_source(s, flow, 0, hot["proto"], hot["s0_src"], hot["s0_ports"] >> 16)
        if hot["s0_src"] != hot["s1_src"] or hot["s0_ports"] >> 16 != hot["s1_ports"] >> 16:
            _chain_source(s, flow, 1, hot["proto"], hot["s1_src"], hot["s1_ports"] >> 16)
    for number in range(1, s.counts[OUTER_HIGH] + 1):
        entry = s.outer[number]
        if entry["proto"] != 0:
            insert(
                s.outer_slots,
                tuple_hash(entry["proto"], entry["src"], entry["dst"], entry["ports"], np.int64(entry["status"] & 1)),
                number,
            )
    s.counts[N_TOMBS] = 0
    s.counts[N_OUTER_TOMBS] = 0
