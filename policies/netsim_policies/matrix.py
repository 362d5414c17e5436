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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.kube.selectors import matches
from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, PortSet, Range
from netsim_policies.classes import NO_CLASS, NOBODY, Classes, Ids, frozen
from netsim_policies.evaluate import exemption, in_scope
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    Endpoint,
    EndpointKind,
    NamedPort,
    PodPeer,
    Policy,
    Rule,
    Selector,
    World,
)
from netsim_policies.rows import UNKNOWN, Flat, Members, Ranked, Row, refine, refine_all, zones
from netsim_policies.values import Values
from netsim_policies.vocabulary import Vocabulary, peers, rules

_FEW = 64  # endpoints that may change class one by one, however small the cluster
Key = tuple[str, str, str]  # kind, namespace, name
RowKey = tuple[frozenset[Key], Any]  # profile, named ports of the subject
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

    Raises ValueError when a block cuts through an endpoint that stands for a part of the outside.
    """

    def __init__(self, world: World, family: Family = Family.IPV4) -> None:
        self.family = family
        self.tiers = tuple(world.tiers)
        self.endpoints: list[Endpoint | None] = list(world.endpoints)
        self.namespaces = dict(world.namespaces)
        self.policies: dict[Key, Policy] = {_key(p): p for p in world.policies}
        self._rank = {tier.name: rank for rank, tier in enumerate(world.tiers)}
        self.values = Values(self.tiers)
        self.port_sets = self.values.port_sets
        self._build()

    def _build(self) -> None:
        """Everything but the port sets, from the policies and endpoints as they are."""
        self.vocabulary = Vocabulary(self.policies.values(), self.family)
        self.classes = Classes(self.endpoints, self.vocabulary)
        self.labels = self.classes.labels
        self._selecting: dict[Direction, list[set[Key]]] = {d: [set() for _ in self.labels.keys] for d in Direction}
        self._rows: dict[Direction, dict[Any, Row]] = {d: {} for d in Direction}  # by profile and names
        self._row_of: dict[Direction, dict[int, Row]] = {d: {} for d in Direction}  # by label class
        self._rules: dict[int, tuple[Rule, Ids, int]] = {}
        self.flat: dict[Direction, Flat] = {}  # rows as the kernels read them
        for key, policy in self.policies.items():
            self._select(key, policy)

    @property
    def world(self) -> World:
        """The world as it is now."""
        live = tuple(e for e in self.endpoints if e is not None)
        return World(live, tuple(self.policies.values()), self.namespaces, self.tiers)

    def _select(self, key: Key, policy: Policy) -> None:
        for number in self.labels.scope(policy.subject).tolist():
            for direction in policy.directions:
                self._selecting[direction][number].add(key)

    # -- changes -----------------------------------------------------------------------------------------------------
    def update(self, removed: Iterable[Policy] = (), added: Iterable[Policy] = ()) -> Touched:
        """Replace policies. Only endpoints that a new word tells apart change class; a word that concerns most of them (a
        label key that nobody asked for before) builds the matrix anew, with new class numbers."""
        stale: Stale = {direction: set() for direction in Direction}
        fresh = {_key(policy): policy for policy in added}
        changed = {*fresh}
        for policy in removed:
            changed.add(key := _key(policy))
            held = self.policies.pop(key)
            for rule in rules(held):
                self._rules.pop(id(rule), None)
                self.values.forget(rule)
            for number in self.labels.scope(held.subject).tolist():
                for direction in held.directions:
                    self._selecting[direction][number].discard(key)
                    stale[direction].add(number)
        self.policies.update(fresh)
        new = self.vocabulary.learn(fresh.values())
        concerned = self.classes.concerned(new, self.endpoints) if new else set()
        if len(concerned) > max(_FEW, len(self.endpoints) // 8):
            self._build()
            everyone = np.arange(len(self.classes), dtype=np.int32)
            return Touched(everyone, everyone)
        moved = self._renumber(concerned, split=True)
        for key, policy in fresh.items():
            self._select(key, policy)
        return self._drop(stale, changed, moved)

    def place(self, endpoint: Endpoint) -> Touched:
        """Add an endpoint, or put it in the place of the one with its kind and name. Its namespace has the labels that
        this, the newest of its pods, says."""
        index = self.index(endpoint)
        inside = self.labels.in_space(endpoint.namespace)
        before = None
        if endpoint.kind is EndpointKind.POD and len(inside):
            if self.labels.examples[int(inside[0])].namespace_labels != endpoint.namespace_labels:
                before = self.relabel(endpoint.namespace, endpoint.namespace_labels)
        self.endpoints[index : index + 1] = [endpoint]
        self.classes.forget_addresses()
        touched = self._drop({}, set(), self._renumber([index]))
        return touched if before is None else touched | before

    def index(self, endpoint: Endpoint) -> int:
        """Of the endpoint with this kind and name; one past the last if there is none."""
        for index, held in enumerate(self.endpoints):
            if held is not None and held.name == endpoint.name and held.kind is endpoint.kind:
                return index
        return len(self.endpoints)

    def remove(self, endpoint: Endpoint) -> Touched:
        """Its index stays empty."""
        index = self.index(endpoint)
        self.endpoints[index] = None
        self.classes.forget_addresses()
        return self._drop({}, set(), self._renumber([index]))

    def relabel(self, namespace: str, labels: Mapping[str, str]) -> Touched:
        """Give a namespace other labels: all of them, as its pods' ``namespace_labels`` say."""
        self.namespaces[namespace] = labels
        for index, endpoint in enumerate(self.endpoints):
            if endpoint is not None and endpoint.namespace == namespace:
                self.endpoints[index] = replace(endpoint, namespace_labels=labels)
        inside = set(self.labels.in_space(namespace).tolist())
        if not inside:
            return self._drop({}, set(), set())
        old = self.labels.examples[min(inside)].namespace_labels
        for number in inside:
            self.labels.examples[number] = replace(self.labels.examples[number], namespace_labels=labels)
        for number, label in enumerate(self.classes.label):
            if label in inside:
                self.classes.examples[number] = replace(self.classes.examples[number], namespace_labels=labels)
        answers: dict[Any, bool] = {}

        def turned(selector: Selector | None) -> bool:
            key = frozen(selector)
            if key not in answers:
                answers[key] = matches(selector, old) != matches(selector, labels)
            return answers[key]

        self.labels.forget_namespaces(turned)
        self._rules.clear()
        stale: Stale = {direction: set() for direction in Direction}
        changed: set[Key] = set()
        for key, policy in self.policies.items():
            if turned(policy.subject.namespaces):
                chosen = {n for n in inside if in_scope(policy.subject, self.labels.examples[n])}
                for direction in policy.directions:
                    stale[direction] |= inside
                    for number in inside:
                        selecting = self._selecting[direction][number]
                        (selecting.add if number in chosen else selecting.discard)(key)
            if any(isinstance(peer, PodPeer) and turned(peer.scope.namespaces) for peer in peers(policy)):
                changed.add(key)
        return self._drop(stale, changed, set())

    def _renumber(self, indexes: Iterable[int], split: bool = False) -> set[tuple[int, int]]:
        """Endpoints change class. ``split``: because a new word tells them apart, so that a new label class is selected
        by the same policies as the one it was part of."""
        size = len(self.labels)
        moved = self.classes.renumber(indexes, self.endpoints)
        label = self.classes.label
        parents = {label[new]: label[old] for old, new in moved if NO_CLASS not in (old, new)} if split else {}
        for number in range(size, len(self.labels)):
            example = self.labels.examples[number]
            chosen = [] if number in parents else [k for k, p in self.policies.items() if in_scope(p.subject, example)]
            for direction in Direction:
                mine = self._selecting[direction]
                mine.append({*mine[parents[number]]} if number in parents else set())
                mine[number].update(key for key in chosen if direction in self.policies[key].directions)
        return moved

    def _drop(self, stale: Stale, changed: set[Key], moved: set[tuple[int, int]]) -> Touched:
        """Forget the rows made from ``changed`` policies, and which rows ``stale`` label classes have."""
        found: dict[Direction, Ids] = {}
        for direction in Direction:
            selecting = self._selecting[direction]
            old = stale.get(direction, set()) | {n for n, keys in enumerate(selecting) if not keys.isdisjoint(changed)}
            for number in old:
                self._row_of[direction].pop(number, None)
            if (flat := self.flat.get(direction)) is not None:
                flat.of[[number for number in old if number < len(flat.of)]] = -1
                if len(flat.rows) > 2 * len(self.labels):  # most of them are of the past
                    del self.flat[direction]
            rows = self._rows[direction]
            for key in [key for key, row in rows.items() if not row.profile.isdisjoint(changed)]:
                del rows[key]
            numbers = {number for number, label in enumerate(self.classes.label) if label in old} if old else set()
            numbers |= {number for pair in moved for number in pair} - {NO_CLASS}
            found[direction] = np.array(sorted(numbers), np.int32)
        return Touched(found[Direction.EGRESS], found[Direction.INGRESS])

    # -- rows --------------------------------------------------------------------------------------------------------
    def row(self, label: int, direction: Direction) -> Row:
        """The row of label class ``label`` as a subject."""
        row = self._row_of[direction].get(label)
        if row is None:
            key = self._row_key(label, direction)
            row = self._rows[direction].get(key)
            if row is None:
                rules = self._ranked(key[0], direction)
                row = self._made(key, rules, direction, refine(self._postings(rules, direction)))
            self._row_of[direction][label] = row
        if row.size < len(self.labels):
            self._grow(row)
        return row

    def rows(self, labels: Iterable[int], direction: Direction) -> dict[int, Row]:
        """The rows of many label classes; those that are missing are made together."""
        wanted = list(labels)
        missing: dict[RowKey, list[Ranked]] = {}
        for label in wanted:
            if label not in self._row_of[direction]:
                key = self._row_key(label, direction)
                if key not in self._rows[direction] and key not in missing:
                    missing[key] = self._ranked(key[0], direction)
        if missing:
            lists = [self._postings(rules, direction) for rules in missing.values()]
            refined = refine_all(lists, len(self.labels))
            for (key, rules), parts in zip(missing.items(), refined, strict=True):
                self._made(key, rules, direction, parts)
        return {label: self.row(label, direction) for label in wanted}

    def _row_key(self, label: int, direction: Direction) -> RowKey:
        """The profile, and the subject's own named ports if one of its rules asks for them."""
        profile = frozenset(self._selecting[direction][label])
        names = self.labels.keys[label][3] if direction is Direction.INGRESS else ()
        if names and not any(_has_names(r) for key in profile for r in self.policies[key].ingress):
            names = ()
        return profile, names

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

    def _postings(self, rules: Sequence[Ranked], direction: Direction) -> list[Ids]:
        """Per rule the label classes that match it by their labels; then, where the ports of a destination have to be
        looked up by name, the classes with each combination of named ports."""
        found = [NOBODY if ranked.rule.peers is None else self._label_part(ranked.rule) for ranked in rules]
        if direction is Direction.EGRESS and any(_has_names(ranked.rule) for ranked in rules):
            found += [self.labels.named.get(names) for names in self.labels.named]
        return found

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
        named = direction is Direction.EGRESS and any(_has_names(ranked.rule) for ranked in rules)
        row = self._rows[direction][key] = Row(
            profile=profile,
            rules=rules,
            always=[place for place, ranked in enumerate(rules) if ranked.rule.peers is None],
            tiers=tuple(sorted({self._rank[self.policies[k].tier] for k in profile})),
            names=names,
            groups=[*self.labels.named] if named else None,
            size=len(self.labels),
            touched=touched,
            combos=combos,
            label_sets=label_sets,
            cuts=cuts,
            zones=zone_of,
            zone_sets=zone_sets,
            table=np.full((len(label_sets), len(zone_sets)), UNKNOWN, np.uint32),
        )
        return row

    def _grow(self, row: Row) -> None:
        """Take in the label classes born since the row was made."""
        touched: list[int] = []
        combos: list[int] = []
        for number in range(row.size, len(self.labels)):
            members = [
                place
                for place, ranked in enumerate(row.rules)
                if any(self.labels.holds(peer, number, ranked.rule.action) for peer in ranked.rule.peers or ())
            ]
            names = self.labels.keys[number][3]
            if row.groups is not None and names:
                if names not in row.groups:
                    row.groups.append(names)
                members.append(len(row.rules) + row.groups.index(names))
            if members:
                if tuple(members) not in row.label_sets:
                    row.label_sets.append(tuple(members))
                    row.completed = 0
                    row.table = np.vstack([row.table, np.full((1, row.table.shape[1]), UNKNOWN, np.uint32)])
                touched.append(number)
                combos.append(row.label_sets.index(tuple(members)))
        row.size = len(self.labels)
        row.touched = np.append(row.touched, np.array(touched, np.int32))
        row.combos = np.append(row.combos, np.array(combos, np.int32))

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
        combo, zone = row.combo(self.classes.label[peer]), row.zone(self.classes.address[peer])
        return self.port_sets[self.values.value(row, combo, zone)]

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
