"""Who can reach a workload through which Service or Ingress, and the address and port that policy sees behind it.

kube-proxy translates a Service's address before any policy looks at the packet (the API leaves the order open; every
kube-proxy data plane does it so), hence policy sees the pod and its target port. Whom it sees as the sender depends on the
way in:

    ClusterIP, headless                     the client itself
    NodePort, LoadBalancer, externalIPs     externalTrafficPolicy Local: the client; Cluster: the node it came in by
    Ingress                                 the pods of the ingress controller
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsim.errors import Source
from netsim.kube.objects import EndpointSlice, Resource, Service, ServicePort
from netsim_policies.algebra import PortSet
from netsim_policies.model import EndpointKind
from netsim_policies.reach import Group, Reachability

CONTROLLERS = ("ingress-nginx", "nginx-ingress", "traefik", "haproxy-ingress", "kubernetes-ingress", "contour", "envoy",
               "kong", "aws-load-balancer-controller", "voyager", "skipper")  # fmt: skip
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
    outside and ingress. ``seen_as``: whom policy sees as the sender, for the reader."""

    kind: str
    name: str
    address: str
    behind: tuple[Behind, ...]
    seen_as: str
    source: Source | None = None


@dataclass(frozen=True)
class Way:
    """``sender`` reaches ``reached`` of the ``entrance``'s endpoints."""

    entrance: Entrance
    sender: str
    reached: int

    @property
    def verdict(self) -> str:
        if not self.reached:
            return "none"
        return "all" if self.reached == len(self.entrance.behind) else "some"


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
        yield Entrance("cluster", name, inside, behind, "the client itself", service.source)
        outside = [f"node:{port.node_port}"] if port.node_port else []
        outside += [
            f"{a}:{port.port}" for a in (*spec.external_ips, *(i.ip for i in service.status.load_balancer.ingress)) if a
        ]
        if outside:
            local = spec.external_traffic_policy == "Local"
            seen = "the client itself" if local else "the node it came in by"
            yield Entrance("outside", name, ", ".join(outside), behind, seen, service.source)

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
            for group in self.controllers:
                yield Way(entrance, group.name, self._reached(entrance, group))
        elif entrance.kind == "cluster":
            for group in senders:
                if group.kind is not EndpointKind.EXTERNAL:
                    yield Way(entrance, group.name, self._reached(entrance, group))
        elif entrance.seen_as == "the client itself":
            for group in senders:
                if group.kind is EndpointKind.EXTERNAL:
                    yield Way(entrance, group.name, self._reached(entrance, group))
        else:
            for group in self.reach.groups:
                if group.kind is EndpointKind.NODE:
                    yield Way(entrance, f"outside by {group.name}", self._reached(entrance, group))

    def _reached(self, entrance: Entrance, sender: Group) -> int:
        """How many of the endpoints let ``sender`` in: all of its members, as its first stands for them."""
        return sum(self._allowed(sender, b).holds(b.protocol, b.port) for b in entrance.behind)

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
