"""Captures at the speed of memory: a walk over the records of a file, and a dissection of each frame into one ``SEEN``.

    file bytes ──walk_pcap / walk_pcapng──▶ where each frame lies, when, of what link type
                                  └──dissect──▶ addresses, ports, flags, lengths; or the reason why it cannot be used

The meaning is that of ``netsim.packet.codec`` on the frame as it was sent: the bytes that a snap length cut away count as
zeros, and a frame is CUT when one of them would have decided something. Formats: pcap-savefile(5); pcapng draft
(draft-ietf-opsawg-pcapng); link types of tcpdump.org/linktypes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from netsim.compiled.jit import Int, kernel
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Proto

SEEN = np.dtype(
    [
        ("at", np.int64),  # where the frame begins in the file; of a usable one, its IP packet
        ("time", np.int64),  # nanoseconds
        ("captured", np.uint32),  # bytes that are there, from ``at``
        ("wire", np.uint32),  # bytes that were sent, from ``at``
        ("src", np.uint64, 2),  # the two halves of an address; IPv4 is the lower half
        ("dst", np.uint64, 2),
        ("seq", np.uint32),
        ("ack", np.uint32),
        ("length", np.uint32),  # of the IP packet
        ("link", np.uint16),
        ("sport", np.uint16),
        ("dport", np.uint16),
        ("window", np.uint16),
        ("proto", np.uint8),
        ("tcp_flags", np.uint8),
        ("ttl", np.uint8),
        ("tos", np.uint8),
        ("wscale", np.int8),
        ("tcp_options", np.uint8),
        ("flags", np.uint8),
        ("oddity", np.uint8),
    ],
    align=True,
)

# ``flags``. The first two are those of a batch's column.
IPV6, DONT_FRAGMENT = 1, 2
FRAGMENT = 4
EXTENDED = 8  # IPv6 extension headers; ``proto`` and what follows are those behind them
OPTIONS = 16  # IPv4 options
MALFORMED = 32  # the transport header contradicts itself or does not fit: no ports
BAD_CHECKSUM = 64  # of the IPv4 header
OVERLONG = 128  # more was captured than was sent, so the record says

# ``oddity``: why a frame cannot be used. 0: it can.
USABLE, NOT_IP, SHORT, CUT, BAD_HEADER, UNKNOWN_LINK, BAD_TIME = range(7)

# How a walk ended.
AT_END, FULL, SECTION, INTERFACE, ENDS_INSIDE, DAMAGED, NO_INTERFACE = range(7)

INTERFACES = np.dtype(
    [
        ("link", np.uint16),
        ("snap", np.uint32),
        ("divisor", np.uint64),  # ticks are divided by this …
        ("second", np.uint64),  # … and so many are then a second
        ("offset", np.int64),  # seconds
    ],
    align=True,
)

ETHERNET, NULL, LOOP, SLL, SLL2 = 1, 0, 108, 113, 276
RAW_LINKS: Final = (101, 12, 14, 228, 229)
LINKS: Final = {ETHERNET, NULL, LOOP, SLL, SLL2, *RAW_LINKS}

LARGEST = 262144  # libpcap's MAXIMUM_SNAPLEN: a larger record is damage
_LAST_SECOND = 9_000_000_000  # int64 nanoseconds end in 2262
_BILLION = 1_000_000_000
_TCP, _UDP, _SCTP, _ICMP, _ICMPV6 = (
    int(proto) for proto in (Proto.TCP, Proto.UDP, Proto.SCTP, Proto.ICMP, Proto.ICMPV6)
)
_AH, _V6_FRAGMENT = 51, 44
_V4, _V6 = ETH_IPV4, ETH_IPV6
_SYN = 2


@kernel
def _u16(data: Any, at: Int) -> Int:
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@kernel
def _u32(data: Any, at: Int) -> Int:
    return _u16(data, at) << 16 | _u16(data, at + 2)


@kernel
def _u64(data: Any, at: Int) -> Any:
    return np.uint64(_u32(data, at)) << np.uint64(32) | np.uint64(_u32(data, at + 4))


@kernel
def _word(data: Any, at: Int, little: bool) -> Int:
    """32 bits in the byte order of the file."""
    if little:
        high = np.int64(data[at + 3]) << 24 | np.int64(data[at + 2]) << 16
        return high | np.int64(data[at + 1]) << 8 | np.int64(data[at])
    return _u32(data, at)


@kernel
def _half(data: Any, at: Int, little: bool) -> Int:
    return np.int64(data[at + 1]) << 8 | np.int64(data[at]) if little else _u16(data, at)


# -- walks -------------------------------------------------------------------------------------------------------------
@kernel
def _note(record: Any, at: Int, captured: Int, wire: Int, link: Int, time: Int) -> None:
    record["at"], record["captured"], record["wire"], record["link"], record["time"] = at, captured, wire, link, time
    record["flags"] = OVERLONG if captured > wire else 0
    record["oddity"] = USABLE


@kernel
def walk_pcap(data: Any, at: Int, little: bool, tick: Int, link: Int, snap: Int, seen: Any) -> Any:
    """Note records from byte ``at`` on, until ``seen`` is full: (byte after the last one, how many, how it ended)."""
    size, count = len(data), 0
    while count < len(seen):
        if at == size:
            return at, count, AT_END
        if size - at < 16:
            return at, count, ENDS_INSIDE
        seconds, fraction = _word(data, at, little), _word(data, at + 4, little)
        captured, wire = _word(data, at + 8, little), _word(data, at + 12, little)
        if captured > max(snap, LARGEST):
            return at, count, DAMAGED
        if captured > size - at - 16:
            return at, count, ENDS_INSIDE
        _note(seen[count], at + 16, captured, wire, link, seconds * _BILLION + fraction * tick)
        at += 16 + captured
        count += 1
    return at, count, FULL


@kernel
def walk_pcapng(data: Any, at: Int, little: bool, interfaces: Any, known: Int, last: Int, seen: Any) -> Any:
    """As ``walk_pcap``; ends also at a SECTION or an INTERFACE block, which the caller reads and steps over.

    ``known`` of ``interfaces`` belong to this section. ``last``: the time of the packet before, for blocks without one."""
    size, count = len(data), 0
    while count < len(seen):
        if at == size:
            return at, count, AT_END
        if size - at < 12:
            return at, count, ENDS_INSIDE
        kind, length = _word(data, at, little), _word(data, at + 4, little)
        if kind == 0x0A0D0D0A:
            return at, count, SECTION
        if length < 12 or length % 4 != 0:
            return at, count, DAMAGED
        if length > size - at:
            return at, count, ENDS_INSIDE
        if _word(data, at + length - 4, little) != length:
            return at, count, DAMAGED
        if kind == 1:
            return at, count, INTERFACE
        if kind in (6, 2):  # an enhanced packet, an obsolete one
            if length < 32:
                return at, count, DAMAGED
            which = _word(data, at + 8, little) if kind == 6 else _half(data, at + 8, little)
            captured, wire = _word(data, at + 20, little), _word(data, at + 24, little)
            if captured > length - 32:
                return at, count, DAMAGED
            if which >= known:
                return at, count, NO_INTERFACE
            face = interfaces[which]
            ticks = np.uint64(_word(data, at + 12, little)) << np.uint64(32) | np.uint64(_word(data, at + 16, little))
            ticks = ticks // face["divisor"]
            seconds = ticks // face["second"]
            late = seconds > np.uint64(_LAST_SECOND)
            if not late:
                rest = np.int64(ticks % face["second"]) * _BILLION // np.int64(face["second"])
                last = (np.int64(seconds) + face["offset"]) * _BILLION + rest
            _note(seen[count], at + 28, captured, wire, face["link"], last)
            if late:
                seen[count]["oddity"] = BAD_TIME
            count += 1
        elif kind == 3:  # a simple packet: no time, of the first interface
            if length < 16:
                return at, count, DAMAGED
            if known == 0:
                return at, count, NO_INTERFACE
            face = interfaces[0]
            wire = _word(data, at + 8, little)
            captured = min(wire, length - 16)
            if face["snap"] != 0:
                captured = min(captured, np.int64(face["snap"]))
            _note(seen[count], at + 12, captured, wire, face["link"], last)
            count += 1
        at += length
    return at, count, FULL


# -- dissection --------------------------------------------------------------------------------------------------------
@kernel
def dissect(data: Any, seen: Any) -> None:
    """Fill in each record of ``seen``, of zeros but for what a walk has noted, from the frame it points at."""
    for number in range(len(seen)):
        record = seen[number]
        record["wscale"] = -1
        if record["oddity"] != USABLE:
            continue
        at, captured = np.int64(record["at"]), np.int64(record["captured"])
        skip = _link_header(data, at, captured, np.int64(record["link"]))
        wire = max(np.int64(record["wire"]), captured)
        if skip < 0:
            record["oddity"] = CUT if -skip == SHORT and wire > captured else -skip
            continue
        record["at"], record["captured"], record["wire"] = at + skip, captured - skip, wire - skip
        record["oddity"] = _network(data, record, at + skip, captured - skip, wire - skip)


@kernel
def _link_header(data: Any, at: Int, size: Int, link: Int) -> Int:
    """How many bytes lie before the IP packet, VLAN tags included; or a reason, negated."""
    if link == ETHERNET:
        skip, where = 14, 12
    elif link == SLL:
        skip, where = 16, 14
    elif link == SLL2:
        skip, where = 20, 0
    elif link in (NULL, LOOP):
        return _address_family(data, at, size)
    else:
        return 0
    if size < skip:
        return -SHORT
    kind = _u16(data, at + where)
    while kind in (0x8100, 0x88A8, 0x9100):
        if size < skip + 4:
            return -SHORT
        kind = _u16(data, at + skip + 2)
        skip += 4
    if kind not in (_V4, _V6):
        return -NOT_IP
    return _agreeing(data, at, size, skip, kind == _V4)


@kernel
def _address_family(data: Any, at: Int, size: Int) -> Int:
    """Four bytes of address family, in the byte order of the capturing host (NULL) or of the network (LOOP)."""
    if size < 4:
        return -SHORT
    family = _u32(data, at)
    if family > 0xFFFF:
        family = _word(data, at, True)
    if family not in (2, 10, 24, 28, 30):  # AF_INET; AF_INET6 of Linux, NetBSD, FreeBSD and macOS
        return -NOT_IP
    return _agreeing(data, at, size, 4, family == 2)


@kernel
def _agreeing(data: Any, at: Int, size: Int, skip: Int, four: bool) -> Int:
    """``skip``, if the packet behind it is of the IP version that its link layer announced."""
    if size > skip and (np.int64(data[at + skip]) >> 4 == 4) != four:
        return -BAD_HEADER
    return skip


@kernel
def _network(data: Any, record: Any, at: Int, size: Int, wire: Int) -> Int:
    """The IP header and what follows; ``size`` bytes are there of ``wire`` that were sent. The record's oddity."""
    lacking = CUT if size < wire else SHORT
    if size < 1:
        return lacking
    version = np.int64(data[at]) >> 4
    if version == 4:
        if size < 20:
            return lacking
        header, total = (np.int64(data[at]) & 15) * 4, _u16(data, at + 2)
        if header < 20 or total < header or total > wire:
            return BAD_HEADER
        if header > size:
            return CUT
        field, flags = _u16(data, at + 6), np.int64(record["flags"])
        flags |= (DONT_FRAGMENT if field & 0x4000 else 0) | (FRAGMENT if field & 0x3FFF else 0)
        flags |= (OPTIONS if header > 20 else 0) | (0 if _summed(data, at, header) else BAD_CHECKSUM)
        record["flags"] = flags
        record["tos"], record["ttl"], record["proto"] = data[at + 1], data[at + 8], data[at + 9]
        record["src"][1], record["dst"][1] = _u32(data, at + 12), _u32(data, at + 16)
        record["length"] = total
        later, partial = (field & 0x1FFF) != 0, (field & 0x2000) != 0
    elif version == 6:
        if size < 40:
            return lacking
        total = 40 + _u16(data, at + 4)
        if total > wire:
            return BAD_HEADER
        record["flags"] = record["flags"] | IPV6
        record["tos"], record["ttl"], record["proto"] = _u16(data, at) >> 4 & 0xFF, data[at + 7], data[at + 6]
        record["src"][0], record["src"][1] = _u64(data, at + 8), _u64(data, at + 16)
        record["dst"][0], record["dst"][1] = _u64(data, at + 24), _u64(data, at + 32)
        record["length"] = total
        header, later, partial = _extensions(data, record, at, min(size, total), total)
        if header < 0:
            return CUT
    else:
        return BAD_HEADER
    if later:
        return USABLE
    return _transport(data, record, at + header, min(size, total) - header, total - header, partial)


