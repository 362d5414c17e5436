"""The network between the nodes, as far as the input tells.

    node eth0 ── segment 192.168.10.0/24 ──┐
    node eth0 ── segment 192.168.10.0/24 ──┤ router/underlay ── segment "outside" ── external 203.0.113.10
    node eth0 ── segment 192.168.20.0/24 ──┘

A node's segment is the subnet of its InternalIP. The prefix length is that of the annotation
``projectcalico.org/IPv4Address`` (``IPv6Address``) where a node has one, else /24 and /64. One router joins all segments
and the outside; its address on a segment is the first one that no node has. Load-balancer and external addresses reach the
cluster because the router hands them to a node, as a load balancer would: to the first ready node by name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from netsim.backends import Underlay
from netsim.errors import InputError, Problem
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Node, NodeAddress
from netsim.linux.link import Link, LinkKind
from netsim.linux.mac import mac_for
from netsim.linux.network import Namespace
from netsim.linux.provenance import Provenance
from netsim.linux.route import Address, Route
from netsim.packet.address import (
    Family,
    IPAddress,
    IPInterface,
    IPNetwork,
    family_of,
    host_network,
    interface,
    ip,
    network,
)

DEVICE = "eth0"
MTU = 1500
ROUTER = "router/underlay"
EXTERNAL = "external"
OUTSIDE = "outside"
EXTERNAL_ADDRESSES = (interface("203.0.113.10/24"), interface("2001:db8:ffff::10/64"))
_OUTSIDE_ROUTER = (interface("203.0.113.1/24"), interface("2001:db8:ffff::1/64"))
_ANNOTATION = {Family.IPV4: "projectcalico.org/IPv4Address", Family.IPV6: "projectcalico.org/IPv6Address"}
_DEFAULT_LENGTH = {Family.IPV4: 24, Family.IPV6: 64}


@dataclass(frozen=True)
class Wire:
    """The node's external interface: its addresses with prefix lengths, and the segment it is plugged into."""

    interfaces: tuple[IPInterface, ...]
    segment: str


class Topology:
    """Built from the Node objects alone; per-node facts are dictionary look-ups."""

    underlay_device = DEVICE
    mtu = MTU

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        lengths = default_lengths(cluster)
        self.wires = {name: wire(node, lengths) for name, node in cluster.nodes.items()}
        self._by_address: dict[IPAddress, str] = {}
        for name, held in self.wires.items():
            for one in held.interfaces:
                other = self._by_address.setdefault(one.ip, name)
                if other != name:
                    node = cluster.nodes[name]
                    text = f"address {one.ip} is also that of node {other}"
                    raise InputError([Problem(text, node.source, f'Node "{name}"', "status.addresses")])

    def underlay(self) -> Underlay:
        return Underlay(
            DEVICE,
            MTU,
            {name: tuple(str(i.ip) for i in wire.interfaces) for name, wire in self.wires.items()},
            {name: wire.segment for name, wire in self.wires.items()},
        )

    def node_at(self, address: IPAddress) -> str | None:
        return self._by_address.get(address)

    @cached_property
    def subnets(self) -> dict[str, dict[IPNetwork, IPInterface]]:
        """segment → its subnets with the router's address in each."""
        found: dict[str, dict[IPNetwork, IPInterface]] = {}
        for held in self.wires.values():
            for one in held.interfaces:
                subnets = found.setdefault(held.segment, {})
                if one.network not in subnets:
                    subnets[one.network] = self._router_address(one.network)
        return found

    def _router_address(self, subnet: IPNetwork) -> IPInterface:
        for offset in range(1, min(subnet.num_addresses, 1 << 16)):
            address = subnet[offset]
            if address not in self._by_address:
                return ipaddress.ip_interface(f"{address}/{subnet.prefixlen}")
        raise InputError(f"subnet {subnet} has no address left for a router")

    # -- nodes -------------------------------------------------------------------------------------------------------
    def node_wiring(self, node: str) -> tuple[Link, list[Address], list[Route]]:
        held = self.wires[node]
        why = Provenance(f"Node {node}", self.cluster.nodes[node].source)
        link = Link(
            DEVICE, LinkKind.PHYSICAL, mac=mac_for("node", node, DEVICE), mtu=MTU, segment=held.segment, provenance=why
        )
        addresses = [Address(DEVICE, one, provenance=why) for one in held.interfaces]
        routes: list[Route] = []
        for one in held.interfaces:
            gateway = self.subnets[held.segment][one.network].ip
            default = network("0.0.0.0/0") if gateway.version == 4 else network("::/0")
            if not any(r.destination == default for r in routes):
                because = Provenance("assumed: the segment's router", why.source)
                routes.append(Route(default, gateway=gateway, device=DEVICE, provenance=because))
        return link, addresses, routes

    # -- the router and the outside ----------------------------------------------------------------------------------
    def router_device(self, segment: str) -> str:
        return "wan0" if segment == OUTSIDE else f"lan{sorted(self.subnets).index(segment)}"

    def router(self, extra: Iterable[tuple[IPNetwork, str, str]], external: IPAddress | None = None) -> Namespace:
        """``extra``: (prefix, node, reason) routes through nodes, such as load-balancer addresses and flat pod CIDRs.
        ``external``: where the host outside is, if not at its own addresses."""
        links = [_loopback(), _plug(ROUTER, "wan0", OUTSIDE)]
        addresses = [Address("wan0", one) for one in _OUTSIDE_ROUTER]
        for segment in sorted(self.subnets):
            device = self.router_device(segment)
            links.append(_plug(ROUTER, device, segment))
            addresses += [Address(device, one) for one in self.subnets[segment].values()]
        routes = [
            Route(
                prefix,
                gateway=gateway,
                device=self.router_device(self.wires[node].segment),
                provenance=Provenance(reason, self.cluster.nodes[node].source),
            )
            for prefix, node, reason in extra
            if (gateway := self.address_of(node, family_of(prefix))) is not None
        ]
        if external is not None:
            because = Provenance("assumed: the host outside is one hop away")
            routes.append(Route(host_network(external), device="wan0", scope="link", provenance=because))
        sysctls = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
        return Namespace(ROUTER, tuple(links), tuple(addresses), tuple(routes), sysctls=sysctls)

    def address_of(self, node: str, family: Family) -> IPAddress | None:
        return next((one.ip for one in self.wires[node].interfaces if family_of(one) is family), None)

    def external(self, address: IPAddress | None = None) -> Namespace:
        """The host outside. It stands for every outside address that is asked about: ``address`` comes before its own."""
        held = [*([ipaddress.ip_interface(address)] if address is not None else []), *EXTERNAL_ADDRESSES]
        routes = [
            Route(network("0.0.0.0/0"), gateway=_OUTSIDE_ROUTER[0].ip, device=DEVICE),
            Route(network("::/0"), gateway=_OUTSIDE_ROUTER[1].ip, device=DEVICE),
        ]
        links = (_loopback(), _plug(EXTERNAL, DEVICE, OUTSIDE))
        return Namespace(EXTERNAL, links, tuple(Address(DEVICE, one) for one in held), tuple(routes))

    def ready_nodes(self) -> Iterator[str]:
        for name in sorted(self.wires):
            conditions = {c.type: c.status for c in self.cluster.nodes[name].status.conditions}
            if conditions.get("Ready", "True") == "True":
                yield name


