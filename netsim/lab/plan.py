"""From namespaces as values to the words of ip and bridge. Pure: nothing here touches a kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from netsim.errors import UnsupportedError
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, Network
from netsim.linux.route import Address, FdbEntry, Neighbour, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import family_of

UNDERLAY = "underlay"
# The kernel's own: one value for the whole machine, read-only in any namespace but the first.
GLOBAL_SYSCTLS = frozenset({"net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"})
# Every error that is due is sent (the default is one a second and destination); addresses work at once.
LAB_SYSCTLS = {
    "net.ipv4.icmp_ratelimit": "0",
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

    links: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    fdb: list[str] = field(default_factory=list)


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
                    underlay.links += [
                        f"link add {bridge} mtu {mtu} type bridge mcast_snooping 0",
                        f"link set {bridge} up",
                    ]
                plugs += 1
                far = f"plug{plugs}"
                links.append(f"link add {_named(link)} type veth peer name {far} mtu {mtu} netns {UNDERLAY}")
                underlay.rest += [f"link set {far} master {segments[link.segment]}", f"link set {far} up"]
            elif link.kind is LinkKind.VETH and link.peer is not None and link.peer[0] in held:
                if (name, link.name) < link.peer:
                    far_end = next(one for one in held[link.peer[0]].links if one.name == link.peer[1])
                    links.append(
                        f"link add {_named(link)} type veth peer {_named(far_end)} netns {netns(link.peer[0])}"
                    )
            elif link.kind is LinkKind.BRIDGE:
                links.append(f"link add {_named(link)} type bridge")
            elif link.kind is LinkKind.DUMMY:
                links.append(f"link add {_named(link)} type dummy")
            elif link.kind is LinkKind.TUN:
                links.append(f"tuntap add mode tun name {link.name}")
        batches[name].rest = list(_configuration(namespace, held))
        batches[name].fdb = [_fdb(entry) for entry in namespace.fdb]
    return Plan(held, batches)


def _named(link: Link) -> str:
    return f"name {link.name}{f' address {link.mac}' if link.mac else ''} mtu {link.mtu}"


def _configuration(namespace: Namespace, held: Mapping[str, Namespace]) -> Iterator[str]:
    yield "link set lo up"
    for link in namespace.links:
        if link.kind is LinkKind.VETH and (link.peer is None or link.peer[0] not in held):
            continue  # its pod was left out of the lab
        if link.vxlan is not None:
            yield _vxlan(link)
        elif link.tunnel is not None:
            yield _ipip(link)
        if link.kind is LinkKind.TUN:
            yield f"link set {link.name} mtu {link.mtu}"
        if link.master is not None:
            yield f"link set {link.name} master {link.master}"
            yield f"link set {link.name} type bridge_slave hairpin {'on' if link.hairpin else 'off'}"
        if link.noarp:
            yield f"link set {link.name} arp off"
        if link.kind is not LinkKind.LOOPBACK:
            yield f"link set {link.name} {'up' if link.up else 'down'}"
    yield from map(_address, namespace.addresses)
    if namespace.rules:
        yield from ("rule flush", "rule del pref 0", "-6 rule flush", "-6 rule del pref 0")
        for rule in namespace.rules:
            yield from _rule(rule)
    for wanted in ("host", "link", "global"):  # a gateway is checked when the route is added: nearest first
        yield from (_route(route) for route in namespace.routes if _reach(route) == wanted)
    yield from map(_neighbour, namespace.neighbours)


def _reach(route: Route) -> str:
    gateways = route.gateway is not None or any(hop.gateway is not None for hop in route.nexthops)
    return "global" if gateways else "link" if route.scope != "host" else "host"


def _vxlan(link: Link) -> str:
    assert link.vxlan is not None
    options = link.vxlan
    local = f" local {options.local}" if options.local else ""
    device = f" dev {options.device}" if options.device else ""
    flags = f"{'' if options.learning else 'no'}learning {'' if options.udp_checksum else 'no'}udpcsum"
    return f"link add {_named(link)} type vxlan id {options.vni}{local}{device} dstport {options.port} {flags}"


def _ipip(link: Link) -> str:
    assert link.tunnel is not None
    options = link.tunnel
    local = f" local {options.local}" if options.local else ""
    remote = f" remote {options.remote}" if options.remote else ""
    pmtu = "pmtudisc" if options.pmtudisc else "nopmtudisc"
    return f"link add name {link.name} mtu {link.mtu} type ipip{local}{remote} ttl {options.ttl or 'inherit'} {pmtu}"


def _address(address: Address) -> str:
    four = address.interface.version == 4
    broadcast = " brd +" if four and address.interface.network.prefixlen < 31 else ""
    quiet = "" if four else " nodad"
    prefix = " noprefixroute" if address.noprefixroute else ""
    return f"addr add {address.interface} dev {address.device}{broadcast} scope {address.scope}{quiet}{prefix}"


def _hop(gateway: object, device: str | None, onlink: bool) -> str:
    return f"{f' via {gateway}' if gateway else ''}{f' dev {device}' if device else ''}{' onlink' if onlink else ''}"


def _route(route: Route) -> str:
    kind = "" if route.type is RouteType.UNICAST else f"{route.type.value} "
    words = f"route add {kind}{route.destination}{_hop(route.gateway, route.device, route.onlink)}"
    words += f" table {route.table} proto {route.protocol}"
    if route.destination.version == 4 and route.scope != "global":
        words += f" scope {route.scope}"
    if route.metric:
        words += f" metric {route.metric}"
    if route.source:
        words += f" src {route.source}"
    if route.mtu:
        words += f" mtu {route.mtu}"
    return words + "".join(_multi(hop) for hop in route.nexthops)


def _multi(hop: NextHop) -> str:
    return f" nexthop{_hop(hop.gateway, hop.device, False)} weight {hop.weight}{' onlink' if hop.onlink else ''}"


def _rule(rule: RoutingRule) -> Iterator[str]:
    inner = "not " if rule.invert else ""
    inner += f"from {rule.source or 'all'}{f' to {rule.destination}' if rule.destination else ''}"
    inner += f"{f' iif {rule.iif}' if rule.iif else ''}{f' oif {rule.oif}' if rule.oif else ''}"
    inner += f" fwmark {rule.mark}/{rule.mask}" if rule.mark is not None else ""
    inner += f" lookup {rule.table}" if rule.action == "lookup" else f" {rule.action}"
    prefix = rule.source or rule.destination
    family = rule.family or (family_of(prefix) if prefix is not None else None)
    for number in (4, 6) if family is None else (int(family),):
        yield f"-{number} rule add pref {rule.priority} {inner}"


def _neighbour(neighbour: Neighbour) -> str:
    mac = f" lladdr {neighbour.mac}" if neighbour.mac else ""
    return f"neigh replace {neighbour.address}{mac} dev {neighbour.device} nud {neighbour.state}"


def _fdb(entry: FdbEntry) -> str:
    where = f"dst {entry.destination} self" if entry.destination else "master"
    state = "permanent" if entry.state == "permanent" else "dynamic"
    return f"fdb append {entry.mac} dev {entry.device} {where} {state}"
