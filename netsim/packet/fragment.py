"""Fragmenting and putting together again, as ``ip_do_fragment`` and ``ip6_fragment`` do (Linux 6.1).

The first fragment keeps its decoded transport header, so that rules can still read its ports; the body of every other
fragment is ``Raw``. The transport checksum on the wire is that of the whole datagram, so fragments carry bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netsim.packet.codec import body_bytes, header_length, packet_bytes, parse_packet, wire_length
from netsim.packet.model import Packet, Raw


def fragment(packet: Packet, mtu: int) -> list[Packet]:
    """``packet`` in pieces of at most ``mtu`` bytes of IP; itself when it fits. ValueError if no piece can fit.

    A packet that is a fragment already is cut further, as a router does. All bodies are ``Raw``: the first one's header can
    be read again with ``first_header``."""
    if wire_length(packet) <= mtu:
        return [packet]
    data = body_bytes(packet)
    four = packet.src.version == 4
    space = mtu - (header_length(packet) if four else 48)
    room = space & ~7
    if room < 8:
        raise ValueError(f"an MTU of {mtu} leaves no room for a fragment")
    pieces: list[Packet] = []
    start, end = 0, 0
    while end < len(data):
        start, end = end, end + room
        if (
            four and len(data) - start <= space
        ):  # the last one may fill the MTU; ip6_append_data keeps to multiples of 8
            end = len(data)
        chunk, last = data[start:end], end >= len(data)
        pieces.append(
            replace(
                packet,
                body=Raw(chunk),
                more_fragments=packet.more_fragments or not last,
                fragment_offset=packet.fragment_offset + start,
            )
        )
    return pieces


def with_header(piece: Packet) -> Packet:
    """A first fragment with its transport header decoded for reading; any other packet as it is."""
    if piece.fragment_offset or not isinstance(piece.body, Raw):
        return piece
    return parse_packet(packet_bytes(piece))


def reassemble(pieces: Sequence[Packet]) -> Packet | None:
    """The whole datagram, or None while pieces are missing or overlap."""
    ordered = sorted(pieces, key=lambda p: p.fragment_offset)
    if not ordered or ordered[0].fragment_offset or ordered[-1].more_fragments:
        return None
    data = b""
    for piece in ordered:
        if piece.fragment_offset != len(data):
            return None
        data += body_bytes(piece)
    whole = replace(ordered[0], body=Raw(data), more_fragments=False, fragment_offset=0)
    return parse_packet(packet_bytes(whole)) if wire_length(whole) <= 0xFFFF else None
