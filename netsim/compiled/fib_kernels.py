"""Routing look-ups on the tables of ``fib_tables``: the same answers as ``netsim.linux.fib.Fib``.

All numbers are ``int64``: namespace numbers, device name numbers (0: none), address handles (-1: none), marks, families.
Answers below zero are ``-BAIL`` (ask the interpreter) or ``-FAULT`` (``out[0]``, ``out[1]`` say what is missing).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.fib_tables import (
    BROADCAST,
    CUSTOM_RULES,
    EXISTS,
    FAULT_NAMESPACE,
    FAULT_SIX,
    FORWARDING4,
    FORWARDING6,
    FROM,
    HAS_GATEWAY,
    HASH_POLICY4,
    HASH_POLICY6,
    INVERT,
    LOCAL,
    MARKED,
    MULTICAST,
    NEVER,
    NO_ROUTE,
    ONLINK,
    OUT_DEVICE,
    OUT_GATEWAY,
    OUT_MTU,
    OUT_ONLINK,
    OUT_RECORD,
    OUT_ROUTE,
    PRESENT,
    PRESENT6,
    RARE,
    THROW,
    TO,
    UNICAST,
    UNREACHABLE,
    FibTables,
)
from netsim.compiled.jit import inner, kernel
from netsim.compiled.registers import ADDRESS_TYPES, BAIL, FAULT

_MULTIPATH = 100  # inside a look-up: OUT_RECORD has more than one next hop
_ERRORS_FROM = 6  # BLACKHOLE, UNREACHABLE, PROHIBIT; THROW never leaves a look-up
_UNSPEC = ADDRESS_TYPES["UNSPEC"]

U = np.uint64
_0, _1, _32, _64 = U(0), U(1), U(32), U(64)
_LOW = U(0xFFFFFFFF)
_K1, _K2, _K3, _K4, _K5 = U(0x9E3779B1), U(0x85EBCA77), U(0xC2B2AE3D), U(0x27D4EB2F), U(0x165667B1)


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0xEDB88320 if value & 1 else 0) for value in table]
    return table


_CRC = np.array(_crc_table(), np.int64)


@inner
def mix(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """The hash of five 32-bit numbers (uint64 each). No product overflows 64 bits, so plain Python computes the same."""
    value = (a * _K1) ^ (b * _K2) ^ (c * _K3) ^ (d * _K4) ^ (e * _K5)
    return (value >> _32) ^ (value >> U(13))


@inner
def prefix_hash(hi: Any, lo: Any, base: Any, length: Any) -> Any:
    return mix(hi >> _32, hi & _LOW, lo >> _32, lo & _LOW, U(base) << U(8) ^ U(length))


@inner
def wide(words: Any, family: Any, handle: Any) -> Any:
    """An address as 128 bits, aligned to the left."""
    if family == 4:
        return U(handle) << _32, _0
    return words[handle, 0], words[handle, 1]


@inner
def _kept(hi: Any, lo: Any, length: Any) -> Any:
    """The first ``length`` bits."""
    if length == 0:
        return _0, _0
    if length <= 64:
        shift = U(64 - length)
        return (hi >> shift) << shift, _0
    shift = U(128 - length)
    return hi, (lo >> shift) << shift


@inner
def _inside(hi: Any, lo: Any, prefix_hi: Any, prefix_lo: Any, length: Any) -> Any:
    kept_hi, kept_lo = _kept(hi, lo, length)
    return kept_hi == prefix_hi and kept_lo == prefix_lo


@inner
def _slot(F: Any, hi: Any, lo: Any, base: Any, length: Any) -> Any:
    """The hash slot of a base's prefix that holds the address; -1 if there is none."""
    hi, lo = _kept(hi, lo, length)
    mask = U(len(F.slot) - 1)
    place = prefix_hash(hi, lo, base, length) & mask
    while True:
        slot = F.slot[place]
        if slot["count"] == 0:
            return np.int64(-1)
        if slot["hi"] == hi and slot["lo"] == lo and slot["base"] == base and slot["length"] == length:
            return np.int64(place)
        place = (place + _1) & mask


