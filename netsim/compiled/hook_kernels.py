"""Netfilter hooks on registers, in the order in which ``netsim.interpreter.hooks`` draws them.

PREROUTING     raw  track  mangle  nat (destination)
INPUT                      mangle  filter  security  nat (source)  confirm
FORWARD                    mangle  filter  security
OUTPUT         raw  track  mangle  nat (destination)  filter  security
POSTROUTING                mangle                     nat (source)  confirm

Of iptables-nft, security comes behind nat at INPUT.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled.counter_table import expect
from netsim.compiled.fib_tables import LOCAL, OUT_DEVICE, OUT_GATEWAY, OUT_MTU, UNICAST
from netsim.compiled.jit import Int, kernel
from netsim.compiled.programs import NEEDS_TYPES
from netsim.compiled.tracking_kernels import bail, confirm, fault, set_state, settle, track, translate, wants_nat
from netsim.compiled.unit import unit
from netsim.compiled.units import address_type, fib_lookup, walk
from netsim.compiled.world import FILTER, MANGLE, NAT_TABLE, RAW, SECURITY, SECURITY_LATE4, SECURITY_LATE6

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
_LOOPBACK = 127  # the first byte of such addresses' handles
_EVERYBODY = 0xFFFFFFFF  # the handle of 255.255.255.255


@kernel
def _count_hits(e: Any, x: Any, before: Int, table: Int) -> None:
    """Remember in which namespace and table (IPv4's five, then IPv6's) the rules of the last walk matched."""
    where = x.j[jn.NS] | table << 24
    for place in range(before, np.int64(x.r[rg.HITS])):
        x.hit_ns[place] = where
        expect(e.c.rows, where, np.int64(x.rules.hits[place]))


@unit
def walk_table(e: Any, x: Any, hook: Int, table: Int) -> Int:
    """Walk one table. GO_ON with the effect's row + 1 of a translation in the next bits; or how the packet's way ends."""
    r, j = x.r, x.j
    number = np.int64(e.w.namespace[j[jn.NS]]["tables"][table + (5 if r[rg.FAMILY] == 6 else 0)])
    if number == 0:
        return 0
    chain = np.int64(e.w.hooks[e.w.namespace[j[jn.NS]]["hooks"][1 if r[rg.FAMILY] == 6 else 0], 5 * table + hook])
    if e.p.code[chain] == 0:
        return 0  # no rule, and what it lets through goes on
    r[rg.SRC_TYPE] = r[rg.DST_TYPE] = 0  # those of another namespace, or of addresses since translated
    before, evaluated, mark = np.int64(r[rg.HITS]), r[rg.EVALUATED], r[rg.MARK]
    draws, planned = r[rg.DRAWS], r[rg.PLANNED]
    now = np.float64(j[jn.NOW]) / 1000.0
    answer = walk(e.p, x.rules, e.recent, e.words, number - 1, chain, r, x.seed[0], now)
    if answer == rg.FAULT and r[rg.FAULT_B] == NEEDS_TYPES:  # a rule asks what addresses are, as few do: once more
        for register, address in ((rg.SRC_TYPE, rg.SRC), (rg.DST_TYPE, rg.DST)):
            kind = address_type(e.f, e.words, j[jn.NS], np.int64(r[rg.FAMILY]), np.int64(r[address]), x.out)
            if kind < 0:
                return bail(x, jn.R_RULE)
            r[register] = kind
        r[rg.HITS], r[rg.EVALUATED], r[rg.MARK] = before, evaluated, mark
        r[rg.DRAWS], r[rg.PLANNED], r[rg.CT_MARK] = draws, planned, 0
        answer = walk(e.p, x.rules, e.recent, e.words, number - 1, chain, r, x.seed[0], now)
    _count_hits(e, x, before, table + (5 if r[rg.FAMILY] == 6 else 0))
    code, argument = answer & 0xFF, answer >> 8
    if r[rg.CT_MARK] != 0:
        return bail(x, jn.R_MARK)  # a rule has marked the connection, and flows hold no marks
    if code == rg.ACCEPT:
        return 0
    if code == rg.NAT:
        return (argument + 1) << 8
    if code == rg.DROP:
        j[jn.VERDICT] = jn.DROPPED
        decided(x)
        return 1
    if code == rg.FAULT:
        return fault(x, jn.FAULT_RULES, np.int64(r[rg.FAULT_A]), np.int64(r[rg.FAULT_B]))
    return bail(x, jn.R_REJECT if code == rg.REJECT else jn.R_RULE)


@kernel
def decided(x: Any) -> None:
    """The rule that matched last settled it; a built-in chain's policy is told as no rule."""
    hits = np.int64(x.r[rg.HITS])
    x.j[jn.DECIDED_NS] = x.j[jn.NS]
    x.j[jn.DECIDED] = 0 if x.r[rg.BY_POLICY] or hits == 0 else np.int64(x.rules.hits[hits - 1]) + 1


