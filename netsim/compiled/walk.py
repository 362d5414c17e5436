"""The rule walk on compiled tables: what ``netsim.linux.netfilter.walk`` does, on registers.

Jumps, gotos, returns, policies and counts of evaluated rules are the kernel's (``ipt_do_table``, Linux 6.1 and 6.18). What
the tables do not hold yet ends in FAULT, what they cannot say in BAIL; only registers and scratch have changed by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import programs as p
from netsim.compiled import registers as r
from netsim.compiled.hashing import START, U, draw, fold
from netsim.compiled.jit import kernel
from netsim.compiled.recent_table import last_seen

_NO, _YES, _TYPES_MISSING, _STALE = 0, 1, 2, 3
_DEEPEST = 1024
_ZERO, _ONE, _BYTE = U(0), U(1), U(8)
_32, _64, _128 = U(32), U(64), U(128)
_LOW = U(0xFFFFFFFF)
_NAME_SHIFT, _NAME_MASK = U(5), U(31)
_U32 = np.uint32


@kernel
def resolve(resolution: Any, scope: Any, name: Any) -> Any:
    """What ``name`` means in ``scope``: the number of a chain or set, MISSING, ELSEWHERE, or -1 if nobody has said yet."""
    mask = U(len(resolution)) - _ONE
    place = fold(fold(START, U(scope)), U(name)) & mask
    while True:
        row = resolution[place]
        if row["used"] == 0:
            return np.int64(-1)
        if row["scope"] == scope and row["name"] == name:
            return np.int64(row["found"])
        place = (place + _ONE) & mask


@kernel
def _named(P: Any, table: Any, name: Any) -> Any:
    """The chain called ``name`` in a table: the first of its scopes that knows it decides."""
    row = P.tables[table]
    first = np.int64(row["first_scope"])
    for at in range(first, first + np.int64(row["scopes"])):
        scope = P.scopes[at]
        found = resolve(P.resolution, scope["number"], name)
        if found == p.ELSEWHERE or (found < 0 and scope["complete"] != 0):
            continue
        return found
    return np.int64(-1)


@kernel
def _words_less(words: Any, one: Any, other: Any) -> Any:
    if words[one, 0] != words[other, 0]:
        return words[one, 0] < words[other, 0]
    return words[one, 1] < words[other, 1]


@kernel
def _prefix6(words: Any, one: Any, other: Any, length: Any) -> Any:
    """Do two IPv6 addresses agree in their first ``length`` bits (1 to 127)?"""
    length = U(length)
    if length <= _64:
        return ((words[one, 0] ^ words[other, 0]) >> (_64 - length)) == _ZERO
    return words[one, 0] == words[other, 0] and ((words[one, 1] ^ words[other, 1]) >> (_128 - length)) == _ZERO


@kernel
def _holds(P: Any, words: Any, R: Any, at: Any) -> Any:
    """One pure constraint: _YES, _NO, or why the packet must be run again."""
    row = P.constraints[at]
    kind, have, a, b = row["kind"], R[row["column"]], row["a"], row["b"]
    found = False
    if kind == p.MASKED:
        found = (have & b) == a
    elif kind == p.RANGE:
        found = a <= have and have <= b
    elif kind == p.ANY_BIT:
        found = (have & a) != 0
    elif kind == p.RANGES:
        for place in range(np.int64(a), np.int64(a) + np.int64(b)):
            if P.ranges[place]["low"] <= have and have <= P.ranges[place]["high"]:
                found = True
                break
    elif kind == p.NAME:
        word = U(have) >> _NAME_SHIFT
        if word >= U(P.name_bits.shape[1]):
            return _STALE
        found = ((U(P.name_bits[a, word]) >> (U(have) & _NAME_MASK)) & _ONE) != _ZERO
    elif kind == p.PREFIX6:
        found = _prefix6(words, have, a, b)
    elif kind == p.RANGES6:
        for place in range(np.int64(a), np.int64(a) + np.int64(b)):
            span = P.ranges[place]
            if not _words_less(words, have, span["low"]) and not _words_less(words, span["high"], have):
                found = True
                break
    elif kind == p.TYPES:
        if have == 0:
            return _TYPES_MISSING
        found = (have & a) != 0
    return _YES if found != (row["negated"] != 0) else _NO


@kernel
def _pure(P: Any, words: Any, R: Any, rule: Any) -> Any:
    """Do the pure constraints of a rule hold? _YES, _NO, or why the packet must be run again."""
    row = P.rules[rule]
    first = np.int64(row["constraints"])
    for at in range(first, first + np.int64(row["pure"])):
        found = _holds(P, words, R, at)
        if found != _YES:
            return found
    return _YES


@kernel
def _from(array: Any, first: Any, count: Any, at: Any) -> Any:
    """The index of the first of ``count`` ascending places from ``first`` on that is not before ``at``."""
    low, high = first, first + count
    while low < high:
        middle = (low + high) >> 1
        if np.int64(array[middle]) < at:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _slot(P: Any, words: Any, R: Any, group: Any) -> Any:
    """The index of the group's slot for this packet; -1 if it has no candidates."""
    first, size = np.int64(group["slots"]), np.int64(group["size"])
    parts = np.int64(group["parts"])
    if group["kind"] == p.BY_INTERVAL:
        have = R[P.parts[parts]["column"]]
        low, high = first, first + size
        while high - low > 1:
            middle = (low + high) >> 1
            if P.slots[middle]["key"] <= have:
                low = middle
            else:
                high = middle
        return low if P.slots[low]["count"] != 0 else np.int64(-1)
    key = START
    for at in range(parts, parts + np.int64(group["part_count"])):
        part = P.parts[at]
        have = R[part["column"]]
        if part["mode"] == p.BY_MASK:
            key = fold(key, U(have & part["mask"]))
        else:
            length = U(part["mask"])  # 1 to 127
            high_word, low_word = words[have, 0], _ZERO
            if length <= _64:
                high_word = (high_word >> (_64 - length)) << (_64 - length)
            else:
                low_word = (words[have, 1] >> (_128 - length)) << (_128 - length)
            key = fold(fold(key, high_word >> _32), high_word & _LOW)
            key = fold(fold(key, low_word >> _32), low_word & _LOW)
    mask = U(size - 1)
    place = key & mask
    while True:
        slot = P.slots[U(first) + place]
        if slot["count"] == 0:
            return np.int64(-1)
        if U(slot["key"]) == key:
            return first + np.int64(place)
        place = (place + _ONE) & mask


