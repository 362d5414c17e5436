"""The forwarding information base: what the kernel does with a destination address.

Built from a namespace's addresses, routes and rules as ``fib_frontend.c``/``fib_trie.c`` and ``net/ipv6/route.c`` do (Linux
6.1): each address brings a local route, a connected prefix and (IPv4) a broadcast route; rules choose tables; within a table
the longest prefix wins, then the smallest metric, then the one that came first.

    rules by priority ──▶ table ──▶ longest prefix ──▶ route ──▶ next hop, source address
    0 local, (policy rules), 32766 main, 32767 default
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

from netsim.linux.kernel_made import (
    SCOPES,
    all_addresses,
    effective_metric,
    is_secondary,
    kernel_routes,
    kernel_routes_of,
    primaries,
)
from netsim.linux.link import Link
from netsim.linux.network import Namespace
from netsim.linux.route import (
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    NextHop,
    Route,
    RouteType,
    RoutingRule,
)
from netsim.linux.source_address import select_source6
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of

__all__ = ["NO_ROUTE", "Fib", "FibResult", "default_rules", "kernel_routes_of", "rule_family", "validate_route"]

_REACHABLE = {RouteType.UNICAST, RouteType.LOCAL}
_ERRORS = {RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT}


@dataclass(frozen=True, slots=True)
class FibResult:
    """The answer of one look-up. ``type`` None: no route. ``prefsrc`` is the source a local sender would use.

    ``alternatives``: every next hop of a multipath route with its weight (one entry otherwise)."""

    type: RouteType | None
    route: Route | None = None
    gateway: IPAddress | None = None
    device: str | None = None
    prefsrc: IPAddress | None = None
    table: int = 0
    rule: RoutingRule | None = None
    onlink: bool = False
    alternatives: tuple[NextHop, ...] = ()

    @property
    def ok(self) -> bool:
        return self.type is not None and self.type not in _ERRORS


NO_ROUTE = FibResult(None)


class _Table:
    """One routing table of one family: prefix length → network number → routes, best first."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._by_length: dict[int, dict[int, list[Route]]] = {}
        self._lengths: list[int] = []

    def add(self, route: Route) -> None:
        length = route.destination.prefixlen
        nets = self._by_length.get(length)
        if nets is None:
            nets = self._by_length[length] = {}
            self._lengths = sorted(self._by_length, reverse=True)
        held = nets.setdefault(int(route.destination.network_address) >> (self._bits - length), [])
        place = len(held)
        metric = effective_metric(route)
        while place and effective_metric(held[place - 1]) > metric:
            place -= 1
        held.insert(place, route)

    def matching(self, address: int) -> Iterator[Route]:
        """Routes that hold ``address``, most specific and cheapest first."""
        for length in self._lengths:
            yield from self._by_length[length].get(address >> (self._bits - length), ())


