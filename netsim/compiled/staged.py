"""Arrays of records that grow: rows are staged as tuples and written when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.memory import aligned


class StagedRows:
    """``array`` holds at least ``len(self)`` rows (the rest is zero) and is replaced when it grows, by doubling."""

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 64) -> None:
        self._array: npt.NDArray[Any] = aligned(capacity, dtype)
        self._written = 0
        self._staged: list[Any] = []

    def __len__(self) -> int:
        return self._written + len(self._staged)

    def append(self, row: Any) -> int:
        """Add a row (a tuple, or a number if rows are plain numbers); its index."""
        at = self._written + len(self._staged)
        self._staged.append(row)
        return at

    def extend(self, rows: Iterable[Any]) -> int:
        """Add rows; the index of the first."""
        first = len(self)
        self._staged.extend(rows)
        return first

    def extend_array(self, rows: npt.NDArray[Any]) -> int:
        first = len(self)
        array = self._reserve(first + len(rows))
        array[first : first + len(rows)] = rows
        self._written = first + len(rows)
        return first

    @property
    def array(self) -> npt.NDArray[Any]:
        return self._reserve(len(self)) if self._staged else self._array

    def _reserve(self, size: int) -> npt.NDArray[Any]:
        """Write what is staged; room for ``size`` rows in all."""
        if size > len(self._array):
            capacity = len(self._array)
            while capacity < size:
                capacity *= 2
            grown = aligned(capacity, self._array.dtype)
            grown[: self._written] = self._array[: self._written]
            self._array = grown
        if self._staged:
            end = self._written + len(self._staged)
            self._array[self._written : end] = np.array(self._staged, self._array.dtype)
            self._written = end
            self._staged.clear()
        return self._array
