"""From a decision to the wire: OUTPUT, POSTROUTING, fragmentation, neighbours and devices.

    local_out ─▶ OUTPUT ─▶ (reroute) ─▶ output ─▶ POSTROUTING ─▶ finish ─▶ neighbour ─▶ transmit ─▶ veth, segment, tunnel
    forward  ──────────────────────────────▲                                             │
                                                                 lo, bridge ◀────────────┘

Models ``ip_local_out``, ``ip_output``, ``ip_fragment``, ``neigh_resolve_output`` and IPv6's twins (Linux 6.x).
"""

from __future__ import annotations

from dataclasses import replace

from netsim.interpreter import bridge, fragments, ingress, replies, tunnels
from netsim.interpreter.explain import lookup_text
from netsim.interpreter.hooks import run_hooks
from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.neighbours import resolve
from netsim.interpreter.outcome import Disposition, StepKind
from netsim.interpreter.scene import Scene, flow_hash
from netsim.linux.fib import NO_ROUTE, FibResult
from netsim.linux.link import Link, LinkKind
from netsim.linux.netfilter.base import KERNEL, Hook
from netsim.linux.route import RouteType
from netsim.packet.address import Family, IPAddress, ip
from netsim.packet.codec import wire_length
from netsim.packet.model import BROADCAST_MAC, ETH_IPV4, ETH_IPV6, Frame, Packet

UNREACHABLE = Disposition.UNREACHABLE
EVERYBODY = ip("255.255.255.255")
_OURS = (RouteType.LOCAL, RouteType.ANYCAST)  # ip6_rt_get_dev_rcu; IPv4 has no such addresses


def local_out(machine: Machine, flight: Flight) -> None:
    """A packet made in this namespace: choose route and source address, then OUTPUT (``ip_queue_xmit``)."""
    packet = flight.packet
    src = None if packet.src.is_unspecified else packet.src
    found = _route_output(flight)
    if not _usable(machine, flight, found):
        return
    if src is None:
        if found.prefsrc is None:
            machine.drop(flight, f"no source address to reach {packet.dst}: EADDRNOTAVAIL", UNREACHABLE)
            return
        flight.packet = packet = replace(packet, src=found.prefsrc)
    _take(machine, flight, found)
    flight.skb.oif = _device(found)
    size = wire_length(packet)
    if packet.dont_fragment and size > (mtu := _path_mtu(machine, flight)):
        machine.drop(flight, f"{size} bytes do not fit the MTU {mtu}: EMSGSIZE", UNREACHABLE)
        return
    if run_hooks(machine, flight, Hook.OUTPUT):
        flight.skb.oif = _device(flight.route)
        output(machine, flight)


def _route_output(flight: Flight) -> FibResult:
    packet, scene = flight.packet, flight.scene
    src = None if packet.src.is_unspecified else packet.src
    if packet.dst == EVERYBODY and src is not None:
        return to_everybody(scene, src)
    found = scene.fib.lookup(
        packet.dst, src=src, mark=flight.skb.mark, flow_hash=flow_hash(packet, scene) if src else 0
    )
    if packet.dst == EVERYBODY and found.type is RouteType.UNICAST:
        return replace(found, type=RouteType.BROADCAST, gateway=None)  # __mkroute_output
    return found


def to_everybody(scene: Scene, src: IPAddress) -> FibResult:
    """What is for 255.255.255.255 leaves by the device whose address it comes from, whatever routes say
    (``ip_route_output_key_hash_rcu``)."""
    device = scene.fib.local.get(src)
    return NO_ROUTE if device is None else FibResult(RouteType.BROADCAST, device=device, prefsrc=src)


def _usable(machine: Machine, flight: Flight, found: FibResult) -> bool:
    if found.ok:
        return not _loopback_leaves(machine, flight, found)
    error = {RouteType.PROHIBIT: "EACCES", RouteType.UNREACHABLE: "EHOSTUNREACH", RouteType.BLACKHOLE: "EINVAL"}
    if found.route is None:
        error[RouteType.UNREACHABLE] = "ENETUNREACH"  # a rule says so, no route: fib4_rule_action, fib6_rule_action
    name = error.get(found.type, "ENETUNREACH") if found.type else "ENETUNREACH"
    provenance = found.route.provenance if found.route else None
    text = f"{lookup_text(flight.packet.dst, found)}: {name}"
    machine.drop(flight, text, UNREACHABLE, provenance=provenance)
    return False


