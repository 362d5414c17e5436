"""Packets in one line, for people."""

from __future__ import annotations

from netsim.packet import icmp
from netsim.packet.address import endpoint
from netsim.packet.model import Icmp, Packet, Proto, Raw, Tcp, TcpFlag, Udp, Vxlan


def source_text(packet: Packet) -> str:
    """``10.244.1.5:40000``, without the port where there is none."""
    return str(packet.src) if packet.sport is None else endpoint(packet.src, packet.sport)


def destination_text(packet: Packet) -> str:
    return str(packet.dst) if packet.dport is None else endpoint(packet.dst, packet.dport)


def proto_text(number: int) -> str:
    try:
        return Proto(number).name
    except ValueError:
        return f"proto {number}"


def tuple_text(packet: Packet) -> str:
    """``10.244.1.5:40000 -> 10.96.3.7:80 TCP``."""
    return f"{source_text(packet)} -> {destination_text(packet)} {proto_text(packet.proto)}"


def describe(packet: Packet) -> str:
    """``10.244.1.5:40000 -> 10.96.3.7:80 TCP SYN ttl 64``, with the inside of a tunnel in brackets."""
    parts = [tuple_text(packet)]
    body = packet.body
    if isinstance(body, Tcp):
        parts.append(flags_text(body.flags))
    elif isinstance(body, Icmp):
        parts.append(icmp.name(packet.family, body.type, body.code))
    parts.append(f"ttl {packet.ttl}")
    if packet.is_fragment:
        parts.append(f"fragment at {packet.fragment_offset}{'+' if packet.more_fragments else ''}")
    inner = body if isinstance(body, Packet) else None
    if isinstance(body, Udp):
        if isinstance(body.payload, Vxlan):
            parts.append(f"vxlan {body.payload.vni}")
            inner = body.payload.frame.packet
        elif isinstance(body.payload, Packet):
            inner = body.payload
    elif isinstance(body, Raw) and not packet.is_fragment:
        parts.append(f"{len(body.data)} bytes")
    if inner is not None:
        parts.append(f"[{describe(inner)}]")
    return " ".join(parts)


def flags_text(flags: TcpFlag) -> str:
    """``SYN,ACK`` in wire order from the lowest bit; ``none`` for no flag."""
    return ",".join(flag.name or "" for flag in TcpFlag if flag in flags) or "none"
