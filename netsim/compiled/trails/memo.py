"""What is remembered of the parts of a trail (``parts``): open hash tables, a row for each value of a part's key.

    0        8      12
    ├─ key ──┼ state ┼ kept numbers, those of 32 bits first, then those of 64; rows begin on cache lines

A row is FREE, BEGUN, or KEPT: only when a packet has passed every guard of the trail is what it has worked out known to make
sense, and kept. A memo holds as long as tables stay where they are: kept numbers may be places in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.memory import LINE, aligned

STATE_AT, KEPT_AT = 8, 12
FREE, BEGUN, KEPT = range(3)
SPREAD = 0x9E3779B97F4A7C15  # by which keys are multiplied; the highest bits say where to begin

# Words of ``Memo.directory``: for each part where its rows are, by how much a hash is shifted, how many may still be begun.
ADDRESS, SHIFT, ROOM, WORDS = 0, 1, 2, 4

_FIRST, _MOST = 14, 20  # bits of the number of rows, at first and at most


def row_bytes(used: int) -> int:
    return -(-used // LINE) * LINE


class Memo:
    """``sizes``: bytes of a row of each part. Machine code knows ``directory`` by its address, which stays."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.directory: npt.NDArray[np.int64] = aligned(max(WORDS * len(self.sizes), 1), np.int64)
        self._rows: list[Any] = [None] * len(self.sizes)  # (rows, bytes) each
        self._bits = [_FIRST] * len(self.sizes)
        for part in range(len(self.sizes)):
            self._begin(part)

    def clear(self) -> None:
        for part, bits in enumerate(self._bits):
            if self.directory[WORDS * part + ROOM] != _room(bits):
                self._begin(part)

    def grow(self) -> None:
        """Give parts that are full twice the rows."""
        for part, bits in enumerate(self._bits):
            if self.directory[WORDS * part + ROOM] <= 0 and bits < _MOST:
                held = self._rows[part]
                self._bits[part] = bits + 1
                self._begin(part)
                self._move(part, held[_state(held) == KEPT])

    def _begin(self, part: int) -> None:
        bits, size = self._bits[part], self.sizes[part]
        rows = self._rows[part] = aligned(size << bits, np.uint8).reshape(-1, size)
        self.directory[WORDS * part : WORDS * part + 3] = rows.ctypes.data, 64 - bits, _room(bits)

    def _move(self, part: int, held: npt.NDArray[np.uint8]) -> None:
        """Put rows where searches find them: all at once where they belong, what finds that taken one place further, …"""
        rows, bits = self._rows[part], self._bits[part]
        self.directory[WORDS * part + ROOM] -= len(held)
        with np.errstate(over="ignore"):
            homes = held[:, :8].copy().view(np.uint64)[:, 0] * np.uint64(SPREAD) >> np.uint64(64 - bits)
        places, waiting = homes.astype(np.int64), np.arange(len(held))
        while len(waiting):
            first = np.unique(places[waiting], return_index=True)[1]
            first = first[_state(rows)[places[waiting[first]]] == FREE]
            chosen = waiting[first]
            rows[places[chosen]] = held[chosen]
            waiting = np.delete(waiting, first)
            places[waiting] = (places[waiting] + 1) & (1 << bits) - 1


def _state(rows: npt.NDArray[np.uint8]) -> Any:
    return rows[:, STATE_AT : STATE_AT + 4].view(np.uint32)[:, 0]


def _room(bits: int) -> int:
    """Rows that may be begun of so many: searches are short as long as a few are free."""
    return 5 << bits >> 3