@kernel
def _next(P: Any, words: Any, R: Any, chain: Any, at: Any) -> Any:
    """The place in ``chain`` of the first rule from ``at`` on whose pure constraints hold; its length if there is none, or
    less than 0: -_TYPES_MISSING or -_STALE."""
    row = P.chains[chain]
    first, best = np.int64(row["rules"]), np.int64(row["count"])
    if row["group_count"] == 0:
        while at < best:
            found = _pure(P, words, R, first + at)
            if found == _YES:
                return at
            if found != _NO:
                return np.int64(-found)
            at += 1
        return best
    groups = np.int64(row["groups"])
    for number in range(groups, groups + np.int64(row["group_count"])):
        group = P.groups[number]
        if np.int64(group["low"]) >= best:
            break
        if np.int64(group["high"]) < at:
            continue
        slot = _slot(P, words, R, group)
        if slot < 0:
            continue
        candidate, count = np.int64(P.slots[slot]["first"]), np.int64(P.slots[slot]["count"])
        several = count > 1
        if several:
            end = candidate + count
            candidate = _from(P.places, candidate, count, at)
            count = end - candidate
        for index in range(candidate, candidate + count):
            place = np.int64(P.places[index]) if several else candidate
            if place >= best:
                break
            if place < at:
                continue
            found = _pure(P, words, R, first + place)
            if found == _YES:
                best = place
                break
            if found != _NO:
                return np.int64(-found)
    rest, end = np.int64(row["rest"]), np.int64(row["rest"]) + np.int64(row["rest_count"])
    for index in range(_from(P.rest, rest, end - rest, at), end):
        place = np.int64(P.rest[index])
        if place >= best:
            break
        found = _pure(P, words, R, first + place)
        if found == _YES:
            return place
        if found != _NO:
            return np.int64(-found)
    return best


@kernel
def _random(R: Any, seed: Any) -> Any:
    """64 random bits for the packet's next draw."""
    return draw(seed, U(R[r.SERIAL]), U(R[r.DRAWS]))


@kernel
def _run(P: Any, run: Any, value: Any) -> Any:
    """Which rule of a run of draws ``value`` picks; the run's length if none."""
    row = P.runs[run]
    first = np.int64(row["first"])
    low, high = np.int64(0), np.int64(row["count"])
    while low < high:
        middle = (low + high) >> 1
        if value < P.thresholds[first + middle]:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def _answer(code: Any, argument: Any) -> Any:
    return np.int64(code) | (np.int64(argument) << 8)


