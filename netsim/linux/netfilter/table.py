"""Tables and rulesets as values, and the builder that applies what components do to them, in start order.

A node's nat table may hold hundreds of thousands of chains, nearly all of them Service chains that most packets never
enter. ``Table.chains`` is therefore a Mapping: parts of it may be derived on first look-up (``RulesetBuilder.lazy``), and
nodes that would hold the same chain share the same object.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from netsim.linux.netfilter.base import TABLE_HOOKS, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.packet.address import Family


@dataclass(frozen=True, eq=False)
class Table:
    """``chains`` by name; iteration order has no meaning (``iptables-save`` order is built-in chains, then sorted)."""

    name: str
    chains: Mapping[str, Chain] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.name == other.name and dict(self.chains) == dict(other.chains)

    def __hash__(self) -> int:
        return hash((self.name, len(self.chains)))

    @property
    def builtin(self) -> tuple[str, ...]:
        """The built-in chains in hook order."""
        return tuple(h.value for h in TABLE_HOOKS[self.name])

    def ordered(self) -> Iterator[Chain]:
        """Chains as ``iptables-save`` lists them: built-in first, then user chains by name."""
        for name in self.builtin:
            yield self.chains[name]
        for name in sorted(set(self.chains) - set(self.builtin)):
            yield self.chains[name]


@dataclass(frozen=True)
class Ruleset:
    """All iptables tables of one family in one namespace. A table nobody touched is absent.

    ``nft``: iptables-nft holds them, which runs table security at priority 150 (``nft.c`` of iptables 1.8.9), behind source
    translation at INPUT; the kernel's own tables run it at 50 (``NF_IP_PRI_SECURITY``), before."""

    family: Family
    tables: Mapping[str, Table] = field(default_factory=dict)
    nft: bool = False


class RulesetBuilder:
    """Collects what each component does with ``iptables`` in the order in which they start."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._rules: dict[str, dict[str, list[Rule]]] = {}
        self._policies: dict[tuple[str, str], Verdict] = {}
        self._lazy: dict[str, list[Mapping[str, Chain]]] = {}

    def chain(self, table: str, name: str) -> list[Rule]:
        """The rules of a chain, made if absent (as ``-N`` would)."""
        chains = self._rules.get(table)
        if chains is None:
            chains = self._rules[table] = {hook.value: [] for hook in TABLE_HOOKS[table]}
        return chains.setdefault(name, [])

    def append(self, table: str, chain: str, *rules: Rule) -> None:
        self.chain(table, chain).extend(rules)

    def insert(self, table: str, chain: str, rule: Rule, at: int = 1) -> None:
        """``-I CHAIN at``: 1 is the head."""
        self.chain(table, chain).insert(at - 1, rule)

    def ensure(self, table: str, chain: str, rule: Rule, prepend: bool = False) -> None:
        """Add the rule unless an equal one is there already."""
        rules = self.chain(table, chain)
        if rule not in rules:
            rules.insert(0, rule) if prepend else rules.append(rule)

    def policy(self, table: str, chain: str, verdict: Verdict) -> None:
        self.chain(table, chain)
        self._policies[table, chain] = verdict

    def lazy(self, table: str, chains: Mapping[str, Chain]) -> None:
        """Add user chains that are derived when first looked up. Names must not clash with eager ones."""
        self._lazy.setdefault(table, []).append(chains)

    def build(self) -> Ruleset:
        tables: dict[str, Table] = {}
        for name in dict.fromkeys((*self._rules, *self._lazy)):
            self.chain(name, TABLE_HOOKS[name][0].value)
            builtin = {hook.value for hook in TABLE_HOOKS[name]}
            eager = {
                chain: Chain(
                    chain,
                    tuple(rules),
                    self._policies.get((name, chain), Verdict.ACCEPT) if chain in builtin else None,
                )
                for chain, rules in self._rules[name].items()
            }
            lazy = self._lazy.get(name, [])
            tables[name] = Table(name, ChainMap(eager, *lazy) if lazy else eager)  # type: ignore[arg-type]
        return Ruleset(self.family, tables)
