"""Which ports a cell of a row allows: the tiers walked once for each combination of rules, and port sets numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netsim_policies.algebra import ALL_PORTS, NO_PORTS, PortSet
from netsim_policies.evaluate import rule_ports
from netsim_policies.model import Action, Endpoint, EndpointKind, Rule, Tier
from netsim_policies.rows import UNKNOWN, Ranked, Row


class Values:
    """``port_sets[n]`` is the port set numbered n; 0 is none and 1 all. Numbers are never given twice."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tiers
        self.port_sets: list[PortSet] = [NO_PORTS, ALL_PORTS]
        self._port_ids: dict[PortSet, int] = {NO_PORTS: 0, ALL_PORTS: 1}
        self._named: dict[Any, Endpoint] = {(): Endpoint(EndpointKind.EXTERNAL, "")}
        self._effects: dict[Any, int] = {}
        self._effect_of: dict[int, tuple[Rule, int]] = {}
        self._walked: dict[Any, int] = {}
        self._ports_of: dict[tuple[int, int], PortSet] = {}

    def effect(self, rank: int, rule: Rule) -> int:
        """Equal for rules that do the same to the peers they match."""
        held = self._effect_of.get(id(rule))
        if held is None or held[0] is not rule:
            number = self._effects.setdefault((rank, rule.action, rule.ports), len(self._effects))
            held = self._effect_of[id(rule)] = (rule, number)
        return held[1]

    def value(self, row: Row, combo: int, zone: int, group: int) -> int:
        """The number of the port set of one cell of a row's table."""
        found = int(row.table[combo, zone, group])
        if found == UNKNOWN:
            names = row.names[group]
            rules = [row.rules[place] for place in sorted({*row.label_sets[combo], *row.zone_sets[zone], *row.always})]
            question = (row.tiers, tuple([r.effect for r in rules]), names)
            known = self._walked.get(question)
            if known is None:
                known = self._walked[question] = self.intern(self._walk(rules, row.tiers, self._with(names)))
            found = row.table[combo, zone, group] = known
        return int(found)

    def _with(self, names: Any) -> Endpoint:
        """Some destination with these named ports."""
        if names not in self._named:
            self._named[names] = Endpoint(EndpointKind.POD, "", named_ports=dict(names))
        return self._named[names]

    def _walk(self, rules: Sequence[Ranked], tiers: Sequence[int], destination: Endpoint) -> PortSet:
        """The ports that one side allows when exactly ``rules`` match the peer: first match wins, tier by tier."""
        allowed, undecided = NO_PORTS, ALL_PORTS
        for rank in tiers:
            mine, passed = [r for r in rules if r.tier == rank], NO_PORTS
            final = self.tiers[rank].unmatched is Action.DENY
            if final and all(r.rule.action is Action.ALLOW for r in mine):  # NetworkPolicy: order does not matter
                for ranked in mine:
                    allowed |= self._ports(ranked, destination) & undecided
                return allowed
            for ranked in mine:
                hit = self._ports(ranked, destination) & undecided
                undecided -= hit
                if ranked.rule.action is Action.ALLOW:
                    allowed |= hit
                elif ranked.rule.action is Action.PASS:
                    passed |= hit
            undecided = passed if final else undecided | passed
            if not undecided:
                break
        return allowed | undecided

    def _ports(self, ranked: Ranked, destination: Endpoint) -> PortSet:
        """``rule_ports``, once for all rules with the same ports and destinations with the same names."""
        key = ranked.effect, id(destination)  # one of those that are kept by ``_with``
        found = self._ports_of.get(key)
        if found is None:
            found = self._ports_of[key] = rule_ports(ranked.rule, destination)
        return found

    def intern(self, ports: PortSet) -> int:
        number = self._port_ids.get(ports)
        if number is None:
            number = self._port_ids[ports] = len(self.port_sets)
            self.port_sets.append(ports)
        return number

    def forget(self, rule: Rule) -> None:
        """The rule is gone."""
        self._effect_of.pop(id(rule), None)
