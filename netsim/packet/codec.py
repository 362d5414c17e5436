"""Packets to bytes and back, checksums included.

Views and values are apart, as in smoltcp: ``model`` says what a header means, this module what it looks like on the wire.
``parse_packet(to_bytes(p)) == p`` for every packet whose payload is bytes; lengths and checksums are derived, never stored.
A first fragment keeps its transport header; other fragments, and bodies too short for their header or with a UDP length
that is not theirs, are ``Raw``.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace
from functools import lru_cache

from netsim.errors import InputError
from netsim.packet.address import IPAddress
from netsim.packet.model import (
    ETH_IPV4,
    ETH_IPV6,
    Body,
    Frame,
    Icmp,
    Packet,
    Proto,
    Raw,
    Sctp,
    Tcp,
    TcpFlag,
    Udp,
    Vxlan,
)

_IPV6_FRAGMENT = 44
_VXLAN_FLAGS = 0x08000000  # the I flag: the VNI is valid


class PacketError(InputError):
    """Bytes that are no packet: too short, or with a length that contradicts itself."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@lru_cache(maxsize=1)
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 4960 appendix B)."""
    value, table = 0xFFFFFFFF, _crc32c_table()
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(data: bytes) -> str:
    return data.hex(":")


# -- to bytes --------------------------------------------------------------------------------------------------------
def frame_bytes(frame: Frame) -> bytes:
    return mac_bytes(frame.dst) + mac_bytes(frame.src) + struct.pack("!H", frame.ethertype) + packet_bytes(frame.packet)


def to_bytes(value: Packet | Frame) -> bytes:
    return frame_bytes(value) if isinstance(value, Frame) else packet_bytes(value)


def packet_bytes(packet: Packet) -> bytes:
    body = body_bytes(packet)
    if packet.src.version == 4:
        flags = (packet.dont_fragment << 14) | (packet.more_fragments << 13) | (packet.fragment_offset >> 3)
        length = 20 + len(packet.options)
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | length >> 2,
            packet.tos,
            length + len(body),
            packet.ident,
            flags,
            packet.ttl,
            packet.proto,
            0,
            packet.src.packed,
            packet.dst.packed,
        )
        head += packet.options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
    proto = packet.proto
    if packet.is_fragment:
        field = packet.fragment_offset | packet.more_fragments
        body = struct.pack("!BBHI", proto, 0, field, packet.ident) + body
        proto = _IPV6_FRAGMENT
    word = (6 << 28) | (packet.tos << 20) | packet.flow_label
    return struct.pack("!IHBB", word, len(body), proto, packet.ttl) + packet.src.packed + packet.dst.packed + body


def body_bytes(packet: Packet) -> bytes:
    """The transport header and payload with its checksum (that of the whole datagram only when it is whole)."""
    body = packet.body
    match body:
        case Raw(data):
            return data
        case Packet():
            return packet_bytes(body)
        case Sctp(sport, dport, vtag, chunks):
            head = struct.pack("!HHI", sport, dport, vtag)
            return head + struct.pack("<I", crc32c(head + bytes(4) + chunks)) + chunks
        case Icmp(kind, code, rest, payload):
            data = payload_bytes(payload)
            raw = struct.pack("!BBHI", kind, code, 0, rest) + data
            pseudo = _pseudo(packet, len(raw)) if packet.src.version == 6 else b""
            return raw[:2] + struct.pack("!H", checksum(pseudo + raw)) + raw[4:]
        case Udp(sport, dport, payload, summed):
            data = payload_bytes(payload)
            raw = struct.pack("!HHHH", sport, dport, (8 + len(data)) & 0xFFFF, 0) + data
            value = (checksum(_pseudo(packet, len(raw)) + raw) or 0xFFFF) if summed else 0
            return raw[:6] + struct.pack("!H", value) + raw[8:]
        case Tcp(sport, dport, flags, seq, ack, window, options, payload):
            offset = (20 + len(options)) // 4 << 12
            raw = struct.pack("!HHIIHHHH", sport, dport, seq, ack, offset | flags, window, 0, 0) + options + payload
            return raw[:16] + struct.pack("!H", checksum(_pseudo(packet, len(raw)) + raw)) + raw[18:]


def payload_bytes(payload: bytes | Vxlan | Packet) -> bytes:
    match payload:
        case Vxlan(vni, frame):
            return struct.pack("!II", _VXLAN_FLAGS, vni << 8) + frame_bytes(frame)
        case Packet():
            return packet_bytes(payload)
        case _:
            return payload


def _pseudo(packet: Packet, length: int) -> bytes:
    if packet.src.version == 4:
        return packet.src.packed + packet.dst.packed + struct.pack("!BBH", 0, packet.proto, length & 0xFFFF)
    return packet.src.packed + packet.dst.packed + struct.pack("!II", length, packet.proto)


def header_length(packet: Packet) -> int:
    """The IP header's length, with IPv4 options or the IPv6 fragment header."""
    if packet.src.version == 4:
        return 20 + len(packet.options)
    return 48 if packet.is_fragment else 40


def wire_length(packet: Packet) -> int:
    """The IP packet's total length in bytes, without building it where that can be helped."""
    header = header_length(packet)
    body = packet.body
    match body:
        case Raw(data):
            return header + len(data)
        case Packet():
            return header + wire_length(body)
        case Sctp():
            return header + 12 + len(body.chunks)
        case Tcp():
            return header + 20 + len(body.options) + len(body.payload)
        case Udp() | Icmp():
            return header + 8 + _payload_length(body.payload)


