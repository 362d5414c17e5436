"""Rows of the matrix: what one side of a class allows, for every possible peer.

A peer matches a rule by its labels or by its address, and the two combine freely. So a row is not spelled out per peer; it
is three small tables:

    label class of the peer ──▶ which rules its labels match   (sparse: ``touched`` and ``combos``)
    address of the peer     ──▶ which rules hold it in a block (``cuts`` of the address space and their ``zones``)
    (combo, zone, group)    ──▶ number of a port set           (``table``)

The group is the destination's named ports, for the rows of senders whose rules name ports; others have one group alone.

Its size depends on the rules of the row alone: neither the number of pods nor that of all other blocks matters. Combo 0 and
zone 0 are "none of the rules". ``refine`` is the obvious way from rules to combos, ``refine_all`` the same for many rows as
a numba kernel; a property test holds them together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim_policies.algebra import Range, merge
from netsim_policies.classes import halves
from netsim_policies.labels import NOBODY, Ids
from netsim_policies.model import Rule
from netsim_policies.vocabulary import Names

FOREVER = 1 << 62
UNKNOWN = np.uint32(0xFFFFFFFF)  # a port set nobody asked for yet

_LAST = (1 << 128) - 1  # no address lies beyond
Members = tuple[int, ...]  # places of rules, ascending


@dataclass(frozen=True, slots=True)
class Ranked:
    """A rule with the rank of its policy's tier; ``effect`` is equal for rules that differ in their peers alone."""

    tier: int
    rule: Rule
    effect: int


@dataclass(slots=True)
class Row:
    """``table[combos[k], zone, group]`` for a peer of label class ``touched[k]``, ``table[0, zone, group]`` for every other.

    ``rules``: those that can match, in the order of the walk; ``label_sets[combo]`` and ``zone_sets[zone]`` say which of
    them do. ``names``: where the row's rules name ports, what the names mean: those of the subject (ingress), or those of
    each group of destinations (egress).
    """

    profile: frozenset[Any]  # keys of the policies it is made from
    rules: Sequence[Ranked]
    always: Sequence[int]  # places of rules that match every peer
    tiers: tuple[int, ...]  # ranks of these policies' tiers
    names: Sequence[Names]
    touched: Ids
    combos: Ids
    label_sets: list[Members]
    cuts: tuple[int, ...]
    zones: tuple[int, ...]  # of the piece before each cut, and of the last
    zone_sets: list[Members]
    table: npt.NDArray[np.uint32]
    completed: int = -1  # ``table`` has what the classes of this version ask for; FOREVER if it is full

    def combo(self, label: int) -> int:
        place = int(np.searchsorted(self.touched, label))
        if place < len(self.touched) and self.touched[place] == label:
            return int(self.combos[place])
        return 0

    def group(self, number: int) -> int:
        return number if len(self.names) > 1 else 0

    def zone(self, address: int | None) -> int:
        return 0 if address is None else self.zones[bisect_right(self.cuts, address)]


def refine(postings: Sequence[Ids]) -> tuple[Ids, Ids, list[Members]]:
    """Split label classes by the lists that hold them: (touched, combos, members of each combo)."""
    combo_of: dict[int, int] = {}
    members: list[Members] = [()]
    for place, ids in enumerate(postings):
        child: dict[int, int] = {}
        for number in ids.tolist():
            before = combo_of.get(number, 0)
            if before not in child:
                child[before] = len(members)
                members.append((*members[before], place))
            combo_of[number] = child[before]
    touched = sorted(combo_of)
    return np.array(touched, np.int32), np.array([combo_of[n] for n in touched], np.int32), members


def refine_all(rows: Sequence[Sequence[Ids]], size: int) -> list[tuple[Ids, Ids, list[Members]]]:
    """``refine`` for many rows over ``size`` label classes."""
    from netsim_policies.kernels import refine_rows

    starts: dict[int, tuple[int, int]] = {}
    parts: list[Ids] = []
    total = 0
    lists: list[tuple[int, int]] = []
    ends = np.empty(len(rows) + 1, np.int64)
    ends[0] = 0
    for number, postings in enumerate(rows):
        for ids in postings:
            place = starts.get(id(ids))  # rules that share a selector share its array
            if place is None:
                place = starts[id(ids)] = (total, total + len(ids))
                parts.append(ids)
                total += len(ids)
            lists.append(place)
        ends[number + 1] = len(lists)
    pool = np.concatenate(parts) if parts else NOBODY
    spans = np.array(lists, np.int64).reshape(-1, 2)
    touched, combos, ends_touched, parents, places, ends_combo = refine_rows(pool, spans, ends, size)
    key = np.repeat(np.arange(len(rows), dtype=np.int64), np.diff(ends_touched)) * max(size, 1) + touched
    order = np.argsort(key, kind="stable")
    touched, combos = touched[order], combos[order]
    found = []
    parent_list, place_list = parents.tolist(), places.tolist()
    bounds, combo_bounds = ends_touched.tolist(), ends_combo.tolist()
    for number in range(len(rows)):
        members: list[Members] = [()]
        for at in range(combo_bounds[number], combo_bounds[number + 1]):
            members.append((*members[parent_list[at]], place_list[at]))
        part = slice(bounds[number], bounds[number + 1])
        found.append((touched[part], combos[part], members))
    return found


