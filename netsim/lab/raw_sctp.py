"""SCTP without the kernel's: a raw socket that answers an association's four-way handshake (RFC 9260 §5.1) and no more.

It keeps no state: what it must remember it puts into the cookie that the peer sends back. The cookie is the answer too:
what this end saw, which also follows as the first DATA chunk.
"""

from __future__ import annotations

import struct

from netsim.packet.codec import crc32c

_DATA, _INIT, _INIT_ACK, _COOKIE_ECHO, _COOKIE_ACK, _STATE_COOKIE = 0, 1, 2, 10, 11, 7
_HEADER, _COMMON = 12, 4
_WINDOW, _STREAMS = 65536, 1


def answer(packet: bytes, report: bytes) -> bytes | None:
    """What ``packet`` (from the SCTP header on) is answered with; None unless it is a whole INIT or COOKIE ECHO."""
    if len(packet) < _HEADER + _COMMON:
        return None
    sport, dport, _, _ = struct.unpack("!HHII", packet[:_HEADER])
    kind, _, length = struct.unpack("!BBH", packet[_HEADER : _HEADER + _COMMON])
    body = packet[_HEADER + _COMMON : _HEADER + length]
    if kind == _INIT and len(body) >= 16:
        tag, tsn = struct.unpack("!I8xI", body[:16])
        own = tsn | 1  # any but 0
        cookie = _chunk(_STATE_COOKIE, None, struct.pack("!II", tag, own) + report)
        accepted = struct.pack("!IIHHI", own, _WINDOW, _STREAMS, _STREAMS, own) + cookie
        return _packet(dport, sport, tag, _chunk(_INIT_ACK, 0, accepted))
    if kind == _COOKIE_ECHO and len(body) >= 8:
        tag, own = struct.unpack("!II", body[:8])
        data = struct.pack("!IHHI", own, 0, 0, 0) + body[8:]
        return _packet(dport, sport, tag, _chunk(_COOKIE_ACK, 0, b"") + _chunk(_DATA, 3, data))
    return None


def ports(packet: bytes) -> tuple[int, int] | None:
    """Source and destination port; None if the packet is cut short."""
    return struct.unpack("!HH", packet[:4]) if len(packet) >= _HEADER else None


def _chunk(kind: int, flags: int | None, body: bytes) -> bytes:
    """A chunk, or a parameter (no flags, two bytes of type), padded to four bytes."""
    length = _COMMON + len(body)
    head = struct.pack("!HH", kind, length) if flags is None else struct.pack("!BBH", kind, flags, length)
    return head + body + bytes(-length % 4)


def _packet(sport: int, dport: int, tag: int, chunks: bytes) -> bytes:
    whole = struct.pack("!HHII", sport, dport, tag, 0) + chunks
    return whole[:8] + struct.pack("<I", crc32c(whole)) + whole[_HEADER:]
