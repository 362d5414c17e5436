"""The interpreter's memory, joined with that of the compiled tables: an entry is in one of them, never in both.

Where the interpreter looks for a connection, flows with such an entry are thawed first; whatever it adds is noted, so that
the kernels leave its packets alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from netsim.compiled.told_table import Told
from netsim.interpreter.state import NamespaceState, State
from netsim.linux.conntrack import Entry, Table, Tuple

if TYPE_CHECKING:
    from netsim.datapath.engine import Datapath


class JoinedTable(Table):
    """The connections of namespace number ``ns``: those of the interpreter, and behind them the flows."""

    __slots__ = ("_datapath", "_ns")

    def __init__(self, datapath: Datapath, ns: int) -> None:
        super().__init__()
        self._datapath = datapath
        self._ns = ns

    def find(self, tuple_: Tuple, now: float, zone: int = 0) -> tuple[Entry, bool] | None:
        if zone == 0:
            self._datapath.exchange.thaw(self._ns, tuple_, now)
        return super().find(tuple_, now, zone)

    def same_source(self, original: Tuple, now: float) -> list[Entry]:
        self._datapath.exchange.thaw_source(self._ns, original)
        return super().same_source(original, now)

    def entries(self) -> Iterator[Entry]:
        """Those that the interpreter holds; ``Datapath.connections`` has all."""
        return super().entries()

    def take(self, entry: Entry) -> None:
        """A thawed entry; one that has expired is gone, lest it hide a living one with a tuple of its own."""
        if entry.expires <= self._datapath.state.now:
            return
        self._insert(entry)

    def find_held(self, tuple_: Tuple) -> Entry | None:
        """The interpreter's own entry, whether or not it lives."""
        return self._by_tuple.get((0, tuple_))

    def freeze(self, entry: Entry) -> None:
        """The entry is a record of the compiled tables again."""
        self.remove(entry)
        self._datapath.store.forget(entry)

    def copy_for(self, datapath: Datapath) -> JoinedTable:
        """The same entries, joined with another datapath's flows (which has noted them already)."""
        new = JoinedTable(datapath, self._ns)
        for entry in self.entries():
            Table._insert(new, entry.copy())
        return new

    def _insert(self, entry: Entry) -> None:
        super()._insert(entry)
        self._datapath.store.note(entry)
        self._datapath.exchange.arrived.append((self, entry))

    @property
    def number(self) -> int:
        """Of the namespace."""
        return self._ns


class JoinedState(State):
    """``State`` whose tables are joined."""

    def __init__(self, datapath: Datapath) -> None:
        super().__init__()
        self._datapath = datapath

    def copy_for(self, datapath: Datapath) -> JoinedState:
        new = JoinedState(datapath)
        new.now = self.now
        for name, held in self.namespaces.items():
            copied = held.copy()
            assert isinstance(held.conntrack, JoinedTable)
            copied.conntrack = held.conntrack.copy_for(datapath)
            copied.told = Told(datapath.told, held.conntrack.number, datapath.addresses)
            new.namespaces[name] = copied
        return new

    def of(self, namespace: str) -> NamespaceState:
        found = self.namespaces.get(namespace)
        if found is None:
            number = self._datapath.world.number(namespace)
            table, told = (
                JoinedTable(self._datapath, number),
                Told(self._datapath.told, number, self._datapath.addresses),
            )
            found = self.namespaces[namespace] = NamespaceState(conntrack=table, told=told)
        return found
