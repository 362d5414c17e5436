"""Marks: four bytes in every packet that the lab sends, where neither NAT nor fragmentation touches them.

TCP      an experimental option (kind 254, RFC 6994 identifier "ns")     UDP, ICMP echo   the payload, over and over
SCTP     the four bytes behind the first chunk's header                  later fragments  begin with it, therefore
"""

from __future__ import annotations

import struct

from netsim.packet.icmp import is_error, quoted
from netsim.packet.model import Frame, Icmp, Packet, Raw, Sctp, Tcp, Udp, Vxlan

_OPTION = b"\xfe\x08ns"
_FIRST = 0x6E


def mark(serial: int) -> bytes:
    """The mark of packet number ``serial`` (below 2**24)."""
    return struct.pack("!I", _FIRST << 24 | serial)


def filled(with_: bytes, length: int) -> bytes:
    """``length`` bytes of a mark, so that wherever a fragment begins, it begins with the mark."""
    return (with_ * (length // 4 + 1))[:length]


def option(with_: bytes) -> bytes:
    return _OPTION + with_


def mark_of(packet: Packet) -> bytes | None:
    """The mark that a packet carries, None if it is none of ours."""
    body = packet.body
    found = b""
    if isinstance(body, Tcp):
        at = body.options.find(_OPTION)
        found = body.options[at + 4 : at + 8] if at >= 0 else b""
    elif isinstance(body, Udp):
        found = body.payload[:4] if isinstance(body.payload, bytes) else b""
    elif isinstance(body, Sctp):
        found = body.chunks[4:8]
    elif isinstance(body, Icmp):
        found = body.payload[:4] if isinstance(body.payload, bytes) and not is_error(packet) else b""
    elif isinstance(body, Raw):
        found = body.data[:4] if packet.fragment_offset else mark_of_first(body.data)
    return found if len(found) == 4 and found[0] == _FIRST else None


def mark_of_first(data: bytes) -> bytes:
    """In a first fragment whose transport header could not be read as a whole."""
    at = data.find(bytes((_FIRST,)))
    return data[at : at + 4] if at >= 0 else b""


def quoted_mark(packet: Packet) -> bytes | None:
    """The mark of the packet that an ICMP error is about, inside of the tunnel if it is about a tunnel's."""
    inner = quoted(packet) if is_error(packet) else None
    return mark_of(layers(inner)[-1]) if inner is not None else None


def without(packet: Packet, known: bytes | None) -> bytes:
    """What a packet carries behind its ports, with the mark and all that is left to chance blotted out."""
    body = packet.body
    if isinstance(body, Tcp):
        kept = (
            int(body.flags),
            body.seq,
            body.ack,
            body.window,
            _blot(body.options, known),
            _blot(body.payload, known),
        )
        text = repr(kept).encode()
    elif isinstance(body, Udp):
        text = _blot(body.payload, known) if isinstance(body.payload, bytes) else b""
    elif isinstance(body, Sctp):
        text = body.chunks[:4] + body.chunks[8:]
    elif isinstance(body, Icmp):
        text = bytes((body.type, body.code)) + (_blot(body.payload, known) if isinstance(body.payload, bytes) else b"")
    elif isinstance(body, Raw):
        text = _blot(body.data[8:] if not packet.fragment_offset else body.data, known)
    else:
        text = b""
    return text + packet.options


def _blot(data: bytes, known: bytes | None) -> bytes:
    if not known:
        return data
    blotted = data.replace(known, b"....")
    cut = next(
        (size for size in (3, 2, 1) if blotted.endswith(known[:size])), 0
    )  # a filling need not end with a whole mark
    return blotted[: len(blotted) - cut] + b"...."[:cut]


def layers(what: Frame | Packet) -> list[Packet]:
    """The packets in a frame, the outermost first."""
    packet = what.packet if isinstance(what, Frame) else what
    found = [packet]
    while True:
        body = packet.body
        if isinstance(body, Packet):
            packet = body
        elif isinstance(body, Udp) and isinstance(body.payload, Packet):
            packet = body.payload
        elif isinstance(body, Udp) and isinstance(body.payload, Vxlan):
            packet = body.payload.frame.packet
        else:
            return found
        found.append(packet)
