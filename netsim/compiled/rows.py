"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Rows:
    """``array`` has at least the rows added so far, and zeros behind them; it is replaced when it grows."""

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 64) -> None:
        self.array: npt.NDArray[Any] = np.zeros(capacity, dtype)
        self.used = 0

    def add(self, rows: list[Any]) -> int:
        """Append ``rows`` (tuples in field order, or numbers); the index of the first one."""
        start = self.used
        self.reach(start + len(rows))
        if rows:
            self.array[start : start + len(rows)] = rows
        self.used = start + len(rows)
        return start

    def reach(self, count: int) -> None:
        """Have room for ``count`` rows."""
        capacity = len(self.array)
        if count > capacity:
            while capacity < count:
                capacity *= 2
            grown = np.zeros(capacity, self.array.dtype)
            grown[: len(self.array)] = self.array
            self.array = grown
