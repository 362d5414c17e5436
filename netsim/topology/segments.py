"""Which subnet each address of a node lies in, and which nodes share a layer-2 segment.

Node objects state addresses without prefix lengths. Each length is, in this order: what Calico annotated on the node; the
annotated subnet of another node that holds the address; a default for all, /24 and /64, shortened as far as the nodes'
addresses show that it must be. Nodes with a subnet in common, in either family, are on one segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netsim.errors import InputError, Problem
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Node
from netsim.packet.address import Family, IPAddress, IPInterface, IPNetwork, family_of, interface, ip

_ANNOTATION = {Family.IPV4: "projectcalico.org/IPv4Address", Family.IPV6: "projectcalico.org/IPv6Address"}
_DEFAULT_LENGTH = {Family.IPV4: 24, Family.IPV6: 64}
_SHORTEST = 8


@dataclass(frozen=True)
class Wire:
    """The node's external interface: its addresses with prefix lengths, and the segment it is plugged into."""

    interfaces: tuple[IPInterface, ...]
    segment: str

    @property
    def subnet(self) -> IPNetwork:
        """The one that decides what is on-link for IPv4; IPv6's where there is no IPv4."""
        return min((one.network for one in self.interfaces), key=lambda n: n.version)


def read_wires(cluster: Cluster) -> dict[str, Wire]:
    """Node → wire, by node name. InputError with every node that has no usable address or another's."""
    held, problems = _addresses(cluster)
    if problems:
        raise InputError(problems)
    stated = {node: _stated(cluster.nodes[node], own) for node, own in held.items()}
    annotated = {(one.version, one.network) for own in stated.values() for one in own.values()}
    lengths = sorted({one.prefixlen for _, one in annotated}, reverse=True)
    unknown = [a for node, own in held.items() for a in own if a not in stated[node]]
    default = _default_lengths(cluster, held, unknown)

    def placed(node: str, address: IPAddress) -> IPInterface:
        if address in stated[node]:
            return stated[node][address]
        for length in lengths:
            if length <= address.max_prefixlen:
                found = interface(f"{address}/{length}")
                if (address.version, found.network) in annotated and _fits(
                    [int(address)], found.max_prefixlen - length
                ):
                    return found
        return interface(f"{address}/{default[family_of(address)]}")

    interfaces = {node: tuple(placed(node, address) for address in own) for node, own in held.items()}
    segments = _segments(interfaces)
    return {node: Wire(own, segments[own[0].network]) for node, own in interfaces.items()}


def _addresses(cluster: Cluster) -> tuple[dict[str, list[IPAddress]], list[Problem]]:
    """Node → its InternalIPs in their order, by node name."""
    found: dict[str, list[IPAddress]] = {}
    owner: dict[IPAddress, str] = {}
    problems: list[Problem] = []
    for name in sorted(cluster.nodes):
        node, own = cluster.nodes[name], found.setdefault(name, [])
        said = f'Node "{name}"'
        internal = [(i, a.address) for i, a in enumerate(node.status.addresses) if a.type == "InternalIP"]
        for index, text in internal:
            field = f"status.addresses[{index}].address"
            try:
                address = ip(text)
            except ValueError:
                why = f'Invalid value: "{text}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
                problems.append(Problem(why, node.source, said, field))
                continue
            other = owner.setdefault(address, name)
            if other != name:
                problems.append(Problem(f"address {address} is also that of node {other}", node.source, said, field))
            elif address not in own:
                own.append(address)
        if not internal:
            why = "Required value: a node needs an address of type InternalIP to be reached"
            problems.append(Problem(why, node.source, said, "status.addresses"))
    return found, problems


def _stated(node: Node, addresses: Iterable[IPAddress]) -> dict[IPAddress, IPInterface]:
    """The node's addresses whose annotation gives a prefix length."""
    found: dict[IPAddress, IPInterface] = {}
    for address in addresses:
        text = node.metadata.annotations.get(_ANNOTATION[family_of(address)], "")
        try:
            if "/" in text and interface(text).ip == address:
                found[address] = interface(text)
        except ValueError:
            pass  # an annotation of somebody else's that is no address says nothing about the subnet
    return found


def _default_lengths(
    cluster: Cluster, held: Mapping[str, Iterable[IPAddress]], unknown: Iterable[IPAddress]
) -> dict[Family, int]:
    """The prefix length for addresses that nothing states one for: /24 and /64, or the longest shorter one with which no
    node has its subnet's network or broadcast address and every subnet has an address left for a router."""
    found = dict(_DEFAULT_LENGTH)
    every = [address for own in held.values() for address in own]
    for family in sorted({family_of(address) for address in unknown}):
        own = {int(address) for address in every if family_of(address) is family}
        fitting = (n for n in range(_DEFAULT_LENGTH[family], _SHORTEST - 1, -1) if _fits(own, family.bits - n))
        found[family] = next(fitting, _DEFAULT_LENGTH[family])
    if found != _DEFAULT_LENGTH:
        lengths = f"/{found[Family.IPV4]} (IPv4) and /{found[Family.IPV6]} (IPv6)"
        cluster.assumptions.append(f"nodes are in subnets of {lengths}: their addresses say so")
    return found


def _fits(addresses: Iterable[int], host: int) -> bool:
    ends = {0, (1 << host) - 1}
    used: dict[int, int] = {}
    for value in addresses:
        if value & ((1 << host) - 1) in ends:
            return False
        used[value >> host] = used.get(value >> host, 0) + 1
    return all(count < (1 << host) - 2 for count in used.values())


def _segments(interfaces: Mapping[str, tuple[IPInterface, ...]]) -> dict[IPNetwork, str]:
    """Subnet → segment: subnets that one node has, and subnets that lie in each other, are on the same wire. A segment is
    called after the first of its subnets."""
    parent: dict[IPNetwork, IPNetwork] = {one.network: one.network for own in interfaces.values() for one in own}

    def root(subnet: IPNetwork) -> IPNetwork:
        while parent[subnet] != subnet:
            parent[subnet] = subnet = parent[parent[subnet]]
        return subnet

    def join(one: IPNetwork, other: IPNetwork) -> None:
        low, high = sorted((root(one), root(other)), key=_order)
        parent[high] = low

    for own in interfaces.values():
        for one in own[1:]:
            join(own[0].network, one.network)
    for inner, outer in _nested(tuple(parent)):
        join(inner, outer)
    return {subnet: str(root(subnet)) for subnet in parent}


def _nested(subnets: Iterable[IPNetwork]) -> Iterator[tuple[IPNetwork, IPNetwork]]:
    known = set(subnets)
    lengths = {version: {n.prefixlen for n in known if n.version == version} for version in (4, 6)}
    for subnet in known:
        for length in lengths[subnet.version]:
            if length < subnet.prefixlen and (outer := subnet.supernet(new_prefix=length)) in known:
                yield subnet, outer


def _order(subnet: IPNetwork) -> tuple[int, int, int]:
    return subnet.version, int(subnet.network_address), subnet.prefixlen
