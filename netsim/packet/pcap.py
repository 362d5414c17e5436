"""Classic pcap files, as tcpdump writes them: both byte orders, microseconds and nanoseconds (pcap-savefile(5))."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from netsim.packet import pcapng
from netsim.packet.codec import PacketError
from netsim.packet.pcapng import Captured

_FORMATS = {  # magic as it lies in the file → (byte order, nanoseconds of a tick)
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"


def read(data: bytes) -> Iterator[Captured]:
    """The packets of a capture, pcap or pcapng. A damaged file gives its good packets, then PacketError."""
    if data[:4] == _PCAPNG:
        yield from pcapng.read(data)
        return
    if data[:4] not in _FORMATS:
        raise PacketError("not a capture: it begins neither as pcap nor as pcapng")
    if len(data) < 24:
        raise PacketError(f"a pcap file has a header of 24 bytes, this one {len(data)} bytes in all")
    order, tick = _FORMATS[data[:4]]
    linktype = struct.unpack_from(f"{order}I", data, 20)[0] & 0xFFFF
    at, number = 24, 0
    while at < len(data):
        number += 1
        if len(data) - at < 16:
            raise PacketError(f"packet {number}: the file ends inside its header")
        seconds, fraction, size, _ = struct.unpack_from(f"{order}IIII", data, at)
        at += 16
        if size > len(data) - at:
            raise PacketError(f"packet {number}: {size} bytes are announced, {len(data) - at} are left")
        yield Captured("", linktype, seconds * 1_000_000_000 + fraction * tick, data[at : at + size], "")
        at += size
