"""Sets of ports and of addresses with exact algebra, so that answers are ranges and never samples.

``PortSet`` is a set of (protocol, port) pairs over the protocols that policies know; ``AddressSet`` a set of IPv4 and IPv6
addresses. Both are canonical (sorted, disjoint, merged ranges), hence equal exactly when they hold the same members.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from netsim.kube.validate.names import prefix
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of

PROTOCOLS = ("TCP", "UDP", "SCTP")
MIN_PORT, MAX_PORT = 1, 65535

Range = tuple[int, int]  # inclusive


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sorted, disjoint, with neighbours joined."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if low > high:
            continue
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)


def intersect(left: tuple[Range, ...], right: tuple[Range, ...]) -> tuple[Range, ...]:
    found: list[Range] = []
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            found.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def subtract(left: tuple[Range, ...], right: tuple[Range, ...]) -> tuple[Range, ...]:
    found: list[Range] = []
    j = 0
    for low, high in left:
        while j < len(right) and right[j][1] < low:
            j += 1
        k = j
        while k < len(right) and right[k][0] <= high:
            if right[k][0] > low:
                found.append((low, right[k][0] - 1))
            low = right[k][1] + 1
            k += 1
        if low <= high:
            found.append((low, high))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ranges per protocol, in the order of ``PROTOCOLS``."""

    tcp: tuple[Range, ...] = ()
    udp: tuple[Range, ...] = ()
    sctp: tuple[Range, ...] = ()

    @staticmethod
    def of(protocol: str, low: int = MIN_PORT, high: int | None = None) -> PortSet:
        """One protocol's port or range; ``of("TCP")`` is all of TCP."""
        if high is None:
            high = MAX_PORT if low == MIN_PORT else low
        return PortSet(**{protocol.lower(): merge([(low, high)])})

    @staticmethod
    def single(protocol: str, port: int) -> PortSet:
        return PortSet(**{protocol.lower(): ((port, port),)})

    def ranges(self, protocol: str) -> tuple[Range, ...]:
        found: tuple[Range, ...] = getattr(self, protocol.lower())
        return found

    def __or__(self, other: PortSet) -> PortSet:
        if not other:
            return self
        if not self:
            return other
        return PortSet(merge(self.tcp + other.tcp), merge(self.udp + other.udp), merge(self.sctp + other.sctp))

    def __and__(self, other: PortSet) -> PortSet:
        return PortSet(intersect(self.tcp, other.tcp), intersect(self.udp, other.udp), intersect(self.sctp, other.sctp))

    def __sub__(self, other: PortSet) -> PortSet:
        return PortSet(subtract(self.tcp, other.tcp), subtract(self.udp, other.udp), subtract(self.sctp, other.sctp))

    def __bool__(self) -> bool:
        return bool(self.tcp or self.udp or self.sctp)

    def __le__(self, other: PortSet) -> bool:
        return not self - other

    def holds(self, protocol: str, port: int) -> bool:
        return any(low <= port <= high for low, high in self.ranges(protocol))

    def items(self) -> Iterator[tuple[str, tuple[Range, ...]]]:
        """(protocol, ranges) for the protocols that are present."""
        for protocol in PROTOCOLS:
            found = self.ranges(protocol)
            if found:
                yield protocol, found

    def texts(self, protocol: str) -> list[str]:
        """``["80", "8000-8010"]``; ``["*"]`` for every port."""
        found = self.ranges(protocol)
        if found == ((MIN_PORT, MAX_PORT),):
            return ["*"]
        return [str(low) if low == high else f"{low}-{high}" for low, high in found]

    def __str__(self) -> str:
        if self == ALL_PORTS:
            return "all"
        return " ".join(f"{protocol}:{','.join(self.texts(protocol))}" for protocol, _ in self.items()) or "none"


_FULL = ((MIN_PORT, MAX_PORT),)
ALL_PORTS = PortSet(_FULL, _FULL, _FULL)
NO_PORTS = PortSet()


@dataclass(frozen=True, slots=True)
class AddressSet:
    """Address ranges as integers, per family."""

    v4: tuple[Range, ...] = ()
    v6: tuple[Range, ...] = ()

    @staticmethod
    @lru_cache(maxsize=1 << 14)
    def prefix(text: str) -> AddressSet:
        """The addresses of one CIDR or of a bare address; host bits are masked off as the API server's users expect."""
        return AddressSet.network(ipaddress.ip_network(text, strict=False))

    @staticmethod
    def cidr(text: str) -> AddressSet:
        """A CIDR of an object that the API server has let through: also with leading zeros, or IPv4 written as IPv6."""
        found = prefix(text)
        return AddressSet() if found is None else AddressSet.network(found)

    @staticmethod
    def network(network: IPNetwork) -> AddressSet:
        ranges = ((int(network.network_address), int(network.broadcast_address)),)
        return AddressSet(v4=ranges) if network.version == 4 else AddressSet(v6=ranges)

    def __or__(self, other: AddressSet) -> AddressSet:
        return AddressSet(merge(self.v4 + other.v4), merge(self.v6 + other.v6))

    def __and__(self, other: AddressSet) -> AddressSet:
        return AddressSet(intersect(self.v4, other.v4), intersect(self.v6, other.v6))

    def __sub__(self, other: AddressSet) -> AddressSet:
        return AddressSet(subtract(self.v4, other.v4), subtract(self.v6, other.v6))

    def __bool__(self) -> bool:
        return bool(self.v4 or self.v6)

    def of_family(self, family: Family) -> AddressSet:
        return AddressSet(v4=self.v4) if family is Family.IPV4 else AddressSet(v6=self.v6)

    def holds(self, address: IPAddress) -> bool:
        value = int(address)
        ranges = self.v4 if family_of(address) is Family.IPV4 else self.v6
        return any(low <= value <= high for low, high in ranges)

    def texts(self) -> list[str]:
        """As prefixes, IPv4 first."""
        found: list[str] = []
        for version, ranges in ((4, self.v4), (6, self.v6)):
            make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
            for low, high in ranges:
                found += [str(n) for n in ipaddress.summarize_address_range(make(low), make(high))]
        return found

    def __str__(self) -> str:
        return ", ".join(self.texts()) or "none"


ALL_ADDRESSES = AddressSet(v4=((0, 2**32 - 1),), v6=((0, 2**128 - 1),))