def _loopback() -> Link:
    return Link("lo", LinkKind.LOOPBACK, mtu=65536)


def _plug(namespace: str, device: str, segment: str) -> Link:
    return Link(device, LinkKind.PHYSICAL, mac=mac_for(namespace, device), mtu=MTU, segment=segment)


def default_lengths(cluster: Cluster) -> dict[Family, int]:
    """The prefix length assumed for nodes that state none: /24 and /64, or the longest shorter one with which no node has
    its subnet's network or broadcast address and every subnet has an address left for a router."""
    found = dict(_DEFAULT_LENGTH)
    addresses = [ip(a.address) for n in cluster.nodes.values() for a in n.status.addresses if _is_address(a)]
    for family, default in _DEFAULT_LENGTH.items():
        own = {int(a) for a in addresses if family_of(a) is family}
        for length in range(default, 7, -1):
            host = family.bits - length
            ends = {0, (1 << host) - 1}
            used: dict[int, int] = {}
            for value in own:
                used[value >> host] = used.get(value >> host, 0) + 1
            if not any(value & ((1 << host) - 1) in ends for value in own) and all(
                count < (1 << host) - 2 for count in used.values()
            ):
                found[family] = length
                break
    if found != _DEFAULT_LENGTH:
        cluster.assumptions.append(
            f"nodes are in subnets of /{found[Family.IPV4]} (IPv4) and /{found[Family.IPV6]} (IPv6), as their addresses suggest"
        )
    return found


def _is_address(address: NodeAddress) -> bool:
    try:
        return address.type == "InternalIP" and bool(ip(address.address))
    except ValueError:
        return False


def wire(node: Node, lengths: Mapping[Family, int] = _DEFAULT_LENGTH) -> Wire:
    """InputError when an InternalIP is no address, or there is none."""
    found: list[IPInterface] = []
    problems: list[Problem] = []
    for index, address in enumerate(node.status.addresses):
        if address.type != "InternalIP":
            continue
        try:
            value = ip(address.address)
        except ValueError:
            field = f"status.addresses[{index}].address"
            text = f'Invalid value: "{address.address}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            problems.append(Problem(text, node.source, f'Node "{node.name}"', field))
            continue
        found.append(ipaddress.ip_interface(f"{value}/{_prefix_length(node, value, lengths)}"))
    if not found and not problems:
        text = "Required value: a node needs an address of type InternalIP to be reached"
        problems.append(Problem(text, node.source, f'Node "{node.name}"', "status.addresses"))
    if problems:
        raise InputError(problems)
    return Wire(tuple(found), str(found[0].network))


def _prefix_length(node: Node, address: IPAddress, lengths: Mapping[Family, int]) -> int:
    family = family_of(address)
    stated = node.metadata.annotations.get(_ANNOTATION[family], "")
    try:
        if "/" in stated and interface(stated).ip == address:
            return interface(stated).network.prefixlen
    except ValueError:
        pass  # an annotation of somebody else's that is no address says nothing about the subnet
    return lengths[family]
