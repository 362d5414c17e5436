"""Namespaces that are alike but for one IPv4 address, as the pods of a node are: their routes are written once.

What routing says of such a namespace depends on the address itself in a few places only: the prefix that makes it local, the
list of own addresses, the device's primary address, the source of last resort. The *shape* is all the rest, read back from
the tables once the first namespace of the kind has been compiled: whoever has the shape takes over its rows.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from netsim.linux.kernel_made import effective_metric
from netsim.linux.link import LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import Address, NextHop, Route

MOST_ROUTES = 16  # of a namespace that may have a shape

DeviceRow = tuple[int, int, int, int, int]  # a row of DEVICE; its key may lack the namespace


class Shape(NamedTuple):
    """Rows as tuples. ``address`` stands for the one that differs, in ``own`` and ``source``."""

    address: int
    flags: int
    program: tuple[int, int]  # first row of RULE, count
    local: list[Any]  # rows of PREFIX in table local, without that of the address
    route: int  # row of ROUTE that makes it local
    heads: list[Any]  # rows of TABLE behind that of table local
    own: list[int]
    source: int
    devices: list[DeviceRow]  # keys without the namespace
    device: int  # place of the address's among them
    mask: int
    taken: frozenset[int]  # addresses that would make it another shape


def address_of(namespace: Namespace) -> Address | None:
    """The one that a shape leaves open; None if the namespace has none or several."""
    found = [one for one in namespace.addresses if one.interface.version == 4]
    return found[0] if len(found) == 1 else None


def key_of(namespace: Namespace, address: Address) -> Hashable:
    """Namespaces of one key have one shape, their addresses' clashes with others aside. None: it has none.

    ``address``: of ``address_of``."""
    routes = namespace.routes
    if len(routes) > MOST_ROUTES:
        return None
    kinds = tuple([(link.name, link.kind, link.up) for link in namespace.links])
    if any(kind is LinkKind.LOOPBACK and name == address.device for name, kind, _ in kinds):
        return None
    network = address.interface.network
    subnet = int(network.network_address), network.prefixlen
    where = address.device, address.scope, address.noprefixroute, *subnet
    sysctls = tuple(sorted(namespace.sysctls.items())) if namespace.sysctls else ()
    return kinds, where, tuple(map(_route, routes)), namespace.rules, sysctls


def _hops(route: Route) -> tuple[NextHop, ...]:
    return route.nexthops or (NextHop(route.gateway, route.device, 1, route.onlink),)


def _route(route: Route) -> Hashable:
    """All of a route that is in the tables."""
    prefix = route.destination
    where = int(prefix.network_address), prefix.prefixlen, prefix.version
    return where, route.table, route.type, effective_metric(route), route.mtu, route.device, _hops(route)


def gateways_of(namespace: Namespace) -> frozenset[int]:
    """IPv4 gateways, as numbers: an address of one's own is none (``Fib``)."""
    hops = [hop.gateway for route in namespace.routes for hop in _hops(route)]
    return frozenset([int(gateway) for gateway in hops if gateway is not None and gateway.version == 4])
