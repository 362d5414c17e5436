"""The engine's loops: packets in the order in which they arrive, each by the fastest path that is exact for it.

    look up (nothing is written)                             act (one thread, in order)
    hash of the tuple ─▶ index ─▶ candidate flow    ───▶     verify, fast or slow, write state and result

One loop does both, a few packets apart, so that the loads of the one overlap with the arithmetic of the other; several
threads look up apart, each in its own part of the batch.

    fast    the packet's flow is known and the way of such packets is remembered (``Hot.class0/1``): check that nothing has
            expired, advance windows, times and counters in the line already fetched, write the result
    slow    ``machine.run``, then ``commit_kernels.commit``
    stop    the interpreter must take this packet, or a fact is missing: ``process`` returns its number to Python

Everything that a fast packet may not assume is a comparison here; a packet that fails one is slow, never wrong. So a
candidate that an earlier packet of the batch has made stale costs time and nothing else, and how the looking up is split
among threads cannot change a byte of the result.

A fast packet costs two cache lines that are not in order: one of the index and the flow's hot record, each asked for
``_AHEAD`` packets before it is needed. TCP adds the line of its windows; a tunnel that other flows share, two more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled import world as wd
from netsim.compiled.along import COUNT, PACKETS, along
from netsim.compiled.commit_kernels import commit
from netsim.compiled.engine_tables import OTHER_ORIGINS
from netsim.compiled.flow_index import fitting, home, inverted_ports, tuple_hash
from netsim.compiled.flow_records import NUMBER, OWNED, bits_of, outer_of
from netsim.compiled.flows import find_any
from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.machine import run
from netsim.compiled.outer_flows import outer_alive, settled
from netsim.compiled.places import enter
from netsim.compiled.prefetch import prefetch, prefetch_read
from netsim.compiled.tcp_kernel import NO_OPTIONS, tcp_established
from netsim.compiled.tracking_kernels import fault
from netsim.compiled.unit import unit

U = np.uint64
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_ACK, _PSH = 16, 8
_AHEAD = 8  # packets: a few hundred nanoseconds, enough for a load from memory
RING = 2 * _AHEAD  # hashes of packets whose flow is still to be looked up: a power of two
_FULL = 0xFFFF  # packets that the hot record counts before they are folded

DONE, STOPPED_FAULT, STOPPED_BAIL = 0, 1, 2


@kernel
def header_bytes(v6: Int) -> Int:
    return 40 if v6 else 20


@kernel
def load_segment(x: Any, b: Any, i: Int) -> None:
    """The TCP side of packet ``i``, as the tracker wants it."""
    x.segment[0] = b.tcp_flags[i]
    x.segment[1] = b.seq[i]
    x.segment[2] = b.ack[i]
    x.segment[3] = b.window[i]
    x.segment[4] = b.wscale[i] if b.tcp_options[i] else NO_OPTIONS
    x.segment[5] = np.int64(b.length[i]) - header_bytes(b.flags[i] & 1) - 20 - np.int64(b.tcp_options[i])


@unit
def prepare(e: Any, x: Any, b: Any, i: Int, serial: Int) -> Int:
    """Registers and journey of packet ``i``: where it starts, or AT_FAULT for a namespace that has not been added."""
    r, j = x.r, x.j
    for place in range(rg.SIZE):
        r[place] = 0
    for place in range(jn.J_SIZE):
        j[place] = 0
    v6 = b.flags[i] & 1
    proto = np.int64(b.proto[i])
    r[rg.SRC], r[rg.DST] = b.src[i], b.dst[i]
    r[rg.PROTO], r[rg.TTL], r[rg.LENGTH] = proto, b.ttl[i], b.length[i]
    r[rg.FAMILY] = 6 if v6 else 4
    r[rg.SERIAL] = np.uint32(serial & 0xFFFFFFFF)
    if proto == _TCP or proto == _UDP:
        r[rg.SPORT], r[rg.DPORT] = b.sport[i], b.dport[i]
        r[rg.HAS] = 1 << rg.SPORT | 1 << rg.DPORT
    if proto == _TCP:
        r[rg.TCP_FLAGS] = b.tcp_flags[i]
        r[rg.HAS] |= np.uint32(1 << rg.TCP_FLAGS)
        load_segment(x, b, i)
    elif proto == _ICMP or proto == _ICMPV6:
        r[rg.SPORT] = b.sport[i]
        r[rg.ICMP_TYPE], r[rg.ICMP_CODE] = b.dport[i] >> 8, b.dport[i] & 0xFF
        r[rg.HAS] = 1 << rg.ICMP_TYPE | 1 << rg.ICMP_CODE
    x.told[0] = 0
    j[jn.NOW] = b.time[i] // 1000 + 1
    j[jn.LONGEST] = 0xFFFF
    j[jn.TTL_IN], j[jn.LENGTH_IN], j[jn.ORIGIN] = b.ttl[i], b.length[i], b.origin[i]
    origin = np.int64(b.origin[i])
    if origin < OTHER_ORIGINS:
        ns, device, mark, mac = origin, np.int64(0), np.int64(0), np.int64(0)
    else:
        row = e.origins[origin - OTHER_ORIGINS]
        ns, device, mark, mac = row[0], row[1], row[2], row[3]
    if not e.w.namespace[ns]["flags"] & wd.PRESENT:
        fault(x, jn.FAULT_NAMESPACE_WANTED, ns, 0)
        return jn.AT_FAULT
    enter(x, ns, device, np.int64(0))
    r[rg.MARK] = mark
    if device == 0:
        return jn.AT_LOCAL_OUT
    j[jn.FRAME_TO] = mac
    return jn.AT_ARRIVE


@unit
def slow(e: Any, x: Any, b: Any, o: Any, i: Int, serial: Int) -> Int:
    """DONE with the result written; or why not."""
    r, j = x.r, x.j
    at = prepare(e, x, b, i, serial)
    if at != jn.AT_FAULT:
        at = run(e, x, at)
    if at == jn.AT_FAULT:
        return STOPPED_FAULT
    if at == jn.AT_BAIL:
        return STOPPED_BAIL
    j[jn.OUTER_V6] = 0
    for place in range(j[jn.STOPS]):
        if x.stops[place]["outer"]:
            j[jn.OUTER_V6] = _tunnel_family(e, x, place)
            break
    verdict = j[jn.VERDICT]
    end = commit(e, x)
    if end == 3:
        return STOPPED_FAULT
    if end == 2:
        return STOPPED_BAIL
    o.verdict[i], o.how[i], o.masqueraded[i], o.ttl[i] = verdict, 1, j[jn.MASQUERADED], r[rg.TTL]
    o.receiver[i] = 0 if verdict >= jn.DROPPED else j[jn.RECEIVER]
    o.src[i], o.dst[i] = r[rg.SRC], r[rg.DST]
    if r[rg.PROTO] == _ICMP or r[rg.PROTO] == _ICMPV6:
        o.sport[i], o.dport[i] = r[rg.SPORT], r[rg.ICMP_TYPE] << 8 | r[rg.ICMP_CODE]
    else:
        o.sport[i], o.dport[i] = r[rg.SPORT], r[rg.DPORT]
    o.rules[i], o.flow[i] = r[rg.EVALUATED], j[jn.FLOW]
    if verdict >= jn.DROPPED:
        o.decided[i], o.decided_ns[i] = j[jn.DECIDED], j[jn.DECIDED_NS]
    else:
        o.decided[i], o.decided_ns[i] = j[jn.TRANSLATED], j[jn.TRANSLATED_NS]
    return DONE


@kernel
def _tunnel_family(e: Any, x: Any, place: Int) -> Int:
    """1 if the tunnel's packets are IPv6: the first tunnel device of the namespace that made them tells."""
    here = e.w.namespace[x.stops[place]["ns"]]
    first = np.int64(here["tunnels"])
    for at in range(first, first + np.int64(here["tunnel_count"])):
        row = e.w.tunnel[at]
        if row["port"] == np.int64(x.stops[place]["in_ports"]) & 0xFFFF and row["local"] == x.stops[place]["in_src"]:
            return 1 if row["family"] == 6 else 0
    return 0