@kernel
def _fault(R: Any, table: Any, what: Any) -> Any:
    R[r.FAULT_A] = table
    R[r.FAULT_B] = what
    return np.int64(r.FAULT)


@kernel
def _recent(S: Any, recent: Any, R: Any, row: Any, now: Any) -> Any:
    """``-m recent`` (xt_recent.c): is the address in the list, and fresh? --set and a successful --update are planned.
    _YES, _NO, or -1 less the reason to give up."""
    number, address = row["a"], R[row["column"]]
    found = True
    if row["mode"] != p.SET:
        last = last_seen(recent, S.planned, R[r.PLANNED], R[r.NAMESPACE], number, address)
        found = last > -np.inf if row["b"] == 0 else now - np.float64(row["b"]) <= last
    if row["mode"] == p.SET or (found and row["mode"] == p.UPDATE):
        if R[r.PLANNED] >= len(S.planned):
            return np.int64(-1 - p.BAIL_SCRATCH)
        plan = S.planned[R[r.PLANNED]]
        plan["namespace"] = R[r.NAMESPACE]
        plan["list"] = number
        plan["address"] = address
        plan["stamp"] = now
        R[r.PLANNED] += _U32(1)
    return np.int64(_YES if found != (row["negated"] != 0) else _NO)


@kernel
def _impure(P: Any, S: Any, recent: Any, words: Any, R: Any, rule: Any, seed: Any, now: Any) -> Any:
    """The constraints of a rule that are asked in order: _YES, _NO, or -1 less the reason to give up."""
    row = P.rules[rule]
    first = np.int64(row["constraints"])
    for at in range(first + np.int64(row["pure"]), first + np.int64(row["all"])):
        kind = P.constraints[at]["kind"]
        if kind == p.RANDOM:
            if R[r.DRAWS] >= len(S.draws):
                return np.int64(-1 - p.BAIL_SCRATCH)
            yes = (_random(R, seed) >> _32) < U(P.constraints[at]["a"])
            S.draws[R[r.DRAWS]] = 1 if yes else 2
            R[r.DRAWS] += _U32(1)
            if not yes:
                return np.int64(_NO)
        elif kind == p.RECENT:
            row = P.constraints[at]
            if P.recent_lists[row["a"]] != 0:
                return np.int64(-1 - p.BAIL_RECENT)
            found = _recent(S, recent, R, row, now)
            if found != _YES:
                return found
        elif kind == p.OPAQUE:
            return np.int64(-1) - np.int64(P.constraints[at]["a"])
        else:
            found = _holds(P, words, R, at)
            if found != _YES:
                return np.int64(found)
    return np.int64(_YES)


