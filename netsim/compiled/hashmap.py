"""A hash map from 64-bit keys to 32-bit numbers, for facts: open addressing, linear probing, never more than half full.

Keys are made of a kind (8 bits), a number (24 bits) and a value (32 bits): no two facts share one. Key 0 marks a free slot,
so kind 0 is not used. Growing makes new arrays: take ``keys`` and ``values`` afresh for each call of a kernel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, kernel

U = np.uint64
MISSING = -1
_MIX = U(0x9E3779B97F4A7C15)


@kernel
def key_of(kind: Int, number: Int, value: Int) -> Int:
    return U(kind) << U(56) | U(number) << U(32) | U(value)


@kernel
def get(keys: npt.NDArray[np.uint64], values: npt.NDArray[np.int32], key: Int) -> Int:
    """The value kept under ``key``; ``MISSING`` if there is none."""
    mask = U(keys.shape[0] - 1)
    at = (key * _MIX >> U(20)) & mask
    while True:
        held = keys[at]
        if held == key:
            return np.int64(values[at])
        if held == U(0):
            return np.int64(-1)
        at = (at + U(1)) & mask


@kernel
def put(keys: npt.NDArray[np.uint64], values: npt.NDArray[np.int32], key: Int, value: Int) -> Int:
    """Keep ``value``; True if the key is new. The caller sees to the room."""
    mask = U(keys.shape[0] - 1)
    at = (key * _MIX >> U(20)) & mask
    while keys[at] != U(0):
        if keys[at] == key:
            values[at] = value
            return False
        at = (at + U(1)) & mask
    keys[at] = key
    values[at] = value
    return True


@kernel
def _put_all(
    keys: npt.NDArray[np.uint64],
    values: npt.NDArray[np.int32],
    new_keys: npt.NDArray[np.uint64],
    new_values: npt.NDArray[np.int32],
) -> Int:
    """Keep those that are not known yet; how many keys are new."""
    added = 0
    for at in range(new_keys.shape[0]):
        if get(keys, values, new_keys[at]) == MISSING:
            added += put(keys, values, new_keys[at], new_values[at])
    return added


@kernel
def _move(
    keys: npt.NDArray[np.uint64],
    values: npt.NDArray[np.int32],
    new_keys: npt.NDArray[np.uint64],
    new_values: npt.NDArray[np.int32],
) -> None:
    for at in range(keys.shape[0]):
        if keys[at] != U(0):
            put(new_keys, new_values, keys[at], values[at])


class HashMap:
    """The Python side: sets facts and grows."""

    def __init__(self, room: int = 1024) -> None:
        self.keys: npt.NDArray[np.uint64] = np.zeros(room, np.uint64)
        self.values: npt.NDArray[np.int32] = np.zeros(room, np.int32)
        self.used = 0

    def set(self, kind: int, number: int, value: int, fact: int) -> None:
        if 2 * (self.used + 1) > len(self.keys):
            self._grow(2 * len(self.keys))
        self.used += put(self.keys, self.values, U(kind << 56 | number << 32 | value), fact)

    def known(self, kind: int, number: int, value: int) -> bool:
        return bool(get(self.keys, self.values, U(kind << 56 | number << 32 | value)) != MISSING)

    def supply(self, keys: npt.NDArray[np.uint64], facts: npt.NDArray[np.int32]) -> None:
        """Many facts at once (``key_of``). What is known already stays."""
        while 2 * (self.used + len(keys)) > len(self.keys):
            self._grow(2 * len(self.keys))
        self.used += int(_put_all(self.keys, self.values, keys, facts))

    def forget(self, *kinds: int) -> None:
        """The facts of these kinds are not known any more."""
        self.values[np.isin(self.keys >> U(56), np.array(kinds, np.uint64))] = MISSING

    def _grow(self, room: int) -> None:
        keys, values = np.zeros(room, np.uint64), np.zeros(room, np.int32)
        with np.errstate(over="ignore"):
            _move(self.keys, self.values, keys, values)
        self.keys, self.values = keys, values
