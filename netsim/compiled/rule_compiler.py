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

from netsim.compiled import programs as p
from netsim.compiled.addresses import Addresses
from netsim.compiled.chain_blocks import ChainBlocks
from netsim.compiled.chain_index import FROM, ChainIndexer
from netsim.compiled.ipset_tables import SetCompiler
from netsim.compiled.lowered import SET, Lowering, Pools
from netsim.compiled.names import Names
from netsim.compiled.programs import Programs
from netsim.compiled.resolution import NameBits, Pages, Resolution
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
        self._blocks = ChainBlocks(self._pools, ChainIndexer(addresses, self._code))
        self._sets = SetCompiler(addresses, self._code)
        self._resolution, self._pages = Resolution(), Pages()
        self._name_bits = NameBits(names, self._pools.prefixes)
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
            if type(mapping) is dict:
                self._lowerings[family].note_recent(mapping.values())
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
        lower = self._lowerings[family].rule
        policy = p.POLICY_DROP if chain.policy is Verdict.DROP else 0
        first = self._rules
        draft = self._blocks.successor(chain, family, lower)
        lowered = [lower(rule) for rule in chain.rules] if draft is None else draft.lowered
        key = (chain.name, policy, family, tuple(lowered)) if share else None
        if key in self._same:
            return self._same[key]
        if draft is None and sum([one.pure > 0 for one in lowered]) >= FROM:
            draft = self._blocks.draft(lowered)
        if draft is None:
            number = self._blocks.short(lowered, policy, first)
        else:
            number = self._blocks.long(chain, family, policy, first, draft)
        if share:
            self._same[key] = number
        self._firsts.append(first)
        self._sources.append(chain)
        self._rules += len(chain.rules)
        return number


def _mappings(table: Table) -> Sequence[Mapping[str, Chain]]:
    return table.chains.maps if isinstance(table.chains, ChainMap) else (table.chains,)