def zones(blocks: Mapping[int, Iterable[Range]]) -> tuple[tuple[int, ...], tuple[int, ...], list[Members]]:
    """(cuts, zones, members of each zone) of the ranges of addresses that each rule holds, by its place."""
    if not blocks:
        return (), (0,), [()]
    changes: dict[int, set[int]] = {}
    for place, ranges in blocks.items():
        for low, high in merge(ranges):
            changes.setdefault(low, set()).add(place)
            if high < _LAST:
                changes.setdefault(high + 1, set()).add(place)
    cuts = sorted(changes)
    inside: set[int] = set()
    numbers: dict[Members, int] = {(): 0}
    found = [0]
    for cut in cuts:
        inside ^= changes[cut]
        found.append(numbers.setdefault(tuple(sorted(inside)), len(numbers)))
    return tuple(cuts), tuple(found), list(numbers)


class Flat:
    """Rows end to end, as the kernels read them: ``of[n]`` is the number of label class n's row, -1 if it has none.

    Rows are added and never taken away.
    ``arrays``: (touch_ends, touched, combos, cut_ends, cut_high, cut_low, zones, table_ends, widths, depths, table); row r
    has one zone more than cuts, and its table is (combos, widths[r], depths[r]).
    """

    def __init__(self) -> None:
        self.of: Ids = np.empty(0, np.int32)
        self.rows: list[Row] = []
        self._read: list[int] = []  # which version of each row is in ``arrays``
        self._numbers: dict[int, int] = {}
        self._clear()

    def _clear(self) -> None:
        empty = np.empty(0, np.int32)
        ends = np.zeros(1, np.int64)
        wide = np.empty(0, np.uint64)
        self.arrays: tuple[Any, ...] = (
            ends, empty, empty, ends, wide, wide, empty, ends, empty, empty, np.empty(0, np.uint32),
        )  # fmt: skip

    def grow(self, size: int) -> None:
        """There are ``size`` label classes."""
        self.of = np.append(self.of, np.full(size - len(self.of), -1, np.int32))

    def numbers(self, rows: Iterable[Row]) -> list[int]:
        """The number of each row; those that are new are added. Their tables must be complete."""
        asked = list(rows)
        new: list[Row] = []
        for row in asked:
            if id(row) not in self._numbers:
                self._numbers[id(row)] = len(self.rows)
                self.rows.append(row)
                new.append(row)
        if new:
            self._append(new)
        return [self._numbers[id(row)] for row in asked]

    def stale(self, version: int) -> list[Row]:
        """Rows read before they knew what the classes of this version ask for."""
        return [row for row, read in zip(self.rows, self._read, strict=True) if read < version]

    def read_again(self) -> None:
        """The tables of some rows have changed."""
        self._clear()
        self._read.clear()
        self._append(self.rows)

    def _append(self, rows: list[Row]) -> None:
        self._read += [row.completed for row in rows]
        more = (
            [len(row.touched) for row in rows],
            np.concatenate([row.touched for row in rows]),
            np.concatenate([row.combos for row in rows]),
            [len(row.cuts) for row in rows],
            *halves([cut for row in rows for cut in row.cuts]),
            np.array([zone for row in rows for zone in row.zones], np.int32),
            [row.table.size for row in rows],
            np.array([row.table.shape[1] for row in rows], np.int32),
            np.array([row.table.shape[2] for row in rows], np.int32),
            np.concatenate([row.table.ravel() for row in rows]),
        )
        self.arrays = tuple(
            np.concatenate([held, held[-1] + np.cumsum(np.array(part, np.int64)) if isinstance(part, list) else part])
            for held, part in zip(self.arrays, more, strict=True)
        )
