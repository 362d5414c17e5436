"""Flows: found by tuple, chained by source, made and forgotten. What a record holds: ``flow_records``."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.flow_index import after, crowded, fitting, home, insert, inverted_ports, remove, tuple_hash
from netsim.compiled.flow_records import (
    HIGH,
    N_ELSEWHERE,
    N_FLOWS,
    N_FREE,
    N_TOMBS,
    NEXT0,
    NEXT1,
    NUMBER,
    FlowState,
    count_of,
    keep_time,
    namespace_of,
    nat_at_of,
    number_at,
    outer_of,
    owner_of,
    set_number,
    settings_of,
)
from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.unit import unit

U = np.uint64
NONE, ELSEWHERE = 0, -1  # answers of ``find``: no entry; the interpreter may hold one
GONE = U(2)  # in ``elsewhere``: no hash, but the search goes on


@kernel
def last_of(s: FlowState, flow: Int) -> Int:
    hot = s.hot[flow]
    return max(np.int64(hot["last0"]), np.int64(hot["last1"]))


@kernel
def alive(s: FlowState, flow: Int, now: Int) -> Int:
    hot = s.hot[flow]
    life = np.int64(s.timeouts[settings_of(hot), hot["state"]])
    return hot["proto"] != 0 and last_of(s, flow) + life > now


@kernel
def entry_at(s: FlowState, flow: Int, ns: Int) -> Int:
    """The place of ``ns`` among the flow's namespaces; -1 if it holds no entry there."""
    for place in range(count_of(s.hot[flow])):
        if namespace_of(s, flow, place) == ns:
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
    at = fitting(s.slots, h, home(s.slots, h))
    while s.slots[at] != 0:
        flow = np.int64(s.slots[at] & NUMBER)
        at = fitting(s.slots, h, after(s.slots, at))
        hot = s.hot[flow]
        if hot["proto"] != proto or (hot["status"] & 1) != ipv6:
            continue
        place = entry_at(s, flow, ns)
        if place < 0 or not alive(s, flow, now):
            continue
        nat_at = nat_at_of(hot)
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
    at = fitting(s.slots, h, home(s.slots, h))
    turned = inverted_ports(proto, ports)
    while s.slots[at] != 0:
        flow = np.int64(s.slots[at] & NUMBER)
        at = fitting(s.slots, h, after(s.slots, at))
        hot = s.hot[flow]
        if hot["proto"] != proto or (hot["status"] & 1) != ipv6:
            continue
        if hot["s0_src"] == src and hot["s0_dst"] == dst and hot["s0_ports"] == ports:
            return flow << 1
        if hot["s1_src"] == dst and hot["s1_dst"] == src and hot["s1_ports"] == turned:
            return flow << 1 | 1
    return 0


@kernel
def source_head(s: FlowState, proto: Int, src: Int, port: Int) -> Int:
    """The place in ``sources`` of the chain that flows from this address and port are in."""
    h = (U(src) << U(24) ^ U(port) << U(8) ^ U(proto)) * U(0x9E3779B97F4A7C15)
    return np.int64((h >> U(32)) * U(s.sources.shape[0]) >> U(32))


@kernel
def source_key(proto: Int, src: Int, port: Int, ipv6: Int) -> Int:
    """What ``elsewhere`` keeps of a source: the hash of a tuple that nothing else has."""
    return tuple_hash(proto, src, 0xFFFFFFFF, port << 16, ipv6)


@unit
def same_source(s: FlowState, ns: Int, proto: Int, src: Int, port: Int, ipv6: Int, now: Int) -> Int:
    """Does ``ns`` hold another connection from this address and port (``find_appropriate_src``)?"""
    head = source_head(s, proto, src, port)
    flow = np.int64(s.sources[head])
    while flow != 0:
        hot = s.hot[flow]
        if hot["proto"] == proto and (hot["status"] & 1) == ipv6 and alive(s, flow, now):
            place = entry_at(s, flow, ns)
            if place >= 0:
                behind = place > nat_at_of(hot)
                have = hot["s1_src"] if behind else hot["s0_src"]
                have_port = (hot["s1_ports"] if behind else hot["s0_ports"]) >> 16
                if have == src and have_port == port:
                    return 1
        flow = number_at(s.rest[flow], link_in(s, flow, head))
    return 0


@inner
def first_head(s: FlowState, hot: Any) -> Int:
    return source_head(s, hot["proto"], hot["s0_src"], hot["s0_ports"] >> 16)


@inner
def second_head(s: FlowState, hot: Any) -> Int:
    return source_head(s, hot["proto"], hot["s1_src"], hot["s1_ports"] >> 16)


