"""Classes of endpoints by what selectors see of them, and which of them each scope selects.

    word (label pair, key) ──▶ sorted label-class numbers      (postings; a selector intersects them, smallest first)
    scope                  ──▶ sorted label-class numbers      (kept: a class that is born or whose namespace has other
                                                                labels is offered to the scopes it can concern alone)

Numbers are dense and never reused; arrays of them are ``int32``, sorted and unique.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.kube.selectors import matches
from netsim_policies.evaluate import in_scope, peer_matches
from netsim_policies.model import Action, AddressPeer, Endpoint, Peer, PodPeer, Rule, Scope, Selector, requirements
from netsim_policies.vocabulary import LabelKey, Names

Ids = npt.NDArray[np.int32]
NOBODY: Ids = np.empty(0, np.int32)


class Postings:
    """Sorted numbers by key; the arrays are made when asked for."""

    def __init__(self) -> None:
        self._lists: dict[Any, list[int]] = {}
        self._arrays: dict[Any, Ids] = {}

    def add(self, key: Any, number: int) -> None:
        """``number`` is larger than all that the key has."""
        self._lists.setdefault(key, []).append(number)
        self._arrays.pop(key, None)

    def get(self, key: Any) -> Ids:
        found = self._arrays.get(key)
        if found is None:
            held = self._lists.get(key)
            if held is None:
                return NOBODY
            found = self._arrays[key] = np.array(held, np.int32)
        return found

    def first(self, key: Any) -> int:
        return self._lists[key][0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._lists)


class LabelClasses:
    """``keys[n]`` is what selectors see of label class n, ``examples[n]`` one who looks like its members, and
    ``name_sets[group[n]]`` the named ports that some rule can ask it for."""

    def __init__(self, family: Any) -> None:
        self.family = family
        self.keys: list[LabelKey] = []
        self.examples: list[Endpoint] = []
        self.group: list[int] = []
        self.name_sets: list[Names] = [()]
        self.several: list[int] = []  # label classes of endpoints with several addresses in blocks
        self._numbers: dict[LabelKey, int] = {}
        self._groups: dict[Names, int] = {(): 0}
        self._words, self._spaces, self._kinds = Postings(), Postings(), Postings()
        self._space_pairs: dict[tuple[str, str], list[str]] | None = None  # label pair → namespaces
        self._scopes: dict[Any, Scope] = {}  # all that were asked for
        self._ids: dict[Any, Ids] = {}  # by scope
        self._concerned: dict[Any, list[Any]] = {}  # what a pod must have → scopes

    def __len__(self) -> int:
        return len(self.keys)

    def number(self, key: LabelKey, example: Endpoint) -> int:
        """The class with this key; a new one if there is none. Whoever makes one offers it to the scopes (``born``)."""
        found = self._numbers.get(key)
        if found is not None:
            return found
        number = self._numbers[key] = len(self.keys)
        self.keys.append(key)
        self.examples.append(example)
        self.group.append(self._group(key[3]))
        kind, space, words, _, several = key
        self._kinds.add(kind, number)
        if kind == "pod":
            self._spaces.add(space, number)
            self._space_pairs = None
            for word in words:
                self._words.add(word, number)
        if several:
            self.several.append(number)
        return number

    def rename(self, number: int, key: LabelKey) -> None:
        """All members of a class share words that are new. Classes are renamed in ascending order."""
        old = self.keys[number]
        if self._numbers.get(old) == number:
            del self._numbers[old]
        self._numbers[key] = number
        self.keys[number] = key
        self.group[number] = self._group(key[3])
        if key[0] == "pod":
            for word in set(key[2]).difference(old[2]):
                self._words.add(word, number)

    def forget(self, number: int) -> None:
        """Nobody is of this class any more, and nobody will be."""
        if self._numbers.get(self.keys[number]) == number:
            del self._numbers[self.keys[number]]

    def _group(self, names: Names) -> int:
        number = self._groups.setdefault(names, len(self.name_sets))
        if number == len(self.name_sets):
            self.name_sets.append(names)
        return number

    def in_space(self, name: str) -> Ids:
        return self._spaces.get(name)

    # -- scopes ------------------------------------------------------------------------------------------------------
    def scope(self, scope: Scope) -> Ids:
        """The label classes of pods in ``scope``."""
        held = self._ids.get(scope.key)
        if held is None:
            held = self._ids[scope.key] = self._evaluate(scope)
            self._scopes[scope.key] = scope
            for need in _needs(scope):
                self._concerned.setdefault(need, []).append(scope.key)
        return held

    def born(self, number: int) -> list[Any]:
        """Take a new class into the scopes that select it; their keys."""
        example = self.examples[number]
        found = [key for key in self._candidates(number) if in_scope(self._scopes[key], example)]
        for key in found:
            self._ids[key] = np.append(self._ids[key], np.int32(number))
        return found

    def relabel(self, name: str, labels: Mapping[str, str]) -> dict[Any, list[int]]:
        """Give a namespace other labels: the scopes that select other classes than before, and which these are."""
        inside = self.in_space(name).tolist()
        if not inside:
            return {}
        old = self.examples[inside[0]].namespace_labels
        offered: dict[int, set[Any]] = {number: {*self._candidates(number)} for number in inside}
        for number in inside:
            self.examples[number] = replace(self.examples[number], namespace_labels=labels)
            offered[number].update(self._candidates(number))
        self._space_pairs = None
        turns: dict[Any, bool] = {}
        found: dict[Any, list[int]] = {}
        for number, keys in offered.items():
            for key in keys:
                scope = self._scopes[key]
                if key[1] not in turns:
                    turns[key[1]] = matches(scope.namespaces, old) != matches(scope.namespaces, labels)
                if turns[key[1]] and matches(scope.pods, self.examples[number].labels):
                    found.setdefault(key, []).append(number)
        for key, numbers in found.items():
            self._ids[key] = np.setxor1d(self._ids[key], np.array(numbers, np.int32), assume_unique=True)
        return found

    def _candidates(self, number: int) -> Iterator[Any]:
        """The scopes that may select a class."""
        kind, space, words, _, _ = self.keys[number]
        if kind == "pod":
            for word in words:
                yield from self._concerned.get((space, word), ())
                yield from self._concerned.get((None, word), ())
            for pair in self.examples[number].namespace_labels.items():
                yield from self._concerned.get((None, None, pair), ())
            yield from self._concerned.get((space, None), ())
            yield from self._concerned.get((None, None), ())

    def _evaluate(self, scope: Scope) -> Ids:
        parts: list[Ids] = []  # intersected, smallest first
        if scope.namespace is not None:
            parts.append(self._spaces.get(scope.namespace))
        if scope.namespaces:
            parts.append(self.scope(Scope(namespaces=scope.namespaces)) if scope.pods else self._in(scope.namespaces))
        excluded: list[Ids] = []
        for key, operator, values in requirements(scope.pods):
            match operator:
                case "In":
                    parts.append(union([self._words.get((key, value)) for value in values]))
                case "Exists":
                    parts.append(self._words.get((key,)))
                case "NotIn":
                    excluded += [self._words.get((key, value)) for value in values]
                case "DoesNotExist":
                    excluded.append(self._words.get((key,)))
        parts.sort(key=len)
        found = reduce(intersection, parts) if parts else self._kinds.get("pod")
        for ids in excluded:
            found = found[~np.isin(found, ids, assume_unique=True)]
        return found

    def _in(self, selector: Selector) -> Ids:
        """In the namespaces that ``selector`` selects."""
        if self._space_pairs is None:
            self._space_pairs = {}
            for name in self._spaces:
                for pair in self.space_labels(name).items():
                    self._space_pairs.setdefault(pair, []).append(name)
        first = next(iter(requirements(selector)), ("", "", ()))
        names: Iterable[str] = self._spaces
        if first[1] == "In":
            names = [name for value in set(first[2]) for name in self._space_pairs.get((first[0], value), ())]
        chosen = [self._spaces.get(name) for name in names if matches(selector, self.space_labels(name))]
        return np.sort(np.concatenate(chosen)) if chosen else NOBODY

    def space_labels(self, name: str) -> Mapping[str, str]:
        """Of a namespace that some pod is in."""
        return self.examples[self._spaces.first(name)].namespace_labels

    # -- peers -------------------------------------------------------------------------------------------------------
    def rule(self, rule: Rule) -> Ids:
        """The label classes whose labels make a peer of ``rule`` match, wherever their addresses are."""
        return union([self._peer(peer, rule.action) for peer in rule.peers or ()])

    def _peer(self, peer: Peer, action: Action) -> Ids:
        if isinstance(peer, PodPeer):
            return self.scope(peer.scope)
        # nodes, names and unknown peers are few; blocks are asked only about endpoints with several addresses
        chosen = self.several if isinstance(peer, AddressPeer) else range(len(self))
        return np.array([n for n in chosen if self.holds(peer, n, action)], np.int32)

    def holds(self, peer: Peer, number: int, action: Action) -> bool:
        """Does ``peer`` match label class ``number`` by what its key says?"""
        if isinstance(peer, AddressPeer) and not self.keys[number][4]:
            return False
        return peer_matches(peer, self.examples[number], self.family, action)


def _needs(scope: Scope) -> list[Any]:
    """What a pod must have to be in ``scope``, one of these: a word of its selector in its namespace, a label of its
    namespaces, its namespace; (None, None) if nothing is certain."""
    for key, operator, values in requirements(scope.pods):
        if operator == "In":
            return [(scope.namespace, word) for word in {(key, value) for value in values}]
    if scope.namespace is None and scope.namespaces is not None:
        for key, operator, values in requirements(scope.namespaces):
            if operator == "In":
                return [(None, None, pair) for pair in {(key, value) for value in values}]
    return [(scope.namespace, None)]


def union(parts: list[Ids]) -> Ids:
    if not parts:
        return NOBODY
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))


def intersection(small: Ids, large: Ids) -> Ids:
    """Both sorted and unique; cheap when one is much smaller."""
    if not len(small) or not len(large):
        return NOBODY
    at = np.minimum(np.searchsorted(large, small), len(large) - 1)
    found: Ids = small[large[at] == small]
    return found