@kernel
def walk(P: Any, S: Any, recent: Any, words: Any, table: Any, builtin: Any, R: Any, seed: Any, now: Any) -> Any:
    """Walk ``table`` (a number of ``RuleCompiler.table``) from its built-in chain ``builtin`` (``RuleCompiler.entry``).

    ``P`` Programs, ``S`` Scratch, ``recent`` Recent, ``words`` (n, 2) uint64 of Addresses, ``R`` uint32[SIZE] registers,
    ``seed`` uint64, ``now`` float64 simulated seconds. Answers with a code of ``netsim.compiled.registers`` | argument << 8:
    of NAT a row of ``P.nats``, of REJECT and BAIL a number for ``RuleCompiler.reject_with`` and ``reason``. After FAULT give
    R[FAULT_A] and R[FAULT_B] to ``RuleCompiler.fault`` and run the packet again from its start.

    R[EVALUATED], R[HITS], R[DRAWS] and R[PLANNED] go on from what they are; R[NOTRACK] and R[BY_POLICY] are set anew.
    """
    chain, at = np.int64(builtin), np.int64(0)
    depth, hops = 0, 0
    R[r.NOTRACK] = 0
    R[r.BY_POLICY] = 0
    if R[r.FRAGMENT] == 8 and R[r.PROTO] == 6:
        return _answer(r.BAIL, p.BAIL_FRAGMENT)  # xt_tcp drops it on the spot; too rare for every rule to ask
    while True:
        first, count = np.int64(P.chains[chain]["rules"]), np.int64(P.chains[chain]["count"])
        place = _next(P, words, R, chain, at)
        if place < 0:
            return _fault(R, table, p.NEEDS_TYPES if place == -_TYPES_MISSING else p.NEEDS_PROGRAMS)
        action = np.int64(p.TO_RETURN)
        argument = _U32(0)
        if place < count:
            rule = P.rules[first + place]
            if rule["run"] != 0:
                if R[r.DRAWS] >= len(S.draws):
                    return _answer(r.BAIL, p.BAIL_SCRATCH)
                length = np.int64(P.runs[rule["run"]]["count"])
                failed = _run(P, rule["run"], _random(R, seed))
                S.draws[R[r.DRAWS]] = (failed << 1) | (failed < length)
                R[r.DRAWS] += _U32(1)
                if failed == length:
                    R[r.EVALUATED] += _U32(place + length - at)
                    at = place + length
                    continue
                place += failed
                rule = P.rules[first + place]
            elif rule["all"] != rule["pure"]:
                found = _impure(P, S, recent, words, R, first + place, seed, now)
                if found < 0:
                    return _answer(r.BAIL, np.int64(-1) - found)
                if found == _NO:
                    R[r.EVALUATED] += _U32(place + 1 - at)
                    at = place + 1
                    continue
                if found != _YES:
                    return _fault(R, table, p.NEEDS_TYPES if found == _TYPES_MISSING else p.NEEDS_PROGRAMS)
            if R[r.HITS] >= len(S.hits):
                return _answer(r.BAIL, p.BAIL_SCRATCH)
            S.hits[R[r.HITS]] = first + place
            R[r.HITS] += _U32(1)
            R[r.EVALUATED] += _U32(place + 1 - at)
            at = place + 1
            action = np.int64(rule["action"])
            argument = rule["argument"]
        else:
            R[r.EVALUATED] += _U32(count - at)
        if action == p.TO_CHAIN or action == p.TO_CHAIN_FOR_GOOD:
            found = _named(P, table, argument)
            if found < 0:
                return _fault(R, table, argument)
            if found == p.MISSING:
                return _answer(r.BAIL, p.BAIL_CHAIN)
            if action == p.TO_CHAIN:
                if 2 * depth >= len(S.stack):
                    return _answer(r.BAIL, p.BAIL_LOOP)
                S.stack[2 * depth] = chain
                S.stack[2 * depth + 1] = at
                depth += 1
                hops = 0
            else:
                hops += 1
                if hops > _DEEPEST:
                    return _answer(r.BAIL, p.BAIL_LOOP)
            chain, at = found, np.int64(0)
        elif action == p.TO_RETURN:
            if depth == 0:
                R[r.BY_POLICY] = 1
                return _answer(P.chains[builtin]["policy"], 0)
            depth -= 1
            chain, at = np.int64(S.stack[2 * depth]), np.int64(S.stack[2 * depth + 1])
        elif action == p.TO_ACCEPT:
            return _answer(r.ACCEPT, 0)
        elif action == p.TO_DROP:
            return _answer(r.DROP, 0)
        elif action == p.TO_NAT:
            return _answer(r.NAT, argument)
        elif action == p.TO_REJECT:
            return _answer(r.REJECT, argument)
        elif action == p.TO_BAIL:
            return _answer(r.BAIL, argument)
        elif action != p.GO_ON:
            _change(P, R, action, argument)


@kernel
def _change(P: Any, R: Any, action: Any, argument: Any) -> None:
    """Marks, and NOTRACK."""
    tracked = (R[r.HAS] >> _U32(r.CT_MARK)) & _U32(1)
    if action == p.TO_NOTRACK:
        R[r.NOTRACK] = 1
        return
    clear, xor, other = P.marks[argument]["clear"], P.marks[argument]["xor"], P.marks[argument]["other"]
    if action == p.TO_MARK:
        R[r.MARK] = (R[r.MARK] & ~clear) ^ xor
    elif tracked == 0:
        return
    elif action == p.TO_SET_CT_MARK:
        R[r.CT_MARK] = (R[r.CT_MARK] & ~clear) ^ xor
    elif action == p.TO_SAVE_MARK:
        R[r.CT_MARK] = (R[r.CT_MARK] & ~clear) ^ (R[r.MARK] & other)
    else:
        R[r.MARK] = (R[r.MARK] & ~clear) ^ (R[r.CT_MARK] & other)
