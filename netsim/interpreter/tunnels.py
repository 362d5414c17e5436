"""Encapsulation to the byte and back: VXLAN (``vxlan_core.c``), IPIP (``ip_tunnel.c``), flanneld's UDP over TUN.

The outer packet is a new sk_buff of the same journey: it loses its connection and keeps its mark (``iptunnel_xmit``).
"""

from __future__ import annotations

from dataclasses import replace

from netsim.interpreter import bridge, egress, ingress, replies
from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import IcmpError, StepKind
from netsim.linux.link import Link, LinkKind, VxlanOptions
from netsim.linux.netfilter.base import ROOT, Skb
from netsim.linux.route import FdbEntry
from netsim.packet.address import Family, IPAddress
from netsim.packet.codec import PacketError, parse_packet, parse_vxlan, wire_length
from netsim.packet.describe import describe
from netsim.packet.flow import vxlan_source_port
from netsim.packet.icmp import error_allowed, icmp_error, name
from netsim.packet.model import Frame, Packet, Proto, Udp, Vxlan

_ALL_ZEROS = "00:00:00:00:00:00"
_CE, _ECT0 = 3, 2
_RECURSION = 2  # as Linux 6.18 does, seen rather than read: the third level is the last that is sent


def _outer_tos(inner: int) -> int:
    """``ip_tunnel_ecn_encap``: no DSCP; ECN copied, except that CE starts afresh as ECT(0)."""
    ecn = inner & 3
    return _ECT0 if ecn == _CE else ecn


def _congested(machine: Machine, flight: Flight, outer: Packet, inner: Packet) -> Packet | None:
    """``INET_ECN_decapsulate``: congestion on the way is passed on, and fatal to a packet that cannot show it."""
    if outer.tos & 3 != _CE:
        return inner
    if inner.tos & 3 == 0:
        machine.drop(flight, "congestion was marked on a tunnelled packet that does not support ECN")
        return None
    return replace(inner, tos=inner.tos | _CE)


def _send(machine: Machine, flight: Flight, outer: Packet, mark: int | None = None) -> None:
    kept, owner = (
        (flight.skb.mark, flight.skb.owner) if mark is None else (mark, ROOT)
    )  # a new mark: a process sends it
    if flight.nested > _RECURSION:
        machine.drop(flight, f"{flight.skb.oif}: tunnelled into itself {flight.nested} times")
        return
    skb = Skb(outer, mark=kept, owner=owner)
    wrapped = Flight(flight.scene, flight.hop, flight.journey, skb, local=True, nested=flight.nested + 1)
    wrapped.answering = flight.answering
    egress.local_out(machine, wrapped)


def _source(flight: Flight, given: IPAddress | None, destination: IPAddress) -> IPAddress | None:
    return given if given is not None else flight.scene.fib.lookup(destination).prefsrc


# VXLAN


def _fdb(flight: Flight, link: Link, mac: str) -> FdbEntry | None:
    """The peer behind a MAC address, or the one that everything unknown goes to."""
    for address in (mac, _ALL_ZEROS):
        for entry in flight.scene.fdb(address):
            if entry.device == link.name and entry.destination is not None:
                return entry
    return None


def vxlan_transmit(machine: Machine, flight: Flight, link: Link, what: Frame | Packet) -> None:
    options = link.vxlan
    if options is None or not isinstance(what, Frame):
        machine.drop(flight, f"{link.name}: not a configured VXLAN device")
        return
    entry = _fdb(flight, link, what.dst)
    if entry is None or entry.destination is None:
        machine.drop(flight, f"{link.name}: no FDB entry for {what.dst}")
        return
    source = _source(flight, options.local, entry.destination)
    if source is None:
        machine.drop(flight, f"{link.name}: no route to the tunnel endpoint {entry.destination}")
        return
    if flight.scene.fib.lookup(entry.destination, mark=flight.skb.mark).device == link.name:
        machine.drop(flight, f"{link.name}: the way to its own endpoint {entry.destination} leads through it")
        return
    low, high = flight.scene.sysctls.text("net.ipv4.ip_local_port_range").split()
    port = vxlan_source_port(what.packet, (int(low), int(high)))
    body = Udp(port, options.port, Vxlan(options.vni, what), options.udp_checksum)
    tos = _outer_tos(what.packet.tos)
    four = source.version == 4
    ident = machine.next_ident(flight) if four else 0
    outer = Packet(source, entry.destination, Proto.UDP, body, ttl=64, tos=tos, ident=ident)
    machine.step(
        flight,
        StepKind.ENCAP,
        f"{what.dst} dev {link.name} dst {entry.destination} self {entry.state}",
        before=describe(what.packet),
        after=f"VXLAN {options.vni} {source}:{port} -> {entry.destination}:{options.port}",
        provenance=entry.provenance,
    )
    _send(machine, flight, outer)  # an FDB entry names no device (vxlan_fdb_parse), so routing is free


