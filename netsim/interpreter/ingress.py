"""From the wire to a decision: device, PREROUTING, input routing, local delivery or forwarding.

Models ``ip_rcv``/``ip_route_input_slow``/``ip_forward``/``ip_local_deliver`` and their IPv6 twins (Linux 6.x).
"""

from __future__ import annotations

from dataclasses import replace

from netsim.interpreter import bridge, egress, replies, tunnels
from netsim.interpreter.explain import lookup_text
from netsim.interpreter.fragments import gather, too_big
from netsim.interpreter.hooks import run_hooks
from netsim.interpreter.machine import MAX_HOPS, Flight, Journey, Machine
from netsim.interpreter.outcome import Disposition, StepKind
from netsim.interpreter.scene import flow_hash
from netsim.interpreter.validation import martian, validate_source
from netsim.linux.fib import FibResult
from netsim.linux.link import LinkKind
from netsim.linux.netfilter.base import Hook, Skb
from netsim.linux.route import RouteType
from netsim.packet.address import Family
from netsim.packet.codec import wire_length
from netsim.packet.describe import describe
from netsim.packet.fragment import with_header
from netsim.packet.icmp import quoted
from netsim.packet.model import BROADCAST_MAC, Frame, Icmp, Packet, Proto

UNREACHABLE = Disposition.UNREACHABLE
_VLAN_TAG = 4
_OURS = (RouteType.LOCAL, RouteType.BROADCAST, RouteType.ANYCAST)


def arrive(machine: Machine, journey: Journey, namespace: str, device: str, what: Frame | Packet) -> None:
    """``what`` comes in by ``device``."""
    scene = machine.world.scene(namespace)
    framed = isinstance(what, Frame)
    packet = what.packet if isinstance(what, Frame) else what
    hop = machine.hop(journey, scene, device, again=packet.is_fragment)
    skb = Skb(with_header(packet), iif=device, source_mac="", pkt_type="unicast")
    if isinstance(what, Frame):
        skb.source_mac, skb.pkt_type = what.src, pkt_type(what.dst)
    flight = Flight(scene, hop, journey, skb)
    machine.wire(flight, device, "in", what)
    link = scene.link(device)
    if link is None or not link.up:
        machine.drop(flight, f"{device}: {'no such device' if link is None else 'the device is down'}")
        return
    if link.kind is LinkKind.VETH and wire_length(packet) > link.mtu + _VLAN_TAG:  # __is_skb_forwardable
        machine.drop(flight, f"{device}: {wire_length(packet)} bytes are more than its MTU {link.mtu}")
        return
    journey.arrivals += 1
    key = (namespace, device, replace(packet, ttl=0, ident=0), what.dst if isinstance(what, Frame) else None)
    if key in journey.seen or journey.arrivals > MAX_HOPS:
        machine.drop(flight, f"{describe(packet)} came round to {namespace} again", Disposition.LOOPED)
        return
    journey.seen.add(key)
    if namespace == "external":
        step = machine.step(flight, StepKind.DELIVER, "received by a host outside", decisive=True)
        machine.end(flight, Disposition.LEFT, step, receiver=namespace)
        return
    if isinstance(what, Frame):
        flight.frame_src, flight.frame_dst = what.src, what.dst
    if link.master is not None and framed:
        bridge.receive(machine, flight, link)
    elif isinstance(what, Frame) and link.mac is not None and not _for_us(what.dst, link.mac):
        machine.drop(flight, f"{device}: the frame is for another host ({what.dst})", minor=True)
    else:
        receive(machine, flight)


def _for_us(destination: str, mac: str) -> bool:
    return destination == mac or is_multicast_mac(destination)


def is_multicast_mac(mac: str) -> bool:
    return bool(int(mac[:2], 16) & 1)


def pkt_type(mac: str) -> str:
    """Whom a frame for ``mac`` is for (``eth_type_trans``); one for another host is unicast where it gets that far."""
    return "broadcast" if mac == BROADCAST_MAC else "multicast" if is_multicast_mac(mac) else "unicast"


def receive(machine: Machine, flight: Flight) -> None:
    """An IP packet has come in by ``skb.iif``: PREROUTING, then routing. IPv6 looks at the addresses before that."""
    packet, device = flight.packet, flight.skb.iif
    if flight.family is Family.IPV6 and device is not None:
        if (why := martian(flight.scene, packet.src, packet.dst, device)) is not None:
            machine.drop(flight, why)
            return
    if run_hooks(machine, flight, Hook.PREROUTING):
        routed(machine, flight)


def routed(machine: Machine, flight: Flight) -> None:
    """Behind PREROUTING. A packet that looped back keeps the route it was sent by, one that a bridge routed that route."""
    routed_by_bridge = flight.route is not None
    if flight.route is None:
        found = route_input(machine, flight)
        if found is None:
            return
        flight.route = found
    if flight.route.type in _OURS:
        local_deliver(machine, flight)
    else:
        forward(machine, flight, routed_by_bridge)


