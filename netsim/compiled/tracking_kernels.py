"""Conntrack and NAT on the way of a first packet (``netsim.interpreter.tracking``, ``.nat``, on registers).

Each namespace that tracks the packet is a *stop*: what its table held (``found``), the tuple as it came in and as it leaves.
Nothing is written to the tables here; ``commit`` does that when the journey is over.

Whoever the stops belong to moves in step: the first stop takes the packet into the flow's tracker (on a copy), the others of
the same flow hold the same state. A stop that belongs to another flow than the one before is left to the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import flow_records as fl
from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled.flow_index import inverted_ports
from netsim.compiled.flow_records import bits_of, count_of, namespace_of, nat_at_of, number_at
from netsim.compiled.flows import alive, elsewhere, find, same_source, source_key
from netsim.compiled.jit import Int, kernel
from netsim.compiled.lowered import NAT_KINDS
from netsim.compiled.outer_flows import find_outer
from netsim.compiled.programs import NAT_ADDRESS, NAT_FULLY_RANDOM, NAT_PORTS, NAT_RANDOM
from netsim.compiled.tcp_kernel import ANSWERED, ASSURED, OK
from netsim.compiled.unit import unit
from netsim.compiled.units import select_source, tcp_advance, tcp_begin
from netsim.compiled.world import LIBERAL, LOOSE, TRACKS4, TRACKS6
from netsim.linux.netfilter.base import NatKind
from netsim.linux.netfilter.lowering import CT_BITS

_NEW, _ESTABLISHED, _UNTRACKED = CT_BITS["NEW"], CT_BITS["ESTABLISHED"], CT_BITS["UNTRACKED"]
_SNAT_BIT, _DNAT_BIT = CT_BITS["SNAT"], CT_BITS["DNAT"]
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_RST = 4
NAT_DNAT, NAT_SNAT, NAT_MASQUERADE = (
    NAT_KINDS.index(kind) for kind in (NatKind.DNAT, NatKind.SNAT, NatKind.MASQUERADE)
)
_SEARCH = 64  # ports that a translation tries before the interpreter takes over


@kernel
def bail(x: Any, reason: Int) -> Int:
    x.j[jn.REASON] = reason
    return 2  # BAILED


@kernel
def fault(x: Any, kind: Int, number: Int, value: Int) -> Int:
    x.j[jn.FAULT_KIND] = kind
    x.j[jn.FAULT_NUMBER] = number
    x.j[jn.FAULT_VALUE] = value
    return 3  # FAULTED


@kernel
def ports_of(r: Any) -> Int:
    """The port word of a tuple: see ``flows.HOT``."""
    if r[rg.PROTO] == _ICMP or r[rg.PROTO] == _ICMPV6:
        return np.int64(r[rg.SPORT]) << 16 | np.int64(r[rg.ICMP_TYPE]) << 8 | np.int64(r[rg.ICMP_CODE])
    return np.int64(r[rg.SPORT]) << 16 | np.int64(r[rg.DPORT])


@kernel
def set_state(e: Any, x: Any) -> None:
    """CT_STATE and CT_MARK of the packet as rules see them now."""
    place = x.j[jn.CT]
    if place == 0:
        x.r[rg.CT_STATE] = _UNTRACKED
        x.r[rg.HAS] &= np.uint32(0xFFFFFFFF ^ (1 << rg.CT_MARK))
        return
    stop = x.stops[place - 1]
    bits = _ESTABLISHED if stop["established"] else _NEW
    if stop["status"] & fl.SNAT:
        bits |= _SNAT_BIT
    if stop["status"] & fl.DNAT:
        bits |= _DNAT_BIT
    x.r[rg.CT_STATE] = bits
    x.r[rg.CT_MARK] = 0
    x.r[rg.HAS] |= np.uint32(1 << rg.CT_MARK)


@kernel
def _may_begin(e: Any, x: Any, proto: Int) -> Int:
    """Can the packet be the first of a connection?"""
    if proto == _TCP:
        loose = e.w.namespace[x.j[jn.NS]]["flags"] & LOOSE != 0
        return not x.segment[0] & _RST and tcp_begin(x.tcp[1], x.segment, loose) != 0
    return (proto != _ICMP and proto != _ICMPV6) or x.r[rg.ICMP_TYPE] == 8 or x.r[rg.ICMP_TYPE] == 128


@unit
def begin_or_advance(e: Any, x: Any, flow: Int, direction: Int) -> Int:
    """Take the packet into a copy of the flow's tracker, once a journey: STATE_AFTER. False: INVALID, or begun anew."""
    r, j = x.r, x.j
    proto = np.int64(r[rg.PROTO])
    if j[jn.STEPPED] != 0:
        # Where a rule has dropped all packets of a connection that is known elsewhere, each begins it anew, or is INVALID.
        return 1 if flow != 0 or j[jn.STEPPED] == 1 or _may_begin(e, x, proto) else 0
    j[jn.STEPPED] = 1 if flow == 0 else 2
    now = j[jn.NOW]
    flags = e.w.namespace[j[jn.NS]]["flags"]
    if proto == _TCP:
        if flow == 0:
            begun = tcp_begin(x.tcp[0], x.segment, flags & LOOSE != 0)
            if not begun:
                return 0
        else:
            x.tcp[0] = e.s.cold[flow]["tcp"]
        if x.segment[0] & _RST and (flow == 0 or not e.s.hot[flow]["status"] & fl.SEEN_REPLY):
            return 0
        status = np.int64(0 if flow == 0 else e.s.hot[flow]["status"])
        known = (ANSWERED if status & fl.SEEN_REPLY else 0) | (ASSURED if status & fl.ASSURED else 0)
        found = tcp_advance(
            x.tcp[0], direction, x.segment[0], x.segment[1], x.segment[2], x.segment[3], x.segment[4], x.segment[5],
            flags & LIBERAL != 0, known,
        )  # fmt: skip
        if found != OK:
            return 0
        j[jn.STATE_AFTER] = x.tcp[0]["state"]
        return 1
    if proto == _UDP:
        stream = False
        if flow != 0:
            seen = direction == 1 or e.s.hot[flow]["status"] & fl.SEEN_REPLY
            stream = seen and now > np.int64(e.s.cold[flow]["born"]) + 2000
        j[jn.STATE_AFTER] = fl.UDP_STREAM if stream else fl.UDP
        return 1
    if proto == _ICMP or proto == _ICMPV6:
        kind = r[rg.ICMP_TYPE]
        if flow == 0 and kind != 8 and kind != 128:
            return 0
        j[jn.STATE_AFTER] = fl.ICMP_ECHO if proto == _ICMP else fl.ICMPV6_ECHO
        return 1
    j[jn.STATE_AFTER] = fl.GENERIC
    return 1


