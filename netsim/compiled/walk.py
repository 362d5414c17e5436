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
from netsim.compiled.ipset_tables import UNKNOWN, contains
from netsim.compiled.jit import inner, kernel
from netsim.compiled.recent_table import last_seen

_NO, _YES, _TYPES_MISSING, _STALE, _SET_MISSING = range(5)
_DEEPEST = 1024
_BYTE, _FLAG = np.uint32(0xFF), np.uint32(1)
_COUNT, _30 = np.uint32(0x3FFFFFFF), np.uint32(30)
_ZERO, _ONE, _8, _16, _24, _31 = U(0), U(1), np.uint32(8), np.uint32(16), np.uint32(24), np.uint32(31)
_32, _64, _128 = U(32), U(64), U(128)
_LOW = U(0xFFFFFFFF)
_U32, _I = np.uint32, np.int64
_WIDE = sum(1 << kind for kind in p.WIDE)


@kernel
def resolve(resolution: Any, scope: Any, name: Any) -> Any:
    """What ``name`` means in a complete scope: an address, MISSING, or 0 if nobody has said so."""
    mask = U(len(resolution)) - _ONE
    place = fold(fold(START, U(scope)), U(name)) & mask
    while True:
        row = resolution[place]
        if row["used"] == 0:
            return _I(0)
        if row["scope"] == scope and row["name"] == name:
            return _I(row["found"])
        place = (place + _ONE) & mask


@inner
def _named(code: Any, resolution: Any, directory: Any, pages: Any, scopes: Any, name: Any) -> Any:
    """The address of the chain called ``name``: the first of a table's scopes that knows it decides. 0, or MISSING."""
    last = scopes - 1 + 2 * _I(code[scopes])
    for at in range(scopes + 1, last + 1, 2):
        if code[at] == p.COMPLETE:
            found = resolve(resolution, code[at + 1], name)
            if found == 0:
                continue
        else:
            page = _I(name) >> p.PAGE_BITS
            if page >= directory.shape[1]:
                return _I(0)
            found = _I(pages[directory[code[at + 1], page], _I(name) & (p.PAGE - 1)])
        if found != p.ELSEWHERE and (found != p.MISSING or at == last):
            return found
    return _I(0)


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
def _rare(code: Any, name_bits: Any, words: Any, R: Any, at: Any) -> Any:
    """The pure constraint at ``at``, of one of the kinds that most rules do not have: _YES, _NO or why to run again."""
    meta = code[at]
    kind, have, a = meta & _BYTE, R[(meta >> _8) & _BYTE], code[at + 1]
    found = False
    if kind == p.RANGES:
        for place in range(_I(a), _I(a) + 2 * _I(code[at + 2]), 2):
            if code[place] <= have and have <= code[place + 1]:
                found = True
                break
    elif kind == p.NAME:
        word = U(have) >> U(5)
        if word >= U(name_bits.shape[1]):
            return _STALE
        found = ((name_bits[a, word] >> (have & _U32(31))) & _FLAG) != 0
    elif kind == p.PREFIX6:
        found = _prefix6(words, have, a, code[at + 2])
    elif kind == p.RANGES6:
        for place in range(_I(a), _I(a) + 2 * _I(code[at + 2]), 2):
            if not _words_less(words, have, code[place]) and not _words_less(words, code[place + 1], have):
                found = True
                break
    elif kind == p.TYPES:
        if have == 0:
            return _TYPES_MISSING
        found = (have & a) != 0
    return _YES if found != (((meta >> _16) & _FLAG) != 0) else _NO


@inner
def _holds(code: Any, name_bits: Any, words: Any, R: Any, at: Any) -> Any:
    """The pure constraint at ``at``: _YES, _NO, or why the packet must be run again."""
    meta, a = code[at], code[at + 1]
    kind, have = meta & _BYTE, R[(meta >> _8) & _BYTE]
    if kind == p.EQUAL:
        found = have == a
    elif kind == p.HAVING:
        found = (have & a) == a
    elif kind == p.MASKED:
        found = (have & code[at + 2]) == a
    elif kind == p.RANGE:
        found = a <= have and have <= code[at + 2]
    elif kind == p.ANY_BIT:
        found = (have & a) != 0
    elif kind == p.NEVER:
        found = False
    else:
        return _rare(code, name_bits, words, R, at)
    return _YES if found != (((meta >> _16) & _FLAG) != 0) else _NO


@inner
def _after(code: Any, at: Any) -> Any:
    """The address of the constraint that follows the one at ``at``."""
    return at + 2 + ((_WIDE >> _I(code[at] & _BYTE)) & 1)


