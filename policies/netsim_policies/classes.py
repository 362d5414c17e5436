"""Classes of endpoints that no policy can tell apart.

Answers are computed per class: 150,000 pods of a real cluster are a few thousand. A class is a *label class* (``labels``:
what selectors see) together with the blocks that hold its address; the two are kept apart, so that thousands of blocks over
pod addresses multiply neither the postings nor the rows of the matrix:

    endpoint ──▶ look (its labels, ports, namespace) ──▶ label class ─┐
             ──▶ print of its address ────────────────────────────────┴─▶ class

A new word splits what it tells apart: pods with equal labels look alike, so it is put to looks, not to pods; a new block is
put to an array of all addresses. A class all of whose members share the word keeps its number. Numbers are dense and never
reused, and both kinds of class only grow: one that lost its last member keeps its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim_policies.algebra import Range
from netsim_policies.labels import Ids, LabelClasses
from netsim_policies.model import Endpoint, EndpointKind
from netsim_policies.vocabulary import IN_NO_BLOCK, LabelKey, Prints, Vocabulary, Words

Words64 = npt.NDArray[np.uint64]
NO_CLASS = -1


class Looks:
    """Endpoints that no selector could ever tell apart look alike. ``label[k]`` is the label class of look k."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.labels = LabelClasses(vocabulary.family)
        self.label: list[int] = []
        self._examples: list[tuple[Endpoint, Prints]] = []
        self._numbers: dict[Any, int] = {}
        self._members: dict[int, list[int]] = {}  # looks by label class
        self._with: dict[Any, list[int]] = {}  # looks by what a policy could ask for

    def __len__(self) -> int:
        return len(self.label)

    def number(self, endpoint: Endpoint, several: Prints) -> int:
        """How the endpoint looks; a new number if nobody looked like that before."""
        if endpoint.kind is EndpointKind.POD and not endpoint.host_network:
            ports = tuple(endpoint.named_ports.items()) if endpoint.named_ports else ()
            key: Any = endpoint.namespace, tuple(endpoint.labels.items()), ports, several
        elif endpoint.outside is not None:
            key = endpoint.name
        else:
            key = endpoint.kind, tuple(endpoint.node_labels.items()), several
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.label)
            self.label.append(self.labels.number(self.vocabulary.key(endpoint, several), endpoint))
            self._examples.append((endpoint, several))
            self._members.setdefault(self.label[-1], []).append(found)
            for fact in facts(endpoint):
                self._with.setdefault(fact, []).append(found)
        return found

    def learn(self, new: Words) -> list[int]:
        """Split label classes by ``new`` words; the looks that are now of another one."""
        gained: dict[int, list[Any]] = {}
        for fact in asked(new):
            for look in self._with.get(fact, ()):
                gained.setdefault(look, []).append(fact)
        parts: dict[int, dict[Any, list[int]]] = {}  # by label class and what its members gain
        for look, words in gained.items():
            more = self._key(look) if new.ports or new.domains else ()  # numbers of ports, names of outside hosts
            parts.setdefault(self.label[look], {}).setdefault((*words, more), []).append(look)
        leaving: dict[int, list[list[int]]] = {}
        for label in sorted(parts):
            groups = sorted(parts[label].values(), key=len)
            if sum(map(len, groups)) == len(self._members[label]):  # nobody stays: the largest part keeps the number
                self.labels.rename(label, self._key(groups.pop()[0]))
            leaving[label] = groups
        moved: list[int] = []
        for label, groups in leaving.items():
            for group in groups:
                born = self.labels.number(self._key(group[0]), self._examples[group[0]][0])
                for look in group:
                    self.label[look] = born
                self._members[born] = group
                moved += group
            if groups:
                self._members[label] = left = [look for look in self._members[label] if self.label[look] == label]
                self.labels.examples[label] = self._examples[left[0]][0]
        return moved

    def _key(self, look: int) -> LabelKey:
        return self.vocabulary.key(*self._examples[look])

    def relabel(self, namespace: str, labels: Mapping[str, str]) -> None:
        """What ``LabelClasses.relabel`` does for label classes."""
        for label in self.labels.in_space(namespace).tolist():
            for look in self._members[label]:
                example, several = self._examples[look]
                self._examples[look] = replace(example, namespace_labels=labels), several

    def forget_several(self) -> None:
        """Blocks are new: what is known of several addresses may be true of nobody any more."""
        self._numbers = {key: look for key, look in self._numbers.items() if not self._examples[look][1]}


