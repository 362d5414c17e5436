"""Netfilter tables become programs, chain by chain, as packets come to them.

A name means a chain within a table, and nodes share chain objects. So a table is a list of *scopes*, one for each mapping
its chains come from, and ``resolution`` says what a name means in a scope. A mapping of chains that are derived on look-up
may have an attribute ``scope``: tables whose mappings have equal ones hold the same chains under it, so that 5,000 nodes
need one resolution between them. Small dicts are compiled at once, and those that compile to the same share a scope too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs as p
from netsim.compiled.addresses import Addresses
from netsim.compiled.chain_index import FROM, ChainIndexer
from netsim.compiled.hashing import START, U, fold
from netsim.compiled.ipset_tables import SetCompiler
from netsim.compiled.jit import kernel
from netsim.compiled.lowered import SET, Lowered, Lowering, Pools, encoded
from netsim.compiled.names import Names
from netsim.compiled.programs import Programs
from netsim.compiled.staged import StagedRows
from netsim.linux.ipset import IpSet
from netsim.linux.netfilter.base import Hook, Nat, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Table
from netsim.packet.address import Family

_SMALL = 512  # chains in a dict; larger ones are compiled chain by chain


@dataclass(frozen=True, slots=True)
class _Instance:
    number: int
    table: Table
    family: Family
    ipsets: Mapping[str, IpSet]
    scopes: tuple[tuple[int, int], ...]  # kind and number


class RuleCompiler:
    """Compiles for any number of namespaces. Arrays only grow; what was handed out once keeps its number."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self._pools = Pools(addresses, names)
        self._code = self._pools.code
        self._lowerings = {family: Lowering(self._pools, family) for family in Family}
        self._indexer = ChainIndexer(addresses, self._code)
        self._sets = SetCompiler(addresses, self._code)
        self._resolution, self._pages = _Resolution(), _Pages()
        self._name_bits = _NameBits(names, self._pools.prefixes)
        self._tables = StagedRows(p.table_dtype)
        self._instances: list[_Instance] = []
        self._held: dict[Hashable, _Instance] = {}  # by (scope, family, name of the table)
        self._alike: dict[Hashable, int] = {}  # tables by what they consist of
        self._scope_numbers: dict[Hashable, int] = {}
        self._kept: list[Any] = []  # what is remembered by identity must not go
        self._compiled: dict[tuple[int, Family], int] = {}  # chains by identity
        self._same: dict[Hashable, int] = {}  # short chains by what they compile to
        self._rules = 0  # how many there are
        self._firsts: list[int] = []  # the first rule of each chain
        self._sources: list[Chain] = []

    # -- tables ----------------------------------------------------------------------------------------------------------
    def table(self, scope: Hashable, table: Table, family: Family, ipsets: Mapping[str, IpSet]) -> int:
        """The number of ``table`` as it stands in ``scope`` (a namespace). The same objects give the same number; a table
        that consists of the same chains as another may get that one's."""
        key = scope, family, table.name
        held = self._held.get(key)
        if held is not None and held.table is table and held.ipsets is ipsets:
            return held.number
        scopes = tuple([self._scope(mapping, family) for mapping in _mappings(table)])
        sets = self._number(("sets", id(ipsets)) if ipsets else "no sets", ipsets)
        number = self._alike.get((scopes, sets, table.name))
        if number is None:
            where = self._code.add([len(scopes), *[word for scope in scopes for word in scope]])
            number = self._alike[scopes, sets, table.name] = self._tables.append((where, sets, 0, 0))
            self._instances.append(_Instance(number, table, family, ipsets, scopes))
        self._held[key] = _Instance(number, table, family, ipsets, scopes)
        return number

    def entry(self, number: int, hook: Hook) -> int:
        """The built-in chain that packets enter at ``hook``: where a walk starts. KeyError if the table has none."""
        instance = self._instances[number]
        return self._chain(instance.table.chains[hook.value], instance.family)

    def fault(self, a: int, b: int) -> None:
        """Supply what a walk missed (R[FAULT_A], R[FAULT_B]); run the packet again with fresh ``programs``."""
        if b == p.NEEDS_TYPES:
            self._tables.array[a]["types"] = 1
        elif b != p.NEEDS_PROGRAMS:
            self._resolve(self._instances[a], self._pools.names.name(b), b)

    def compile_all(self, number: int) -> None:
        """Compile every chain of a table now, instead of when a packet comes to it."""
        instance = self._instances[number]
        for name in instance.table.chains:
            self._resolve(instance, name, self._pools.names.number(name))

    def _resolve(self, instance: _Instance, name: str, number: int) -> None:
        if name.startswith(SET):
            sets = instance.ipsets
            made = sets.get(name.removeprefix(SET))
            found = p.MISSING
            if made is not None:
                reason = self._pools.reason(f"sets of type {made.type} are not compiled")
                found = self._sets.compile(made, sets, reason)
            self._resolution.add(int(self._tables.array[instance.number]["sets"]), number, found)
            return
        for (kind, scope), mapping in zip(instance.scopes, _mappings(instance.table)):
            chain = mapping.get(name)
            if chain is not None:
                if kind == p.PAGED:
                    self._pages.set(scope, number, self._chain(chain, instance.family))
                return
            if kind == p.PAGED:
                self._pages.set(scope, number, p.ELSEWHERE)
        # Nobody has it. A table whose scopes are all complete gets one that says so.
        kind, scope = instance.scopes[-1]
        if kind == p.PAGED:
            self._pages.set(scope, number, p.MISSING)
        else:
            self._resolution.add(scope, number, p.MISSING)

    def uses_types(self, number: int) -> bool:
        """Must SRC_TYPE and DST_TYPE be filled in before this table is walked? Becomes true at the first FAULT for them."""
        return bool(self._tables.array[number]["types"])

    @property
    def programs(self) -> Programs:
        """All that is compiled by now."""
        directory, pages = self._pages.arrays
        return Programs(
            self._tables.array,
            self._code.array,
            self._resolution.array,
            directory,
            pages,
            self._name_bits.array,
            self._pools.nats.array,
        )

    # -- what numbers mean -----------------------------------------------------------------------------------------------
    def rule_of(self, gid: int) -> tuple[str, int, Rule]:
        """The chain's name, the rule's number in it from 1, and the rule, of an entry of ``hits``."""
        place = bisect_right(self._firsts, gid) - 1
        chain, at = self._sources[place], gid - self._firsts[place]
        return chain.name, at + 1, chain.rules[at]

    def nat(self, argument: int) -> Nat:
        return self._pools.nat_values[argument]

    def reject_with(self, argument: int) -> str:
        return self._pools.rejects.name(argument)

    def reason(self, argument: int) -> str:
        """Why a walk ended in BAIL."""
        return self._pools.reasons[argument]

    def recent_list(self, name: str, family: int) -> int:
        """The number of a list of ``-m recent`` that holds addresses of ``family``."""
        return self._pools.recent_list(name, family)

    def recent_name(self, number: int) -> tuple[str, int]:
        return self._pools.recent_names[number]

    # -- chains ----------------------------------------------------------------------------------------------------------
    def _number(self, key: Hashable, keep: Any) -> int:
        found = self._scope_numbers.get(key)
        if found is None:
            found = self._scope_numbers[key] = len(self._scope_numbers)
            self._kept.append(keep)
        return found

    def _scope(self, mapping: Mapping[str, Chain], family: Family) -> tuple[int, int]:
        """Kind and number of the scope for a mapping of chains."""
        if type(mapping) is not dict or len(mapping) > _SMALL:
            declared = getattr(mapping, "scope", None)
            key = ("of", id(mapping)) if declared is None else ("declared", declared)
            return p.PAGED, self._pages.scope((family, *key), mapping)
        names = self._pools.names
        held = tuple(
            sorted((names.number(name), self._chain(chain, family, share=True)) for name, chain in mapping.items())
        )
        known = len(self._scope_numbers)
        scope = self._number((family, held), None)
        if scope == known:
            for name, chain in held:
                self._resolution.add(scope, name, chain)
        return p.COMPLETE, scope

    def _chain(self, chain: Chain, family: Family, share: bool = False) -> int:
        """The address of a chain. ``share``: another that compiles to the same words may stand for it."""
        found = self._compiled.get((id(chain), family))
        if found is None:
            found = self._compiled[id(chain), family] = self._compile(chain, family, share)
            self._kept.append(chain)
        return found

    def _compile(self, chain: Chain, family: Family, share: bool) -> int:
        lowered = list(map(self._lowerings[family].rule, chain.rules))
        policy = p.POLICY_DROP if chain.policy is Verdict.DROP else 0
        key = chain.name, policy, tuple(lowered)
        if share:
            found = self._same.get(key)
            if found is not None:
                return found
        index = 0
        if len(lowered) >= FROM:
            keys = [self._indexer.key(one.codes[: one.pure]) for one in lowered]
            index = self._indexer.index(self._indexer.keyed(keys))
        number = (self._write_long if index else self._write)(lowered, policy, index)
        self._firsts.append(self._rules)
        self._sources.append(chain)
        self._rules += len(lowered)
        if share:
            self._same[key] = number
        return number

    def _write(self, lowered: Sequence[Lowered], policy: int, index: int) -> int:
        """The block of a short chain: header, draws, constraints that no chain had before, rules."""
        pools, code = self._pools, self._code
        runs = self._runs(lowered)
        block = [len(lowered) | policy, self._rules, 0, index]
        at = code.aligned(p.HEADER + p.RULE * len(lowered))  # from here to the end nothing else is written
        draws = {}
        for place, words in runs.items():
            draws[place] = len(block)
            block += words
        lists = []
        for one in lowered:
            held = pools.list_of(one.codes)
            if not held and one.codes:
                held = at + len(block)
                pools.keep_list(one.codes, held)
                block += encoded(one.codes)
            lists.append(held)
        block[2] = at + len(block)
        for place, ((codes, pure, action, argument), held) in enumerate(zip(lowered, lists)):
            block += draws[place] + at if place in draws else 0, pure | len(codes) << 8 | action << 16, argument, held
        return code.add(block)

    def _write_long(self, lowered: Sequence[Lowered], policy: int, index: int) -> int:
        """The block of a long chain: header, then a line for each rule, with its constraints if they fit."""
        pools, code = self._pools, self._code
        draws = {place: code.add(words) for place, words in self._runs(lowered).items()}
        outside = {one.codes for one in lowered if len(one.codes) > 4 and not pools.list_of(one.codes)}
        for codes in outside:
            pools.keep_list(codes, code.add(encoded(codes)))
        at = code.aligned(2 * p.LINE)
        block = [len(lowered) | policy, self._rules, at + p.LINE, index] + [0] * (p.LINE - p.HEADER)
        for place, (codes, pure, action, argument) in enumerate(lowered):
            held = pools.list_of(codes)
            words = []
            if codes and not held:
                held = at + len(block) + p.RULE
                pools.keep_list(codes, held)
                words = encoded(codes)
            block += draws.get(place, 0), pure | len(codes) << 8 | action << 16, argument, held, *words
            block += [0] * (p.LINE - p.RULE - len(words))
        return code.add(block)

    def _runs(self, lowered: Sequence[Lowered]) -> dict[int, list[int]]:
        """The runs of draws, rules in a row that hold nothing but one, by their first place: as words."""
        found: dict[int, list[int]] = {}
        first = -1
        for place, one in enumerate((*lowered, None)):
            if one is not None and len(one.codes) == 1 and one.codes[0][0] == p.RANDOM:
                first = place if first < 0 else first
                continue
            if 0 <= first < place - 1:
                run = lowered[first:place]
                words = [self._pools.run(tuple([one.codes[0][4] >> 1 for one in run]))]
                words += [one.argument for one in run] if all(one.action == p.TO_CHAIN for one in run) else [0]
                found[first] = words
            first = -1
        return found


