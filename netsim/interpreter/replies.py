"""What the kernel itself sends back: ICMP errors (``icmp_send``, ``icmp6_send``) and TCP resets (``nf_send_reset``)."""

from __future__ import annotations

from dataclasses import replace

from netsim.interpreter import egress
from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import IcmpError
from netsim.interpreter.tracking import attach, settings
from netsim.linux.conntrack import after
from netsim.linux.netfilter.base import KERNEL, CtState, Skb
from netsim.linux.route import RouteType
from netsim.packet.address import Family, IPAddress, ip
from netsim.packet.icmp import SAME, error_allowed, icmp_error, name
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Frame, Packet, Proto, Tcp, TcpFlag

HOST_UNREACHABLE, NET_UNREACHABLE, FRAGMENTATION_NEEDED, PROHIBITED = (3, 1), (3, 0), (3, 4), (3, 13)
TTL_EXCEEDED = (11, 0)
_ERROR_BURST, _ERROR_COST = 5.0, 1.0  # seconds: net.ipv4.route.error_burst and .error_cost, for a whole machine
_MOST_ERRORS = 64  # that one packet may cause, with those that they cause in turn
NOBODY, LOCALHOST = ip("0.0.0.0"), ip("127.0.0.1")
_REJECT_WITH = {
    "icmp-net-unreachable": (3, 0),
    "icmp-host-unreachable": (3, 1),
    "icmp-proto-unreachable": (3, 2),
    "icmp-port-unreachable": (3, 3),
    "icmp-net-prohibited": (3, 9),
    "icmp-host-prohibited": (3, 10),
    "icmp-admin-prohibited": (3, 13),
    "icmp6-no-route": (1, 0),
    "icmp6-adm-prohibited": (1, 1),
    "icmp6-addr-unreachable": (1, 3),
    "icmp6-port-unreachable": (1, 4),
    "icmp6-policy-fail": (1, 5),
    "icmp6-reject-route": (1, 6),
}


def error(machine: Machine, flight: Flight, same: tuple[int, int], *, mtu: int = 0) -> None:
    """Send the ICMP error that IPv4 calls ``same``; IPv6 packets get its counterpart."""
    kind = same if flight.family is Family.IPV4 else SAME[same]
    _send(machine, flight, *kind, mtu=mtu)


def tells(machine: Machine, flight: Flight) -> bool:
    """May a sender be told now that no route takes its packet? IPv4 says so five times at once, then once a second
    (``ip_error``, ``inet_getpeer``, Linux 6.1 and 6.18). Every such packet counts, even one that no error is due for: a
    later fragment, a broadcast."""
    if flight.family is Family.IPV6:
        return True
    told, now = machine.memory(flight).told, machine.state.now
    allowance, then = told.get(flight.packet.src, (_ERROR_BURST, now))
    allowance = min(after(allowance, now - then), _ERROR_BURST)
    enough = allowance >= _ERROR_COST
    told[flight.packet.src] = after(allowance, -_ERROR_COST * enough), now
    return enough


def not_neighbour(machine: Machine, flight: Flight) -> None:
    """ICMPv6 "beyond scope of source address"; IPv4 has no such thing."""
    _send(machine, flight, 1, 2)


def reject(machine: Machine, flight: Flight, with_: str) -> None:
    """Answer as ``-j REJECT --reject-with`` says. A lone fragment gets none: its checksum cannot be right."""
    if flight.packet.is_fragment and flight.packet.proto != Proto.SCTP:
        return
    if with_ == "tcp-reset":
        _reset(machine, flight)
    else:
        _send(machine, flight, *_REJECT_WITH[with_])


def _source(flight: Flight) -> IPAddress | None:
    """The destination that was addressed, if it is ours; else the address on the way back to the sender (IPv4), or the
    best one of the device it came in by (IPv6: ``icmp6_send``). A frame on its way between two ports has been routed
    nowhere, so that IPv4 does not know whose address it is for, nor IPv6 where it came in."""
    packet = flight.packet
    crossing = flight.skb.physout is not None
    if _own(flight, packet.dst) and not (crossing and flight.family is Family.IPV4):
        return packet.dst
    if flight.family is Family.IPV6 and flight.skb.iif is not None and not crossing:
        back = flight.scene.fib.lookup(packet.src).route
        if back is None or back.source is None:  # icmpv6_rt_has_prefsrc
            return flight.scene.fib.select_source(flight.skb.iif, packet.src)
    return flight.scene.fib.lookup(packet.src).prefsrc


def _own(flight: Flight, address: IPAddress) -> bool:
    """Is it ours, if only with other routers (``ipv6_chk_acast_addr_src``)? An IPv6 address of host or link scope only on
    the device that it came in by (``ipv6_chk_addr``)."""
    near = address.version == 6 and (address.is_loopback or address.is_link_local)
    return flight.scene.fib.address_type(address, flight.skb.iif if near else None) in ("LOCAL", "ANYCAST")


def _of_any_router(flight: Flight, address: IPAddress) -> bool:
    """Is it the address that all routers of a subnet share? No ICMPv6 error goes there (``ipv6_anycast_destination``;
    net.ipv6.icmp.error_anycast_as_unicast is off)."""
    found = flight.scene.fib.lookup(address)
    if address.version == 4 or found.route is None:
        return False
    subnet = found.route.destination
    first = found.gateway is None and subnet.prefixlen < 127 and subnet.network_address == address
    return found.type is RouteType.ANYCAST or first


