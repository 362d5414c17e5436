"""Ingress checks and source addresses on the routing tables.

Twins of ``netsim.interpreter.validation`` (``martian``, ``validate_source``) and ``Fib.select_source``. Numbers as in
``fib_kernels``; a reason is 0 (nothing is wrong) or one of ``REASONS``, an answer below zero ``-BAIL`` or ``-FAULT``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.fib_kernels import device_row, fib_lookup, mapped, missing, multicast, wide
from netsim.compiled.fib_tables import (
    ACCEPT_LOCAL,
    BLACKHOLE,
    CUSTOM_RULES,
    EXISTS,
    HAS_IPV4,
    LOCAL,
    LOOPBACK,
    NO_ROUTE,
    OUT_RECORD,
    ROUTE_LOCALNET,
    RP_MASK,
    RP_SHIFT,
    SRC_VALID_MARK,
    UNICAST,
)
from netsim.compiled.jit import inner, kernel
from netsim.compiled.registers import BAIL, FAULT
from netsim.linux.source_address import GLOBAL_SCOPE, LABELS, LINK_SCOPE, SITE_SCOPE

U = np.uint64
_0, _32 = U(0), U(32)
_ALL_ONES = 0xFFFFFFFF

# Why a packet is discarded, in the words of the interpreter's account.
(SOURCE_MULTICAST, SOURCE_BROADCAST, LOOPBACK6, NOBODY, DESTINATION_LOOPBACK, SOURCE_LOOPBACK) = range(1, 7)
(OWN_ADDRESS, NO_WAY_BACK, NO_HOST, OTHER_WAY_BACK) = range(7, 11)
REASONS = {
    SOURCE_MULTICAST: "martian source {src}: a multicast address",
    SOURCE_BROADCAST: "martian source {src}: the broadcast address",
    LOOPBACK6: "martian {src} -> {dst}: ::1 never arrives on a device",
    NOBODY: "martian {src} -> {dst}: 0.0.0.0 is nobody's address",
    DESTINATION_LOOPBACK: "martian destination {dst}: 127.0.0.0/8 is not routed (route_localnet=0)",
    SOURCE_LOOPBACK: "martian source {src}: 127.0.0.0/8 is not routed (route_localnet=0)",
    OWN_ADDRESS: "martian source {src}: an address of this node (accept_local=0)",
    NO_WAY_BACK: "rp_filter={mode} on {iif}: no route back to {src}",
    NO_HOST: "martian source {src}: it is {type} here",
    OTHER_WAY_BACK: "rp_filter={mode} on {iif}: the route back to {src} leaves by {device}",
}

# ipv6_addr_label: the prefixes of RFC 6724, the most specific first
_LABEL_PREFIX = np.array([divmod(int(prefix.network_address), 1 << 64) for prefix, _ in LABELS], np.uint64)
_LABEL_LENGTH = np.array([prefix.prefixlen for prefix, _ in LABELS], np.int64)
_LABEL = np.array([number for _, number in LABELS], np.int64)


@kernel
def martian(F: Any, words: Any, namespace: Any, family: Any, src: Any, dst: Any, iif: Any, out: Any) -> Any:
    """Why a packet from the wire is discarded before any look-up."""
    if missing(F, namespace, np.int64(4), out):
        return np.int64(-FAULT)
    row = device_row(F, namespace, iif)
    flags = np.int64(F.device[row]["flags"]) if row >= 0 else np.int64(0)
    if not flags & EXISTS:
        return np.int64(-BAIL)
    if flags & LOOPBACK:
        return np.int64(0)
    src_hi, src_lo = wide(words, family, src)
    dst_hi, dst_lo = wide(words, family, dst)
    if mapped(family, src_hi, src_lo) or mapped(family, dst_hi, dst_lo):
        return np.int64(-BAIL)
    if multicast(family, src_hi):
        return np.int64(SOURCE_MULTICAST)
    if family == 6:
        loops = (src_hi == _0 and src_lo == U(1)) or (dst_hi == _0 and dst_lo == U(1))
        return np.int64(LOOPBACK6 if loops else 0)
    if src == _ALL_ONES:
        return np.int64(SOURCE_BROADCAST)
    if dst == _ALL_ONES or (src == 0 and dst == 0):
        return np.int64(0)
    if src == 0 or dst == 0:
        return np.int64(NOBODY)
    if not flags & ROUTE_LOCALNET:
        if dst >> 24 == 127:
            return np.int64(DESTINATION_LOOPBACK)
        if src >> 24 == 127:
            return np.int64(SOURCE_LOOPBACK)
    return np.int64(0)


@inner
def _is_own(F: Any, namespace: Any, address: Any) -> Any:
    """Is it an IPv4 address of the namespace's devices?"""
    first = np.int64(F.namespace[namespace]["own"])
    for at in range(first, first + np.int64(F.namespace[namespace]["owned"])):
        if F.number[at] == address:
            return True
    return False


@inner
def _leads_to(F: Any, row: Any, device: Any) -> Any:
    """Is ``device`` that of one of the route's next hops?"""
    if row < 0:
        return False
    route = F.route[row]
    hops = np.int64(route["hops"])
    if hops == 1:
        return route["device"] == device
    for at in range(np.int64(route["hop"]), np.int64(route["hop"]) + hops):
        if F.hop[at]["device"] == device:
            return True
    return False


