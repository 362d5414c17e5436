"""The fast path in stages, each a loop of its own over a few packets.

    block   hashes ─▶ slots of the index ─▶ a candidate for each packet          nothing is written
    run     ``verified``  tuple, direction, origin, room to count: the result    nothing is written but results
            ``act``       what has to be as it is now: times, windows, TTL       the flow moves on

What is arithmetic alone, the compiler does for many packets at once: ``verified`` has the records of a run turned into
columns for that (``transpose``). It looks at flows as they were before the run; what it looks at no fast packet changes,
but for how many a flow has counted, and it allows for earlier packets of the run. A packet that passes would have passed
alone, and one that does not is looked at again as the first of the next run.

Each packet costs a slot of the index and its flow's record, TCP its windows: lines that are not in order, and most of what a
packet costs when there are many flows. They are asked for evenly, one of each a packet, while others are worked on
(``prefetch``): records and windows ``AHEAD`` packets before they are needed, slots a block before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.flow_index import TOMB, fitting, home, tag, tuple_hash
from netsim.compiled.flow_records import HOT, NUMBER, OWNED, bits_of, outer_of
from netsim.compiled.flows import find_any
from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.outer_flows import outer_alive, settled
from netsim.compiled.prefetch import prefetch
from netsim.compiled.tcp_kernel import tcp_established
from netsim.compiled.vectors import WIDE, fits, transpose

U = np.uint64
_TCP = 6
_ACK, _PSH = 16, 8
BLOCK = U(512)  # packets whose flows are looked up together
_APART = 64
RUN = U(_APART)  # packets that are verified together
AHEAD = U(2 * _APART)  # packets: lines of the next run are there when it is verified
_FULL = U(0xFFFF)  # packets that the hot record counts before they are folded

# ``run``, a run's records as columns of ``RUN`` words: the words of ``HOT``, and behind them what is made of them.
_PLACES: Any = {name: place for name, (_, place, *_) in (HOT.fields or {}).items()}  # bytes
_S0_SRC, _S0_DST, _S0_PORTS, _S1_SRC, _S1_DST, _S1_PORTS, _END0, _END1 = (
    U(_PLACES[name] // 4 * _APART)
    for name in ("s0_src", "s0_dst", "s0_ports", "s1_src", "s1_dst", "s1_ports", "end0", "end1")
)
_KIND, _WAYS, _PACKETS = (U(_PLACES[name] // 4 * _APART) for name in ("proto", "class0", "packets0"))
_STATUS = U(8 * (_PLACES["status"] - _PLACES["proto"]))  # bits, in the same word
_KNOWN, _WAY, _REPLY, _FAR, _SRC, _DST, _PORTS = (U((WIDE + place) * _APART) for place in range(7))
RUN_WORDS = (WIDE + 7) * _APART
assert HOT.itemsize == 4 * WIDE
assert _PLACES["class1"] == _PLACES["class0"] + 2
assert _PLACES["packets1"] == _PLACES["packets0"] + 2


# -- candidates --------------------------------------------------------------------------------------------------------
@kernel
def look_up(s: Any, b: Any, hashes: Any, candidates: Any, start: Int, stop: Int) -> Int:
    """For each packet the first flow whose tag fits its tuple, 0 if none does; the index alone is read.

    The engine does this by the way; here it is for several threads, each with its own part of a batch and ``hashes``,
    scratch for a block."""
    for begin in range(U(start), U(stop), BLOCK):
        count = min(U(stop) - begin, BLOCK)
        hash_block(b, hashes, U(0), begin, count)
        for k in range(count):
            prefetch(s.slots, home(s.slots, hashes[k]))
        probe_block(s.slots, hashes, U(0), candidates, begin, count)
    return stop


@inner
def hash_block(b: Any, hashes: Any, to: Any, begin: Any, count: Any) -> None:
    """Arithmetic on columns alone, which the compiler does for several packets at once."""
    src, dst, sport, dport, proto, flags = b.src, b.dst, b.sport, b.dport, b.proto, b.flags
    for k in range(count):
        i = begin + k
        hashes[to + k] = tuple_hash(
            U(proto[i]), U(src[i]), U(dst[i]), U(sport[i]) << U(16) | U(dport[i]), U(flags[i]) & U(1)
        )  # fmt: skip


@inner
def probe_block(slots: Any, hashes: Any, to: Any, candidates: Any, begin: Any, count: Any) -> None:
    """Nearly every search ends in the line where it begins."""
    most = U(slots.shape[0])
    for k in range(count):
        h = hashes[to + k]
        wanted, start = tag(h), home(slots, h)
        behind = fits(slots, start, wanted)
        at = start + behind
        slot = slots[at] if behind < U(WIDE) and at < most else TOMB
        if slot == TOMB:  # it goes on behind the line, or behind a tomb
            slot = slots[fitting(slots, h, start)]
        candidates[begin + k] = slot & NUMBER


@inner
def ask(s: Any, b: Any, candidates: Any, i: Any) -> None:
    """Have the lines of a packet's candidate brought."""
    prefetch(s.hot, candidates[i])
    if b.proto[i] == _TCP:
        prefetch(s.cold, candidates[i])


