"""The rules that kube-proxy's iptables mode makes of one service port (kubernetes pkg/proxy/iptables, 1.28 to 1.35).

    nat     KUBE-SERVICES ─▶ KUBE-SVC (cluster IP) ─▶ KUBE-SEP ─▶ DNAT
            KUBE-SERVICES, KUBE-NODEPORTS ─▶ [KUBE-FW] ─▶ KUBE-EXT ─▶ KUBE-SVC or, by policy Local, KUBE-SVL ─▶ KUBE-SEP
    filter  KUBE-SERVICES, KUBE-EXTERNAL-SERVICES, KUBE-PROXY-FIREWALL: what must not pass
            KUBE-NODEPORTS: health checks

The rules fall in two groups. Those in the chains that all Services share (``front``) must be known before the first packet
is looked at. Those in the service port's own chains are asked for one chain at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from netsim.linux.provenance import Provenance
from netsim.packet.address import Family
from netsim_backends.kube_proxy import names
from netsim_backends.kube_proxy.endpoints import Choice, Endpoint
from netsim_backends.kube_proxy.iptables_line import (
    Line,
    Part,
    comment,
    dnat,
    one_of,
    option,
    remember,
    remembered,
    source,
    towards,
)
from netsim_backends.kube_proxy.local_traffic import LocalDetector
from netsim_backends.kube_proxy.service_ports import ServicePort

SERVICES = "KUBE-SERVICES"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
MARK_MASQ = "KUBE-MARK-MASQ"
LOCALHOST_COUNTER = "localhost_nps_accepted_pkts"


@dataclass(frozen=True)
class Dialect:
    """What the configuration and the size of the cluster change about every service port's rules.

    ``localhost_counter``: node ports on loopback are counted by nfacct. ``endpoint_comments``: off beyond 1,000 endpoints.
    """

    family: Family
    masquerade_all: bool = False
    localhost_counter: bool = False
    endpoint_comments: bool = True


@dataclass(frozen=True, eq=False)
class ServiceView:
    """A service port as one node sees it: all that its rules depend on, save the node's own detector and address.

    Nodes that see the same hold the same object, and so share the chains made from it.
    """

    port: ServicePort
    choice: Choice

    @cached_property
    def uses_cluster_chain(self) -> bool:
        return bool(self.choice.cluster) and self.port.uses_cluster_endpoints

    @cached_property
    def uses_local_chain(self) -> bool:
        return bool(self.choice.local) and self.port.uses_local_endpoints

    @property
    def has_internal(self) -> bool:
        return self.choice.any and not (self.port.internal_local and not self.choice.local)

    @property
    def has_external(self) -> bool:
        return self.choice.any and not (self.port.external_local and not self.choice.local)

    @property
    def uses_external_chain(self) -> bool:
        """Even without local endpoints under policy Local: the node's own traffic takes the short cut in it."""
        return self.choice.any and self.port.externally_accessible

    @property
    def uses_firewall_chain(self) -> bool:
        return self.choice.any and bool(self.port.load_balancer_ips) and bool(self.port.source_ranges)

    @property
    def cluster_chain(self) -> str:
        return names.SERVICE + self.port.hash

    @property
    def local_chain(self) -> str:
        return names.LOCAL + self.port.hash

    @property
    def external_chain(self) -> str:
        return names.EXTERNAL + self.port.hash

    @property
    def firewall_chain(self) -> str:
        return names.FIREWALL + self.port.hash

    @property
    def internal_policy_chain(self) -> str:
        return self.local_chain if self.port.internal_local else self.cluster_chain

    @property
    def external_policy_chain(self) -> str:
        return self.local_chain if self.port.external_local else self.cluster_chain

    @cached_property
    def endpoint_names(self) -> frozenset[str]:
        return frozenset(e.name for e in self.choice.reachable)

    def own_chains(self) -> Iterator[str]:
        """The service port's chains except those of its endpoints, in the document's order."""
        if self.uses_external_chain:
            yield self.external_chain
        if self.uses_firewall_chain:
            yield self.firewall_chain
        if self.uses_cluster_chain:
            yield self.cluster_chain
        if self.uses_local_chain:
            yield self.local_chain