def _loopback_leaves(machine: Machine, flight: Flight, found: FibResult) -> bool:
    """Nothing from 127.0.0.0/8 is routed to another device than lo unless that one's route_localnet says so
    (``__mkroute_output``)."""
    src, device = flight.packet.src, _device(found)
    if src.version == 6 or not src.is_loopback or device in (None, "lo"):
        return False
    if flight.scene.sysctls.device("route_localnet", device):
        return False
    machine.drop(flight, f"{src} does not leave by {device} (route_localnet=0): EINVAL", UNREACHABLE)
    return True


def _take(machine: Machine, flight: Flight, found: FibResult) -> None:
    flight.route = found
    provenance = found.route.provenance if found.route else None
    machine.step(flight, StepKind.ROUTE, lookup_text(flight.packet.dst, found), provenance=provenance)


def _device(found: FibResult | None) -> str | None:
    return None if found is None else "lo" if found.type in _OURS else found.device


def reroute(machine: Machine, flight: Flight) -> bool:
    """Rules at OUTPUT changed what routing looks at (``ip_route_me_harder``). False if there is no route now. Until OUTPUT
    is over, rules see the device that it began with (``nf_hook_state``)."""
    found = _route_output(flight)
    if not _usable(machine, flight, found):
        return False
    _take(machine, flight, found)
    flight.rerouted = True
    return True


def output(machine: Machine, flight: Flight) -> None:
    """``ip_output``: POSTROUTING, then out of the device."""
    flight.skb.iif = None
    if flight.route is not None and flight.route.type is RouteType.BROADCAST:
        _hear_oneself(machine, flight.copy())
    if run_hooks(machine, flight, Hook.POSTROUTING):
        finish(machine, flight)


def _hear_oneself(machine: Machine, flight: Flight) -> None:
    """The sender of a broadcast gets a copy, as received on the device it left by (``ip_mc_output``). Rules meet it first,
    and it belongs to no socket (``__skb_clone``). A process is interrupted to hear it before its own packet goes on
    (``netif_rx`` runs softirqs that nothing held back); the kernel's answers are made in a softirq, and theirs wait."""
    interrupted = flight.skb.owner not in (None, KERNEL)
    flight.skb.owner = None
    if not run_hooks(machine, flight, Hook.POSTROUTING):
        return
    flight.skb.iif, flight.skb.oif = flight.skb.oif, None
    flight.skb.source_mac, flight.skb.pkt_type = "", "loopback"
    flight.local = flight.bridged = flight.answering = False
    machine.later(ingress.receive, flight)
    if interrupted:
        machine.run()


def route_mtu(flight: Flight, forwarding: bool = False) -> int:
    """The MTU of the route (locked into it) or of its device."""
    route = flight.route
    link = flight.scene.link(flight.skb.oif or (route.device if route else None))
    if forwarding and route is not None:
        link = flight.scene.link(route.device)
    mtu = link.mtu if link is not None else 65535
    if link is not None and link.kind is LinkKind.LOOPBACK:
        mtu = max(mtu, 65536)
    given = route.route.mtu if route is not None and route.route is not None else None
    return min(mtu, given) if given else mtu


def _path_mtu(machine: Machine, flight: Flight) -> int:
    mtu = route_mtu(flight)
    return min(mtu, machine.memory(flight).path_mtu.get(flight.packet.dst, mtu))


def finish(machine: Machine, flight: Flight) -> None:
    """``ip_finish_output``: cut to size, then on to the neighbour."""
    packet, route = flight.packet, flight.route
    assert route is not None
    if flight.skb.oif == "lo":
        _loop_back(machine, flight)
        return
    mtu = _path_mtu(machine, flight) if flight.local else route_mtu(flight)
    size = wire_length(packet)
    if size <= min(mtu, flight.fragment_size or mtu):
        _to_neighbour(machine, flight, packet)
        return
    if fragments.too_big(flight, mtu):
        machine.drop(flight, f"{size} bytes do not fit the MTU {mtu}", UNREACHABLE)
        replies.error(machine, flight, replies.FRAGMENTATION_NEEDED, mtu=mtu)
        return
    if not packet.ident and not packet.is_fragment:
        packet = replace(packet, ident=machine.next_ident(flight))
    flight.packet = packet
    pieces = fragments.cut(flight, mtu)
    sizes = " + ".join(str(wire_length(piece)) for piece in pieces)
    machine.step(flight, StepKind.FRAGMENT, f"{size} bytes over MTU {mtu}: fragments of {sizes} bytes")
    for piece in pieces:
        part = flight.copy()
        part.packet = piece
        _to_neighbour(machine, part, piece)


