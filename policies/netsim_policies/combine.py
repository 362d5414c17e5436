"""Both sides of every cell: the numba kernel that intersects egress rows with ingress rows.

The result starts as the egress rows, one row a source class. Ingress rows belong to destinations, so they are laid down for
64 destinations at a time (64 rows of a few thousand two-byte numbers: about 1 MB, the second-level cache) and folded into
the result in place; each line of the result is fetched once, and nothing of the result's size exists twice.

Port sets are intersected once per distinct pair of numbers: most cells have "none" (0) or "all" (1) on one side and need no
look-up; the rest goes through a small open-addressing table. A pair seen for the first time is deferred: the kernel lists
it with its cell and goes on; Python intersects the listed pairs between two calls.

    result[s, d] = e   block[d - d0, s] = i   ─▶  none if either is none; the other if one is all; else table[e, i]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from netsim_policies.model import Direction

if TYPE_CHECKING:
    from netsim_policies.matrix import Matrix

_BLOCK = 64
_DEFERRED = 1 << 20
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_UNKNOWN = np.uint32(0xFFFFFFFF)


@numba.njit(cache=True, nogil=True)
def _fold(result: Any, block: Any, first: int, start: int, keys: Any, values: Any, used: int, deferred: Any) -> Any:
    """Fold ``block`` (ingress rows of destinations ``first``…) into ``result`` from source ``start`` on.

    Stops early when ``deferred`` ((source, destination) rows) or the table (``used`` slots, a power of two long) might
    overflow within the next row. Returns (next source, slots used, cells deferred)."""
    mask = np.uint64(len(keys) - 1)
    width = block.shape[0]
    count = 0
    for s in range(start, result.shape[0]):
        if count + width > len(deferred) or 2 * (used + width) > len(keys):
            return s, used, count
        for k in range(width):
            e = result[s, first + k]
            if e == 0:
                continue
            i = block[k, s]
            if i == 1 or e == i:
                continue
            if i == 0 or e == 1:
                result[s, first + k] = i
                continue
            key = (np.uint64(e) << np.uint64(32)) | np.uint64(i)
            slot = ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
            while keys[slot] != key and keys[slot] != np.uint64(0xFFFFFFFFFFFFFFFF):
                slot = (slot + np.uint64(1)) & mask
            if keys[slot] == key and values[slot] != np.uint32(0xFFFFFFFF):
                result[s, first + k] = values[slot]
            else:
                if keys[slot] != key:
                    keys[slot] = key
                    used += 1
                deferred[count, 0] = s
                deferred[count, 1] = first + k
                count += 1
    return result.shape[0], used, count


class _Pairs:
    """The intersections known so far, as the kernel's table."""

    def __init__(self, matrix: Matrix, capacity: int = 1 << 16) -> None:
        self.matrix = matrix
        self.known: dict[int, int] = {}
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.keys = np.full(capacity, _EMPTY, np.uint64)
        self.values = np.full(capacity, _UNKNOWN, np.uint32)
        self.used = 0

    def resolve(self) -> None:
        """Intersect every listed pair without an answer; grow when the table is half full."""
        for slot in np.flatnonzero((self.keys != _EMPTY) & (self.values == _UNKNOWN)).tolist():
            key = int(self.keys[slot])
            port_sets = self.matrix.port_sets
            self.known[key] = self.matrix.intern(port_sets[key >> 32] & port_sets[key & 0xFFFFFFFF])
            self.values[slot] = self.known[key]
        if 2 * (self.used + _BLOCK) > len(self.keys):
            self._allocate(4 * len(self.keys))
            mask = len(self.keys) - 1
            for key, value in self.known.items():
                slot = ((key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 20) & mask
                while self.keys[slot] != _EMPTY:
                    slot = (slot + 1) & mask
                self.keys[slot], self.values[slot] = key, value
            self.used = len(self.known)


def combine(matrix: Matrix) -> npt.NDArray[np.unsignedinteger[Any]]:
    """See ``Matrix.cells``."""
    size = len(matrix.classes)
    egress = [matrix.row(number, Direction.EGRESS) for number in range(size)]
    ingress = [matrix.row(number, Direction.INGRESS) for number in range(size)]
    for dtype, most in ((np.uint16, 1 << 16), (np.uint32, 1 << 32)):
        if len(matrix.port_sets) >= most:
            continue
        result = np.empty((size, size), dtype)
        for number, row in enumerate(egress):
            result[number] = row.default
            result[number, row.touched] = row.values
        pairs, deferred = _Pairs(matrix), np.empty((_DEFERRED, 2), np.int32)
        block = np.empty((min(_BLOCK, size), size), dtype)
        for first in range(0, size, _BLOCK):
            width = min(_BLOCK, size - first)
            for k, row in enumerate(ingress[first : first + width]):
                block[k] = row.default
                block[k, row.touched] = row.values
            start = 0
            while start < size:
                start, pairs.used, count = _fold(
                    result, block[:width], first, start, pairs.keys, pairs.values, pairs.used, deferred
                )
                known = pairs.known
                pairs.resolve()
                for s, d in deferred[:count].tolist():
                    result[s, d] = known[(int(result[s, d]) << 32) | int(block[d - first, s])]
        if len(matrix.port_sets) < most:
            return result
    raise MemoryError("more than 4 billion distinct port sets")
