"""One service port with its endpoints: the views that nodes have of it, and the chains that are made of these.

Nothing here changes but what is remembered. So one ``PortRules`` serves all nodes, and every generation of the cluster in
which the port and its endpoints are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from netsim.linux.netfilter.rule import Chain, Rule
from netsim_backends.kube_proxy import names
from netsim_backends.kube_proxy.endpoints import Choice, Endpoint, EndpointSet, categorize
from netsim_backends.kube_proxy.iptables_line import Line
from netsim_backends.kube_proxy.iptables_rules import (
    Dialect,
    ServiceView,
    balancing,
    endpoint_lines,
    external_lines,
    firewall_lines,
    front,
    internal_masquerade,
)
from netsim_backends.kube_proxy.local_traffic import LocalDetector
from netsim_backends.kube_proxy.service_ports import ServicePort

Where = tuple[str, str]  # table, chain


class PortRules:
    """``same_node_hints``: the version of kube-proxy heeds ``hints.forNodes``."""

    def __init__(self, port: ServicePort, found: EndpointSet, dialect: Dialect, same_node_hints: bool) -> None:
        self.port = port
        self.found = found
        self.dialect = dialect
        self._same_node_hints = same_node_hints
        self._views: dict[Choice, ServiceView] = {}
        self._fronts: dict[ServiceView, Mapping[Where, tuple[Rule, ...]]] = {}
        self._own: dict[tuple[ServiceView, str, LocalDetector | None, bool], Chain] = {}
        self._endpoint_chains: dict[str, Chain] = {}

    @cached_property
    def node_specific(self) -> bool:
        """May nodes see it differently?"""
        return bool(self.port.uses_local_endpoints or self.found.elsewhere or self.found.hinted)

    @property
    def ranged(self) -> bool:
        """Does its firewall chain depend on whether a node's own address is in its source ranges?"""
        return bool(self.port.load_balancer_ips and self.port.source_ranges)

    # -- views -----------------------------------------------------------------------------------------------------------
    @cached_property
    def common(self) -> ServiceView | None:
        """The view that all nodes have in common; None where they may differ."""
        return None if self.node_specific else ServiceView(self.port, self._choice("", ""))

    def seen_from(self, node: str, zone: str) -> ServiceView:
        if self.common is not None:
            return self.common
        choice = self._choice(node, zone)
        view = self._views.get(choice)
        if view is None:
            view = self._views[choice] = ServiceView(self.port, choice)
        return view

    def _choice(self, node: str, zone: str) -> Choice:
        return categorize(
            self.found.seen_from(node),
            node=node,
            zone=zone,
            uses_cluster=self.port.uses_cluster_endpoints,
            uses_local=self.port.uses_local_endpoints,
            same_node_hints=self._same_node_hints,
        )

    # -- rules -----------------------------------------------------------------------------------------------------------
    def front(self, view: ServiceView) -> Mapping[Where, tuple[Rule, ...]]:
        """The rules in the chains that all Services share, by chain."""
        known = self._fronts.get(view)
        if known is None:
            made: dict[Where, tuple[Rule, ...]] = {}
            for line in front(view, self.dialect):
                made[line.table, line.chain] = (*made.get((line.table, line.chain), ()), line.rule())
            known = self._fronts[view] = made
        return known

    @cached_property
    def owners(self) -> Mapping[str, Endpoint]:
        """The endpoint chains by name, with the endpoint that each stands for."""
        name, protocol = self.port.key
        return {names.endpoint_chain(name, protocol, one.name): one for one in self.found.endpoints}

    def endpoint_chain(self, name: str, view: ServiceView) -> Chain | None:
        """None if ``view`` reaches no endpoint with a chain of this name."""
        endpoint = self.owners.get(name)
        if endpoint is None or endpoint.name not in view.endpoint_names:
            return None
        return self._endpoint_chains.get(name) or self._made(name, endpoint)

    def endpoint_chains(self, view: ServiceView) -> Iterator[Chain]:
        """Those of all endpoints that ``view`` reaches."""
        known, reached = self._endpoint_chains, view.endpoint_names
        for name, endpoint in self.owners.items():
            if endpoint.name in reached:
                yield known.get(name) or self._made(name, endpoint)

    def _made(self, name: str, endpoint: Endpoint) -> Chain:
        lines = endpoint_lines(self.port, self.dialect, name, endpoint)
        chain = self._endpoint_chains[name] = Chain(name, tuple([line.rule() for line in lines]))
        return chain

    def own_chain(self, name: str, view: ServiceView, detector: LocalDetector | None, inside: bool) -> Chain | None:
        """The EXT, FW, SVC or SVL chain of ``view``; None if it has none of this name. ``inside``: the node's own address
        is in the source ranges."""
        key = view, name, detector, inside
        chain = self._own.get(key)
        if chain is None and name in view.own_chains():
            rules = [line.rule() for line in self._own_lines(view, name, detector, inside)]
            chain = self._own[key] = Chain(name, tuple(rules))
        return chain

    def _own_lines(self, view: ServiceView, name: str, detector: LocalDetector | None, inside: bool) -> Iterator[Line]:
        if name == view.external_chain:
            yield from external_lines(view, self.dialect, detector)
        elif name == view.firewall_chain:
            yield from firewall_lines(view, inside)
        else:
            if name == view.internal_policy_chain:
                yield from internal_masquerade(view, self.dialect, detector)
            endpoints = view.choice.cluster if name == view.cluster_chain else view.choice.local
            yield from balancing(view.port, self.dialect, name, endpoints)

    # -- generations -----------------------------------------------------------------------------------------------------
    def take_over(self, before: PortRules) -> PortRules:
        """Keep whatever came out the same as in the generation before: the rules themselves, too, so that who knows them
        by identity need not look at them again. ``before`` itself if nothing differs."""
        if self.dialect == before.dialect and self.port == before.port and self.found == before.found:
            return before
        for name, chain in before._endpoint_chains.items():
            if before.same_endpoint_chain(self, name):
                self._endpoint_chains[name] = chain
        return self

    def same_endpoint_chain(self, other: PortRules, name: str) -> bool:
        """Do both have an endpoint's chain of this name, with the same rules?"""
        mine, its = self._endpoint_rules(name), other._endpoint_rules(name)
        return mine is not None and mine == its

    def _endpoint_rules(self, name: str) -> object:
        """All that an endpoint's chain is made of; None if there is none of this name."""
        one, port = self.owners.get(name), self.port
        if one is None:
            return None
        return one.name, one.source, port.key, port.affinity, port.source, self.dialect

    def keep(self, view: ServiceView, detector: LocalDetector | None, inside: bool, chain: Chain) -> None:
        """Let an equal chain of the generation before stand for an own chain of ``view``."""
        self._own[view, chain.name, detector, inside] = chain

    def keep_front(self, view: ServiceView, rules: Mapping[Where, tuple[Rule, ...]]) -> None:
        self._fronts[view] = rules
