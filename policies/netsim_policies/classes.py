"""Classes of endpoints that no policy can tell apart, and look-ups from selectors to classes.

Answers are computed per class: 150,000 pods of a real cluster are a few thousand. A class is a *label class* (what
selectors see) together with the blocks that hold its address; the two are kept apart, so that thousands of blocks over pod
addresses multiply neither the postings nor the rows of the matrix:

    label pair ──▶ sorted label-class numbers      (postings; a selector intersects them, smallest first)
    endpoint   ──▶ class = (label class, print of its address)

Numbers are dense and never reused; arrays of them are ``int32``, sorted and unique. Both kinds of class only grow: a class
that lost its last member keeps its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.kube.selectors import matches
from netsim_policies.evaluate import in_scope, peer_matches, requirements
from netsim_policies.model import Action, AddressPeer, Endpoint, Peer, PodPeer, Rule, Scope, Selector
from netsim_policies.vocabulary import LabelKey, Vocabulary, Words

Ids = npt.NDArray[np.int32]
Words64 = npt.NDArray[np.uint64]
NOBODY: Ids = np.empty(0, np.int32)
NO_CLASS = -1


class Postings:
    """Sorted numbers by key; the arrays are made when asked for."""

    def __init__(self) -> None:
        self._lists: dict[Any, list[int]] = {}
        self._arrays: dict[Any, Ids] = {}

    def add(self, key: Any, number: int) -> None:
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
    """``keys[n]`` is what selectors see of label class n, ``examples[n]`` a member of it."""

    def __init__(self, family: Any) -> None:
        self.family = family
        self.keys: list[LabelKey] = []
        self.examples: list[Endpoint] = []
        self.named = Postings()  # by named ports, for classes that have any
        self._numbers: dict[LabelKey, int] = {}
        self._pairs, self._present, self._spaces, self._kinds = Postings(), Postings(), Postings(), Postings()
        self._several: list[int] = []
        self._space_pairs: dict[tuple[str, str], list[str]] | None = None  # label pair → namespaces
        self._cache: dict[Any, tuple[Scope, Ids, int]] = {}  # with the number of label classes it knows

    def __len__(self) -> int:
        return len(self.keys)

    def number(self, key: LabelKey, endpoint: Endpoint) -> int:
        """The class with this key; a new one, with ``endpoint`` as its example, if there is none."""
        found = self._numbers.get(key)
        if found is not None:
            return found
        number = self._numbers[key] = len(self.keys)
        self.keys.append(key)
        self.examples.append(endpoint)
        kind, space, labels, names, several = key
        self._kinds.add(kind, number)
        if kind == "pod":
            self._spaces.add(space, number)
            self._space_pairs = None
            for pair in labels:
                self._pairs.add(pair, number)
                self._present.add(pair[0], number)
        if names:
            self.named.add(names, number)
        if several:
            self._several.append(number)
        return number

    def in_space(self, name: str) -> Ids:
        return self._spaces.get(name)

    def with_pair(self, key: str, value: str | None) -> Ids:
        """Of pods with the label; None: with a value that no selector names."""
        return self._pairs.get((key, value))

    # -- selectors ---------------------------------------------------------------------------------------------------
    def scope(self, scope: Scope) -> Ids:
        """The label classes of pods in ``scope``."""
        key = (scope.namespace, frozen(scope.namespaces), frozen(scope.pods))
        held = self._cache.get(key)
        if held is None:
            ids = self._scope(scope)
        elif held[2] == len(self):
            return held[1]
        else:  # some were born since
            born = [n for n in range(held[2], len(self)) if in_scope(scope, self.examples[n])]
            ids = np.concatenate([held[1], np.array(born, np.int32)]) if born else held[1]
        self._cache[key] = (scope, ids, len(self))
        return ids

    def forget_namespaces(self, turned: Callable[[Selector], bool]) -> None:
        """The namespace selectors that have ``turned`` select other namespaces than they did."""
        self._space_pairs = None
        for key, (scope, _, _) in list(self._cache.items()):
            if scope.namespaces and turned(scope.namespaces):
                del self._cache[key]

    def _scope(self, scope: Scope) -> Ids:
        parts: list[Ids] = []  # intersected, smallest first
        if scope.namespace is not None:
            parts.append(self._spaces.get(scope.namespace))
        if scope.namespaces:
            parts.append(self.scope(Scope(namespaces=scope.namespaces)) if scope.pods else self._in(scope.namespaces))
        excluded: list[Ids] = []
        for key, operator, values in requirements(scope.pods):
            match operator:
                case "In":
                    parts.append(union([self._pairs.get((key, value)) for value in values]))
                case "Exists":
                    parts.append(self._present.get(key))
                case "NotIn":
                    excluded += [self._pairs.get((key, value)) for value in values]
                case "DoesNotExist":
                    excluded.append(self._present.get(key))
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
        chosen = [self._spaces.get(name) for name in names if matches(dict(selector), self.space_labels(name))]
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
        chosen = self._several if isinstance(peer, AddressPeer) else range(len(self))
        return np.array([n for n in chosen if self.holds(peer, n, action)], np.int32)

    def holds(self, peer: Peer, number: int, action: Action) -> bool:
        """Does ``peer`` match label class ``number`` by what its key says?"""
        if isinstance(peer, AddressPeer) and not self.keys[number][4]:
            return False
        return peer_matches(peer, self.examples[number], self.family, action)


class Classes:
    """``of[i]`` is the class of endpoint i (NO_CLASS: it is gone), ``label[c]`` the label class of class c, ``address[c]``
    an address of one of its members, None where no block holds it."""

    def __init__(self, endpoints: Sequence[Endpoint | None], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.labels = LabelClasses(vocabulary.family)
        self.label: list[int] = []
        self.address: list[int | None] = []
        self.examples: list[Endpoint] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self.of: Ids = np.fromiter(
            (NO_CLASS if e is None else self.number(e) for e in endpoints), np.int32, len(endpoints)
        )
        self._held: tuple[Words64, Words64, set[int]] | None = None  # addresses by index, and who has none or several
        self._table: Any = None

    def __len__(self) -> int:
        return len(self.label)

    def table(self) -> Any:
        """Per class for the kernels: (label class, in some block?, upper half of the address, lower half)."""
        if self._table is None:
            placed = np.array([address is not None for address in self.address], np.bool_)
            self._table = (np.array(self.label, np.int32), placed, *halves([address or 0 for address in self.address]))
        return self._table

    def number(self, endpoint: Endpoint) -> int:
        """The endpoint's class; a new one if need be."""
        key, mark = self.vocabulary.key(endpoint)
        pair = self.labels.number(key, endpoint), mark
        found = self._numbers.get(pair)
        if found is None:
            found = self._numbers[pair] = len(self.label)
            self.label.append(pair[0])
            self.address.append(self.vocabulary.address(endpoint, mark))
            self.examples.append(endpoint)
            self._table = None
        return found

    def renumber(self, indexes: Iterable[int], endpoints: Sequence[Endpoint | None]) -> set[tuple[int, int]]:
        """Give these endpoints their classes anew: (old class, new class) where they differ, NO_CLASS for who comes or
        goes. What lost its example gets another, if it has a member left."""
        if len(endpoints) > len(self.of):
            self.of = np.append(self.of, np.full(len(endpoints) - len(self.of), NO_CLASS, np.int32))
        moved: set[tuple[int, int]] = set()
        for index in indexes:
            endpoint = endpoints[index]
            old, new = int(self.of[index]), NO_CLASS if endpoint is None else self.number(endpoint)
            if old != new:
                self.of[index] = new
                moved.add((old, new))
        left = {old for old, _ in moved if old != NO_CLASS}
        if left:
            present, first = np.unique(self.of, return_index=True)
            self._elect(left, dict(zip(present.tolist(), first.tolist(), strict=True)), endpoints)
        return moved

    def concerned(self, new: Words, endpoints: Sequence[Endpoint | None]) -> set[int]:
        """The indexes of endpoints that ``new`` words of the vocabulary may tell from others of their class."""
        found: set[int] = set()
        if new.keys or new.ports or new.nodes or new.domains:
            for index, e in enumerate(endpoints):
                if e is not None and (
                    not new.keys.isdisjoint(e.labels)
                    or (e.node_labels and not new.nodes.keys().isdisjoint(e.node_labels))
                    or (e.named_ports and any(name in new.ports for name, _ in e.named_ports))
                    or (new.domains and e.outside is not None)
                ):
                    found.add(index)
        unnamed = [self.labels.with_pair(key, None) for key in new.pods if key not in new.keys]
        if unnamed:  # so far one value of these keys was as good as any other
            within = np.isin(np.array(self.label, np.int32), np.concatenate(unnamed))
            for index in np.flatnonzero(within[self.of] & (self.of != NO_CLASS)).tolist():
                labels = endpoints[index].labels  # type: ignore[union-attr]
                if any(labels.get(key) in values for key, values in new.pods.items()):
                    found.add(index)
        for ranges in new.blocks:
            for low, high in ranges:
                found |= self._within(low, high, endpoints)
        return found

    def forget_addresses(self) -> None:
        """Some endpoint came, went, or has other addresses."""
        self._held = None

    def _within(self, low: int, high: int, endpoints: Sequence[Endpoint | None]) -> set[int]:
        """Who has an address from ``low`` to ``high``."""
        if self._held is None:
            first = [self.vocabulary.own(e) for e in endpoints]
            several = {i for i, values in enumerate(first) if len(values) != 1}
            alone = [values[0] if len(values) == 1 else 0 for values in first]
            self._held = (*halves(alone), several)
        upper, lower, several = self._held
        (h0, l0), (h1, l1) = divmod(low, 1 << 64), divmod(high, 1 << 64)
        inside = (upper > h0) | ((upper == h0) & (lower >= np.uint64(l0)))
        inside &= (upper < h1) | ((upper == h1) & (lower <= np.uint64(l1)))
        found = set(np.flatnonzero(inside).tolist()) - several
        for index in several:
            endpoint = endpoints[index]
            outside = endpoint is not None and endpoint.outside is not None
            if outside or any(low <= value <= high for value in self.vocabulary.own(endpoint)):
                found.add(index)
        return found

    def _elect(self, left: set[int], first: dict[int, int], endpoints: Sequence[Endpoint | None]) -> None:
        """New examples for classes that a member left, and for their label classes."""
        self._table = None
        labels = {self.label[number] for number in left}
        for number, label in enumerate(self.label):
            example = endpoints[first[number]] if label in labels and number in first else None
            if example is not None:
                self.examples[number] = self.labels.examples[label] = example
                self.address[number] = self.vocabulary.address(example, self.vocabulary.key(example)[1])


def halves(values: Sequence[int]) -> tuple[Words64, Words64]:
    """128-bit numbers as their upper and lower 64 bits."""
    upper = np.fromiter((value >> 64 for value in values), np.uint64, len(values))
    lower = np.fromiter((value & 0xFFFFFFFFFFFFFFFF for value in values), np.uint64, len(values))
    return upper, lower


def frozen(selector: Selector | None) -> Any:
    """A selector as a value that can be a key; None and ``{}`` differ."""
    return None if selector is None else tuple(sorted(requirements(selector)))


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
