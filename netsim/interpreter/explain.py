"""The words of steps: routes, neighbours and checks in the kernel's and iproute2's own spelling."""

from __future__ import annotations

from netsim.linux.fib import FibResult
from netsim.linux.route import Route, RouteType
from netsim.packet.address import IPAddress

_TABLES = {255: "local", 254: "main", 253: "default"}


def route_text(route: Route) -> str:
    """As ``ip route`` shows it (``ip route show table local`` for the kernel's own)."""
    words = [] if route.type is RouteType.UNICAST else [route.type.value]
    if route.destination.prefixlen == 0:
        words.append("default")
    elif route.destination.prefixlen == route.destination.max_prefixlen:
        words.append(str(route.destination.network_address))
    else:
        words.append(str(route.destination))
    if route.gateway is not None:
        words += ["via", str(route.gateway)]
    if route.device is not None:
        words += ["dev", route.device]
    if route.table not in (254,):
        words += ["table", _TABLES.get(route.table, str(route.table))]
    words += ["proto", route.protocol]
    if route.scope != "global":
        words += ["scope", route.scope]
    if route.source is not None:
        words += ["src", str(route.source)]
    if route.metric:
        words += ["metric", str(route.metric)]
    if route.onlink:
        words.append("onlink")
    for hop in route.nexthops:
        words.append("nexthop")
        if hop.gateway is not None:
            words += ["via", str(hop.gateway)]
        if hop.device is not None:
            words += ["dev", hop.device]
        words += ["weight", str(hop.weight)]
    return " ".join(words)


def lookup_text(dst: IPAddress, found: FibResult) -> str:
    if found.route is None:
        return f"{dst}: {found.type.value if found.type else 'no route'}"
    chosen = ""
    if found.route.nexthops:
        chosen = f" (via {found.gateway} dev {found.device})"
    return f"{dst}: {route_text(found.route)}{chosen}"
