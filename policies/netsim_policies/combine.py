"""Both sides of every cell: rows of senders and rows of receivers spelled out and intersected (kernel ``fold``).

Nothing exists twice: for a sender, its egress row is a line over receivers, its column of all ingress rows a short line
over those rows, and a cell takes one number from each. Few columns of the matrix are filled the same way with the sides
exchanged, as lines over senders. Port sets are intersected once per distinct pair of numbers, since
most cells have "none" (0) or "all" (1) on one side; a pair seen for the first time is left to Python, and the lines that
met it are filled again.

    line[d] = e     other[row of d] = i     ─▶  none if either is none; the other if one is all; else pairs[e, i]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from netsim_policies.classes import halves
from netsim_policies.kernels import EMPTY, UNKNOWN, ask, by_label, fold
from netsim_policies.labels import Ids
from netsim_policies.model import Direction
from netsim_policies.rows import FOREVER, Flat, Row

if TYPE_CHECKING:
    from netsim_policies.matrix import Cells, Matrix, Touched

MOST_BYTES = 3_000_000_000
_PART = 4  # where more than a fourth of the lines or columns is to be filled, all are: columns are slow to write
_CELLS = 1 << 26  # filled in one call
_NARROW = 1 << 16  # fewer port sets than that are numbered in two bytes
_PAIRS = 1 << 16  # places in the table of pairs at first
_FEW = 64  # rows of the past that are not worth a thought
_EAGER = 64  # cells of a row's table that are worked out without asking whether any peer is there


def cells(matrix: Matrix, sources: Ids | None, destinations: Ids | None) -> Cells:
    """See ``Matrix.cells``. Few columns are filled as lines of the receivers; the whole has room to grow."""
    everyone = np.arange(len(matrix.classes), dtype=np.int32)
    senders = everyone if sources is None else sources
    receivers = everyone if destinations is None else destinations
    shape = (len(senders), len(receivers))
    if shape[1] < shape[0]:
        return _filled(_Fill(matrix, receivers, senders, Direction.INGRESS), receivers, shape[::-1], 0).T
    spare = _spare(len(everyone)) if shape[0] == len(everyone) else 0
    return _filled(_Fill(matrix, senders, receivers, Direction.EGRESS), senders, shape, spare)


def _spare(size: int) -> int:
    """Lines and columns left free, so that a few new classes need no copy of the whole."""
    return 64 + size // 32


def _filled(fill: _Fill, subjects: Ids, shape: tuple[int, int], spare: int) -> Cells:
    needed = (shape[0] + spare) * (shape[1] + spare) * fill.dtype().itemsize
    if needed > MOST_BYTES:
        raise MemoryError(f"{shape[0]} x {shape[1]} classes need {needed / 1e9:.1f} GB; take the matrix in blocks")
    result = np.empty((shape[0] + spare, shape[1] + spare), fill.dtype())
    step = max(1, _CELLS // max(1, shape[1]))
    for first in range(0, len(subjects), step):
        part = fill.lines(subjects[first : first + step], result[first : min(first + step, shape[0])])
        if part.dtype != result.dtype:
            result = result.astype(part.dtype)
            result[first : first + len(part)] = part
    return result[: shape[0], : shape[1]]


def blocks(matrix: Matrix, size: int) -> Iterator[tuple[int, Cells]]:
    """See ``Matrix.blocks``."""
    everyone = np.arange(len(matrix.classes), dtype=np.int32)
    fill = _Fill(matrix, everyone, everyone, Direction.EGRESS)
    most = max(1, size // max(1, 4 * len(everyone)))
    for first in range(0, len(everyone), most):
        chosen = everyone[first : first + most]
        yield first, fill.lines(chosen, np.empty((len(chosen), len(everyone)), fill.dtype()))


def refresh(matrix: Matrix, old: Cells, touched: Touched) -> Cells:
    """See ``Matrix.refresh``."""
    size = len(matrix.classes)
    new = np.arange(len(old), size, dtype=np.int32)
    sources, destinations = np.union1d(touched.sources, new), np.union1d(touched.destinations, new)
    if _PART * max(len(sources), len(destinations)) > size:
        return matrix.cells()
    lines = matrix.cells(sources=sources) if len(sources) else None
    columns = matrix.cells(destinations=destinations) if len(destinations) else None
    result = _grown(old, size, np.result_type(*[part for part in (old, lines, columns) if part is not None]))
    if lines is not None:
        result[sources] = lines
    if columns is not None:
        result[:, destinations] = columns
    return result


def _grown(old: Cells, size: int, dtype: Any) -> Cells:
    """``old`` with ``size`` lines and columns: in place, if it was made with room for them."""
    room = old.base
    if size == len(old) and dtype == old.dtype:
        return old
    if room is None or room.shape < (size, size) or room.dtype != dtype or room.strides != old.strides:
        spare = _spare(size)
        room = np.empty((size + spare, size + spare), dtype)
        room[: len(old), : len(old)] = old
    return room[:size, :size]


class _Fill:
    """Rows of ``subjects`` in ``direction`` and of their ``peers`` in the other as the kernel wants them, and the pairs of
    port sets known so far."""

    def __init__(self, matrix: Matrix, subjects: Ids, peers: Ids, direction: Direction) -> None:
        self.matrix = matrix
        self.everyone = matrix.classes.table()
        self.peers = tuple(np.ascontiguousarray(part[peers]) for part in self.everyone)
        label = self.everyone[0]
        of, self.rows = self._rows(np.unique(label[subjects]), direction)
        self.row_of = of[label]
        of, self.others = self._rows(np.unique(self.peers[0]), direction.other)
        self.other_of = of[self.peers[0]]
        self.lists = by_label(self.others, len(matrix.labels))
        self.used = 0
        self._allocate(_PAIRS)

    def dtype(self) -> Any:
        return np.dtype(np.uint16 if len(self.matrix.port_sets) < _NARROW else np.uint32)

    def _rows(self, labels: Ids, direction: Direction) -> tuple[Ids, Any]:
        """(row number by label class, the rows end to end), with every value that some class can ask for."""
        matrix = self.matrix
        flat = Flat()  # of a few rows: the kernel looks at all that are in it
        if 2 * len(labels) > len(matrix.labels):
            flat = matrix.flat[direction]
            if len(flat.rows) > 2 * len(matrix.made[direction]) + _FEW:  # most of them are of the past
                flat = matrix.flat[direction] = Flat()
        flat.grow(len(matrix.labels))
        missing = labels[flat.of[labels] < 0]
        rows = matrix.rows(missing.tolist(), direction)
        for row in rows.values():
            self._complete(row)
        flat.of[missing] = flat.numbers(rows.values())
        if stale := flat.stale(matrix.classes.version):
            for row in stale:
                self._complete(row)
            flat.read_again()
        return flat.of, flat.arrays

    def _complete(self, row: Row) -> None:
        if row.completed >= self.matrix.classes.version:
            return
        missing = row.table == UNKNOWN
        if row.table.size > _EAGER:  # only what some class asks for
            asked = np.zeros(row.table.shape, np.bool_)
            cuts, zones = halves(row.cuts), np.array(row.zones, np.int32)
            ask(row.touched, row.combos, *cuts, zones, self.everyone, len(self.matrix.labels), asked)
            missing &= asked
        for combo, zone, group in np.argwhere(missing).tolist():
            self.matrix.values.value(row, combo, zone, group)
        row.completed = FOREVER if (row.table != UNKNOWN).all() else self.matrix.classes.version

    def lines(self, subjects: Ids, result: Cells) -> Cells:
        """Fill ``result`` for ``subjects``; a wider copy if their port sets no longer fit."""
        order = np.argsort(self.row_of[subjects], kind="stable")
        dirty = np.ones(len(subjects), np.bool_)
        while dirty.any():
            todo = order[dirty[order]]
            start = 0
            while start < len(todo):
                start, self.used = fold(
                    result, subjects, todo, self.row_of, self.rows, self.peers, self.other_of, self.others, self.lists,
                    self.everyone, self.keys, self.values, self.used, dirty, start,
                )  # fmt: skip
                self._resolve()
                if self.dtype() != result.dtype:
                    return self.lines(subjects, np.empty(result.shape, self.dtype()))
        return result

    # -- pairs of port sets --------------------------------------------------------------------------------------------
    def _allocate(self, capacity: int) -> None:
        self.keys = np.full(capacity, EMPTY, np.uint64)
        self.values = np.full(capacity, UNKNOWN, np.uint32)

    def _resolve(self) -> None:
        """Intersect every pair without an answer; a table that is a quarter full grows."""
        port_sets = self.matrix.port_sets
        for slot in np.flatnonzero((self.keys != EMPTY) & (self.values == UNKNOWN)).tolist():
            key = int(self.keys[slot])
            self.values[slot] = self.matrix.values.intern(port_sets[key >> 32] & port_sets[key & 0xFFFFFFFF])
        if 4 * self.used > len(self.keys):
            full = self.keys != EMPTY
            known = list(zip(self.keys[full].tolist(), self.values[full].tolist(), strict=True))
            self._allocate(4 * len(self.keys))
            self.used = len(known)
            mask = len(self.keys) - 1
            for key, value in known:
                slot = ((key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 20) & mask
                while self.keys[slot] != EMPTY:
                    slot = (slot + 1) & mask
                self.keys[slot], self.values[slot] = key, value
