"""Namespaces and devices as tables, added one at a time when a packet first needs them.

    NAMESPACE  what a namespace is asked for: which tables hang at its hooks, whether it tracks, its tunnels
    DEVICE     what a device is asked for: where its frames go, its MTU, its bridge
    facts      (device, next hop) → MAC, (bridge, MAC) → port, (segment, MAC) → device …; what is missing is faulted in

Numbers of namespaces are given out by name before they are added, so that a veth can point at a peer nobody has visited.
Neighbours and forwarding entries that many namespaces share (``netsim.linux.shared``) are kept once, as a *layer* of facts;
a namespace's own facts come before it, and what it leaves out of a layer is an own fact that says "nobody".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.addresses import Addresses
from netsim.compiled.hashmap import HashMap
from netsim.compiled.memory import aligned, longer, padded
from netsim.compiled.names import Names
from netsim.compiled.rows import Rows
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import FdbEntry, Neighbour
from netsim.linux.shared import runs_of
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress

TABLES = ("raw", "mangle", "nat", "filter", "security")
HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
RAW, MANGLE, NAT_TABLE, FILTER, SECURITY = range(5)

NAMESPACE = np.dtype(
    [
        ("flags", "u4"),
        ("tables", "u4", 10),  # number + 1 of the iptables tables, IPv4's five, then IPv6's
        ("hooks", "u4", 2),  # rows of ``hooks``: the chain at 5 * table + hook
        ("tunnels", "u4"),  # rows of TUNNEL
        ("port_low", "u2"),  # ip_local_port_range
        ("port_high", "u2"),
        ("settings", "u2"),  # row of FlowState.timeouts
        ("tunnel_count", "u2"),
    ]
)  # one cache line
PRESENT, TRACKS4, TRACKS6, BRIDGE_NF4, BRIDGE_NF6, OUTSIDE, LOOSE, LIBERAL, SEALED = 1, 2, 4, 8, 16, 32, 64, 128, 256
SECURITY_LATE4, SECURITY_LATE6 = 512, 1024  # table security comes behind source translation: iptables-nft's

DEVICE = np.dtype(
    [
        ("ns", "u4"),
        ("name", "u4"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("family", "u1"),  # of a tunnel's outer packets
        ("ttl", "u1"),  # of an IPIP tunnel's packets, 0: inherited
        ("mtu", "u4"),
        ("mac", "u4"),
        ("peer_ns", "u4"),
        ("peer_name", "u4"),
        ("master", "u4"),  # device number + 1
        (
            "segment",
            "u4",
        ),  # name number: of a physical device's segment; of the wire that a bridge and veths behind it are on
        ("segment_mtu", "u2"),  # no packet is longer than it can say
        ("port", "u2"),
        ("vni", "u4"),
        ("local", "u4"),  # handle of a tunnel's own address
        ("remote", "u4"),  # of the address at the other end of an IPIP tunnel, 0: the next hop
        ("under", "u4"),  # name of the device below a tunnel
        ("neighbour_layer", "u4"),
        ("fdb_layer", "u4"),
    ]
)
UP, HAIRPIN, NOARP, FRAMED, HAS_LOCAL, HAS_PEER = 1, 2, 4, 8, 16, 32
LOOPBACK, PHYSICAL, VETH, BRIDGE, VXLAN, IPIP, TUN, DUMMY = range(8)
_KINDS = {kind: number for number, kind in enumerate(LinkKind)}
assert [kind.name for kind in LinkKind] == ["LOOPBACK", "PHYSICAL", "VETH", "BRIDGE", "VXLAN", "IPIP", "TUN", "DUMMY"]

TUNNEL = padded(
    [
        ("device", "u4"),
        ("kind", "u4"),
        ("port", "u4"),
        ("vni", "u4"),
        ("family", "u4"),
        ("local", "u4"),
        ("remote", "u4"),
    ],
    32,
)
assert (NAMESPACE.itemsize, DEVICE.itemsize, TUNNEL.itemsize) == (64, 64, 32)

# Kinds of facts: what the number and the value are → what is known.
DEV = 1  # namespace, device name → device
NEIGHBOUR4, NEIGHBOUR6 = 2, 3  # device, next hop → MAC
NEIGHBOURS4, NEIGHBOURS6 = 4, 5  # layer, next hop → MAC
PORT = 6  # bridge device, MAC → port's device, or BRIDGE_UP
STATION = 7  # segment, MAC → device
PEER = 8  # VXLAN device, MAC → tunnel endpoint
PEERS = 9  # layer, MAC → tunnel endpoint
LEASE = 12  # TUN device, destination → whom flanneld sends it to
RESOLVED4, RESOLVED6 = 10, 11  # segment or wire, next hop → MAC: whoever asks there gets one answer
NOBODY, BRIDGE_UP = -2, -3

_NO_DEVICE = (0,) * len(DEVICE.fields or ())
_NO_TUNNEL = (0,) * 8
_NO_TABLES = [0] * 10
_LAYER_FROM = 32  # shorter runs are written out


class WorldTables(NamedTuple):
    namespace: Any
    device: Any
    tunnel: Any
    hooks: npt.NDArray[np.uint32]
    facts: Any  # rows of ``hashmap.FACT``


class World:
    """``tables`` is fresh after each ``add``."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self.addresses = addresses
        self.names = names
        self.namespaces: list[Namespace | None] = [None]
        self._numbers: dict[str, int] = {}
        self._names = [""]
        self._namespace = aligned(64, NAMESPACE)
        self._device = Rows(DEVICE)
        self._device.add([_NO_DEVICE])
        self._first = [0]  # device of each namespace: the others follow in the order of its links
        self._tunnel = aligned(16, TUNNEL)
        self._tunnels = 0
        self._hooks = np.zeros((1, 25), np.uint32)
        self._hook_rows: dict[tuple[int, ...], int] = {}
        self._sysctls: dict[tuple[tuple[str, str], ...], tuple[int, int, int]] = {}
        self._no_hooks = [self._hook_row((0,) * 25)] * 2
        self.facts = HashMap()
        self._layers: dict[tuple[int, str], int] = {}
        self._layer_devices: dict[tuple[int, str], str] = {}  # the one device that a shared run is about
        self._held: list[Any] = []  # keeps shared runs alive, whose identities are keys
        self.settings: list[tuple[tuple[float, ...], bool, bool]] = []
        self.edits = 0  # of rows that kernels may have read

    # -- numbers ------------------------------------------------------------------------------------------------------
    def number(self, name: str) -> int:
        """The number of a namespace, which need not have been added."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.namespaces)
            self.namespaces.append(None)
            self._names.append(name)
            self._first.append(0)
            if found >= len(self._namespace):
                self._namespace = longer(self._namespace, 2 * len(self._namespace))
        return found

    def name(self, number: int) -> str:
        return self._names[number]

    def has(self, number: int) -> bool:
        return bool(self._namespace[number]["flags"] & PRESENT)

    def visited(self, name: str) -> bool:
        """Has the namespace of this name been added?"""
        number = self._numbers.get(name)
        return number is not None and self.namespaces[number] is not None

    def all_visited(self) -> list[str]:
        """The names of all namespaces that have been added."""
        return [held.name for held in self.namespaces if held is not None]

    def seal(self, number: int) -> None:
        """The namespace has learnt a path MTU: what it sends and forwards is the interpreter's business from now on."""
        self._namespace[number]["flags"] |= SEALED
        self.edits += 1

    def device_number(self, namespace: str, device: str) -> int:
        """0 if the namespace has not been added, or has no such device."""
        number = self._numbers.get(namespace, 0)
        held = self.namespaces[number]
        for place, link in enumerate(held.links if held is not None else ()):
            if link.name == device:
                return self._first[number] + place
        return 0

    def device(self, number: int) -> tuple[str, Link]:
        """The namespace and the device behind a number."""
        ns = int(self._device.array[number]["ns"])
        held = self.namespaces[ns]
        assert held is not None
        return held.name, held.links[number - self._first[ns]]

    def join(self, device: int, wire: int) -> None:
        """Let a veth or bridge read what is ``RESOLVED`` on a wire, which goes by a name's number. 0: on none."""
        self._device.array[device]["segment"] = wire

    def leave_wires(self) -> None:
        """No veth or bridge is on a wire any more."""
        rows = self._device.array
        rows["segment"][(rows["kind"] == VETH) | (rows["kind"] == BRIDGE)] = 0

    @property
    def tables(self) -> WorldTables:
        return WorldTables(self._namespace, self._device.array, self._tunnel, self._hooks, self.facts.rows)

    # -- adding -------------------------------------------------------------------------------------------------------
    def add(
        self,
        namespace: Namespace,
        *,
        tracks: tuple[bool, bool],
        tables: dict[tuple[Family, str], tuple[int, dict[str, int]]],
        timeouts: tuple[tuple[float, ...], bool, bool],
        segment_mtus: dict[str, int],
    ) -> int:
        """Write a namespace's rows. ``tables``: of each iptables table its number and those of
        the chains at its hooks. ``timeouts``: (seconds by column, loose,
        liberal). ``tracks``: whether connection tracking is at work for IPv4 and IPv6."""
        number = self.number(namespace.name)
        self.namespaces[number] = namespace
        common, low, high = self._settings_of(namespace)
        flags = PRESENT | common | int(self._namespace[number]["flags"]) & SEALED
        flags |= TRACKS4 * tracks[0] | TRACKS6 * tracks[1]
        flags |= OUTSIDE * (namespace.name == "external")
        flags |= LOOSE * timeouts[1] | LIBERAL * timeouts[2]
        for family, late in ((Family.IPV4, SECURITY_LATE4), (Family.IPV6, SECURITY_LATE6)):
            flags |= late * (family in namespace.rulesets and namespace.rulesets[family].nft)
        held, hooks = self._entries(tables) if tables else (_NO_TABLES, self._no_hooks)
        if timeouts not in self.settings:
            self.settings.append(timeouts)
        mine = self._devices(number, namespace, segment_mtus)
        tunnels, count = self._tunnels_of(namespace, mine)
        self._namespace[number] = flags, held, hooks, tunnels, low, high, self.settings.index(timeouts), count
        if namespace.neighbours:
            self._neighbours(namespace.neighbours, mine)
        if namespace.fdb:
            self._peers(namespace.fdb, mine)
        return number

    def _settings_of(self, namespace: Namespace) -> tuple[int, int, int]:
        """What sysctls say: flags, the first and last port that the kernel picks."""
        key = tuple(sorted(namespace.sysctls.items())) if namespace.sysctls else ()
        found = self._sysctls.get(key)
        if found is None:
            sysctls = Sysctls(namespace.sysctls)
            flags = BRIDGE_NF4 * bool(sysctls.number("net.bridge.bridge-nf-call-iptables"))
            flags |= BRIDGE_NF6 * bool(sysctls.number("net.bridge.bridge-nf-call-ip6tables"))
            low, high = sysctls.text("net.ipv4.ip_local_port_range").split()
            found = self._sysctls[key] = flags, int(low), int(high)
        return found

    def _entries(self, tables: dict[tuple[Family, str], tuple[int, dict[str, int]]]) -> tuple[list[int], list[int]]:
        """The fields ``tables`` and ``hooks`` of NAMESPACE."""
        numbers = list(_NO_TABLES)
        chains = {family: [0] * 25 for family in Family}
        for (family, table), (its_number, hooks) in tables.items():
            numbers[(0 if family is Family.IPV4 else 5) + TABLES.index(table)] = its_number + 1
            for hook, chain in hooks.items():
                chains[family][5 * TABLES.index(table) + HOOKS.index(hook)] = chain
        return numbers, [self._hook_row(tuple(chains[family])) for family in (Family.IPV4, Family.IPV6)]

    # -- generations --------------------------------------------------------------------------------------------------
    def forget(self, name: str) -> bool:
        """A namespace is to be added anew as a whole: False if it has not been added so far."""
        number = self._numbers.get(name, 0)
        held = self.namespaces[number]
        if held is None:
            return False
        for link in held.links:  # those that there still are will have other numbers
            self.facts.set(DEV, number, self.names.number(link.name), NOBODY)
        self.namespaces[number] = None
        self._namespace[number]["flags"] &= SEALED
        return True

    def retable(self, name: str, family: Family, table: str, number: int) -> None:
        """A namespace's iptables table goes by another number. Its hooks enter the same chains."""
        row = self._namespace[self.number(name)]
        row["tables"][(0 if family is Family.IPV4 else 5) + TABLES.index(table)] = number + 1

    def _hook_row(self, chains: tuple[int, ...]) -> int:
        found = self._hook_rows.get(chains)
        if found is None:
            found = self._hook_rows[chains] = len(self._hook_rows)
            if found == len(self._hooks):
                self._hooks = np.concatenate((self._hooks, np.zeros_like(self._hooks)))
            self._hooks[found] = chains
        return found

    def _devices(self, number: int, namespace: Namespace, segment_mtus: dict[str, int]) -> dict[str, int]:
        first = self._first[number] = self._device.used
        mine = {link.name: first + place for place, link in enumerate(namespace.links)}
        names = self.names.number
        rows = []
        for link in namespace.links:
            name = names(link.name)
            flags = UP * link.up | HAIRPIN * link.hairpin | NOARP * link.noarp | FRAMED * (link.mac is not None)
            mac = names(link.mac) if link.mac else 0
            peer_ns = peer_name = segment = mtu = 0
            if link.peer is not None:
                peer_ns, peer_name = self.number(link.peer[0]), names(link.peer[1])
                flags |= HAS_PEER
            master = mine[link.master] + 1 if link.master in mine else 0
            if link.segment is not None:
                segment, mtu = names(link.segment), min(segment_mtus[link.segment], 0xFFFF)
            family, ttl, vni, port, *ends, own = self._tunnel_fields(link)
            flags |= HAS_LOCAL * own
            where = peer_ns, peer_name, master, segment, mtu
            rows.append(
                (number, name, _KINDS[link.kind], flags, family, ttl, link.mtu, mac, *where, port, vni, *ends, 0, 0)
            )
            self.facts.set(DEV, number, name, mine[link.name])
        self._device.add(rows)
        return mine

    def _tunnel_fields(self, link: Link) -> tuple[int, ...]:
        """``family``, ``ttl``, fields of DEVICE from ``vni`` to ``under``; and: has it its own address?."""
        if link.vxlan is not None:
            own = link.vxlan.local
            under = self.names.number(link.vxlan.device or "")
            family = 4 if own is None else own.version
            return family, 0, link.vxlan.vni, link.vxlan.port, self._handle(own), 0, under, own is not None
        if link.tunnel is not None:
            local, remote = self._handle(link.tunnel.local), self._handle(link.tunnel.remote)
            return 4, link.tunnel.ttl, 0, 0, local, remote, 0, local != 0
        if link.udp_tunnel is not None:
            return (
                link.udp_tunnel.local.version,
                0,
                0,
                link.udp_tunnel.port,
                self._handle(link.udp_tunnel.local),
                0,
                0,
                0,
            )
        return _NO_TUNNEL

    def _tunnels_of(self, namespace: Namespace, mine: dict[str, int]) -> tuple[int, int]:
        """Every device whose packets this namespace may unwrap, in the order in which the kernel would find them: the first
        row of TUNNEL, count."""
        found = [link for link in namespace.links if link.up and (link.vxlan or link.tunnel or link.udp_tunnel)]
        while self._tunnels + len(found) > len(self._tunnel):
            self._tunnel = longer(self._tunnel, 2 * len(self._tunnel))
        first = self._tunnels
        for link in found:
            _, _, vni, port, local, remote, _, _ = fields = self._tunnel_fields(link)
            self._tunnel[self._tunnels] = mine[link.name], _KINDS[link.kind], port, vni, fields[0], local, remote
            self._tunnels += 1
        return first, len(found)

    def _handle(self, address: IPAddress | None) -> int:
        return 0 if address is None else self.addresses.handle(address)

    def _neighbours(self, held: Sequence[Neighbour], mine: dict[str, int]) -> None:
        for run in runs_of(held):
            shared = self._layer(run.items, mine, "neighbour_layer", lambda items, layer: self._fill_macs(items, layer))
            chosen = [run.items[place] for place in run.without] if shared else run
            for entry in chosen:
                usable = entry.mac is not None and entry.state not in ("failed", "incomplete")
                device = mine.get(entry.device)
                if device is None or (not usable and not shared):
                    continue
                kind = NEIGHBOUR4 if entry.address.version == 4 else NEIGHBOUR6
                mac = NOBODY if shared else self.names.number(str(entry.mac))
                self.facts.set(kind, device, self.addresses.handle(entry.address), mac)

    def _fill_macs(self, items: Sequence[Neighbour], layer: int) -> None:
        for entry in items:
            if entry.mac is not None and entry.state not in ("failed", "incomplete"):
                kind = NEIGHBOURS4 if entry.address.version == 4 else NEIGHBOURS6
                self.facts.set(kind, layer, self.addresses.handle(entry.address), self.names.number(entry.mac))

    def _peers(self, held: Sequence[FdbEntry], mine: dict[str, int]) -> None:
        known: set[tuple[str, str]] = set()
        for run in runs_of(held):
            shared = self._layer(run.items, mine, "fdb_layer", lambda items, layer: self._fill_peers(items, layer))
            chosen = [run.items[place] for place in run.without] if shared else run
            for entry in chosen:
                device = mine.get(entry.device)
                if entry.destination is None or device is None or (entry.mac, entry.device) in known:
                    continue  # the first entry of an address counts
                known.add((entry.mac, entry.device))
                peer = NOBODY if shared else signed(self.addresses.handle(entry.destination))
                self.facts.set(PEER, device, self.names.number(entry.mac), peer)

    def _fill_peers(self, items: Sequence[FdbEntry], layer: int) -> None:
        for entry in reversed(items):
            if entry.destination is not None:
                peer = signed(self.addresses.handle(entry.destination))
                self.facts.set(PEERS, layer, self.names.number(entry.mac), peer)

    def _layer(self, items: tuple[Any, ...], mine: dict[str, int], field: str, fill: Any) -> bool:
        """Let the one device that a long run is about use the run's layer, filled when it is first met."""
        if len(items) < _LAYER_FROM:
            return False
        key = (id(items), field)
        name = self._layer_devices.get(key)
        if name is None:
            names = {entry.device for entry in items}
            name = self._layer_devices[key] = names.pop() if len(names) == 1 else ""
            self._held.append(items)
        device = mine.get(name)
        if device is None or self._device.array[device][field]:
            return False
        layer = self._layers.get(key)
        if layer is None:
            layer = self._layers[key] = len(self._layers) + 1
            fill(items, layer)
        self._device.array[device][field] = layer
        return True


def signed(handle: int) -> int:
    """A 32-bit handle as the facts keep it."""
    return handle - (1 << 32) if handle >= 1 << 31 else handle
