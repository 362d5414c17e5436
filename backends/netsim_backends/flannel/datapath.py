"""How packets get from node to node: flannel's vxlan, host-gw, ipip and udp backends (flannel v0.28, pkg/backend).

    vxlan     flannel.1  <subnet .0>/32   per peer: neighbour, FDB entry, route via its .0 onlink
    host-gw   -                           per peer: route via its address
    ipip      flannel.ipip <subnet .0>/32 per peer: route via its address through the tunnel
    udp       flannel0   <subnet .0>/32   one route, Network dev flannel0; flanneld holds the lease table
    alloc     -                           nothing

Each function writes one node's share. What it gets of its peers is shared with other nodes (``peers``), so that no
node × node table is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link, LinkKind, TunnelOptions, UdpTunnelOptions, VxlanOptions
from netsim.linux.route import Address, Route
from netsim.packet.address import Family, IPInterface, IPNetwork, host_network, interface
from netsim_backends.flannel.config import FlannelConfig
from netsim_backends.flannel.lease import Lease, vtep_name
from netsim_backends.flannel.peers import IPIP_DEVICE, Peers

_OVERHEAD = {"vxlan": 50, "udp": 28, "ipip": 20, "host-gw": 0, "alloc": 0}
_OVERHEAD6 = 70  # of VXLAN over IPv6
_VXLAN_PORT, _UDP_PORT = 8472, 8285


@dataclass(frozen=True)
class Site:
    """What a node's flanneld works with."""

    config: FlannelConfig
    own: Lease
    segment: str  # that the external interface is plugged into
    mtu: int  # of the external interface
    peers: Peers


def pod_mtu(config: FlannelConfig, external: int) -> int:
    """FLANNEL_MTU: what pods are told."""
    outer = external if config.mtu is None or config.mode != "vxlan" else config.mtu
    return outer - _OVERHEAD[config.mode]


def write(site: Site, builder: NamespaceBuilder) -> None:
    """The node's devices, addresses and routes for all families."""
    for family in site.own.subnets:
        _WRITERS[site.config.mode](site, family, builder)


def _own_address(subnet: IPNetwork) -> IPInterface:
    """The subnet's base address, alone: no connected route appears. It is the node's source towards remote pods."""
    return interface(str(host_network(subnet.network_address)))


def _vxlan(site: Site, family: Family, builder: NamespaceBuilder) -> None:
    config, own = site.config, site.own
    device = vtep_name(config.vni, family)
    options = VxlanOptions(
        config.vni, own.local[family], site.peers.device, config.port or _VXLAN_PORT, learning=config.learning
    )
    # flanneld asks for the same MTU in both families, but the kernel makes no device larger than its lower one can carry:
    # vxlan_config_apply() cuts it to that of the external interface less the headers, 70 bytes with IPv6 outside.
    mtu = min(pod_mtu(config, site.mtu), site.mtu - (_OVERHEAD["vxlan"] if family is Family.IPV4 else _OVERHEAD6))
    why = own.provenance
    builder.links.append(Link(device, LinkKind.VXLAN, mac=own.macs[family], mtu=mtu, vxlan=options, provenance=why))
    builder.addresses.append(Address(device, _own_address(own.subnets[family]), provenance=why))
    _peers(site, family, builder)


def _peers(site: Site, family: Family, builder: NamespaceBuilder) -> None:
    """host-gw needs nothing else."""
    site.peers.write(site.own.node, site.segment, family, builder)


def _ipip(site: Site, family: Family, builder: NamespaceBuilder) -> None:
    if family is not Family.IPV4:
        return
    own, device = site.own, IPIP_DEVICE
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
    _peers(site, family, builder)


def _udp(site: Site, family: Family, builder: NamespaceBuilder) -> None:
    if family is not Family.IPV4:
        return
    own, device = site.own, "flannel0"
    address = _own_address(own.subnets[family])
    options = UdpTunnelOptions(
        own.interface[family],
        site.config.port or _UDP_PORT,
        address.ip,
        site.peers.table(own.node, family),
    )
    mtu = pod_mtu(site.config, site.mtu)
    builder.links.append(Link(device, LinkKind.TUN, mtu=mtu, noarp=True, udp_tunnel=options, provenance=own.provenance))
    builder.addresses.append(Address(device, address, provenance=own.provenance))
    whole = site.config.networks[family]
    builder.routes.append(Route(whole, device=device, protocol="boot", provenance=own.provenance))


def _alloc(site: Site, family: Family, builder: NamespaceBuilder) -> None:
    """Subnets only: no data path."""


_WRITERS: dict[str, Callable[[Site, Family, NamespaceBuilder], None]] = {
    "vxlan": _vxlan,
    "host-gw": _peers,
    "ipip": _ipip,
    "udp": _udp,
    "alloc": _alloc,
}