@unit
def track(e: Any, x: Any) -> Int:
    """``nf_conntrack_in``: what connection does the packet belong to here?"""
    r, j = x.r, x.j
    ns = j[jn.NS]
    v6 = 1 if r[rg.FAMILY] == 6 else 0
    if j[jn.CT] != 0 or j[jn.UNTRACKED] != 0:
        return 0
    if not e.w.namespace[ns]["flags"] & (TRACKS6 if v6 else TRACKS4):
        return 0
    if j[jn.STOPS] >= jn.STOP_ROOM:
        return bail(x, jn.R_LOOP)
    proto = np.int64(r[rg.PROTO])
    src, dst, ports = np.int64(r[rg.SRC]), np.int64(r[rg.DST]), ports_of(r)
    if src == dst and proto != _ICMP and proto != _ICMPV6 and ports >> 16 == ports & 0xFFFF:
        return bail(
            x, jn.R_KIND
        )  # to itself, from the very port: its tuple is that of its replies, which are found first
    now = j[jn.NOW]
    stop = x.stops[j[jn.STOPS]]
    stop["ns"], stop["proto"] = ns, proto
    stop["in_src"], stop["in_dst"], stop["in_ports"] = src, dst, ports
    stop["out_src"], stop["out_dst"], stop["out_ports"] = src, dst, ports
    stop["status"] = stop["asked"] = stop["confirmed"] = stop["established"] = 0
    stop["masquerade"] = 0
    outer = j[jn.DEPTH]
    stop["outer"] = outer
    if outer:
        found = find_outer(e.s, ns, proto, src, dst, ports, v6, now)
        if found < 0:
            return bail(x, jn.R_ELSEWHERE)
        if found == 0 and find(e.s, ns, proto, src, dst, ports, v6, now) != 0:
            return bail(x, jn.R_TUNNEL)  # somebody other than the tunnel speaks on its ports
        if found & 1 and proto == _UDP and ports >> 16 != ports & 0xFFFF:
            return bail(x, jn.R_TUNNEL)  # nobody answers a VXLAN packet
        stop["found"] = found
        if found != 0:
            replied = found & 1 or bits_of(e.s.outer[found >> 1]) & fl.SEEN_REPLY
            stop["established"] = 1 if replied else 0
            stop["asked"] = 3
    else:
        found = find(e.s, ns, proto, src, dst, ports, v6, now)
        if found < 0:
            return bail(x, jn.R_ELSEWHERE)
        if found == 0 and proto == _UDP and e.s.counts[fl.N_OUTERS] != 0:
            if find_outer(e.s, ns, proto, src, dst, ports, v6, now) != 0:
                return bail(x, jn.R_TUNNEL)
        stop["found"] = found
        flow, direction = found >> 1, found & 1
        if flow != 0 and direction == 0 and not alive(e.s, flow, now):
            return bail(x, jn.R_STEP)
        if not begin_or_advance(e, x, flow, direction):
            return bail(x, jn.R_TRACKER)
        if flow != 0:
            hot = e.s.hot[flow]
            stop["established"] = 1 if direction or hot["status"] & fl.SEEN_REPLY else 0
            stop["asked"] = 3
            nat_at = nat_at_of(hot)
            if nat_at < count_of(hot) and namespace_of(e.s, flow, nat_at) == ns:
                stop["status"] = hot["status"] & (fl.SNAT | fl.DNAT)
                stop["masquerade"] = number_at(e.s.rest[flow], fl.DEVICE)
                if direction:
                    stop["out_src"], stop["out_dst"] = hot["s0_dst"], hot["s0_src"]
                    stop["out_ports"] = inverted_ports(proto, np.int64(hot["s0_ports"]))
                else:
                    stop["out_src"], stop["out_dst"] = hot["s1_src"], hot["s1_dst"]
                    stop["out_ports"] = hot["s1_ports"]
    j[jn.STOPS] += 1
    j[jn.CT] = j[jn.STOPS]
    set_state(e, x)
    return 0


