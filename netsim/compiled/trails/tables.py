"""What kernels are given while they are recorded: tables whose reads become operations, scratch that is only here.

A table is an array that a member of ``Engine``, ``Columns`` or ``Results`` holds; its *path* (``e.w.device``) is how the
machine code finds it. Flows, counters and results are written; nothing of that happens while a packet is recorded: what was
stored is remembered, for whoever loads it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled.tcp_kernel import TCP_TRACK
from netsim.compiled.trails.symbols import Abort, I, Op, Recording, Symbol, U, W, number_of

CHANGING = ("e.s.", "e.c.", "e.told", "e.recent", "o.")  # tables that the commit of a packet writes to


class Nothing:
    """The place of an item of zeros: what a search ended at that found nothing."""


def _kind_of_field(dtype: np.dtype[Any]) -> tuple[str, int]:
    if dtype.kind == "i":
        return I, 64
    if dtype.kind in "ub":
        return (U if dtype.itemsize == 8 else W), 8 * dtype.itemsize
    raise Abort(f"a field of type {dtype}")


def as_field(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number as a field of this type gives it back."""
    kind, bits = _kind_of_field(dtype)
    if isinstance(value, Symbol):
        return value.cut(bits).cast(kind)
    return np.array(int(value) & ((1 << bits) - 1), f"u{dtype.itemsize}").view(dtype)[()]


def length_of(table: Table, axis: int = 0) -> Symbol:
    """How many items an array has along an axis, as the machine code will find it: tables grow."""
    op = Op("length", (), (table.path, axis))
    return table.recording.symbol(op, table.array.shape[axis], I, 40)


def field_at(table: Table, name: str) -> tuple[int, int]:
    """Where a field lies in a table's record, and its bytes."""
    fields = table.array.dtype.fields
    assert fields is not None
    return fields[name][1], fields[name][0].itemsize


