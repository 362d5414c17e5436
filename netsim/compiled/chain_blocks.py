"""Writing chains into the array of words: short ones as they are read, long ones a line a rule, with an index.

A long chain that comes back with a few rules changed (KUBE-SERVICES, whenever a Service does) is written from what it was:
backends keep the rule objects that stay, so rules that are the same objects are copied as they are, and only the others are
lowered. The old block stays as it is, until it is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs as p
from netsim.compiled.chain_index import ChainIndexer, Keyed
from netsim.compiled.lowered import Lowered, Pools, encoded
from netsim.linux.netfilter.rule import Chain, Rule, same_ends
from netsim.packet.address import Family

_WORTH = 256  # rules of a chain that is kept for its successors
_KEPT = 4  # of the chains of a name: tables may have one each
_NO_RUNS: Mapping[int, list[int]] = {}
_ROOM = p.LINE - p.RULE  # words for constraints in a rule's line


@dataclass(frozen=True, slots=True)
class _Long:
    """What a long chain was written from."""

    rules: tuple[Rule, ...]
    lowered: list[Lowered]
    keyed: Keyed
    at: int  # address of its rules


class Draft(NamedTuple):
    """A long chain before it has a place. ``block`` (1 + rules, LINE) uint32: a line for the header, still empty, and the
    lines of the rules, without draws; LIST is 0 for what is behind."""

    lowered: list[Lowered]
    keyed: Keyed
    block: npt.NDArray[np.uint32]


class ChainBlocks:
    def __init__(self, pools: Pools, indexer: ChainIndexer) -> None:
        self._pools, self._code, self._indexer = pools, pools.code, indexer
        self._earlier: dict[tuple[str, Family], list[_Long]] = {}

    def short(self, lowered: Sequence[Lowered], policy: int, first: int) -> int:
        """The address of a chain: header, draws, constraints that no chain had before, rules. ``first``: its first rule's
        number."""
        code, known = self._code, self._pools.lists
        runs: Mapping[int, list[int]] = _NO_RUNS
        if len(lowered) > 1:
            drawing = [place for place, one in enumerate(lowered) if one.pure == 0 and len(one.codes) == 1]
            if len(drawing) > 1:
                runs = self._runs(lowered, drawing)
        at = code.aligned(p.HEADER + p.RULE * len(lowered))  # from here to the end nothing else is written
        block = [len(lowered) | policy, first, 0, 0]
        draws = {}
        for place, words in runs.items():
            draws[place] = at + len(block)
            block += words
        rules: list[int] = []
        for one in lowered:
            codes = one.codes
            held = known.get(codes)
            if held is None:
                held = known[codes] = at + len(block)
                block += encoded(codes)
            rules += (0, one.pure | len(codes) << 8 | one.action << 16, one.argument, held)
        for place, where in draws.items():
            rules[p.RULE * place + p.RUN] = where
        block[2] = at + len(block)
        block += rules
        return code.add(block)

    def long(self, chain: Chain, family: Family, policy: int, first: int, made: Draft) -> int:
        """The address of a chain with an index: header, then a line for each rule, with its constraints if they fit."""
        lowered, keyed, block = made
        lines = block[1:]
        bare = np.flatnonzero((lines[:, p.META] & 0xFFFF) == 1 << 8)  # one constraint, and it is not pure
        for place, words in self._runs(lowered, bare.tolist()).items():
            lines[place, p.RUN] = self._code.add(words)
        index = self._indexer.index(keyed)
        at = self._code.reserve(block.size) + p.LINE
        own = np.flatnonzero((lines[:, p.LIST] == 0) & (lines[:, p.META] >> 8 & 0xFF > 0))
        lines[own, p.LIST] = at + p.LINE * own + p.RULE
        block[0, : p.HEADER] = len(lines) | policy, first, at, index
        self._code.write(at - p.LINE, block)
        if len(chain.rules) >= _WORTH:
            earlier = self._earlier.setdefault((chain.name, family), [])
            earlier.append(_Long(chain.rules, lowered, keyed, at))
            del earlier[:-_KEPT]
        return at - p.LINE

    def give_back(self, chain: Chain, family: Family, address: int) -> None:
        """Nobody walks the chain at this address any more. (What is short stays where it is.)"""
        at, index = self._code.array[address + 2 : address + 4].tolist()
        if index:
            self._indexer.give_back(index)
            self._code.give_back(address, p.LINE * (len(chain.rules) + 1))
            earlier = self._earlier.get((chain.name, family), [])
            earlier[:] = [one for one in earlier if one.at != at]

    def draft(self, lowered: list[Lowered]) -> Draft:
        """What a long chain is written from."""
        keyed = self._indexer.keyed([self._indexer.key(one.codes[: one.pure]) for one in lowered])
        return Draft(lowered, keyed, _headed(self._lines(lowered)))

    def successor(self, chain: Chain, family: Family, lower: Callable[[Rule], Lowered]) -> Draft | None:
        """The same for a chain most of whose rules are in an earlier long chain of its name; None if there is none."""
        for one in reversed(self._earlier.get((chain.name, family), ())):
            made = self._patched(one, chain.rules, lower)
            if made is not None:
                return made
        return None

    def _lines(self, lowered: Sequence[Lowered]) -> Any:
        """A line a rule, without draws. The address of the constraints is 0 if they are behind the rule."""
        known = self._pools.lists
        words: list[int] = []
        for one in lowered:
            codes = one.codes
            held = known.get(codes, 0)
            line = [0, one.pure | len(codes) << 8 | one.action << 16, one.argument, held]
            if codes and not held:
                own = encoded(codes)
                if len(own) <= _ROOM:
                    line += own
                else:
                    line[p.LIST] = self._code.add(own)
                    known[codes] = line[p.LIST]
            words += line
            words += [0] * (p.LINE - len(line))
        return np.array(words, np.uint32).reshape(len(lowered), p.LINE)

    def _patched(self, before: _Long, rules: tuple[Rule, ...], lower: Callable[[Rule], Lowered]) -> Draft | None:
        """The rules lowered, keyed and as lines, from those of ``before``; None if too many differ."""
        old = before.rules
        head, tail = same_ends(old, rules)
        known = {id(old[place]): place for place in range(head, len(old) - tail)}
        between = [known.get(id(rule), -1) for rule in rules[head : len(rules) - tail]]
        fresh = [head + place for place, found in enumerate(between) if found < 0]
        if len(fresh) > len(rules) // 4:
            return None
        new = [lower(rules[place]) for place in fresh]
        keys = self._indexer.keyed([self._indexer.key(one.codes[: one.pure]) for one in new])
        after = len(old) - tail  # of the old rules, those from here on stay

        def spliced(held: list[Any], given: list[Any]) -> list[Any]:
            middle = [held[place] for place in between]
            for place, one in zip(fresh, given):
                middle[place - head] = one
            return held[:head] + middle + held[after:]

        def parts(held: Any, given: Any) -> tuple[Any, Any, Any]:
            middle = held[np.array(between, np.int64)]
            middle[np.array(fresh, np.int64) - head] = given
            return held[:head], middle, held[after:]

        def joined(held: Any, given: Any) -> Any:
            return np.concatenate(parts(held, given))

        lines = self._code.array[before.at : before.at + p.LINE * len(old)].reshape(len(old), p.LINE)
        behind = lines[:, p.LIST] == before.at + p.LINE * np.arange(len(old)) + p.RULE
        block = _headed(*parts(lines, self._lines(new)))
        block[1:, p.RUN] = 0
        block[1:][joined(behind, False), p.LIST] = 0
        keyed = Keyed(
            spliced(before.keyed.keys, keys.keys),
            joined(before.keyed.shapes, keys.shapes),
            joined(before.keyed.hashes, keys.hashes),
        )
        return Draft(spliced(before.lowered, new), keyed, block)

    def _runs(self, lowered: Sequence[Lowered], among: Iterable[int]) -> dict[int, list[int]]:
        """The runs of draws, rules in a row that hold nothing but one, by their first place: as words. ``among``: places
        that may be of such a rule."""
        alone = [at for at in among if len(codes := lowered[at].codes) == 1 and codes[0][0] == p.RANDOM]
        found: dict[int, list[int]] = {}
        while alone:
            length = 1
            while length < len(alone) and alone[length] == alone[0] + length:
                length += 1
            if length > 1:
                run = lowered[alone[0] : alone[0] + length]
                words = [self._pools.run(tuple([one.codes[0][4] >> 1 for one in run]))]
                if all(one.action == p.TO_CHAIN for one in run):
                    words += [one.argument for one in run]
                    after = lowered[alone[0] + length] if alone[0] + length < len(lowered) else None
                    surely = after is not None and not after.codes and after.action == p.TO_CHAIN
                    words.append(after.argument if after is not None and surely else 0)
                else:
                    words.append(0)
                found[alone[0]] = words
            del alone[:length]
        return found


def _headed(*lines: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """These lines behind an empty one."""
    block = np.empty((1 + sum(map(len, lines)), p.LINE), np.uint32)
    block[0] = 0
    np.concatenate(lines, out=block[1:])
    return block
