"""Collects what every component writes into one namespace, in start order, and freezes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netsim.linux.ipset import IpSet
from netsim.linux.link import Link
from netsim.linux.netfilter.table import RulesetBuilder
from netsim.linux.network import Namespace
from netsim.linux.route import Address, FdbEntry, Neighbour, Route, RoutingRule
from netsim.linux.shared import SequenceBuilder
from netsim.packet.address import Family

_NONE: Mapping[Any, Any] = {}  # one for all: three empty dictionaries take a tenth of a pod's room


class NamespaceBuilder:
    """Lists to append to, some of which take shared runs; ``tables(family)`` is that family's iptables. ``build`` gives the
    value."""

    def __init__(self, name: str, node: str | None = None) -> None:
        self.name = name
        self.node = node
        self.links: list[Link] = []
        self.addresses: list[Address] = []
        self.routes: SequenceBuilder[Route] = SequenceBuilder()
        self.rules: list[RoutingRule] = []
        self.neighbours: SequenceBuilder[Neighbour] = SequenceBuilder()
        self.fdb: SequenceBuilder[FdbEntry] = SequenceBuilder()
        self.sysctls: dict[str, str] = {}
        self.ipsets: dict[str, IpSet] = {}
        self._tables: dict[Family, RulesetBuilder] = {}

    def tables(self, family: Family) -> RulesetBuilder:
        return self._tables.setdefault(family, RulesetBuilder(family))

    def build(self) -> Namespace:
        return Namespace(
            name=self.name,
            links=tuple(self.links),
            addresses=tuple(self.addresses),
            routes=self.routes.build(),
            rules=tuple(self.rules),
            neighbours=self.neighbours.build(),
            fdb=self.fdb.build(),
            sysctls=dict(self.sysctls) or _NONE,
            rulesets={family: builder.build() for family, builder in self._tables.items()} or _NONE,
            ipsets=dict(self.ipsets) or _NONE,
            node=self.node,
        )
