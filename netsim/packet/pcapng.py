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
_SHORTEST = {_SECTION: 16, _INTERFACE: 8, _PACKET: 20}  # bytes of body before the options
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
    interfaces: list[tuple[str, int, int]] = []
    at = 0
    while at < len(data):
        if len(data) - at < 12:
            raise PacketError(f"the capture ends inside a block at byte {at}")
        kind, length = struct.unpack_from("<II", data, at)
        if kind == _SECTION and data[at + 8 : at + 12] == _MAGIC.to_bytes(4, "big"):
            raise PacketError("a pcapng section of the other byte order")
        if at == 0 and kind != _SECTION:
            raise PacketError("not a pcapng file: it does not begin with a section header")
        if length < 12 or length % 4 or at + length > len(data):
            raise PacketError(f"the block at byte {at} claims {length} bytes, {len(data) - at} are left")
        body = data[at + 8 : at + length - 4]
        if len(body) < _SHORTEST.get(kind, 0):
            raise PacketError(f"the block at byte {at} is too short for its type {kind}")
        if kind == _SECTION:
            if body[:4] != _MAGIC.to_bytes(4, "little"):
                raise PacketError(f"the section at byte {at} names no byte order")
            interfaces = []
        elif kind == _INTERFACE:
            interfaces.append(_interface(body))
        elif kind == _PACKET:
            yield _packet(body, interfaces, at)
        at += length


def _interface(body: bytes) -> tuple[str, int, int]:
    """Name, link type, nanoseconds of a tick."""
    options = dict(_options(body[8:]))
    resolution = options.get(_IF_TSRESOL, b"\x06")
    if resolution[:1] not in (b"\x09", b"\x06", b"\x03", b"\x00"):
        raise PacketError(f"an interface counts time in units that are not supported (if_tsresol {resolution.hex()})")
    name = options.get(_IF_NAME, b"").decode(errors="replace")
    return name, int.from_bytes(body[:2], "little"), 10 ** (9 - resolution[0])


def _packet(body: bytes, interfaces: list[tuple[str, int, int]], at: int) -> Captured:
    number, high, low, size, _ = struct.unpack_from("<IIIII", body)
    if number >= len(interfaces):
        raise PacketError(f"the packet at byte {at} names interface {number} of {len(interfaces)}")
    if size > len(body) - 20:
        raise PacketError(f"the packet at byte {at} claims {size} bytes, its block holds {len(body) - 20}")
    name, linktype, tick = interfaces[number]
    comment = dict(_options(body[20 + size + (-size % 4) :])).get(_COMMENT, b"").decode(errors="replace")
    return Captured(name, linktype, (high << 32 | low) * tick, body[20 : 20 + size], comment)


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + (-length % 4)
