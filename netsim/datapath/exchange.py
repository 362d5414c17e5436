"""Connections change hands between the compiled tables and the interpreter's: each is in one of them, never in both.

thaw      the interpreter comes across a record: it becomes ordinary entries of the namespaces' tables
freeze    entries that the interpreter has done with become a record again, if one can say the same
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from netsim.compiled.commit_kernels import forget_flow, free_outer
from netsim.compiled.flow_records import (
    DEVICE,
    N_ELSEWHERE,
    N_FLOWS,
    N_OUTERS,
    OUTER0,
    OUTER1,
    nat_at_of,
    number_at,
)
from netsim.compiled.flows import alive, find, find_any
from netsim.compiled.outer_flows import drop_outer, find_outer
from netsim.compiled.ref import reference
from netsim.compiled.world import IPIP
from netsim.datapath.joined import JoinedTable
from netsim.datapath.store import MS, state_of
from netsim.interpreter.outcome import Outcome
from netsim.linux.conntrack import Entry, Tuple, tuple_of
from netsim.packet.model import Proto

if TYPE_CHECKING:
    from netsim.datapath.engine import Datapath


class Exchange:
    """Between the ``store`` and the ``state`` of a datapath."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self.arrived: list[tuple[JoinedTable, Entry]] = []  # entries that have come into the interpreter's tables

    def thaw(self, ns: int, one: Tuple, now: float) -> None:
        """Write out the flow (or tunnel entry) that namespace ``ns`` knows ``one`` by, if there is one."""
        state = self._datapath.store.state
        src, dst, ports = self._datapath.store.words(one)
        v6 = int(one.src.version == 6)
        tick = round(now * MS)
        if not state.counts[N_FLOWS] and not state.counts[N_OUTERS]:
            return
        # What the interpreter holds itself is no matter here: only flows are asked for.
        noted = int(state.counts[N_ELSEWHERE])
        state.counts[N_ELSEWHERE] = 0
        flows = reference(state)
        found = int(find(flows, ns, one.proto, src, dst, ports, v6, tick))
        outer = int(find_outer(flows, ns, one.proto, src, dst, ports, v6, tick))
        state.counts[N_ELSEWHERE] = noted
        if found > 0:
            self._thaw_flow(found >> 1)
        if outer > 0:
            self._thaw_outer(outer >> 1)

    def thaw_source(self, ns: int, original: Tuple) -> None:
        """Write out every flow from this address and port that ``ns`` knows."""
        src = self._datapath.addresses.handle(original.src)
        hot = self._datapath.store.state.hot
        for stage in ("s0_", "s1_"):
            same = (hot[stage + "src"] == src) & (hot[stage + "ports"] >> 16 == original.sport)
            for flow in np.flatnonzero(same & (hot["proto"] == original.proto)).tolist():
                if ns in self._datapath.store.namespaces_of(flow):
                    self._thaw_flow(flow)

    def freeze(self, outcome: Outcome) -> None:
        """Give back to the tables what the interpreter took or made for this packet, as far as records can say it."""
        self._freeze_tunnels()
        if outcome.sent is not None and (one := tuple_of(outcome.sent)) is not None:
            self._freeze_flow(one, outcome)

    def _freeze_flow(self, one: Tuple, outcome: Outcome) -> None:
        """The packet's own connection, if all namespaces on its way that know it say the same of it."""
        held: list[tuple[JoinedTable, Entry]] = []
        now = self._datapath.state.now
        backwards = False
        for name in dict.fromkeys([hop.namespace for hop in outcome.hops]):
            table = self._datapath.state.of(name).conntrack
            assert isinstance(table, JoinedTable)
            entry = table.find_held(one)
            if entry is None:
                continue
            reply = entry.reply == one
            if entry.expires <= now or (held and reply != backwards) or entry.original == entry.reply:
                return
            if not self._settled(table.number, entry):
                return
            held.append((table, entry))
            backwards = reply
            one = (entry.original if reply else entry.reply).inverted()
        if not held:
            return
        if backwards:
            held.reverse()
        store, namespaces = self._datapath.store, self._datapath.world.tables.namespace
        devices = {entry.masquerade_device for _, entry in held if entry.masquerade_device}
        settings = {int(namespaces[table.number]["settings"]) for table, _ in held}
        if len(settings) != 1 or len(devices) > 1:
            return
        self._clear(held[0][1].original)
        device = self._datapath.names.number(devices.pop()) if devices else 0
        if store.put_flow([(table.number, entry) for table, entry in held], settings.pop(), device, round(now * MS)):
            for table, entry in held:
                table.freeze(entry)

    def _settled(self, number: int, entry: Entry) -> bool:
        """Is it asked for as a record's entries are?"""
        asked = self._asked(number, entry.copy())
        return (entry.snat_done, entry.dnat_done) == (asked.snat_done, asked.dnat_done)

    def _clear(self, one: Tuple) -> None:
        """Records of this tuple that have expired would be found before a new one."""
        words, v6 = self._datapath.store.words(one), int(one.src.version == 6)
        for _ in range(4):
            state = reference(self._datapath.store.state)
            found = int(find_any(state, one.proto, *words, v6))
            if not found or alive(state, found >> 1, round(self._datapath.state.now * MS)):
                return
            forget_flow(self._datapath.engine(), found >> 1)

    def _freeze_tunnels(self) -> None:
        """A tunnel's entry, if both ends hold the same: one is shared by all that passes between two nodes, who would be
        the interpreter's for good."""
        pairs: dict[Tuple, list[tuple[JoinedTable, Entry]]] = {}
        for table, entry in self.arrived:
            if self._of_tunnel(table.number, entry):
                pairs.setdefault(entry.original, []).append((table, entry))
        for one, held in pairs.items():
            if len(held) != 2:
                continue
            (near, entry), (far, other) = held
            settings = int(self._datapath.world.tables.namespace[near.number]["settings"])
            last = round(entry.expires * MS) - int(self._datapath.store.state.timeouts[settings][state_of(entry)])
            alike = replace(other, packets=entry.packets, snat_done=entry.snat_done, dnat_done=entry.dnat_done) == entry
            if near is far or not alike or last > round(self._datapath.state.now * MS) or last < 0:
                continue
            if any(table.find_held(one) is not mine for table, mine in held):
                continue  # it has gone since
            for table, mine in held:
                table.freeze(mine)
            self._datapath.store.put_outer(entry, last, settings, (near.number, far.number))
        self.arrived.clear()

    def _of_tunnel(self, number: int, entry: Entry) -> bool:
        """Is this nothing but a tunnel's conversation, as records of ``outer`` can say it?"""
        one = entry.original
        if entry.reply != one.inverted() or not entry.confirmed or entry.expected or entry.dying:
            return False
        if (
            entry.mark
            or entry.zone
            or entry.status_snat
            or entry.status_dnat
            or entry.port_drawn
            or entry.masquerade_device
        ):
            return False
        here = self._datapath.world.tables.namespace[number]
        rows = self._datapath.world.tables.tunnel[
            int(here["tunnels"]) : int(here["tunnels"]) + int(here["tunnel_count"])
        ]
        if one.proto == Proto.IPIP:
            return bool((rows["kind"] == IPIP).any())
        return one.proto == Proto.UDP and bool((rows["port"] == one.dport).any())

    def _take(self, entries: Iterable[tuple[int, Entry]]) -> None:
        for ns, entry in list(entries):
            table = self._datapath.state.of(self._datapath.world.name(ns)).conntrack
            assert isinstance(table, JoinedTable)
            table.take(entry)

    def _thaw_flow(self, flow: int) -> None:
        self._take(self._entries_of(flow))
        forget_flow(self._datapath.engine(), flow)

    def _thaw_outer(self, number: int) -> None:
        self._take(self._entries_of_outer(number))
        free_outer(self._datapath.engine(), number)
        cold = self._datapath.store.state.cold
        for place in (OUTER0, OUTER1):
            carries = (cold["low"][:, place] == number & 0xFFFF) & (cold["high"][:, place] == number >> 16)
            cold["low"][carries, place] = cold["high"][carries, place] = 0
        drop_outer(reference(self._datapath.store.state), number)

    def _asked(self, ns: int, entry: Entry) -> Entry:
        """What the nat table of the namespace has settled: both sides, wherever there is one."""
        namespace = self._datapath.supply.scenes.scene(self._datapath.world.name(ns)).namespace
        family = {int(f): f for f in namespace.rulesets}.get(entry.original.src.version)
        has_nat = family is not None and "nat" in namespace.rulesets[family].tables
        entry.snat_done = entry.dnat_done = has_nat
        return entry

    def _entries_of(self, flow: int) -> Iterator[tuple[int, Entry]]:
        state = self._datapath.store.state
        device, nat_at = int(number_at(state.rest[flow], DEVICE)), int(nat_at_of(state.hot[flow]))
        for place, (ns, entry) in enumerate(self._datapath.store.entries_of(flow)):
            if device and place == nat_at:
                entry.masquerade_device = self._datapath.names.name(device)
            yield ns, self._asked(ns, entry)

    def _entries_of_outer(self, number: int) -> Iterator[tuple[int, Entry]]:
        for ns, entry in self._datapath.store.entries_of_outer(number):
            yield ns, self._asked(ns, entry)

    def connections(self) -> Mapping[str, list[Entry]]:
        """Every living conntrack entry by namespace, as ``conntrack -L`` would list them there."""
        found: dict[str, list[Entry]] = {}
        now = self._datapath.state.now
        store = self._datapath.store
        records = map(self._entries_of, store.flows()), map(self._entries_of_outer, store.outers())
        for ns, entry in chain.from_iterable(chain(*records)):
            found.setdefault(self._datapath.world.name(ns), []).append(entry)
        for name, held in self._datapath.state.namespaces.items():
            table = held.conntrack
            assert isinstance(table, JoinedTable)
            found.setdefault(name, []).extend(table.entries())
        return {name: [e for e in held if e.expires > now] for name, held in found.items() if held}
