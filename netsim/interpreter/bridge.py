"""A bridge: frames from port to port, and iptables in the middle of it (``br_input.c``, ``br_forward.c``,
``br_netfilter_hooks.c``, Linux 6.x).

    port ─▶ [PREROUTING, physin] ─▶ FDB ─┬─▶ another port: [FORWARD, physin physout] [POSTROUTING] ─▶ transmit
                     │                   └─▶ the bridge's own MAC: up, as received on the bridge (PREROUTING is not repeated)
                     └─ DNATed: routed afresh; on the same bridge it stays a frame, with the new neighbour's MAC

The bracketed hooks run if net.bridge.bridge-nf-call-iptables (-ip6tables) is set.
"""

from __future__ import annotations

from netsim.interpreter import egress, fragments, ingress, tracking
from netsim.interpreter.explain import lookup_text
from netsim.interpreter.hooks import run_hooks
from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.neighbours import port_towards, resolve
from netsim.interpreter.outcome import StepKind
from netsim.interpreter.validation import martian
from netsim.linux.link import Link
from netsim.linux.netfilter.base import Hook
from netsim.linux.route import RouteType
from netsim.packet.address import Family
from netsim.packet.codec import wire_length
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Frame, Packet

_VLAN_TAG = 4


def calls_iptables(flight: Flight) -> bool:
    name = "iptables" if flight.family is Family.IPV4 else "ip6tables"
    return bool(flight.scene.sysctls.number(f"net.bridge.bridge-nf-call-{name}"))


def receive(machine: Machine, flight: Flight, port: Link) -> None:
    """A frame has come in by a bridge port (``br_handle_frame``)."""
    bridge = flight.scene.link(port.master)
    assert flight.frame_src is not None
    assert flight.frame_dst is not None
    if bridge is None or not bridge.up:
        machine.drop(flight, f"{port.name}: its bridge {port.master} is {'down' if bridge else 'missing'}")
        return
    flight.skb.iif = bridge.name
    if calls_iptables(flight):
        flight.skb.physin = port.name
        flight.bridged = True
        destination = flight.packet.dst
        if not run_hooks(machine, flight, Hook.PREROUTING):
            return
        if flight.packet.dst != destination and not _redirect(machine, flight, bridge):
            return
    _forward(machine, flight, bridge, port)


def _redirect(machine: Machine, flight: Flight, bridge: Link) -> bool:
    """Give a DNATed frame the MAC address of where it goes now (``br_nf_pre_routing_finish``)."""
    scene = flight.scene
    found_at = scene.fib.lookup(flight.packet.dst, src=flight.packet.src, iif=flight.skb.iif, mark=flight.skb.mark)
    stays = found_at.type is RouteType.UNICAST and found_at.device == bridge.name
    # ip6_route_input does not ask whether forwarding is on, unlike IPv4's: what stays on the bridge passes all the same.
    keeps = stays and flight.family is Family.IPV6 and not scene.sysctls.forwarding(6)
    if flight.family is Family.IPV6 and not found_at.ok:  # no error is sent: ip6_route_input found no way, that is all
        machine.drop(flight, lookup_text(flight.packet.dst, found_at))
        return False
    if not stays:
        flight.skb.pkt_type = "unicast"  # it goes up to the host, if only for an error about it (ip_error)
    route = found_at if keeps else ingress.route_input(machine, flight)
    if route is None:
        return False
    if route.type is RouteType.UNICAST and route.device == bridge.name:
        next_hop = route.gateway or flight.packet.dst
        found = resolve(machine.world, flight.scene, bridge, next_hop)
        if found is None:
            machine.drop(flight, f"{next_hop} dev {bridge.name}: nobody answers")
            return False
        machine.step(flight, StepKind.NEIGHBOUR, found.text, provenance=found.provenance)
        flight.frame_dst = found.mac
    else:
        flight.frame_dst, flight.route = bridge.mac, route
    return True