@inner
def _pure(code: Any, name_bits: Any, words: Any, R: Any, rule: Any) -> Any:
    """Do the pure constraints of the rule at ``rule`` hold? _YES, _NO, or why the packet must be run again."""
    at = _I(code[rule + p.LIST])
    for _ in range(_I(code[rule + p.META] & _BYTE)):
        found = _holds(code, name_bits, words, R, at)
        if found != _YES:
            return found
        at = _after(code, at)
    return _YES


@inner
def _from(code: Any, first: Any, count: Any, at: Any) -> Any:
    """The address of the first of ``count`` ascending places from ``first`` on that is not before ``at``."""
    low, high = first, first + count
    while low < high:
        middle = (low + high) >> 1
        if _I(code[middle]) < at:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _slot(code: Any, words: Any, R: Any, group: Any) -> Any:
    """The value of the group's slot for this packet; 0 if it has no candidates."""
    slots, size, parts = _I(code[group + 2]), _I(code[group + 3]), _I(code[group + 6])
    if code[group + 4] == p.BY_INTERVAL:
        have = R[code[parts] & _BYTE]
        low, high = _I(0), size
        while high - low > 1:
            middle = (low + high) >> 1
            if code[slots + 2 * middle] <= have:
                low = middle
            else:
                high = middle
        return code[slots + 2 * low + 1]
    key = START
    for at in range(parts, parts + 2 * _I(code[group + 5]), 2):
        have, mask = R[code[at] & _BYTE], code[at + 1]
        if code[at] >> _8 == p.BY_MASK:
            key = fold(key, U(have & mask))
        else:
            length = U(mask)  # 1 to 127
            high_word, low_word = words[have, 0], _ZERO
            if length <= _64:
                high_word = (high_word >> (_64 - length)) << (_64 - length)
            else:
                low_word = (words[have, 1] >> (_128 - length)) << (_128 - length)
            key = fold(fold(key, high_word >> _32), high_word & _LOW)
            key = fold(fold(key, low_word >> _32), low_word & _LOW)
    wrap = U(size - 1)
    place = key & wrap
    while True:
        slot = slots + 2 * _I(place)
        value = code[slot + 1]
        if value == 0 or U(code[slot]) == key:
            return value
        place = (place + _ONE) & wrap


@inner
def _search(code: Any, name_bits: Any, words: Any, R: Any, index: Any, rules: Any, best: Any, at: Any) -> Any:
    """In a long chain, the place of the first rule from ``at`` on whose pure constraints hold; ``best``, the chain's length,
    if there is none; -_TYPES_MISSING or -_STALE."""
    groups = _I(code[index])
    for number in range(groups + 1):
        value = code[index + 1]  # the rest comes last
        if number < groups:
            group = index + 2 + p.GROUP * number
            if _I(code[group]) >= best or _I(code[group + 1]) < at:
                continue
            value = _slot(code, words, R, group)
        if value == 0:
            continue
        several = (value & _FLAG) == 0
        here = _I(value >> _FLAG)
        end = here + 1
        if several:
            end += _I(code[here])
            here = _from(code, here + 1, end - here - 1, at)
        while here < end:
            place = _I(code[here]) if several else here
            if place >= best:
                break
            if place >= at:
                found = _pure(code, name_bits, words, R, rules + p.LINE * place)
                if found == _YES:
                    best = place
                    break
                if found != _NO:
                    return _I(-found)
            here += 1
    return best


@inner
def _run(code: Any, run: Any, value: Any) -> Any:
    """Which rule of the run of draws at ``run`` the random bits ``value`` pick; the run's length if none."""
    low, high = _I(0), _I(code[run])
    while low < high:
        middle = (low + high) >> 1
        at = run + 1 + 2 * middle
        if value < (U(code[at]) << _32) | U(code[at + 1]):
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def _recent(planned: Any, recent: Any, R: Any, mode: Any, column: Any, number: Any, seconds: Any, now: Any) -> Any:
    """``-m recent`` (xt_recent.c): is the address in the list, and fresh? --set and a successful --update are planned.
    _YES, _NO, or less than 0 if there is no room for the plan."""
    address = R[column]
    found = True
    if mode != p.SET:
        last = last_seen(recent, planned, R[r.PLANNED], R[r.NAMESPACE], number, address)
        found = last > -np.inf if seconds == 0 else now - np.float64(seconds) <= last
    if mode == p.SET or (found and mode == p.UPDATE):
        if R[r.PLANNED] >= len(planned):
            return -1
        plan = planned[R[r.PLANNED]]
        plan["namespace"] = R[r.NAMESPACE]
        plan["list"] = number
        plan["address"] = address
        plan["stamp"] = now
        R[r.PLANNED] += _U32(1)
    return _YES if found else _NO


