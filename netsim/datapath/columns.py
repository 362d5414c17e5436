"""One packet as a row of columns, and back: what a batch says of each packet, in one place.

column       dtype    what
time         int64    microseconds of simulated time, from 0 to ``LATEST``, never running backwards within a batch
origin       uint32   where the packet starts: a handle that ``Datapath.origin`` gave out
src, dst     uint32   address handles (``netsim.compiled.addresses``); bit ``IPV6`` of ``flags`` tells the family
sport, dport uint16   ports; of an ICMP request or reply: the identifier, and type<<8 | code; else 0
proto        uint8    IP protocol number
flags        uint8    bit 0 ``IPV6``, bit 1 ``DONT_FRAGMENT``
tcp_flags    uint8    FIN to CWR; 0 for other protocols, as are the TCP columns below
ttl, tos     uint8    TTL or hop limit; TOS or traffic class
length       uint16   bytes of the IP packet, its header included
seq, ack     uint32   of TCP
window       uint16   of TCP, unscaled
wscale       int8     the window scale option of TCP, at most 14; -1: none
tcp_options  uint8    bytes of TCP options, a multiple of 4: the segment's data is what remains of ``length``
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from netsim.compiled.addresses import Addresses
from netsim.linux.conntrack_tcp import window_scale
from netsim.packet.codec import wire_length
from netsim.packet.icmp import icmp_proto
from netsim.packet.model import Body, Icmp, Packet, Proto, Raw, Sctp, Tcp, TcpFlag, Udp

_KINDS: Final[dict[str, Any]] = {
    "time": np.int64,
    "origin": np.uint32,
    "src": np.uint32,
    "dst": np.uint32,
    "sport": np.uint16,
    "dport": np.uint16,
    "proto": np.uint8,
    "flags": np.uint8,
    "tcp_flags": np.uint8,
    "ttl": np.uint8,
    "tos": np.uint8,
    "length": np.uint16,
    "seq": np.uint32,
    "ack": np.uint32,
    "window": np.uint16,
    "wscale": np.int8,
    "tcp_options": np.uint8,
}
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {name: np.dtype(kind) for name, kind in _KINDS.items()}

IPV6, DONT_FRAGMENT = 1, 2  # bits of ``flags``
LONGEST = 0xFFFF
LATEST = 0xFFFFFFFE * 1000 + 999  # flows keep milliseconds since the start, and 1 more, in 32 bits
MOST_OPTIONS = 40
MOST_SCALE = 14

ICMP_TRACKED: Final = (0, 8, 13, 14, 15, 16, 17, 18)  # requests and replies: ICMP of these types has an identifier
ICMPV6_TRACKED: Final = (128, 129, 139, 140)
HEADERS: Final = {Proto.TCP: 20, Proto.UDP: 8, Proto.ICMP: 8, Proto.ICMPV6: 8}  # bytes that columns speak of
# Protocols of which columns say too little: SCTP's chunks; what is inside IPIP; IPv6 extension headers.
INTERPRETED: Final[Mapping[int, frozenset[int]]] = {
    4: frozenset({Proto.IPIP, Proto.IPV6, Proto.ICMPV6, Proto.SCTP}),
    6: frozenset({0, Proto.ICMP, Proto.IPIP, Proto.IPV6, 43, 44, 50, 51, 60, Proto.SCTP, 135, 139, 140}),
}


class Row(NamedTuple):
    """A packet's columns but time and origin, in the order of ``DTYPES``."""

    src: int
    dst: int
    sport: int = 0
    dport: int = 0
    proto: int = 0
    flags: int = 0
    tcp_flags: int = 0
    ttl: int = 0
    tos: int = 0
    length: int = 0
    seq: int = 0
    ack: int = 0
    window: int = 0
    wscale: int = -1
    tcp_options: int = 0


class Holding(enum.Enum):
    """How much of a packet its row holds."""

    ALL = enum.auto()  # ``packet_of`` gives it back
    ENOUGH = enum.auto()  # all that forwarding looks at
    LITTLE = enum.auto()  # it must be interpreted


def row_of(packet: Packet, addresses: Addresses) -> tuple[Row, Holding]:
    four = packet.src.version == 4
    flags = (DONT_FRAGMENT if packet.dont_fragment else 0) if four else IPV6
    row = Row(addresses.handle(packet.src), addresses.handle(packet.dst), proto=packet.proto, flags=flags)
    length = wire_length(packet)
    row = row._replace(ttl=packet.ttl, tos=packet.tos, length=min(length, LONGEST))
    match packet.body:
        case Tcp() as body:
            row = row._replace(
                sport=body.sport, dport=body.dport, tcp_flags=int(body.flags), seq=body.seq, ack=body.ack,
                window=body.window, wscale=_scale(body.options), tcp_options=len(body.options),
            )  # fmt: skip
        case Udp(sport, dport) | Sctp(sport, dport):
            row = row._replace(sport=sport, dport=dport)
        case Icmp(kind, code, rest):
            row = row._replace(sport=rest >> 16, dport=kind << 8 | code)
    if _interpreted(packet, length):
        return row, Holding.LITTLE
    return row, Holding.ALL if packet_of(row, addresses) == packet else Holding.ENOUGH


def packet_of(row: Row, addresses: Addresses) -> Packet:
    """The packet that a row describes: zeros for payload, no-operations for options that are not a window scale."""
    family = 6 if row.flags & IPV6 else 4
    room = row.length - (20 if family == 4 else 40)
    body: Body
    match row.proto:
        case Proto.TCP:
            body = Tcp(
                row.sport, row.dport, TcpFlag(row.tcp_flags), row.seq, row.ack, row.window,
                _options(row.wscale, row.tcp_options), bytes(room - 20 - row.tcp_options),
            )  # fmt: skip
        case Proto.UDP:
            body = Udp(row.sport, row.dport, bytes(room - 8))
        case Proto.ICMP | Proto.ICMPV6:
            body = Icmp(row.dport >> 8, row.dport & 255, row.sport << 16, bytes(room - 8))
        case _:
            body = Raw(bytes(room))
    src, dst = addresses.address(row.src, family), addresses.address(row.dst, family)
    fixed = bool(row.flags & DONT_FRAGMENT)
    return Packet(src, dst, row.proto, body, row.ttl, row.tos, dont_fragment=fixed)


def _interpreted(packet: Packet, length: int) -> bool:
    if packet.is_fragment or packet.options or length > LONGEST:
        return True
    if packet.proto in INTERPRETED[packet.src.version]:
        return True
    match packet.body:
        case Tcp():
            return packet.proto != Proto.TCP
        case Udp(payload=payload):
            return packet.proto != Proto.UDP or not isinstance(payload, bytes)
        case Icmp(kind, payload=payload):
            known = ICMP_TRACKED if packet.proto == Proto.ICMP else ICMPV6_TRACKED
            return packet.proto != icmp_proto(packet.family) or kind not in known or not isinstance(payload, bytes)
        case Raw():
            return packet.proto in HEADERS
        case _:
            return True


def _scale(options: bytes) -> int:
    found = window_scale(options)
    return -1 if found is None else found


def _options(wscale: int, size: int) -> bytes:
    scale = b"" if wscale < 0 else b"\x01\x03\x03" + bytes((wscale,))
    return scale + b"\x01" * (size - len(scale))