def _vxlan_receive(machine: Machine, flight: Flight, link: Link, carried: Vxlan) -> None:
    outer, frame = flight.packet, carried.frame
    machine.step(flight, StepKind.DECAP, f"VXLAN {carried.vni} dev {link.name}: {describe(frame.packet)}")
    inner = _congested(machine, flight, outer, frame.packet)
    if inner is None:
        return
    flight = _inside(flight, inner, link)
    flight.skb.source_mac, flight.skb.pkt_type = frame.src, ingress.pkt_type(frame.dst)
    machine.wire(flight, link.name, "in", replace(frame, packet=inner))
    flight.frame_src, flight.frame_dst = frame.src, frame.dst
    if link.master is not None:
        bridge.receive(machine, flight, link)
    elif frame.dst != link.mac and not ingress.is_multicast_mac(frame.dst):
        machine.drop(flight, f"{link.name}: the inner frame is for another host ({frame.dst})")
    else:
        ingress.receive(machine, flight)


def _inside(flight: Flight, inner: Packet, link: Link) -> Flight:
    """The tunnelled packet as received by the tunnel device; the mark of the outer one stays (same namespace)."""
    skb = Skb(inner, iif=link.name, mark=flight.skb.mark, source_mac="", pkt_type="unicast")
    return Flight(flight.scene, flight.hop, flight.journey, skb)


# IPIP


def ipip_transmit(machine: Machine, flight: Flight, link: Link) -> None:
    options, inner = link.tunnel, flight.packet
    if options is None:
        machine.drop(flight, f"{link.name}: not a configured tunnel")
        return
    remote = options.remote
    if remote is None:
        remote = (flight.route.gateway if flight.route else None) or inner.dst  # NBMA: the next hop
    source = _source(flight, options.local, remote)
    if source is None or inner.family is not Family.IPV4:
        machine.drop(flight, f"{link.name}: no route to the tunnel endpoint {remote}")
        return
    if inner.dont_fragment and wire_length(inner) > (mtu := link.mtu):
        machine.drop(flight, f"{link.name}: {wire_length(inner)} bytes do not fit its MTU {mtu}")
        replies.error(machine, flight, replies.FRAGMENTATION_NEEDED, mtu=mtu)
        return
    keep_whole = options.pmtudisc or inner.dont_fragment
    outer = Packet(
        source,
        remote,
        Proto.IPIP,
        inner,
        ttl=options.ttl or inner.ttl,
        tos=_outer_tos(inner.tos),
        ident=0 if keep_whole else machine.next_ident(flight),
        dont_fragment=keep_whole,
    )
    machine.step(
        flight,
        StepKind.ENCAP,
        f"ipip dev {link.name} {source} -> {remote}",
        before=describe(inner),
        after=describe(outer),
    )
    _send(machine, flight, outer)


def _ipip_link(flight: Flight) -> Link | None:
    """The device with the exact endpoints wins over one that takes any (``ip_tunnel_lookup``)."""
    packet, best, score = flight.packet, None, -1
    for link in flight.scene.namespace.links:
        options = link.tunnel
        if link.kind is not LinkKind.IPIP or options is None or not link.up:
            continue
        if options.local not in (None, packet.dst) or options.remote not in (None, packet.src):
            continue
        exact = (options.local is not None) + 2 * (options.remote is not None)
        if exact > score:
            best, score = link, exact
    return best


def _ipip_receive(machine: Machine, flight: Flight, link: Link, carried: Packet) -> None:
    machine.step(flight, StepKind.DECAP, f"ipip dev {link.name}: {describe(carried)}")
    inner = _congested(machine, flight, flight.packet, carried)
    if inner is not None:
        flight = _inside(flight, inner, link)
        machine.wire(flight, link.name, "in", inner)
        ingress.receive(machine, flight)


# flanneld's udp backend: a TUN device whose data plane is a process