@kernel
def _impure(P: Any, S: Any, recent: Any, words: Any, R: Any, rule: Any, table: Any, seed: Any, now: Any) -> Any:
    """The constraints of a rule that are asked in order: _YES, _NO, why to run again (R[FAULT_B] has the name of a set that
    is missing), or -1 less the reason to give up."""
    code = P.code
    at = _I(code[rule + p.LIST])
    pure = _I(code[rule + p.META] & _BYTE)
    for number in range(_I((code[rule + p.META] >> _8) & _BYTE)):
        meta, a = code[at], code[at + 1]
        kind = _I(meta & _BYTE)
        negated = ((meta >> _16) & _FLAG) != 0
        found: Any = _YES
        if number < pure:
            pass
        elif kind == p.RANDOM:
            if R[r.DRAWS] >= len(S.draws):
                return -1 - p.BAIL_SCRATCH
            found = _YES if (draw(seed, U(R[r.SERIAL]), U(R[r.DRAWS])) >> _32) < U(a) else _NO
            S.draws[R[r.DRAWS]] = 1 if found == _YES else 2
            R[r.DRAWS] += _U32(1)
        elif kind == p.RECENT:
            if code[a] != 0:
                return -1 - p.BAIL_RECENT
            found = _recent(S.planned, recent, R, meta >> _24, (meta >> _8) & _BYTE, a, code[at + 2], now)
            if found < 0:
                return -1 - p.BAIL_SCRATCH
            if negated:
                found = _NO if found == _YES else _YES
        elif kind == p.IN_SET:
            held = resolve(P.resolution, P.tables[table]["sets"], a)
            if held == 0:
                R[r.FAULT_B] = a
                return _SET_MISSING
            if held == p.MISSING:
                return -1 - p.BAIL_SET
            if code[held] == UNKNOWN:
                return -1 - _I(code[held + 1])
            found = _YES if contains(code, words, R, held, _I(code[at + 2])) != negated else _NO
        elif kind == p.OPAQUE:
            return -1 - _I(a)
        else:
            found = _holds(code, P.name_bits, words, R, at)
        if found != _YES:
            return found
        at = _after(code, at)
    return _YES


@kernel
def _change(code: Any, R: Any, action: Any, marks: Any) -> None:
    """Marks, and NOTRACK."""
    if action == p.TO_NOTRACK:
        R[r.NOTRACK] = 1
        return
    clear, xor, other = code[marks], code[marks + 1], code[marks + 2]
    if action == p.TO_MARK:
        R[r.MARK] = (R[r.MARK] & ~clear) ^ xor
    elif (R[r.HAS] >> _U32(r.CT_MARK)) & _FLAG == 0:
        return
    elif action == p.TO_SET_CT_MARK:
        R[r.CT_MARK] = (R[r.CT_MARK] & ~clear) ^ xor
    elif action == p.TO_SAVE_MARK:
        R[r.CT_MARK] = (R[r.CT_MARK] & ~clear) ^ (R[r.MARK] & other)
    else:
        R[r.MARK] = (R[r.MARK] & ~clear) ^ (R[r.CT_MARK] & other)


@kernel
def _again(R: Any, table: Any, why: Any) -> Any:
    """FAULT, for what a constraint lacks."""
    R[r.FAULT_A] = table
    if why == _TYPES_MISSING:
        R[r.FAULT_B] = p.NEEDS_TYPES
    elif why == _STALE:
        R[r.FAULT_B] = p.NEEDS_PROGRAMS
    return _I(r.FAULT)


