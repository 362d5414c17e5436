"""ICMP and ICMPv6 by name, and the error messages that routers and hosts send (Linux 6.1: icmp_send, icmp6_send)."""

from __future__ import annotations

from netsim.packet.address import Family, IPAddress
from netsim.packet.codec import packet_bytes
from netsim.packet.model import Icmp, Packet, Proto, Raw

ECHO_REPLY, UNREACHABLE, REDIRECT, ECHO, TIME_EXCEEDED, PARAMETER = 0, 3, 5, 8, 11, 12
V6_UNREACHABLE, V6_TOO_BIG, V6_TIME_EXCEEDED, V6_PARAMETER, V6_ECHO, V6_ECHO_REPLY = 1, 2, 3, 4, 128, 129

_NAMES4: dict[tuple[int, int | None], str] = {
    (0, None): "echo-reply",
    (3, 0): "network-unreachable",
    (3, 1): "host-unreachable",
    (3, 2): "protocol-unreachable",
    (3, 3): "port-unreachable",
    (3, 4): "fragmentation-needed",
    (3, 9): "network-prohibited",
    (3, 10): "host-prohibited",
    (3, 13): "communication-prohibited",
    (5, None): "redirect",
    (8, None): "echo-request",
    (11, 0): "ttl-exceeded",
    (11, 1): "fragment-reassembly-time-exceeded",
    (12, None): "parameter-problem",
}
_NAMES6: dict[tuple[int, int | None], str] = {
    (1, 0): "no-route",
    (1, 1): "communication-prohibited",
    (1, 3): "address-unreachable",
    (1, 4): "port-unreachable",
    (1, 5): "failed-policy",
    (1, 6): "reject-route",
    (2, None): "packet-too-big",
    (3, 0): "hop-limit-exceeded",
    (3, 1): "fragment-reassembly-time-exceeded",
    (4, None): "parameter-problem",
    (128, None): "echo-request",
    (129, None): "echo-reply",
    (133, None): "router-solicitation",
    (134, None): "router-advertisement",
    (135, None): "neighbour-solicitation",
    (136, None): "neighbour-advertisement",
}
# IPv4 (type, code) of an error and its IPv6 counterpart, for code that decides the same thing for both families.
SAME: dict[tuple[int, int], tuple[int, int]] = {
    (3, 0): (1, 0),
    (3, 1): (1, 3),
    (3, 3): (1, 4),
    (3, 4): (2, 0),
    (3, 13): (1, 1),
    (11, 0): (3, 0),
    (11, 1): (3, 1),
}


def name(family: Family, kind: int, code: int) -> str:
    names = _NAMES4 if family is Family.IPV4 else _NAMES6
    return names.get((kind, code)) or names.get((kind, None)) or f"type {kind} code {code}"


def icmp_proto(family: Family) -> Proto:
    return Proto.ICMP if family is Family.IPV4 else Proto.ICMPV6


def is_error(packet: Packet) -> bool:
    """An ICMP message that quotes another packet."""
    body = packet.body
    if not isinstance(body, Icmp):
        return False
    if packet.family is Family.IPV4:
        return body.type in (UNREACHABLE, 4, REDIRECT, TIME_EXCEEDED, PARAMETER)
    return body.type < 128


def echo(family: Family, ident: int, sequence: int = 1, payload: bytes = b"", reply: bool = False) -> Icmp:
    kinds = (ECHO, ECHO_REPLY) if family is Family.IPV4 else (V6_ECHO, V6_ECHO_REPLY)
    return Icmp(kinds[reply], 0, (ident & 0xFFFF) << 16 | (sequence & 0xFFFF), payload)


def error_allowed(packet: Packet) -> bool:
    """May a host answer ``packet`` with an ICMP error (icmp_send, icmp6_send; RFC 1122 3.2.2, RFC 4443 2.4)?

    Not for ICMP errors (nor ICMP types above 18, which may be some), later IPv4 fragments, or from and to IPv6 addresses of
    no single host. IPv4 asks the route whether the destination is one (RTCF_BROADCAST, RTCF_MULTICAST)."""
    src, body = packet.src, packet.body
    if is_error(packet) or (packet.family is Family.IPV4 and packet.fragment_offset):
        return False
    if packet.family is Family.IPV4 and isinstance(body, Icmp) and body.type > 18:
        return False
    six = packet.family is Family.IPV6
    return not (src.is_multicast or src.is_unspecified or (six and packet.dst.is_multicast))


def icmp_error(
    offending: Packet,
    kind: int,
    code: int,
    source: IPAddress,
    *,
    mtu: int = 0,
    tos: int | None = None,
    ttl: int = 64,
) -> Packet:
    """The error message about ``offending``, from ``source`` to its sender.

    IPv4 quotes so much that the message stays within 576 bytes, IPv6 within 1280. IPv4 errors carry TOS 0xc0
    (internetwork control) on top of the offender's, as icmp_send does. ``mtu`` fills the header of fragmentation-needed
    and packet-too-big."""
    four = offending.family is Family.IPV4
    room = 576 - 28 if four else 1280 - 48
    quoted = packet_bytes(offending)[:room]
    if tos is None:
        tos = (offending.tos & 0x1E) | 0xC0 if four else 0
    body = Icmp(kind, code, mtu & (0xFFFF if four else 0xFFFFFFFF), quoted)
    return Packet(source, offending.src, icmp_proto(offending.family), body, ttl, tos)


def quoted(packet: Packet) -> Packet | None:
    """The packet that an ICMP error quotes, as far as it is there; None when nothing useful is.

    A transport header of which only the first eight bytes are quoted is read for its ports all the same."""
    from netsim.packet.codec import PacketError, parse_packet

    body = packet.body
    if not isinstance(body, Icmp) or not is_error(packet):
        return None
    if isinstance(body.payload, Packet):
        return body.payload
    try:
        inner = parse_packet(body.payload, quoted=True)
    except PacketError:
        return None
    if isinstance(inner.body, Raw) and not inner.fragment_offset and len(inner.body.data) >= 8:
        return _with_ports(inner, inner.body.data)
    return inner


def _with_ports(packet: Packet, data: bytes) -> Packet:
    """Ports from the first eight bytes of a cut transport header."""
    from dataclasses import replace

    from netsim.packet.model import Tcp

    if packet.proto == Proto.TCP:
        sport, dport = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        return replace(packet, body=Tcp(sport, dport, seq=int.from_bytes(data[4:8], "big")))
    return packet