@inner
def _left_out(F: Any, link: Any, row: Any) -> Any:
    """Does the namespace leave this route of a base out?"""
    if link < 0:
        return False
    head = F.link[link]
    place = F.route[row]["place"]
    for at in range(np.int64(head["without"]), np.int64(head["without"]) + np.int64(head["count"])):
        if F.number[at] == place:
            return True
    return False


@inner
def _holds_one(F: Any, link: Any, slot: Any) -> Any:
    """Does the namespace have any of the routes of a base's prefix?"""
    first = np.int64(slot["route"])
    for row in range(first, first + np.int64(slot["count"])):
        if not _left_out(F, link, row):
            return True
    return False


@inner
def _first_inside(F: Any, hi: Any, lo: Any, at: Any, end: Any) -> Any:
    """The first row of own prefixes from ``at`` on that holds the address; ``end`` if none does."""
    while at < end:
        prefix = F.prefix[at]
        if _inside(hi, lo, prefix["hi"], prefix["lo"], np.int64(prefix["length"])):
            break
        at += 1
    return at


@inner
def _next_match(F: Any, table: Any, hi: Any, lo: Any, at: Any, limit: Any) -> Any:
    """The longest prefix of ``table`` that holds the address and is shorter than ``limit``, looking at own prefixes from row
    ``at`` on: (its length, first row of ROUTE, end, row of LINK or -1, where to go on); length -1: there is none."""
    head = F.table[table]
    end = np.int64(head["first"]) + np.int64(head["count"])
    best = np.int64(-1)
    first = stop = np.int64(0)
    link = np.int64(-1)
    at = _first_inside(F, hi, lo, at, end)
    if at < end:
        prefix = F.prefix[at]
        best, first = np.int64(prefix["length"]), np.int64(prefix["route"])
        stop = first + np.int64(prefix["count"])
    for row in range(np.int64(head["link"]), np.int64(head["link"]) + np.int64(head["links"])):
        shared = F.link[row]
        base = np.int64(shared["base"])
        for place in range(np.int64(shared["length"]), np.int64(shared["length"]) + np.int64(shared["lengths"])):
            length = np.int64(F.number[place])
            if length <= best:
                break
            if length >= limit:
                continue
            found = _slot(F, hi, lo, base, length)
            # What the namespace leaves out must not hide the same prefix of another base: its own table may be one.
            if found >= 0 and _holds_one(F, row, F.slot[found]):
                slot = F.slot[found]
                best, first, link = length, np.int64(slot["route"]), np.int64(row)
                stop = first + np.int64(slot["count"])
                break
    if link < 0:
        at += 1
    return best, first, stop, link, at


@inner
def _use(F: Any, row: Any, oif: Any, out: Any) -> Any:
    """``Fib._use``: the route's type, _MULTIPATH, THROW, or 0 when it does not work or leads to another device."""
    route = F.route[row]
    flags = np.int64(route["flags"])
    kind = np.int64(route["type"])
    if flags & RARE:
        return np.int64(-BAIL)
    if kind >= _ERRORS_FROM:
        if kind != THROW:
            out[OUT_ROUTE], out[OUT_RECORD] = route["number"], row
            out[OUT_MTU] = route["mtu"]
        return kind
    hops = np.int64(route["hops"])
    device = np.int64(route["device"])
    if hops == 0 or (hops == 1 and oif != 0 and device != oif):
        return np.int64(0)
    if hops > 1 and oif != 0:
        known = False
        for at in range(np.int64(route["hop"]), np.int64(route["hop"]) + hops):
            if F.hop[at]["device"] == oif:
                known = True
        if not known:
            return np.int64(0)
    out[OUT_ROUTE], out[OUT_RECORD], out[OUT_MTU] = route["number"], row, route["mtu"]
    if hops > 1:
        return np.int64(_MULTIPATH)
    out[OUT_DEVICE] = device
    out[OUT_GATEWAY] = np.int64(route["gateway"]) if flags & HAS_GATEWAY else np.int64(-1)
    out[OUT_ONLINK] = 1 if flags & ONLINK else 0
    return kind


