"""A namespace in the words of iproute2 6.1, to the byte: routes, rules, neighbours, FDB (``link_text``: the rest).

Trailing blanks are iproute2's own. Where the kernel lists in hash order (neighbours), ours is the order of the namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from netsim.linux.fib import Fib, default_rules, rule_family
from netsim.linux.kernel_made import effective_metric, kernel_routes
from netsim.linux.link_text import addr_lines, link_lines
from netsim.linux.network import Namespace
from netsim.linux.route import (
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    FdbEntry,
    Neighbour,
    NextHop,
    Route,
    RouteType,
    RoutingRule,
)
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of

__all__ = ["addr_lines", "fdb_lines", "link_lines", "neigh_lines", "route_lines", "rule_lines"]

TABLE_NAMES = {TABLE_LOCAL: "local", TABLE_MAIN: "main", TABLE_DEFAULT: "default"}
ERROR_TYPES = {RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW}


def table_text(number: int) -> str:
    return TABLE_NAMES.get(number, str(number))


def prefix_text(prefix: IPNetwork, everything: str = "default") -> str:
    """A prefix as iproute2 writes it: a host without its length, ``everything`` for a length of 0."""
    if prefix.prefixlen == 0:
        return everything
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


# -- routes ----------------------------------------------------------------------------------------------------------
def route_lines(namespace: Namespace, family: Family, *, local: bool = False) -> list[str]:
    """``ip route`` (``ip -6 route``), followed by the routes of other tables as ``ip route show table all`` prints them;
    ``local`` adds table local too. A route with next hops takes several lines."""
    fib = Fib(namespace)
    routes = [r for r in (*kernel_routes(namespace), *namespace.routes) if family_of(r.destination) is family]
    routes = [_resolved(r, fib) for r in routes if (local or r.table != TABLE_LOCAL) and _alive(r, fib)]
    routes.sort(key=_table_order)
    ordered: list[Route] = []
    for table in dict.fromkeys(r.table for r in routes):
        ordered += sorted((r for r in routes if r.table == table), key=_order)
    return [line for route in ordered for line in route_text(route).split("\n")]


def _table_order(route: Route) -> tuple[bool, bool, int]:
    """Main first, local last; the others in the order of the kernel's 256 hash buckets."""
    return route.table != TABLE_MAIN, route.table == TABLE_LOCAL, route.table & 255


def _order(route: Route) -> tuple[int, int, int]:
    """fib_trie walks by address, longest prefix first; fib6_walk is post-order: what is inside a prefix comes before it."""
    prefix = route.destination
    address = prefix.network_address if prefix.version == 4 else prefix.broadcast_address
    return int(address), -prefix.prefixlen, effective_metric(route)


def _alive(route: Route, fib: Fib) -> bool:
    """The kernel takes the routes of a device away when it goes down."""
    hops = route.nexthops or (NextHop(route.gateway, route.device),)
    return route.type is RouteType.LOCAL or any(
        hop.device is None or (hop.device in fib.links and fib.links[hop.device].up) for hop in hops
    )


def _resolved(route: Route, fib: Fib) -> Route:
    """With the device that the kernel found for each gateway, and IPv6's metric, when it took the route."""
    route = replace(route, metric=effective_metric(route))
    if route.nexthops:
        hops = (
            h if h.device or not h.gateway else replace(h, device=fib.device_of(h.gateway, route.table))
            for h in route.nexthops
        )
        return replace(route, nexthops=tuple(hops))
    if route.gateway is not None and route.device is None:
        return replace(route, device=fib.device_of(route.gateway, route.table))
    return route


