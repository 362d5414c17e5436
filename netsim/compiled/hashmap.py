"""A hash map from 64-bit keys to 32-bit numbers, for facts: open addressing, linear probing, never more than half full.

Keys are made of a kind (8 bits), a number (24 bits) and a value (32 bits): no two facts share one. Key 0 marks a free slot,
so kind 0 is not used. A key and its value lie together: most are asked for when they are in no cache. Growing makes a new
array: take ``rows`` afresh for each call of a kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.jit import Int, kernel

U = np.uint64
MISSING = -1
FACT = np.dtype([("key", "u8"), ("value", "i8")])
_MIX = U(0x9E3779B97F4A7C15)


@kernel
def key_of(kind: Int, number: Int, value: Int) -> Int:
    return U(kind) << U(56) | U(number) << U(32) | U(value)


@kernel
def get(rows: Any, key: Int) -> Int:
    """The value kept under ``key``; ``MISSING`` if there is none."""
    mask = U(rows.shape[0] - 1)
    at = (key * _MIX >> U(20)) & mask
    while True:
        held = rows[at]["key"]
        if held == key:
            return np.int64(rows[at]["value"])
        if held == U(0):
            return np.int64(-1)
        at = (at + U(1)) & mask


@kernel
def put(rows: Any, key: Int, value: Int) -> Int:
    """Keep ``value``; True if the key is new. The caller sees to the room."""
    mask = U(rows.shape[0] - 1)
    at = (key * _MIX >> U(20)) & mask
    while rows[at]["key"] != U(0):
        if rows[at]["key"] == key:
            rows[at]["value"] = value
            return False
        at = (at + U(1)) & mask
    rows[at]["key"] = key
    rows[at]["value"] = value
    return True


@kernel
def _move(rows: Any, into: Any) -> None:
    for at in range(rows.shape[0]):
        if rows[at]["key"] != U(0):
            put(into, rows[at]["key"], rows[at]["value"])


class HashMap:
    """The Python side: sets facts and grows."""

    def __init__(self, room: int = 1024) -> None:
        self.rows: Any = np.zeros(room, FACT)
        self.used = 0

    def set(self, kind: int, number: int, value: int, fact: int) -> None:
        if 2 * (self.used + 1) > len(self.rows):
            self._grow(2 * len(self.rows))
        self.used += put(self.rows, U(kind << 56 | number << 32 | value), fact)

    def forget(self, *kinds: int) -> None:
        """The facts of these kinds are not known any more."""
        self.rows["value"][np.isin(self.rows["key"] >> U(56), np.array(kinds, np.uint64))] = MISSING

    def _grow(self, room: int) -> None:
        rows = np.zeros(room, FACT)
        with np.errstate(over="ignore"):
            _move(self.rows, rows)
        self.rows = rows