@inner
def _run(F: Any, first: Any, stop: Any, link: Any, near: Any, oif: Any, out: Any) -> Any:
    """The routes of one prefix, the cheapest first; among equals those of the device ``near`` come first (0: they stay)."""
    at = first
    while at < stop:
        end = at + 1
        if near != 0:
            while end < stop and F.route[end]["metric"] == F.route[at]["metric"]:
                end += 1
        for turn in range(2 if near != 0 else 1):
            for row in range(at, end):
                if near != 0 and (F.route[row]["near"] == near) != (turn == 0):
                    continue
                if _left_out(F, link, row):
                    continue
                code = _use(F, row, oif, out)
                if code != 0:
                    return code
        at = end
    return np.int64(0)


@inner
def _in_table(F: Any, table: Any, hi: Any, lo: Any, near: Any, oif: Any, out: Any) -> Any:
    """What one table says; 0: nothing (or THROW), ask the next rule."""
    at = np.int64(F.table[table]["first"])
    limit = np.int64(129)
    while True:
        limit, first, stop, link, at = _next_match(F, table, hi, lo, at, limit)
        if limit < 0:
            return np.int64(0)
        code = _run(F, first, stop, link, near, oif, out)
        if code == THROW:
            return np.int64(0)
        if code != 0:
            return code


@inner
def _crc(value: Any, word: Any) -> Any:
    """CRC-32 goes on with the four bytes of ``word``, the highest first."""
    for shift in (24, 16, 8, 0):
        value = (value >> 8) ^ _CRC[(value ^ (word >> shift)) & 255]
    return value


@kernel
def flow_hash(words: Any, family: Any, src: Any, dst: Any) -> Any:
    """``netsim.interpreter.scene.flow_hash`` with hash policy 0: CRC-32 of the two addresses."""
    value = np.int64(0xFFFFFFFF)
    for address in (src, dst):
        if family == 4:
            value = _crc(value, address)
        else:
            for half in range(2):
                word = words[address, half]
                value = _crc(value, np.int64(word >> _32))
                value = _crc(value, np.int64(word & _LOW))
    return value ^ np.int64(0xFFFFFFFF)


@inner
def _pick(F: Any, oif: Any, value: Any, out: Any) -> Any:
    """``fib_select_multipath``: the next hop of OUT_RECORD that ``value`` (32 bits) falls on, each as wide as its weight."""
    route = F.route[out[OUT_RECORD]]
    first = np.int64(route["hop"])
    end = first + np.int64(route["hops"])
    total = np.int64(0)
    for at in range(first, end):
        if oif == 0 or F.hop[at]["device"] == oif:
            total += np.int64(F.hop[at]["weight"])
    left = (value * total) >> 32
    for at in range(first, end):
        hop = F.hop[at]
        if oif == 0 or hop["device"] == oif:
            left -= np.int64(hop["weight"])
            if left < 0:
                flags = np.int64(hop["flags"])
                out[OUT_DEVICE] = hop["device"]
                out[OUT_GATEWAY] = np.int64(hop["gateway"]) if flags & HAS_GATEWAY else np.int64(-1)
                out[OUT_ONLINK] = 1 if flags & ONLINK else 0
                break
    return np.int64(route["type"])


@inner
def _matches(
    F: Any, row: Any, words: Any, family: Any, hi: Any, lo: Any, src: Any, iif: Any, oif: Any, mark: Any
) -> Any:
    """``fib_rule_match``. ``iif``: lo's number where a local process sends."""
    rule = F.rule[row]
    flags = np.int64(rule["flags"])
    matched = (
        not flags & NEVER
        and (rule["iif"] == 0 or rule["iif"] == iif)
        and (rule["oif"] == 0 or rule["oif"] == oif)
        and (not flags & MARKED or (mark ^ np.int64(rule["mark"])) & np.int64(rule["mask"]) == 0)
        and (not flags & TO or _inside(hi, lo, rule["dst_hi"], rule["dst_lo"], np.int64(rule["dst_length"])))
    )
    if matched and flags & FROM:
        if src < 0:
            matched = False
        else:
            src_hi, src_lo = wide(words, family, src)
            matched = _inside(src_hi, src_lo, rule["src_hi"], rule["src_lo"], np.int64(rule["src_length"]))
    return matched != (flags & INVERT != 0)


@inner
def known(F: Any, namespace: Any) -> Any:
    """Has the namespace been added?"""
    return namespace < len(F.namespace) and F.namespace[namespace]["flags"] & PRESENT != 0


