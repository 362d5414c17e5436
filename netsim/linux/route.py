"""Addresses, routes, routing rules, neighbours and bridge/VXLAN forwarding entries, as iproute2 shows them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, IPAddress, IPInterface, IPNetwork

TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT = 255, 254, 253


class RouteType(enum.StrEnum):
    UNICAST = "unicast"
    LOCAL = "local"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    ANYCAST = "anycast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    THROW = "throw"


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a device. The kernel adds the local, connected and broadcast routes by itself (``fib``)."""

    device: str
    interface: IPInterface
    scope: str = "global"  # global, link, host
    noprefixroute: bool = False
    provenance: Provenance | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NextHop:
    gateway: IPAddress | None = None
    device: str | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One route. A single next hop sits in ``gateway``/``device``/``onlink``; ``nexthops`` is for multipath only."""

    destination: IPNetwork
    gateway: IPAddress | None = None
    device: str | None = None
    type: RouteType = RouteType.UNICAST
    table: int = TABLE_MAIN
    metric: int = 0
    scope: str = "global"  # global, link, host
    protocol: str = "static"  # kernel, boot, static, bird, or a number
    source: IPAddress | None = None  # preferred source ("src")
    onlink: bool = False
    mtu: int | None = None
    nexthops: tuple[NextHop, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """``ip rule``: look into ``table`` (or end with ``action``) when everything given agrees.

    ``family`` None: that of the prefixes given, or both families if none is."""

    priority: int
    table: int = TABLE_MAIN
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    iif: str | None = None
    oif: str | None = None
    mark: int | None = None
    mask: int = 0xFFFFFFFF
    invert: bool = False
    action: str = "lookup"  # lookup, blackhole, unreachable, prohibit
    provenance: Provenance | None = field(default=None, compare=False)
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    address: IPAddress
    device: str
    mac: str | None
    state: str = "permanent"  # permanent, reachable, stale, failed …
    provenance: Provenance | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """``bridge fdb``: frames for ``mac`` leave ``device`` (for VXLAN: to the tunnel endpoint ``destination``)."""

    mac: str
    device: str
    destination: IPAddress | None = None
    master: str | None = None
    state: str = "permanent"
    provenance: Provenance | None = field(default=None, compare=False)