@unit
def reroute(e: Any, x: Any) -> Int:
    """A route for a packet made here (``ip_route_output_key``, ``ip_route_me_harder``)."""
    r, j = x.r, x.j
    if r[rg.FAMILY] == 4 and r[rg.DST] == _EVERYBODY:
        return bail(x, jn.R_ROUTE)  # not what routes say (``egress.to_everybody``)
    kind = fib_lookup(
        e.f, e.words, j[jn.NS], np.int64(r[rg.FAMILY]), np.int64(r[rg.DST]), np.int64(r[rg.SRC]), np.int64(0),
        j[jn.ONLY_OIF], np.int64(r[rg.MARK]), np.int64(1), x.out,
    )  # fmt: skip
    if kind == UNICAST and r[rg.FAMILY] == 4 and r[rg.SRC] >> 24 == _LOOPBACK:
        return bail(x, jn.R_ROUTE)  # it may not leave (``egress._loopback_leaves``)
    if kind == UNICAST or kind == LOCAL:
        j[jn.ROUTED] = 1
        j[jn.ROUTE_TYPE] = kind
        j[jn.ROUTE_DEVICE] = x.out[OUT_DEVICE]
        j[jn.ROUTE_GATEWAY] = x.out[OUT_GATEWAY]
        j[jn.ROUTE_MTU] = x.out[OUT_MTU]
        r[rg.OIF] = e.f.lo if kind == LOCAL else x.out[OUT_DEVICE]
        return 0
    if kind == -rg.FAULT:
        return fault(x, jn.FAULT_FIB, x.out[0], x.out[1])
    return bail(x, jn.R_ROUTE)


@kernel
def _reroute_behind(e: Any, x: Any) -> Int:
    """The packet goes another way behind this hook; its rules still see the device that it was to leave by."""
    device = x.r[rg.OIF]
    end = reroute(e, x)
    x.r[rg.OIF] = device
    return end


@unit
def raw(e: Any, x: Any, hook: Int) -> Int:
    x.r[rg.NOTRACK] = 0
    set_state(e, x)
    end = walk_table(e, x, hook, RAW)
    if end == 0 and x.r[rg.NOTRACK]:
        x.j[jn.CT] = 0
        x.j[jn.UNTRACKED] = 1
        x.r[rg.NOTRACK] = 0
    if end == 0:
        end = track(e, x)
    if end == 0:
        set_state(e, x)
    return end


@unit
def nat(e: Any, x: Any, hook: Int, source: Int) -> Int:
    r, j = x.r, x.j
    number = e.w.namespace[j[jn.NS]]["tables"][NAT_TABLE + (5 if r[rg.FAMILY] == 6 else 0)]
    if number == 0 or j[jn.CT] == 0:
        return 0
    stop = x.stops[j[jn.CT] - 1]
    if hook == POSTROUTING and stop["masquerade"] and stop["masquerade"] != r[rg.OIF] and not stop["found"] & 1:
        return bail(x, jn.R_NAT)  # masqueraded for another device: ``nat.leaves_elsewhere``
    if wants_nat(x, source):
        end = walk_table(e, x, hook, NAT_TABLE)
        if end & 0xFF:
            return end
        effect = (end >> 8) - 1
        if effect >= 0 and not source:
            decided(x)
            j[jn.TRANSLATED], j[jn.TRANSLATED_NS] = j[jn.DECIDED], j[jn.DECIDED_NS]
            j[jn.DECIDED] = 0
        end = settle(e, x, source, effect)
        if end:
            return end
    changed = translate(e, x, source)
    set_state(e, x)
    if hook == OUTPUT and changed:
        return _reroute_behind(e, x)
    return 0


@kernel
def _mangle(e: Any, x: Any, hook: Int) -> Int:
    mark = x.r[rg.MARK]
    end = walk_table(e, x, hook, MANGLE)
    if end == 0 and hook == OUTPUT and x.r[rg.MARK] != mark:
        return _reroute_behind(e, x)
    return end


@kernel
def _security_late(e: Any, x: Any) -> bool:
    """Table security is iptables-nft's, which comes behind source translation at INPUT."""
    late = SECURITY_LATE6 if x.r[rg.FAMILY] == 6 else SECURITY_LATE4
    return bool(e.w.namespace[x.j[jn.NS]]["flags"] & late)


@unit
def run_hook(e: Any, x: Any, hook: Int) -> Int:
    """GO_ON, ENDED, BAILED or FAULTED."""
    end = 0
    late = hook == INPUT and _security_late(e, x)
    if hook == PREROUTING or hook == OUTPUT:
        end = raw(e, x, hook)
        if end == 0:
            end = _mangle(e, x, hook)
        if end == 0:
            end = nat(e, x, hook, 0)
    else:
        end = _mangle(e, x, hook)
    if hook == INPUT or hook == FORWARD or hook == OUTPUT:
        if end == 0:
            end = walk_table(e, x, hook, FILTER)
        if end == 0 and not late:
            end = walk_table(e, x, hook, SECURITY)
    if hook == INPUT or hook == POSTROUTING:
        if end == 0:
            end = nat(e, x, hook, 1)
        if end == 0 and late:
            end = walk_table(e, x, hook, SECURITY)
        if end == 0:
            end = confirm(e, x)
    return end & 0xFF