@inner
def link_in(s: FlowState, flow: Int, head: Int) -> Int:
    """Which of the flow's links goes on in this chain: a flow is in the chains of both its sources, once in each."""
    return NEXT0 if first_head(s, s.hot[flow]) == head else NEXT1


@kernel
def _chain(s: FlowState, flow: Int, head: Int, link: Int) -> None:
    set_number(s.rest[flow], link, np.int64(s.sources[head]))
    s.sources[head] = np.uint32(flow)


@kernel
def _unchain(s: FlowState, flow: Int, head: Int) -> None:
    before = np.int64(0)
    at = np.int64(s.sources[head])
    while at != 0:
        behind = number_at(s.rest[at], link_in(s, at, head))
        if at == flow:
            if before == 0:
                s.sources[head] = np.uint32(behind)
            else:
                set_number(s.rest[before], link_in(s, before, head), behind)
            return
        before, at = at, behind


@kernel
def _link(s: FlowState, flow: Int) -> None:
    hot = s.hot[flow]
    v6 = np.int64(hot["status"] & 1)
    a = tuple_hash(hot["proto"], hot["s0_src"], hot["s0_dst"], hot["s0_ports"], v6)
    b = tuple_hash(hot["proto"], hot["s1_src"], hot["s1_dst"], hot["s1_ports"], v6)
    if insert(s.slots, a, flow):
        s.counts[N_TOMBS] -= 1
    if a != b and insert(s.slots, b, flow):
        s.counts[N_TOMBS] -= 1
    first, second = first_head(s, hot), second_head(s, hot)
    _chain(s, flow, first, NEXT0)
    if second != first:
        _chain(s, flow, second, NEXT1)
    s.counts[N_FLOWS] += 1


@unit
@kernel
def link_flow(s: FlowState, flow: Int) -> Int:
    """Make a filled-in record findable."""
    _link(s, flow)
    return 0


@kernel
def room_for_flow(s: FlowState) -> Int:
    """Is there a record for one more, and are there slots? If not, the caller grows the table."""
    unused = s.counts[N_FREE] != 0 or s.counts[HIGH] + 1 < s.hot.shape[0]
    return unused and not crowded(s.slots, 2 * (s.counts[N_FLOWS] + 1), s.counts[N_TOMBS])


@kernel
def new_flow(s: FlowState) -> Int:
    """A free record; 0 if there is no room."""
    if not room_for_flow(s):
        return 0
    free = s.counts[N_FREE]
    if free != 0:
        s.counts[N_FREE] = np.int64(s.hot[free]["s0_src"])
        return free
    s.counts[HIGH] += 1
    return s.counts[HIGH]


@unit
def drop_flow(s: FlowState, flow: Int) -> Int:
    """Forget a flow; its outer entries keep their own time from now on."""
    hot = s.hot[flow]
    v6 = np.int64(hot["status"] & 1)
    disown(s, outer_of(s, flow, 0), flow << 1, hot["last0"])
    disown(s, outer_of(s, flow, 1), flow << 1 | 1, hot["last1"])
    a = tuple_hash(hot["proto"], hot["s0_src"], hot["s0_dst"], hot["s0_ports"], v6)
    b = tuple_hash(hot["proto"], hot["s1_src"], hot["s1_dst"], hot["s1_ports"], v6)
    s.counts[N_TOMBS] += remove(s.slots, a, flow)
    if a != b:
        s.counts[N_TOMBS] += remove(s.slots, b, flow)
    first, second = first_head(s, hot), second_head(s, hot)
    _unchain(s, flow, first)
    if second != first:
        _unchain(s, flow, second)
    hot["proto"] = 0
    hot["class0"] = 0
    hot["class1"] = 0
    hot["s0_src"] = np.uint32(s.counts[N_FREE])
    s.counts[N_FREE] = flow
    s.counts[N_FLOWS] -= 1
    return 0


@kernel
def disown(s: FlowState, number: Int, owner: Int, last: Int) -> None:
    """If the outer entry belongs to ``owner``, it has its own time from now on: ``last``."""
    if number != 0 and owner_of(s.outer[number]) == owner:
        keep_time(s.outer[number], last)


@kernel
def index_flows(s: FlowState) -> None:
    """Write index and chains anew from the records: after growing, or to get rid of tombs."""
    s.slots[:] = 0
    s.sources[:] = 0
    s.counts[N_TOMBS] = 0
    s.counts[N_FLOWS] = 0
    for flow in range(1, s.counts[HIGH] + 1):
        if s.hot[flow]["proto"] != 0:
            _link(s, flow)
