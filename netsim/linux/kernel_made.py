"""What the kernel adds by itself: loopback and link-local addresses, and the routes that addresses bring.

Models ``inet_insert_ifa`` and ``fib_add_ifaddr`` (IPv4), ``addrconf`` and ``anycast`` (IPv6) of Linux 6.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_LOCAL, TABLE_MAIN, Address, Route, RouteType
from netsim.linux.shared import Index
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of, host_network, interface, network

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
_EVERYBODY = (ipaddress.IPv4Address(0xFFFFFFFF),)
USER_METRIC6 = 1024  # IP6_RT_PRIO_USER: what an IPv6 route without a metric gets
_NO_LINK_LOCAL = {LinkKind.LOOPBACK, LinkKind.TUN}  # a TUN device gets a random one, which nobody can know
# __ipv6_isatap_ifid: IPv4 addresses that are not the only one of their kind in the world.
_PRIVATE = tuple(map(network, (
    "0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24", "192.88.99.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "255.255.255.255/32",
)))  # fmt: skip


def link_local(mac: str) -> IPAddress:
    """The EUI-64 link-local address of a device (addrconf_ifid_eui48)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(
        bytes.fromhex("fe80" + "00" * 6) + bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:]
    )


def _isatap(local: IPAddress) -> IPAddress:
    """The link-local address of an IPIP device, made of its IPv4 address."""
    unique = 0x00000000 if any(local in prefix for prefix in _PRIVATE) else 0x02000000
    identifier = (unique | 0x5EFE) << 32 | int(local)
    return ipaddress.IPv6Address(0xFE80 << 112 | identifier)


def _own_link_local(link: Link) -> IPAddress | None:
    """What ``ipv6_generate_eui64`` makes of the device's own address."""
    if link.kind in _NO_LINK_LOCAL:
        return None
    if link.kind is LinkKind.IPIP:
        return _isatap(link.tunnel.local) if link.tunnel is not None and link.tunnel.local is not None else None
    return link_local(link.mac) if link.mac is not None else None


def all_addresses(namespace: Namespace, family: Family | None = None) -> dict[str, list[Address]]:
    """The addresses of every device in the order of ``ip addr``, with 127.0.0.1, ::1 and fe80::/64 where nobody gave them;
    of one ``family`` alone if it is given.

    IPv4: host scope before link before global, secondary addresses last. IPv6: global before link, the newest first."""
    sysctls = Sysctls(namespace.sysctls)
    held: dict[str, list[Address]] = {link.name: [] for link in namespace.links}
    for address in _of_family(namespace.addresses, family):
        held.setdefault(address.device, []).append(address)
    for link in namespace.links:
        if link.up:
            held[link.name] = [*held[link.name], *_implied(link, held[link.name], sysctls, family)]
    return {device: list(_ordered(addresses)) for device, addresses in held.items()}


def _of_family(addresses: Iterable[Address], family: Family | None) -> Iterable[Address]:
    return addresses if family is None else [a for a in addresses if a.interface.version == family]


def _implied(link: Link, given: Iterable[Address], sysctls: Sysctls, family: Family | None = None) -> Iterator[Address]:
    six = family is not Family.IPV4 and not sysctls.ipv6_disabled(link.name)
    if link.kind is LinkKind.LOOPBACK:
        four = family is not Family.IPV6
        if four and not any(a.interface.ip.is_loopback and a.interface.version == 4 for a in given):
            yield Address(link.name, interface("127.0.0.1/8"), "host")
        if six and not any(a.interface.ip.is_loopback and a.interface.version == 6 for a in given):
            yield Address(link.name, interface("::1/128"), "host")
    elif six and (own := _own_link_local(link)) is not None:
        if not any(a.interface.version == 6 and a.interface.ip.is_link_local for a in given):
            yield Address(link.name, ipaddress.IPv6Interface((int(own), 64)), "link")


def _ordered(addresses: list[Address]) -> Iterator[Address]:
    first = primaries(addresses)
    yield from sorted(first.values(), key=lambda a: -SCOPES.get(a.scope, 0))
    yield from (a for a in addresses if a.interface.version == 4 and is_secondary(a, first))
    six = [a for a in reversed(addresses) if a.interface.version == 6]
    yield from sorted(six, key=lambda a: a.interface.ip.is_link_local)


Primaries = dict[tuple[str, IPNetwork], Address]


def primaries(addresses: Iterable[Address]) -> Primaries:
    """The first IPv4 address of every subnet of every device. The others of that subnet there are secondary."""
    first: Primaries = {}
    for address in addresses:
        if address.interface.version == 4:
            first.setdefault((address.device, address.interface.network), address)
    return first


def is_secondary(address: Address, first: Primaries) -> bool:
    return first.get((address.device, address.interface.network), address) != address


def kernel_routes(namespace: Namespace, family: Family | None = None) -> Iterator[Route]:
    """Every local, connected, broadcast, anycast and multicast route: those of the devices, as they went up, then those of
    the addresses in the order in which they were given. The order decides between equal prefixes on two devices.
    Of one ``family`` alone if it is given."""
    sysctls = Sysctls(namespace.sysctls)
    links = {link.name: link for link in namespace.links}
    addresses = _of_family(namespace.addresses, family)
    given: dict[str, list[Address]] = {name: [] for name in links}
    for address in addresses:
        given.setdefault(address.device, []).append(address)
    forwarding = sysctls.forwarding(6)
    for link in links.values():
        if link.up and (family is not Family.IPV4 or link.kind is LinkKind.LOOPBACK):
            yield from _device_routes(link, given[link.name], sysctls, family)
    first = primaries(addresses)
    seen: set[tuple[IPNetwork, int, str | None]] = set()
    for address in addresses:
        holder = links.get(address.device)
        if holder is None or (address.interface.version == 6 and not holder.up):
            continue
        primary = first.get((address.device, address.interface.network))
        loopback = holder.kind is LinkKind.LOOPBACK
        brought = kernel_routes_of(address, primary=primary, loopback=loopback, forwarding=forwarding)
        if not holder.up:  # fib_add_ifaddr: an address put on a device that is down is local all the same (kube-ipvs0)
            yield next(brought)
        elif address.interface.version == 4:
            yield from brought
        else:
            for route in brought:  # a second address of an IPv6 subnet brings no second prefix or anycast route
                key = route.destination, route.table, route.device
                if key not in seen:
                    seen.add(key)
                    yield route