class Fib:
    """Look-ups in one namespace; build once, ask often."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.sysctls = Sysctls(namespace.sysctls)
        self.links: dict[str, Link] = {link.name: link for link in namespace.links}
        self._addresses = all_addresses(namespace)
        self._first = primaries(namespace.addresses)
        self._tables: dict[tuple[Family, int], _Table] = {}
        for route in kernel_routes(namespace):
            self._add(route)
        for route in namespace.routes:
            self._add(route)
        self._devices: dict[tuple[IPAddress, int], str | None] = {}
        self._rules = {family: tuple(self._rules_of(family)) for family in Family}
        self.local: dict[IPAddress, str] = {
            a.interface.ip: device
            for device in reversed(self._addresses)
            for a in self._addresses[device]
            if a.interface.version == 4 or self._usable(device)
        }

    def _add(self, route: Route) -> None:
        family = family_of(route.destination)
        key = (family, route.table)
        if key not in self._tables:
            self._tables[key] = _Table(family.bits)
        self._tables[key].add(route)

    def _usable(self, device: str | None) -> bool:
        return device is None or (device in self.links and self.links[device].up)

    def _rules_of(self, family: Family) -> Iterable[RoutingRule]:
        held = [r for r in self.namespace.rules if rule_family(r) in (None, family)]
        if not held:
            held = list(default_rules(family))
        return sorted(held, key=lambda r: r.priority)

    # -- look-up -----------------------------------------------------------------------------------------------------
    def lookup(
        self,
        dst: IPAddress,
        *,
        src: IPAddress | None = None,
        iif: str | None = None,
        oif: str | None = None,
        mark: int = 0,
        flow_hash: int = 0,
        near: str | None = None,
    ) -> FibResult:
        """Where a packet to ``dst`` goes. ``iif`` None: a local process sends it. ``near``: the device that IPv6 prefers
        among routes of one prefix (``rt6_score_route``); ``iif`` if not given."""
        family = family_of(dst)
        value = int(dst)
        if family is Family.IPV6 and iif is not None and (dst.is_link_local or dst.is_multicast):
            oif = iif  # rt6_need_strict: such an address means nothing on another device
        elif family is Family.IPV4 and iif is not None and value == 0xFFFFFFFF:
            return FibResult(RouteType.BROADCAST, device=iif)
        for rule in self._rules[family]:
            if not _rule_matches(rule, dst, src, iif, oif, mark):
                continue
            if rule.action != "lookup":
                return FibResult(RouteType(rule.action), table=0, rule=rule)
            table = self._tables.get((family, rule.table))
            if table is None:
                continue
            routes = table.matching(value)
            if family is Family.IPV6 and (preferred := near or iif) is not None:
                routes = _nearest_first(routes, preferred)
            for route in routes:
                if route.type is RouteType.THROW:
                    break
                result = self._use(route, dst, oif, flow_hash)
                if result is not None:
                    return replace(result, table=rule.table, rule=rule)
        return NO_ROUTE

    def _use(self, route: Route, dst: IPAddress, oif: str | None, flow_hash: int) -> FibResult | None:
        """The route as a result, or None when its device is down or not the one asked for."""
        if route.type in _ERRORS:
            return FibResult(route.type, route)
        hops = route.nexthops or (NextHop(route.gateway, route.device, 1, route.onlink),)
        alive = []
        for hop in hops:
            if hop.device is None and hop.gateway is not None:
                hop = replace(hop, device=self.device_of(hop.gateway, route.table))
            usable = self._usable(hop.device) or (route.type is RouteType.LOCAL and hop.device in self.links)
            if usable and (hop.device is not None or route.type is not RouteType.UNICAST):
                alive.append(hop)
        if oif is not None:
            alive = [hop for hop in alive if hop.device == oif]
        if not alive:
            return None
        total = sum(hop.weight for hop in alive)
        pick, chosen = (flow_hash * total) >> 32, alive[0]
        for hop in alive:
            pick -= hop.weight
            if pick < 0:
                chosen = hop
                break
        return FibResult(
            route.type,
            route,
            self._crossed(chosen).gateway,
            chosen.device,
            route.source or self._source(route, chosen, dst),
            onlink=chosen.onlink,
            alternatives=tuple(self._crossed(hop) for hop in alive),
        )

    def _crossed(self, hop: NextHop) -> NextHop:
        """rt_set_nexthop: a gateway that is an address of the device itself is none; the destination is a neighbour then."""
        own = hop.gateway is not None and hop.gateway.version == 4 and self.local.get(hop.gateway) == hop.device
        return replace(hop, gateway=None) if own else hop

    def _source(self, route: Route, hop: NextHop, dst: IPAddress) -> IPAddress | None:
        """fib_info_update_nhc_saddr, ip6_route_get_saddr: IPv4 asks for an address near the gateway, IPv6 near ``dst``."""
        if route.type is RouteType.LOCAL:
            return dst
        if hop.device is None:
            return None
        if dst.version == 6:
            return self.select_source(hop.device, dst)
        near = hop.gateway if hop.gateway is not None and hop.gateway.version == 4 else unspecified(Family.IPV4)
        return self.select_source(hop.device, near, route.scope)

    def device_of(self, gateway: IPAddress, table: int = TABLE_MAIN) -> str | None:
        """The device that a gateway without one resolved to when its route was added to ``table``.

        Routes that hide the neighbour today were not there then, or the route would have been refused: pass over them."""
        key = gateway, table
        if key not in self._devices:
            found = self.next_hop(gateway, None, table)
            held = self._tables.get((family_of(gateway), TABLE_MAIN))
            for route in held.matching(int(gateway)) if held is not None and found is None else ():
                if route.gateway is None and route.device is not None and self._usable(route.device):
                    found = route.device
                    break
            self._devices[key] = found
        return self._devices[key]

    def next_hop(self, gateway: IPAddress, device: str | None, table: int = TABLE_MAIN) -> str | None:
        """fib_check_nh_gw, ip6_route_check_nh: the device that reaches ``gateway`` directly (only ``device`` if given), or
        None if none does. The route's own table is asked first, then local and main: rules may be younger than routes."""
        family = family_of(gateway)
        own = self._tables.get((family, table))
        if own is not None and (family is Family.IPV6 or table != TABLE_MAIN):
            found = self._direct(own, gateway, device)
            if found is not None and found[0] is not None:
                return found[0]
        for number in (TABLE_LOCAL, TABLE_MAIN):
            held = self._tables.get((family, number))
            found = self._direct(held, gateway, device) if held is not None else None
            if found is not None:
                return found[0]
        return None

    def onlink_fits(self, gateway: IPAddress, device: str | None) -> bool:
        """ip6_route_check_nh_onlink: table main must not know ``gateway`` behind another device; its default route and its
        error routes do not count."""
        table = self._tables.get((Family.IPV6, TABLE_MAIN))
        usable = (r for r in (table.matching(int(gateway)) if table else ()) if self._usable(r.device))
        known = next(usable, None)
        if known is None or known.destination.prefixlen == 0 or known.type in {*_ERRORS, RouteType.THROW}:
            return True
        same = [known, *takewhile(lambda r: r.destination == known.destination, usable)]
        best = [r for r in same if effective_metric(r) == effective_metric(known) and r.type is RouteType.UNICAST]
        return any(hop.device == device for r in best for hop in r.nexthops or (NextHop(r.gateway, r.device),))

    def _direct(self, table: _Table, gateway: IPAddress, device: str | None) -> tuple[str | None] | None:
        """What ``table`` says of a next hop: (device,), or (None,) if it is no neighbour there; None: nothing, ask on.

        IPv4 passes over routes of global scope, which lead to gateways or errors; IPv6 takes them for an answer, unless a
        device is asked for: its error routes lead to lo."""
        for route in table.matching(int(gateway)):
            if gateway.version == 6 and device not in (None, "lo") and route.type in {*_ERRORS, RouteType.THROW}:
                continue
            if gateway.version == 4 and SCOPES.get(route.scope, 0) < SCOPES["link"]:
                continue
            if route.type is RouteType.THROW:
                return None
            if route.type in _ERRORS or (gateway.version == 4 and route.type not in _REACHABLE):
                return (None,)
            for hop in route.nexthops or (NextHop(route.gateway, route.device),):
                known = hop.device is not None or hop.gateway is not None
                if not known or not self._usable(hop.device) or (device and hop.device and hop.device != device):
                    continue
                return (None,) if hop.gateway is not None else (hop.device,)
        return None

    def select_source(self, device: str, dst: IPAddress, scope: str = "global") -> IPAddress | None:
        """The source address for ``dst`` when it leaves by ``device``: inet_select_addr (IPv4), ipv6_dev_get_saddr (IPv6).

        IPv4: the device's first primary address in whose subnet ``dst`` is (0.0.0.0: any), else its first one, else the
        first of another device. ``scope`` is that of the route: addresses of a narrower scope are passed over."""
        if dst.version == 6:
            candidates = ((name, a) for name, held in self._addresses.items() for a in held if self._usable(name))
            return select_source6(device, dst, candidates)
        limit = SCOPES.get(scope, 0)
        held = [a for a in self._primaries(device) if min(SCOPES.get(a.scope, 0), SCOPES["host"]) <= limit]
        for address in held:
            if not int(dst) or dst in address.interface.network:
                return address.interface.ip
        if held:
            return held[0].interface.ip
        for name in self._addresses:
            for address in self._primaries(name):
                if address.scope != "link" and SCOPES.get(address.scope, 0) <= limit:
                    return address.interface.ip
        return None

    def _primaries(self, device: str) -> Iterator[Address]:
        if self._usable(device):
            for address in self._addresses.get(device, ()):
                if address.interface.version == 4 and not is_secondary(address, self._first):
                    yield address

    def addresses_of(self, device: str) -> list[Address]:
        return self._addresses.get(device, [])

    def is_local(self, address: IPAddress) -> bool:
        """Would a packet to ``address`` be delivered here?"""
        return self.address_type(address) == "LOCAL"

    def address_type(self, address: IPAddress, device: str | None = None) -> str:
        """inet_addr_type / ipv6 addrtype: LOCAL, UNICAST, BROADCAST, MULTICAST, or the type of an error route."""
        if address.is_multicast:
            return "MULTICAST"
        if address.version == 4 and int(address) in (0, 0xFFFFFFFF):
            return "BROADCAST"
        if address.is_unspecified:
            return "UNSPEC"
        table = self._tables.get((family_of(address), TABLE_LOCAL))
        route = next(table.matching(int(address)), None) if table else None
        if route is not None and device in (None, route.device):
            return route.type.value.upper()
        if address.version == 6:
            found = self.lookup(address, oif=device)
            if not found.ok:
                return RouteType.UNREACHABLE.value.upper() if found.type is None else found.type.value.upper()
        return "UNICAST"

    # -- ingress checks ----------------------------------------------------------------------------------------------


