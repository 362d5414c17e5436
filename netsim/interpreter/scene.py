"""What the walk looks up about one namespace, derived once per network and shared by every branch of a trace."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from netsim.linux.fib import Fib
from netsim.linux.kernel_made import own_addresses
from netsim.linux.link import Link, LinkKind
from netsim.linux.netfilter.base import Hook
from netsim.linux.network import Namespace, Network
from netsim.linux.route import FdbEntry, Neighbour
from netsim.linux.shared import Index
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress
from netsim.packet.model import Packet

if TYPE_CHECKING:
    from netsim.interpreter.hooks import HookFunction

# Whose checkentry calls nf_ct_netns_get; a nat table by itself does not, and neither does CT --notrack.
_TRACKING = frozenset(
    {"conntrack", "state", "connmark", "CONNMARK", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"}
)
_DEFRAGMENTING = frozenset({"TPROXY"})  # nf_defrag_ipv4_enable without conntrack


class Scene:
    """A namespace with its indexes: devices by name, FIB, sysctls, hook functions."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.name = namespace.name
        self.node = namespace.node
        self.links: dict[str, Link] = {link.name: link for link in namespace.links}
        self.sysctls = Sysctls(namespace.sysctls)
        self.hooks: dict[tuple[Family, Hook], tuple[HookFunction, ...]] = {}
        self._known: dict[tuple[Family, frozenset[str]], bool] = {}

    @cached_property
    def fib(self) -> Fib:
        return Fib(self.namespace)

    @cached_property
    def ports(self) -> dict[str, list[Link]]:
        """The ports of each bridge."""
        found: dict[str, list[Link]] = {}
        for link in self.namespace.links:
            if link.master is not None:
                found.setdefault(link.master, []).append(link)
        return found

    @cached_property
    def _neighbours(self) -> Index[tuple[str, IPAddress], Neighbour]:
        return Index(self.namespace.neighbours, _device_and_address)

    def neighbour(self, device: str, address: IPAddress) -> Neighbour | None:
        """The first entry for an address on a device."""
        return next(iter(self._neighbours.get((device, address))), None)

    @cached_property
    def _fdb(self) -> Index[str, FdbEntry]:
        return Index(self.namespace.fdb, _mac)

    def fdb(self, mac: str) -> list[FdbEntry]:
        """The forwarding entries for a MAC address."""
        return self._fdb.get(mac)

    @cached_property
    def vxlan_devices(self) -> list[Link]:
        return [link for link in self.namespace.links if link.kind is LinkKind.VXLAN]

    def link(self, device: str | None) -> Link | None:
        return self.links.get(device) if device is not None else None

    @cached_property
    def own(self) -> frozenset[IPAddress] | None:
        return own_addresses(self.namespace)

    def has_address(self, address: IPAddress) -> bool:
        """Whoever asks a segment asks all on it, and a routing table of each would take the room of everything else that is
        known of a pod: where the addresses say it all, none is made."""
        if self.own is not None and not address.is_loopback:
            if address in self.own:
                return True
            if address.version == 4:
                return False
        return self.fib.address_type(address) == "LOCAL"

    def addresses_on(self, device: str) -> list[IPAddress]:
        return [a.interface.ip for a in self.namespace.addresses if a.device == device]

    def tracks(self, family: Family) -> bool:
        """Is connection tracking at work? It registers its hooks when a rule needs it (``nf_ct_netns_get``), not before."""
        return self._uses(family, _TRACKING)

    def defragments(self, family: Family) -> bool:
        """Are fragments put together before any rule sees them? Connection tracking does so, and TPROXY without it."""
        return self.tracks(family) or self._uses(family, _DEFRAGMENTING)

    def _uses(self, family: Family, members: frozenset[str]) -> bool:
        known = self._known.get((family, members))
        if known is None:
            known = self._known[family, members] = any(name in members for name in self._members(family))
        return known

    def _members(self, family: Family) -> Iterator[str]:
        """The matches and targets of every rule. Built-in chains come first: where they settle the question, the
        Service chains of the nat table need not be derived."""
        ruleset = self.namespace.rulesets.get(family)
        tables = list(ruleset.tables.values()) if ruleset is not None else []
        first = (table.chains[name] for table in tables for name in table.builtin if name in table.chains)
        for chain in itertools.chain(first, (chain for table in tables for chain in table.chains.values())):
            for rule in chain.rules:
                yield from (match.name for match in rule.matches)
                if rule.target is not None:
                    yield rule.target.name


def _device_and_address(entry: Neighbour) -> tuple[str, IPAddress]:
    return entry.device, entry.address


def _mac(entry: FdbEntry) -> str:
    return entry.mac


# A namespace is a value and never changes: what was derived from it serves every trace. Kept by identity, for comparing
# whole namespaces would cost more than it saves.
_scenes: dict[int, Scene] = {}
_LIMIT = 512


def _scene_of(namespace: Namespace) -> Scene:
    held = _scenes.get(id(namespace))
    if held is not None and held.namespace is namespace:
        return held
    if len(_scenes) >= _LIMIT:
        _scenes.clear()
    scene = _scenes[id(namespace)] = Scene(namespace)
    return scene


class World:
    """The network with its scenes. ``network`` may be replaced by its next generation."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._scenes: dict[str, Scene] = {}

    def scene(self, name: str) -> Scene:
        namespace = self.network.namespace(name)
        scene = self._scenes.get(name)
        if scene is None or scene.namespace is not namespace:
            if len(self._scenes) >= _LIMIT:
                self._scenes.clear()
            scene = self._scenes[name] = _scene_of(namespace)
        return scene

    def find(self, name: str) -> Scene | None:
        """The scene, or None for a namespace that is not modelled (the far end of a dumped node's veth)."""
        try:
            return self.scene(name)
        except KeyError:
            return None


def flow_hash(packet: Packet, scene: Scene) -> int:
    """The multipath hash. The kernel keys it at random for every boot; this one is constant: CRC-32 of the addresses,
    with the ports if net.ipvN.fib_multipath_hash_policy is 1."""
    key = packet.src.packed + packet.dst.packed
    version = "ipv4" if packet.family is Family.IPV4 else "ipv6"
    if scene.sysctls.number(f"net.{version}.fib_multipath_hash_policy") == 1:
        key += bytes([packet.proto]) + f"{packet.sport}:{packet.dport}".encode()
    return zlib.crc32(key)