def _device_routes(link: Link, given: Iterable[Address], sysctls: Sysctls, family: Family | None) -> Iterator[Route]:
    """What a device brings when it goes up, before anybody gives it an address: of IPv4, only lo brings anything."""
    loopback = link.kind is LinkKind.LOOPBACK
    for address in _implied(link, given, sysctls, family):
        yield from kernel_routes_of(address, loopback=loopback, forwarding=sysctls.forwarding(6))
    if sysctls.ipv6_disabled(link.name) or loopback:
        return
    if link.kind is not LinkKind.IPIP and _own_link_local(link) is None:
        yield Route(network("fe80::/64"), device=link.name, protocol="kernel", metric=256)
    yield Route(network("ff00::/8"), device=link.name, type=RouteType.MULTICAST, table=TABLE_LOCAL,
                protocol="kernel", metric=256)  # fmt: skip


def kernel_routes_of(
    address: Address, *, primary: Address | None = None, loopback: bool = False, forwarding: bool = False
) -> Iterator[Route]:
    """The routes that one address brings. ``primary``: the first address of the same subnet, whose name a secondary
    IPv4 address answers by; ``loopback``: it sits on lo; ``forwarding``: IPv6 routers join the subnet's anycast address."""
    if address.interface.version == 4:
        yield from _routes4(address, primary or address, loopback)
    else:
        yield from _routes6(address, forwarding)


def _routes4(address: Address, primary: Address, loopback: bool) -> Iterator[Route]:
    held, device, because = address.interface, address.device, address.provenance
    source = primary.interface.ip
    yield Route(host_network(held.ip), device=device, type=RouteType.LOCAL, table=TABLE_LOCAL, scope="host",
                protocol="kernel", source=source, provenance=because)  # fmt: skip
    prefix = held.network
    if primary != address or prefix.prefixlen == 32 or int(prefix.network_address) >> 24 == 0:
        return
    if not address.noprefixroute:
        yield Route(prefix, device=device, type=RouteType.LOCAL if loopback else RouteType.UNICAST,
                    table=TABLE_LOCAL if loopback else TABLE_MAIN, scope="host" if loopback else "link",
                    protocol="kernel", source=source, provenance=because)  # fmt: skip
    if prefix.prefixlen < 31:
        yield Route(host_network(prefix.broadcast_address), device=device, type=RouteType.BROADCAST, table=TABLE_LOCAL,
                    scope="link", protocol="kernel", source=source, provenance=because)  # fmt: skip


def _routes6(address: Address, forwarding: bool) -> Iterator[Route]:
    held, device, because = address.interface, address.device, address.provenance
    yield Route(host_network(held.ip), device=device, type=RouteType.LOCAL, table=TABLE_LOCAL, protocol="kernel",
                provenance=because)  # fmt: skip
    prefix = held.network
    if not address.noprefixroute and not held.ip.is_loopback:
        yield Route(prefix, device=device, protocol="kernel", metric=256, provenance=because)
    if forwarding and prefix.prefixlen < 127 and not held.ip.is_loopback:
        yield Route(host_network(prefix.network_address), device=device, type=RouteType.ANYCAST, table=TABLE_LOCAL,
                    protocol="kernel", provenance=because)  # fmt: skip


def own_addresses(namespace: Namespace) -> frozenset[IPAddress] | None:
    """The addresses of devices, if nothing else makes an address local: table local answers LOCAL for each of these, and
    of IPv4 for no other outside 127.0.0.0/8. None where the table itself must be asked: somebody put routes into it, lo
    has a prefix of its own, or an address is also a broadcast or anycast one."""
    links = {link.name: link for link in namespace.links}
    shared: set[IPAddress] = set()
    found: set[IPAddress] = set()
    for address in namespace.addresses:
        holder, held = links.get(address.device), address.interface
        if holder is None or (held.version == 6 and not holder.up):
            continue
        if held.ip.is_loopback and held.network.is_loopback:
            continue
        whole = held.network.prefixlen == held.max_prefixlen
        if holder.kind is LinkKind.LOOPBACK and not whole:
            return None
        if held.ip.is_multicast or held.ip.is_unspecified or held.ip in _EVERYBODY:
            return None
        if not whole:
            shared.add(held.network.broadcast_address if held.version == 4 else held.network.network_address)
        found.add(held.ip)
    if not found.isdisjoint(shared) or Index(namespace.routes, _table_of).get(TABLE_LOCAL):
        return None
    return frozenset(found)


def _table_of(route: Route) -> int:
    return route.table


def effective_metric(route: Route) -> int:
    """IPv6 routes without a metric get 1024, except those of the local table that the kernel makes."""
    if route.metric or family_of(route.destination) is Family.IPV4:
        return route.metric
    return 0 if route.protocol == "kernel" and route.table == TABLE_LOCAL else USER_METRIC6
