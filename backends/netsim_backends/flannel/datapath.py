"""How packets get from node to node: flannel's vxlan, host-gw, ipip and udp backends (flannel v0.28, pkg/backend).

    vxlan     flannel.1  <subnet .0>/32   per peer: neighbour, FDB entry, route via its .0 onlink
    host-gw   -                           per peer: route via its address
    ipip      flannel.ipip <subnet .0>/32 per peer: route via its address through the tunnel
    udp       flannel0   <subnet .0>/32   one route, Network dev flannel0; flanneld holds the lease table
    alloc     -                           nothing

Each function writes one node's share; peers come as an iterable of leases, so that no node × node table is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link, LinkKind, TunnelOptions, UdpTunnelOptions, VxlanOptions
from netsim.linux.route import Address, FdbEntry, Neighbour, Route
from netsim.packet.address import Family, IPAddress, IPInterface, IPNetwork, host_network, interface
from netsim_backends.flannel.config import FlannelConfig
from netsim_backends.flannel.lease import Lease, vtep_name

_OVERHEAD = {"vxlan": 50, "udp": 28, "ipip": 20, "host-gw": 0, "alloc": 0}
_VXLAN_PORT, _UDP_PORT = 8472, 8285


@dataclass(frozen=True)
class Site:
    """What a node's flanneld works with. ``on_link(peer)``: is the peer's address reached without a router?"""

    config: FlannelConfig
    own: Lease
    device: str
    mtu: int  # of the external interface
    on_link: Callable[[Lease, Family], bool]


def pod_mtu(config: FlannelConfig, external: int) -> int:
    """FLANNEL_MTU: what pods are told."""
    outer = external if config.mtu is None or config.mode != "vxlan" else config.mtu
    return outer - _OVERHEAD[config.mode]


def write(site: Site, peers: Sequence[Lease], builder: NamespaceBuilder) -> None:
    """The node's devices, addresses and routes for all families."""
    for family in site.own.subnets:
        _WRITERS[site.config.mode](site, family, [p for p in peers if family in p.subnets], builder)


def _own_address(subnet: IPNetwork) -> IPInterface:
    """The subnet's base address, alone: no connected route appears. It is the node's source towards remote pods."""
    return interface(str(host_network(subnet.network_address)))


def _route(peer: Lease, family: Family, gateway: IPAddress, device: str, onlink: bool = False) -> Route:
    return Route(
        peer.subnets[family],
        gateway=gateway,
        device=device,
        protocol="boot",
        onlink=onlink,
        provenance=peer.provenance,
    )


def _vxlan(site: Site, family: Family, peers: Iterable[Lease], builder: NamespaceBuilder) -> None:
    config, own = site.config, site.own
    device = vtep_name(config.vni, family)
    options = VxlanOptions(
        config.vni, own.local[family], site.device, config.port or _VXLAN_PORT, learning=config.learning
    )
    mtu = pod_mtu(config, site.mtu)
    why = own.provenance
    builder.links.append(Link(device, LinkKind.VXLAN, mac=own.macs[family], mtu=mtu, vxlan=options, provenance=why))
    builder.addresses.append(Address(device, _own_address(own.subnets[family]), provenance=why))
    for peer in peers:
        public = peer.public[family]
        if config.direct_routing and site.on_link(peer, family):
            builder.routes.append(_route(peer, family, public, site.device))
            continue
        vtep = peer.subnets[family].network_address
        mac = peer.macs[family]
        builder.neighbours.append(Neighbour(vtep, device, mac, provenance=peer.provenance))
        builder.fdb.append(FdbEntry(mac, device, public, provenance=peer.provenance))
        builder.routes.append(_route(peer, family, vtep, device, onlink=True))


def _host_gw(site: Site, family: Family, peers: Iterable[Lease], builder: NamespaceBuilder) -> None:
    for peer in peers:
        # The kernel refuses a gateway that is not on-link; flanneld logs that and goes on without the route.
        if site.on_link(peer, family):
            builder.routes.append(_route(peer, family, peer.public[family], site.device))


def _ipip(site: Site, family: Family, peers: Iterable[Lease], builder: NamespaceBuilder) -> None:
    if family is not Family.IPV4:
        return
    own, device = site.own, "flannel.ipip"
    options = TunnelOptions(own.interface[family], remote=None, ttl=0, pmtudisc=False)
    builder.links.append(
        Link(
            device,
            LinkKind.IPIP,
            mtu=pod_mtu(site.config, site.mtu),
            noarp=True,
            tunnel=options,
            provenance=own.provenance,
        )
    )
    builder.addresses.append(Address(device, _own_address(own.subnets[family]), provenance=own.provenance))
    for peer in peers:
        direct = site.config.direct_routing and site.on_link(peer, family)
        builder.routes.append(_route(peer, family, peer.public[family], site.device if direct else device, onlink=True))


def _udp(site: Site, family: Family, peers: Iterable[Lease], builder: NamespaceBuilder) -> None:
    if family is not Family.IPV4:
        return
    own, device = site.own, "flannel0"
    address = _own_address(own.subnets[family])
    options = UdpTunnelOptions(
        own.interface[family],
        site.config.port or _UDP_PORT,
        address.ip,
        tuple((peer.subnets[family], peer.public[family]) for peer in peers),
    )
    mtu = pod_mtu(site.config, site.mtu)
    builder.links.append(Link(device, LinkKind.TUN, mtu=mtu, noarp=True, udp_tunnel=options, provenance=own.provenance))
    builder.addresses.append(Address(device, address, provenance=own.provenance))
    whole = site.config.networks[family]
    builder.routes.append(Route(whole, device=device, protocol="boot", provenance=own.provenance))


def _alloc(site: Site, family: Family, peers: Iterable[Lease], builder: NamespaceBuilder) -> None:
    """Subnets only: no data path."""


_WRITERS: dict[str, Callable[[Site, Family, Iterable[Lease], NamespaceBuilder], None]] = {
    "vxlan": _vxlan,
    "host-gw": _host_gw,
    "ipip": _ipip,
    "udp": _udp,
    "alloc": _alloc,
}
