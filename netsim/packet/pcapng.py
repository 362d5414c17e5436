"""Writing (and reading back) pcapng: sections, one interface per device, packets with comments. Nothing else.

pcapng draft-ietf-opsawg-pcapng; block layouts as Wireshark reads them. Timestamps are nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from netsim.packet.codec import PacketError

LINK_ETHERNET, LINK_RAW = 1, 101
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_COMMENT, _IF_NAME, _IF_TSRESOL, _SHB_USERAPPL = 1, 2, 9, 4


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


class PcapngWriter:
    """Writes to an open binary file; the caller closes it."""

    def __init__(self, file: BinaryIO, application: str = "netsim") -> None:
        self._file = file
        self._interfaces = 0
        options = _option(_SHB_USERAPPL, application.encode()) + _option(0, b"")
        file.write(_block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + options))

    def add_interface(self, name: str, linktype: int = LINK_ETHERNET) -> int:
        """The number that packets of this interface use."""
        options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, b"\x09") + _option(0, b"")
        self._file.write(_block(_INTERFACE, struct.pack("<HHI", linktype, 0, 0) + options))
        self._interfaces += 1
        return self._interfaces - 1

    def packet(self, interface: int, data: bytes, timestamp_ns: int = 0, comment: str = "") -> None:
        if not 0 <= interface < self._interfaces:
            raise ValueError(f"interface {interface} was never added")
        head = struct.pack("<IIIII", interface, timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF, len(data), len(data))
        options = _option(_COMMENT, comment.encode()[:65535]) + _option(0, b"") if comment else b""
        self._file.write(_block(_PACKET, head + data + bytes(-len(data) % 4) + options))


@dataclass(frozen=True, slots=True)
class Captured:
    interface: str
    linktype: int
    timestamp_ns: int
    data: bytes
    comment: str


def read(data: bytes) -> Iterator[Captured]:
    """The packets of a little-endian pcapng file such as the writer above makes; unknown blocks are passed over."""
    interfaces: list[tuple[str, int]] = []
    at = 0
    while at < len(data):
        if len(data) - at < 12:
            raise PacketError(f"the capture ends inside a block at byte {at}")
        kind, length = struct.unpack_from("<II", data, at)
        if length < 12 or at + length > len(data):
            raise PacketError(f"the block at byte {at} claims {length} bytes, {len(data) - at} are left")
        body = data[at + 8 : at + length - 4]
        if kind == _SECTION:
            if struct.unpack_from("<I", body)[0] != _MAGIC:
                raise PacketError("a pcapng section of the other byte order")
            interfaces = []
        elif kind == _INTERFACE:
            options = dict(_options(body[8:]))
            interfaces.append((options.get(_IF_NAME, b"").decode(), struct.unpack_from("<H", body)[0]))
        elif kind == _PACKET:
            number, high, low, size, _ = struct.unpack_from("<IIIII", body)
            options = dict(_options(body[20 + size + (-size % 4) :]))
            name, linktype = interfaces[number]
            comment = options.get(_COMMENT, b"").decode()
            yield Captured(name, linktype, high << 32 | low, body[20 : 20 + size], comment)
        at += length


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + (-length % 4)