@unit
def confirm(e: Any, x: Any) -> Int:
    """``nf_conntrack_confirm``: the connection is real from here on, unless another one has its reply tuple."""
    j = x.j
    place = j[jn.CT]
    if place == 0:
        return 0
    stop = x.stops[place - 1]
    if stop["confirmed"] or stop["found"] & 1:
        return 0
    if stop["found"] == 0 and taken(e, x):
        return bail(x, jn.R_CLASH)
    stop["confirmed"] = 1
    return 0


@unit
def taken(e: Any, x: Any) -> Int:
    """Would replies to the tuple that leaves here belong to another connection (``nf_conntrack_tuple_taken``)? 1, 0, or -1:
    only the interpreter can tell."""
    stop = x.stops[x.j[jn.CT] - 1]
    proto = np.int64(stop["proto"])
    turned = inverted_ports(proto, np.int64(stop["out_ports"]))
    v6 = 1 if x.r[rg.FAMILY] == 6 else 0
    found = find(e.s, x.j[jn.NS], proto, np.int64(stop["out_dst"]), np.int64(stop["out_src"]), turned, v6, x.j[jn.NOW])
    return np.int64(0 if found == 0 else 1 if found > 0 else -1)


@kernel
def wants_nat(x: Any, source: Int) -> Int:
    """Is the nat table asked for this packet (``nf_nat_inet_fn``)? Only of a new connection, once for each side."""
    place = x.j[jn.CT]
    if place == 0:
        return False
    stop = x.stops[place - 1]
    return stop["found"] == 0 and not stop["asked"] & (2 if source else 1)