def tun_transmit(machine: Machine, flight: Flight, link: Link) -> None:
    options, inner = link.udp_tunnel, flight.packet
    if options is None:
        machine.drop(flight, f"{link.name}: no process reads this TUN device")
        return
    peer = next((peer for subnet, peer in options.peers if inner.dst in subnet), None)
    if peer is None:
        machine.drop(flight, f"flanneld has no lease for {inner.dst}", egress.UNREACHABLE)
        _no_lease(machine, flight, link)
        return
    if inner.ttl <= 1:
        machine.drop(flight, "flanneld discards a packet whose TTL is used up, without a word")
        return
    carried = replace(inner, ttl=inner.ttl - 1)
    body = Udp(options.port, options.port, carried)
    outer = Packet(options.local, peer, Proto.UDP, body, ttl=64, dont_fragment=True)
    machine.step(
        flight, StepKind.ENCAP, f"flanneld {options.local} -> {peer}", before=describe(inner), after=describe(outer)
    )
    _send(machine, flight, outer, mark=0)


def _no_lease(machine: Machine, flight: Flight, link: Link) -> None:
    """flanneld writes a net-unreachable (TTL 8) into its own TUN device."""
    options, packet = link.udp_tunnel, flight.packet
    assert options is not None
    if packet.proto == Proto.ICMP or not error_allowed(packet) or flight.journey.is_error:
        return
    message = icmp_error(packet, 3, 0, options.tun_address, ttl=8, tos=0)
    record = IcmpError(3, 0, name(packet.family, 3, 0), options.tun_address, message, False)
    journey = flight.journey.answered(flight.scene.name, record)
    hop = machine.hop(journey, flight.scene, link.name)
    machine.later(ingress.receive, Flight(flight.scene, hop, journey, Skb(message, iif=link.name, source_mac="")))


def _tun_receive(machine: Machine, flight: Flight, link: Link, carried: Packet) -> None:
    machine.step(flight, StepKind.DECAP, f"flanneld writes to {link.name}: {describe(carried)}")
    if carried.ttl <= 1:
        machine.drop(flight, "flanneld discards a packet whose TTL is used up, without a word")
        return
    inner = replace(carried, ttl=carried.ttl - 1)
    inside = Flight(
        flight.scene, flight.hop, flight.journey, Skb(inner, iif=link.name, source_mac="", pkt_type="unicast")
    )
    machine.wire(inside, link.name, "in", inner)
    ingress.receive(machine, inside)


def decapsulate(machine: Machine, flight: Flight) -> bool:
    """Hand a packet that INPUT accepted to the tunnel it belongs to; False if it belongs to none."""
    packet = flight.packet
    body = packet.body
    if isinstance(body, Packet) and packet.proto == Proto.IPIP:
        link = _ipip_link(flight)
        if link is not None:
            _ipip_receive(machine, flight, link, body)
            return True
    if not isinstance(body, Udp):
        return False
    for link in flight.scene.namespace.links:
        if not link.up:
            continue
        options, lease = link.vxlan, link.udp_tunnel
        if options is not None and options.port == body.dport and _outer_version(options) == packet.src.version:
            return _vxlan_demultiplex(machine, flight, body)
        if lease is not None and (lease.local, lease.port) == (packet.dst, body.dport):
            carried = _carried_packet(body)
            if carried is not None:
                _tun_receive(machine, flight, link, carried)
                return True
    return False


def _vxlan_demultiplex(machine: Machine, flight: Flight, body: Udp) -> bool:
    try:
        carried = body.payload if isinstance(body.payload, Vxlan) else parse_vxlan(_bytes(body))
    except PacketError as error:
        machine.drop(flight, f"not a VXLAN packet: {error}")
        return True
    for link in flight.scene.vxlan_devices:
        options = link.vxlan
        wanted = (body.dport, carried.vni, flight.packet.src.version)
        if options is not None and link.up and (options.port, options.vni, _outer_version(options)) == wanted:
            _vxlan_receive(machine, flight, link, carried)
            return True
    machine.drop(flight, f"no VXLAN device has VNI {carried.vni}")
    return True


def _outer_version(options: VxlanOptions) -> int:
    """The IP version of the device's socket: vxlan.c keeps one socket, and one table of VNIs, per family and port."""
    return 4 if options.local is None else options.local.version


def _bytes(body: Udp) -> bytes:
    if isinstance(body.payload, bytes):
        return body.payload
    raise PacketError("the payload is no VXLAN header")


def _carried_packet(body: Udp) -> Packet | None:
    if isinstance(body.payload, Packet):
        return body.payload
    try:
        return parse_packet(_bytes(body))
    except PacketError:
        return None