def front(view: ServiceView, dialect: Dialect) -> Iterator[Line]:
    """The rules in the chains that all Services share."""
    port, family = view.port, dialect.family
    name, protocol = port.name, port.protocol
    because = Provenance(f"Service {name}", port.source)

    def to(address: str, number: int) -> Part:
        return towards(protocol, address, number, family)

    # What stands in the filter table for traffic that nat could not send anywhere.
    if not view.choice.any:
        missing, verdict, refused = (
            "has no endpoints",
            "REJECT",
            Provenance(f"Service {name} has no endpoints", port.source),
        )
    else:
        missing, verdict = "has no local endpoints", "DROP"
        refused = Provenance(f"Service {name} has no local endpoints", port.source)

    def refuse(chain: str, *where: Part) -> Line:
        return Line("filter", chain, (comment(f"{name} {missing}"), *where, option(f"-j {verdict}", family)), refused)

    if view.has_internal:
        parts = comment(f"{name} cluster IP"), to(port.cluster_ip, port.port)
        yield Line("nat", SERVICES, parts, because, view.internal_policy_chain)
    else:
        yield refuse(SERVICES, to(port.cluster_ip, port.port))

    for address in port.external_ips:
        if view.choice.any:
            parts = comment(f"{name} external IP"), to(address, port.port)
            yield Line("nat", SERVICES, parts, because, view.external_chain)
        if not view.has_external:
            yield refuse(EXTERNAL_SERVICES, to(address, port.port))

    for address in port.load_balancer_ips:
        if view.choice.any:
            entry = view.firewall_chain if view.uses_firewall_chain else view.external_chain
            parts = comment(f"{name} loadbalancer IP"), to(address, port.port)
            yield Line("nat", SERVICES, parts, because, entry)
        if view.uses_firewall_chain:
            text = comment(f"{name} traffic not accepted by {view.firewall_chain}")
            outside = Provenance(f"Service {name}, loadBalancerSourceRanges", port.source)
            yield Line("filter", PROXY_FIREWALL, (text, to(address, port.port), option("-j DROP", family)), outside)
    if not view.has_external:
        for address in port.load_balancer_ips:
            yield refuse(EXTERNAL_SERVICES, to(address, port.port))

    if port.node_port:
        if view.choice.any:
            bare = comment(name)
            if dialect.localhost_counter:
                counter = option(f"-m nfacct --nfacct-name {LOCALHOST_COUNTER}", family)
                parts4 = bare, to("127.0.0.0/8", port.node_port), counter
                yield Line("nat", NODE_PORTS, parts4, because, view.external_chain)
            yield Line("nat", NODE_PORTS, (bare, to("", port.node_port)), because, view.external_chain)
        if not view.has_external:
            local = option("-m addrtype --dst-type LOCAL", family)
            yield refuse(EXTERNAL_SERVICES, local, to("", port.node_port))

    if port.health_check_port:
        text = comment(f"{name} health check node port")
        check = towards("tcp", "", port.health_check_port, family)
        yield Line("filter", NODE_PORTS, (text, check, option("-j ACCEPT", family)), because)


def own_lines(
    view: ServiceView, dialect: Dialect, detector: LocalDetector | None, node_in_ranges: bool
) -> Iterator[Line]:
    """The rules in the service port's own chains, in the document's order.

    ``node_in_ranges``: a source range holds this node's address, so that its own traffic to a load-balancer address,
    whose source is that very address, is let through.
    """
    yield from internal_masquerade(view, dialect, detector)
    if view.uses_external_chain:
        yield from external_lines(view, dialect, detector)
    if view.uses_firewall_chain:
        yield from firewall_lines(view, node_in_ranges)
    if view.uses_cluster_chain:
        yield from balancing(view.port, dialect, view.cluster_chain, view.choice.cluster)
    if view.uses_local_chain:
        yield from balancing(view.port, dialect, view.local_chain, view.choice.local)
    for endpoint in view.choice.reachable:
        name = names.endpoint_chain(view.port.name, view.port.protocol, endpoint.name)
        yield from endpoint_lines(view.port, dialect, name, endpoint)


