"""Packets and bytes by rule: (namespace, table, rule) → what has matched it, as a hash table.

A first packet matches some twenty rules, each with a counter of its own namespace: twenty records that are in no cache. So
a record is one half of a line, and it is asked for when the rule matches, long before the journey is over and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.hashmap import home, place
from netsim.compiled.jit import Int, kernel
from netsim.compiled.memory import aligned
from netsim.compiled.prefetch import prefetch

U = np.uint64

# Of rules that packets on a trail match together, all are counted by one record. In place of a table: the rule's number is
# that of a group of rules. Or added to the table: the record says which two others have matched with this one each time.
# So a record of one rule alone has a table below ``GROUPED``.
GROUPED, TOGETHER = 15, 16

COUNTER = np.dtype([("key", "u8"), ("packets", "u8"), ("bytes", "u8"), ("also", "u4", 2)])  # ``also``: rule + 1, or 0


class Counters(NamedTuple):
    """``rows``: open addressing, a power of two in size, at most half full; key 0 marks a free one. The key is namespace
    and table (``Scratch.hit_ns``) << 32 | rule. ``used``: [records in use]."""

    rows: Any
    used: npt.NDArray[np.int64]


def counters(room: int = 4096) -> Counters:
    return Counters(aligned(room, COUNTER), np.zeros(1, np.int64))


def copied(table: Counters) -> Counters:
    new = Counters(aligned(len(table.rows), COUNTER), table.used.copy())
    new.rows[:] = table.rows
    return new


def larger(table: Counters) -> Counters:
    """The same in twice the room."""
    new = counters(2 * len(table.rows))
    _move(table.rows, new.rows)
    new.used[:] = table.used
    return new


Groups = Sequence[Sequence[tuple[int, int]]]


def counted(table: Counters, groups: Groups) -> Iterator[tuple[int, int, int, int, int]]:
    """Namespace, table, rule, packets and bytes: of every rule, and for all counters that count it."""
    for row in table.rows[table.rows["key"] != 0].tolist():
        for one, number in _rules(row, groups):
            yield row[0] >> 32 & 0xFFFFFF, one, number, row[1], row[2]


def _rules(row: Any, groups: Groups) -> Iterable[tuple[int, int]]:
    """Table and number of each rule that a record counts."""
    key, _, _, also = row
    held, rule = key >> 56, key & 0xFFFFFFFF
    if held == GROUPED:
        return groups[rule]
    return [(held & ~TOGETHER, number) for number in (rule, *[int(one) - 1 for one in also if one])]


def ungroup(table: Counters, namespace: int, groups: Groups) -> Counters:
    """The same table, or a larger one, in which each rule of a namespace has a counter of its own."""
    rows = table.rows
    mine = np.flatnonzero(((rows["key"] >> U(32)) & U(0xFFFFFF) == namespace) & ((rows["key"] >> U(56)) >= GROUPED))
    held = rows[mine].tolist()
    for name in ("packets", "bytes"):
        rows[name][mine] = 0
    for row in held:
        for one, rule in _rules(row, groups):
            if 2 * (int(table.used[0]) + 1) > len(table.rows):
                table = larger(table)
            table.used[0] += count(table.rows, namespace | one << 24, rule, row[1], row[2])
    return table


def clear(table: Counters, namespace: int, rules: Iterable[range]) -> None:
    """Rules of these numbers have not matched in a namespace (in which each has its own: ``ungroup``)."""
    rows = table.rows
    mine = np.flatnonzero((rows["key"] >> U(32)) & U(0xFFFFFF) == namespace)
    numbers = (rows["key"][mine] & U(0xFFFFFFFF)).astype(np.int64)
    for some in rules:
        for name in ("packets", "bytes"):
            rows[name][mine[(numbers >= some.start) & (numbers < some.stop)]] = 0


@kernel
def expect(rows: Any, where: Int, rule: Int) -> None:
    """The counter of this rule will be added to soon."""
    prefetch(rows, home(rows, U(where) << U(32) | U(rule)))


@kernel
def count(rows: Any, where: Int, rule: Int, packets: Int, volume: Int) -> Int:
    """Add to a rule's counters: 1 if it had none. The caller sees to the room, and keeps ``used``."""
    key = U(where) << U(32) | U(rule)
    at = place(rows, key)
    fresh = 1 if rows[at]["key"] == U(0) else 0
    rows[at]["key"] = key
    rows[at]["packets"] += U(packets)
    rows[at]["bytes"] += U(volume)
    return fresh


@kernel
def _move(rows: Any, into: Any) -> None:
    for at in range(rows.shape[0]):
        if rows[at]["key"] != U(0):
            into[place(into, rows[at]["key"])] = rows[at]
