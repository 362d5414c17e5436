"""Who can reach whom on which ports, for a whole cluster, kept up to date.

    policies ─▶ label class ─▶ profile ─▶ rules ─▶ row: combos × zones ─▶ port sets
                               (the policies that select it)              (interned, walked once each)

Label classes with one profile share a row (see ``rows``); an egress row and an ingress row intersect to the answer.
``ports(i, j)`` answers for two endpoints, exemptions included; ``cells()`` spells out the class matrix, ``blocks()`` does
so piece by piece. ``evaluate.decide`` is the obvious twin.

``update``, ``place``, ``remove`` and ``relabel`` change policies, endpoints and namespaces in place. Each refills only what
it touches, and says what that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, PortSet, Range
from netsim_policies.classes import Classes
from netsim_policies.evaluate import exemption
from netsim_policies.labels import NOBODY, Ids
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    Endpoint,
    EndpointKind,
    NamedPort,
    Peer,
    PodPeer,
    Policy,
    Rule,
    World,
)
from netsim_policies.rows import UNKNOWN, Flat, Members, Ranked, Row, refine, refine_all, zones
from netsim_policies.values import Values
from netsim_policies.vocabulary import Names, Vocabulary, rules

Key = tuple[str, str, str]  # kind, namespace, name
RowKey = tuple[frozenset[Key], tuple[Names, ...]]  # profile, named ports of the subject
Stale = dict[Direction, set[int]]  # label classes
Cells = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Touched:
    """The classes whose answers may have changed, as senders and as receivers; between all others they are the same."""

    sources: Ids
    destinations: Ids

    def __or__(self, other: Touched) -> Touched:
        return Touched(np.union1d(self.sources, other.sources), np.union1d(self.destinations, other.destinations))


class Matrix:
    """The answer to every (pair, port) question over one family.

    >>> Matrix(world).ports(0, 1)        # doctest: +SKIP
    PortSet(tcp=((80, 80),), ...)

    ``others``: policies whose words are known too, though they decide nothing.

    Raises ValueError when a block cuts through an endpoint that stands for a part of the outside.
    """

    def __init__(self, world: World, family: Family = Family.IPV4, others: Iterable[Policy] = ()) -> None:
        self.family = family
        self.tiers = tuple(world.tiers)
        self.endpoints: list[Endpoint | None] = list(world.endpoints)
        self.namespaces = dict(world.namespaces)
        self.policies: dict[Key, Policy] = {_key(p): p for p in world.policies}
        self._rank = {tier.name: rank for rank, tier in enumerate(world.tiers)}
        self.values = Values(self.tiers)
        self.port_sets = self.values.port_sets
        self.vocabulary = Vocabulary((*self.policies.values(), *others), self.family)
        self.classes = Classes(self.endpoints, self.vocabulary)
        self.labels = self.classes.labels
        self._places: dict[tuple[EndpointKind, str], int] = {}
        for index, endpoint in enumerate(self.endpoints):
            if endpoint is not None:
                self._places.setdefault((endpoint.kind, endpoint.name), index)
        self._subjects: dict[Any, set[Key]] = {}  # by scope: the policies that it is the subject of
        self._peers: dict[Any, set[Key]] = {}  # by scope: the policies that it is a peer in
        self._others: dict[Key, list[tuple[Peer, Action]]] = {}  # peers that are neither scopes nor blocks
        self._blocks: dict[Key, list[tuple[Peer, Action]]] = {}
        self._selecting: dict[Direction, list[set[Key]]] = {d: [set() for _ in self.labels.keys] for d in Direction}
        self.made: dict[Direction, dict[RowKey, Row]] = {d: {} for d in Direction}
        self._row_of: dict[Direction, dict[int, Row]] = {d: {} for d in Direction}  # by label class
        self._rules: dict[int, tuple[Rule, Ids, int]] = {}
        self._names = len(self.labels.name_sets)
        self.flat: dict[Direction, Flat] = {d: Flat() for d in Direction}  # rows as the kernels read them
        for key, policy in self.policies.items():
            self._enrol(key, policy)

    @property
    def world(self) -> World:
        """The world as it is now."""
        live = tuple(e for e in self.endpoints if e is not None)
        return World(live, tuple(self.policies.values()), self.namespaces, self.tiers)

    def _enrol(self, key: Key, policy: Policy) -> list[int]:
        """Note whom a policy selects, which are returned, and whom its rules mean."""
        chosen: list[int] = self.labels.scope(policy.subject).tolist()
        for direction in policy.directions:
            selecting = self._selecting[direction]
            for number in chosen:
                selecting[number].add(key)
        self._subjects.setdefault(policy.subject.key, set()).add(key)
        for rule in rules(policy):
            for peer in rule.peers or ():
                if isinstance(peer, PodPeer):
                    self._peers.setdefault(peer.scope.key, set()).add(key)
                else:
                    kind = self._blocks if isinstance(peer, AddressPeer) else self._others
                    kind.setdefault(key, []).append((peer, rule.action))
        return chosen

    # -- changes -----------------------------------------------------------------------------------------------------
    def update(self, removed: Iterable[Policy] = (), added: Iterable[Policy] = ()) -> Touched:
        """Take policies out and put others in, also under the names of some that are there. Classes that a new word tells
        apart are split: their new parts get new numbers."""
        stale: Stale = {direction: set() for direction in Direction}
        fresh = {_key(policy): policy for policy in added}
        gone = {_key(policy) for policy in removed} | (fresh.keys() & self.policies.keys())
        known = len(self.classes)
        self.classes.learn(self.vocabulary.learn(fresh.values()), self.endpoints)
        self._welcome()  # while all is as it was: who is split off is selected as before
        for key in gone:
            self._dismiss(key, stale)
        self.policies.update(fresh)
        self._forget_rows(gone | fresh.keys())
        for key, policy in fresh.items():
            chosen = self._enrol(key, policy)
            for direction in policy.directions:
                stale[direction].update(chosen)
        return self._touched(stale, known)

    def _dismiss(self, key: Key, stale: Stale) -> None:
        """Forget a policy; whom it selected becomes ``stale``."""
        policy = self.policies.pop(key)
        for number in self.labels.scope(policy.subject).tolist():
            for direction in policy.directions:
                self._selecting[direction][number].discard(key)
                stale[direction].add(number)
        self._subjects[policy.subject.key].discard(key)
        self._others.pop(key, None)
        self._blocks.pop(key, None)
        for rule in rules(policy):
            self._rules.pop(id(rule), None)
            self.values.forget(rule)
            for peer in rule.peers or ():
                if isinstance(peer, PodPeer):
                    self._peers[peer.scope.key].discard(key)

    def place(self, endpoint: Endpoint) -> Touched:
        """Add an endpoint, or put it in the place of the one with its kind and name. Its namespace has the labels that
        this, the newest of its pods, says."""
        inside = self.labels.in_space(endpoint.namespace)
        before = None
        if endpoint.kind is EndpointKind.POD and len(inside):
            if self.labels.examples[int(inside[0])].namespace_labels != endpoint.namespace_labels:
                before = self.relabel(endpoint.namespace, endpoint.namespace_labels)
        index, known = self.index(endpoint), len(self.classes)
        self._places[endpoint.kind, endpoint.name] = index
        self.endpoints[index : index + 1] = [endpoint]
        self.classes.put(index, self.endpoints)
        self._welcome()
        touched = self._touched({}, known)
        return touched if before is None else touched | before

    def index(self, endpoint: Endpoint) -> int:
        """Of the endpoint with this kind and name; one past the last if there is none."""
        return self._places.get((endpoint.kind, endpoint.name), len(self.endpoints))

    def remove(self, endpoint: Endpoint) -> Touched:
        """Its index stays empty."""
        index = self._places.pop((endpoint.kind, endpoint.name))
        self.endpoints[index] = None
        self.classes.put(index, self.endpoints)
        return self._touched({}, len(self.classes))

    def relabel(self, namespace: str, labels: Mapping[str, str]) -> Touched:
        """Give a namespace other labels: all of them, as its pods' ``namespace_labels`` say."""
        self.namespaces[namespace] = labels
        for index in self.classes.relabel(namespace, labels):
            endpoint = self.endpoints[index]
            if endpoint is not None:
                self.endpoints[index] = replace(endpoint, namespace_labels=labels)
        stale: Stale = {direction: set() for direction in Direction}
        changed: set[Key] = set()
        for scope, numbers in self.labels.relabel(namespace, labels).items():
            changed |= self._peers.get(scope, set())
            for key in self._subjects.get(scope, ()):
                for direction in self.policies[key].directions:
                    stale[direction].update(numbers)
                    for number in numbers:
                        self._selecting[direction][number] ^= {key}
        self._rules.clear()
        self._forget_rows(changed)
        for key in changed:
            for direction in self.policies[key].directions:
                stale[direction].update(self.labels.scope(self.policies[key].subject).tolist())
        return self._touched(stale, len(self.classes))

    def _welcome(self) -> None:
        """Take in the label classes born since: who selects them, and the rows of whose rules they are peers."""
        grown: set[Key] = set()
        for number in range(len(self._selecting[Direction.INGRESS]), len(self.labels)):
            chosen: dict[Direction, set[Key]] = {direction: set() for direction in Direction}
            for scope in self.labels.born(number):
                grown |= self._peers.get(scope, set())
                for key in self._subjects.get(scope, ()):
                    for direction in self.policies[key].directions:
                        chosen[direction].add(key)
            for direction in Direction:
                self._selecting[direction].append(chosen[direction])
            several = bool(self.labels.keys[number][4])
            for key, peers in chain(self._others.items(), self._blocks.items() if several else ()):
                if key not in grown and any(self.labels.holds(peer, number, action) for peer, action in peers):
                    grown.add(key)
        self._forget_rows(grown)
        names = len(self.labels.name_sets)
        if names > self._names:  # every row of senders that asks for names must know what they mean, in their order
            self._names = names
            self._forget_rows({k for k, policy in self.policies.items() if any(_has_names(r) for r in policy.egress)})
            self.flat[Direction.EGRESS] = Flat()

    def _forget_rows(self, changed: Set[Key]) -> None:
        """Rows made from ``changed`` policies are made anew when they are asked for."""
        if not changed:
            return
        for direction in Direction:
            made = self.made[direction]
            for key in [key for key in made if not key[0].isdisjoint(changed)]:
                del made[key]
            rows = self._row_of[direction].items()
            self._unrow(direction, [number for number, row in rows if not row.profile.isdisjoint(changed)])

    def _unrow(self, direction: Direction, labels: Iterable[int]) -> None:
        """These label classes may have other rows than they had."""
        row_of, of = self._row_of[direction], self.flat[direction].of
        for number in labels:
            row_of.pop(number, None)
            if number < len(of):
                of[number] = -1

    def _touched(self, stale: Stale, known: int) -> Touched:
        """The classes of ``stale`` label classes, and those born since there were ``known``."""
        found: dict[Direction, Ids] = {}
        label = self.classes.table()[0]
        for direction in Direction:
            numbers = stale.get(direction, set())
            self._unrow(direction, numbers)
            chosen = np.isin(label, np.array(sorted(numbers), np.int32))
            chosen[known:] = True
            found[direction] = np.flatnonzero(chosen).astype(np.int32)
        return Touched(found[Direction.EGRESS], found[Direction.INGRESS])

    # -- rows --------------------------------------------------------------------------------------------------------
    def row(self, label: int, direction: Direction) -> Row:
        """The row of label class ``label`` as a subject."""
        row = self._row_of[direction].get(label)
        if row is None:
            key = self._row_key(label, direction)
            row = self.made[direction].get(key)
            if row is None:
                rules = self._ranked(key[0], direction)
                row = self._made(key, rules, direction, refine(self._postings(rules)))
            self._row_of[direction][label] = row
        return row

    def rows(self, labels: Iterable[int], direction: Direction) -> dict[int, Row]:
        """The rows of many label classes; those that are missing are made together."""
        wanted = list(labels)
        missing: dict[RowKey, list[Ranked]] = {}
        for label in wanted:
            if label not in self._row_of[direction]:
                key = self._row_key(label, direction)
                if key not in self.made[direction] and key not in missing:
                    missing[key] = self._ranked(key[0], direction)
        if missing:
            lists = [self._postings(rules) for rules in missing.values()]
            refined = refine_all(lists, len(self.labels))
            for (key, rules), parts in zip(missing.items(), refined, strict=True):
                self._made(key, rules, direction, parts)
        return {label: self.row(label, direction) for label in wanted}

    def _row_key(self, label: int, direction: Direction) -> RowKey:
        """The profile, and the subject's own named ports if one of its rules asks for them."""
        profile = frozenset(self._selecting[direction][label])
        names: Names = self.labels.keys[label][3] if direction is Direction.INGRESS else ()
        if names and not any(_has_names(r) for key in profile for r in self.policies[key].ingress):
            names = ()
        return profile, (names,)

    def _ranked(self, profile: frozenset[Key], direction: Direction) -> list[Ranked]:
        chosen = [self.policies[key] for key in profile]
        if len(chosen) > 1:
            chosen.sort(key=lambda p: (self._rank[p.tier], p.priority, p.namespace, p.name))
        return [
            Ranked(rank := self._rank[policy.tier], rule, self.values.effect(rank, rule))
            for policy in chosen
            for rule in policy.rules(direction)
            if rule.action is not Action.LOG
        ]

    def _postings(self, rules: Sequence[Ranked]) -> list[Ids]:
        """Per rule the label classes that match it by their labels."""
        return [NOBODY if ranked.rule.peers is None else self._label_part(ranked.rule) for ranked in rules]

    def _label_part(self, rule: Rule) -> Ids:
        held = self._rules.get(id(rule))
        if held is None or held[0] is not rule or held[2] != len(self.labels):
            held = self._rules[id(rule)] = (rule, self.labels.rule(rule), len(self.labels))
        return held[1]

    def _made(
        self, key: RowKey, rules: list[Ranked], direction: Direction, parts: tuple[Ids, Ids, list[Members]]
    ) -> Row:
        profile, names = key
        touched, combos, label_sets = parts
        blocks: dict[int, list[Range]] = {}
        for place, ranked in enumerate(rules):
            for peer in ranked.rule.peers or ():
                if isinstance(peer, AddressPeer):
                    blocks.setdefault(place, []).extend(self.vocabulary.ranges(peer.addresses))
        cuts, zone_of, zone_sets = zones(blocks)
        if direction is Direction.EGRESS and any(_has_names(ranked.rule) for ranked in rules):
            names = tuple(self.labels.name_sets)
        row = self.made[direction][key] = Row(
            profile=profile,
            rules=rules,
            always=[place for place, ranked in enumerate(rules) if ranked.rule.peers is None],
            tiers=tuple(sorted({self._rank[self.policies[k].tier] for k in profile})),
            names=names,
            touched=touched,
            combos=combos,
            label_sets=label_sets,
            cuts=cuts,
            zones=zone_of,
            zone_sets=zone_sets,
            table=np.full((len(label_sets), len(zone_sets), len(names)), UNKNOWN, np.uint32),
        )
        return row

    # -- answers -----------------------------------------------------------------------------------------------------
    def ports(self, source: int, destination: int) -> PortSet:
        """The ports that endpoint ``source`` may reach on endpoint ``destination``, exemptions included."""
        a, b = self.endpoints[source], self.endpoints[destination]
        if a is None or b is None:
            raise IndexError(f"endpoint {source if a is None else destination} was removed")
        found = ALL_PORTS
        for direction, subject, peer in (
            (Direction.EGRESS, source, destination),
            (Direction.INGRESS, destination, source),
        ):
            if found and not exemption(a, b, direction):
                found &= self.side(int(self.classes.of[subject]), int(self.classes.of[peer]), direction)
        return found

    def side(self, subject: int, peer: int, direction: Direction) -> PortSet:
        """What the policies of class ``subject`` allow for class ``peer`` in one direction."""
        row = self.row(self.classes.label[subject], direction)
        label = self.classes.label[peer]
        cell = row.combo(label), row.zone(self.classes.address[peer]), row.group(self.labels.group[label])
        return self.port_sets[self.values.value(row, *cell)]

    def class_ports(self, source: int, destination: int) -> PortSet:
        """Between two classes, for members that are not exempt (not the same pod, not a pod and its own node)."""
        egress = self.side(source, destination, Direction.EGRESS)
        return egress & self.side(destination, source, Direction.INGRESS) if egress else egress

    def cells(self, sources: Ids | None = None, destinations: Ids | None = None) -> Cells:
        """The class matrix, or these lines and columns of it: ``port_sets[cells[s, d]]`` is what class s may reach on
        class d. Shape (sources, destinations), dtype uint16, or uint32 beyond 65,535 distinct port sets.

        Raises MemoryError beyond 3 GB; ``blocks`` has no such limit."""
        from netsim_policies.combine import cells

        return cells(self, sources, destinations)

    def blocks(self, size: int = 1 << 28) -> Iterator[tuple[int, Cells]]:
        """The class matrix in pieces of at most ``size`` bytes: (first source class, lines)."""
        from netsim_policies.combine import blocks

        return blocks(self, size)

    def refresh(self, cells: Cells, touched: Touched) -> Cells:
        """``cells`` with what a change touched filled anew; it grows when there are new classes."""
        from netsim_policies.combine import refresh

        return refresh(self, cells, touched)


def _key(policy: Policy) -> Key:
    return policy.kind, policy.namespace, policy.name


def _has_names(rule: Rule) -> bool:
    return any(isinstance(port, NamedPort) for port in rule.ports or ())
