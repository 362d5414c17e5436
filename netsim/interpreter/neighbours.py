"""Who answers ARP or neighbour discovery: static entries, then the stations on the device's L2 domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netsim.interpreter.scene import Scene, World
from netsim.linux.kernel_made import own_addresses
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.provenance import Provenance
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import IPAddress

STATIONS = 4096  # the most devices that one search visits


@dataclass(frozen=True, slots=True)
class Found:
    mac: str
    text: str
    provenance: Provenance | None = None


def resolve(world: World, scene: Scene, link: Link, next_hop: IPAddress) -> Found | None:
    """The next hop's MAC address on ``link``, as ``ip neigh`` would show it; None when nobody answers."""
    entry = scene.neighbour(link.name, next_hop)
    if entry is not None and entry.mac is not None and entry.state not in ("failed", "incomplete"):
        text = f"{next_hop} dev {link.name} lladdr {entry.mac} {entry.state.upper()}"
        return Found(entry.mac, text, entry.provenance)
    if link.kind is LinkKind.VXLAN:
        return None  # ARP would need an FDB entry for the broadcast address
    if link.segment is not None:
        there = world.network.on_segment(link.segment, next_hop)
        if there is not None:
            mac = world.scene(there[0]).links[there[1]].mac
            return Found(mac, f"{next_hop} dev {link.name} lladdr {mac} REACHABLE") if mac else None
    for other, station in stations(world, scene, link):
        if station.mac is not None and _answers(other, station, next_hop):
            return Found(station.mac, f"{next_hop} dev {link.name} lladdr {station.mac} REACHABLE")
    return None


def _answers(scene: Scene, station: Link, address: IPAddress) -> bool:
    """``arp_process``: any local address is answered for (arp_ignore=0); with proxy_arp also what is routed elsewhere."""
    if address.is_loopback:
        return False
    if scene.has_address(address):
        if address.version == 4 and scene.sysctls.device("arp_ignore", station.name) == 0:
            return True
        return address in scene.addresses_on(station.name)
    if address.version == 4 and scene.sysctls.device("proxy_arp", station.name) and scene.sysctls.forwarding(4):
        found = scene.fib.lookup(address, iif=station.name)
        return found.ok and found.device != station.name
    return False


def answered(space: Namespace, station: Link) -> frozenset[IPAddress] | None:
    """All addresses that ``_answers`` says yes to; None where it must be asked about each (proxy ARP, rarer ways to have an
    address)."""
    own = own_addresses(space)
    if own is None:
        return None
    sysctls = Sysctls(space.sysctls)
    if sysctls.device("proxy_arp", station.name) and sysctls.forwarding(4):
        return None
    if len(own) == 1 == len(space.addresses) and space.addresses[0].device == station.name:
        return own  # a pod
    here = {one.interface.ip for one in space.addresses if one.device == station.name}
    any_device = sysctls.device("arp_ignore", station.name) == 0
    return frozenset(one for one in own if one in here or (any_device and one.version == 4))


def stations(world: World, scene: Scene, link: Link) -> Iterator[tuple[Scene, Link]]:
    """The devices that hear a broadcast sent on ``link``: across veth pairs and bridges."""
    seen: set[tuple[str, str]] = {(scene.name, link.name)}
    waiting = list(_beyond(world, scene, link))
    while waiting and len(seen) < STATIONS:
        at, heard = waiting.pop(0)
        if (at.name, heard.name) in seen or not heard.up:
            continue
        seen.add((at.name, heard.name))
        bridge = at.link(heard.master)
        if bridge is None:
            yield at, heard
            continue
        if (at.name, bridge.name) not in seen:
            seen.add((at.name, bridge.name))
            if bridge.up:
                yield at, bridge
        for port in at.ports.get(bridge.name, ()):
            if (at.name, port.name) not in seen:
                seen.add((at.name, port.name))
                waiting.extend(_beyond(world, at, port))


def _beyond(world: World, scene: Scene, link: Link) -> Iterator[tuple[Scene, Link]]:
    """What the far end of a device is plugged into; for a bridge, the far ends of all its ports."""
    if not link.up:
        return
    if link.kind is LinkKind.BRIDGE:
        for port in scene.ports.get(link.name, ()):
            yield from _beyond(world, scene, port)
    elif link.peer is not None:
        other = world.find(link.peer[0])
        far = other.link(link.peer[1]) if other is not None else None
        if other is not None and far is not None:
            yield other, far


def port_towards(world: World, scene: Scene, bridge: Link, mac: str) -> Link | None:
    """The bridge port behind which ``mac`` lives: an FDB entry, or what the bridge would have learnt."""
    ports = [port for port in scene.ports.get(bridge.name, ()) if port.up]
    by_name = {port.name: port for port in ports}
    for entry in scene.fdb(mac):
        if entry.device in by_name:
            return by_name[entry.device]
    for port in ports:
        if port.segment is not None and world.network.by_mac(port.segment, mac) is not None:
            return port
        if any(station.mac == mac for _, station in stations(world, scene, port)):
            return port
    return None
