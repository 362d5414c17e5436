"""Bridges with what is plugged into them: whoever asks there who has an address is told from one list.

A packet for a neighbour behind a bridge needs two facts, the MAC address and the port that leads to it. Asked one
by one, each makes the interpreter look at every station again. A *wire* is a bridge whose ports are veths to stations that
say all they answer for: its facts are listed at once, when the first is asked for, and the devices on it share them.

    pod eth0 ── veth ─┐
    pod eth0 ── veth ─┼─ cni0      (wire, address) → MAC     (cni0, MAC) → port
    pod eth0 ── veth ─┘

An address that several stations answer for, and any that none does, is left to ``interpreter.neighbours``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled import world as wd
from netsim.compiled.addresses import Addresses
from netsim.compiled.hashmap import MISSING
from netsim.compiled.names import Names
from netsim.compiled.world import World as Tables
from netsim.interpreter.ingress import is_multicast_mac
from netsim.interpreter.neighbours import STATIONS, answered
from netsim.interpreter.scene import Scene, World
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.packet.address import IPAddress

Place = tuple[str, str]  # namespace and name of a bridge
Fact = tuple[int, int, int, int]  # kind, number, value; what is known


class Station(NamedTuple):
    """A device that hears what is sent on a wire, and the port that leads to it (None: the bridge itself)."""

    space: Namespace
    link: Link
    port: Link | None
    answers: frozenset[IPAddress]


class Wires:
    """``add`` sees that a namespace is in the tables."""

    def __init__(
        self, scenes: World, addresses: Addresses, names: Names, tables: Tables, add: Callable[[str], int]
    ) -> None:
        self.scenes = scenes
        self.addresses = addresses
        self.names = names
        self.tables = tables
        self.add = add
        self._listed: dict[Place, bool] = {}  # False: looked at, and no wire

    def forget(self) -> None:
        """Facts have been forgotten, and other devices may be plugged in."""
        self._listed.clear()
        self.tables.leave_wires()

    def join(self, space: Namespace) -> None:
        """A namespace has been added to the tables: its devices read the lists of the wires that they are on."""
        for link in space.links if self._listed else ():
            at = self._bridge_of(space, link)
            if at is not None and self._listed.get(at):
                self._join(space, link, answered(space, link) or frozenset(), self._number(at))

    def list_wire_of(self, space: Namespace, link: Link) -> bool:
        """List the wire that a device is on; False if it is on none, or that has been done before."""
        at = self._bridge_of(space, link)
        if at is None or at in self._listed:
            return False
        scene = self.scenes.scene(at[0])
        found = _stations(self.scenes, scene, scene.links[at[1]])
        self._listed[at] = found is not None
        if found is None:
            return False
        self.add(scene.name)
        wire = self._number(at)
        self._supply([*self._neighbours(wire, found), *self._ports(scene, found)])
        for station in found:
            self._join(station.space, station.link, station.answers, wire)
        self.tables.edits += 1  # of devices that packets have passed
        return True

    def _bridge_of(self, space: Namespace, link: Link) -> Place | None:
        """The bridge that a device is, or that its far end is a port of."""
        if not _ends_here(link):
            return None
        if link.kind is LinkKind.BRIDGE:
            return space.name, link.name
        if link.kind is not LinkKind.VETH or link.peer is None:
            return None
        scene = self.scenes.find(link.peer[0])
        far = scene.link(link.peer[1]) if scene is not None else None
        if scene is None or far is None or not far.up or far.peer != (space.name, link.name):
            return None
        bridge = scene.link(far.master)
        if bridge is None or bridge.kind is not LinkKind.BRIDGE or not _ends_here(bridge):
            return None
        return scene.name, bridge.name

    def _number(self, at: Place) -> int:
        return self.names.number(f"bridge {at[1]} of {at[0]}")

    def _join(self, space: Namespace, link: Link, answers: Iterable[IPAddress], wire: int) -> None:
        device = self.tables.device_number(space.name, link.name)
        if not device or link.mac is None:
            return
        self.tables.join(device, wire)
        facts = self.tables.facts
        for address in answers:  # what is listed as its own, nobody else answers for
            handle = self.addresses.handle(address)
            if facts.get(_resolved(address), wire, handle) != MISSING:
                kind = _neighbour(address)
                if facts.get(kind, device, handle) == MISSING:
                    facts.set(kind, device, handle, wd.NOBODY)

    def _neighbours(self, wire: int, found: list[Station]) -> Iterable[Fact]:
        answering = [station for station in found if station.link.mac is not None]
        count = Counter(address for station in answering for address in station.answers)
        for station in answering:
            mac = self.names.number(str(station.link.mac))
            for address in station.answers:
                if count[address] == 1:
                    yield _resolved(address), wire, self.addresses.handle(address), mac

    def _ports(self, scene: Scene, found: list[Station]) -> Iterable[Fact]:
        bridge = found[0].link.name
        number = self.tables.device_number(scene.name, bridge)
        ports = scene.ports.get(bridge, ())
        own = {found[0].link.mac, *(port.mac for port in ports)}
        known = {port.name for port in ports}
        for station in found[1:]:
            mac = station.link.mac
            if mac is None or mac in own or is_multicast_mac(mac) or station.port is None:
                continue
            own.add(mac)  # the first port counts
            if not any(entry.device in known for entry in scene.fdb(mac)):
                port = self.tables.device_number(scene.name, station.port.name)
                yield wd.PORT, number, self.names.number(mac), port

    def _supply(self, facts: list[Fact]) -> None:
        held: npt.NDArray[np.int64] = np.array(facts, np.int64).reshape(-1, 4)
        kind, number, value = held[:, :3].T.astype(np.uint64)
        self.tables.facts.supply(kind << np.uint64(56) | number << np.uint64(32) | value, held[:, 3].astype(np.int32))


def _ends_here(link: Link) -> bool:
    """Does it work, and is it nothing's port and on no segment?"""
    return link.up and link.master is None and link.segment is None


def _neighbour(address: IPAddress) -> int:
    return wd.NEIGHBOUR4 if address.version == 4 else wd.NEIGHBOUR6


def _resolved(address: IPAddress) -> int:
    return wd.RESOLVED4 if address.version == 4 else wd.RESOLVED6


def _stations(world: World, scene: Scene, bridge: Link) -> list[Station] | None:
    """The bridge and what hears it, in the order of its ports; None if that is not to be listed."""
    ports = scene.ports.get(bridge.name, ())
    own = answered(scene.namespace, bridge)
    if own is None or len(ports) + 4 > STATIONS or any(port.kind is not LinkKind.VETH for port in ports):
        return None
    found = [Station(scene.namespace, bridge, None, own)]
    for port in ports:
        far = _far_end(world, port)
        if far is None or not port.up or not far[1].up:
            continue
        space, link = far
        answers = answered(space, link)
        if answers is None or link.master is not None or link.peer != (scene.name, port.name):
            return None
        found.append(Station(space, link, port, answers))
    return found


def _far_end(world: World, port: Link) -> tuple[Namespace, Link] | None:
    if port.peer is None:
        return None
    try:
        space = world.network.namespace(port.peer[0])
    except KeyError:
        return None
    link = next((one for one in space.links if one.name == port.peer[1]), None)
    return None if link is None else (space, link)