@inner
def _hash_of(src: Any, dst: Any, sport: Any, dport: Any, proto: Any, flags: Any, i: Int) -> Int:
    return tuple_hash(
        np.int64(proto[i]), np.int64(src[i]), np.int64(dst[i]),
        np.int64(sport[i]) << 16 | np.int64(dport[i]), np.int64(flags[i] & 1),
    )  # fmt: skip


@kernel
def look_up(s: Any, b: Any, hashes: Any, candidates: Any, start: Int, stop: Int) -> Int:
    """For each packet the first flow whose tag fits its tuple, 0 if none does; the index alone is read.

    ``process`` does this by the way; here it is for several threads, each of which takes a part of the batch. ``hashes``:
    scratch of a power of two; its length is how many packets ahead the lines of the index are asked for."""
    slots = s.slots
    src, dst, sport, dport, proto, flags = b.src, b.dst, b.sport, b.dport, b.proto, b.flags
    ahead = U(hashes.shape[0])
    last = U(stop)
    for i in range(U(start), last + ahead):  # unsigned: numba looks at the sign of each other index
        if i >= U(start) + ahead:
            h = hashes[i & (ahead - U(1))]
            candidates[i - ahead] = slots[fitting(slots, h, home(slots, h))] & NUMBER
        if i < last:
            h = _hash_of(src, dst, sport, dport, proto, flags, i)
            hashes[i & (ahead - U(1))] = h
            prefetch_read(slots, home(slots, h))
    return stop