def _payload_length(payload: bytes | Vxlan | Packet) -> int:
    match payload:
        case Vxlan(_, frame):
            return 8 + 14 + wire_length(frame.packet)
        case Packet():
            return wire_length(payload)
        case _:
            return len(payload)


# -- from bytes ------------------------------------------------------------------------------------------------------
def parse_frame(data: bytes) -> Frame:
    """An Ethernet frame around an IP packet; PacketError for anything else."""
    if len(data) < 14:
        raise PacketError(f"an Ethernet frame has at least 14 bytes, this one {len(data)}")
    (ethertype,) = struct.unpack_from("!H", data, 12)
    if ethertype not in (ETH_IPV4, ETH_IPV6):
        raise PacketError(f"ethertype 0x{ethertype:04x} is not IP")
    return Frame(mac_text(data[6:12]), mac_text(data[:6]), parse_packet(data[14:]), ethertype)


def parse_packet(data: bytes, *, quoted: bool = False) -> Packet:
    """One IP packet. Bytes behind its stated length (Ethernet padding) are dropped.

    ``quoted``: the packet inside an ICMP error, which may be cut short anywhere behind its IP header."""
    if not data:
        raise PacketError("an empty packet")
    version = data[0] >> 4
    if version == 4:
        return _parse_ipv4(data, quoted)
    if version == 6:
        return _parse_ipv6(data, quoted)
    raise PacketError(f"IP version {version} does not exist")


def _parse_ipv4(data: bytes, quoted: bool) -> Packet:
    if len(data) < 20:
        raise PacketError(f"an IPv4 header has at least 20 bytes, this packet {len(data)}")
    first, tos, total, ident, flags, ttl, proto = struct.unpack_from("!BBHHHBB", data)
    header = (first & 15) * 4
    if header < 20 or total < header or header > len(data) or (total > len(data) and not quoted):
        raise PacketError(f"IPv4 header length {header}, total length {total}, but {len(data)} bytes are there")
    offset, more = (flags & 0x1FFF) << 3, bool(flags & 0x2000)
    src, dst = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    body = _parse_body(proto, data[header:total], src, offset > 0, quoted or more)
    packet = Packet(src, dst, proto, body, ttl, tos, ident, bool(flags & 0x4000), more, offset)
    return packet if header == 20 else replace(packet, options=data[20:header])


def _parse_ipv6(data: bytes, quoted: bool) -> Packet:
    if len(data) < 40:
        raise PacketError(f"an IPv6 header has 40 bytes, this packet {len(data)}")
    word, length, proto, ttl = struct.unpack_from("!IHBB", data)
    if 40 + length > len(data) and not quoted:
        raise PacketError(f"IPv6 payload length {length}, but {len(data) - 40} bytes are there")
    rest, ident, offset, more = data[40 : 40 + length], 0, 0, False
    if proto == _IPV6_FRAGMENT and len(rest) >= 8:
        proto, _, field, ident = struct.unpack_from("!BBHI", rest)
        offset, more, rest = field & 0xFFF8, bool(field & 1), rest[8:]
    src, dst = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    body = _parse_body(proto, rest, src, offset > 0, quoted or more)
    packet = Packet(src, dst, proto, body, ttl, (word >> 20) & 0xFF, ident, False, more, offset)
    return replace(packet, flow_label=word & 0xFFFFF)


def _parse_body(proto: int, data: bytes, src: IPAddress, later_fragment: bool, partial: bool) -> Body | Packet:
    """``partial``: the end of the datagram is elsewhere, so that its UDP length says nothing about these bytes."""
    if later_fragment:
        return Raw(data)
    if proto == Proto.TCP and len(data) >= 20:
        sport, dport, seq, ack, field, window = struct.unpack_from("!HHIIHH", data)
        header = (field >> 12) * 4
        if 20 <= header <= len(data):
            return Tcp(sport, dport, TcpFlag(field & 0xFF), seq, ack, window, data[20:header], data[header:])
    elif proto == Proto.UDP and len(data) >= 8:
        sport, dport, length, summed = struct.unpack_from("!HHHH", data)
        if partial or length == len(data):
            return Udp(sport, dport, data[8:], bool(summed))
    elif proto == Proto.SCTP and len(data) >= 12:
        sport, dport, vtag = struct.unpack_from("!HHI", data)
        return Sctp(sport, dport, vtag, data[12:])
    elif proto == (Proto.ICMP if src.version == 4 else Proto.ICMPV6) and len(data) >= 8:
        kind, code, _, rest = struct.unpack_from("!BBHI", data)
        return Icmp(kind, code, rest, data[8:])
    elif proto == Proto.IPIP and data:
        try:
            return parse_packet(data)
        except PacketError:
            return Raw(data)
    return Raw(data)


def parse_vxlan(payload: bytes) -> Vxlan:
    """The VXLAN header and frame in a UDP payload."""
    if len(payload) < 8 or not payload[0] & 0x08:
        raise PacketError("no VXLAN header with a valid VNI")
    return Vxlan(int.from_bytes(payload[4:7], "big"), parse_frame(payload[8:]))
