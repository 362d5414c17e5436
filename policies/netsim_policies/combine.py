"""Both sides of every cell: the numba kernel that intersects egress rows with ingress rows.

Egress rows are laid out by source, ingress rows by destination, so the second one is read down a column. Rows are filled
into dense uint32 planes first; the kernel then walks square tiles of 64 x 64 cells (16 KB a plane, three planes in the L1/L2
caches) and so touches every line once. Port sets are intersected once per distinct pair of numbers: most cells have
"none" or "all" on one side and need no look-up at all; the rest goes through a small open-addressing table.

    plane E[s, d]   plane I[d, s]   ─▶ pair (e, i) ─▶ 0 if either is none; the other if one is all; table otherwise
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from netsim_policies.model import Direction

if TYPE_CHECKING:
    from netsim_policies.matrix import Matrix, Row

_TILE = 64
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
Plane = npt.NDArray[np.uint32]


@numba.njit(cache=True, nogil=True)
def _combine(egress: Any, ingress: Any, out: Any, keys: Any, values: Any, missing: Any) -> int:
    """One pass: cells whose pair is not in the table yet are left for the next, their pairs listed in ``missing``.

    ``keys``/``values``: the table, a power of two long, key = e << 32 | i. Returns how many pairs are missing."""
    size = egress.shape[0]
    mask = np.uint64(len(keys) - 1)
    count = 0
    for s0 in range(0, size, 64):
        for d0 in range(0, size, 64):
            for s in range(s0, min(s0 + 64, size)):
                for d in range(d0, min(d0 + 64, size)):
                    e = egress[s, d]
                    i = ingress[d, s]
                    if e == 0 or i == 0:
                        out[s, d] = 0
                    elif e == 1:
                        out[s, d] = i
                    elif i == 1 or e == i:
                        out[s, d] = e
                    else:
                        key = (np.uint64(e) << np.uint64(32)) | np.uint64(i)
                        slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20) & mask
                        while keys[slot] != key and keys[slot] != np.uint64(0xFFFFFFFFFFFFFFFF):
                            slot = (slot + np.uint64(1)) & mask
                        if keys[slot] == key:
                            out[s, d] = values[slot]
                        elif count < len(missing):
                            keys[slot] = key
                            values[slot] = 0
                            missing[count] = key
                            count += 1
                        else:
                            return -1
    return count


def combine(matrix: Matrix) -> Plane:
    """See ``Matrix.cells``."""
    size = len(matrix.classes)
    egress = _plane(matrix, Direction.EGRESS, size)
    ingress = _plane(matrix, Direction.INGRESS, size)
    out = np.zeros((size, size), np.uint32)
    capacity = 1 << 16
    while True:
        keys = np.full(capacity, _EMPTY, np.uint64)
        values = np.zeros(capacity, np.uint32)
        missing = np.empty(capacity // 2, np.uint64)
        count = _combine(egress, ingress, out, keys, values, missing)
        if count >= 0:
            break
        capacity *= 4
    if count:
        answers = {int(key): _intersect(matrix, int(key)) for key in missing[:count]}
        for slot in np.flatnonzero(keys != _EMPTY).tolist():
            values[slot] = answers[int(keys[slot])]
        _combine(egress, ingress, out, keys, values, missing)
    return out


def _intersect(matrix: Matrix, key: int) -> int:
    return matrix.intern(matrix.port_sets[key >> 32] & matrix.port_sets[key & 0xFFFFFFFF])


def _plane(matrix: Matrix, direction: Direction, size: int) -> Plane:
    plane = np.empty((size, size), np.uint32)
    for number in range(size):
        row: Row = matrix.row(number, direction)
        plane[number] = row.default
        plane[number, row.touched] = row.values
    return plane