@inner
def _direction(hot: Any, proto: Int, src: Int, dst: Int, ports: Int, v6: Int) -> Int:
    """0 or 1: the packet belongs to this flow's original or reply direction as it enters; -1: to another flow."""
    if hot["proto"] != proto or (hot["status"] & 1) != v6:
        return -1
    if hot["s0_src"] == src and hot["s0_dst"] == dst and hot["s0_ports"] == ports:
        return 0
    if hot["s1_src"] == dst and hot["s1_dst"] == src and hot["s1_ports"] == inverted_ports(proto, ports):
        return 1
    return -1


@kernel
def process(
    e: Any, x: Any, b: Any, o: Any, hashes: Any, candidates: Any, start: Int, stop: Int, serial: Int, looked: Int
) -> Int:
    """Packets ``start`` to ``stop``: the number of the first that Python must look at (``x.why`` says why), or ``stop``.

    ``looked``: ``look_up`` has filled ``candidates``; else it is done here, a few packets ahead. ``hashes``: scratch, as
    there."""
    s = e.s
    hots, classes, colds, tcp_flags = s.hot, s.classes, s.cold, b.tcp_flags
    time, origins, srcs, dsts, sports, dports = b.time, b.origin, b.src, b.dst, b.sport, b.dport
    protos, flags, ttls, lengths, special = b.proto, b.flags, b.ttl, b.length, b.special
    verdict, how, masqueraded, ttl_out, receiver = o.verdict, o.how, o.masqueraded, o.ttl, o.receiver
    src_out, dst_out, sport_out, dport_out = o.src, o.dst, o.sport, o.dport
    rules, flow_out, decided, decided_ns = o.rules, o.flow, o.decided, o.decided_ns
    seqs, acks, windows, options = b.seq, b.ack, b.window, b.tcp_options
    slots = s.slots
    ring = U(hashes.shape[0] - 1)
    last, ahead = U(stop), U(_AHEAD)
    begin = U(start)
    taken = begin  # packets before this one have been taken with others before them
    x.trails[PACKETS] = 0
    trails = x.trails[COUNT]
    for step in range(begin, last + ahead + ahead):  # unsigned: numba looks at the sign of each other index
        # Three packets are at work at once: the index is asked for one, the flow of the next, and the third is taken.
        if step < last and not looked:
            h = _hash_of(srcs, dsts, sports, dports, protos, flags, step)
            hashes[step & ring] = h
            prefetch_read(slots, home(slots, h))
        coming = step - ahead
        if step >= begin + ahead and coming < last:
            if not looked:
                h = hashes[coming & ring]
                candidates[coming] = slots[fitting(slots, h, home(slots, h))] & NUMBER
            prefetch(hots, candidates[coming])
            if protos[coming] == _TCP:
                prefetch(colds, candidates[coming])
        if step < begin + ahead + ahead:
            continue
        i = coming - ahead
        if i < taken:
            continue
        if special[i]:
            x.why[0] = STOPPED_BAIL
            x.j[jn.REASON] = jn.R_KIND
            x.r[rg.DRAWS] = 0
            return np.int64(i)
        proto, src, dst = np.int64(protos[i]), np.int64(srcs[i]), np.int64(dsts[i])
        ports = np.int64(sports[i]) << 16 | np.int64(dports[i])
        v6 = np.int64(flags[i] & 1)
        flow = U(candidates[i])
        direction = _direction(hots[flow], proto, src, dst, ports, v6)
        if direction < 0:
            found = find_any(s, proto, src, dst, ports, v6)
            flow, direction = U(found >> 1), found & 1
        hot = hots[flow]
        place = U(hot["class1"]) if direction else U(hot["class0"])
        row = classes[place]
        now = np.int64(U(time[i]) // U(1000)) + 1
        last0, last1 = np.int64(hot["last0"]), np.int64(hot["last1"])
        mine = last1 if direction else last0
        length = np.int64(lengths[i])
        packets = np.int64(hot["packets1"]) if direction else np.int64(hot["packets0"])
        volume = np.int64(hot["bytes1"]) if direction else np.int64(hot["bytes0"])
        near = np.int64(hot["end1"]) if direction else np.int64(hot["end0"])
        fast = (
            place != 0
            and near == origins[i]
            and length <= row["longest"]
            and ttls[i] > row["least"]
            and now < max(last0, last1) + np.int64(row["timeout"])
            and now < mine + np.int64(row["outer_timeout"])
            and packets < _FULL
        )
        outer = U(0)
        if fast and row["outer_kept"]:
            outer = kept_outer(s, flow, direction, now)
            fast = outer != 0
        if fast and row["tcp"]:
            fast = (tcp_flags[i] | _PSH) == (_ACK | _PSH) and tcp_established(
                colds[flow]["tcp"], direction != 0, np.int64(seqs[i]), np.int64(acks[i]), np.int64(windows[i]),
                length - (60 if v6 else 40) - np.int64(options[i]),
            )  # fmt: skip
        if not fast:
            if flow == U(0) and trails != 0:
                taken = i + U(along(e, x, b, o, np.int64(i), np.int64(stop), serial))
                if taken > i:
                    continue
            answer = slow(e, x, b, o, np.int64(i), serial + np.int64(i))
            if answer != DONE:
                x.why[0] = answer
                return np.int64(i)
            continue
        if outer:
            s.outer[outer]["last"] = now
        if direction:
            hot["last1"] = now
            hot["packets1"] = packets + 1
            hot["bytes1"] = volume + length
            receiver[i] = hot["end0"]
            src_out[i], dst_out[i] = hot["s0_dst"], hot["s0_src"]
            ports = inverted_ports(proto, np.int64(hot["s0_ports"]))
        else:
            hot["last0"] = now
            hot["packets0"] = packets + 1
            hot["bytes0"] = volume + length
            receiver[i] = hot["end1"]
            src_out[i], dst_out[i] = hot["s1_src"], hot["s1_dst"]
            ports = np.int64(hot["s1_ports"])
        sport_out[i], dport_out[i] = ports >> 16, ports & 0xFFFF
        verdict[i], how[i], masqueraded[i] = row["verdict"], 0, row["masqueraded"]
        decided[i] = decided_ns[i] = 0
        ttl_out[i] = np.int64(ttls[i]) - np.int64(row["ttl"])
        rules[i], flow_out[i] = row["rules"], flow << U(1) | U(direction)
    x.why[0] = DONE
    return stop


@inner
def kept_outer(s: Any, flow: Int, direction: Int, now: Int) -> Int:
    """The number of the tunnel's entry that this direction travels in, if it lives and keeps its own time; else 0."""
    outer = U(outer_of(s, flow, direction))
    entry = s.outer[outer]
    if bits_of(entry) & OWNED or not settled(s, entry) or not outer_alive(s, outer, now):
        return U(0)
    return outer
