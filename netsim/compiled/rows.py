"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from netsim.compiled.memory import aligned, longer

WAITING_MOST = 4096  # rows: as Python's tuples they take ten times their room


class Rows:
    """``array`` has at least the rows added so far, and zeros behind them; it is replaced when it grows. Rows wait in a list
    until somebody looks at the array: many small additions cost one."""

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 64) -> None:
        self._array: npt.NDArray[Any] = aligned(capacity, dtype)
        self._waiting: list[Any] = []
        self.used = 0

    def add(self, rows: list[Any]) -> int:
        """Append ``rows`` (tuples in field order, or numbers); the index of the first one."""
        start = self.used
        self._waiting += rows
        self.used = start + len(rows)
        if len(self._waiting) > WAITING_MOST:
            self._settle()
        return start

    @property
    def array(self) -> npt.NDArray[Any]:
        self._settle()
        return self._array

    def _settle(self) -> None:
        if self._waiting:
            self.reach(self.used)
            self._array[self.used - len(self._waiting) : self.used] = self._waiting
            self._waiting.clear()

    def reach(self, count: int) -> None:
        """Have room for ``count`` rows."""
        capacity = len(self._array)
        if count > capacity:
            while capacity < count:
                capacity *= 2
            self._array = longer(self._array, capacity)
