"""Who can reach whom on which ports, for a whole cluster: one row per *profile*, one column per class.

A profile is the set of policies that select a class in one direction; classes with the same profile share a row. Rows are
sparse: a default port set for peers that no rule names, and (class, port set) for those that some rule does. Within a row,
peers that match the same rules get the same ports, so the tiers are walked once per distinct combination of rules:

    policies ─▶ profile ─▶ rules ─▶ peers' classes ─▶ combinations of rules ─▶ port sets
                                    int32 postings     bit rows, made unique     interned, walked once each

``ports(i, j)`` answers for two endpoints, exemptions included; ``cells()`` spells out the class matrix. ``evaluate.decide``
is the obvious twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, NO_PORTS, PortSet
from netsim_policies.classes import Classes, Ids, Vocabulary
from netsim_policies.evaluate import exemption, rule_ports
from netsim_policies.model import Action, Direction, Endpoint, EndpointKind, NamedPort, Policy, Rule, World

Key = tuple[str, str, str]  # kind, namespace, name


@dataclass(frozen=True, slots=True)
class Row:
    """Port-set numbers of one profile: ``values[k]`` for class ``touched[k]``, ``default`` for every other class."""

    default: int
    touched: Ids
    values: npt.NDArray[np.uint32]

    def at(self, number: int) -> int:
        place = int(np.searchsorted(self.touched, number))
        if place < len(self.touched) and self.touched[place] == number:
            return int(self.values[place])
        return self.default


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A policy's rule with its place in the walk."""

    tier: int
    rule: Rule