def route_input(machine: Machine, flight: Flight) -> FibResult | None:
    """``ip_route_input_slow``: the route, or None when the packet ended here."""
    packet, skb, scene = flight.packet, flight.skb, flight.scene
    assert skb.iif is not None
    four = flight.family is Family.IPV4  # IPv6 has looked at the addresses before
    if four and (why := martian(scene, packet.src, packet.dst, skb.iif)) is not None:
        machine.drop(flight, why, table="local")
        return None
    found = scene.fib.lookup(packet.dst, src=packet.src, iif=skb.iif, mark=skb.mark, flow_hash=flow_hash(packet, scene))
    forwarding = scene.sysctls.forwarding(packet.src.version)
    provenance = found.route.provenance if found.route is not None else None
    if packet.dst.is_multicast:
        machine.drop(flight, f"{packet.dst}: multicast is not routed here")
        return None
    if found.type is None or not found.ok:
        due = found.type is not RouteType.BLACKHOLE and (forwarding or flight.family is Family.IPV6)
        tells = due and replies.tells(machine, flight)
        text = lookup_text(packet.dst, found) + (
            f"; {packet.src} was told too often to be told again" * (due and not tells)
        )
        machine.drop(flight, text, UNREACHABLE, provenance=provenance)
        if tells:
            replies.error(machine, flight, _unreachable_code(flight.family, found))
        return None
    local = found.type in _OURS
    if not local and not forwarding:
        machine.drop(
            flight, f"{packet.dst} is not an address of this host and forwarding is off (ip_forward=0)", UNREACHABLE
        )
        return None
    oif = None if local else found.device
    if (why := validate_source(scene, packet.src, packet.dst, skb.iif, oif=oif, mark=skb.mark)) is not None:
        machine.drop(flight, why)
        return None
    machine.step(flight, StepKind.ROUTE, lookup_text(packet.dst, found), provenance=provenance)
    return found


def _unreachable_code(family: Family, found: FibResult) -> tuple[int, int]:
    """``ip_error``; IPv6 says "no route" for unreachable routes too (``ip6_pkt_discard``), IPv4 for rules that say so
    (``fib4_rule_action``)."""
    if found.type is RouteType.PROHIBIT:
        return replies.PROHIBITED
    if found.type is RouteType.UNREACHABLE and found.route is not None and family is Family.IPV4:
        return replies.HOST_UNREACHABLE
    return replies.NET_UNREACHABLE


def forward(machine: Machine, flight: Flight, routed_by_bridge: bool = False) -> None:
    """``ip_forward``/``ip6_forward``: TTL and MTU are checked before the FORWARD hook. ``ip6_forward`` does not look at the
    source of what leaves as it came, nor of what a bridge has routed, since that counts as from where it goes."""
    route, packet = flight.route, flight.packet
    assert route is not None
    assert route.device is not None
    if flight.skb.pkt_type not in (None, "unicast"):
        machine.drop(flight, f"a {flight.skb.pkt_type} frame is not forwarded")
        return
    if packet.ttl <= 1:
        machine.drop(flight, f"TTL {packet.ttl} is used up", UNREACHABLE)
        replies.error(machine, flight, replies.TTL_EXCEEDED)
        return
    moves = flight.family is Family.IPV6 and flight.skb.iif != route.device and not routed_by_bridge
    if moves and (why := _bad_source(packet)):
        machine.drop(flight, why, UNREACHABLE)
        if packet.src.is_link_local:
            replies.not_neighbour(machine, flight)
        return
    mtu = egress.route_mtu(flight, forwarding=True)
    if flight.family is Family.IPV6:  # what this host has learnt for itself counts for what it forwards too
        mtu = min(mtu, machine.memory(flight).path_mtu.get(packet.dst, mtu))
    if too_big(flight, mtu):
        size = flight.fragment_size or wire_length(packet)
        machine.drop(flight, f"{size} bytes do not fit the MTU {mtu} of {route.device}", UNREACHABLE)
        replies.error(machine, flight, replies.FRAGMENTATION_NEEDED, mtu=mtu)
        return
    flight.packet = replace(packet, ttl=packet.ttl - 1)
    flight.skb.oif = route.device
    if run_hooks(machine, flight, Hook.FORWARD):
        egress.output(machine, flight)


def _bad_source(packet: Packet) -> str:
    """Why ``ip6_forward`` does not let a source out of its network; '' if it does."""
    if packet.src.is_link_local:
        return f"{packet.src}: link-local addresses are not forwarded"
    if packet.src.is_unspecified or packet.src.is_multicast or packet.src.is_loopback:
        return f"{packet.src}: no source that is forwarded"
    return ""


def local_deliver(machine: Machine, flight: Flight) -> None:
    """INPUT, then the tunnel that the packet belongs to, or the process (whether one listens is not modelled)."""
    flight.skb.oif = None
    if flight.family is Family.IPV4 and not gather(machine, flight, Hook.INPUT):
        return
    if not run_hooks(machine, flight, Hook.INPUT):
        return
    if not gather(machine, flight, Hook.INPUT) or tunnels.decapsulate(machine, flight):  # ip6_input: behind the hook
        return
    packet = flight.packet
    _learn_mtu(machine, flight)
    text = f"delivered to {flight.scene.name}" + (f" by {flight.skb.iif}" if flight.skb.iif else "")
    flight.hop.delivered.append(packet)
    step = machine.step(flight, StepKind.DELIVER, f"{packet.dst}: {text}", decisive=True)
    machine.end(flight, Disposition.DELIVERED, step, receiver=flight.scene.name)


def _learn_mtu(machine: Machine, flight: Flight) -> None:
    """A sender that is told of a smaller MTU on the way keeps to it. What is told to a broadcast address nobody believes
    (``icmp_rcv``)."""
    packet = flight.packet
    to_all = flight.route is not None and flight.route.type is RouteType.BROADCAST
    if not isinstance(packet.body, Icmp) or to_all:
        return
    needed = (Proto.ICMP, 3, 4) if flight.family is Family.IPV4 else (Proto.ICMPV6, 2, 0)
    if (packet.proto, packet.body.type, packet.body.code) != needed:
        return
    inner = quoted(packet)
    if inner is not None:
        machine.memory(flight).path_mtu[inner.dst] = packet.body.rest & (0xFFFF if needed[0] == 1 else 0xFFFFFFFF)