def route_text(route: Route) -> str:
    """print_route (iproute2 6.1 ip/iproute.c). IPv6 has no scope, and always shows its metric and preference."""
    six = family_of(route.destination) is Family.IPV6
    text = "" if route.type is RouteType.UNICAST else f"{route.type} "
    text += f"{prefix_text(route.destination)} {_hop_text(route.gateway, route.device, family_of(route.destination))}"
    if six and route.type in ERROR_TYPES and route.device is None:
        text += "dev lo "
    if route.table != TABLE_MAIN:
        text += f"table {table_text(route.table)} "
    if route.protocol != "boot":
        text += f"proto {route.protocol} "
    if route.scope != "global" and not six:
        text += f"scope {route.scope} "
    if route.source is not None:
        text += f"src {route.source} "
    if six or route.metric:
        text += f"metric {route.metric} "
    if route.onlink:
        text += "onlink "
    if route.mtu is not None:
        text += f"mtu {route.mtu} "
    if six:
        text += "pref medium"
    for hop in route.nexthops:
        text += f"\n\tnexthop {_hop_text(hop.gateway, hop.device, family_of(route.destination))}weight {hop.weight} "
        text += "onlink " if hop.onlink else ""
    return text


def _hop_text(gateway: IPAddress | None, device: str | None, family: Family) -> str:
    text = ""
    if gateway is not None:
        text = f"via {gateway} " if family_of(gateway) is family else f"via inet6 {gateway} "
    return f"{text}dev {device} " if device is not None else text


# -- rules -----------------------------------------------------------------------------------------------------------
def rule_lines(namespace: Namespace, family: Family) -> list[str]:
    """``ip rule`` (``ip -6 rule``)."""
    rules: Iterable[RoutingRule] = [r for r in namespace.rules if rule_family(r) in (None, family)]
    devices = {link.name for link in namespace.links}
    ordered = sorted(rules or default_rules(family), key=lambda r: r.priority)
    return [rule_text(rule, devices) for rule in ordered]


def rule_text(rule: RoutingRule, devices: set[str] | None = None) -> str:
    """print_rule (ip/iprule.c). ``devices``: those that exist; the names of others are marked as detached."""
    text = f"{rule.priority}:\t{'not ' if rule.invert else ''}from "
    text += "all" if rule.source is None else prefix_text(rule.source, "all")
    if rule.destination is not None and rule.destination.prefixlen:
        text += f" to {prefix_text(rule.destination)}"
    if rule.mark is not None:
        text += f" fwmark {rule.mark:#x}" + (f"/{rule.mask:#x}" if rule.mask != 0xFFFFFFFF else "")
    for word, device in (("iif", rule.iif), ("oif", rule.oif)):
        if device is not None:
            text += f" {word} {device}" + (" [detached]" if devices is not None and device not in devices else "")
    return text + (f" lookup {table_text(rule.table)}" if rule.action == "lookup" else f" {rule.action}")


# -- neighbours and FDB ------------------------------------------------------------------------------------------------
def neigh_lines(namespace: Namespace) -> list[str]:
    """``ip neigh``: IPv4 before IPv6; entries in state noarp are not shown, as there."""
    shown = [n for n in namespace.neighbours if n.state != "noarp"]
    return [neigh_text(n) for n in sorted(shown, key=lambda n: n.address.version)]


def neigh_text(neighbour: Neighbour) -> str:
    mac = f"lladdr {neighbour.mac} " if neighbour.mac is not None else ""
    return f"{neighbour.address} dev {neighbour.device} {mac}{neighbour.state.upper()} "


def fdb_lines(namespace: Namespace) -> list[str]:
    """``bridge fdb``, device by device; without the entries that every device has for its own and for multicast MACs."""
    return list(_fdb(namespace))


def _fdb(namespace: Namespace) -> Iterator[str]:
    place = {link.name: index for index, link in enumerate(namespace.links)}
    for entry in sorted(namespace.fdb, key=lambda e: place.get(e.device, len(place))):
        yield fdb_text(entry)


def fdb_text(entry: FdbEntry) -> str:
    """print_fdb (bridge/fdb.c): a learnt, fresh entry (state reachable) has no word for its state."""
    text = f"{entry.mac} dev {entry.device} "
    if entry.destination is not None:
        text += f"dst {entry.destination} "
    text += f"master {entry.master} " if entry.master is not None else "self "
    return text + ("" if entry.state == "reachable" else entry.state)