@kernel
def _summed(data: Any, at: Int, header: Int) -> bool:
    total = np.int64(0)
    for place in range(at, at + header, 2):
        total += _u16(data, place)
    total = (total & 0xFFFF) + (total >> 16)
    return bool(total == 0xFFFF or total == 0x1FFFE)


@kernel
def _extensions(data: Any, record: Any, at: Int, size: Int, total: Int) -> Any:
    """Past the extension headers: (bytes before the transport header, a later fragment?, a fragment with more to come?).
    -1 when the snap length cut one of them. A header that does not fit ends the chain: the record is MALFORMED."""
    header, later, partial = np.int64(40), False, False
    kind = np.int64(record["proto"])
    while kind in (0, 43, 44, 51, 60, 135, 139, 140) and not later:
        record["flags"] = record["flags"] | EXTENDED
        if header + 8 > total:
            record["flags"] = record["flags"] | MALFORMED
            later = True
            break
        if header + 8 > size:
            return np.int64(-1), later, partial
        if kind == _V6_FRAGMENT:
            field = _u16(data, at + header + 2)
            later, partial = (field & 0xFFF8) != 0, (field & 1) != 0
            if later or partial:
                record["flags"] = record["flags"] | FRAGMENT
            length = np.int64(8)
        elif kind == _AH:
            length = (np.int64(data[at + header + 1]) + 2) * 4
        else:
            length = (np.int64(data[at + header + 1]) + 1) * 8
        kind = np.int64(data[at + header])
        header += length
        record["proto"] = kind
        if header > total:
            record["flags"] = record["flags"] | MALFORMED
            later = True
    return header, later, partial


