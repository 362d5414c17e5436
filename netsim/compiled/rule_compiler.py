"""Netfilter tables become programs, chain by chain, as packets come to them.

A name means a chain within a table, and nodes share chain objects. So a table is a list of *scopes*, one for each mapping
its chains come from, and ``resolution`` says what a name means in a scope. A mapping of chains that are derived on look-up
may have an attribute ``scope``: tables whose mappings have equal ones hold the same chains under it, so that 5,000 nodes
need one resolution between them. Small dicts are compiled at once, and those that compile to the same share a scope too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from netsim.compiled import programs as p
from netsim.compiled.addresses import Addresses
from netsim.compiled.alike_chains import FEW, alike, fill
from netsim.compiled.chain_blocks import ChainBlocks, Draft
from netsim.compiled.chain_index import FROM, ChainIndexer
from netsim.compiled.ipset_tables import UNKNOWN, SetCompiler
from netsim.compiled.lowered import SET, Lowered, Lowering, Pools
from netsim.compiled.names import Names
from netsim.compiled.programs import Programs
from netsim.compiled.resolution import NameBits, Pages, Resolution
from netsim.compiled.staged import StagedRows
from netsim.compiled.world import TABLES
from netsim.linux.ipset import IpSet
from netsim.linux.netfilter.base import Hook, Nat, Verdict
from netsim.linux.netfilter.rule import Chain, Rule, same_rules
from netsim.linux.netfilter.table import Table
from netsim.linux.network import Renewal
from netsim.packet.address import Family

_SMALL = 512  # chains in a dict; larger ones are compiled chain by chain
_AHEAD = 32  # chains that are compiled with the one that jumps to them


@dataclass(frozen=True, slots=True)
class _Instance:
    number: int
    table: Table
    family: Family
    ipsets: Mapping[str, IpSet]
    scopes: tuple[tuple[int, int], ...]  # kind and number


class Change(NamedTuple):
    """A chain as it was and as it is; None: there is none."""

    family: Family
    table: str
    old: Chain | None
    new: Chain | None


class Renewed(NamedTuple):
    """What a new generation brought: changes in all tables that look their chains up, and changes in single tables, which
    have got another number: by (scope, family, name of the table), as in ``RuleCompiler.table``."""

    everywhere: list[Change]
    tables: dict[tuple[Hashable, Family, str], tuple[int, list[Change]]]


class RuleCompiler:
    """Compiles for any number of namespaces. Arrays only grow; what was handed out once keeps its number."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self._pools = Pools(addresses, names)
        self._code = self._pools.code
        self._lowerings = {family: Lowering(self._pools, family) for family in Family}
        self._blocks = ChainBlocks(self._pools, ChainIndexer(addresses, self._code))
        self._sets = SetCompiler(addresses, self._code)
        self._left: dict[
            int, int
        ] = {}  # sets that rules have changed, by identity of the mapping: what they resolve to
        self._resolution, self._pages = Resolution(), Pages()
        self._name_bits = NameBits(names, self._pools.prefixes)
        self._tables = StagedRows(p.table_dtype)
        self._instances: list[_Instance] = []
        self._held: dict[tuple[Hashable, Family, str], _Instance] = {}  # by scope, family, name of the table
        self._alike: dict[Hashable, int] = {}  # tables by what they consist of
        self._scope_numbers: dict[Hashable, int] = {}
        self._kept: list[Any] = []  # what is remembered by identity must not go
        self._rules = 0  # how many there are
        self._sources: list[Chain | None] = []  # None: replaced
        self._firsts: list[int] = []  # the first rule of each of them
        self._addresses: list[int] = []  # theirs
        self._named: dict[Family, dict[str, tuple[int, ...]]] = {
            family: {} for family in Family
        }  # their places by name
        self._shared: dict[tuple[int, Family], int] = {}  # addresses of the chains that may share one, by identity
        self._same: dict[Hashable, int] = {}  # the same, by what they compile to
        self._tables_of: dict[int, tuple[Family, str]] = {}  # which table's chains a paged scope has

    # -- tables ----------------------------------------------------------------------------------------------------------
    def table(self, scope: Hashable, table: Table, family: Family, ipsets: Mapping[str, IpSet]) -> int:
        """The number of ``table`` as it stands in ``scope`` (a namespace). The same objects give the same number; a table
        that consists of the same chains as another may get that one's."""
        key = scope, family, table.name
        held = self._held.get(key)
        if held is not None and held.table is table and held.ipsets is ipsets:
            return held.number
        scopes = tuple([self._scope(mapping, family, table.name) for mapping in _mappings(table)])
        sets = self._number(("sets", id(ipsets)) if ipsets else "no sets", ipsets)
        number = self._alike.get((scopes, sets, table.name))
        if number is None:
            where = self._code.add([len(scopes), *[word for scope in scopes for word in scope]])
            number = self._alike[scopes, sets, table.name] = self._tables.append((where, sets))
            self._instances.append(_Instance(number, table, family, ipsets, scopes))
        self._held[key] = _Instance(number, table, family, ipsets, scopes)
        return number

    def entry(self, number: int, hook: Hook) -> int:
        """The built-in chain that packets enter at ``hook``: where a walk starts. KeyError if the table has none."""
        instance = self._instances[number]
        chain, family = instance.table.chains[hook.value], instance.family
        return self._shared.get((id(chain), family)) or self._chain(chain, family)

    def fault(self, a: int, b: int) -> None:
        """Supply what a walk missed (R[FAULT_A], R[FAULT_B]); run the packet again with fresh ``programs``."""
        if b not in (p.NEEDS_TYPES, p.NEEDS_PROGRAMS):
            chain = self._resolve(self._instances[a], self._pools.names.name(b), b)
            if chain is not None:
                self._resolve_ahead(self._instances[a], chain)

    def compile_all(self, number: int) -> None:
        """Compile every chain of a table now, instead of when a packet comes to it."""
        instance, known = self._instances[number], self._pools.names.number
        for (kind, scope), mapping in zip(instance.scopes, _mappings(instance.table)):
            if kind == p.PAGED:
                chains = dict(mapping.items())
                found = self._chains(chains.values(), instance.family)
                self._pages.set_all(scope, list(map(known, chains)), found)

    def _resolve_ahead(self, instance: _Instance, chain: Chain) -> None:
        """A packet that comes to a chain goes on to one that it jumps to. Where these are few, as the endpoints of a Service
        are, they are compiled with it: to be asked for each of them would take longer."""
        names = dict.fromkeys(rule.jump for rule in chain.rules if rule.jump is not None)
        paged = [scope for kind, scope in instance.scopes if kind == p.PAGED]
        for name in names if len(names) <= _AHEAD else ():
            number = self._pools.names.number(name)
            if not any(self._pages.get(scope, number) for scope in paged):
                self._resolve(instance, name, number)

    def _resolve(self, instance: _Instance, name: str, number: int) -> Chain | None:
        """Say what a name means; the chain, if it is one."""
        if name.startswith(SET):
            sets = instance.ipsets
            made = sets.get(name.removeprefix(SET))
            found = self._left.get(id(sets), p.MISSING)
            if made is not None and found == p.MISSING:
                reason = self._pools.reason(f"sets of type {made.type} are not compiled")
                found = self._sets.compile(made, sets, reason)
            self._resolution.add(int(self._tables.array[instance.number]["sets"]), number, found)
            return None
        for (kind, scope), own in zip(instance.scopes, _mappings(instance.table)):
            mapping = self._pages.mapping(scope) if kind == p.PAGED else own  # the latest generation of it
            chain = mapping.get(name)
            if chain is not None:
                if kind == p.PAGED:
                    self._pages.set(scope, number, self._chain(chain, instance.family))
                return chain
            if kind == p.PAGED:
                self._pages.set(scope, number, p.ELSEWHERE)
        # Nobody has it. A table whose scopes are all complete gets one that says so.
        kind, scope = instance.scopes[-1]
        if kind == p.PAGED:
            self._pages.set(scope, number, p.MISSING)
        else:
            self._resolution.add(scope, number, p.MISSING)
        return None

    def leave_sets(self, where: Hashable) -> bool:
        """Rules have changed a set of this namespace (the ``scope`` of ``table``): the interpreter alone knows from now on
        what its sets hold. False if that has been said before."""
        tables = [self._held.get((where, family, table)) for family in Family for table in TABLES]
        fresh = {id(one.ipsets): one.ipsets for one in tables if one is not None and id(one.ipsets) not in self._left}
        for key, ipsets in fresh.items():
            scope = self._number(("sets", key), ipsets)
            self._left[key] = left = self._code.add([UNKNOWN, self._pools.reason("a set that rules change")])
            for name in ipsets:
                self._resolution.add(scope, self._pools.names.number(SET + name), left)
        return bool(fresh)

    # -- generations -----------------------------------------------------------------------------------------------------
    def renew(self, renewal: Renewal) -> Renewed:
        """Take over what has become of the chains that are derived on look-up. Those that packets have come to are compiled
        now, the others when a packet does. Nobody may be walking."""
        renewed = Renewed([], {})
        for scope, key, mapping in self._pages.scopes() if renewal.alike else ():
            new, names = renewal.chains(mapping, mapping)
            if new is not mapping:
                family, table = self._tables_of[scope]
                renewed.everywhere.extend(Change(family, table, mapping.get(name), new.get(name)) for name in names)
                self._pages.renew(scope, key, (family, "declared", new.scope), new)
                self._recompile(scope, scope, names)
        if not renewal.alike:
            self._part(renewal, renewed)
        self._clear(renewed)
        return renewed

    def _recompile(self, before: int, scope: int, names: Iterable[str]) -> None:
        """Let these names mean in ``scope`` what they mean now, as far as they mean something in ``before``."""
        family = self._tables_of[scope][0]
        for name in names:
            number = self._pools.names.known(name)
            found = self._pages.get(before, number) if number >= 0 else 0
            if found:
                chain = None if found in (p.MISSING, p.ELSEWHERE) else self._pages.mapping(scope).get(name)
                self._pages.set(scope, number, 0 if chain is None else self._chain(chain, family))

    def _clear(self, renewed: Renewed) -> None:
        """Give back replaced chains that no table can come to any more."""
        scopes = [scope for scope, _, _ in self._pages.scopes()]
        changes = [*renewed.everywhere, *[one for _, some in renewed.tables.values() for one in some]]
        for name, family in {(one.old.name, one.family) for one in changes if one.old is not None}:
            number = self._pools.names.known(name)
            for place in self._named[family].get(name, ()):
                if all(self._pages.get(scope, number) != self._addresses[place] for scope in scopes):
                    self._give_back(place, family)

    def _part(self, renewal: Renewal, renewed: Renewed) -> None:
        """The same for tables that were alike and may not be any more: each gets the scope that it has now."""
        keys = {scope: key for scope, key, _ in self._pages.scopes()}
        left: set[int] = set()
        for held, instance in list(self._held.items()):
            scopes, changes = list(instance.scopes), list[Change]()
            for place, own in enumerate(_mappings(instance.table)):
                kind, scope = scopes[place]
                base = self._pages.mapping(scope) if kind == p.PAGED else own
                new, names = renewal.chains(own, base)
                if new is own:
                    continue
                left.add(scope)
                known = [number for name in names if (number := self._pools.names.known(name)) >= 0]
                key = instance.family, "declared", new.scope
                number = self._pages.branch(scope, key, new, known)
                self._tables_of[number] = instance.family, instance.table.name
                changes += [
                    Change(instance.family, instance.table.name, base.get(name), new.get(name)) for name in names
                ]
                scopes[place] = p.PAGED, number
                self._recompile(scope, number, names)
            if changes or scopes != list(instance.scopes):
                self._held[held] = one = self._instance(instance, tuple(scopes))
                renewed.tables[held] = one.number, changes
        for scope in left - {scope for one in self._held.values() for kind, scope in one.scopes if kind == p.PAGED}:
            self._pages.drop(keys[scope])

    def _instance(self, before: _Instance, scopes: tuple[tuple[int, int], ...]) -> _Instance:
        """The instance of a table whose names are looked up in other scopes than before."""
        row = self._tables.array[before.number]
        key = scopes, int(row["sets"]), before.table.name
        number = self._alike.get(key)
        if number is None:
            where = self._code.add([len(scopes), *[word for scope in scopes for word in scope]])
            number = self._alike[key] = self._tables.append((where, int(row["sets"])))
            self._instances.append(_Instance(number, before.table, before.family, before.ipsets, scopes))
        return _Instance(number, before.table, before.family, before.ipsets, scopes)

    def _give_back(self, place: int, family: Family) -> None:
        chain = self._sources[place]
        assert chain is not None
        self._sources[place] = None
        self._blocks.give_back(chain, family, self._addresses[place])
        named = self._named[family]
        named[chain.name] = tuple([other for other in named[chain.name] if other != place])

    def rules_of(self, chain: Chain, family: Family) -> range:
        """The numbers of a chain's rules among ``hits``; none if it has not been compiled."""
        place = self._place(chain, self._named[family].get(chain.name, ()))
        return range(self._firsts[place], self._firsts[place] + len(chain.rules)) if place >= 0 else range(0)

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

    @property
    def words_used(self) -> int:
        """How many words of ``Programs.code`` are taken."""
        return self._code.end

    # -- what numbers mean -----------------------------------------------------------------------------------------------
    def rule_of(self, gid: int) -> tuple[str, int, Rule]:
        """The chain's name, the rule's number in it from 1, and the rule, of an entry of ``hits``. KeyError if an update has
        replaced the chain since."""
        place = bisect_right(self._firsts, gid) - 1
        chain, at = self._sources[place], gid - self._firsts[place]
        if chain is None:
            raise KeyError(gid)
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

    def _scope(self, mapping: Mapping[str, Chain], family: Family, table: str) -> tuple[int, int]:
        """Kind and number of the scope for a mapping of chains."""
        if type(mapping) is not dict or len(mapping) > _SMALL:
            if type(mapping) is dict:
                self._lowerings[family].note_recent(mapping.values())
            declared = getattr(mapping, "scope", None)
            key = ("of", id(mapping)) if declared is None else ("declared", declared)
            scope = self._pages.scope((family, *key), mapping)
            self._tables_of[scope] = family, table
            return p.PAGED, scope
        names = self._pools.names
        held = tuple(sorted((names.number(name), self._shared_chain(chain, family)) for name, chain in mapping.items()))
        known = len(self._scope_numbers)
        scope = self._number((family, held), None)
        if scope == known:
            for name, chain in held:
                self._resolution.add(scope, name, chain)
        return p.COMPLETE, scope

    def _chain(self, chain: Chain, family: Family) -> int:
        """The address of a chain."""
        return self._chains((chain,), family)[0]

    def _chains(self, chains: Collection[Chain], family: Family) -> list[int]:
        """The addresses of chains."""
        named, lower, addresses = self._named[family], self._lowerings[family].rule, self._addresses
        if len(chains) > FEW:
            for some in alike(chains, named):
                self._fill(some, family)
        found = []
        for chain in chains:
            places = named.get(chain.name, ())
            place = self._place(chain, places) if places else -1
            if place < 0:
                draft = self._blocks.successor(chain, family, lower) if len(chain.rules) >= FROM else None
                place = self._write(chain, family, draft or list(map(lower, chain.rules)))
                named[chain.name] = (*places, place)
            found.append(addresses[place])
        return found

    def _fill(self, chains: list[Chain], family: Family) -> None:
        """The same for chains that are alike, of which no chain has the name yet."""
        made = fill(chains, self._lowerings[family], self._pools, self._rules)
        if made is not None:
            first, place = self._rules, len(self._sources)
            self._sources += made.chains
            self._firsts += range(first, first + 2 * len(made.chains), 2)
            self._addresses += made.addresses
            self._rules += 2 * len(made.chains)
            self._named[family].update((chain.name, (place + at,)) for at, chain in enumerate(made.chains))

    def _place(self, chain: Chain, places: Iterable[int]) -> int:
        """Which of these places in ``_sources`` is that of a chain, or of one that is equal; -1 if none is."""
        for place in places:
            held = self._sources[place]
            if held is chain or (
                held is not None and held.policy == chain.policy and same_rules(held.rules, chain.rules)
            ):
                return place
        return -1

    def _shared_chain(self, chain: Chain, family: Family) -> int:
        """The address of a chain; another that compiles to the same words may stand for it."""
        found = self._shared.get((id(chain), family))
        if found is None:
            lowered = list(map(self._lowerings[family].rule, chain.rules))
            key = chain.name, chain.policy is Verdict.DROP, family, tuple(lowered)
            found = self._same.get(key)
            if found is None:
                found = self._same[key] = self._addresses[self._write(chain, family, lowered)]
            self._shared[id(chain), family] = found
            self._kept.append(chain)  # another one may stand for it in ``_sources``
        return found

    def _write(self, chain: Chain, family: Family, made: list[Lowered] | Draft) -> int:
        """Give a chain words and a place in ``_sources``: that place."""
        policy = p.POLICY_DROP if chain.policy is Verdict.DROP else 0
        if any(one.varies for one in (made.lowered if isinstance(made, Draft) else made)):
            policy |= p.VARIES
        first, rules, place = self._rules, len(chain.rules), len(self._sources)
        if rules >= FROM and not isinstance(made, Draft) and sum([one.pure > 0 for one in made]) >= FROM:
            made = self._blocks.draft(made)
        if isinstance(made, Draft):
            address = self._blocks.long(chain, family, policy, first, made)
        else:
            address = self._blocks.short(made, policy, first)
        self._sources.append(chain)
        self._firsts.append(first)
        self._addresses.append(address)
        self._rules += rules
        return place


def _mappings(table: Table) -> Sequence[Mapping[str, Chain]]:
    return table.chains.maps if isinstance(table.chains, ChainMap) else (table.chains,)
