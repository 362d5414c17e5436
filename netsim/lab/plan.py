"""From namespaces as values to netlink requests, in an order that the kernel takes. Pure: nothing here touches one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from netsim.errors import UnsupportedError
from netsim.lab import netlink
from netsim.lab.netlink import Request
from netsim.linux.fib import rule_family
from netsim.linux.link import LinkKind
from netsim.linux.network import Namespace, Network
from netsim.linux.route import Route
from netsim.packet.address import Family

UNDERLAY = "underlay"
# The kernel's own: one value for the whole machine, read-only in any namespace but the first.
GLOBAL_SYSCTLS = frozenset({"net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"})
# Every error that is due is sent (the default is one a second and destination); addresses work at once. IPv4 by the mask of
# limited types: a limit of 0 would empty the allowance that "no route" errors draw on (inet_peer_xrlim_allow, Linux 6.1).
LAB_SYSCTLS = {
    "net.ipv4.icmp_ratemask": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.router_solicitations": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
}


def netns(name: str) -> str:
    """The file name of a namespace under /run/netns: ``pod/shop/web-0`` is ``pod.shop.web-0``."""
    plain = name.replace("/", ".")
    return plain if len(plain) <= 200 else f"{plain[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@dataclass
class Batch:
    """What is done in one namespace, in this order over all of them: ``links`` everywhere, then the rest."""

    links: list[Request] = field(default_factory=list)
    rest: list[Request] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """``namespaces``: name → value. ``batches``: by the namespace's name; ``UNDERLAY`` holds a bridge per L2 segment."""

    namespaces: Mapping[str, Namespace]
    batches: Mapping[str, Batch]


def plan(network: Network, names: list[str]) -> Plan:
    """UnsupportedError for a device the lab cannot make."""
    held = {name: network.namespace(name) for name in names}
    batches = {name: Batch() for name in [*names, UNDERLAY]}
    underlay = batches[UNDERLAY]
    segments: dict[str, str] = {}
    plugs = 0
    for name, namespace in held.items():
        links = batches[name].links
        for link in namespace.links:
            if link.kind is LinkKind.PHYSICAL:
                if link.segment is None:
                    raise UnsupportedError(
                        f"{name}: device {link.name} is plugged into nothing: the lab cannot make it"
                    )
                mtu = network.segment_mtu(link.segment)
                if link.segment not in segments:
                    segments[link.segment] = bridge = f"seg{len(segments)}"
                    underlay.links += [netlink.switch(bridge, mtu), netlink.up(bridge)]
                plugs += 1
                far = f"plug{plugs}"
                links.append(netlink.veth(link, {"ifname": far, "mtu": mtu}, UNDERLAY))
                underlay.rest.append(netlink.up(far, master=segments[link.segment]))
            elif link.kind is LinkKind.VETH and link.peer is not None and link.peer[0] in held:
                if (name, link.name) < link.peer:
                    far_end = next(one for one in held[link.peer[0]].links if one.name == link.peer[1])
                    links.append(netlink.veth(link, netlink.end(far_end), netns(link.peer[0])))
            elif link.kind in (LinkKind.BRIDGE, LinkKind.DUMMY):
                links.append(netlink.simple(link))
            elif link.kind is LinkKind.TUN:
                links.append(netlink.tun(link))
        batches[name].rest = list(_configuration(namespace, held))
    return Plan(held, batches)


def _configuration(namespace: Namespace, held: Mapping[str, Namespace]) -> Iterator[Request]:
    yield netlink.up("lo")
    for link in namespace.links:
        if link.kind is LinkKind.VETH and (link.peer is None or link.peer[0] not in held):
            continue  # its pod was left out of the lab
        if link.vxlan is not None:
            yield netlink.vxlan(link)
        elif link.tunnel is not None:
            yield netlink.ipip(link)
        if link.kind is not LinkKind.LOOPBACK:
            yield netlink.state(link)
        if link.hairpin:
            yield netlink.hairpin(link)
    yield from map(netlink.address, namespace.addresses)
    yield from _rules(namespace)
    for wanted in ("host", "link", "global"):  # a gateway is checked when the route is added: nearest first
        yield from (netlink.route(route) for route in namespace.routes if _reach(route) == wanted)
    yield from map(netlink.neighbour, namespace.neighbours)
    yield from map(netlink.fdb, namespace.fdb)


def _rules(namespace: Namespace) -> Iterator[Request]:
    """A family of which the namespace holds none keeps the kernel's own."""
    for family in Family:
        rules = [rule for rule in namespace.rules if rule_family(rule) in (None, family)]
        if rules:
            yield from netlink.no_rules(family)
            yield from (netlink.rule(rule, family) for rule in rules)


def _reach(route: Route) -> str:
    gateways = route.gateway is not None or any(hop.gateway is not None for hop in route.nexthops)
    return "global" if gateways else "link" if route.scope != "host" else "host"