@unit
def settle(e: Any, x: Any, source: Int, effect: Int) -> Int:
    """Fix one side of a new connection's translation as row ``effect`` says (-1: nothing to translate)."""
    r, j = x.r, x.j
    stop = x.stops[j[jn.CT] - 1]
    stop["asked"] |= 2 if source else 1
    if effect < 0:
        # Without a rule the source port may still have to move out of the way: that search is the interpreter's.
        if source and taken(e, x):
            return bail(x, jn.R_NAT)
        return 0
    if stop["outer"]:
        return bail(x, jn.R_TWICE)
    act = e.p.nats[effect]
    kind, flags = np.int64(act["kind"]), np.int64(act["flags"])
    single = act["low"] == act["high"] and flags & NAT_ADDRESS != 0
    proto = np.int64(stop["proto"])
    ported = proto == _TCP or proto == _UDP
    if kind == NAT_DNAT and not source:
        moves_port = flags & NAT_PORTS != 0
        if not single or act["port_low"] != act["port_high"] or (moves_port and not ported):
            return bail(x, jn.R_NAT)
        before_dst, before_ports = stop["out_dst"], stop["out_ports"]
        stop["out_dst"] = act["low"]
        if moves_port:
            stop["out_ports"] = (np.int64(stop["out_ports"]) & 0xFFFF0000) | np.int64(act["port_low"])
        elif taken(e, x):
            return bail(x, jn.R_NAT)
        if stop["out_dst"] != before_dst or stop["out_ports"] != before_ports:
            stop["status"] |= fl.DNAT
        return 0
    if not source or (kind != NAT_MASQUERADE and kind != NAT_SNAT) or flags & NAT_PORTS or not ported:
        return bail(x, jn.R_NAT)
    chosen = np.int64(act["low"])
    if kind == NAT_MASQUERADE:
        if r[rg.FAMILY] == 4 and stop["out_src"] == 0:
            return bail(x, jn.R_NAT)  # 0.0.0.0 is left alone
        near = j[jn.ROUTE_GATEWAY] if j[jn.ROUTED] and j[jn.ROUTE_GATEWAY] >= 0 else np.int64(r[rg.DST])
        chosen = select_source(e.f, e.words, j[jn.NS], np.int64(r[rg.FAMILY]), np.int64(r[rg.OIF]), near, x.out)
        if chosen < 0:
            return bail(x, jn.R_NAT)
        stop["masquerade"] = r[rg.OIF]
    elif not single:
        return bail(x, jn.R_NAT)
    return move_source(e, x, chosen, flags & (NAT_RANDOM | NAT_FULLY_RANDOM) != 0)


@unit
def move_source(e: Any, x: Any, chosen: Int, random: Int) -> Int:
    """``get_unique_tuple`` for a source: the same port if that is free, else the next one above that is."""
    stop = x.stops[x.j[jn.CT] - 1]
    proto = np.int64(stop["proto"])
    v6 = 1 if x.r[rg.FAMILY] == 6 else 0
    src, ports = np.int64(stop["out_src"]), np.int64(stop["out_ports"])
    port = ports >> 16
    if not random:
        if src == chosen:
            held = taken(e, x)
            if held <= 0:
                return bail(x, jn.R_ELSEWHERE) if held else 0
        known = elsewhere(e.s, source_key(proto, src, port, v6))
        if known or same_source(e.s, x.j[jn.NS], proto, src, port, v6, x.j[jn.NOW]):
            return bail(x, jn.R_NAT)
    stop["out_src"] = chosen
    low, high = (1, 511) if port < 512 else (600, 1023) if port < 1024 else (1024, 65535)
    size = high - low + 1
    start = port + 1 if low <= port < high else low
    tries = 0
    while True:
        held = taken(e, x)
        if held == 0:
            break
        if held < 0 or tries == _SEARCH:
            return bail(x, jn.R_NAT)
        number = low + (start - low + tries) % size
        stop["out_ports"] = number << 16 | (ports & 0xFFFF)
        tries += 1
    if np.int64(stop["out_src"]) != src or np.int64(stop["out_ports"]) != ports:
        stop["status"] |= fl.SNAT
    return 0


@unit
def translate(e: Any, x: Any, source: Int) -> Int:
    """Make the packet agree with its connection (``nf_nat_packet``). 1: it changed."""
    r, j = x.r, x.j
    place = j[jn.CT]
    if place == 0:
        return 0
    stop = x.stops[place - 1]
    reply = stop["found"] & 1
    wanted = fl.SNAT if source != reply else fl.DNAT
    if not stop["status"] & wanted:
        return 0
    ported = r[rg.PROTO] == _TCP or r[rg.PROTO] == _UDP
    if source:
        changed = r[rg.SRC] != stop["out_src"]
        if not reply and changed:
            j[jn.MASQUERADED] = 1
        r[rg.SRC] = stop["out_src"]
        if ported:
            changed = changed or r[rg.SPORT] != np.int64(stop["out_ports"]) >> 16
            r[rg.SPORT] = np.int64(stop["out_ports"]) >> 16
        return 1 if changed else 0
    changed = r[rg.DST] != stop["out_dst"]
    r[rg.DST] = stop["out_dst"]
    if ported:
        changed = changed or r[rg.DPORT] != np.int64(stop["out_ports"]) & 0xFFFF
        r[rg.DPORT] = np.int64(stop["out_ports"]) & 0xFFFF
    return 1 if changed else 0
