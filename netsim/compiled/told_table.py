"""How often each sender may still be told that no route takes its packets (``ip_error``), as a hash table.

(namespace, sender) → an allowance, and when it was last looked at, both in milliseconds of the engine's clock. The
interpreter reads and writes the same table (``Told`` is its ``NamespaceState.told``): a sender who may be told is its
business, since an ICMP error must be made; who was told too often is only counted, and that a kernel does. IPv4 alone has
such an allowance.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from netsim.compiled.addresses import Addresses
from netsim.compiled.hashmap import place
from netsim.compiled.jit import Int, kernel
from netsim.packet.address import IPAddress

U = np.uint64
_MS = 1000

TOLD = np.dtype([("key", "u8"), ("allowance", "i8"), ("when", "i8"), ("spare", "u8")])


@kernel
def told_place(rows: Any, namespace: Int, sender: Int) -> Int:
    """The row of this sender, or the free one (key 0) where it belongs."""
    return place(rows, U(namespace) << U(32) | U(sender))


class ToldTable:
    """Owns the rows, and replaces them when they are half full."""

    def __init__(self, room: int = 256) -> None:
        self.rows: Any = np.zeros(room, TOLD)
        self.used = 0

    def copy(self) -> ToldTable:
        new = ToldTable(0)
        new.rows, new.used = self.rows.copy(), self.used
        return new

    def get(self, namespace: int, sender: int) -> tuple[int, int] | None:
        row = self.rows[int(told_place(self.rows, namespace, sender))]
        return (int(row["allowance"]), int(row["when"])) if row["key"] else None

    def set(self, namespace: int, sender: int, allowance: int, when: int) -> None:
        if 2 * (self.used + 1) > len(self.rows):
            held, self.rows = self.rows[self.rows["key"] != 0], np.zeros(2 * len(self.rows), TOLD)
            for row in held:
                self.rows[int(told_place(self.rows, row["key"] >> U(32), row["key"] & U(0xFFFFFFFF)))] = row
        row = self.rows[int(told_place(self.rows, namespace, sender))]
        self.used += int(row["key"] == 0)
        row["key"], row["allowance"], row["when"] = namespace << 32 | sender, allowance, when


class Told(MutableMapping[IPAddress, tuple[float, float]]):
    """One namespace's part of the table, in the interpreter's terms: seconds."""

    def __init__(self, table: ToldTable, namespace: int, addresses: Addresses) -> None:
        self._table = table
        self._namespace = namespace
        self._addresses = addresses

    def __getitem__(self, sender: IPAddress) -> tuple[float, float]:
        found = self._table.get(self._namespace, self._addresses.handle(sender))
        if found is None:
            raise KeyError(sender)
        return found[0] / _MS, found[1] / _MS

    def __setitem__(self, sender: IPAddress, value: tuple[float, float]) -> None:
        allowance, when = value
        self._table.set(self._namespace, self._addresses.handle(sender), round(allowance * _MS), round(when * _MS))

    def __delitem__(self, sender: IPAddress) -> None:
        raise TypeError("what a sender was told is not taken back")

    def __iter__(self) -> Iterator[IPAddress]:
        for key in self._table.rows["key"].tolist():
            if key and key >> 32 == self._namespace:
                yield self._addresses.address(key & 0xFFFFFFFF, 4)

    def __len__(self) -> int:
        return sum(1 for _ in self)