def _forward(machine: Machine, flight: Flight, bridge: Link, port: Link) -> None:
    """``br_handle_frame_finish``: up to the host, to one port, or to all."""
    mac = flight.frame_dst
    assert mac is not None
    own = {bridge.mac, *(held.mac for held in flight.scene.ports.get(bridge.name, ()))}
    if mac in own:
        _up(machine, flight)
        return
    if ingress.is_multicast_mac(mac):
        _flood(machine, flight.copy(), bridge, port)
        if not flight.bridged or tracking.confirm(machine, flight, Hook.PREROUTING):  # br_nf_local_in
            _up(machine, flight)
        return
    target = port_towards(machine.world, flight.scene, bridge, mac)
    if target is None:
        machine.step(flight, StepKind.BRIDGE, f"{bridge.name}: {mac} is not in the FDB, flooded")
        _flood(machine, flight, bridge, port)
    elif target.name == port.name and not port.hairpin:
        machine.drop(flight, f"{bridge.name}: {mac} is behind {port.name} where it came from, and hairpin is off")
    else:
        machine.step(flight, StepKind.BRIDGE, f"{mac} dev {target.name} master {bridge.name}")
        _out(machine, flight, bridge, target, forwarded=True)


def _up(machine: Machine, flight: Flight) -> None:
    """Up to the host. ``ip_rcv`` starts afresh: how large the fragments were is forgotten."""
    flight.fragment_size = 0
    packet, device = flight.packet, flight.skb.iif
    if flight.bridged and flight.family is Family.IPV6 and device is not None:
        if (why := martian(flight.scene, packet.src, packet.dst, device)) is not None:
            machine.drop(flight, why)
            return
    if flight.bridged:
        ingress.routed(machine, flight)
    else:
        ingress.receive(machine, flight)


def _flood(machine: Machine, flight: Flight, bridge: Link, port: Link | None) -> None:
    """``br_flood``: a copy for each port, that of the latest first (new ports go to the head of the list)."""
    targets = [
        held
        for held in reversed(flight.scene.ports.get(bridge.name, ()))
        if held.up and (port is None or held.name != port.name or held.hairpin)
    ]
    if not targets:
        machine.drop(flight, f"{bridge.name}: no port to flood to")
    for target in targets:
        _out(machine, flight.copy(), bridge, target, forwarded=port is not None)


def _out(machine: Machine, flight: Flight, bridge: Link, port: Link, *, forwarded: bool) -> None:
    """``__br_forward`` / ``__br_deliver``: through FORWARD and POSTROUTING, then out of the port."""
    if forwarded and calls_iptables(flight):
        flight.skb.oif, flight.skb.physout = bridge.name, port.name
        if not run_hooks(machine, flight, Hook.FORWARD):
            return
        flight.skb.iif = None
        if not run_hooks(machine, flight, Hook.POSTROUTING):
            return
    packet = flight.packet
    if flight.fragment_size and wire_length(packet) > flight.fragment_size:  # br_nf_dev_queue_xmit
        pieces = fragments.cut(flight, bridge.mtu)
        machine.step(flight, StepKind.FRAGMENT, f"in {len(pieces)} fragments again")
        for piece in pieces:
            part = flight.copy()
            part.packet, part.fragment_size, part.fragment_cuts = piece, 0, ()
            _leave(machine, part, port)
    else:
        _leave(machine, flight, port)


def _leave(machine: Machine, flight: Flight, port: Link) -> None:
    packet = flight.packet
    if wire_length(packet) > port.mtu + _VLAN_TAG:  # is_skb_forwardable
        machine.drop(flight, f"{port.name}: {wire_length(packet)} bytes are more than its MTU {port.mtu}")
        return
    assert flight.frame_src is not None
    assert flight.frame_dst is not None
    ethertype = ETH_IPV4 if flight.family is Family.IPV4 else ETH_IPV6
    egress.transmit(machine, flight, port, Frame(flight.frame_src, flight.frame_dst, packet, ethertype))


def transmit(machine: Machine, flight: Flight, bridge: Link, what: Frame | Packet) -> None:
    """The host sends by the bridge device (``br_dev_xmit``)."""
    if not isinstance(what, Frame):
        machine.drop(flight, f"{bridge.name}: the bridge has no MAC address")
        return
    flight = flight.copy()
    flight.frame_src, flight.frame_dst, flight.packet = what.src, what.dst, what.packet
    target = None if ingress.is_multicast_mac(what.dst) else port_towards(machine.world, flight.scene, bridge, what.dst)
    if target is None:
        _flood(machine, flight, bridge, None)
        return
    machine.step(flight, StepKind.BRIDGE, f"{what.dst} dev {target.name} master {bridge.name}")
    _out(machine, flight, bridge, target, forwarded=False)
