"""Classes of endpoints that no policy can tell apart, and look-ups from selectors to classes.

A policy sees a pod only through its namespace, the labels its selectors mention, its named ports, and the ipBlocks its
addresses lie in. Two endpoints that agree on all of these get the same answer to every question, so answers are computed
per class: 150,000 pods of a real cluster are a few thousand classes.

    label pair ──▶ sorted class numbers      (postings; a selector intersects them, smallest first)
    address    ──▶ atom (the set of blocks that hold it) ──▶ class numbers

Class numbers are ``int32`` arrays, sorted and unique; nothing here depends on the number of endpoints per class.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.kube.selectors import matches
from netsim.packet.address import Family, family_of
from netsim_policies.algebra import AddressSet
from netsim_policies.evaluate import peer_matches, requirements
from netsim_policies.model import (
    Action,
    AddressPeer,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NamedPort,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    Scope,
    Selector,
)

Ids = npt.NDArray[np.int32]
_NOBODY: Ids = np.empty(0, np.int32)


def _scopes(policy: Policy) -> Iterator[Scope]:
    yield policy.subject
    for rule in (*policy.ingress, *policy.egress):
        for peer in rule.peers or ():
            if isinstance(peer, PodPeer):
                yield peer.scope


def _peers(policies: Iterable[Policy]) -> Iterator[Peer]:
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            yield from rule.peers or ()


class Vocabulary:
    """What the policies can ask about: label keys with the values they name, port names, block borders."""

    def __init__(self, policies: Iterable[Policy], family: Family) -> None:
        chosen = tuple(policies)
        self.family = family
        self.pod_keys = self._keys(scope.pods for policy in chosen for scope in _scopes(policy))
        self.namespace_keys = self._keys(scope.namespaces or {} for policy in chosen for scope in _scopes(policy))
        self.node_keys = self._keys(peer.nodes for peer in _peers(chosen) if isinstance(peer, NodePeer))
        self.port_names = {
            port.name
            for policy in chosen
            for rule in (*policy.ingress, *policy.egress)
            for port in rule.ports or ()
            if isinstance(port, NamedPort)
        }
        self.domains = any(isinstance(peer, DomainPeer) for peer in _peers(chosen))
        self.blocks = {self.ranges(p.addresses) for p in _peers(chosen) if isinstance(p, AddressPeer)}
        self.borders, self._groups = self._atoms()

    def _atoms(self) -> tuple[list[int], list[int]]:
        """Borders of all blocks in order, and for each piece between two borders the number of the set of blocks that
        hold it: pieces in the same blocks are one atom, however far apart."""
        opening: dict[int, list[int]] = {}
        closing: dict[int, list[int]] = {}
        for number, ranges in enumerate(sorted(self.blocks)):
            for low, high in ranges:
                opening.setdefault(low, []).append(number)
                closing.setdefault(high + 1, []).append(number)
        borders = sorted({*opening, *closing})
        inside: set[int] = set()
        known: dict[frozenset[int], int] = {frozenset(): 0}
        groups = [0]
        for border in borders:
            inside.difference_update(closing.get(border, ()))
            inside.update(opening.get(border, ()))
            groups.append(known.setdefault(frozenset(inside), len(known)))
        return borders, groups

    @staticmethod
    def _keys(selectors: Iterable[Selector]) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for selector in selectors:
            for key, _, values in requirements(selector):
                found.setdefault(key, set()).update(values)
        return {key: frozenset(values) for key, values in found.items()}

    def ranges(self, addresses: AddressSet) -> tuple[tuple[int, int], ...]:
        return addresses.v4 if self.family is Family.IPV4 else addresses.v6

    def atom(self, value: int) -> int:
        """The number of the set of blocks that hold the address ``value``."""
        return self._groups[bisect_right(self.borders, value)]

    def atoms(self, low: int, high: int) -> set[int]:
        """The atoms of all addresses from ``low`` to ``high``."""
        return set(self._groups[bisect_right(self.borders, low) : bisect_right(self.borders, high) + 1])

    def covers(self, other: Vocabulary) -> bool:
        """Can every question of ``other`` be answered with classes made for this vocabulary?"""
        pairs = (
            (self.pod_keys, other.pod_keys),
            (self.namespace_keys, other.namespace_keys),
            (self.node_keys, other.node_keys),
        )
        return (
            all(key in mine and values <= mine[key] for mine, theirs in pairs for key, values in theirs.items())
            and other.port_names <= self.port_names
            and other.blocks <= self.blocks
            and self.domains >= other.domains
        )

    def labels(
        self, keys: Mapping[str, frozenset[str]], labels: Mapping[str, str]
    ) -> tuple[tuple[str, str | None], ...]:
        """The part of ``labels`` that a selector can see; a value that none names is as good as any other (None)."""
        if len(labels) < len(keys):
            return tuple(sorted((k, v if v in keys[k] else None) for k, v in labels.items() if k in keys))
        return tuple((k, labels[k] if labels[k] in keys[k] else None) for k in sorted(keys) if k in labels)

    def key(self, endpoint: Endpoint) -> tuple[Any, ...]:
        """Equal for two endpoints exactly when no question can tell them apart."""
        if endpoint.outside is not None:
            atoms = tuple(sorted({self.atom(low) for low, _ in self.ranges(endpoint.outside)}))
            return "outside", atoms, endpoint.name if self.domains else ""
        atoms = tuple(sorted({self.atom(int(a)) for a in endpoint.addresses if family_of(a) is self.family}))
        if endpoint.kind is EndpointKind.NODE or endpoint.host_network:
            return "node", atoms, self.labels(self.node_keys, endpoint.node_labels), endpoint.kind
        names = tuple(sorted((k, v) for k, v in endpoint.named_ports.items() if k[0] in self.port_names))
        return "pod", endpoint.namespace, self.labels(self.pod_keys, endpoint.labels), names, atoms


class Classes:
    """The classes of a set of endpoints; ``of[i]`` is the class of endpoint i, ``examples[c]`` a member of class c."""

    def __init__(self, endpoints: tuple[Endpoint, ...], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.of: Ids = np.empty(len(endpoints), np.int32)
        self.examples: list[Endpoint] = []
        self.keys: list[tuple[Any, ...]] = []
        known: dict[tuple[Any, ...], int] = {}
        key_of = vocabulary.key
        for index, endpoint in enumerate(endpoints):
            key = key_of(endpoint)
            number = known.get(key)
            if number is None:
                number = known[key] = len(self.examples)
                self.examples.append(endpoint)
                self.keys.append(key)
            self.of[index] = number
        self.sizes = np.bincount(self.of, minlength=len(self.examples))
        self._index()

    def __len__(self) -> int:
        return len(self.examples)

    def _index(self) -> None:
        pairs: dict[tuple[str, str | None], list[int]] = {}
        present: dict[str, list[int]] = {}
        spaces: dict[str, list[int]] = {}
        atoms: dict[int, list[int]] = {}
        nodes: list[int] = []
        for number, key in enumerate(self.keys):
            if key[0] == "pod":
                spaces.setdefault(key[1], []).append(number)
                for label, value in key[2]:
                    pairs.setdefault((label, value), []).append(number)
                    present.setdefault(label, []).append(number)
            elif key[0] == "node":
                nodes.append(number)
            for atom in key[4] if key[0] == "pod" else key[1]:
                atoms.setdefault(atom, []).append(number)
        self._pairs = {k: np.array(v, np.int32) for k, v in pairs.items()}
        self._present = {k: np.array(v, np.int32) for k, v in present.items()}
        self._spaces = {k: np.array(v, np.int32) for k, v in spaces.items()}
        self._atoms = {k: np.array(v, np.int32) for k, v in atoms.items()}
        self._nodes = np.array(nodes, np.int32)
        self._pods = np.sort(np.concatenate([_NOBODY, *self._spaces.values()])).astype(np.int32)
        self._space_labels = {name: self.examples[int(ids[0])].namespace_labels for name, ids in self._spaces.items()}
        self._scope_cache: dict[Any, Ids] = {}
        self._spaces_cache: dict[Any, Ids] = {}

    @cached_property
    def name_groups(self) -> npt.NDArray[np.uint32]:
        """Classes numbered by their named ports; 0 for endpoints without any."""
        known: dict[object, int] = {(): 0}
        numbers = (known.setdefault(key[3] if key[0] == "pod" else (), len(known)) for key in self.keys)
        return np.fromiter(numbers, np.uint32, len(self.keys))

    # -- selectors ---------------------------------------------------------------------------------------------------
    def scope(self, scope: Scope) -> Ids:
        """The classes of pods in ``scope``."""
        key = (scope.namespace, _frozen(scope.namespaces), _frozen(scope.pods))
        found = self._scope_cache.get(key)
        if found is None:
            found = self._scope_cache[key] = self._scope(scope)
        return found

    def _scope(self, scope: Scope) -> Ids:
        parts: list[Ids] = []  # intersected, smallest first
        if scope.namespace is not None:
            parts.append(self._spaces.get(scope.namespace, _NOBODY))
        if scope.namespaces is not None:
            if _frozen(scope.namespaces):
                parts.append(self._in_namespaces(scope.namespaces))
        excluded: list[Ids] = []
        for key, operator, values in requirements(scope.pods):
            named = [self._pairs[key, value] for value in values if (key, value) in self._pairs]
            match operator:
                case "In":
                    parts.append(named[0] if len(named) == 1 else _union(named))
                case "Exists":
                    parts.append(self._present.get(key, _NOBODY))
                case "NotIn":
                    excluded += named
                case "DoesNotExist":
                    excluded.append(self._present.get(key, _NOBODY))
        if not parts:
            found = self._pods
        else:
            parts.sort(key=len)
            found = reduce(_intersection, parts)
        for ids in excluded:
            found = found[~np.isin(found, ids, assume_unique=True)]
        return found

    def _in_namespaces(self, selector: Selector) -> Ids:
        """The classes in namespaces that ``selector`` selects."""
        wanted = _frozen(selector)
        found = self._spaces_cache.get(wanted)
        if found is None:
            chosen = [self._spaces[name] for name, labels in self._space_labels.items() if matches(selector, labels)]
            found = self._spaces_cache[wanted] = np.sort(np.concatenate(chosen)) if chosen else _NOBODY
        return found

    # -- peers -------------------------------------------------------------------------------------------------------
    def peer(self, peer: Peer, action: Action) -> Ids:
        """The classes that a rule's peer means."""
        match peer:
            case PodPeer(scope):
                return self.scope(scope)
            case AddressPeer(addresses):
                return self._blocks(addresses)
            case _:  # nodes, names and unknown peers are few: ask about each class
                chosen = range(len(self)) if not isinstance(peer, NodePeer) else self._nodes.tolist()
                found = [c for c in chosen if peer_matches(peer, self.examples[c], self.vocabulary.family, action)]
                return np.array(found, np.int32)

    def _blocks(self, addresses: AddressSet) -> Ids:
        wanted: set[int] = set()
        for low, high in self.vocabulary.ranges(addresses):
            wanted |= self.vocabulary.atoms(low, high)
        return _union([self._atoms[atom] for atom in wanted if atom in self._atoms])


def _frozen(selector: Selector | None) -> Any:
    return None if selector is None else tuple(sorted(requirements(selector)))


def _union(parts: list[Ids]) -> Ids:
    if not parts:
        return _NOBODY
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))


def _intersection(small: Ids, large: Ids) -> Ids:
    """Both sorted and unique; cheap when one is much smaller."""
    if not len(small) or not len(large):
        return _NOBODY
    at = np.minimum(np.searchsorted(large, small), len(large) - 1)
    found: Ids = small[large[at] == small]
    return found
