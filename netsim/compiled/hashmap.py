"""A hash map from 64-bit keys to 32-bit numbers, for facts: open addressing, linear probing, never more than half full.

Keys are made of a kind (8 bits), a number (24 bits) and a value (32 bits): no two facts share one. Key 0 marks a free slot,
so kind 0 is not used. A key and its value lie together: most are asked for when they are in no cache. Growing makes a new
array: take ``rows`` afresh for each call of a kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, inner, kernel
from netsim.compiled.memory import aligned
from netsim.compiled.rows import WAITING_MOST

U = np.uint64
MISSING = -1
FACT = np.dtype([("key", "u8"), ("value", "i8")])
LOWER, UPPER = U(0x9E3779B1), U(0x85EBCA77)


@kernel
def key_of(kind: Int, number: Int, value: Int) -> Int:
    return U(kind) << U(56) | U(number) << U(32) | U(value)


@inner
def spread(key: Int) -> Int:
    """A hash. Each half is multiplied by itself: with one product of all 64 bits, keys that differ at the upper end alone (a
    name in a hundred thousand namespaces) would all begin their search in a few hundred places. Nothing overflows, so that
    NumPy, without a compiler, has nothing to warn of."""
    value = ((key & U(0xFFFFFFFF)) * LOWER) ^ ((key >> U(32)) * UPPER)
    return (value >> U(32)) ^ (value >> U(13))


@inner
def home(rows: Any, key: Int) -> Int:
    """Where the search for ``key`` begins, in any table of rows that have a ``key`` (uint64, 0: free)."""
    return spread(key) & U(rows.shape[0] - 1)


@inner
def place(rows: Any, key: Int) -> Int:
    """The row of ``key``, or the free one where it belongs."""
    mask = U(rows.shape[0] - 1)
    at = home(rows, key)
    while rows[at]["key"] != key and rows[at]["key"] != U(0):
        at = (at + U(1)) & mask
    return at


@kernel
def get(rows: Any, key: Int) -> Int:
    """The value kept under ``key``; ``MISSING`` if there is none."""
    at = place(rows, key)
    return np.int64(rows[at]["value"]) if rows[at]["key"] == key else np.int64(-1)


@kernel
def put(rows: Any, key: Int, value: Int) -> Int:
    """Keep ``value``; True if the key is new. The caller sees to the room."""
    at = place(rows, key)
    fresh = rows[at]["key"] == U(0)
    rows[at]["key"] = key
    rows[at]["value"] = value
    return fresh


@kernel
def _put_all(rows: Any, keys: npt.NDArray[np.uint64], values: npt.NDArray[np.int32], over: Int) -> Int:
    """Keep them, or (``over`` 0) those that are not known yet; how many keys are new."""
    added = 0
    for at in range(keys.shape[0]):
        if over or get(rows, keys[at]) == MISSING:
            added += put(rows, keys[at], values[at])
    return added


@kernel
def _move(rows: Any, into: Any) -> None:
    for at in range(rows.shape[0]):
        if rows[at]["key"] != U(0):
            put(into, rows[at]["key"], rows[at]["value"])


class HashMap:
    """The Python side: sets facts and grows. Facts wait in a list until somebody looks: many small additions cost one."""

    def __init__(self, room: int = 1024) -> None:
        self._rows: Any = aligned(room, FACT)
        self._used = 0
        self._waiting: list[int] = []
        self._facts: list[int] = []

    @property
    def rows(self) -> Any:
        self._settle()
        return self._rows

    def set(self, kind: int, number: int, value: int, fact: int) -> None:
        self._waiting.append(kind << 56 | number << 32 | value)
        self._facts.append(fact)
        if len(self._waiting) > WAITING_MOST:
            self._settle()

    def get(self, kind: int, number: int, value: int) -> int:
        """What is known; ``MISSING`` if nothing is."""
        return int(get(self.rows, U(kind << 56 | number << 32 | value)))

    def supply(self, keys: npt.NDArray[np.uint64], facts: npt.NDArray[np.int32]) -> None:
        """Many facts at once (``key_of``). What is known already stays."""
        self._settle()
        self._put(keys, facts, 0)

    def forget(self, *kinds: int) -> None:
        """The facts of these kinds are not known any more."""
        self.rows["value"][np.isin(self.rows["key"] >> U(56), np.array(kinds, np.uint64))] = MISSING

    def _settle(self) -> None:
        if self._waiting:
            self._put(np.array(self._waiting, np.uint64), np.array(self._facts, np.int32), 1)
            self._waiting.clear()
            self._facts.clear()

    def _put(self, keys: npt.NDArray[np.uint64], facts: npt.NDArray[np.int32], over: int) -> None:
        room = len(self._rows)
        while 2 * (self._used + len(keys)) > room:
            room *= 2
        if room > len(self._rows):
            grown = aligned(room, FACT)
            _move(self._rows, grown)
            self._rows = grown
        self._used += int(_put_all(self._rows, keys, facts, over))