def _mappings(table: Table) -> Sequence[Mapping[str, Chain]]:
    return table.chains.maps if isinstance(table.chains, ChainMap) else (table.chains,)


class _Resolution:
    """The hash table behind ``Programs.resolution``."""

    def __init__(self) -> None:
        self._array: npt.NDArray[Any] = np.zeros(256, p.resolution_dtype)
        self._held: dict[tuple[int, int], int] = {}
        self._staged: list[tuple[int, int, int, int]] = []

    def add(self, scope: int, name: int, found: int) -> None:
        if self._held.get((scope, name)) != found:
            self._held[scope, name] = found
            self._staged.append((scope, name, found, 1))

    @property
    def array(self) -> npt.NDArray[Any]:
        if self._staged:
            if 2 * len(self._held) > len(self._array):
                size = len(self._array)
                while size < 4 * len(self._held):
                    size *= 2
                self._array = np.zeros(size, p.resolution_dtype)
                self._staged = [(scope, name, found, 1) for (scope, name), found in self._held.items()]
            _put(self._array, np.array(self._staged, p.resolution_dtype))
            self._staged.clear()
        return self._array


@kernel
def _put(resolution: Any, rows: Any) -> None:
    mask = U(len(resolution) - 1)
    for at in range(len(rows)):
        row = rows[at]
        place = fold(fold(START, U(row["scope"])), U(row["name"])) & mask
        while resolution[place]["used"] != 0 and not (
            resolution[place]["scope"] == row["scope"] and resolution[place]["name"] == row["name"]
        ):
            place = (place + U(1)) & mask
        resolution[place] = row