def _loop_back(machine: Machine, flight: Flight) -> None:
    """The packet comes in again by lo; it keeps its connection, mark and route (``loopback_xmit``)."""
    machine.wire(flight, "lo", "out", flight.packet)
    looped = flight.copy()
    looped.skb.iif, looped.skb.oif = "lo", None
    looped.skb.source_mac, looped.skb.pkt_type, looped.skb.owner = "", "unicast", None  # ip_rcv: skb_orphan
    looped.local = looped.bridged = looped.answering = False
    machine.later(ingress.receive, looped)


def _to_neighbour(machine: Machine, flight: Flight, packet: Packet) -> None:
    """Find the next hop's MAC address on devices that need one (``neigh_resolve_output``)."""
    route, scene = flight.route, flight.scene
    assert route is not None
    link = scene.link(flight.skb.oif)
    if link is None:
        machine.drop(flight, f"{flight.skb.oif}: no such device")
        return
    if not link.up:
        machine.drop(flight, f"{link.name}: the device is down")
        return
    if link.mac is None or link.noarp or link.kind in _WITHOUT_NEIGHBOURS:
        transmit(machine, flight, link, packet)
        return
    next_hop = route.gateway or packet.dst
    ethertype = ETH_IPV4 if flight.family is Family.IPV4 else ETH_IPV6
    if route.type is RouteType.BROADCAST:
        transmit(machine, flight, link, Frame(link.mac, BROADCAST_MAC, packet, ethertype))
        return
    found = resolve(machine.world, scene, link, next_hop)
    if found is None and machine.only == scene.name and link.kind is not LinkKind.VXLAN:
        _leave(machine, flight, link)  # who is out there is not known: somebody answers
        return
    if found is None:
        text = f"{next_hop} dev {link.name}: nobody answers {'ARP' if packet.src.version == 4 else 'neighbour solicitation'}"
        machine.drop(flight, text, UNREACHABLE)
        replies.error(machine, flight, replies.HOST_UNREACHABLE)
        return
    machine.step(flight, StepKind.NEIGHBOUR, found.text, provenance=found.provenance)
    transmit(machine, flight, link, Frame(link.mac, found.mac, packet, ethertype))


_WITHOUT_NEIGHBOURS = (LinkKind.LOOPBACK, LinkKind.TUN, LinkKind.IPIP)


def transmit(machine: Machine, flight: Flight, link: Link, what: Frame | Packet) -> None:
    """``dev_queue_xmit``: hand a frame (or, without a MAC address, a packet) to a device."""
    if not link.up:
        machine.drop(flight, f"{link.name}: the device is down")
        return
    machine.wire(flight, link.name, "out", what)
    if link.kind is LinkKind.BRIDGE:
        bridge.transmit(machine, flight, link, what)
    elif link.kind is LinkKind.VXLAN:
        tunnels.vxlan_transmit(machine, flight, link, what)
    elif link.kind is LinkKind.IPIP:
        tunnels.ipip_transmit(machine, flight, link)
    elif link.kind is LinkKind.TUN:
        tunnels.tun_transmit(machine, flight, link)
    elif link.kind is LinkKind.VETH:
        _veth(machine, flight, link, what)
    elif link.kind is LinkKind.PHYSICAL:
        _segment(machine, flight, link, what)
    else:
        machine.drop(flight, f"{link.name}: a {link.kind.value} device discards what it is given")


def _leave(machine: Machine, flight: Flight, link: Link) -> None:
    step = machine.step(flight, StepKind.DELIVER, f"left by {link.name}", decisive=True)
    machine.end(flight, Disposition.LEFT, step)


def _veth(machine: Machine, flight: Flight, link: Link, what: Frame | Packet) -> None:
    if machine.only == flight.scene.name or link.peer is None:
        _leave(machine, flight, link)
        return
    if machine.world.find(link.peer[0]) is None:
        _leave(machine, flight, link)
        return
    machine.later(ingress.arrive, flight.journey, *link.peer, what)


def _segment(machine: Machine, flight: Flight, link: Link, what: Frame | Packet) -> None:
    if machine.only == flight.scene.name or link.segment is None:
        _leave(machine, flight, link)
        return
    packet = what.packet if isinstance(what, Frame) else what
    mtu = machine.network.segment_mtu(link.segment)
    if wire_length(packet) > mtu:
        machine.drop(flight, f"{wire_length(packet)} bytes do not fit the segment {link.segment} (MTU {mtu})")
        return
    if isinstance(what, Frame):
        there = machine.network.by_mac(link.segment, what.dst)
    else:
        route = flight.route
        there = machine.network.on_segment(link.segment, (route.gateway if route else None) or packet.dst)
    if there is None:
        machine.drop(flight, f"{link.segment}: no host for the frame")
        return
    machine.later(ingress.arrive, flight.journey, *there, what)