@kernel
def _transport(data: Any, record: Any, at: Int, there: Int, size: Int, partial: bool) -> Int:
    """The header of a whole datagram or a first fragment: ``there`` of its ``size`` bytes were captured."""
    proto, six = np.int64(record["proto"]), (record["flags"] & IPV6) != 0
    is_icmp = proto == (_ICMPV6 if six else _ICMP)
    if proto == _TCP:
        needed = 20
    elif proto == _SCTP:
        needed = 12
    elif proto == _UDP or is_icmp:
        needed = 8
    else:
        return USABLE
    if size < needed:
        record["flags"] = record["flags"] | MALFORMED
        return USABLE
    if there < needed:
        return CUT
    if proto == _TCP:
        header = (np.int64(data[at + 12]) >> 4) * 4
        if header < 20 or header > size:
            record["flags"] = record["flags"] | MALFORMED
            return USABLE
        record["seq"], record["ack"] = _u32(data, at + 4), _u32(data, at + 8)
        record["tcp_flags"], record["window"] = data[at + 13], _u16(data, at + 14)
        record["tcp_options"] = header - 20
        if header > 20:
            if there < header and data[at + 13] & _SYN:
                return CUT
            record["wscale"] = _window_scale(data, at + 20, at + header, at + there)
    elif proto == _UDP and not partial and _u16(data, at + 4) != size:
        record["flags"] = record["flags"] | MALFORMED
        return USABLE
    if is_icmp:
        record["sport"], record["dport"] = _u16(data, at + 4), _u16(data, at)
    else:
        record["sport"], record["dport"] = _u16(data, at), _u16(data, at + 2)
    return USABLE


@kernel
def _window_scale(data: Any, at: Int, stop: Int, there: Int) -> Int:
    """As ``conntrack_tcp.window_scale``, -1 for none; bytes from ``there`` on count as 0."""
    while at < stop and at < there and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        length = np.int64(data[at + 1]) if at + 1 < min(stop, there) else np.int64(0)
        if length < 2 or at + length > stop:
            return np.int64(-1)
        if data[at] == 3 and length == 3:
            return min(np.int64(data[at + 2]), 14) if at + 2 < there else np.int64(0)
        at += length
    return np.int64(-1)