@inner
def missing(F: Any, namespace: Any, family: Any, out: Any) -> Any:
    """Are the tables of the namespace still to be made? Then ``out`` says what to supply."""
    if not known(F, namespace):
        out[0], out[1] = FAULT_NAMESPACE, namespace
        return True
    if family == 6 and not F.namespace[namespace]["flags"] & PRESENT6:
        out[0], out[1] = FAULT_SIX, namespace
        return True
    return False


@inner
def mapped(family: Any, hi: Any, lo: Any) -> Any:
    """``::ffff:0:0/96``: what such an address is depends on whom one asks."""
    return family == 6 and hi == _0 and lo >> _32 == U(0xFFFF)


@inner
def multicast(family: Any, hi: Any) -> Any:
    return hi >> U(60) == U(14) if family == 4 else hi >> U(56) == U(0xFF)


@kernel
def fib_lookup(
    F: Any,
    words: Any,
    namespace: Any,
    family: Any,
    dst: Any,
    src: Any,
    iif: Any,
    oif: Any,
    mark: Any,
    spread: Any,
    out: Any,
) -> Any:
    """``Fib.lookup``: the code of the route's type (NO_ROUTE: none), or ``-BAIL``, ``-FAULT``; ``out`` as ``OUT_…`` say.

    ``src`` -1: not chosen yet. ``iif`` 0: a local process sends it. ``spread`` 1: next hops of a multipath route are
    chosen by ``flow_hash`` of ``src`` and ``dst``, 0: the first one."""
    out[OUT_DEVICE] = out[OUT_MTU] = out[OUT_ONLINK] = 0
    out[OUT_GATEWAY] = out[OUT_ROUTE] = out[OUT_RECORD] = -1
    if missing(F, namespace, family, out):
        return np.int64(-FAULT)
    here = F.namespace[namespace]
    hi, lo = wide(words, family, dst)
    near = sender = np.int64(iif)
    only = np.int64(oif)
    if family == 4:
        first, count, tables = np.int64(here["rules4"]), np.int64(here["count4"]), np.int64(here["tables4"])
        policy = HASH_POLICY4
        near = np.int64(0)
        if iif != 0 and dst == 0xFFFFFFFF:
            out[OUT_DEVICE] = iif
            return np.int64(BROADCAST)
    else:
        first, count, tables = np.int64(here["rules6"]), np.int64(here["count6"]), np.int64(here["tables6"])
        policy = HASH_POLICY6
        if iif != 0:
            if mapped(family, hi, lo):
                return np.int64(-BAIL)
            if hi >> U(54) == U(0x3FA) or multicast(family, hi):  # rt6_need_strict
                only = np.int64(iif)
    if sender == 0:
        sender = np.int64(F.lo)
    for row in range(first, first + count):
        if not _matches(F, row, words, family, hi, lo, src, sender, only, mark):
            continue
        rule = F.rule[row]
        if rule["action"] != 0:
            return np.int64(rule["action"])
        code = _in_table(F, tables + np.int64(rule["slot"]), hi, lo, near, only, out)
        if code == _MULTIPATH:
            value = np.int64(0)
            if spread != 0:
                if here["flags"] & policy:
                    return np.int64(-BAIL)
                value = flow_hash(words, family, src, dst)
            return _pick(F, only, value, out)
        if code != 0:
            return code
    return np.int64(NO_ROUTE)


# -- what an address is ------------------------------------------------------------------------------------------------
@inner
def _first_type(F: Any, table: Any, hi: Any, lo: Any) -> Any:
    """The type of the first route that holds the address, whether it works or not; 0: none."""
    at = np.int64(F.table[table]["first"])
    limit = np.int64(129)
    while True:
        limit, first, stop, link, at = _next_match(F, table, hi, lo, at, limit)
        if limit < 0:
            return np.int64(0)
        for row in range(first, stop):
            if not _left_out(F, link, row):
                return np.int64(F.route[row]["type"])