@inner
def flow_of(s: Any, b: Any, i: Any) -> Any:
    """The number of a packet's flow, whatever its candidate is; 0 if there is none."""
    proto, src, dst, v6 = np.int64(b.proto[i]), np.int64(b.src[i]), np.int64(b.dst[i]), np.int64(b.flags[i] & 1)
    return U(find_any(s, proto, src, dst, np.int64(b.sport[i]) << 16 | np.int64(b.dport[i]), v6) >> 1)


# -- a run -------------------------------------------------------------------------------------------------------------
@inner
def verified(s: Any, b: Any, o: Any, run: Any, candidates: Any, begin: Any, count: Any) -> None:
    """Is the candidate the packet's flow, and in which direction does it go? ``_WAY``: the row of ``classes`` for such
    packets, 0 if the record says that this one is not fast; ``_REPLY``: 1 for the reply direction. What the record says of
    the result is written at once: who has to decide otherwise writes all columns anew. ``candidates`` has ``WIDE`` places
    more than there are packets."""
    for k in range(U(0), count, U(WIDE)):
        transpose(s.hot, candidates, begin + k, run, k, _APART)
    protos, flags, srcs, dsts, sports, dports, origins = b.proto, b.flags, b.src, b.dst, b.sport, b.dport, b.origin
    flow_out, receiver, src_out, dst_out, sport_out, dport_out = o.flow, o.receiver, o.src, o.dst, o.sport, o.dport
    how, decided, decided_ns = o.how, o.decided, o.decided_ns
    strange: Int = False
    for k in range(count):
        i = begin + k
        ports = U(sports[i]) << U(16) | U(dports[i])
        known = _judge(run, k, U(protos[i]), U(srcs[i]), U(dsts[i]), ports, U(flags[i]) & U(1), U(origins[i]))
        strange |= (known == U(0)) & (candidates[i] != 0)
    if strange:
        for k in range(count):
            i = begin + k
            if run[_KNOWN + k] == 0 and candidates[i] != 0:
                flow = flow_of(s, b, i)
                if flow != U(0):
                    candidates[i] = flow
                    words = s.hot[flow]
                    run[_S0_SRC + k], run[_S0_DST + k], run[_S0_PORTS + k] = (
                        words["s0_src"],
                        words["s0_dst"],
                        words["s0_ports"],
                    )
                    run[_S1_SRC + k], run[_S1_DST + k], run[_S1_PORTS + k] = (
                        words["s1_src"],
                        words["s1_dst"],
                        words["s1_ports"],
                    )
                    run[_END0 + k], run[_END1 + k] = words["end0"], words["end1"]
                    run[_KIND + k] = U(words["proto"]) | U(words["status"]) << _STATUS
                    run[_WAYS + k] = U(words["class0"]) | U(words["class1"]) << U(16)
                    run[_PACKETS + k] = U(words["packets0"]) | U(words["packets1"]) << U(16)
                    ports = U(sports[i]) << U(16) | U(dports[i])
                    _judge(run, k, U(protos[i]), U(srcs[i]), U(dsts[i]), ports, U(flags[i]) & U(1), U(origins[i]))
    for k in range(count):
        flow_out[begin + k] = candidates[begin + k] << np.uint32(1) | run[_REPLY + k]
    for k in range(count):
        receiver[begin + k] = run[_FAR + k]
    for k in range(count):
        src_out[begin + k] = run[_SRC + k]
    for k in range(count):
        dst_out[begin + k] = run[_DST + k]
    for k in range(count):
        sport_out[begin + k] = run[_PORTS + k] >> np.uint32(16)
    for k in range(count):
        dport_out[begin + k] = run[_PORTS + k] & np.uint32(0xFFFF)
    for k in range(count):
        how[begin + k] = 0
    for k in range(count):
        decided[begin + k] = 0
    for k in range(count):
        decided_ns[begin + k] = 0


