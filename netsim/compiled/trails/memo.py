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
        self._rows: list[Any] = [None] * len(self.sizes)
        self._bits = [_FIRST] * len(self.sizes)
        for part in range(len(self.sizes)):
            self._begin(part)

    def clear(self) -> None:
        for part, bits in enumerate(self._bits):
            if self.directory[WORDS * part + ROOM] != _room(bits):
                self._begin(part)

    def grow(self) -> None:
        """Give parts that are full more rows; what they held is worked out anew."""
        for part, bits in enumerate(self._bits):
            if self.directory[WORDS * part + ROOM] <= 0 and bits < _MOST:
                self._bits[part] = bits + 1
                self._begin(part)

    def _begin(self, part: int) -> None:
        bits = self._bits[part]
        rows = self._rows[part] = aligned(self.sizes[part] << bits, np.uint8)
        self.directory[WORDS * part : WORDS * part + 3] = rows.ctypes.data, 64 - bits, _room(bits)


def _room(bits: int) -> int:
    """Rows that may be begun of so many: searches are short as long as a few are free."""
    return 5 << bits >> 3