@kernel
def address_type(F: Any, words: Any, namespace: Any, family: Any, handle: Any, out: Any) -> Any:
    """``Fib.address_type`` without a device: one bit of ``registers.ADDRESS_TYPES``, or ``-BAIL``, ``-FAULT``."""
    if missing(F, namespace, family, out):
        return np.int64(-FAULT)
    hi, lo = wide(words, family, handle)
    if mapped(family, hi, lo):
        return np.int64(-BAIL)
    if multicast(family, hi):
        return np.int64(1 << MULTICAST)
    if family == 4 and (handle == 0 or handle == 0xFFFFFFFF):
        return np.int64(1 << BROADCAST)
    if hi == _0 and lo == _0:
        return np.int64(_UNSPEC)
    here = F.namespace[namespace]
    table = np.int64(here["tables4"] if family == 4 else here["tables6"])  # slot 0: table local
    kind = _first_type(F, table, hi, lo)
    if kind == THROW:
        return np.int64(-BAIL)
    if kind != 0:
        return np.int64(1) << kind
    if family == 6:
        found = fib_lookup(F, words, namespace, family, handle, np.int64(-1), np.int64(0), np.int64(0), np.int64(0),
                           np.int64(0), out)  # fmt: skip
        if found < 0:
            return found
        if found == NO_ROUTE:
            return np.int64(1 << UNREACHABLE)
        if found >= _ERRORS_FROM:
            return np.int64(1) << found
    return np.int64(1 << UNICAST)


@kernel
def is_local(F: Any, words: Any, namespace: Any, family: Any, handle: Any, out: Any) -> Any:
    """``Fib.is_local``: 1, 0, or ``-BAIL``, ``-FAULT``."""
    kind = address_type(F, words, namespace, family, handle, out)
    return kind if kind < 0 else np.int64(1 if kind == 1 << LOCAL else 0)


@kernel
def insert_slots(slots: Any, rows: Any) -> None:
    """Put prefixes that are not there yet into the hash that ``_slot`` reads; it must have room."""
    mask = U(len(slots) - 1)
    for n in range(len(rows)):
        row = rows[n]
        if row["count"] == 0:
            continue
        place = prefix_hash(row["hi"], row["lo"], np.int64(row["base"]), np.int64(row["length"])) & mask
        while slots[place]["count"] != 0:
            place = (place + _1) & mask
        slots[place] = row


# -- devices -----------------------------------------------------------------------------------------------------------
@inner
def device_row(F: Any, namespace: Any, device: Any) -> Any:
    """The row of DEVICE; -1 if the namespace has no such device and no address on it."""
    mask = U(len(F.device) - 1)
    key = U(namespace) << _32 | U(device)
    place = mix(U(namespace), U(device), _0, _0, _0) & mask
    while True:
        held = F.device[place]["key"]
        if held == key:
            return np.int64(place)
        if held == _0:
            return np.int64(-1)
        place = (place + _1) & mask


@kernel
def insert_devices(devices: Any, rows: Any) -> Any:
    """Put devices into the hash that ``device_row`` reads, over what it said of them before; how many are new."""
    mask = U(len(devices) - 1)
    fresh = np.int64(0)
    for n in range(len(rows)):
        key = rows[n]["key"]
        if key == _0:
            continue
        place = mix(key >> _32, key & _LOW, _0, _0, _0) & mask
        while devices[place]["key"] != key and devices[place]["key"] != _0:
            place = (place + _1) & mask
        if devices[place]["key"] == _0:
            fresh += 1
        devices[place] = rows[n]
    return fresh


@kernel
def device_flags(F: Any, namespace: Any, device: Any) -> Any:
    """EXISTS, UP, LOOPBACK … of a device, its sysctls of the namespace among them; 0: there is no such device."""
    row = device_row(F, namespace, device)
    if row < 0 or not F.device[row]["flags"] & EXISTS:
        return np.int64(0)
    return np.int64(F.device[row]["flags"])


@kernel
def forwarding(F: Any, namespace: Any, family: Any) -> Any:
    """1: the namespace (which must be ``known``) forwards packets of this family."""
    flags = np.int64(F.namespace[namespace]["flags"])
    return np.int64(1 if flags & (FORWARDING4 if family == 4 else FORWARDING6) else 0)


@inner
def custom_rules(F: Any, namespace: Any) -> Any:
    """``fib4_has_custom_rules`` of a namespace that is ``known``."""
    return np.int64(F.namespace[namespace]["flags"]) & CUSTOM_RULES != 0


FIB = FibTables  # what ``F`` is everywhere
