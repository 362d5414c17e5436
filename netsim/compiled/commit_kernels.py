"""When a journey is over: flows are made or brought up to date, rules counted, and the way remembered for the fast path.

Everything is decided before anything is written, so that a journey can still be given up here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import flow_records as fl
from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled.counter_table import count
from netsim.compiled.flow_records import (
    bits_of,
    count_of,
    keep_time,
    namespace_of,
    outer_of,
    owner_of,
    set_bits,
    set_namespace,
    set_number,
    set_outer,
    set_owner,
    settings_of,
    status_word,
)
from netsim.compiled.flows import alive, disown, drop_flow, entry_at, find_any, link_flow, new_flow, room_for_flow
from netsim.compiled.jit import Int, kernel
from netsim.compiled.outer_flows import new_outer, outer_last, outer_timeout, room_for_outer, settled
from netsim.compiled.recent_table import commit as commit_recent
from netsim.compiled.tracking_kernels import bail, fault
from netsim.compiled.unit import unit
from netsim.compiled.world import LIBERAL

U = np.uint64
_ACK, _PSH = 16, 8
_NEVER = 0xFFFFFFFF


@unit
@kernel
def fold(e: Any, flow: Int, direction: Int) -> Int:
    """Move what the fast path has counted of one direction into the flow's and the rules' counters."""
    hot = e.s.hot[flow]
    if direction:
        packets, volume, place = np.int64(hot["packets1"]), np.int64(hot["bytes1"]), np.int64(hot["class1"])
        hot["packets1"] = 0
        hot["bytes1"] = 0
    else:
        packets, volume, place = np.int64(hot["packets0"]), np.int64(hot["bytes0"]), np.int64(hot["class0"])
        hot["packets0"] = 0
        hot["bytes0"] = 0
    hot["packets"] += np.uint32(packets)
    if packets == 0 or place == 0:
        return 0
    row = e.s.classes[place]
    first = np.int64(row["profile"])
    for at in range(first, first + np.int64(row["hits"])):
        item = np.int64(e.s.profiles[at])
        where = namespace_of(e.s, flow, item >> 30) | (item >> 26 & 15) << 24
        e.c.used[0] += count(e.c.rows, where, item & 0x03FFFFFF, packets, volume)
    return 0


@unit
def forget_class(e: Any, flow: Int, direction: Int) -> Int:
    """The next packet of this direction takes the slow path again."""
    fold(e, flow, direction)
    if direction:
        e.s.hot[flow]["class1"] = 0
    else:
        e.s.hot[flow]["class0"] = 0
    return 0


@kernel
def forget_flow(e: Any, flow: Int) -> None:
    fold(e, flow, 0)
    fold(e, flow, 1)
    drop_flow(e.s, flow)


@unit
def check_stops(e: Any, x: Any) -> Int:
    """Do the stops make one flow that moves in step? Leaves in ``out``: its number (0: new), the direction, how many stops
    are its own, the tunnel's entry << 1 | direction (0: new, -1: no tunnel), the tunnel's first and last stop."""
    j = x.j
    flow: Int = 0
    direction: Int = 0
    own = 0
    outer = np.int64(-1)
    first_outer = last_outer = 0
    unconfirmed_outer = 0
    ended = False
    for place in range(j[jn.STOPS]):
        stop = x.stops[place]
        found = np.int64(stop["found"])
        if stop["outer"]:
            if not stop["confirmed"] and not found & 1:
                unconfirmed_outer += 1
                continue
            if outer == -1:
                outer, first_outer = found, place
            elif outer != found or last_outer != first_outer:
                return bail(x, jn.R_TUNNEL)
            last_outer = place
            continue
        if found == 0 and not stop["confirmed"]:
            ended = True  # a rule dropped the first packet of what would have been a connection here
            continue
        if ended or (own != 0 and (found >> 1 != flow or found & 1 != direction)):
            return bail(x, jn.R_STEP)
        flow, direction = found >> 1, found & 1
        own += 1
    if unconfirmed_outer != 0 and outer != -1:
        return bail(x, jn.R_TUNNEL)
    x.out[0], x.out[1], x.out[2], x.out[3], x.out[4], x.out[5] = flow, direction, own, outer, first_outer, last_outer
    if flow == 0:
        return 0
    if own != count_of(e.s.hot[flow]):
        return bail(x, jn.R_STEP)
    at = 0
    for place in range(j[jn.STOPS]):
        stop = x.stops[place]
        if stop["outer"] or stop["found"] == 0:
            continue
        if namespace_of(e.s, flow, own - 1 - at if direction else at) != stop["ns"]:
            return bail(x, jn.R_STEP)
        at += 1
    return 0


@unit
def check_new(e: Any, x: Any, own: Int) -> Int:
    """Can the stops of a new connection be one record? -1 or a code of ``bail``; else which stop translates."""
    j = x.j
    if own > 3:
        return -bail(x, jn.R_STEP)
    at = 0
    nat_at = own
    before: Int = np.int64(-1)
    for place in range(j[jn.STOPS]):
        stop = x.stops[place]
        if stop["outer"] or not stop["confirmed"]:
            continue
        if stop["status"]:
            if nat_at != own:
                return -bail(x, jn.R_TWICE)
            nat_at = at
        if before >= 0:
            last = x.stops[before]
            if (
                last["out_src"] != stop["in_src"]
                or last["out_dst"] != stop["in_dst"]
                or last["out_ports"] != stop["in_ports"]
                or e.w.namespace[last["ns"]]["settings"] != e.w.namespace[stop["ns"]]["settings"]
            ):
                return -bail(x, jn.R_TWICE)
            for other in range(place):
                held = x.stops[other]
                if not held["outer"] and held["confirmed"] and held["ns"] == stop["ns"]:
                    return -bail(x, jn.R_STEP)
        before = place
        at += 1
    return nat_at


@unit
def make_flow(e: Any, x: Any, own: Int, nat_at: Int) -> Int:
    """A new flow of the confirmed stops; 0 if there is no room."""
    r, j, s = x.r, x.j, e.s
    flow = new_flow(s)
    if flow == 0:
        return 0
    hot, rest = s.hot[flow], s.rest[flow]
    bits: Int = np.int64(1 if r[rg.FAMILY] == 6 else 0)
    settings: Int = np.int64(0)
    set_number(rest, fl.DEVICE, 0)
    at = 0
    for place in range(j[jn.STOPS]):
        stop = x.stops[place]
        if stop["outer"] or not stop["confirmed"]:
            continue
        if at == 0:
            hot["s0_src"], hot["s0_dst"], hot["s0_ports"] = stop["in_src"], stop["in_dst"], stop["in_ports"]
            hot["proto"] = stop["proto"]
            settings = np.int64(e.w.namespace[stop["ns"]]["settings"])
        if stop["masquerade"]:
            set_number(rest, fl.DEVICE, np.int64(stop["masquerade"]))
        bits |= stop["status"] & (fl.SNAT | fl.DNAT)
        set_namespace(s, flow, at, np.int64(stop["ns"]))
        hot["s1_src"], hot["s1_dst"], hot["s1_ports"] = stop["out_src"], stop["out_dst"], stop["out_ports"]
        at += 1
    hot["status"] = status_word(bits, own, nat_at, settings)
    s.cold[flow]["born"] = j[jn.NOW]
    set_outer(s, flow, 0, 0)
    set_outer(s, flow, 1, 0)
    hot["end0"], hot["end1"] = j[jn.ORIGIN], j[jn.RECEIVER] if j[jn.VERDICT] < jn.DROPPED else 0
    hot["class0"] = hot["class1"] = 0
    hot["last0"] = hot["last1"] = j[jn.NOW]
    hot["packets"] = hot["packets0"] = hot["packets1"] = hot["bytes0"] = hot["bytes1"] = 0
    link_flow(s, flow)
    return flow


@unit
def forget_dead(e: Any, x: Any) -> Int:
    """Records with the tuple of the new flow that have expired make room for it."""
    hot = e.s.hot
    v6 = 1 if x.r[rg.FAMILY] == 6 else 0
    stop = x.stops[x.out[6]]
    proto, ports = np.int64(stop["proto"]), np.int64(stop["in_ports"])
    src, dst = np.int64(stop["in_src"]), np.int64(stop["in_dst"])
    for _ in range(4):
        found = find_any(e.s, proto, src, dst, ports, v6)
        if found == 0 or alive(e.s, found >> 1, x.j[jn.NOW]) or hot[found >> 1]["proto"] == 0:
            return 0
        forget_flow(e, found >> 1)
    return 0


@kernel
def _first_own(x: Any) -> Int:
    for place in range(x.j[jn.STOPS]):
        if not x.stops[place]["outer"] and x.stops[place]["confirmed"]:
            return place
    return 0


@unit
def touch_outer(e: Any, x: Any, flow: Int, direction: Int) -> Int:
    """Bring the tunnel's entry up to date and tie it to the flow's direction: its number; 0 without a tunnel."""
    s, j = e.s, x.j
    found, first, last = x.out[3], x.out[4], x.out[5]
    if found == -1:
        return 0
    now = j[jn.NOW]
    number = found >> 1
    stop = x.stops[first]
    if found == 0:
        number = new_outer(
            s, np.int64(stop["proto"]), np.int64(stop["in_src"]), np.int64(stop["in_dst"]), np.int64(stop["in_ports"]),
            x.out[7], np.int64(stop["ns"]), np.int64(x.stops[last]["ns"]),
            np.int64(e.w.namespace[stop["ns"]]["settings"]),
        )  # fmt: skip
        if number == 0:
            return -1
        free_outer(e, number)
        s.outer[number]["born"] = now
    entry = s.outer[number]
    bits = np.int64(0) if found == 0 else bits_of(entry)
    reply = found & 1
    if stop["proto"] == 17 and (reply or bits & fl.SEEN_REPLY) and now > np.int64(entry["born"]) + 2000:
        bits |= fl.ASSURED
    if reply:
        bits |= fl.SEEN_REPLY
    set_bits(entry, bits)
    owner = flow << 1 | direction
    if flow != 0 and found == 0 and settled(s, entry):
        set_owner(entry, owner)
    elif flow == 0 or owner_of(entry) != owner:
        free_outer(e, number)
        entry["last"] = now
    return number


@kernel
def free_outer(e: Any, number: Int) -> None:
    """From now on the entry keeps its own time; its owner must look after it packet by packet."""
    entry = e.s.outer[number]
    owner = owner_of(entry)
    if owner != 0:
        keep_time(entry, outer_last(e.s, number))
        forget_class(e, owner >> 1, owner & 1)


@unit
def classify(e: Any, x: Any, flow: Int, direction: Int, outer: Int) -> Int:
    """The row of ``classes`` for packets that will fare as this one did; 0 if that cannot be said."""
    r, j, s = x.r, x.j, e.s
    hot = s.hot[flow]
    if j[jn.VERDICT] >= jn.DROPPED or r[rg.DRAWS] != 0 or r[rg.PLANNED] != 0:
        return 0
    if r[rg.VARIES] or j[jn.DEPTH] != 0:
        return 0  # others may be told something else; or it left in its tunnel, and records know what is inside alone
    if x.out[3] == 0:
        return 0  # the tunnel's entry was new: its next packets pass fewer rules
    own, far = (hot["end1"], hot["end0"]) if direction else (hot["end0"], hot["end1"])
    if own != j[jn.ORIGIN] or far != j[jn.RECEIVER]:
        return 0
    state = np.int64(hot["state"])
    tcp = 0
    if hot["proto"] == 6:
        tcp = 2 if e.w.namespace[namespace_of(s, flow, 0)]["flags"] & LIBERAL else 1
    if tcp and (state != 3 or (x.segment[0] | _PSH) != (_ACK | _PSH)):
        return 0
    if state == fl.UDP and hot["status"] & fl.SEEN_REPLY:
        return 0
    if tcp and hot["status"] & fl.SEEN_REPLY and not hot["status"] & fl.ASSURED:
        return 0  # picked up in the middle: the next packet may assure it
    hits = np.int64(r[rg.HITS])
    first = s.counts[fl.N_PROFILES]
    if hits > 64 or first + hits > s.profiles.shape[0]:
        return 0
    for place in range(hits):
        where, rule = np.int64(x.hit_ns[place]), np.int64(x.rules.hits[place])
        at = entry_at(s, flow, where & 0xFFFFFF)
        if at < 0 or rule >> 26:
            return 0
        s.profiles[first + place] = np.uint32(at << 30 | where >> 24 << 26 | rule)
    taken = j[jn.TTL_IN] - np.int64(r[rg.TTL])
    longest = min(j[jn.LONGEST], 65535)
    timeout = np.int64(s.timeouts[settings_of(hot), state])
    tunnel_timeout, kept = np.int64(_NEVER), 0
    if outer != 0:
        if not settled(s, s.outer[outer]):
            return 0
        tunnel_timeout = outer_timeout(s, outer)
        kept = 0 if owner_of(s.outer[outer]) == (flow << 1 | direction) else 1
    for number in range(1, s.counts[fl.N_CLASSES]):
        row = s.classes[number]
        if (
            row["verdict"] == j[jn.VERDICT]
            and row["ttl"] == taken
            and row["least"] == j[jn.SPENT]
            and row["longest"] == longest
            and row["rules"] == r[rg.EVALUATED]
            and row["timeout"] == timeout
            and row["outer_timeout"] == tunnel_timeout
            and row["tcp"] == tcp
            and row["outer_kept"] == kept
            and row["masqueraded"] == j[jn.MASQUERADED]
            and row["hits"] == hits
            and _same_profile(s, np.int64(row["profile"]), first, hits)
        ):
            return number
    number = s.counts[fl.N_CLASSES]
    if number >= s.classes.shape[0]:
        return 0
    row = s.classes[number]
    row["verdict"], row["ttl"], row["longest"], row["rules"] = j[jn.VERDICT], taken, longest, r[rg.EVALUATED]
    row["timeout"], row["outer_timeout"], row["tcp"], row["outer_kept"] = timeout, tunnel_timeout, tcp, kept
    row["masqueraded"], row["hits"], row["profile"] = j[jn.MASQUERADED], hits, first
    row["least"] = j[jn.SPENT]
    s.counts[fl.N_PROFILES] += hits
    s.counts[fl.N_CLASSES] += 1
    return number


@kernel
def _same_profile(s: Any, one: Int, other: Int, count: Int) -> Int:
    for place in range(count):
        if s.profiles[one + place] != s.profiles[other + place]:
            return False
    return True


@unit
def commit(e: Any, x: Any) -> Int:
    """0; or BAILED, or FAULTED for want of room: then nothing has been written."""
    r, j, s = x.r, x.j, e.s
    length, now = np.int64(j[jn.LENGTH_IN]), j[jn.NOW]
    end = check_stops(e, x)
    if end:
        return end
    flow, direction, own = x.out[0], x.out[1], x.out[2]
    nat_at = own
    if flow == 0 and own != 0:
        nat_at = check_new(e, x, own)
        if nat_at < 0:
            return -nat_at
    if not room_for_flow(s):
        return fault(x, jn.FAULT_ROOM, 0, 0)
    if not room_for_outer(s):
        return fault(x, jn.FAULT_ROOM, 1, 0)
    if 2 * (e.c.used[0] + 256) > e.c.rows.shape[0]:
        return fault(x, jn.FAULT_ROOM, 2, 0)
    if r[rg.PLANNED] != 0 and 2 * (np.int64(e.recent.count[0]) + 64) > e.recent.slots.shape[0]:
        return fault(x, jn.FAULT_ROOM, 3, 0)
    fresh = flow == 0
    x.out[7] = j[jn.OUTER_V6]
    if fresh and own != 0:
        x.out[6] = _first_own(x)
        forget_dead(e, x)
        flow = make_flow(e, x, own, nat_at)
    outer = touch_outer(e, x, flow, direction)
    for place in range(np.int64(r[rg.HITS])):
        e.c.used[0] += count(e.c.rows, np.int64(x.hit_ns[place]), np.int64(x.rules.hits[place]), 1, length)
    planned = r[rg.PLANNED]
    if flow != 0:
        update(e, x, flow, direction, outer, fresh, now)
        r[rg.PLANNED] = planned
    j[jn.FLOW] = flow << 1 | direction
    if x.told[0] != 0:
        told = e.told[x.told[0] - 1]
        told["allowance"], told["when"] = x.told[1], now
    if planned != 0:
        commit_recent(e.recent, x.rules.planned, r)
    return 0


@unit
def update(e: Any, x: Any, flow: Int, direction: Int, outer: Int, fresh: Int, now: Int) -> Int:
    j, s = x.j, e.s
    hot = s.hot[flow]
    travelled = outer_of(s, flow, direction)
    if travelled != 0 and travelled != outer:  # it keeps the time of the packet before this one
        disown(s, travelled, flow << 1 | direction, np.int64(hot["last1"]) if direction else np.int64(hot["last0"]))
    set_outer(s, flow, direction, outer)
    hot["packets"] += np.uint32(1)
    replied = hot["status"] & fl.SEEN_REPLY
    changed = fresh or hot["state"] != j[jn.STATE_AFTER] or (direction == 1 and not replied)
    if changed and not fresh:
        forget_class(e, flow, 0)
        forget_class(e, flow, 1)
    before = np.int64(hot["state"])
    hot["state"] = j[jn.STATE_AFTER]
    if hot["proto"] == 6:
        s.cold[flow]["tcp"] = x.tcp[0]
        if hot["state"] == 3 and (before == 2 or before == 3) and replied and not fresh:
            hot["status"] |= fl.ASSURED
    elif hot["state"] == fl.UDP_STREAM:
        hot["status"] |= fl.ASSURED
    if direction:
        hot["status"] |= fl.SEEN_REPLY
        hot["last1"] = now
        if hot["end1"] == 0:
            hot["end1"] = j[jn.ORIGIN]
        if hot["end0"] == 0 and j[jn.VERDICT] < jn.DROPPED:
            hot["end0"] = j[jn.RECEIVER]
    else:
        hot["last0"] = now
        if hot["end0"] == 0:
            hot["end0"] = j[jn.ORIGIN]
        if hot["end1"] == 0 and j[jn.VERDICT] < jn.DROPPED:
            hot["end1"] = j[jn.RECEIVER]
    if not fresh:
        place = classify(e, x, flow, direction, outer)
        fold(e, flow, direction)
        if direction:
            hot["class1"] = place
        else:
            hot["class0"] = place
    return 0