class Matrix:
    """The answer to every (pair, port) question over one family.

    >>> Matrix(world).ports(0, 1)        # doctest: +SKIP
    PortSet(tcp=((80, 80),), ...)
    """

    def __init__(self, world: World, family: Family = Family.IPV4) -> None:
        self.world = world
        self.family = family
        self.endpoints = world.endpoints
        self._policies: dict[Key, Policy] = {_key(p): p for p in world.policies}
        self._tier_rank = {tier.name: rank for rank, tier in enumerate(world.tiers)}
        self.port_sets: list[PortSet] = [NO_PORTS, ALL_PORTS]
        self._port_ids: dict[PortSet, int] = {NO_PORTS: 0, ALL_PORTS: 1}
        self._rebuild()

    # -- building ----------------------------------------------------------------------------------------------------
    def _rebuild(self) -> None:
        self.vocabulary = Vocabulary(self._policies.values(), self.family)
        self.classes = Classes(self.endpoints, self.vocabulary)
        self._selecting: dict[Direction, list[set[Key]]] = {
            d: [set() for _ in range(len(self.classes))] for d in Direction
        }
        self._rows: dict[tuple[Direction, frozenset[Key], object], Row] = {}
        self._peers: dict[int, tuple[Rule, Ids]] = {}
        for key, policy in self._policies.items():
            self._select(key, policy)

    def _select(self, key: Key, policy: Policy) -> None:
        chosen = self.classes.scope(policy.subject).tolist()
        for direction in policy.directions:
            selecting = self._selecting[direction]
            for number in chosen:
                selecting[number].add(key)

    def update(self, removed: Iterable[Policy] = (), added: Iterable[Policy] = ()) -> None:
        """Replace policies in place. Rows of profiles without a changed policy stay; classes are made anew only when a
        new policy asks about labels, port names or block borders that no policy asked about before."""
        changed: set[Key] = set()
        for policy in removed:
            key = _key(policy)
            changed.add(key)
            held = self._policies.pop(key)
            for direction in held.directions:
                for number in self.classes.scope(held.subject).tolist():
                    self._selecting[direction][number].discard(key)
        fresh = tuple(added)
        for policy in fresh:
            self._policies[_key(policy)] = policy
            changed.add(_key(policy))
        self.world = World(self.endpoints, tuple(self._policies.values()), self.world.namespaces, self.world.tiers)
        if not self.vocabulary.covers(Vocabulary(fresh, self.family)):
            self._rebuild()
            return
        for policy in fresh:
            self._select(_key(policy), policy)
        self._rows = {key: row for key, row in self._rows.items() if not key[1] & changed}

    # -- rows --------------------------------------------------------------------------------------------------------
    def row(self, number: int, direction: Direction) -> Row:
        """The row of class ``number`` as a subject: over peers' classes, which ports its side allows."""
        subject = self.classes.examples[number]
        profile = frozenset(self._selecting[direction][number])
        rules = self._rules(profile, direction)
        names: object = None
        if direction is Direction.INGRESS and any(_has_names(r.rule) for r in rules):
            names = self.classes.keys[number][3]  # the subject's own named ports take part
        key = (direction, profile, names)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._fill(rules, profile, subject, direction)
        return row

    def _rules(self, profile: frozenset[Key], direction: Direction) -> list[_Ranked]:
        policies = sorted(
            (self._policies[key] for key in profile),
            key=lambda p: (self._tier_rank[p.tier], p.priority, p.namespace, p.name),
        )
        return [
            _Ranked(self._tier_rank[policy.tier], rule)
            for policy in policies
            for rule in policy.rules(direction)
            if rule.action is not Action.LOG
        ]

    def _fill(self, rules: list[_Ranked], profile: frozenset[Key], subject: Endpoint, direction: Direction) -> Row:
        selected = {self._tier_rank[self._policies[key].tier] for key in profile}
        if not rules:
            return Row(self._walk((), selected, subject), np.empty(0, np.int32), np.empty(0, np.uint32))
        named = direction is Direction.EGRESS and any(_has_names(r.rule) for r in rules)
        everyone = np.arange(len(self.classes), dtype=np.int32)
        groups = [None if r.rule.peers is None else self._peer_ids(r.rule) for r in rules]
        if named:  # the ports of a named port differ by destination: every pod class may be special
            touched = everyone
        else:
            parts = [ids for ids in groups if ids is not None]
            touched = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int32)
        always = [r for r, ids in zip(rules, groups, strict=True) if ids is None]
        default = self._walk(always, selected, subject if direction is Direction.INGRESS else _NOBODY)
        if not len(touched):
            return Row(default, touched, np.empty(0, np.uint32))
        combinations, inverse = self._combinations(touched, groups, named)
        numbers = touched[combinations]
        hits = [None if ids is None else _holds(ids, numbers) for ids in groups]
        ids_of = np.empty(len(combinations), np.uint32)
        for place, number in enumerate(numbers.tolist()):
            matching = [r for r, hit in zip(rules, hits, strict=True) if hit is None or hit[place]]
            destination = subject if direction is Direction.INGRESS else self.classes.examples[number]
            ids_of[place] = self._walk(matching, selected, destination)
        return Row(default, touched, ids_of[inverse])

    def _combinations(
        self, touched: Ids, groups: list[Ids | None], named: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
        """Places in ``touched`` that match the same rules share a combination: (an example of each, which one each is).

        The rules that match are bits of 64-bit words; words after the first refine the numbering of those before."""
        numbering = self.classes.name_groups.astype(np.uint64) if named else np.zeros(len(touched), np.uint64)
        peers = [ids for ids in groups if ids is not None]
        for start in range(0, max(len(peers), 1), _WORD):
            word = np.zeros(len(touched), np.uint64)
            for bit, ids in enumerate(peers[start : start + _WORD]):
                word[np.searchsorted(touched, ids)] |= np.uint64(1 << bit)
            _, inverse = np.unique(word | (numbering << np.uint64(_WORD)), return_inverse=True)
            numbering = inverse.astype(np.uint64)
        count = int(numbering.max()) + 1
        example = np.empty(count, np.int64)
        example[numbering.astype(np.intp)] = np.arange(len(touched))
        return example, numbering.astype(np.intp)

    def _peer_ids(self, rule: Rule) -> Ids:
        held = self._peers.get(id(rule))
        if held is None or held[0] is not rule:
            parts = [self.classes.peer(peer, rule.action) for peer in rule.peers or ()]
            ids = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
            held = self._peers[id(rule)] = (rule, ids)
        return held[1]

    def _walk(self, rules: Sequence[_Ranked], selected: set[int], destination: Endpoint) -> int:
        """The ports that one side allows when exactly ``rules`` match the peer: first match wins, tier by tier."""
        allowed, undecided = NO_PORTS, ALL_PORTS
        by_tier: dict[int, list[Rule]] = {}
        for ranked in rules:
            by_tier.setdefault(ranked.tier, []).append(ranked.rule)
        for rank in sorted(selected):
            passed = NO_PORTS
            for rule in by_tier.get(rank, ()):
                hit = rule_ports(rule, destination) & undecided
                undecided -= hit
                if rule.action is Action.ALLOW:
                    allowed |= hit
                elif rule.action is Action.PASS:
                    passed |= hit
            undecided = passed if self.world.tiers[rank].unmatched is Action.DENY else undecided | passed
            if not undecided:
                break
        return self.intern(allowed | undecided)

    def intern(self, ports: PortSet) -> int:
        number = self._port_ids.get(ports)
        if number is None:
            number = self._port_ids[ports] = len(self.port_sets)
            self.port_sets.append(ports)
        return number

    # -- answers -----------------------------------------------------------------------------------------------------
    def ports(self, source: int, destination: int) -> PortSet:
        """The ports that endpoint ``source`` may reach on endpoint ``destination``, exemptions included."""
        a, b = self.endpoints[source], self.endpoints[destination]
        out = self._side(a, b, source, destination, Direction.EGRESS)
        return out & self._side(a, b, source, destination, Direction.INGRESS) if out else out

    def _side(self, a: Endpoint, b: Endpoint, source: int, destination: int, direction: Direction) -> PortSet:
        if exemption(a, b, direction):
            return ALL_PORTS
        subject, peer = (destination, source) if direction is Direction.INGRESS else (source, destination)
        row = self.row(int(self.classes.of[subject]), direction)
        return self.port_sets[row.at(int(self.classes.of[peer]))]

    def class_ports(self, source: int, destination: int) -> PortSet:
        """Between two classes, for members that are not exempt (not the same pod, not a pod and its own node)."""
        egress = self.port_sets[self.row(source, Direction.EGRESS).at(destination)]
        return egress & self.port_sets[self.row(destination, Direction.INGRESS).at(source)] if egress else egress

    def cells(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The class matrix: ``port_sets[cells[s, d]]`` is what class s may reach on class d.

        Shape (classes, classes), dtype uint16, or uint32 beyond 65,535 distinct port sets; built by a numba kernel
        (``combine``)."""
        from netsim_policies.combine import combine

        return combine(self)


_WORD = 40  # bits of rules a round; the numbering so far goes above them
_NOBODY = Endpoint(kind=EndpointKind.EXTERNAL, name="")


def _key(policy: Policy) -> Key:
    return policy.kind, policy.namespace, policy.name


def _has_names(rule: Rule) -> bool:
    return any(isinstance(port, NamedPort) for port in rule.ports or ())


def _holds(ids: Ids, numbers: Ids) -> list[bool]:
    """Which of ``numbers`` are in the sorted ``ids``."""
    if not len(ids):
        return [False] * len(numbers)
    found: list[bool] = (ids[np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)] == numbers).tolist()
    return found
