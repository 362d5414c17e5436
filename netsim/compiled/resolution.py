"""What names mean: chains and sets within scopes, and device names that rules ask for by their beginning."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs as p
from netsim.compiled.hashing import START, U, fold
from netsim.compiled.jit import kernel
from netsim.compiled.memory import aligned
from netsim.compiled.names import Names


class Resolution:
    """The hash table behind ``Programs.resolution``."""

    def __init__(self) -> None:
        self._array: npt.NDArray[Any] = aligned(256, p.resolution_dtype)
        self._held: dict[tuple[int, int], int] = {}
        self._staged: list[tuple[int, int, int, int]] = []

    def add(self, scope: int, name: int, found: int) -> None:
        if self._held.get((scope, name)) != found:
            self._held[scope, name] = found
            self._staged.append((scope, name, found, 1))

    @property
    def array(self) -> npt.NDArray[Any]:
        if self._staged:
            if 2 * len(self._held) > len(self._array):
                size = len(self._array)
                while size < 4 * len(self._held):
                    size *= 2
                self._array = aligned(size, p.resolution_dtype)
                self._staged = [(scope, name, found, 1) for (scope, name), found in self._held.items()]
            _put(self._array, np.array(self._staged, p.resolution_dtype))
            self._staged.clear()
        return self._array


@kernel
def _put(resolution: Any, rows: Any) -> None:
    mask = U(len(resolution) - 1)
    for at in range(len(rows)):
        row = rows[at]
        place = fold(fold(START, U(row["scope"])), U(row["name"])) & mask
        while resolution[place]["used"] != 0 and not (
            resolution[place]["scope"] == row["scope"] and resolution[place]["name"] == row["name"]
        ):
            place = (place + U(1)) & mask
        resolution[place] = row


class Pages:
    """What names mean in scopes that are asked name by name, a page of names at a time."""

    def __init__(self) -> None:
        self._directory: npt.NDArray[np.uint32] = np.zeros((4, 16), np.uint32)
        self._pages: npt.NDArray[np.uint32] = np.zeros((16, p.PAGE), np.uint32)  # page 0 stays empty
        self._used = 1
        self._numbers: dict[Hashable, int] = {}
        self._kept: list[Any] = []

    def scope(self, key: Hashable, keep: Any) -> int:
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._kept)
            self._kept.append(keep)
            if found == len(self._directory):
                self._directory = np.concatenate((self._directory, np.zeros_like(self._directory)))
        return found

    def scopes(self) -> list[tuple[int, Hashable, Any]]:
        """Number, key and mapping of every scope."""
        return [(number, key, self._kept[number]) for key, number in self._numbers.items()]

    def mapping(self, scope: int) -> Any:
        return self._kept[scope]

    def renew(self, scope: int, old: Hashable, key: Hashable, keep: Any) -> None:
        """The scope goes by another key and mapping now; what names mean in it stays."""
        del self._numbers[old]
        self._numbers[key] = scope
        self._kept[scope] = keep

    def branch(self, scope: int, key: Hashable, keep: Any, names: Collection[int]) -> int:
        """The scope called ``key``; if it is new, all names but these mean in it what they mean in ``scope``. The pages of
        both are the same then: what is found out about a name in one holds in the other."""
        number = self._numbers.get(key)
        if number is not None:
            return number
        number = self.scope(key, keep)
        self._directory[number] = self._directory[scope]
        for page in {name // p.PAGE for name in names if name < p.PAGE * self._directory.shape[1]}:
            if self._directory[number, page]:
                self._directory[number, page] = self._page(self._pages[self._directory[number, page]].copy())
        for name in names:
            if self.get(number, name):
                self.set(number, name, 0)
        return number

    def drop(self, key: Hashable) -> None:
        """No table refers to this scope any more."""
        self._kept[self._numbers.pop(key)] = None

    def get(self, scope: int, name: int) -> int:
        """What a name means; 0 if nobody has said so."""
        page, at = divmod(name, p.PAGE)
        return int(self._pages[self._directory[scope, page], at]) if page < self._directory.shape[1] else 0

    def _page(self, held: Any) -> int:
        if self._used == len(self._pages):
            self._pages = np.concatenate((self._pages, np.zeros_like(self._pages)))
        self._pages[self._used] = held
        self._used += 1
        return self._used - 1

    def set(self, scope: int, name: int, found: int) -> None:
        page, at = divmod(name, p.PAGE)
        while page >= self._directory.shape[1]:
            self._directory = np.concatenate((self._directory, np.zeros_like(self._directory)), axis=1)
        number = self._directory[scope, page]
        if not number:
            number = self._directory[scope, page] = self._page(0)
        self._pages[number, at] = found

    def set_all(self, scope: int, names: Sequence[int], found: Sequence[int]) -> None:
        """The same for many names."""
        numbers = np.array(names, np.int64)
        pages, at = numbers // p.PAGE, numbers % p.PAGE
        for page in np.unique(pages).tolist():
            if page >= self._directory.shape[1] or not self._directory[scope, page]:
                self.set(scope, page * p.PAGE, 0)
        self._pages[self._directory[scope, pages], at] = found

    @property
    def arrays(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        return self._directory, self._pages


class NameBits:
    """Which device names begin with which prefixes, names that are interned later included."""

    def __init__(self, names: Names, prefixes: Mapping[str, int]) -> None:
        self._names, self._prefixes = names, prefixes
        self._array: npt.NDArray[np.uint32] = np.zeros((1, 8), np.uint32)
        self._rows = self._columns = 0

    @property
    def array(self) -> npt.NDArray[np.uint32]:
        """``(prefixes, words)``; all names known by now have their bit."""
        rows, columns = len(self._prefixes), len(self._names)
        if not rows or (rows, columns) == (self._rows, self._columns):
            return self._array
        height, width = self._array.shape
        if rows > height or columns > 32 * width:
            grown = np.zeros((max(rows, height), max(2 * width, -(-columns // 32))), np.uint32)
            grown[:height, :width] = self._array
            self._array = grown
        for prefix, row in self._prefixes.items():
            for number in range(self._columns if row < self._rows else 0, columns):
                if self._names.name(number).startswith(prefix):
                    self._array[row, number >> 5] |= np.uint32(1 << (number & 31))
        self._rows, self._columns = rows, columns
        return self._array
