"""Who can reach a workload through which Service or Ingress, and the address and port that policy sees behind it.

kube-proxy translates a Service's address before any policy looks at the packet (the API leaves the order open; every
kube-proxy data plane does it so), hence policy sees the pod and its target port. Whom it sees as the sender depends on the
way in:

    ClusterIP, headless                     the client itself
    NodePort, LoadBalancer, externalIPs     externalTrafficPolicy Local: the client; Cluster: the node it came in by
    Ingress                                 the pods of the ingress controller

Whom kube-proxy itself keeps out is out: with ``loadBalancerSourceRanges``, clients of a load balancer's address that are in
none of them (node ports and externalIPs know no such ranges); with ``internalTrafficPolicy: Local``, clients on a node that
has no endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsim.errors import Source
from netsim.kube.objects import EndpointSlice, Resource, Service, ServicePort
from netsim_policies.algebra import ALL_ADDRESSES, AddressSet, PortSet
from netsim_policies.model import EndpointKind
from netsim_policies.reach import Group, Reachability

CONTROLLERS = ("ingress-nginx", "nginx-ingress", "traefik", "haproxy-ingress", "kubernetes-ingress", "contour", "envoy",
               "kong", "aws-load-balancer-controller", "voyager", "skipper")  # fmt: skip
CLIENT, NODE = "the client itself", "the node it came in by"
_NAME_LABELS = ("app.kubernetes.io/name", "k8s-app", "app")


@dataclass(frozen=True)
class Behind:
    """A ready endpoint of a Service: its index in the world, and the port that policy sees."""

    endpoint: int
    protocol: str
    port: int


@dataclass(frozen=True)
class Entrance:
    """A way to pods: ``name`` (``Service shop/cart:http``), ``address`` as clients write it, ``kind`` one of cluster,
    outside and ingress. ``seen_as``: whom policy sees as the sender, for the reader. ``clients``: the addresses outside that
    are let in, None for all. ``local``: clients are sent to endpoints on their own node alone."""

    kind: str
    name: str
    address: str
    behind: tuple[Behind, ...]
    seen_as: str
    source: Source | None = None
    clients: AddressSet | None = None
    local: bool = False


@dataclass(frozen=True)
class Way:
    """``sender`` reaches ``reached`` of the ``of`` endpoints that it can be sent to; none if it can be sent to none."""

    entrance: Entrance
    sender: str
    reached: int
    of: int

    @property
    def verdict(self) -> str:
        if not self.reached:
            return "none"
        return "all" if self.reached == self.of else "some"


class Entrances:
    """The entrances of a cluster, asked with ``reach``'s matrix. ``slices``: by (namespace, name) of their Service.

    ``controllers``: names of groups that are the ingress controller's pods; by default pods with a well-known
    controller's name as a label.
    """

    def __init__(
        self,
        reach: Reachability,
        services: Iterable[Service],
        slices: Mapping[tuple[str, str], Sequence[EndpointSlice]],
        ingresses: Iterable[Resource] = (),
        controllers: Sequence[Group] | None = None,
    ) -> None:
        self.reach = reach
        self.services = {s.key: s for s in sorted(services, key=lambda s: s.key)}
        self.slices = slices
        self.ingresses = sorted(ingresses, key=lambda r: (r.namespace, r.name))
        self.controllers = [g for g in reach.groups if self._is_controller(g)] if controllers is None else controllers
        self._by_address: dict[str, int] = {}
        for index, endpoint in enumerate(reach.world.endpoints):
            if endpoint.kind is EndpointKind.POD:
                for address in endpoint.addresses:
                    self._by_address.setdefault(str(address), index)

    def _is_controller(self, group: Group) -> bool:
        example = self.reach.world.endpoints[group.members[0]]
        return group.kind is EndpointKind.POD and any(example.labels.get(key) in CONTROLLERS for key in _NAME_LABELS)

    def __iter__(self) -> Iterator[Entrance]:
        for service in self.services.values():
            for port in service.spec.ports:
                yield from self._of_service(service, port)
        for ingress in self.ingresses:
            yield from self._of_ingress(ingress)

    def _of_service(self, service: Service, port: ServicePort) -> Iterator[Entrance]:
        behind = tuple(self.behind(service, port))
        name = f"Service {service.namespace}/{service.name}:{port.name or port.port}"
        if not behind:
            return
        spec = service.spec
        inside = (
            f"{spec.cluster_ip}:{port.port}" if spec.cluster_ip not in ("None", "") else "each pod's address (headless)"
        )
        here = spec.internal_traffic_policy == "Local"
        seen = (
            "the client itself, for endpoints on its own node alone (internalTrafficPolicy Local)" if here else CLIENT
        )
        yield Entrance("cluster", name, inside, behind, seen, service.source, local=here)
        seen = CLIENT if spec.external_traffic_policy == "Local" else NODE
        clients = self._let_in(service)
        outside = [f"node:{port.node_port}"] if port.node_port else []
        outside += [f"{address}:{port.port}" for address in spec.external_ips]
        kept: list[str] = []  # the addresses that kube-proxy keeps strangers from
        for item in service.status.load_balancer.ingress:
            if item.ip:
                vip = clients is not None and item.ip_mode in (None, "", "VIP")
                (kept if vip else outside).append(f"{item.ip}:{port.port}")
        if outside:
            yield Entrance("outside", name, ", ".join(outside), behind, seen, service.source)
        if kept:
            yield Entrance("outside", name, ", ".join(kept), behind, seen, service.source, clients)

    def _let_in(self, service: Service) -> AddressSet | None:
        """``loadBalancerSourceRanges`` of the family that is asked about; None where everybody is let in."""
        found = AddressSet()
        for text in service.spec.load_balancer_source_ranges:
            found |= AddressSet.cidr(text.strip())
        family = self.reach.family
        found = found.of_family(family)
        return found if found and ALL_ADDRESSES.of_family(family) - found else None

    def behind(self, service: Service, port: ServicePort) -> Iterator[Behind]:
        """Ready endpoints that are pods of the world, each once."""
        seen: set[Behind] = set()
        for item in self.slices.get(service.key, ()):
            for one in item.ports or ():
                if (one.name or "") != (port.name or "") or one.port is None:
                    continue
                for endpoint in item.endpoints:
                    index = (
                        self._by_address.get(endpoint.addresses[0]) if endpoint.conditions.ready is not False else None
                    )
                    if index is not None:
                        found = Behind(index, one.protocol or "TCP", one.port)
                        if found not in seen:
                            seen.add(found)
                            yield found

    def _of_ingress(self, ingress: Resource) -> Iterator[Entrance]:
        spec = ingress.spec
        label = f"Ingress {ingress.namespace}/{ingress.name}"
        backends = [("*", spec["defaultBackend"])] if spec.get("defaultBackend") else []
        for rule in spec.get("rules") or ():
            for path in (rule.get("http") or {}).get("paths") or ():
                backends.append((f"{rule.get('host') or '*'}{path.get('path') or '/'}", path.get("backend") or {}))
        for address, backend in backends:
            service, port = self._backend(ingress.namespace, backend.get("service") or {})
            if service is None or port is None:
                continue
            behind = tuple(self.behind(service, port))
            via = f"{label} by Service {service.name}:{port.name or port.port}"
            yield Entrance("ingress", via, address, behind, "the ingress controller's pods", ingress.source)

    def _backend(self, namespace: str, named: Mapping[str, Any]) -> tuple[Service | None, ServicePort | None]:
        service = self.services.get((namespace, named.get("name", "")))
        wanted = named.get("port") or {}
        ports = service.spec.ports if service is not None else ()
        port = next((p for p in ports if p.name == wanted.get("name", "") or p.port == wanted.get("number")), None)
        return service, port

    # -- answers -----------------------------------------------------------------------------------------------------
    def ways(self, entrance: Entrance, senders: Sequence[Group]) -> Iterator[Way]:
        """One for each of ``senders`` that may come this way. A pod is subject to policy also when it reaches itself
        through a Service."""
        if entrance.kind == "ingress":
            yield from (self._way(entrance, group, group.name) for group in self.controllers)
            return
        outsiders = [g for g in senders if g.kind is EndpointKind.EXTERNAL]
        if entrance.kind == "cluster":
            yield from (self._way(entrance, g, g.name) for g in senders if g.kind is not EndpointKind.EXTERNAL)
        elif entrance.seen_as == CLIENT:
            for group in outsiders:
                part = self._part(group, entrance.clients)
                yield self._way(entrance, group, f"{group.name}, of it {part}" if part else group.name, part != "none")
        elif outsiders:
            who = "outside" if entrance.clients is None else f"outside {entrance.clients}"
            nodes = (g for g in self.reach.groups if g.kind is EndpointKind.NODE)
            yield from (self._way(entrance, node, f"{who} by {node.name}") for node in nodes)

    def _part(self, group: Group, clients: AddressSet | None) -> str:
        """The part of a group outside that is let in: "none", or "" for all of it."""
        own = self.reach.world.endpoints[group.members[0]].outside
        if clients is None or own is None or not own - clients:
            return ""
        return str(own & clients)

    def _way(self, entrance: Entrance, sender: Group, name: str, let_in: bool = True) -> Way:
        """How many of the endpoints let ``sender`` in: all of its members, as its first stands for them. Where clients are
        sent to their own node's endpoints alone, those of each node that it is on; a node without any is a way to none."""
        behind: list[Behind] = [*entrance.behind]
        of = len(behind)
        if entrance.local:
            endpoints = self.reach.world.endpoints
            nodes = {endpoints[i].node for i in sender.members}
            behind = [b for b in behind if endpoints[b.endpoint].node in nodes]
            of = len(behind) + len(nodes - {endpoints[b.endpoint].node for b in behind})
        reached = sum(self._allowed(sender, b).holds(b.protocol, b.port) for b in behind) if let_in else 0
        return Way(entrance, name if let_in else sender.name, reached, of)

    def _allowed(self, sender: Group, to: Behind) -> PortSet:
        """A pod is subject to policy even towards itself; to a node its own pods are open."""
        matrix = self.reach.matrix
        if sender.kind is EndpointKind.NODE or self.reach.world.endpoints[sender.members[0]].host_network:
            return matrix.ports(sender.members[0], to.endpoint)
        return matrix.class_ports(sender.number, int(matrix.classes.of[to.endpoint]))

    def pods(self, entrance: Entrance) -> str:
        """``TCP:8080 on Deployment shop/cart``: what policy sees behind it."""
        found: dict[str, None] = {}
        for b in entrance.behind:
            endpoint = self.reach.world.endpoints[b.endpoint]
            found[f"{b.protocol}:{b.port} on {endpoint.workload or endpoint.name}"] = None
        return ", ".join(found) or "no ready endpoint"