def _to_nobody(flight: Flight) -> Packet:
    """A datagram from 0.0.0.0 as if from whom the answer goes to (``ip_route_output_key_hash_rcu``): the host itself, by the
    address that was asked for, else by 127.0.0.1."""
    own = flight.packet.dst if flight.scene.has_address(flight.packet.dst) and flight.skb.physin is None else LOCALHOST
    return replace(flight.packet, src=own)


def _broadcast(flight: Flight) -> bool:
    """Is it addressed to all? The route says so (RTCF_BROADCAST): a frame on its way between two ports has none but the
    bridge's own, which says nothing of the kind (``br_netfilter_rtable_init``)."""
    return flight.route is not None and flight.route.type is RouteType.BROADCAST


def _send(machine: Machine, flight: Flight, kind: int, code: int, *, mtu: int = 0) -> None:
    packet = flight.packet
    if flight.skb.pkt_type not in (None, "unicast"):
        return
    if packet.src.is_unspecified and flight.family is Family.IPV4:
        packet = _to_nobody(flight)
    if not error_allowed(packet) or _broadcast(flight) or _of_any_router(flight, packet.src):
        return
    source = packet.src if packet is not flight.packet else _source(flight)
    if source is None:
        return
    message = replace(icmp_error(flight.packet, kind, code, source, mtu=mtu), dst=packet.src)
    record = IcmpError(kind, code, name(packet.family, kind, code), source, message, False, mtu or None)
    launch(machine, flight, message, record)


def launch(machine: Machine, flight: Flight, message: Packet, record: IcmpError) -> None:
    """Send an answer made here, as far as a device takes it, before anything else happens (``icmp_send``); it belongs to
    the offender's connection (``nf_ct_attach``)."""
    if flight.answering:
        return  # icmp_xmit_lock: an error causes no other, not even as a tunnel's packet, before some device has queued it
    if len((flight.journey.cause or flight.journey).errors) >= _MOST_ERRORS:
        return  # a kernel would go on until its rate limits stop it
    journey = flight.journey.answered(flight.scene.name, record)
    answer = Flight(flight.scene, machine.hop(journey, flight.scene, None), journey, Skb(message), local=True)
    if record.type >= 0:
        answer.skb.owner, answer.answering = KERNEL, True
    entry = flight.skb.ct
    answer.attached = entry is not None or flight.skb.ct_state is CtState.UNTRACKED
    if entry is not None and record.type >= 0:
        attach(answer, entry, not flight.skb.ct_reply)
    elif entry is not None:  # a reset: RELATED too, and otherwise a packet of the connection like any other
        answer.skb.ct, answer.skb.ct_reply, answer.skb.ct_state = entry, not flight.skb.ct_reply, CtState.RELATED
    egress.local_out(machine, answer)


def _one_host(address: IPAddress) -> bool:
    """``nf_send_reset6`` answers nobody but a host (``ipv6_addr_type``: IPV6_ADDR_UNICAST, which a mapped IPv4 address
    is not); IPv4 asks only the route."""
    if address.version == 4:
        return True
    return not (address.is_unspecified or address.is_multicast or address.ipv4_mapped is not None)


def _way_back(flight: Flight) -> bool:
    """Does routing know where a reset would go (``ip_route_me_harder``, ``nf_send_reset6``)? What is for 0.0.0.0 it takes
    to be for the host itself (``ip_route_output_key_hash_rcu``)."""
    packet, scene = flight.packet, flight.scene
    if packet.src == NOBODY:
        return True
    if packet.src == egress.EVERYBODY:
        return egress.to_everybody(scene, packet.dst).ok
    src = None if scene.fib.address_type(packet.dst) == "BROADCAST" else packet.dst
    return scene.fib.lookup(packet.src, src=src).ok


def _reset(machine: Machine, flight: Flight) -> None:
    packet = flight.packet
    body = packet.body
    if not isinstance(body, Tcp) or body.flags & TcpFlag.RST:
        return
    if _broadcast(flight) or not (_one_host(packet.src) and _one_host(packet.dst)):
        return
    if body.flags & TcpFlag.ACK:
        reset = Tcp(body.dport, body.sport, TcpFlag.RST, seq=body.ack, window=0)
    else:
        length = len(body.payload) + bool(body.flags & TcpFlag.SYN) + bool(body.flags & TcpFlag.FIN)
        acknowledged = (body.seq + length) & 0xFFFFFFFF
        reset = Tcp(body.dport, body.sport, TcpFlag.RST | TcpFlag.ACK, ack=acknowledged, window=0)
    if not _way_back(flight):
        return
    entry = flight.skb.ct
    if entry is not None and entry.confirmed and entry.tcp is not None:  # nf_conntrack_tcp_set_closing
        entry.tcp.code, entry.expires = "CL", after(machine.state.now, settings(flight).timeout("tcp_timeout_close"))
    message = Packet(packet.dst, packet.src, Proto.TCP, reset, dont_fragment=True)
    record = IcmpError(-1, 0, "tcp-reset", packet.dst, message, False)
    port = flight.scene.link(flight.skb.physin)
    if port is None or flight.frame_src is None or flight.frame_dst is None:
        launch(machine, flight, message, record)
    else:  # it came by a bridge: straight back out of the port, past every hook
        journey = flight.journey.answered(flight.scene.name, record)
        answer = Flight(flight.scene, machine.hop(journey, flight.scene, None), journey, Skb(message), local=True)
        ethertype = ETH_IPV4 if flight.family is Family.IPV4 else ETH_IPV6
        frame = Frame(flight.frame_dst, flight.frame_src, message, ethertype)
        egress.transmit(machine, answer, port, frame)
