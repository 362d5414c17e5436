"""The whole network as one value: namespaces joined by veth pairs and L2 segments.

A ``Namespace`` is everything one network namespace of a Linux kernel holds. A ``Network`` answers for namespaces by name
and derives each one only when it is asked for: at 5,000 nodes a trace touches a handful.

Namespace names: ``node/NAME``, ``pod/NS/NAME``, ``router/NAME`` (an underlay router), ``external`` (a host outside).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from netsim.linux.link import Link
from netsim.linux.route import Address, FdbEntry, Neighbour, Route, RoutingRule
from netsim.packet.address import Family, IPAddress

if TYPE_CHECKING:
    from netsim.linux.ipset import IpSet
    from netsim.linux.netfilter.table import Ruleset


@dataclass(frozen=True)
class Namespace:
    """The state of one network namespace.

    ``routes`` are those that somebody configured; local, connected and broadcast routes follow from ``addresses``.
    ``routes``, ``neighbours`` and ``fdb`` are tuples, or stand for tuples of which other namespaces hold the most part too
    (``netsim.linux.shared``).
    ``rules`` empty means the kernel's three default rules. ``sysctls`` holds only values that differ from the kernel's
    defaults, by their dotted names (``net.ipv4.ip_forward``). ``rulesets`` holds the iptables tables of each family.
    """

    name: str
    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: Sequence[Route] = ()
    rules: tuple[RoutingRule, ...] = ()
    neighbours: Sequence[Neighbour] = ()
    fdb: Sequence[FdbEntry] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    rulesets: Mapping[Family, Ruleset] = field(default_factory=dict)
    ipsets: Mapping[str, IpSet] = field(default_factory=dict)
    node: str | None = None  # the node this namespace lives on


@dataclass(frozen=True)
class Renewal:
    """What distinguishes a network from the one ``before``, of which it is the next generation.

    ``namespaces``: those to be derived anew as a whole. ``chains`` says of a mapping of chains that are derived on look-up,
    in any other namespace, what it has become; and which names mean something else there than in its second argument, a
    mapping of the generation before with the same scope (the first may be older). The same mapping and no names where
    nothing has changed. ``alike``: mappings whose ``scope`` was equal have become equal ones.
    """

    before: weakref.ref[Network]
    namespaces: Collection[str]
    chains: Callable[[Any, Any], tuple[Any, Collection[str]]]
    alike: bool


class Network(Protocol):
    """What the engines walk. Implementations derive namespaces lazily and return the same object every time."""

    def namespace(self, name: str) -> Namespace:
        """The namespace called ``name``; KeyError if there is none."""

    def on_segment(self, segment: str, address: IPAddress) -> tuple[str, str] | None:
        """Who answers ARP or ND for ``address`` on an L2 segment: (namespace, device), or None."""

    def by_mac(self, segment: str, mac: str) -> tuple[str, str] | None:
        """The (namespace, device) with this MAC address on an L2 segment, or None."""

    def segment_mtu(self, segment: str) -> int:
        """The largest IP packet the segment carries."""


@dataclass(frozen=True)
class StaticNetwork:
    """A Network spelled out in full: for tests, and for the rules dumped from one real node."""

    namespaces: Mapping[str, Namespace]
    mtus: Mapping[str, int] = field(default_factory=dict)

    def namespace(self, name: str) -> Namespace:
        return self.namespaces[name]

    def on_segment(self, segment: str, address: IPAddress) -> tuple[str, str] | None:
        for name, namespace in self.namespaces.items():
            plugged = {link.name for link in namespace.links if link.segment == segment and link.up}
            for held in namespace.addresses:
                if held.device in plugged and held.interface.ip == address:
                    return name, held.device
        return None

    def by_mac(self, segment: str, mac: str) -> tuple[str, str] | None:
        for name, namespace in self.namespaces.items():
            for link in namespace.links:
                if link.segment == segment and link.mac == mac and link.up:
                    return name, link.name
        return None

    def segment_mtu(self, segment: str) -> int:
        return self.mtus.get(segment, 65535)