def _nearest_first(routes: Iterable[Route], iif: str) -> Iterator[Route]:
    """rt6_score_route: of IPv6 routes with the same prefix and metric, first those of the device the packet came in by."""
    for _, equal in groupby(routes, lambda r: (r.destination, effective_metric(r))):
        yield from sorted(equal, key=lambda r: r.device != iif)


def default_rules(family: Family) -> tuple[RoutingRule, ...]:
    rules = (RoutingRule(0, TABLE_LOCAL), RoutingRule(32766, TABLE_MAIN))
    return (*rules, RoutingRule(32767, TABLE_DEFAULT)) if family is Family.IPV4 else rules


def rule_family(rule: RoutingRule) -> Family | None:
    """None: the rule holds for both families."""
    if rule.family is not None:
        return rule.family
    named: IPNetwork | None = rule.source or rule.destination
    return family_of(named) if named is not None else None


def _rule_matches(
    rule: RoutingRule, dst: IPAddress, src: IPAddress | None, iif: str | None, oif: str | None, mark: int
) -> bool:
    matched = (
        (rule.iif is None or rule.iif == (iif or "lo"))
        and (rule.oif is None or rule.oif == oif)
        and (rule.mark is None or (mark ^ rule.mark) & rule.mask == 0)
        and (rule.destination is None or dst in rule.destination)
        and (rule.source is None or (src is not None and src in rule.source) or rule.source.prefixlen == 0)
    )
    return matched != rule.invert


