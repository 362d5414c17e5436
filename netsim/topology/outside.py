"""The router that joins the nodes' segments, and the host outside.

The router answers ARP and neighbour discovery on a segment for addresses that are reached through it although they lie in
a subnet there (proxy ARP): load-balancer addresses that somebody took from the documentation's prefixes, or a host outside
with an address of the nodes' network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.linux.network import Namespace
from netsim.linux.provenance import Provenance
from netsim.linux.route import Address, Route
from netsim.packet.address import IPAddress, IPInterface, family_of, host_network
from netsim.topology.balancers import Balancers
from netsim.topology.underlay import (
    DEFAULT,
    DEVICE,
    EXTERNAL,
    EXTERNAL_ADDRESSES,
    OUTSIDE,
    OUTSIDE_ROUTER,
    ROUTER,
    WAN,
    Topology,
    Via,
    loopback,
    plug,
    through,
)


def external_addresses(topology: Topology, balancers: Balancers, asked: Sequence[IPAddress]) -> list[IPInterface]:
    """The host outside stands for every outside address that is asked about: ``asked`` come before its own. An own address
    that something of the cluster has is left to it."""
    taken = balancers.services.keys() | balancers.translated.keys()
    own = [one for one in EXTERNAL_ADDRESSES if topology.node_at(one.ip) is None and one.ip not in taken]
    return [*map(ipaddress.ip_interface, asked), *(o for o in own if o.ip not in asked)]


def external(held: Sequence[IPInterface]) -> Namespace:
    routes = [
        Route(DEFAULT[family_of(one)], gateway=one.ip, device=DEVICE, onlink=not _beside(one, held))
        for one in OUTSIDE_ROUTER
    ]
    links = (loopback(), plug(EXTERNAL, DEVICE, OUTSIDE))
    return Namespace(EXTERNAL, links, tuple(Address(DEVICE, one) for one in held), tuple(routes))


def _beside(router: IPInterface, held: Iterable[IPInterface]) -> bool:
    return any(one.version == router.version and router.ip in one.network for one in held)


def router(
    topology: Topology, balancers: Balancers, announced: Iterable[Via], outside: Sequence[IPInterface]
) -> Namespace:
    """``announced``: pod networks that the underlay routes. ``outside``: the addresses of the host outside."""
    builder = NamespaceBuilder(ROUTER)
    builder.links += [loopback(), plug(ROUTER, WAN, OUTSIDE)]
    for one in OUTSIDE_ROUTER:
        # Where nodes live in the outside's own prefix, its host is reached by a route of its own.
        alone = topology.segment_of(one.ip) is not None
        builder.addresses.append(Address(WAN, ipaddress.ip_interface(one.ip) if alone else one))
    devices = {segment: f"lan{number}" for number, segment in enumerate(sorted(topology.subnets))}
    for segment, device in devices.items():
        builder.links.append(plug(ROUTER, device, segment))
        for subnet, own in topology.subnets[segment].items():
            builder.addresses.append(Address(device, own))
            if own.network != subnet:
                why = Provenance(f"no address of {subnet} is left for a router")
                builder.routes.append(Route(subnet, device=device, scope="link", provenance=why))
    builder.routes += through(topology, announced, devices)
    deliveries = balancers.deliveries.values()
    ways = (Via(host_network(one.address), one.node, one.because, one.source) for one in deliveries)
    builder.routes += through(topology, ways, devices)
    for one in outside:
        if not _beside(one, [a.interface for a in builder.addresses if a.device == WAN]):
            why = Provenance("assumed: the host outside is one hop away")
            builder.routes.append(Route(host_network(one.ip), device=WAN, scope="link", provenance=why))
    builder.sysctls.update({"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
    builder.sysctls.update({"net.ipv4.conf.all.proxy_arp": "1"})
    _translate(builder, topology, balancers)
    return builder.build()


def _translate(builder: NamespaceBuilder, topology: Topology, balancers: Balancers) -> None:
    """ExternalIPs one to one: in by any device, out to the outside, and back in to another node's ExternalIP."""
    named: set[IPAddress] = set()
    for address, (node, internal) in balancers.translated.items():
        family = family_of(address)
        tables = builder.tables(family)
        because, source = f"assumed: ExternalIP of node {node}", topology.cluster.nodes[node].source
        inward = f"-d {address} -j DNAT --to-destination {internal}"
        tables.append("nat", "PREROUTING", rule(inward, family, because, source))
        if internal in named:
            continue  # a node with several ExternalIPs shows the first
        named.add(internal)
        for way in (f"-o {WAN}", "-m conntrack --ctstate DNAT"):
            outward = f"-s {internal} {way} -j SNAT --to-source {address}"
            tables.append("nat", "POSTROUTING", rule(outward, family, because, source))


def answered_by_router(
    topology: Topology, balancers: Balancers, segment: str, address: IPAddress, outside: Iterable[IPInterface]
) -> bool:
    """Does the router answer on ``segment`` for an address that is not its own?"""
    if segment == OUTSIDE:
        known = address in balancers.deliveries or address in balancers.translated
        return known or topology.node_at(address) is not None
    return address in balancers.translated or any(one.ip == address for one in outside)


def announced_by(plugin: object, topology: Topology) -> Iterator[Via]:
    """The pod networks that a network plug-in asks the underlay to route: its ``underlay_routes``, if it has any."""
    ask = getattr(plugin, "underlay_routes", None)
    for prefix, node in ask() if ask is not None else ():
        yield Via(prefix, node, f"pod network of node {node}", topology.cluster.nodes[node].source)