@inner
def _judge(run: Any, k: Any, proto: Any, src: Any, dst: Any, ports: Any, v6: Any, origin: Any) -> Any:
    """Packet ``k`` of the run, by the record in its column: 1 if that is its flow's, else 0. No branches."""
    s0_src, s0_dst, s0_ports = U(run[_S0_SRC + k]), U(run[_S0_DST + k]), U(run[_S0_PORTS + k])
    s1_src, s1_dst, s1_ports = U(run[_S1_SRC + k]), U(run[_S1_DST + k]), U(run[_S1_PORTS + k])
    end0, end1 = U(run[_END0 + k]), U(run[_END1 + k])
    kind, ways, packets = U(run[_KIND + k]), U(run[_WAYS + k]), U(run[_PACKETS + k])
    original = (s0_src == src) & (s0_dst == dst) & (s0_ports == ports)
    reply = (s1_dst == src) & (s1_src == dst) & (s1_ports == _inverted(proto, ports))
    known = (kind & U(0xFF) == proto) & (kind >> _STATUS & U(1) == v6) & (original | reply)
    one = U(0) - U(original)  # all bits, or none
    fast = known & (_either(one, end0, end1) == origin)
    fast &= _either(one, packets & U(0xFFFF), packets >> U(16)) + k < _FULL
    run[_KNOWN + k] = known
    run[_WAY + k] = _either(one, ways & U(0xFFFF), ways >> U(16)) & (U(0) - U(fast))
    run[_REPLY + k] = one + U(1)
    run[_FAR + k] = _either(one, end1, end0)
    run[_SRC + k] = _either(one, s1_src, s0_dst)
    run[_DST + k] = _either(one, s1_dst, s0_src)
    run[_PORTS + k] = _either(one, s1_ports, _inverted(proto, s0_ports))
    return U(known)


@inner
def _either(one: Any, this: Any, that: Any) -> Any:
    """``this`` where ``one`` has all bits, ``that`` where it has none: no branch for the compiler to keep."""
    return that ^ ((this ^ that) & one)


@inner
def _inverted(proto: Any, ports: Any) -> Any:
    """``inverted_ports`` of unsigned numbers."""
    turned = (ports >> U(16) | ports << U(16)) & U(0xFFFFFFFF)
    kept = ports & U(0xFFFF0000)
    kind = ports >> U(8) & U(0xFF)
    ping = kept | (U(0) if kind == U(8) else U(8 << 8))
    ping6 = kept | (U(129 << 8) if kind == U(128) else U(128 << 8))
    return ping if proto == U(1) else ping6 if proto == U(58) else turned


@inner
def act(
    s: Any, b: Any, o: Any, run: Any, candidates: Any, begin: Any, end: Any, last: Any, hashes: Any, coming: Any
) -> Any:
    """The first packet from ``begin`` on that is not fast (``end``: none); those before have moved their flows on.

    ``last``: the last packet whose candidate is known; ``coming``: where the hashes begin of the packets a block on."""
    classes, hots, slots, colds = s.classes, s.hot, s.slots, s.cold
    time, ttls, lengths = b.time, b.ttl, b.length
    flags, tcp_flags, seqs, acks, windows, options = b.flags, b.tcp_flags, b.seq, b.ack, b.window, b.tcp_options
    verdict, masqueraded, ttl_out, rules = o.verdict, o.masqueraded, o.ttl, o.rules
    now = until = np.int64(0)
    for i in range(begin, end):
        next_one = candidates[min(i + AHEAD, last)]
        prefetch(hots, next_one)
        k = i - begin
        prefetch(slots, home(slots, hashes[coming + k]))
        flow, reply = U(candidates[i]), run[_REPLY + k]
        row, hot = classes[U(run[_WAY + k])], hots[flow]
        if time[i] >= until:
            now = np.int64(U(time[i]) // U(1000)) + 1
            until = now * 1000
        ttl, length = ttls[i], lengths[i]
        last0, last1 = np.int64(hot["last0"]), np.int64(hot["last1"])
        if (
            run[_WAY + k] == 0
            or length > row["longest"]
            or ttl <= row["least"]
            or now >= max(last0, last1) + np.int64(row["timeout"])
            or now >= (last1 if reply else last0) + np.int64(row["outer_timeout"])
        ):
            return i
        outer = U(0)
        if row["outer_kept"]:
            outer = kept_outer(s, flow, reply, now)
            if outer == 0:
                return i
        if row["tcp"]:
            prefetch(colds, next_one)
            header = 60 if flags[i] & 1 else 40
            if (tcp_flags[i] | _PSH) != (_ACK | _PSH) or not tcp_established(
                colds[flow]["tcp"], reply != 0, np.int64(seqs[i]), np.int64(acks[i]), np.int64(windows[i]),
                np.int64(length) - header - np.int64(options[i]),
            ):  # fmt: skip
                return i
        if outer != 0:
            s.outer[outer]["last"] = now
        if reply:
            hot["last1"] = now
            hot["packets1"] += 1
            hot["bytes1"] += length
        else:
            hot["last0"] = now
            hot["packets0"] += 1
            hot["bytes0"] += length
        verdict[i], masqueraded[i], rules[i], ttl_out[i] = (
            row["verdict"],
            row["masqueraded"],
            row["rules"],
            ttl - row["ttl"],
        )
    return end


@inner
def kept_outer(s: Any, flow: Int, direction: Int, now: Int) -> Int:
    """The number of the tunnel's entry that this direction travels in, if it lives and keeps its own time; else 0."""
    outer = U(outer_of(s, flow, direction))
    entry = s.outer[outer]
    if bits_of(entry) & OWNED or not settled(s, entry) or not outer_alive(s, outer, now):
        return U(0)
    return outer
