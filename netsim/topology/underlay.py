"""The network between the nodes, as far as the input tells.

    node eth0 ── segment 192.168.10.0/24 ──┐
    node eth0 ── segment 192.168.10.0/24 ──┤ router/underlay ── segment "outside" ── external 203.0.113.10
    node eth0 ── segment 192.168.20.0/24 ──┘

One router joins all segments (``segments`` says how they are found) and the outside. Its address in a subnet is the first
one that no node has; in a subnet without any to spare it is link-local, as clouds do for nodes with /32 addresses. What
reaches the cluster from outside, and how, is the business of ``balancers``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from netsim.backends import Underlay
from netsim.errors import Source
from netsim.kube.cluster import Cluster
from netsim.linux.link import Link, LinkKind
from netsim.linux.mac import mac_for
from netsim.linux.provenance import Provenance
from netsim.linux.route import Address, Route
from netsim.packet.address import Family, IPAddress, IPInterface, IPNetwork, family_of, interface, network
from netsim.topology.segments import read_wires

DEVICE = "eth0"
MTU = 1500
ROUTER = "router/underlay"
EXTERNAL = "external"
OUTSIDE = "outside"
WAN = "wan0"
EXTERNAL_ADDRESSES = (interface("203.0.113.10/24"), interface("2001:db8:ffff::10/64"))
OUTSIDE_ROUTER = (interface("203.0.113.1/24"), interface("2001:db8:ffff::1/64"))
DEFAULT = {Family.IPV4: network("0.0.0.0/0"), Family.IPV6: network("::/0")}
_LINK_LOCAL = {Family.IPV4: interface("169.254.1.1/32"), Family.IPV6: interface("fe80::1/64")}
_TRIED = 1 << 16


@dataclass(frozen=True)
class Via:
    """``prefix`` is reached through ``node``; why, and the line of the input that says so."""

    prefix: IPNetwork
    node: str
    because: str
    source: Source | None = None


class Topology:
    """Built from the Node objects alone; per-node facts are dictionary look-ups."""

    underlay_device = DEVICE
    mtu = MTU

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.wires = read_wires(cluster)
        self._by_address = {one.ip: name for name, held in self.wires.items() for one in held.interfaces}

    def underlay(self) -> Underlay:
        """``segments`` are the nodes' subnets: the kernel takes a gateway for on-link by its subnet, whatever the wire."""
        return Underlay(
            DEVICE,
            MTU,
            {name: tuple(str(i.ip) for i in wire.interfaces) for name, wire in self.wires.items()},
            {name: str(wire.subnet) for name, wire in self.wires.items()},
        )

    def node_at(self, address: IPAddress) -> str | None:
        return self._by_address.get(address)

    def address_of(self, node: str, family: Family) -> IPAddress | None:
        return next((one.ip for one in self.wires[node].interfaces if family_of(one) is family), None)

    @cached_property
    def nodes_on(self) -> dict[str, tuple[str, ...]]:
        """segment → its nodes, by name."""
        found: dict[str, list[str]] = {}
        for name, held in self.wires.items():
            found.setdefault(held.segment, []).append(name)
        return {segment: tuple(names) for segment, names in found.items()}

    @cached_property
    def subnets(self) -> dict[str, dict[IPNetwork, IPInterface]]:
        """segment → its subnets with the router's address for each, everything in numeric order."""
        every = {(one.network, held.segment) for held in self.wires.values() for one in held.interfaces}
        found: dict[str, dict[IPNetwork, IPInterface]] = {}
        for subnet, segment in sorted(every, key=lambda e: (e[0].version, int(e[0].network_address), e[0].prefixlen)):
            found.setdefault(segment, {})[subnet] = self._router_address(subnet)
        return found

    def segment_of(self, address: IPAddress) -> str | None:
        """The segment in whose subnets ``address`` lies."""
        for length in self._lengths.get(family_of(address), ()):
            segment = self._by_subnet.get(network(f"{address}/{length}"))
            if segment is not None:
                return segment
        return None

    @cached_property
    def _by_subnet(self) -> dict[IPNetwork, str]:
        return {subnet: segment for segment, held in self.subnets.items() for subnet in held}

    @cached_property
    def _lengths(self) -> dict[Family, list[int]]:
        found: dict[Family, set[int]] = {}
        for subnet in self._by_subnet:
            found.setdefault(family_of(subnet), set()).add(subnet.prefixlen)
        return {family: sorted(lengths, reverse=True) for family, lengths in found.items()}

    def _router_address(self, subnet: IPNetwork) -> IPInterface:
        spare = (address for address in _hosts(subnet) if address not in self._by_address)
        address = next(spare, None)
        if address is None:
            return _LINK_LOCAL[family_of(subnet)]
        return ipaddress.ip_interface(f"{address}/{subnet.prefixlen}")

    # -- nodes -------------------------------------------------------------------------------------------------------
    def node_link(self, node: str) -> Link:
        why = Provenance(f"Node {node}", self.cluster.nodes[node].source)
        mac = mac_for("node", node, DEVICE)
        return Link(DEVICE, LinkKind.PHYSICAL, mac=mac, mtu=MTU, segment=self.wires[node].segment, provenance=why)

    def node_wiring(self, node: str) -> tuple[Link, list[Address], list[Route]]:
        held, link = self.wires[node], self.node_link(node)
        addresses = [Address(DEVICE, one, provenance=link.provenance) for one in held.interfaces]
        because = Provenance("assumed: the segment's router", self.cluster.nodes[node].source)
        routes: dict[Family, Route] = {}
        for one in held.interfaces:
            gateway = self.subnets[held.segment][one.network].ip
            family = family_of(one)
            # A link-local IPv4 gateway is in none of the node's subnets.
            onlink = gateway not in one.network and family is Family.IPV4
            route = Route(DEFAULT[family], gateway=gateway, device=DEVICE, onlink=onlink, provenance=because)
            routes.setdefault(family, route)
        return link, addresses, list(routes.values())


def _hosts(subnet: IPNetwork) -> Iterator[IPAddress]:
    """Addresses that a host may have: neither the network's nor IPv4's broadcast address, but both of a /31 or /127."""
    count = subnet.num_addresses
    first, end = (0, count) if count <= 2 else (1, count - (subnet.version == 4))
    return (subnet[offset] for offset in range(first, min(end, _TRIED)))


@cache
def loopback() -> Link:
    return Link("lo", LinkKind.LOOPBACK, mtu=65536)


def plug(namespace: str, device: str, segment: str) -> Link:
    return Link(device, LinkKind.PHYSICAL, mac=mac_for(namespace, device), mtu=MTU, segment=segment)


def through(topology: Topology, ways: Iterable[Via], device_of: dict[str, str]) -> Iterator[Route]:
    """Routes by nodes' addresses; ``device_of`` a segment. A node without an address of the family is no way."""
    for way in ways:
        gateway = topology.address_of(way.node, family_of(way.prefix))
        if gateway is not None:
            device = device_of[topology.wires[way.node].segment]
            yield Route(way.prefix, gateway=gateway, device=device, provenance=Provenance(way.because, way.source))
