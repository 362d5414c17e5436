"""What the walk looks up about one namespace, derived once per network and shared by every branch of a trace."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import TYPE_CHECKING

from netsim.linux.fib import Fib
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

_CONNTRACK_MATCHES = frozenset({"conntrack", "state", "connmark", "connlimit", "connbytes", "helper", "connlabel"})
_CONNTRACK_TARGETS = frozenset({"CT", "CONNMARK", "CONNSECMARK", "SYNPROXY"})


class Scene:
    """A namespace with its indexes: devices by name, FIB, sysctls, hook functions."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.name = namespace.name
        self.node = namespace.node
        self.links: dict[str, Link] = {link.name: link for link in namespace.links}
        self.sysctls = Sysctls(namespace.sysctls)
        self.hooks: dict[tuple[Family, Hook], tuple[HookFunction, ...]] = {}
        self._tracks: dict[Family, bool] = {}

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

    def has_address(self, address: IPAddress) -> bool:
        return self.fib.address_type(address) == "LOCAL"

    def addresses_on(self, device: str) -> list[IPAddress]:
        return [a.interface.ip for a in self.namespace.addresses if a.device == device]

    def tracks(self, family: Family) -> bool:
        """Is connection tracking at work? It registers its hooks when a nat table or a rule needs it
        (``nf_ct_netns_get``), not before."""
        known = self._tracks.get(family)
        if known is None:
            known = self._tracks[family] = self._uses_conntrack(family)
        return known

    def _uses_conntrack(self, family: Family) -> bool:
        ruleset = self.namespace.rulesets.get(family)
        if ruleset is None:
            return False
        if "nat" in ruleset.tables:
            return True
        return any(
            any(match.name in _CONNTRACK_MATCHES for match in rule.matches)
            or (rule.target is not None and rule.target.name in _CONNTRACK_TARGETS)
            for table in ruleset.tables.values()
            for chain in table.chains.values()
            for rule in chain.rules
        )


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
    """The network with its scenes; made once for a trace."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._scenes: dict[str, Scene] = {}

    def scene(self, name: str) -> Scene:
        scene = self._scenes.get(name)
        if scene is None:
            scene = self._scenes[name] = _scene_of(self.network.namespace(name))
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
