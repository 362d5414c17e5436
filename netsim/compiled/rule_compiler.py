"""Netfilter tables become programs, chain by chain, as packets come to them.

A name means a chain within a table, and nodes share chain objects. So a table is a list of *scopes*, one for each mapping
its chains come from, and ``resolution`` says what a name means in a scope. A mapping of chains that are derived on look-up
may have an attribute ``scope``: tables whose mappings have equal ones hold the same chains under it, so that 5,000 nodes
need one resolution between them. Small dicts are compiled at once, and those that compile to the same share a scope too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs as p
from netsim.compiled import registers as r
from netsim.compiled.addresses import Addresses
from netsim.compiled.chain_index import FROM, ChainIndexer, Index
from netsim.compiled.hashing import START, U, fold
from netsim.compiled.jit import kernel
from netsim.compiled.lowered import Lowering, Pools
from netsim.compiled.names import Names
from netsim.compiled.programs import Programs
from netsim.compiled.staged import StagedRows
from netsim.linux.ipset import IpSet
from netsim.linux.netfilter.base import Hook, Nat, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Table
from netsim.packet.address import Family

_SMALL = 512  # chains in a dict; larger ones are compiled chain by chain
_SET = "set "


@dataclass(frozen=True, slots=True)
class _Instance:
    number: int
    table: Table
    family: Family
    ipsets: Mapping[str, IpSet]
    scopes: tuple[int, ...]


class RuleCompiler:
    """Compiles for any number of namespaces. Arrays only grow; what was handed out once keeps its number."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self._pools = Pools(addresses, names)
        self._lowerings = {family: Lowering(self._pools, family) for family in Family}
        self._tables, self._scopes = StagedRows(p.table_dtype), StagedRows(p.scope_dtype)
        self._chains, self._rules = StagedRows(p.chain_dtype), StagedRows(p.rule_dtype)
        self._indexer = ChainIndexer(addresses, self._pools.ranges)
        self._resolution = _Resolution()
        self._name_bits = _NameBits(names, self._pools.prefixes)
        self._instances: list[_Instance] = []
        self._held: dict[Hashable, _Instance] = {}  # by (scope, family, name of the table)
        self._alike: dict[Hashable, int] = {}  # numbers of tables by what they consist of
        self._scope_numbers: dict[Hashable, int] = {}
        self._kept: list[Any] = []  # what is remembered by identity must not go
        self._compiled: dict[tuple[int, Family], int] = {}  # chains by identity
        self._same: dict[Hashable, int] = {}  # short chains by what they compile to
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
        mappings = table.chains.maps if isinstance(table.chains, ChainMap) else [table.chains]
        scopes = tuple([self._scope(mapping, family) for mapping in mappings])
        sets = self._number(("sets", id(ipsets)) if ipsets else "no sets", ipsets)
        number = self._alike.get((scopes, sets, table.name))
        if number is None:
            complete = [(one, int(self._complete(mapping))) for one, mapping in zip(scopes, mappings)]
            first = self._scopes.extend(complete)
            number = self._tables.append((first, len(scopes), sets, 0))
            self._alike[scopes, sets, table.name] = number
            self._instances.append(_Instance(number, table, family, ipsets, scopes))
        self._held[key] = _Instance(number, table, family, ipsets, scopes)
        return number

    def entry(self, number: int, hook: Hook) -> int:
        """The built-in chain that packets enter at ``hook``: where a walk starts. KeyError if the table has none."""
        instance = self._instances[number]
        return self._chain(instance.table.chains[hook.value], instance.family)

    def fault(self, a: int, b: int) -> None:
        """Supply what a walk missed (R[FAULT_A], R[FAULT_B]); run the packet again with fresh ``programs``."""
        instance = self._instances[a]
        if b == p.NEEDS_PROGRAMS:
            return
        if b == p.NEEDS_TYPES:
            self._tables.array[a]["types"] = 1
            return
        name = self._pools.names.name(b)
        self._resolve(instance, name, b)

    def compile_all(self, number: int) -> None:
        """Compile every chain of a table now, instead of when a packet comes to it."""
        instance = self._instances[number]
        names = self._pools.names
        for name in instance.table.chains:
            self._resolve(instance, name, names.number(name))

    def _resolve(self, instance: _Instance, name: str, number: int) -> None:
        chains = instance.table.chains
        mappings = chains.maps if isinstance(chains, ChainMap) else [chains]
        for scope, mapping in zip(instance.scopes, mappings):
            chain = mapping.get(name)
            if chain is not None:
                self._resolution.add(scope, number, self._chain(chain, instance.family))
                return
            self._resolution.add(scope, number, p.ELSEWHERE)
        self._resolution.add(instance.scopes[-1], number, p.MISSING)

    def uses_types(self, number: int) -> bool:
        """Must SRC_TYPE and DST_TYPE be filled in before this table is walked? Becomes true at the first FAULT for them."""
        return bool(self._tables.array[number]["types"])

    @property
    def programs(self) -> Programs:
        """All that is compiled by now."""
        pools, indexer = self._pools, self._indexer
        return Programs(
            self._tables.array,
            self._scopes.array,
            self._resolution.array,
            self._chains.array,
            indexer.rest.array,
            indexer.groups.array,
            indexer.parts.array,
            indexer.slots.array,
            indexer.places.array,
            self._rules.array,
            pools.constraints.array,
            pools.ranges.array,
            self._name_bits.array,
            pools.runs.array,
            pools.thresholds.array,
            pools.nats.array,
            pools.marks.array,
            pools.recent_lists.array,
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

    @staticmethod
    def _complete(mapping: Mapping[str, Chain]) -> bool:
        """Is a name that has not been resolved in this mapping known not to be in it?"""
        return type(mapping) is dict and len(mapping) <= _SMALL

    def _scope(self, mapping: Mapping[str, Chain], family: Family) -> int:
        if not self._complete(mapping):
            declared = getattr(mapping, "scope", None)
            key = ("of", id(mapping)) if declared is None else ("declared", declared)
            return self._number((family, *key), mapping)
        names = self._pools.names
        held = tuple(sorted((names.number(name), self._chain(chain, family)) for name, chain in mapping.items()))
        known = len(self._scope_numbers)
        scope = self._number((family, held), None)
        if scope == known:
            for name, chain in held:
                self._resolution.add(scope, name, chain)
        return scope

    def _chain(self, chain: Chain, family: Family) -> int:
        found = self._compiled.get((id(chain), family))
        if found is None:
            found = self._compiled[id(chain), family] = self._compile(chain, family)
            self._kept.append(chain)
        return found

    def _compile(self, chain: Chain, family: Family) -> int:
        pools, lower = self._pools, self._lowerings[family].rule
        lowered = [lower(rule) for rule in chain.rules]
        rows = [
            (pools.constraint_list(codes), pure, len(codes), action, 0, argument, 0)
            for codes, pure, action, argument in lowered
        ]
        at = 0
        while at < len(rows):
            end = at
            chances = []
            while end < len(rows) and len(lowered[end].codes) == 1 and lowered[end].codes[0][0] == p.RANDOM:
                chances.append(lowered[end].codes[0][4] >> 1)
                end += 1
            if len(chances) > 1:
                rows[at] = (*rows[at][:6], pools.run(tuple(chances)))
            at = max(end, at + 1)
        policy = r.DROP if chain.policy is Verdict.DROP else r.ACCEPT
        key = chain.name, policy, tuple(rows)
        found = self._same.get(key)
        if found is not None:
            return found
        first = self._rules.extend(rows)
        index = Index(0, 0, 0, 0)
        if len(rows) >= FROM:
            keys = [self._indexer.key(codes[:pure]) for codes, pure, _, _ in lowered]
            index = self._indexer.index(self._indexer.keyed(keys))
        number = self._same[key] = self._chains.append((first, len(rows), *index, policy, 0))
        self._firsts.append(first)
        self._sources.append(chain)
        return number


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
