"""Capture files made by hand, byte by byte, in every variety that the readers must know; and link-layer headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hypothesis import strategies as st

ETHERNET, NULL, LOOP, SLL, SLL2, RAW = 1, 0, 108, 113, 276, 101


@dataclass(frozen=True)
class Record:
    """One frame: nanoseconds, the bytes that were captured, how many were sent."""

    time: int
    data: bytes
    wire: int
    link: int = ETHERNET


def pcap(records: list[Record], *, little: bool = True, nano: bool = False, snap: int = 262144, link: int = 1) -> bytes:
    order = "<" if little else ">"
    file = struct.pack(f"{order}IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)
    for one in records:
        second, rest = divmod(one.time, 1_000_000_000)
        file += struct.pack(f"{order}IIII", second, rest if nano else rest // 1000, len(one.data), one.wire) + one.data
    return file


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(
    link: int, order: str = "<", *, snap: int = 0, tsresol: int | None = None, offset: int | None = None
) -> bytes:
    options = option(2, b"eth0", order)
    if tsresol is not None:
        options += option(9, bytes((tsresol,)), order)
    if offset is not None:
        options += option(14, struct.pack(f"{order}q", offset), order)
    return block(1, struct.pack(f"{order}HHI", link, 0, snap) + options + option(0, b"", order), order)


def enhanced(which: int, ticks: int, data: bytes, wire: int, order: str = "<") -> bytes:
    head = struct.pack(f"{order}IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(6, head + data + bytes(-len(data) % 4) + option(1, b"a comment", order) + option(0, b"", order), order)


def obsolete(which: int, ticks: int, data: bytes, wire: int, order: str = "<") -> bytes:
    head = struct.pack(f"{order}HHIIII", which, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wire)
    return block(2, head + data, order)


def simple(data: bytes, wire: int, order: str = "<") -> bytes:
    return block(3, struct.pack(f"{order}I", wire) + data, order)


UNKNOWN = (4, 5, 10, 0xBAD, 0x80000001)  # name resolution, statistics, secrets, custom, private


@st.composite
def links(draw: st.DrawFn, version: int) -> tuple[int, bytes]:
    """A link type and the header that lies before an IP packet of this version, VLAN tags included."""
    kind = 0x0800 if version == 4 else 0x86DD
    link = draw(st.sampled_from([ETHERNET, ETHERNET, SLL, SLL2, NULL, LOOP, RAW, 12, 228 if version == 4 else 229]))
    tags = (
        draw(st.lists(st.sampled_from([0x8100, 0x88A8, 0x9100]), max_size=3)) if link in (ETHERNET, SLL, SLL2) else []
    )
    kinds = [*tags, kind]
    tail = b"".join(struct.pack("!HH", 0x6064, after) for after in kinds[1:])
    match link:
        case 1:
            return link, bytes(range(12)) + struct.pack("!H", kinds[0]) + tail
        case 113:
            return link, struct.pack("!HHH8sH", 4, 1, 6, b"\x02" * 8, kinds[0]) + tail
        case 276:
            return link, struct.pack("!HHIHBB8s", kinds[0], 0, 7, 1, 4, 6, b"\x02" * 8) + tail
        case 0 | 108:
            family = 2 if version == 4 else draw(st.sampled_from([10, 24, 28, 30]))
            return link, struct.pack("!I" if link == LOOP else draw(st.sampled_from(["<I", ">I"])), family)
        case _:
            return link, b""


@st.composite
def files(draw: st.DrawFn, records: list[Record]) -> tuple[bytes, int]:
    """The records as a file of some variety, and the nanoseconds of a tick of its clock. Records of several link types
    make a pcapng."""
    little = draw(st.booleans())
    same = len({one.link for one in records}) < 2
    if same and draw(st.booleans()):
        nano = draw(st.booleans())
        link = records[0].link if records else ETHERNET
        return pcap(records, little=little, nano=nano, link=link, snap=draw(st.sampled_from([0, 65535, 262144]))), (
            1 if nano else 1000
        )
    order = "<" if little else ">"
    tick, tsresol = draw(st.sampled_from([(1, 9), (1000, 6), (1000, None), (1_000_000, 3), (1_000_000_000, 0)]))
    faces = list(dict.fromkeys(one.link for one in records)) or [ETHERNET]
    file, known = b"", 0
    for number, one in enumerate(records):
        if not number or draw(st.booleans()):
            file, known = file + section(order), 0
        while known <= faces.index(one.link):
            file += interface(faces[known], order, tsresol=tsresol)
            known += 1
        if draw(st.booleans()):
            file += block(draw(st.sampled_from(UNKNOWN)), draw(st.binary(max_size=9)), order)
        make = draw(st.sampled_from([enhanced, obsolete]))
        file += make(faces.index(one.link), one.time // tick, one.data, one.wire, order)
    return file or section(order), tick
