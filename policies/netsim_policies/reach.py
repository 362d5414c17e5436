"""Reachability between workloads: the matrix grouped for readers, and exposure.

Pods of one workload that no policy tells apart are one group; where they differ, each is a group of its own. The outside
is one group for every set of blocks the policies name, and one for "anywhere else".
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, AddressSet, PortSet, Range, merge
from netsim_policies.matrix import Cells, Matrix
from netsim_policies.model import Endpoint, EndpointKind, Policy, World
from netsim_policies.vocabulary import IN_NO_BLOCK, Vocabulary

ANYWHERE = "outside"
_MANY = 100_000  # pairs, to look up one by one


@dataclass(frozen=True)
class Group:
    """Endpoints with one name for readers and one class for policies."""

    name: str
    kind: EndpointKind
    number: int  # class
    members: tuple[int, ...]  # indexes into the world's endpoints


@dataclass(frozen=True)
class Edge:
    source: Group
    destination: Group
    ports: PortSet


@dataclass(frozen=True)
class Exposure:
    """What is open on ``group``: to every pod of the cluster, to addresses outside that no block names, and to pods that
    do not exist yet (one without labels in a namespace without labels)."""

    group: Group
    to_cluster: PortSet
    to_outside: PortSet
    to_newcomers: PortSet


class Reachability:
    """``world`` is extended by the outside and by one newcomer pod; indexes of the given endpoints stay as they are.
    ``others``: further policies whose words tell endpoints and parts of the outside apart, so that two worlds have the same
    groups."""

    def __init__(self, world: World, family: Family = Family.IPV4, others: Sequence[Policy] = ()) -> None:
        self.family = family
        outside = tuple(outside_groups((*world.policies, *others), family))
        newcomer = Endpoint(EndpointKind.POD, "(new pod)", namespace="(new namespace)")
        self.world = World((*world.endpoints, *outside, newcomer), world.policies, world.namespaces, world.tiers)
        self._newcomer = len(self.world.endpoints) - 1
        self.matrix = Matrix(self.world, family, others)
        self._cells: Cells | None = None
        self._known: dict[tuple[int, int], PortSet] = {}

    @cached_property
    def groups(self) -> list[Group]:
        """Workloads by namespace and name, then nodes, then the outside."""
        by_name: dict[tuple[str, EndpointKind], list[int]] = {}
        for index, endpoint in enumerate(self.world.endpoints):
            if index != self._newcomer:
                by_name.setdefault((endpoint.workload or endpoint.name, endpoint.kind), []).append(index)
        found: list[Group] = []
        for (name, kind), members in by_name.items():
            classes: dict[int, list[int]] = {}
            for index in members:
                classes.setdefault(int(self.matrix.classes.of[index]), []).append(index)
            for number, same in classes.items():
                if len(classes) == 1:
                    found.append(Group(name, kind, number, tuple(same)))
                else:  # policies tell the members apart: name them
                    found += [Group(f"Pod {self.world.endpoints[i].name}", kind, number, (i,)) for i in same]
        order = list(EndpointKind)
        space = {g.name: self.world.endpoints[g.members[0]].namespace for g in found}
        return sorted(found, key=lambda g: (order.index(g.kind), space[g.name], g.name))

    def edges(
        self, sources: Iterable[Group] | None = None, destinations: Sequence[Group] | None = None
    ) -> Iterator[Edge]:
        """Every pair with at least one port; the outside is no destination of itself."""
        to = self.groups if destinations is None else destinations
        senders = self.groups if sources is None else list(sources)
        self._spell_out(len(senders) * len(to))
        for source in senders:
            for destination in to:
                if source.kind is EndpointKind.EXTERNAL and destination.kind is EndpointKind.EXTERNAL:
                    continue
                ports = self.between(source, destination)
                if ports:
                    yield Edge(source, destination, ports)

    def between(self, source: Group, destination: Group) -> PortSet:
        """For members that are different endpoints, and for all of them: a group of one pod reaches itself on every port,
        and a node (or a hostNetwork pod on it) a group of which every pod runs there."""
        if source == destination and len(source.members) == 1:
            return ALL_PORTS
        node = self._as_node(source)
        if node is not None and self._nodes(destination) == {node}:
            return ALL_PORTS
        return self._class_ports(source.number, destination.number)

    def _as_node(self, group: Group) -> str | None:
        """The node that a group is to its pods."""
        first = self.world.endpoints[group.members[0]]
        nodes = self._nodes(group) if first.kind is EndpointKind.NODE or first.host_network else set()
        return nodes.pop() if len(nodes) == 1 else None

    def exempt(self) -> Iterator[tuple[Group, Group]]:
        """The pairs about which ``between`` need not ask the matrix."""
        on: dict[str | None, list[Group]] = {}
        for group in self.groups:
            yield group, group
            nodes = self._nodes(group)
            if len(nodes) == 1:
                on.setdefault(nodes.pop(), []).append(group)
        for group in self.groups:
            node = self._as_node(group)
            yield from ((group, other) for other in on.get(node, ()) if node is not None)

    def cells(self, pairs: int) -> Cells | None:
        """The class matrix; None where so few ``pairs`` are asked about that it is not worth it, or it has no room."""
        self._spell_out(pairs)
        return self._cells

    def _spell_out(self, pairs: int) -> None:
        """Make the whole class matrix where that many questions are worth its kernels and its memory."""
        if self._cells is None and pairs > _MANY:
            with suppress(MemoryError):
                self._cells = self.matrix.cells()

    def _class_ports(self, source: int, destination: int) -> PortSet:
        if self._cells is not None:
            return self.matrix.port_sets[int(self._cells[source, destination])]
        pair = source, destination
        found = self._known.get(pair)
        if found is None:
            found = self._known[pair] = self.matrix.class_ports(source, destination)
        return found

    def _nodes(self, group: Group) -> set[str | None]:
        return {self.world.endpoints[i].node for i in group.members}

    def exposure(self, group: Group) -> Exposure:
        self._spell_out(len(self.groups) ** 2)
        to_cluster = ALL_PORTS
        for number, groups in self._pods.items():
            if groups > (number == group.number):  # somebody else
                to_cluster &= self._class_ports(number, group.number)
                if not to_cluster:
                    break
        outside = next((g for g in self.groups if g.name == ANYWHERE), None)
        newcomer = int(self.matrix.classes.of[self._newcomer])
        return Exposure(
            group,
            to_cluster,
            self._class_ports(outside.number, group.number) if outside else PortSet(),
            self._class_ports(newcomer, group.number),
        )

    @cached_property
    def _pods(self) -> Counter[int]:
        """By class: how many groups of pods are of it."""
        return Counter(g.number for g in self.groups if g.kind is EndpointKind.POD)


def outside_groups(policies: Iterable[Policy], family: Family) -> Iterator[Endpoint]:
    """One endpoint for each part of the address space outside that ``policies`` can tell from others; its name lists the
    part's prefixes."""
    vocabulary = Vocabulary(policies, family)
    top = (1 << family.bits) - 1
    edges = [0, *(b for b in vocabulary.borders if 0 < b <= top), top + 1]
    parts: dict[int, list[Range]] = {}
    for low, following in itertools.pairwise(edges):
        parts.setdefault(vocabulary.print_of(low), []).append((low, following - 1))
    for mark, pieces in parts.items():
        ranges = merge(pieces)
        addresses = AddressSet(v4=ranges) if family is Family.IPV4 else AddressSet(v6=ranges)
        name = ANYWHERE if mark == IN_NO_BLOCK else _named(addresses)
        yield Endpoint(EndpointKind.EXTERNAL, name, outside=addresses)


def _named(addresses: AddressSet) -> str:
    texts = addresses.texts()
    return f"outside {', '.join(texts[:3])}{f' and {len(texts) - 3} more' if len(texts) > 3 else ''}"
