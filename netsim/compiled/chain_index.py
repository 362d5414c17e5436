"""Long chains: where to look for the first rule that matches, instead of asking rule by rule.

A tuple-space search (Srinivasan et al., 1999) that keeps iptables' order. Rules that compare the same columns under the same
masks, their *shape*, form a group with one hash table from the values they want to the rules that want them: 10,000 Services
are one group (destination, protocol, port) and cost one probe. Rules of rare shapes join a group whose shape asks for less
than theirs; rules that only ask for a range of ports or addresses are found by binary search among elementary intervals.
What fits nowhere is the *rest*, which is read in order.

Groups only name candidates. Each candidate's pure constraints are then asked in full, so a clash of hashes, or a group that
asks for less than the rule does, costs a look and changes nothing; the first rule in the chain's order wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs as p
from netsim.compiled import registers as r
from netsim.compiled.addresses import Addresses
from netsim.compiled.hashing import START, U, fold_array
from netsim.compiled.jit import kernel
from netsim.compiled.words import Words

ALL = 0xFFFFFFFF
FROM = 12  # chains with fewer rules that have constraints are read rule by rule
_FEWEST = 4  # rules that make a group worth its probe
_BITS = 8  # a shape that fixes fewer bits is no shape
_SPREAD = 32  # places that a rule may have among the elementary intervals, on average
_RANGED = (r.SPORT, r.DPORT, r.SRC, r.DST, r.LENGTH, r.TTL)
_WORTH = {r.PROTO: 2, r.CT_STATE: 2, r.SPORT: 16, r.DPORT: 16, r.ICMP_TYPE: 4, r.ICMP_CODE: 2, r.TCP_FLAGS: 4}

Code = tuple[int, int, int, int, int, int]
Part = tuple[int, int, int]  # column, mode, mask or length of the prefix
NO_SHAPE = -1


class Key(NamedTuple):
    """What a rule offers to be found by. ``span``: (column, ranges), for rules without a shape."""

    shape: tuple[Part, ...]
    values: tuple[int, ...]
    span: tuple[int, tuple[tuple[int, int], ...]] | None = None


class Keyed(NamedTuple):
    """The keys of a chain's rules as arrays: kept, so that a chain that differs in a few rules is indexed from it.

    ``hashes`` are of the rules' values under their own shapes.
    """

    keys: list[Key]
    shapes: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint32]


class ChainIndexer:
    def __init__(self, addresses: Addresses, code: Words) -> None:
        self._addresses, self._code = addresses, code
        self._numbers: dict[tuple[Part, ...], int] = {}
        self._shapes: list[tuple[Part, ...]] = []

    # -- keys ------------------------------------------------------------------------------------------------------------
    def key(self, codes: Sequence[Code]) -> Key:
        """``codes``: a rule's pure constraints. No range of ranges is looked up here: see ``_spans``."""
        parts: dict[int, tuple[int, int, int]] = {}
        span: tuple[int, tuple[tuple[int, int], ...]] | None = None
        for kind, column, negated, _, a, b in codes:
            if negated or column == r.HAS or column in parts:
                continue
            if kind == p.EQUAL:
                parts[column] = (p.BY_MASK, ALL, a)
            elif kind == p.MASKED:
                parts[column] = (p.BY_MASK, b, a)
            elif kind == p.PREFIX6:
                parts[column] = (p.BY_PREFIX6, b, a)
            elif span is None and column in _RANGED and kind == p.RANGE:
                span = column, ((a, b),)
            elif span is None and column in _RANGED and kind == p.RANGES:
                held = self._code.array[a : a + 2 * b].tolist()
                span = column, tuple(zip(held[::2], held[1::2]))
        shape = tuple([(column, *parts[column][:2]) for column in sorted(parts)])
        if bits(shape) < _BITS:
            return Key((), (), span)
        return Key(shape, tuple([parts[column][2] for column in sorted(parts)]))

    def keyed(self, keys: list[Key]) -> Keyed:
        """Hash the keys, shape by shape."""
        by_shape: dict[tuple[Part, ...], list[int]] = {}
        for place, key in enumerate(keys):
            if key.shape:
                by_shape.setdefault(key.shape, []).append(place)
        shapes = np.full(len(keys), NO_SHAPE, np.int32)
        hashes = np.zeros(len(keys), np.uint32)
        for shape, places in by_shape.items():
            number = self._numbers.get(shape)
            if number is None:
                number = self._numbers[shape] = len(self._shapes)
                self._shapes.append(shape)
            shapes[places] = number
            hashes[places] = self._hashes(shape, [keys[place].values for place in places])
        return Keyed(keys, shapes, hashes)

    def _hashes(self, shape: tuple[Part, ...], values: Sequence[tuple[int, ...]]) -> npt.NDArray[Any]:
        """Of each rule's values under ``shape``, as the walk hashes registers."""
        table = np.array(values, np.uint64)
        held: Any = np.full(len(table), START, np.uint64)
        for at, (_, mode, mask) in enumerate(shape):
            if mode == p.BY_MASK:
                held = fold_array(held, table[:, at] & U(mask))
            else:
                words = self._addresses.words[table[:, at]]
                high, low = prefix_masks(mask)
                for half in (words[:, 0] & U(high), words[:, 1] & U(low)):
                    held = fold_array(fold_array(held, half >> U(32)), half & U(ALL))
        return held.astype(np.uint32)  # type: ignore[no-any-return]

    # -- groups ----------------------------------------------------------------------------------------------------------
    def index(self, keyed: Keyed) -> int:
        """Divide the rules of a chain, in their order, into groups and rest: the address of the index."""
        few = len(self._shapes) < 1 << 15  # then they are sorted by digits, in a tenth of the time
        order = np.argsort(keyed.shapes.astype(np.int16) if few else keyed.shapes, kind="stable")
        held = keyed.shapes[order]
        starts = np.flatnonzero(np.diff(held, prepend=held[:1] - 1))
        rows: list[tuple[int, ...]] = []
        loose: list[int] = []
        members: dict[tuple[Part, ...], tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
        for shape, places in zip(held[starts].tolist(), np.split(order, starts[1:])):
            if shape == NO_SHAPE or len(places) < _FEWEST:
                loose += places.tolist()
            else:
                members[self._shapes[shape]] = places, keyed.hashes[places]
        rest, spans = self._settle(sorted(loose), keyed.keys, members)
        for shape, (places, hashes) in members.items():
            rows.append(self._hashed(shape, places, hashes))
        for column, ranged in spans.items():
            made, left = self._intervals(column, ranged)
            rest += left
            if made is not None:
                rows.append(made)
        rows.sort()
        rest.sort()
        where = self._code.add([len(rest), *rest]) << 1 if rest else 0
        return self._code.add([len(rows), where, *[word for row in rows for word in row]])

    def _settle(
        self,
        loose: Iterable[int],
        keys: Sequence[Key],
        members: dict[tuple[Part, ...], tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    ) -> tuple[list[int], dict[int, list[tuple[int, tuple[tuple[int, int], ...]]]]]:
        """Find a place for rules of rare shapes: a group that asks for less, or one by their most telling column. The
        others are the rest, or have a range: (rest, rules with a range by column)."""
        rest: list[int] = []
        spans: dict[int, list[tuple[int, tuple[tuple[int, int], ...]]]] = {}
        joining: dict[tuple[Part, ...], list[int]] = {}
        known: dict[tuple[Part, ...], tuple[Part, ...]] = {}
        wide = sorted(members, key=bits, reverse=True)
        for place in loose:
            key = keys[place]
            if not key.shape:
                if key.span is None:
                    rest.append(place)
                else:
                    spans.setdefault(key.span[0], []).append((place, key.span[1]))
                continue
            home = known.get(key.shape)
            if home is None:
                home = next((shape for shape in wide if _within(key.shape, shape)), None)
                if home is None:
                    home = (max(key.shape, key=lambda part: bits((part,))),)
                known[key.shape] = home
            joining.setdefault(home, []).append(place)
        for home, places in joining.items():
            if home not in members and (len(places) < _FEWEST or bits(home) < _BITS):
                rest += places
                continue
            values = [_projected(keys[place], home) for place in places]
            found = np.array(places), self._hashes(home, values)
            if home in members:
                old = members[home]
                both = np.concatenate((old[0], found[0]))
                order = np.argsort(both)
                found = both[order], np.concatenate((old[1], found[1]))[order]
            members[home] = found
        return rest, spans

    def _hashed(self, shape: tuple[Part, ...], places: npt.NDArray[Any], hashes: npt.NDArray[Any]) -> tuple[int, ...]:
        ordered = np.sort(hashes.astype(np.uint64) << U(32) | places.astype(np.uint64))
        places, hashes = (ordered & U(ALL)).astype(np.int64), ordered >> U(32)
        firsts = np.flatnonzero(np.concatenate(((True,), hashes[1:] != hashes[:-1])))
        counts = np.diff(firsts, append=len(hashes))
        keys = hashes[firsts]
        size = 8
        while size < 2 * len(keys):
            size *= 2
        slots = np.zeros((size, 2), np.uint32)
        single = counts == 1
        values = places[firsts].astype(np.uint32) << 1 | 1
        for at in np.flatnonzero(~single).tolist():
            held = places[firsts[at] : firsts[at] + counts[at]].tolist()
            values[at] = self._code.add([len(held), *held]) << 1
        fill(slots, keys.astype(np.uint32), values)
        return (
            int(places.min()),
            int(places.max()),
            self._slots(slots),
            size,
            p.BY_HASH,
            len(shape),
            self._parts(shape),
            0,
        )

    def _slots(self, slots: npt.NDArray[np.uint32]) -> int:
        at = self._code.reserve(slots.size)
        self._code.write(at, slots)
        return at

    def give_back(self, index: int) -> None:
        """Nobody searches the index at this address any more."""
        code = self._code.array
        first = index + 2
        groups = code[first : first + p.GROUP * int(code[index])].reshape(-1, p.GROUP).tolist()
        for _, _, slots, size, kind, *_ in groups:
            if kind == p.BY_HASH:
                self._code.give_back(slots, 2 * size)

    def _parts(self, shape: tuple[Part, ...]) -> int:
        return self._code.add([word for column, mode, mask in shape for word in (column | mode << 8, mask)])

    def _intervals(
        self, column: int, ranged: list[tuple[int, tuple[tuple[int, int], ...]]]
    ) -> tuple[tuple[int, ...] | None, list[int]]:
        """A group of elementary intervals, and the rules that cover too many of them and go to the rest."""
        ends = {0}
        for _, ranges in ranged:
            for low, high in ranges:
                ends |= {low, high + 1}
        bounds = np.array(sorted(end for end in ends if end <= ALL), np.int64)
        covers = []
        for place, ranges in ranged:
            at: list[int] = []
            for low, high in ranges:
                first, last = np.searchsorted(bounds, (low, high + 1))
                at += range(first, last)
            covers.append((len(at), place, at))
        covers.sort()
        total, left = 0, []
        lists: list[list[int]] = [[] for _ in bounds]
        for count, place, at in covers:
            total += count
            if total > _SPREAD * len(covers):
                left.append(place)
                continue
            for interval in at:
                lists[interval].append(place)
        if len(covers) - len(left) < _FEWEST:
            return None, [place for place, _ in ranged]
        words = []
        used: set[int] = set()
        for bound, held in zip(bounds.tolist(), lists):
            distinct = sorted(set(held))
            used.update(distinct)
            if len(distinct) > 1:
                value = self._code.add([len(distinct), *distinct]) << 1
            else:
                value = distinct[0] << 1 | 1 if distinct else 0
            words += [bound, value]
        where = self._code.add(words)
        parts = self._parts(((column, p.BY_MASK, ALL),))
        return (min(used), max(used), where, len(bounds), p.BY_INTERVAL, 1, parts, 0), left


def bits(shape: Iterable[Part]) -> int:
    """How much a shape tells rules apart, roughly."""
    found = 0
    for column, mode, mask in shape:
        fixed = mask if mode == p.BY_PREFIX6 else mask.bit_count()
        found += min(fixed, _WORTH.get(column, 32))
    return found


def _within(shape: tuple[Part, ...], wider: tuple[Part, ...]) -> bool:
    """Does ``shape`` fix all that ``wider`` fixes?"""
    held = {column: (mode, mask) for column, mode, mask in shape}
    for column, mode, mask in wider:
        have = held.get(column)
        if have is None or have[0] != mode:
            return False
        if (have[1] < mask) if mode == p.BY_PREFIX6 else (have[1] & mask != mask):
            return False
    return True


def _projected(key: Key, home: tuple[Part, ...]) -> tuple[int, ...]:
    """The key's values of the columns of ``home``."""
    held = {part[0]: value for part, value in zip(key.shape, key.values)}
    return tuple([held[column] for column, _, _ in home])


def prefix_masks(length: int) -> tuple[int, int]:
    """The high and low 64 bits of an IPv6 prefix's mask."""
    mask = (1 << 128) - (1 << 128 - length)
    return mask >> 64, mask & (1 << 64) - 1


@kernel
def fill(slots: Any, keys: Any, values: Any) -> None:
    """Put ``values`` (none of them 0) under ``keys`` into empty ``slots``: (a power of two, 2) uint32."""
    mask = U(len(slots) - 1)
    for at in range(len(keys)):
        place = U(keys[at]) & mask
        while slots[place, 1] != 0:
            place = (place + U(1)) & mask
        slots[place, 0] = keys[at]
        slots[place, 1] = values[at]