def validate_route(namespace: Namespace, route: Route) -> str | None:
    """Why the kernel refuses to add ``route`` (fib_check_nh); None if it takes it."""
    fib = Fib(namespace)
    for hop in route.nexthops or (NextHop(route.gateway, route.device, 1, route.onlink),):
        if hop.device is not None and hop.device not in fib.links:
            return f'Cannot find device "{hop.device}"'
        if hop.device is not None and not fib.links[hop.device].up:
            return "Nexthop device is not up" if hop.gateway is not None else "Device for nexthop is not up"
        if hop.gateway is None:
            continue
        why = _bad_gateway(fib, hop.gateway, hop, route)
        if why is not None:
            return why
    if route.source is not None and not fib.is_local(route.source):
        return "Invalid prefsrc address"
    return None


def _bad_gateway(fib: Fib, gateway: IPAddress, hop: NextHop, route: Route) -> str | None:
    """fib_check_nh_gw (IPv4), ip6_validate_gw (IPv6)."""
    if hop.onlink and hop.device is None:
        return "Nexthop device required for onlink"
    if gateway.version == 4:
        fits = fib.address_type(gateway) == "UNICAST" if hop.onlink else fib.next_hop(gateway, hop.device, route.table)
        return None if fits else "Nexthop has invalid gateway"
    if gateway.is_multicast or gateway.is_unspecified:
        return "Invalid gateway address"
    if gateway.is_link_local:
        if hop.device is None:
            return "Egress device not specified"
        own = any(a.interface.ip == gateway for a in fib.addresses_of(hop.device))
        return "Gateway can not be a local address" if own else None
    if gateway in fib.local:
        return "Gateway can not be a local address"
    if not hop.onlink:
        return None if fib.next_hop(gateway, hop.device, route.table) else "No route to host"
    return None if fib.onlink_fits(gateway, hop.device) else "Nexthop has invalid gateway or device mismatch"


def unspecified(family: Family) -> IPAddress:
    return ipaddress.IPv4Address(0) if family is Family.IPV4 else ipaddress.IPv6Address(0)
