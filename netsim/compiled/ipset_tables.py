"""ipsets as words, and the look-up: ``IpSet.contains`` on registers.

    set     kind HASHED · dimensions · their kinds, 8 bits each · family · slots · how many
            · prefix lengths of the first net dimension, how many · where · the same of the second
    set     kind LISTED · members, how many · their addresses
    set     kind UNKNOWN · reason: of a type that is left to the interpreter
    entry   1 if it matches, 0 nomatch · for each dimension a handle, protocol << 16 | number, or a handle and a length

A look-up hashes the packet's values, prefixes under one length after the other, most specific first; the first entry that
is equal in full decides (``ip_set_hash_gen.h``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled import registers as r
from netsim.compiled.addresses import Addresses
from netsim.compiled.chain_index import fill
from netsim.compiled.hashing import START, U, fold, fold_array
from netsim.compiled.jit import kernel
from netsim.compiled.words import LINE, Words
from netsim.linux.ipset import IpSet
from netsim.packet.address import Family

UNKNOWN, HASHED, LISTED = range(3)
IP, PORT, NET, NUMBER = range(4)
_KINDS = {"ip": IP, "port": PORT, "net": NET, "number": NUMBER}
_I = np.int64
_U32 = np.uint32
_32 = U(32)
_LOW = U(0xFFFFFFFF)
_64, _128, _ZERO = U(64), U(128), U(0)


# -- compiling -----------------------------------------------------------------------------------------------------------
class SetCompiler:
    def __init__(self, addresses: Addresses, code: Words) -> None:
        self._addresses, self._code = addresses, code
        self._held: dict[int, tuple[IpSet, int]] = {}

    def compile(self, made: IpSet, sets: Mapping[str, IpSet], reason: int) -> int:
        """The address of a set. ``sets`` resolves the members of a list:set; ``reason`` is why one may be left out."""
        if made.type == "list:set":
            return self._listed(made, sets, reason)
        held = self._held.get(id(made))
        if held is None:
            known = all(kind in _KINDS for kind in made.dimensions)
            at = self._hashed(made) if known else self._code.add([UNKNOWN, reason])
            held = self._held[id(made)] = made, at
        return held[1]

    def _listed(self, made: IpSet, sets: Mapping[str, IpSet], reason: int) -> int:
        members = [sets[entry.values[0]] for entry in made.entries if entry.values[0] in sets]
        if any(member.type == "list:set" for member in members):
            return self._code.add([UNKNOWN, reason])
        places = [self.compile(member, sets, reason) for member in members]
        if any(self._code.array[place] == UNKNOWN for place in places):
            return self._code.add([UNKNOWN, reason])
        return self._code.add([LISTED, len(places), *places])

    def _hashed(self, made: IpSet) -> int:
        kinds = [_KINDS[kind] for kind in made.dimensions]
        rows: dict[tuple[int, ...], int] = {}
        for entry in made.entries:
            words: list[int] = []
            for kind, value in zip(kinds, entry.values):
                if kind == NET:
                    words += self._addresses.handle(value.network_address), value.prefixlen
                else:
                    words.append(
                        self._addresses.handle(value)
                        if kind == IP
                        else value[0] << 16 | value[1]
                        if kind == PORT
                        else value
                    )
            rows[tuple(words)] = int(not entry.nomatch)
        columns = len(kinds) + kinds.count(NET)
        keys = np.array(list(rows), np.uint64).reshape(len(rows), columns)
        hashes = self._hashes(kinds, keys, made.family)
        size = 8
        while size < 2 * len(rows):
            size *= 2
        slots = np.zeros((size, 2), np.uint32)
        width = 1 + columns
        first = self._code.add([word for key, match in rows.items() for word in (match, *key)])
        fill(slots, hashes, (first + width * np.arange(len(rows))).astype(np.uint32))
        self._code.aligned(2 * LINE)
        where = self._code.add_array(slots)
        lengths = []
        column = 0
        for kind in kinds:
            if kind == NET:
                found = sorted(set(keys[:, column + 1].tolist()), reverse=True)
                lengths.append((len(found), self._code.add(found)))
            column += 2 if kind == NET else 1
        while len(lengths) < 2:
            lengths.append((1, 0))
        packed = sum(kind << 8 * place for place, kind in enumerate(kinds))
        ends = [word for pair in lengths for word in pair]
        return self._code.add([HASHED, len(kinds), packed, int(made.family), where, size, *ends])

    def _hashes(self, kinds: list[int], keys: npt.NDArray[np.uint64], family: Family) -> npt.NDArray[np.uint32]:
        held: Any = np.full(len(keys), START, np.uint64)
        column = 0
        for kind in kinds:
            if kind == NET and family is Family.IPV6:
                words = self._addresses.words[keys[:, column]]
                for half in (words[:, 0], words[:, 1]):
                    held = fold_array(fold_array(held, half >> _32), half & _LOW)
            else:
                held = fold_array(held, keys[:, column])
            if kind == NET:
                held = fold_array(held, keys[:, column + 1])
            column += 2 if kind == NET else 1
        return held.astype(np.uint32)  # type: ignore[no-any-return]


# -- looking up ----------------------------------------------------------------------------------------------------------
@kernel
def _value(R: Any, kind: Any, destination: Any) -> Any:
    """What the packet offers for a dimension; -1: nothing (``ip_set_get_ip_port``)."""
    if kind == IP or kind == NET:
        return _I(R[r.DST] if destination else R[r.SRC])
    has, protocol = _I(R[r.HAS]), _I(R[r.PROTO])
    if (has >> r.ICMP_TYPE) & 1:
        number = _I(R[r.ICMP_TYPE]) << 8 | _I(R[r.ICMP_CODE])
    elif (has >> r.SPORT) & 1:
        number = _I(R[r.DPORT] if destination else R[r.SPORT])
    else:
        return _I(-1)
    if kind == NUMBER:
        return number if protocol == 6 or protocol == 17 else _I(-1)
    ported = protocol == 6 or protocol == 17 or protocol == 132 or protocol == 136 or protocol == 1 or protocol == 58
    return protocol << 16 | number if ported else protocol << 16


@kernel
def _masked(words: Any, half: Any, handle: Any, length: Any) -> Any:
    """One 64-bit half of an IPv6 address under a prefix length."""
    length, word = U(length), words[handle, half]
    kept = length if half == 0 else (length - _64 if length > _64 else _ZERO)
    if kept == _ZERO:
        return _ZERO
    if kept >= _64:
        return word
    return (word >> (_64 - kept)) << (_64 - kept)


@kernel
def _mask4(length: Any) -> Any:
    return _I(0) if length == 0 else (_I(0xFFFFFFFF) << (32 - length)) & 0xFFFFFFFF


@kernel
def _equal(code: Any, words: Any, R: Any, at: Any, entry: Any, sides: Any, one: Any, other: Any) -> Any:
    """Is the entry what the packet offers, with prefixes of these lengths?"""
    six = code[at + 3] == 6
    length = one
    entry += 1
    for place in range(_I(code[at + 1])):
        kind = (_I(code[at + 2]) >> 8 * place) & 0xFF
        value = _value(R, kind, (sides >> (8 + place)) & 1)
        held = _I(code[entry])
        if kind == NET:
            if _I(code[entry + 1]) != length:
                return False
            if six:
                for half in range(2):
                    if _masked(words, half, value, length) != words[held, half]:
                        return False
            elif value & _mask4(length) != held:
                return False
            length = other
            entry += 2
        else:
            if value != held:
                return False
            entry += 1
    return True


@kernel
def _hash(code: Any, words: Any, R: Any, at: Any, sides: Any, one: Any, other: Any) -> Any:
    six = code[at + 3] == 6
    length = one
    key = START
    for place in range(_I(code[at + 1])):
        kind = (_I(code[at + 2]) >> 8 * place) & 0xFF
        value = _value(R, kind, (sides >> (8 + place)) & 1)
        if kind == NET:
            if six:
                for half in range(2):
                    word = _masked(words, half, value, length)
                    key = fold(fold(key, word >> _32), word & _LOW)
            else:
                key = fold(key, U(value & _mask4(length)))
            key = fold(key, U(length))
            length = other
        else:
            key = fold(key, U(value))
    return key


@kernel
def _in_hash(code: Any, words: Any, R: Any, at: Any, sides: Any) -> Any:
    dimensions = _I(code[at + 1])
    if (sides & 0xFF) < dimensions:
        return False
    for place in range(dimensions):
        kind = (_I(code[at + 2]) >> 8 * place) & 0xFF
        if _value(R, kind, (sides >> (8 + place)) & 1) < 0:
            return False
        if (kind == IP or kind == NET) and code[at + 3] != R[r.FAMILY]:
            return False
    slots, wrap = _I(code[at + 4]), U(_I(code[at + 5]) - 1)
    for first in range(_I(code[at + 6])):
        for second in range(_I(code[at + 8])):
            one, other = _I(code[_I(code[at + 7]) + first]), _I(code[_I(code[at + 9]) + second])
            key = _hash(code, words, R, at, sides, one, other)
            place = key & wrap
            while True:
                slot = slots + 2 * _I(place)
                entry = _I(code[slot + 1])
                if entry == 0:
                    break
                if U(code[slot]) == key and _equal(code, words, R, at, entry, sides, one, other):
                    return code[entry] != 0
                place = (place + U(1)) & wrap
    return False


@kernel
def contains(code: Any, words: Any, R: Any, at: Any, sides: Any) -> Any:
    """Is the packet in the set at ``at`` (HASHED or LISTED)? ``sides``: how many | 1 << 8 + i if the i-th is dst."""
    if code[at] == HASHED:
        return _in_hash(code, words, R, at, sides)
    for member in range(_I(code[at + 1])):
        if _in_hash(code, words, R, _I(code[at + 2 + member]), sides):
            return True
    return False