class Table:
    """An array, of records or of numbers, by symbols or numbers. Two-dimensional ones are numbers by rows."""

    def __init__(self, recording: Recording, path: str, array: npt.NDArray[Any]) -> None:
        self.recording, self.path, self.array = recording, path, array
        self.changing = path.startswith(CHANGING)
        self.stride = array.dtype.itemsize
        self.shape = tuple(length_of(self, axis) for axis in range(array.ndim)) if self.changing else array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Nothing):
            return self.array.dtype.type(0)
        row = self._row(index)
        if self.array.dtype.names:
            return Row(self, row, 0, self.array.dtype)
        return self.load(row, 0, self.array.dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.array.dtype.names:
            if not isinstance(value, Record):
                raise Abort("a record is copied into a table")
            value.write_to(self, self._row(index), 0)
            return
        self.store(self._row(index), 0, self.array.dtype, value)

    def _row(self, index: Any) -> Any:
        if isinstance(index, tuple):
            first, second = index
            grows = self.path in ("e.p.directory", "e.p.name_bits")  # in width
            index = first * (length_of(self, 1) if grows else self.array.shape[1]) + second
        return index if isinstance(index, Symbol) else int(index)

    def load(self, row: Any, offset: int, dtype: np.dtype[Any]) -> Any:
        kind, bits = _kind_of_field(dtype)
        recording = self.recording
        if self.changing:
            held = recording.stored((self.path, offset), recording.arg(row))
            if held is not None:
                return held
        at = number_of(row)
        if not 0 <= at < self.array.size:
            raise Abort(f"row {at} of {self.path}")
        raw = self.array.reshape(-1)[at : at + 1].view(np.uint8)[offset : offset + dtype.itemsize].view(dtype)[0]
        if not isinstance(row, Symbol) and not self.changing:
            return raw
        op = Op("load", (recording.arg(row),), (self.path, self.stride, offset, dtype.itemsize, dtype.kind == "i"))
        return recording.symbol(op, int(raw), kind, bits, once=not (self.changing and recording.effects))

    def store(self, row: Any, offset: int, dtype: np.dtype[Any], value: Any) -> None:
        recording = self.recording
        recording.effect(
            Op("store", (recording.arg(row), recording.arg(value)), (self.path, self.stride, offset, dtype.itemsize))
        )
        recording.note_store((self.path, offset), recording.arg(row), as_field(value, dtype))


class Row:
    """A record of a table, or a record in one."""

    def __init__(self, table: Table, index: Any, offset: int, dtype: np.dtype[Any]) -> None:
        self.table, self.index, self.offset, self.dtype = table, index, offset, dtype

    def __getitem__(self, name: str) -> Any:
        dtype, offset = self._field(name)
        if dtype.subdtype is not None:
            return Several(self.table, self.index, offset, dtype.subdtype[0])
        if dtype.names:
            return Row(self.table, self.index, offset, dtype)
        return self.table.load(self.index, offset, dtype)

    def __setitem__(self, name: str, value: Any) -> None:
        dtype, offset = self._field(name)
        if dtype.names:
            value.write_to(self.table, self.index, offset)
        else:
            self.table.store(self.index, offset, dtype, value)

    def _field(self, name: str) -> tuple[np.dtype[Any], int]:
        assert self.dtype.fields is not None
        dtype, offset = self.dtype.fields[name][:2]
        return dtype, self.offset + offset


class Several:
    """A field of several numbers; which one is asked for is known."""

    def __init__(self, table: Table, index: Any, offset: int, dtype: np.dtype[Any]) -> None:
        self.table, self.index, self.offset, self.dtype = table, index, offset, dtype

    def __getitem__(self, at: Any) -> Any:
        return self.table.load(self.index, self.offset + int(at) * self.dtype.itemsize, self.dtype)

    def __setitem__(self, at: Any, value: Any) -> None:
        self.table.store(self.index, self.offset + int(at) * self.dtype.itemsize, self.dtype, value)


# -- scratch: it exists only while a packet is recorded --------------------------------------------------------------------
class Numbers:
    """An array of numbers of one type."""

    def __init__(self, count: int, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.held: list[Any] = [self.dtype.type(0)] * count

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, at: Any) -> Any:
        return self.held[int(at)]

    def __setitem__(self, at: Any, value: Any) -> None:
        self.held[int(at)] = as_field(value, self.dtype)


class Record:
    """A record of scratch."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.held: dict[str, Any] = {}
        assert dtype.fields is not None
        for name, (field, *_) in dtype.fields.items():
            if field.names:
                self.held[name] = Record(field)
            elif field.subdtype is not None:
                self.held[name] = Numbers(field.shape[0], field.subdtype[0].str)
            elif field.kind != "f":
                self.held[name] = field.type(0)

    def __getitem__(self, name: str) -> Any:
        return self.held[name]

    def __setitem__(self, name: str, value: Any) -> None:
        assert self.dtype.fields is not None
        self.held[name] = as_field(value, self.dtype.fields[name][0])

    def write_to(self, table: Table, index: Any, base: int) -> None:
        """Copied whole into a row of a table."""
        assert self.dtype.fields is not None
        for name, (field, offset, *_) in self.dtype.fields.items():
            value = self.held[name]
            if isinstance(value, Record):
                value.write_to(table, index, base + offset)
            elif isinstance(value, Numbers):
                for at in range(len(value)):
                    table.store(index, base + offset + at * value.dtype.itemsize, value.dtype, value[at])
            else:
                table.store(index, base + offset, field, value)


class Members:
    """A named tuple of the engine, its arrays as tables."""

    def __init__(self, recording: Recording, path: str, held: Any) -> None:
        self._recording, self._path, self._held = recording, path, held
        self._made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        made = self._made.get(name)
        if made is None:
            held, path = getattr(self._held, name), f"{self._path}.{name}"
            if isinstance(held, np.ndarray):
                made = Table(self._recording, path, held)
            elif isinstance(held, tuple):
                made = Members(self._recording, path, held)
            else:
                made = held
            self._made[name] = made
        return made


class _Rules:
    def __init__(self) -> None:
        self.hits = Numbers(jn.HIT_ROOM, "u4")
        self.draws = Numbers(256, "u4")
        self.stack = Numbers(512, "u4")
        self.planned: list[Any] = []


class Journey:
    """``journey.Scratch`` for a packet that is recorded."""

    def __init__(self, seed: Symbol) -> None:
        self.r, self.inner = Numbers(rg.SIZE, "u4"), Numbers(rg.SIZE, "u4")
        self.j, self.out = Numbers(jn.J_SIZE, "i8"), Numbers(8, "i8")
        self.stops = [Record(jn.STOP) for _ in range(jn.STOP_ROOM)]
        self.rules = _Rules()
        self.hit_ns = Numbers(jn.HIT_ROOM, "u4")
        self.arrivals = [Numbers(6, "u4") for _ in range(jn.ARRIVAL_ROOM)]
        self.tcp = [Record(TCP_TRACK), Record(TCP_TRACK)]
        self.segment, self.told = Numbers(6, "i8"), Numbers(2, "i8")
        self.seed = [seed]
