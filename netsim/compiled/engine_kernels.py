"""The engine's loops: packets in the order in which they arrive, each by the fastest path that is exact for it.

    look up, verify (nothing is written)                                act (one thread, in order)
    hash of the tuple ─▶ index ─▶ candidate flow ─▶ its record   ───▶   fast or slow, write state and result

Packets are taken a block at a time, and the fast path in stages (``fast_kernels``); several threads look up apart, each in
its own part of the batch.

    fast    the packet's flow is known and the way of such packets is remembered (``Hot.class0/1``): check that nothing has
            expired, advance windows, times and counters in the line already fetched, write the result
    slow    ``machine.run``, then ``commit_kernels.commit``
    stop    the interpreter must take this packet, or a fact is missing: ``process`` returns its number to Python

Everything that a fast packet may not assume is a comparison here; a packet that fails one is slow, never wrong. So a
candidate that an earlier packet of the batch has made stale costs time and nothing else, and how the looking up is split
among threads cannot change a byte of the result.
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
from netsim.compiled.fast_kernels import (
    AHEAD,
    BLOCK,
    RUN,
    act,
    ask,
    flow_of,
    hash_block,
    look_up,
    probe_block,
    verified,
)
from netsim.compiled.jit import Int, kernel
from netsim.compiled.machine import run
from netsim.compiled.places import enter
from netsim.compiled.tcp_kernel import NO_OPTIONS
from netsim.compiled.tracking_kernels import fault
from netsim.compiled.unit import unit

U = np.uint64
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_GROWING = U(4)  # times: a run behind one that has passed whole

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


@kernel
def process(
    e: Any, x: Any, b: Any, o: Any, hashes: Any, candidates: Any, start: Int, stop: Int, serial: Int, looked: Int
) -> Int:
    """Packets ``start`` to ``stop``: the number of the first that Python must look at (``x.why`` says why), or ``stop``.

    ``looked``: ``look_up`` has filled ``candidates``; else it is done here, block by block. ``hashes``: scratch for two
    blocks; ``candidates``: ``WIDE`` longer than the batch, each the number of a flow that was or is there."""
    s = e.s
    x.trails[PACKETS] = 0
    trails = x.trails[COUNT]
    at, most, coming = U(start), RUN, U(0)
    if not looked:
        look_up(s, b, hashes, candidates, start, min(U(start) + BLOCK, U(stop)))
    for begin in range(U(start), U(stop), BLOCK):
        end = min(U(stop), begin + BLOCK)
        after = min(U(stop) - end, BLOCK)  # packets of the next block
        last = U(stop) - U(1) if looked else end - U(1)
        if not looked:
            coming = BLOCK - coming
            hash_block(b, hashes, coming, end, after)
            for i in range(begin, min(begin + AHEAD, end)):
                ask(s, b, candidates, i)
        while at < end:
            passed = at
            if candidates[at]:
                run_end = min(at + most, end)
                verified(s, b, o, x.run, candidates, at, run_end - at)
                passed = act(s, b, o, x.run, candidates, at, run_end, last, hashes, coming + at - begin)
                most = min(_GROWING * most, RUN) if passed == run_end else U(1)  # where one is slow, others may be
            if passed == at:
                flow = flow_of(s, b, at)
                if flow != U(0) and flow != candidates[at]:
                    candidates[at] = flow
                    continue
                taken = U(along(e, x, b, o, np.int64(at), np.int64(stop), serial)) if flow == U(0) and trails else U(0)
                if taken == U(0):
                    answer = slow(e, x, b, o, np.int64(at), serial + np.int64(at))
                    if answer != DONE:
                        x.why[0] = answer
                        return np.int64(at)
                    taken = U(1)
                passed = at + taken
            at = passed
        if not looked:
            probe_block(s.slots, hashes, coming, candidates, end, after)
    x.why[0] = DONE
    return stop