@kernel
def validate_source(
    F: Any, words: Any, namespace: Any, family: Any, src: Any, dst: Any, iif: Any, oif: Any, mark: Any, out: Any
) -> Any:
    """Why the source is not believed once there is a route. ``oif``: the device it is forwarded to; 0: it stays here."""
    if missing(F, namespace, np.int64(4), out):
        return np.int64(-FAULT)
    if family == 6 or src == 0:
        return np.int64(0)
    row = device_row(F, namespace, iif)
    flags = np.int64(F.device[row]["flags"]) if row >= 0 else np.int64(0)
    if not flags & EXISTS:
        return np.int64(-BAIL)
    mode = flags >> RP_SHIFT & RP_MASK
    if mode == 0:
        if flags & ACCEPT_LOCAL:
            return np.int64(0)
        if not F.namespace[namespace]["flags"] & CUSTOM_RULES:
            return np.int64(OWN_ADDRESS if _is_own(F, namespace, src) else 0)
    use = np.int64(mark) if flags & SRC_VALID_MARK else np.int64(0)
    found = fib_lookup(F, words, namespace, np.int64(4), src, dst, oif, np.int64(0), use, np.int64(0), out)
    if found < 0:
        return found
    if found == NO_ROUTE or found >= BLACKHOLE:
        return np.int64(NO_WAY_BACK if mode else 0)
    if found == LOCAL and not flags & ACCEPT_LOCAL:
        return np.int64(OWN_ADDRESS)
    if found not in (UNICAST, LOCAL):
        return np.int64(NO_HOST)
    if _leads_to(F, out[OUT_RECORD], iif):
        return np.int64(0)
    if mode == 1 or (mode != 0 and not flags & HAS_IPV4):
        return np.int64(OTHER_WAY_BACK)
    return np.int64(0)


# -- source addresses --------------------------------------------------------------------------------------------------
@kernel
def select_source(F: Any, words: Any, namespace: Any, family: Any, device: Any, near: Any, out: Any) -> Any:
    """``Fib.select_source`` with global scope: the handle of the address that a packet to ``near`` leaves ``device`` with;
    -1: there is none."""
    if missing(F, namespace, family, out):
        return np.int64(-FAULT)
    if family == 6:
        return _select6(F, words, namespace, device, near)
    row = device_row(F, namespace, device)
    count = np.int64(F.device[row]["count"]) if row >= 0 else np.int64(0)
    if count == 0:
        return np.int64(F.namespace[namespace]["source"])
    first = np.int64(F.device[row]["first"])
    for at in range(first, first + count):
        held = np.int64(F.primary[at]["address"])
        if (held ^ near) & np.int64(F.primary[at]["mask"]) == 0:
            return held
    return np.int64(F.primary[first]["address"])


@inner
def _scope(hi: Any, lo: Any) -> Any:
    if hi >> U(56) == U(0xFF):
        return np.int64(hi >> U(48) & U(15))
    if hi >> U(54) == U(0x3FA) or (hi == _0 and lo == U(1)):
        return np.int64(LINK_SCOPE)
    return np.int64(SITE_SCOPE if hi >> U(54) == U(0x3FB) else GLOBAL_SCOPE)


@inner
def _common(a: Any, b: Any) -> Any:
    """How many leading bits two words have in common."""
    different = a ^ b
    count = np.int64(64)
    for step in (32, 16, 8, 4, 2, 1):
        if different >> U(step) != _0:
            different = different >> U(step)
            count -= step
    return count - 1 if different != _0 else count


@inner
def _label(hi: Any, lo: Any) -> Any:
    for n in range(len(_LABEL)):
        length = _LABEL_LENGTH[n]
        bits = _common(hi, _LABEL_PREFIX[n, 0])
        if bits == 64:
            bits += _common(lo, _LABEL_PREFIX[n, 1])
        if bits >= length:
            return _LABEL[n]
    return np.int64(1)


@inner
def _select6(F: Any, words: Any, namespace: Any, device: Any, near: Any) -> Any:
    """``ipv6_get_saddr_eval``: same address, fitting scope, outgoing device, same label, longest common prefix."""
    hi, lo = words[near, 0], words[near, 1]
    if mapped(np.int64(6), hi, lo):
        return np.int64(-BAIL)
    scope, label = _scope(hi, lo), _label(hi, lo)
    only = hi >> U(56) == U(0xFF) or scope == LINK_SCOPE
    best, chosen = np.int64(-1), np.int64(-1)
    first = np.int64(F.namespace[namespace]["six"])
    for at in range(first, first + np.int64(F.namespace[namespace]["sixes"])):
        held = F.candidate[at]
        outgoing = held["device"] == device
        if only and not outgoing:
            continue
        bits = _common(held["hi"], hi)
        if bits == 64:
            bits += _common(held["lo"], lo)
        score = np.int64(1 << 20 if bits == 128 else 0)
        own = np.int64(held["scope"])
        score |= (128 - own if own >= scope else own) << 10
        score |= (1 << 9 if outgoing else 0) | (1 << 8 if held["label"] == label else 0)
        score += min(bits, np.int64(held["length"]))
        if score > best:
            best, chosen = score, np.int64(held["handle"])
    return chosen