@kernel
def walk(P: Any, S: Any, recent: Any, words: Any, table: Any, builtin: Any, R: Any, seed: Any, now: Any) -> Any:
    """Walk ``table`` (a number of ``RuleCompiler.table``) from its built-in chain ``builtin`` (``RuleCompiler.entry``).

    ``P`` Programs, ``S`` Scratch, ``recent`` Recent, ``words`` (n, 2) uint64 of Addresses, ``R`` uint32[SIZE] registers,
    ``seed`` uint64, ``now`` float64 simulated seconds. Answers with a code of ``netsim.compiled.registers`` | argument << 8:
    of NAT a row of ``P.nats``, of REJECT and BAIL a number for ``RuleCompiler.reject_with`` and ``reason``. After FAULT give
    R[FAULT_A] and R[FAULT_B] to ``RuleCompiler.fault`` and run the packet again from its start.

    R[EVALUATED], R[HITS], R[DRAWS] and R[PLANNED] go on from what they are; R[NOTRACK] and R[BY_POLICY] are set anew.
    """
    code = P.code
    scopes, chain, at = _I(P.tables[table]["scopes"]), _I(builtin), _I(0)
    depth, hops = 0, 0
    R[r.NOTRACK] = 0
    R[r.BY_POLICY] = 0
    if R[r.FRAGMENT] == 8 and R[r.PROTO] == 6:
        return _I(r.BAIL | p.BAIL_FRAGMENT << 8)  # xt_tcp drops it on the spot; too rare for every rule to ask
    while True:
        count, index, rules = _I(code[chain] & _COUNT), _I(code[chain + 3]), _I(code[chain + 2])
        place = at
        R[r.VARIES] |= (code[chain] >> _30) & _FLAG
        if index != 0:
            place = _search(code, P.name_bits, words, R, index, rules, count, at)
        else:
            while place < count:
                found = _pure(code, P.name_bits, words, R, rules + p.RULE * place)
                if found == _YES:
                    break
                if found != _NO:
                    place = _I(-found)
                    break
                place += 1
        if place < 0:
            return _again(R, table, -place)
        action, argument = _I(p.TO_RETURN), _I(0)
        if place < count:
            rule = rules + (p.RULE if index == 0 else p.LINE) * place
            run, meta = _I(code[rule + p.RUN]), code[rule + p.META]
            action = _I(-1)
            if run != 0:
                if R[r.DRAWS] >= len(S.draws):
                    return _I(r.BAIL | p.BAIL_SCRATCH << 8)
                length = _I(code[_I(code[run])])
                failed = _run(code, _I(code[run]), draw(seed, U(R[r.SERIAL]), U(R[r.DRAWS])))
                S.draws[R[r.DRAWS]] = 2 * failed + _I(failed != length)
                R[r.DRAWS] += _U32(1)
                place += failed
                if (code[run + 1] == 0 or code[run + 1 + length] == 0) and failed == length:
                    R[r.EVALUATED] += _U32(place - at)
                    at = place
                    continue
                if code[run + 1] != 0:
                    action, argument = _I(p.TO_CHAIN), _I(code[run + 1 + failed])
                else:
                    rule += (p.RULE if index == 0 else p.LINE) * failed
                    meta = code[rule + p.META]
            elif (meta >> _8) & _BYTE != meta & _BYTE:
                found = _impure(P, S, recent, words, R, rule, table, seed, now)
                if found < 0:
                    return _I(r.BAIL) | (-1 - found) << 8
                if found == _NO:
                    R[r.EVALUATED] += _U32(place + 1 - at)
                    at = place + 1
                    continue
                if found != _YES:
                    return _again(R, table, found)
            if R[r.HITS] >= len(S.hits):
                return _I(r.BAIL | p.BAIL_SCRATCH << 8)
            S.hits[R[r.HITS]] = code[chain + 1] + _U32(place)
            R[r.HITS] += _U32(1)
            R[r.EVALUATED] += _U32(place + 1 - at)
            at = place + 1
            if action < 0:
                action, argument = _I(meta >> _16), _I(code[rule + p.ARGUMENT])
        else:
            R[r.EVALUATED] += _U32(count - at)
        if action == p.TO_CHAIN or action == p.TO_CHAIN_FOR_GOOD:
            found_chain = _named(code, P.resolution, P.directory, P.pages, scopes, argument)
            if found_chain == 0:
                R[r.FAULT_A] = table
                R[r.FAULT_B] = argument
                return _I(r.FAULT)
            if found_chain == p.MISSING:
                return _I(r.BAIL | p.BAIL_CHAIN << 8)
            if action == p.TO_CHAIN:
                if 2 * depth >= len(S.stack):
                    return _I(r.BAIL | p.BAIL_LOOP << 8)
                S.stack[2 * depth] = chain
                S.stack[2 * depth + 1] = at
                depth += 1
                hops = 0
            else:
                hops += 1
                if hops > _DEEPEST:
                    return _I(r.BAIL | p.BAIL_LOOP << 8)
            chain, at = found_chain, _I(0)
        elif action == p.TO_RETURN:
            if depth == 0:
                R[r.BY_POLICY] = 1
                return _I(r.DROP if code[_I(builtin)] >> _31 != 0 else r.ACCEPT)
            depth -= 1
            chain, at = _I(S.stack[2 * depth]), _I(S.stack[2 * depth + 1])
        elif action == p.TO_ACCEPT:
            return _I(r.ACCEPT)
        elif action == p.TO_DROP:
            return _I(r.DROP)
        elif action == p.TO_NAT:
            return r.NAT | argument << 8
        elif action == p.TO_REJECT:
            return r.REJECT | argument << 8
        elif action == p.TO_BAIL:
            return r.BAIL | argument << 8
        elif action != p.GO_ON:
            _change(code, R, action, argument)