class _Pages:
    """What names mean in scopes that are asked name by name, a page of names at a time."""

    def __init__(self) -> None:
        self._directory: npt.NDArray[np.uint32] = np.zeros((4, 16), np.uint32)
        self._pages: npt.NDArray[np.uint32] = np.zeros((16, p.PAGE), np.uint32)  # page 0 stays empty
        self._used = 1
        self._numbers: dict[Hashable, int] = {}
        self._kept: list[Any] = []

    def scope(self, key: Hashable, keep: Any) -> int:
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._numbers)
            self._kept.append(keep)
            if found == len(self._directory):
                self._directory = np.concatenate((self._directory, np.zeros_like(self._directory)))
        return found

    def set(self, scope: int, name: int, found: int) -> None:
        page, at = divmod(name, p.PAGE)
        while page >= self._directory.shape[1]:
            self._directory = np.concatenate((self._directory, np.zeros_like(self._directory)), axis=1)
        number = self._directory[scope, page]
        if not number:
            if self._used == len(self._pages):
                self._pages = np.concatenate((self._pages, np.zeros_like(self._pages)))
            number = self._directory[scope, page] = self._used
            self._used += 1
        self._pages[number, at] = found

    @property
    def arrays(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        return self._directory, self._pages


class _NameBits:
    """Which device names begin with which prefixes, names that are interned later included."""

    def __init__(self, names: Names, prefixes: Mapping[str, int]) -> None:
        self._names, self._prefixes = names, prefixes
        self._array: npt.NDArray[np.uint32] = np.zeros((1, 8), np.uint32)
        self._rows = self._columns = 0

    @property
    def array(self) -> npt.NDArray[np.uint32]:
        """``(prefixes, words)``; all names known by now have their bit."""
        rows, columns = len(self._prefixes), len(self._names)
        if not rows or (rows, columns) == (self._rows, self._columns):
            return self._array
        height, width = self._array.shape
        if rows > height or columns > 32 * width:
            grown = np.zeros((max(rows, height), max(2 * width, -(-columns // 32))), np.uint32)
            grown[:height, :width] = self._array
            self._array = grown
        for prefix, row in self._prefixes.items():
            for number in range(self._columns if row < self._rows else 0, columns):
                if self._names.name(number).startswith(prefix):
                    self._array[row, number >> 5] |= np.uint32(1 << (number & 31))
        self._rows, self._columns = rows, columns
        return self._array
