"""Network devices, as ``ip -d link`` shows them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from netsim.linux.provenance import Provenance
from netsim.packet.address import IPAddress, IPNetwork


class LinkKind(enum.StrEnum):
    LOOPBACK = "loopback"
    PHYSICAL = "physical"
    VETH = "veth"
    BRIDGE = "bridge"
    VXLAN = "vxlan"
    IPIP = "ipip"
    TUN = "tun"
    DUMMY = "dummy"


@dataclass(frozen=True, slots=True)
class VxlanOptions:
    """flannel's and Calico's kind of VXLAN device: no remote, no group, peers come from the FDB."""

    vni: int
    local: IPAddress | None = None
    device: str | None = None
    port: int = 8472
    learning: bool = False
    udp_checksum: bool = True


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """``ipip``. ``remote`` None is NBMA: the route's gateway is the outer destination. ``ttl`` 0 inherits."""

    local: IPAddress | None = None
    remote: IPAddress | None = None
    ttl: int = 0
    pmtudisc: bool = True


@dataclass(frozen=True, slots=True)
class UdpTunnelOptions:
    """flanneld's TUN data plane: the bare inner packet is the UDP payload; both directions cost one TTL.

    ``peers`` is the lease table: (subnet, public address) pairs, searched in order. ``tun_address`` is the source of the
    net-unreachable that flanneld writes back for a destination without a lease.
    """

    local: IPAddress
    port: int
    tun_address: IPAddress
    peers: Sequence[tuple[IPNetwork, IPAddress]] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """One device of a namespace. MAC addresses are lower-case colon text (None: the device has none).

    ``peer`` is the (namespace, device) at a veth's other end; ``segment`` names the L2 segment that a physical device is
    plugged into; ``master`` the bridge it is a port of.
    """

    name: str
    kind: LinkKind
    mac: str | None = None
    mtu: int = 1500
    up: bool = True
    master: str | None = None
    peer: tuple[str, str] | None = None
    segment: str | None = None
    hairpin: bool = False
    noarp: bool = False
    vxlan: VxlanOptions | None = None
    tunnel: TunnelOptions | None = None
    udp_tunnel: UdpTunnelOptions | None = None
    provenance: Provenance | None = field(default=None, compare=False)
