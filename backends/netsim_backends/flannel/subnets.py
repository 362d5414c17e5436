"""The etcd subnet manager: a subnet of the Network for each node (flannel v0.28, pkg/subnet and pkg/subnet/etcd).

flannel collects up to a hundred free subnets from SubnetMin upwards and takes one at random. ``candidates`` is that set;
the pick here is always its first, nodes in name order, so that the same cluster always looks the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netsim.packet.address import Family, IPAddress, IPNetwork, family_of
from netsim_backends.flannel.config import SubnetOptions

_BAG = 100
# family → (longest SubnetLen, default, longest Network for that default, smallest useful Network)
_LIMITS = {Family.IPV4: (30, 24, 22, 28), Family.IPV6: (126, 64, 62, 124)}


class SubnetError(ValueError):
    """What flannel says about a range it cannot use, or one that is used up."""


@dataclass(frozen=True)
class SubnetRange:
    """The subnets of ``length`` from ``low`` to ``high``; empty when low > high, which flannel does not refuse."""

    length: int
    low: IPAddress
    high: IPAddress

    def __iter__(self) -> Iterator[IPNetwork]:
        size = 1 << (self.low.max_prefixlen - self.length)
        for start in range(int(self.low), int(self.high) + 1, size):
            yield _network(self.low.version, start, self.length)

    def __contains__(self, subnet: IPNetwork) -> bool:
        base = subnet.network_address
        return (
            base.version == self.low.version and subnet.prefixlen == self.length and self.low <= base <= self.high  # type: ignore[operator]
        )


def _network(version: int, start: int, length: int) -> IPNetwork:
    """By version: a small number alone would be taken for IPv4."""
    return ipaddress.IPv4Network((start, length)) if version == 4 else ipaddress.IPv6Network((start, length))


def subnet_range(network: IPNetwork, options: SubnetOptions) -> SubnetRange:
    """The network check that the etcd manager makes before it starts; SubnetError with the first thing wrong."""
    longest, default, roomy, smallest = _LIMITS[family_of(network)]
    length = options.length
    if length is not None:
        if length > longest:
            raise SubnetError(f"SubnetLen must be less than /{longest + 1}")
        if length < network.prefixlen + 2:
            raise SubnetError("network must be able to accommodate at least four subnets")
    else:
        if network.prefixlen > smallest:
            raise SubnetError(f"network is too small. Minimum useful network prefix is /{smallest}")
        length = default if network.prefixlen <= roomy else network.prefixlen + 2
    size = 1 << (network.max_prefixlen - length)
    low, high = options.low, options.high
    if low is None:
        low = network.network_address + size  # the first subnet is left out on purpose
    elif low not in network:
        raise SubnetError("SubnetMin is not in the range of the Network")
    if high is None:
        high = network.network_address + (network.num_addresses - size)
    elif high not in network:
        raise SubnetError("SubnetMax is not in the range of the Network")
    for name, bound in (("SubnetMin", low), ("SubnetMax", high)):
        if int(bound) % size:
            raise SubnetError(f"{name} is not on a SubnetLen boundary: {bound}")
    return SubnetRange(length, low, high)


def candidates(subnets: SubnetRange, leased: Sequence[IPNetwork]) -> list[IPNetwork]:
    """What flannel draws from: the first hundred subnets that overlap no lease."""
    found: list[IPNetwork] = []
    for subnet in subnets:
        if not any(subnet.overlaps(held) for held in leased if held.version == subnet.version):
            found.append(subnet)
            if len(found) == _BAG:
                break
    return found


def allocate(subnets: SubnetRange, nodes: Iterable[str]) -> dict[str, IPNetwork]:
    """A subnet for every node, in name order; SubnetError when there are more nodes than subnets."""
    free = iter(subnets)  # every lease is one of these subnets, so the first candidate is the next one
    given: dict[str, IPNetwork] = {}
    for node in sorted(nodes):
        subnet = next(free, None)
        if subnet is None:
            raise SubnetError("out of subnets")
        given[node] = subnet
    return given
