"""Runs of routes that namespaces share: may this namespace read the common version, or must it have its own?"""

from __future__ import annotations

from collections.abc import Iterable

from netsim.compiled.fib_namespace import Facts
from netsim.linux.route import NextHop, Route
from netsim.linux.shared import Run
from netsim.packet.address import Family, IPAddress, family_of

SHARED_FROM = 32  # a shorter run is written out
LEFT_OUT_MOST = 16  # places that a namespace may leave out of a run and still share it

PrefixKey = tuple[Family, int, int, int]  # family, table number, prefix length, its bits as a number


def prefix_key(route: Route) -> PrefixKey:
    held = route.destination
    family = family_of(held)
    length = held.prefixlen
    return family, route.table, length, int(held.network_address) >> (family.bits - length)


class SharedRun:
    """What is to be known of a run's items, whoever holds it. Keeps them alive: it is remembered by their identity."""

    def __init__(self, items: tuple[Route, ...]) -> None:
        self.items = items
        self.prefixes: dict[PrefixKey, list[int]] = {}  # → places
        self.gateways: dict[tuple[IPAddress, str], list[int]] = {}
        self.devices: set[str] = set()
        self.plain = True  # no gateway without a device
        self.families = {family_of(route.destination) for route in items}
        for place, route in enumerate(items):
            self.prefixes.setdefault(prefix_key(route), []).append(place)
            for hop in route.nexthops or (NextHop(route.gateway, route.device),):
                if hop.device is not None:
                    self.devices.add(hop.device)
                if hop.gateway is None:
                    continue
                if hop.device is None:
                    self.plain = False
                else:
                    self.gateways.setdefault((hop.gateway, hop.device), []).append(place)

    def meets(self, keys: Iterable[PrefixKey], without: tuple[int, ...]) -> bool:
        """Is one of these prefixes among those of the run (less the places ``without``)?"""
        return any(key in self.prefixes and not set(self.prefixes[key]) <= set(without) for key in keys)

    def crosses(self, facts: Facts, without: tuple[int, ...]) -> bool:
        """Is one of its gateways an address of the namespace itself, on the device that leads there?"""
        return any(
            not set(self.gateways.get((address, device), ())) <= set(without) for address, device in facts.own4.items()
        )


class SharedRuns:
    """The runs met so far."""

    def __init__(self) -> None:
        self._known: dict[int, SharedRun] = {}
        self._meet: dict[tuple[int, int], bool] = {}

    def of(self, items: tuple[Route, ...]) -> SharedRun:
        found = self._known.get(id(items))
        if found is None:
            found = self._known[id(items)] = SharedRun(items)
        return found

    def families(self, items: tuple[Route, ...]) -> Iterable[Family]:
        """The families of the run's routes. Long ones are looked at once."""
        if len(items) >= SHARED_FROM:
            return self.of(items).families
        return {family_of(route.destination) for route in items}

    def sharable(self, runs: tuple[Run[Route], ...], facts: Facts, own: Iterable[PrefixKey]) -> list[bool]:
        """Which of a namespace's runs it may share. ``own``: the prefixes that its addresses bring.

        The order between routes of one prefix counts, so a prefix must not be both shared and own, or in two runs."""
        share = [
            len(run.items) >= SHARED_FROM
            and len(run.without) <= LEFT_OUT_MOST
            and (known := self.of(run.items)).plain
            and not known.crosses(facts, run.without)
            for run in runs
        ]
        keys = set(own)
        waiting = [n for n, shared in enumerate(share) if not shared]
        while True:
            for n in waiting:
                keys.update(map(prefix_key, runs[n]))
            waiting = [n for n, run in enumerate(runs) if share[n] and self._in_the_way(n, run, runs, share, keys)]
            if not waiting:
                return share
            share = [shared and n not in waiting for n, shared in enumerate(share)]

    def _in_the_way(
        self, n: int, run: Run[Route], runs: tuple[Run[Route], ...], share: list[bool], keys: set[PrefixKey]
    ) -> bool:
        known = self.of(run.items)
        if known.meets(keys, run.without):
            return True
        return any(share[m] and self._meets(self.of(runs[m].items), known) for m in range(n))

    def _meets(self, one: SharedRun, other: SharedRun) -> bool:
        key = id(one.items), id(other.items)
        found = self._meet.get(key)
        if found is None:
            found = self._meet[key] = not one.prefixes.keys().isdisjoint(other.prefixes)
        return found