def internal_masquerade(view: ServiceView, dialect: Dialect, detector: LocalDetector | None) -> Iterator[Line]:
    """The first rule of the chain that serves the cluster IP: traffic from outside the cluster gets the node's address."""
    port, family = view.port, dialect.family
    if not view.has_internal or not (dialect.masquerade_all or detector):
        return
    others: tuple[Part, ...] = ()
    if not dialect.masquerade_all and detector:
        others = (option(f"! {detector.iptables}", family),)
    parts = (
        comment(f"{port.name} cluster IP"),
        towards(port.protocol, port.cluster_ip, port.port, family),
        *others,
    )
    because = "masqueraded on its cluster IP" + ("" if dialect.masquerade_all else " for clients outside the cluster")
    provenance = Provenance(f"Service {port.name}, {because}", port.source)
    yield Line("nat", view.internal_policy_chain, parts, provenance, MARK_MASQ)


def external_lines(view: ServiceView, dialect: Dialect, detector: LocalDetector | None) -> Iterator[Line]:
    port, family, chain = view.port, dialect.family, view.external_chain
    because = Provenance(f"Service {port.name}, external traffic", port.source)

    def line(to: str, text: str, *parts: Part) -> Line:
        about = comment(f"{text} for {port.name} external destinations")
        return Line("nat", chain, (about, *parts), because, to)

    if not port.external_local:
        yield line(MARK_MASQ, "masquerade traffic")
    else:
        if detector:
            yield line(view.cluster_chain, "pod traffic", option(detector.iptables, family))
        local = option("-m addrtype --src-type LOCAL", family)
        yield line(MARK_MASQ, "masquerade LOCAL traffic", local)
        yield line(view.cluster_chain, "route LOCAL traffic", local)
    if view.has_external:
        yield Line("nat", chain, (), because, view.external_policy_chain)


def firewall_lines(view: ServiceView, node_in_ranges: bool) -> Iterator[Line]:
    """Who comes from a source range goes on; who does not falls out untranslated and meets KUBE-PROXY-FIREWALL."""
    port = view.port
    because = Provenance(f"Service {port.name}, loadBalancerSourceRanges", port.source)
    text = comment(f"{port.name} loadbalancer IP")
    allowed = [str(network) for network in port.source_ranges]
    if node_in_ranges:
        allowed += port.load_balancer_ips
    for origin in allowed:
        yield Line("nat", view.firewall_chain, (text, source(origin)), because, view.external_chain)
    rest = comment(f"other traffic to {port.name} will be dropped by {PROXY_FIREWALL}")
    yield Line("nat", view.firewall_chain, (rest,), because)


def balancing(port: ServicePort, dialect: Dialect, chain: str, endpoints: Sequence[Endpoint]) -> Iterator[Line]:
    """Session affinity first, then one draw per endpoint, each with the chance that makes all equally likely."""
    family = dialect.family
    targets = []
    for endpoint in endpoints:
        target = names.endpoint_chain(port.name, port.protocol, endpoint.name)
        text = (comment(f"{port.name} -> {endpoint.name}"),) if dialect.endpoint_comments else ()
        targets.append((target, text, endpoint_provenance(port, endpoint)))
    if port.affinity is not None:
        for target, text, because in targets:
            recent = remembered(target, port.affinity, family)
            yield Line("nat", chain, (*text, recent), because, target)
    for left, (target, text, because) in zip(range(len(targets), 0, -1), targets):
        draw = (one_of(left, family),) if left > 1 else ()
        yield Line("nat", chain, (*text, *draw), because, target)


def endpoint_lines(port: ServicePort, dialect: Dialect, chain: str, endpoint: Endpoint) -> Iterator[Line]:
    """Hairpin traffic is masqueraded, all is translated. ``chain``: the endpoint's."""
    family = dialect.family
    text = (comment(port.name),) if dialect.endpoint_comments else ()
    because = endpoint_provenance(port, endpoint)
    yield Line("nat", chain, (*text, source(endpoint.ip)), because, MARK_MASQ)
    recent = (remember(chain, family),) if port.affinity is not None else ()
    translate = dnat(port.protocol, endpoint.ip, endpoint.port, endpoint.name, family)
    yield Line("nat", chain, (*text, *recent, translate), because)


def endpoint_provenance(port: ServicePort, endpoint: Endpoint) -> Provenance:
    return Provenance(f"Service {port.name}, endpoint {endpoint.name}", endpoint.source or port.source)