def facts(endpoint: Endpoint) -> Iterator[Any]:
    """What a policy could ask of an endpoint: a label, the presence of a key, a port name, whether it is outside."""
    if endpoint.outside is not None:
        yield "outside"
    elif endpoint.kind is EndpointKind.POD and not endpoint.host_network:
        yield from (("pod", word) for word in endpoint.labels.items())
        yield from (("pod", (key,)) for key in endpoint.labels)
        yield from {("port", name) for name, _ in endpoint.named_ports}
    else:
        yield from (("node", word) for word in endpoint.node_labels.items())
        yield from (("node", (key,)) for key in endpoint.node_labels)


def asked(words: Words) -> Iterator[Any]:
    """The facts that ``words`` ask for."""
    yield from (("pod", word) for word in words.pods)
    yield from (("node", word) for word in words.nodes)
    yield from (("port", name) for name in words.ports)
    if words.domains:
        yield "outside"


class Classes:
    """``of[i]`` is the class of endpoint i (NO_CLASS: it is gone), ``look[i]`` its look; ``label[c]`` the label class of
    class c, ``address[c]`` an address of one of its members, None where no block holds it."""

    def __init__(self, endpoints: Sequence[Endpoint | None], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.looks = Looks(vocabulary)
        self.labels = self.looks.labels
        self.label: list[int] = []
        self.address: list[int | None] = []
        self.examples: list[Endpoint] = []
        self._prints: list[int] = []
        self._numbers: dict[tuple[int, int], int] = {}  # by label class and print
        self._table: tuple[Any, ...] = tuple(np.empty(0, kind) for kind in _TABLE)
        self._dirty: set[int] = set()  # classes that ``_table`` does not describe
        self.version = 0  # counts the changes of label classes, groups and addresses of classes, new ones included
        places = [self._place(endpoint) for endpoint in endpoints]
        self.of: Ids = np.fromiter((place[0] for place in places), np.int32, len(places))
        self.look: Ids = np.fromiter((place[1] for place in places), np.int32, len(places))
        self._odd = {index for index, place in enumerate(places) if place[2] is None}  # who has not just one address
        self._upper, self._lower = halves([place[2] or 0 for place in places])

    def __len__(self) -> int:
        return len(self.label)

    def table(self) -> Any:
        """Per class for the kernels: (label class, its group of named ports, in some block?, upper half of the address,
        lower half)."""
        dirty = sorted(self._dirty)
        self._dirty.clear()
        labels, addresses = [self.label[c] for c in dirty], [self.address[c] for c in dirty]
        groups, placed = [self.labels.group[label] for label in labels], [address is not None for address in addresses]
        fresh = (labels, groups, placed, *halves([address or 0 for address in addresses]))
        columns = []
        for held, part in zip(self._table, fresh, strict=True):
            column = np.resize(held, len(self)) if len(held) < len(self) else held.copy()
            column[dirty] = part
            columns.append(column)
        self._table = tuple(columns)
        return self._table

    def _changed(self, numbers: Iterable[int]) -> None:
        self._dirty.update(numbers)
        self.version += 1

    def _place(self, endpoint: Endpoint | None) -> tuple[int, int, int | None]:
        """(class, look, address) of an endpoint, the address None for who has not just one of its own."""
        if endpoint is None:
            return NO_CLASS, NO_CLASS, None
        addresses = self.vocabulary.addresses(endpoint)
        mark, several = self.vocabulary.marks(addresses)
        look = self.looks.number(endpoint, several)
        alone = addresses[0] if len(addresses) == 1 and endpoint.outside is None else None
        found = self._numbers.get((self.looks.label[look], mark))
        if found is None:
            address = alone if alone is not None else self.vocabulary.address(endpoint, mark)
            found = self._born(self.looks.label[look], mark, endpoint, address)
        return found, look, alone

    def _born(self, label: int, mark: int, example: Endpoint, address: int | None) -> int:
        number = self._numbers[label, mark] = len(self.label)
        self.label.append(label)
        self._prints.append(mark)
        self.examples.append(example)
        self.address.append(None if mark == IN_NO_BLOCK else address)
        self._changed([number])
        return number

    # -- changes -----------------------------------------------------------------------------------------------------
    def put(self, index: int, endpoints: Sequence[Endpoint | None]) -> None:
        """Endpoint ``index`` came, went, or is another one."""
        if index == len(self.of):
            self.of, self.look = np.append(self.of, np.int32(NO_CLASS)), np.append(self.look, np.int32(NO_CLASS))
            self._upper, self._lower = np.append(self._upper, np.uint64(0)), np.append(self._lower, np.uint64(0))
        left = int(self.of[index])
        self.of[index], self.look[index], alone = self._place(endpoints[index])
        (self._odd.add if alone is None else self._odd.discard)(index)
        self._upper[index], self._lower[index] = (part[0] for part in halves([alone or 0]))
        if left != NO_CLASS:
            self._elect([left], endpoints)

    def relabel(self, namespace: str, labels: Mapping[str, str]) -> list[int]:
        """The namespace of examples gets other labels; the indexes of the endpoints that are in it."""
        self.looks.relabel(namespace, labels)
        inside = np.flatnonzero(np.isin(self.table()[0], self.labels.in_space(namespace)))
        for number in inside.tolist():
            self.examples[number] = replace(self.examples[number], namespace_labels=labels)
        return np.flatnonzero(np.isin(self.of, inside)).tolist()

    def learn(self, new: Words, endpoints: Sequence[Endpoint | None]) -> None:
        """Split classes by ``new`` words.

        Raises ValueError when a block cuts through an endpoint that stands for a part of the outside."""
        left: set[int] = set()  # classes that somebody left
        unsure: set[int] = set()  # classes that may have another print than their address
        looks = self.looks.learn(new)
        if new.ports:
            self._changed(range(len(self)))
        if looks:
            leaving = np.zeros(len(self.looks), np.bool_)
            leaving[looks] = True
            indexes = np.flatnonzero((self.look != NO_CLASS) & leaving[self.look])
            labels = np.array(self.looks.label, np.int32)[self.look[indexes]]
            left |= self._split(indexes, labels, 0, endpoints)
        odd_ones = np.zeros(len(self.of), np.bool_)
        odd_ones[[*self._odd]] = True
        odd: set[int] = set()
        for ranges, mark in new.blocks.items():
            inside = np.flatnonzero(_within(ranges, self._upper, self._lower) & ~odd_ones)
            left |= self._split(inside, np.array(self.label, np.int32)[self.of[inside]], mark, endpoints)
            odd.update(index for index in self._odd if self._touches(ranges, endpoints[index]))
            _, _, placed, upper, lower = self.table()
            unsure.update(np.flatnonzero(_within(ranges, upper, lower) & placed).tolist())
        if new.blocks and self.labels.several:
            self.looks.forget_several()
        for index in odd:
            left.add(int(self.of[index]))
            self.of[index], self.look[index], _ = self._place(endpoints[index])
        self._elect(left.union(c for c in unsure if not self._consistent(c)), endpoints)
        if self.labels.several:
            self._elect_several(endpoints)

    def _split(
        self, indexes: npt.NDArray[np.intp], labels: Ids, mark: int, endpoints: Sequence[Endpoint | None]
    ) -> set[int]:
        """These endpoints are of these label classes, and their print changes by ``mark``. A class that they are all of
        takes the new label and print; they leave every other. The classes that somebody left."""
        size = len(self)
        whole = np.bincount(self.of[self.of != NO_CLASS], minlength=size)
        keys = self.of[indexes].astype(np.int64) * len(self.labels) + labels
        parts, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        target = np.empty(len(parts), np.int32)
        left: set[int] = set()
        for at, (part, index, count) in enumerate(zip(parts.tolist(), first.tolist(), counts.tolist(), strict=True)):
            number, label = divmod(part, len(self.labels))
            member = int(indexes[index])
            print_, example = self._prints[number] ^ mark, endpoints[member]
            assert example is not None
            address = self.address[number] if member in self._odd else self._own(member)
            if count == whole[number]:
                self._forget(number)
                self.label[number], self._prints[number], self.examples[number] = label, print_, example
                self.address[number] = None if print_ == IN_NO_BLOCK else address
                self._numbers[label, print_] = target[at] = number
                self._changed([number])
            else:
                left.add(number)
                target[at] = self._born(label, print_, example, address)
        self.of[indexes] = target[inverse]
        return left

    def _forget(self, number: int) -> None:
        """Nobody will be of a class by the label and print that it has."""
        key = self.label[number], self._prints[number]
        if self._numbers.get(key) == number:
            del self._numbers[key]

    def _own(self, index: int) -> int:
        return int(self._upper[index]) << 64 | int(self._lower[index])

    def _consistent(self, number: int) -> bool:
        """Does the class's print say where its address is?"""
        address = self.address[number]
        return address is None or self.vocabulary.print_of(address) == self._prints[number]

    def _touches(self, ranges: tuple[Range, ...], endpoint: Endpoint | None) -> bool:
        if endpoint is None:
            return False
        return endpoint.outside is not None or any(_holds(ranges, value) for value in self.vocabulary.own(endpoint))

    def _elect(self, numbers: Iterable[int], endpoints: Sequence[Endpoint | None]) -> None:
        """Other examples for classes that a member left. A class that nobody is left in keeps its own, and is forgotten
        when blocks tell its address from its print."""
        chosen = [*numbers]
        if not chosen:
            return
        first = np.full(len(self), NO_CLASS, np.int64)
        live = np.flatnonzero(self.of != NO_CLASS)[::-1]
        first[self.of[live]] = live
        for number, index in zip(chosen, first[chosen].tolist(), strict=True):
            example = None if index == NO_CLASS else endpoints[index]
            if example is None:
                if not self._consistent(number):
                    self._forget(number)
                continue
            self.examples[number] = example
            self.address[number] = self.vocabulary.address(example, self._prints[number])
            self._changed([number])

    def _elect_several(self, endpoints: Sequence[Endpoint | None]) -> None:
        """The same for label classes, as far as their members' addresses matter."""
        members = {
            self.label[int(self.of[index])]: endpoints[index] for index in self._odd if endpoints[index] is not None
        }
        for label in self.labels.several:
            example = members.get(label)
            if example is None:
                self.labels.forget(label)
            else:
                self.labels.examples[label] = example


_TABLE = (np.int32, np.int32, np.bool_, np.uint64, np.uint64)


def _within(ranges: tuple[Range, ...], upper: Words64, lower: Words64) -> npt.NDArray[np.bool_]:
    """Which addresses are in one of ``ranges``."""
    found = np.zeros(len(upper), np.bool_)
    for low, high in ranges:
        (h0, l0), (h1, l1) = divmod(low, 1 << 64), divmod(high, 1 << 64)
        after = (upper > h0) | ((upper == h0) & (lower >= np.uint64(l0)))
        found |= after & ((upper < h1) | ((upper == h1) & (lower <= np.uint64(l1))))
    return found


def _holds(ranges: tuple[Range, ...], value: int) -> bool:
    return any(low <= value <= high for low, high in ranges)


def halves(values: Sequence[int]) -> tuple[Words64, Words64]:
    """128-bit numbers as their upper and lower 64 bits."""
    upper = np.fromiter((value >> 64 for value in values), np.uint64, len(values))
    lower = np.fromiter((value & 0xFFFFFFFFFFFFFFFF for value in values), np.uint64, len(values))
    return upper, lower
