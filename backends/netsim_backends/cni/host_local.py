"""host-local: the address management of the CNI reference plugins (containernetworking/plugins v1.9, ipam/host-local).

A range set hands out one address after the other, starting behind the one it gave out last, so that a freed address is
not used again before all others had their turn. The state here is two values: the addresses held, and the last one given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netsim.packet.address import IPAddress, IPNetwork

_LONGEST = {4: 30, 6: 126}


class RangeError(ValueError):
    """A range that host-local refuses, or one with nothing left; in its words."""


@dataclass(frozen=True)
class Range:
    """A canonical range: every part decided."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.subnet.version and self.start <= address <= self.end  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: Range) -> bool:
        if self.subnet.version != other.subnet.version:
            return False
        return other.start in self or other.end in self or self.start in other or self.end in other


def last_address(subnet: IPNetwork) -> IPAddress:
    """The last usable address: IPv4's broadcast address is left out, IPv6 has none."""
    return subnet.broadcast_address - 1 if subnet.version == 4 else subnet.broadcast_address


def canonical(
    subnet: IPNetwork,
    start: IPAddress | None = None,
    end: IPAddress | None = None,
    gateway: IPAddress | None = None,
) -> Range:
    """Fill in the defaults and check; RangeError as host-local words it. (Host bits are the business of whoever parses.)"""
    if subnet.prefixlen > _LONGEST[subnet.version]:
        raise RangeError(f"Network {subnet} too small to allocate from")
    first, last = subnet.network_address + 1, last_address(subnet)
    made = Range(subnet, start or first, end or last, gateway or first)
    # A start behind the end is told as a start outside: the end is what bounds it.
    if start is not None and (start not in subnet or (end is not None and start > end)):  # type: ignore[operator]
        raise RangeError(f"RangeStart {start} not in network {subnet}")
    if end is not None and (end not in subnet or end < made.start):  # type: ignore[operator]
        raise RangeError(f"RangeEnd {end} not in network {subnet}")
    return made


def check_disjoint(sets: Sequence[Sequence[Range]]) -> None:
    """No range may overlap another, within its set or across sets."""
    flat = [one for ranges in sets for one in ranges]
    for index, one in enumerate(flat):
        for other in flat[index + 1 :]:
            if one.overlaps(other):
                raise RangeError(f"range {one} overlaps with {other}")


class RangeSet:
    """Ranges allocated as one, with what host-local keeps on disk about them."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        check_disjoint([ranges])
        self.ranges = tuple(ranges)
        self.last: IPAddress | None = None
        self.held: dict[IPAddress, str] = {}

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.ranges)

    def __contains__(self, address: IPAddress) -> bool:
        return any(address in one for one in self.ranges)

    def candidates(self) -> Iterator[tuple[IPAddress, Range]]:
        """Every address that is no gateway, once, in the order in which host-local tries them."""
        index, start = 0, self.ranges[0].start
        for at, one in enumerate(self.ranges):
            if self.last is not None and self.last in one:
                index, start = self._following(at, self.last)
        address, first = start, start
        while True:
            one = self.ranges[index]
            if address != one.gateway:
                yield address, one
            index, address = self._following(index, address)
            if address == first:
                return

    def _following(self, index: int, address: IPAddress) -> tuple[int, IPAddress]:
        if address != self.ranges[index].end:
            return index, address + 1
        index = (index + 1) % len(self.ranges)
        return index, self.ranges[index].start

    def allocate(self, owner: str) -> tuple[IPAddress, Range]:
        """The next free address for ``owner``, with its range."""
        for address, holder in self.held.items():
            if holder == owner:
                raise RangeError(f"{address} has been allocated to {owner}, duplicate allocation is not allowed")
        for address, one in self.candidates():
            if address not in self.held:
                self.held[address] = owner
                self.last = address
                return address, one
        raise RangeError(f"no IP addresses available in range set: {self}")

    def reserve(self, address: IPAddress, owner: str) -> Range:
        """A requested address: it must lie in a range, be no gateway and be free. It becomes the last one given."""
        found = next((one for one in self.ranges if address in one), None)
        if found is None:
            raise RangeError(f"requested IP address {address} is not in range set {self}")
        if address == found.gateway:
            raise RangeError(f"requested ip {address} is subnet's gateway")
        if address in self.held:
            raise RangeError(f"requested IP address {address} is not available in range set {self}")
        self.held[address] = owner
        self.last = address
        return found

    def release(self, owner: str) -> None:
        """Gives the owner's addresses back; the last one given stays where it was."""
        self.held = {address: holder for address, holder in self.held.items() if holder != owner}
