"""What kube-proxy keeps of a Service, per port and family (kubernetes pkg/proxy/serviceport.go, 1.28 to 1.35).

All proxy modes share this. One proxier runs per address family and sees only its own family's addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from netsim.errors import InputError, Problem, Source
from netsim.kube.objects import Service
from netsim.packet.address import Family, IPNetwork
from netsim_backends.kube_proxy.addresses import canonical_ip, parse_cidr, text_family
from netsim_backends.kube_proxy.names import service_hash, service_port_name

# Services with one of these labels are somebody else's to proxy, or nobody's.
OTHER_PROXY_LABELS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
DEFAULT_AFFINITY_SECONDS = 10800


@dataclass(frozen=True)
class ServicePort:
    """One port of one Service in one family; addresses are canonical text.

    ``name`` is kube-proxy's ServicePortName (``shop/cart:http``), ``slice_port`` finds its endpoints.
    ``affinity`` is the timeout of ClientIP affinity in seconds, None without affinity.
    """

    name: str
    namespace: str
    service: str
    slice_port: tuple[str, str]
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[IPNetwork, ...] = ()
    external_local: bool = False
    internal_local: bool = False
    health_check_port: int = 0
    affinity: int | None = None
    source: Source | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells service ports apart, and their order in all rules."""
        return self.name, self.protocol

    @cached_property
    def hash(self) -> str:
        return service_hash(self.name, self.protocol)

    @property
    def externally_accessible(self) -> bool:
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Even a Local policy needs them: the node's own traffic is short-circuited to the whole cluster."""
        return not self.internal_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        return self.internal_local or (self.external_local and self.externally_accessible)


def is_proxied(service: Service) -> bool:
    """Is this Service kube-proxy's to handle at all?"""
    spec = service.spec
    return (
        spec.type != "ExternalName"
        and spec.cluster_ip != "None"
        and not any(label in service.metadata.labels for label in OTHER_PROXY_LABELS)
    )


def service_ports(services: Iterable[Service], family: Family) -> list[ServicePort]:
    """Every service port of ``family``, sorted by name; InputError with all addresses that are none."""
    problems: list[Problem] = []
    found: dict[tuple[str, str], ServicePort] = {}
    for service in services:
        if is_proxied(service):
            for port in _ports_of(service, family, problems):
                found[port.name, port.protocol] = port
    if problems:
        raise InputError(problems)
    return [found[key] for key in sorted(found)]


def _ports_of(service: Service, family: Family, problems: list[Problem]) -> Iterable[ServicePort]:
    spec = service.spec

    def valid(
        texts: Iterable[str], field: str, parse: Callable[[str], str | IPNetwork] = canonical_ip
    ) -> list[str | IPNetwork]:
        kept: list[str | IPNetwork] = []
        for index, text in enumerate(texts):
            try:
                kept.append(parse(text))
            except ValueError:
                kind = "IP address" if parse is canonical_ip else "CIDR value"
                problems.append(
                    Problem(
                        f'Invalid value: "{text}": must be a valid {kind}',
                        source=service.source,
                        object=f'Service "{service.namespace}/{service.name}"',
                        field=f"{field}[{index}]",
                    )
                )
        return kept

    def of_family(texts: Iterable[str], field: str) -> tuple[str, ...]:
        return tuple(str(t) for t in valid([t for t in texts if t], field) if text_family(str(t)) is family)

    cluster_ips = of_family(spec.cluster_ips or [spec.cluster_ip], "spec.clusterIPs")
    if not cluster_ips:
        return
    external_ips = of_family(spec.external_ips, "spec.externalIPs") if spec.external_ips else ()
    ingress = [i.ip for i in service.status.load_balancer.ingress if i.ip_mode in (None, "", "VIP")]
    vips = of_family(ingress, "status.loadBalancer.ingress") if ingress else ()
    ranges: tuple[IPNetwork, ...] = ()
    if spec.load_balancer_source_ranges:
        texts = [text.strip() for text in spec.load_balancer_source_ranges]
        parsed = valid(texts, "spec.loadBalancerSourceRanges", parse_cidr)
        ranges = tuple(r for r in parsed if not isinstance(r, str) and r.version == family)
        if any(r.prefixlen == 0 for r in ranges):
            ranges = ()  # everybody may come: as good as no ranges
    policy_local = spec.external_traffic_policy == "Local"
    reachable = spec.type in ("NodePort", "LoadBalancer") or (spec.type == "ClusterIP" and bool(spec.external_ips))
    affinity = None
    if spec.session_affinity == "ClientIP":
        config = (spec.session_affinity_config or {}).get("clientIP") or {}
        affinity = config.get("timeoutSeconds") or DEFAULT_AFFINITY_SECONDS
    for port in spec.ports:
        protocol = port.protocol.lower()
        yield ServicePort(
            name=service_port_name(service.namespace, service.name, port.name),
            namespace=service.namespace,
            service=service.name,
            slice_port=(port.name, protocol),
            protocol=protocol,
            cluster_ip=cluster_ips[0],
            port=port.port,
            node_port=port.node_port,
            external_ips=external_ips,
            load_balancer_ips=vips,
            source_ranges=ranges,
            external_local=policy_local and reachable,
            internal_local=spec.internal_traffic_policy == "Local",
            health_check_port=spec.health_check_node_port if policy_local and spec.type == "LoadBalancer" else 0,
            affinity=affinity,
            source=service.source,
        )
