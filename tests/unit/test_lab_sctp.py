"""The answers of a raw socket that stands in for a kernel's SCTP (RFC 9260 §5.1)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.lab import raw_sctp
from netsim.packet.address import ip
from netsim.packet.codec import packet_bytes, parse_packet
from netsim.packet.model import Packet, Proto, Sctp

REPORT = b'{"listener": "pod/a/b"}\n'


def _bytes(body: Sctp) -> bytes:
    return packet_bytes(Packet(ip("10.0.0.1"), ip("10.0.0.2"), Proto.SCTP, body))[20:]


def _parsed(answer: bytes) -> Sctp:
    """Through netsim's own codec, and to the same bytes again: the checksum is right."""
    header = packet_bytes(Packet(ip("10.0.0.2"), ip("10.0.0.1"), Proto.SCTP, Sctp(1, 2, chunks=b"")))[:20]
    whole = header[:2] + struct.pack("!H", 20 + len(answer)) + header[4:]
    body = parse_packet(whole + answer).body
    assert isinstance(body, Sctp)
    assert _bytes(body) == answer
    return body


def _init(tag: int, tsn: int) -> bytes:
    return struct.pack("!BBHIIHHI", 1, 0, 20, tag, 65536, 1, 1, tsn)


@given(st.integers(1, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(1, 65535), st.binary(max_size=300))
def test_a_handshake_ends_with_the_report(tag: int, tsn: int, sport: int, report: bytes) -> None:
    accepted = raw_sctp.answer(_bytes(Sctp(sport, 99, chunks=_init(tag, tsn))), report)
    assert accepted is not None
    body = _parsed(accepted)
    assert (body.sport, body.dport, body.vtag) == (99, sport, tag)
    assert body.chunks[0] == 2
    own = struct.unpack("!I", body.chunks[4:8])[0]
    assert own != 0
    kind, length = struct.unpack("!HH", body.chunks[20:24])
    assert kind == 7
    cookie = body.chunks[24 : 20 + length]
    echo = struct.pack("!BBH", 10, 0, 4 + len(cookie)) + cookie
    done = raw_sctp.answer(_bytes(Sctp(sport, 99, own, echo + bytes(-len(echo) % 4))), b"not this one")
    assert done is not None
    last = _parsed(done)
    assert (last.vtag, last.chunks[:4]) == (tag, b"\x0b\x00\x00\x04")
    kind, flags, length = struct.unpack("!BBH", last.chunks[4:8])
    assert (kind, flags) == (0, 3)
    assert last.chunks[20 : 4 + length] == report


@pytest.mark.parametrize(
    "chunks", [b"", b"\x01\x00\x00\x04", b"\x06\x00\x00\x04", b"\x0a\x00\x00\x05\x01\0\0\0", b"\x01\0"]
)
def test_nothing_else_is_answered(chunks: bytes) -> None:
    assert raw_sctp.answer(_bytes(Sctp(5, 99, chunks=chunks)), REPORT) is None


@given(st.binary(max_size=60))
def test_no_bytes_are_too_odd(packet: bytes) -> None:
    raw_sctp.answer(packet, REPORT)
    raw_sctp.ports(packet)
