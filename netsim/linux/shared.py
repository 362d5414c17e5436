"""Sequences that many namespaces hold in common, but for a few places.

Flannel gives each of 5,000 nodes a route, a neighbour and a forwarding entry for each of the 4,999 others: the same objects
everywhere, less the node's own. Written out that is 75 million references; here a node holds its own few items and says
which run it shares and where it leaves something out.

    node-1   default via …, [flannel's run, without place 1], 10.244.1.5 dev veth…
    node-2   default via …, [flannel's run, without place 2], 10.244.2.7 dev veth…
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
K = TypeVar("K")
_INDEXED_FROM = 32  # the index of a shorter run is made anew each time


@dataclass(frozen=True, slots=True, eq=False)
class Run(Generic[T]):
    """``items`` less those at the places ``without`` (ascending). Whoever shares a run holds the same ``items`` object, so
    that work done for it once can be remembered by its identity."""

    items: tuple[T, ...]
    without: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.items) - len(self.without)

    def __iter__(self) -> Iterator[T]:
        start = 0
        for place in self.without:
            yield from islice(self.items, start, place)
            start = place + 1
        yield from islice(self.items, start, None)

    def at(self, index: int) -> T:
        """The item at ``index`` (not negative) once the others are left out."""
        for place in self.without:
            if place > index:
                break
            index += 1
        return self.items[index]


class SharedSequence(Sequence[T]):
    """The tuple that its runs spell out one after another: equal to it, hashed and printed like it."""

    __slots__ = ("_starts", "runs")

    def __init__(self, runs: Iterable[Run[T]]) -> None:
        self.runs = tuple(runs)
        starts = [0]
        for run in self.runs:
            starts.append(starts[-1] + len(run))
        self._starts = starts

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.runs)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect_left(self._starts, place + 1) - 1
        return self.runs[number].at(place - self._starts[number])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SharedSequence):
            same = len(self.runs) == len(other.runs) and all(
                a.items is b.items and a.without == b.without for a, b in zip(self.runs, other.runs)
            )
            return same or (len(self) == len(other) and tuple(self) == tuple(other))
        return isinstance(other, tuple) and len(self) == len(other) and tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


class SequenceBuilder(Generic[T]):
    """A list to append to that also takes shared runs; ``build`` gives a tuple where nothing is shared."""

    __slots__ = ("_own", "_runs")

    def __init__(self) -> None:
        self._runs: list[Run[T]] = []
        self._own: list[T] = []

    def append(self, item: T) -> None:
        self._own.append(item)

    def extend(self, items: Iterable[T]) -> None:
        self._own.extend(items)

    def __iadd__(self, items: Iterable[T]) -> SequenceBuilder[T]:
        self._own.extend(items)
        return self

    def share(self, items: tuple[T, ...], without: Iterable[int] = ()) -> None:
        """Go on with ``items``, which others hold too, less those at the places ``without``."""
        run = Run(items, tuple(sorted(without)))
        if len(run):
            self._close()
            self._runs.append(run)

    def _close(self) -> None:
        if self._own:
            self._runs.append(Run(tuple(self._own)))
            self._own = []

    def __iter__(self) -> Iterator[T]:
        return chain(chain.from_iterable(self._runs), self._own)

    def __len__(self) -> int:
        return sum(map(len, self._runs)) + len(self._own)

    def build(self) -> Sequence[T]:
        if not self._runs:
            return tuple(self._own)
        self._close()
        return SharedSequence(self._runs)


def runs_of(held: Sequence[Any]) -> tuple[Run[Any], ...]:
    """The runs that a sequence is made of; any other sequence is one of its own."""
    return held.runs if isinstance(held, SharedSequence) else (Run(tuple(held)),)


class Index(Generic[K, T]):
    """The items of a sequence by key. Whoever shares a run shares its index: a namespace adds that of its own items."""

    def __init__(self, held: Sequence[T], key: Callable[[T], K]) -> None:
        self._parts = [(run, _places(run.items, key)) for run in runs_of(held)]

    def get(self, wanted: K) -> list[T]:
        """The items of this key, in their order."""
        return [
            run.items[place]
            for run, places in self._parts
            for place in places.get(wanted, ())
            if place not in run.without
        ]


class _Same:
    """Stands for one tuple, by identity: hashing what is in it would take longer than to index it."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[Any, ...]) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.items is self.items

    def __hash__(self) -> int:
        return id(self.items)


def _places(items: tuple[T, ...], key: Callable[[T], K]) -> Mapping[K, list[int]]:
    return _indexed(_Same(items), key) if len(items) >= _INDEXED_FROM else _index(items, key)


@lru_cache(maxsize=64)
def _indexed(same: _Same, key: Callable[[Any], K]) -> Mapping[K, list[int]]:
    return _index(same.items, key)


def _index(items: Iterable[T], key: Callable[[T], K]) -> Mapping[K, list[int]]:
    found: dict[K, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(key(item), []).append(place)
    return found
