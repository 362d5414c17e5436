"""Addresses that reach the cluster without being anybody's: of load balancers, ``externalIPs``, and nodes' ExternalIPs.

What attracts them is outside Kubernetes. The assumptions here are those of a well-behaved cloud: a load balancer hands its
packets to one node, untranslated, and asks the nodes' health checks first; an ExternalIP is translated one to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from netsim.errors import Source
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Node, Service
from netsim.packet.address import Family, IPAddress, family_of, ip
from netsim.topology.underlay import Topology

_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


@dataclass(frozen=True)
class Delivery:
    """``address`` of ``service`` goes to ``node``."""

    address: IPAddress
    node: str
    service: Service

    @property
    def because(self) -> str:
        name = f"{self.service.namespace}/{self.service.name}"
        return f"assumed: {self.address} of Service {name} is delivered to node {self.node}"

    @property
    def source(self) -> Source | None:
        return self.service.source


class Balancers:
    """Derived from Services, EndpointSlices and Nodes; nothing is proportional to nodes × Services."""

    def __init__(self, cluster: Cluster, topology: Topology) -> None:
        self.cluster = cluster
        self.topology = topology

    @cached_property
    def services(self) -> dict[IPAddress, Service]:
        """Address → the first Service by name that has it. A node's own address is the node's."""
        having = [s for s in self.cluster.services.values() if reaches_outside(s)]
        found: dict[IPAddress, Service] = {}
        for service in sorted(having, key=lambda s: s.key):
            ingress = (i.ip for i in service.status.load_balancer.ingress if i.ip)
            for text in (*ingress, *service.spec.external_ips):
                address = parsed(text)
                if address is not None and self.topology.node_at(address) is None:
                    found.setdefault(address, service)
        return found

    @cached_property
    def deliveries(self) -> dict[IPAddress, Delivery]:
        """Addresses for which no node is fit are left out: nobody attracts them."""
        found: dict[IPAddress, Delivery] = {}
        for address, service in self.services.items():
            node = self._target(service, address)
            if node is not None:
                found[address] = Delivery(address, node, service)
        return found

    def _target(self, service: Service, address: IPAddress) -> str | None:
        """The first ready node by name with an address of the family; on the address's own subnet if there is one, and
        where externalTrafficPolicy is Local one whose health check succeeds: it has a ready endpoint."""
        family = family_of(address)
        fit: tuple[str, ...] = self._fit[family]
        if service.spec.external_traffic_policy == "Local":
            local = self._endpoint_nodes(service)
            fit = tuple(node for node in fit if node in local)
        near = self.topology.segment_of(address)
        beside = (node for node in fit if self.topology.wires[node].segment == near) if near is not None else iter(())
        return next(beside, None) or next(iter(fit), None)

    def _endpoint_nodes(self, service: Service) -> set[str]:
        return {
            endpoint.node_name
            for piece in self.cluster.slices.get(service.key, ())
            for endpoint in piece.endpoints
            if endpoint.node_name and endpoint.conditions.ready is not False
        }

    @cached_property
    def _fit(self) -> dict[Family, tuple[str, ...]]:
        """Ready nodes by name; those labelled as no targets only where there are no others."""
        ready = [name for name in sorted(self.topology.wires) if is_ready(self.cluster.nodes[name])]
        wanted = [name for name in ready if _EXCLUDED not in self.cluster.nodes[name].metadata.labels]
        found: dict[Family, tuple[str, ...]] = {}
        for family in Family:
            able = [name for name in wanted or ready if self.topology.address_of(name, family) is not None]
            found[family] = tuple(able)
        return found

    @cached_property
    def translated(self) -> dict[IPAddress, tuple[str, IPAddress]]:
        """A node's ExternalIP → the node and its InternalIP of that family. One that some node has itself needs nothing."""
        found: dict[IPAddress, tuple[str, IPAddress]] = {}
        for name in sorted(self.topology.wires):
            for stated in self.cluster.nodes[name].status.addresses:
                address = parsed(stated.address) if stated.type == "ExternalIP" else None
                if address is None or self.topology.node_at(address) is not None:
                    continue
                internal = self.topology.address_of(name, family_of(address))
                if internal is not None:
                    found.setdefault(address, (name, internal))
        return found

    def notes(self) -> Iterator[str]:
        """What is assumed, one line each."""
        if self.deliveries:
            first = min(self.deliveries.values(), key=lambda d: (d.address.version, int(d.address)))
            more = f" (and {len(self.deliveries) - 1} more)" if len(self.deliveries) > 1 else ""
            name = f"{first.service.namespace}/{first.service.name}"
            yield f"{first.address} of Service {name}{more} is delivered to a ready node, here {first.node}"
        lost = [address for address in self.services if address not in self.deliveries]
        if lost:
            first_lost = min(lost, key=lambda a: (a.version, int(a)))
            service = self.services[first_lost]
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            name = f"{service.namespace}/{service.name}"
            yield f"{first_lost} of Service {name}{more} reaches no node: none is ready for it"
        if self.translated:
            yield "nodes' ExternalIPs are translated one to one on the way in and out, as clouds do"


def reaches_outside(service: Service | None) -> bool:
    """Has it addresses that the network outside the nodes must know of?"""
    return service is not None and bool(service.spec.external_ips or service.status.load_balancer.ingress)


def is_ready(node: Node) -> bool:
    """A node whose conditions do not speak of readiness is taken to be ready."""
    return all(c.status == "True" for c in node.status.conditions if c.type == "Ready")


def parsed(text: str) -> IPAddress | None:
    try:
        return ip(text)
    except ValueError:
        return None
