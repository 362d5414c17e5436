"""Random routing: devices, addresses, routes and rules from a small, crowded space, so that prefixes nest and collide."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from netsim.linux.link import Link, LinkKind
from netsim.linux.route import TABLE_MAIN, Address, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPAddress, IPNetwork, interface, network

DEVICES = {"lo": None, "d0": "02:00:00:00:00:10", "d1": "02:00:00:00:00:11", "d2": "02:00:00:00:00:12"}
LINKS = tuple(
    Link(name, LinkKind.VETH if mac else LinkKind.LOOPBACK, mac=mac, mtu=1500 if mac else 65536)
    for name, mac in DEVICES.items()
)
UPPER = ("d0", "d1", "d2")


def _draw_host(draw: st.DrawFn, family: Family) -> IPAddress:
    """Addresses from a small, crowded space, so that prefixes nest and collide."""
    low = draw(st.sampled_from((0, 1, 2, 3, 9, 127, 128, 254, 255)))
    net = draw(st.integers(0, 4))
    if family is Family.IPV4:
        return ipaddress.IPv4Address((10 << 24) | (net << 8) | low)
    return ipaddress.IPv6Address((0xFD << 120) | (net << 64) | low)


def _draw_prefix(draw: st.DrawFn, family: Family) -> IPNetwork:
    lengths = (0, 8, 22, 23, 24, 25, 30, 31, 32) if family is Family.IPV4 else (0, 8, 62, 63, 64, 120, 127, 128)
    return network(f"{_draw_host(draw, family)}/{draw(st.sampled_from(lengths))}")


@dataclass(frozen=True)
class World:
    family: Family
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]
    forwarding: bool


@st.composite
def addresses(draw: st.DrawFn, family: Family) -> Address:
    length = draw(st.sampled_from((24, 25, 31, 32) if family is Family.IPV4 else (64, 120, 127, 128)))
    scope = draw(st.sampled_from(("global", "global", "global", "link"))) if family is Family.IPV4 else "global"
    host = _draw_host(draw, family)
    return Address(draw(st.sampled_from(UPPER)), interface(f"{host}/{length}"), scope, draw(st.integers(0, 9)) == 0)


@st.composite
def routes(draw: st.DrawFn, family: Family) -> Route:
    four = family is Family.IPV4
    kind = draw(st.sampled_from([RouteType.UNICAST] * 8 + [RouteType.BLACKHOLE, RouteType.UNREACHABLE,
                                                         RouteType.PROHIBIT, RouteType.THROW]))  # fmt: skip
    route = Route(
        _draw_prefix(draw, family),
        type=kind,
        table=draw(st.sampled_from((TABLE_MAIN, TABLE_MAIN, 100, 7))),
        metric=draw(st.sampled_from((0, 10, 2000))),
        protocol=draw(st.sampled_from(("boot", "static", "bird"))),
    )
    if kind is not RouteType.UNICAST:
        return route
    route = replace(route, mtu=draw(st.sampled_from((None, 1400))))
    device = st.sampled_from(UPPER)
    match draw(st.integers(0, 3)):
        case 0:
            return replace(route, device=draw(device), scope="link" if four else "global")
        case 1:
            # In another table the device depends on which routes were there when this one was added: a value has no past.
            device_of = None if route.table == TABLE_MAIN else draw(device)
            return replace(route, gateway=_draw_host(draw, family), device=device_of)
        case 2:
            onlink = draw(st.booleans())
            return replace(route, gateway=_draw_host(draw, family), device=draw(device), onlink=onlink)
    hops = tuple(
        NextHop(_draw_host(draw, family), draw(device), draw(st.integers(1, 4))) for _ in range(draw(st.integers(2, 3)))
    )
    return replace(route, nexthops=hops)


@st.composite
def rules(draw: st.DrawFn, family: Family, priority: int) -> RoutingRule:
    mark = draw(st.sampled_from((None, None, 1, 0x40)))
    return RoutingRule(
        priority,
        table=draw(st.sampled_from((TABLE_MAIN, 100, 7, 50))),
        source=_draw_prefix(draw, family) if draw(st.integers(0, 2)) == 0 else None,
        destination=_draw_prefix(draw, family) if draw(st.integers(0, 2)) == 0 else None,
        iif=draw(st.sampled_from((None, None, None, "d0", "lo", "gone"))),
        oif=draw(st.sampled_from((None, None, None, "d1"))),
        mark=mark,
        mask=draw(st.sampled_from((0xFFFFFFFF, 0xFF))) if mark is not None else 0xFFFFFFFF,
        invert=draw(st.integers(0, 5)) == 0,
        action=draw(st.sampled_from(["lookup"] * 6 + ["blackhole", "unreachable", "prohibit"])),
        family=family,
    )


@st.composite
def worlds(draw: st.DrawFn, family: Family) -> World:
    count = draw(st.integers(0, 4))
    return World(
        family,
        tuple(draw(st.lists(addresses(family), min_size=2, max_size=6, unique_by=lambda a: a.interface.ip))),
        tuple(draw(st.lists(routes(family), max_size=14, unique_by=lambda r: (r.destination, r.table, r.metric)))),
        tuple(draw(rules(family, 100 + 10 * i)) for i in range(count)),
        draw(st.booleans()),
    )
