"""Captures that are odd or broken: what is wrong is said with file and packet, and what cannot be used is counted."""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from netsim.compiled.addresses import Addresses
from netsim.compiled.capture_kernel import EXTENDED, FRAGMENT, IPV6, MALFORMED, OPTIONS
from netsim.datapath.capture import Capture
from netsim.datapath.captured import Block
from netsim.errors import InputError
from netsim.packet.codec import to_bytes
from netsim.packet.model import Icmp, Packet, Proto, Tcp, TcpFlag, Udp
from tests.support import captures as made
from tests.support.captures import Record

_ETHERNET = bytes(12) + b"\x08\x00"
_SYN_OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
_SYN = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), Proto.TCP, Tcp(1000, 80, options=_SYN_OPTIONS))
_FRAME = _ETHERNET + to_bytes(_SYN)
_CONTRADICTS = "the IP header contradicts itself, the link layer or the packet's length"
_GOOD = Record(5_000, _FRAME, len(_FRAME))
_V6 = Packet(ip_address("fd00::1"), ip_address("fd00::2"), Proto.UDP, Udp(53, 54, b"abcd"))


def _capture(tmp_path: Path, file: bytes) -> Capture:
    path = tmp_path / "some.pcap"
    path.write_bytes(file)
    return Capture(path)


def _refused(tmp_path: Path, file: bytes, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        list(_capture(tmp_path, file).blocks())
    assert str(caught.value).startswith(str(tmp_path / "some.pcap"))


def _one(tmp_path: Path, file: bytes) -> tuple[Capture, Block]:
    capture = _capture(tmp_path, file)
    (block,) = capture.blocks()
    return capture, block


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (b"", "an empty file, not a capture"),
        (b"\xa1\xb2", "not a capture: it begins neither as pcap nor as pcapng, but with a1 b2"),
        (b"hello, world", "not a capture: it begins neither as pcap nor as pcapng, but with 68 65 6c 6c"),
        (b"\x1f\x8b\x08\0", "it is compressed; gunzip it first"),
        (b"\x34\xcd\xb2\xa1" + bytes(40), "it is of the patched pcap format"),
        (made.pcap([])[:20], "a pcap file has a header of 24 bytes, this one 20 bytes in all"),
        (made.pcap([])[:4] + b"\x03" + made.pcap([])[5:], "pcap version 3.4 is not read, only 2.x"),
        (made.pcap([], link=105), "link type 105 is not read, only Ethernet (1)"),
        (made.section()[:12], "the section header at byte 0 claims"),
        (made.section().replace(b"\x4d\x3c\x2b\x1a", bytes(4)), "the section at byte 0 names no byte order"),
        (made.section()[:12] + b"\x02" + made.section()[13:], "pcapng version 2, which is not read, only 1"),
        (made.section() + made.enhanced(0, 0, _FRAME, 62), "packet 1: the block at byte 28 names an interface that"),
        (made.section() + made.simple(_FRAME, 62), "packet 1: the block at byte 28 names an interface that"),
        (made.section() + made.interface(1, tsresol=20), "counts 10^20 ticks a second: that cannot be"),
        (made.section() + made.interface(1, tsresol=0x80 | 64), "counts 2^64 ticks a second: that cannot be"),
        (made.section() + made.interface(1, offset=1 << 60), f"counts time from {1 << 60} seconds: that cannot be"),
        (made.section() + made.block(1, bytes(4)), "the interface description at byte 28 is too short"),
        (made.section() + made.block(1, bytes(8) + b"\x02\x00\xff\x00"), "the option at byte 44 is longer than its block"),
        (made.section() + struct.pack("<II", 6, 33) + bytes(40), "packet 1: the record at byte 28 is damaged"),
        (made.section() + made.block(6, bytes(8)), "packet 1: the record at byte 28 is damaged"),
        (made.section() + made.block(2, bytes(8)), "packet 1: the record at byte 28 is damaged"),
        (made.section() + made.interface(1) + made.block(3, b""), "is damaged"),
        (made.section() + made.interface(1)[:-1] + b"\x99", "is damaged"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, file: bytes, complaint: str) -> None:
    _refused(tmp_path, file, complaint)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x80000000, 262145])
@pytest.mark.parametrize("little", [True, False])
def test_a_record_of_impossible_size_is_damage_and_tells_how_to_go_on(tmp_path: Path, size: int, little: bool) -> None:
    file = made.pcap([_GOOD, _GOOD], little=little)
    at = 24 + 16 + len(_FRAME)
    file = file[: at + 8] + struct.pack("<I" if little else ">I", size) + file[at + 12 :]
    _refused(
        tmp_path, file, f"packet 2: the record at byte {at} is damaged (its lengths cannot be); keep what is before it"
    )


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, text in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=text):
            Capture(path)


@pytest.mark.parametrize("cut", [1, 30, len(_FRAME) + 15])
def test_a_truncated_last_record_is_left_out_and_said(tmp_path: Path, cut: int) -> None:
    for file in (made.pcap([_GOOD, _GOOD]), made.section() + made.interface(1) + made.enhanced(0, 5, _FRAME, 62) * 2):
        capture, block = _one(tmp_path, file[:-cut])
        assert len(block.records) == capture.packets == 1
        assert capture.remarks == {"cut off by the end of the file, and left out": 1}
        assert block.packet(0) == _SYN


def test_an_empty_capture_has_no_packets(tmp_path: Path) -> None:
    for file in (made.pcap([]), made.section(), made.section(">") + made.interface(1, ">")):
        capture = _capture(tmp_path, file)
        assert list(capture.blocks()) == []
        assert (capture.packets, capture.unusable) == (0, 0)


@pytest.mark.parametrize(
    ("frame", "wire", "reason"),
    [
        (bytes(12) + b"\x08\x06" + bytes(28), 42, "not IP (ARP and the like)"),
        (bytes(12) + b"\x00\x26" + bytes(38), 52, "not IP (ARP and the like)"),
        (bytes(13), 13, "too short for its headers"),
        (bytes(13), 60, "the snap length cut its headers off; capture with a larger one"),
        (bytes(12) + b"\x81\x00\x00", 15, "too short for its headers"),
        (_ETHERNET, 14, "too short for its headers"),
        (_FRAME[:33], 33, "too short for its headers"),
        (_FRAME[:33], 62, "the snap length cut its headers off; capture with a larger one"),
        (_FRAME[:53], 62, "the snap length cut its headers off; capture with a larger one"),
        (_FRAME[:60], 62, "the snap length cut its headers off; capture with a larger one"),  # a SYN's window scale
        (_FRAME[:60], 60, _CONTRADICTS),
        (bytes(12) + b"\x86\xdd" + to_bytes(_SYN), 62, _CONTRADICTS),
        (_ETHERNET + b"\x44" + to_bytes(_SYN)[1:], 62, _CONTRADICTS),
        (_ETHERNET + b"\x75" + to_bytes(_SYN)[1:], 62, _CONTRADICTS),
    ],
)  # fmt: skip
def test_packets_that_cannot_be_used_are_counted_by_reason(
    tmp_path: Path, frame: bytes, wire: int, reason: str
) -> None:
    capture, block = _one(tmp_path, made.pcap([_GOOD, Record(7, frame, wire), _GOOD]))
    assert capture.oddities == {reason: 1}
    assert (capture.packets, capture.unusable) == (3, 1)
    with pytest.raises(ValueError, match=re.escape(f"packet 2 cannot be used: {reason}")):
        block.packet(1)
    assert block.packet(0) == block.packet(2) == _SYN


def test_a_cut_that_hides_nothing_of_account(tmp_path: Path) -> None:
    """Payload and, behind a handshake, options: zeros stand for them, and the length is that of the whole."""
    data = Packet(_SYN.src, _SYN.dst, 6, Tcp(1, 2, TcpFlag.ACK, 9, 8, 7, b"\x01\x01\x08\x0a" + bytes(8), b"x" * 500))
    frame = _ETHERNET + to_bytes(data)
    capture, block = _one(tmp_path, made.pcap([Record(0, frame[:56], len(frame))], snap=56))
    assert not capture.oddities
    found = block.packet(0)
    assert isinstance(found.body, Tcp)
    assert (len(found.body.payload), found.body.seq) == (500, 9)
    assert block.records["length"][0] == 552


def test_more_captured_than_sent(tmp_path: Path) -> None:
    capture, block = _one(tmp_path, made.pcap([Record(0, _FRAME, 20)]))
    assert block.packet(0) == _SYN
    assert capture.remarks == {"of which more was captured than was sent, says the file (taken as captured)": 1}


def test_a_bad_checksum_is_taken_and_counted(tmp_path: Path) -> None:
    frame = bytearray(_FRAME)
    frame[25] ^= 1
    capture, block = _one(tmp_path, made.pcap([Record(0, bytes(frame), len(frame)), _GOOD]))
    assert block.packet(0) == _SYN
    assert capture.remarks == {"with a wrong IPv4 header checksum (taken all the same)": 1}


def test_interfaces_of_link_types_that_are_not_read_are_counted(tmp_path: Path) -> None:
    file = made.section() + made.interface(195) + made.interface(1)
    file += made.enhanced(0, 5, bytes(20), 20) + made.enhanced(1, 6, _FRAME, 62)
    capture, block = _one(tmp_path, file)
    assert capture.oddities == {"of an interface whose link type is not read": 1}
    assert block.packet(1) == _SYN


def test_more_interfaces_than_were_foreseen(tmp_path: Path) -> None:
    file = made.section() + b"".join(made.interface(1) for _ in range(40)) + made.enhanced(39, 6, _FRAME, 62)
    assert _one(tmp_path, file)[1].packet(0) == _SYN


@pytest.mark.parametrize("order", ["<", ">"])
def test_simple_packets_have_the_time_of_the_one_before(tmp_path: Path, order: str) -> None:
    file = made.section(order) + made.interface(1, order, snap=40)
    file += (
        made.enhanced(0, 5, _FRAME, 62, order) + made.simple(_FRAME, 62, order) + made.simple(_FRAME[:40], 62, order)
    )
    _, block = _one(tmp_path, file)
    assert block.records["time"].tolist() == [5000, 5000, 5000]
    assert block.records["captured"].tolist() == [48, 26, 26]  # of the IP packet: the interface's snap length counts
    file = (
        made.section(order)
        + made.interface(1, order)
        + made.simple(_FRAME[:61], 61, order)
        + made.simple(_FRAME, 99, order)
    )
    assert _one(tmp_path, file)[1].records["captured"].tolist() == [
        47,
        50,
    ]  # padding is only told apart by what was sent


@pytest.mark.parametrize(
    ("tsresol", "offset", "ticks", "nanoseconds"),
    [
        (None, None, 1_500_000, 1_500_000_000),
        (0, None, 3, 3_000_000_000),
        (9, 100, 7, 100_000_000_007),
        (12, None, 7_999, 7),
        (19, None, 70_000_000_000, 7),
        (0x80, None, 3, 3_000_000_000),
        (0x80 | 10, -1, 1024 + 512, 500_000_000),
        (0x80 | 32, None, 3 << 31, 1_500_000_000),
        (0x80 | 63, None, 1 << 62, 500_000_000),
    ],
)  # fmt: skip
def test_units_of_time(tmp_path: Path, tsresol: int | None, offset: int | None, ticks: int, nanoseconds: int) -> None:
    file = made.section() + made.interface(1, tsresol=tsresol, offset=offset) + made.enhanced(0, ticks, _FRAME, 62)
    assert _one(tmp_path, file)[1].records["time"].tolist() == [nanoseconds]


def test_times_that_cannot_be_are_counted(tmp_path: Path) -> None:
    file = made.section() + made.interface(1, tsresol=0) + made.enhanced(0, (1 << 64) - 1, _FRAME, 62)
    assert _one(tmp_path, file)[0].oddities == {"its time is after the year 2250": 1}


# -- what the project's codec does not read: scapy is asked ------------------------------------------------------------
def test_extension_headers(tmp_path: Path) -> None:
    """Chains as scapy builds them: the transport header behind them is found, and the packets are interpreted."""
    from scapy.layers.inet import TCP, UDP
    from scapy.layers.inet6 import (
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
        IPv6ExtHdrRouting,
        PadN,
    )
    from scapy.layers.ipsec import AH
    from scapy.layers.l2 import Ether

    base = Ether() / IPv6(src="fd00::1", dst="fd00::2")
    hop, dest = IPv6ExtHdrHopByHop(options=PadN(optdata=b"1234")), IPv6ExtHdrDestOpt(options=PadN(optdata=bytes(20)))
    routing, auth = IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=0), AH(nh=6, payloadlen=4, icv=bytes(12))
    later = IPv6ExtHdrFragment(offset=10, m=1, id=7)
    first = IPv6ExtHdrFragment(offset=0, m=1, id=7)
    atomic = IPv6ExtHdrFragment(offset=0, m=0, id=7)
    udp, tcp = UDP(sport=53, dport=54) / b"abcd", TCP(sport=7, dport=8, flags="S")
    frames = [
        bytes(base / hop / udp),
        bytes(base / hop / dest / routing / dest / tcp),
        bytes(base / auth / tcp),
        bytes(base / first / udp),
        bytes(base / hop / later / udp),
        bytes(base / atomic / tcp),
        bytes(base / IPv6ExtHdrHopByHop(nh=59)),
    ]
    capture, block = _one(tmp_path, made.pcap([Record(0, frame, len(frame)) for frame in frames]))
    assert not capture.oddities
    seen = block.records
    assert seen["proto"].tolist() == [17, 6, 6, 17, 17, 6, 59]
    assert seen["sport"].tolist() == [53, 7, 7, 53, 0, 7, 0]
    assert seen["dport"].tolist() == [54, 8, 8, 54, 0, 8, 0]
    assert ((seen["flags"] & FRAGMENT) != 0).tolist() == [False, False, False, True, True, False, False]
    assert (seen["flags"] & (EXTENDED | IPV6)).tolist() == [EXTENDED | IPV6] * 7
    assert seen["length"].tolist() == [len(frame) - 14 for frame in frames]
    assert capture.remarks == {"fragments": 2, "with IPv6 extension headers": 7}
    batch = block.batch(np.arange(7), np.zeros(7, np.int64), np.zeros(7, np.uint32), Addresses())
    assert sorted(batch.extra) == list(range(7))
    batch.check(1)


@pytest.mark.parametrize("room", [12, 7, 1])
def test_an_extension_header_that_does_not_fit(tmp_path: Path, room: int) -> None:
    """One of 8 + 8 * 255 bytes, in a packet with less behind it: the chain ends there, and ports are nowhere."""
    packet = bytearray(bytes(12) + b"\x86\xdd" + to_bytes(_V6)[: 40 + room])
    packet[18:21] = bytes((0, room, 60))
    packet[55:56] = b"\xff" if room > 1 else b""
    capture, block = _one(tmp_path, made.pcap([Record(0, bytes(packet), len(packet))]))
    assert not capture.oddities
    assert block.records["flags"][0] & (MALFORMED | EXTENDED | OPTIONS) == MALFORMED | EXTENDED
    assert block.records["sport"][0] == 0


def test_frames_as_scapy_makes_them(tmp_path: Path) -> None:
    """An independent writer: Ethernet with VLANs, both cooked headers, loopback; read from its own files."""
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
    from scapy.utils import PcapNgWriter, PcapWriter

    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=3) / UDP(sport=1, dport=2) / b"hello"
    ping = IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=77, seq=2)
    frames = [
        Ether() / packet,
        Ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / packet,
        CookedLinux(proto=0x800) / packet,
        CookedLinuxV2(proto=0x800) / packet,
        Loopback(type=2) / packet,
        Ether() / ping,
    ]
    for writer in (PcapWriter, PcapNgWriter):
        for frame in frames:
            path = str(tmp_path / "scapy")
            with writer(path) as file:
                file.write(frame)
            capture = Capture(path)
            (block,) = capture.blocks()
            assert not capture.oddities
            (seen,) = block.records
            pinged = frame is frames[-1]
            assert (seen["src"][1], seen["dst"][1], seen["proto"]) == (0x0A000001, 0x0A000002, 1 if pinged else 17)
            assert (seen["sport"], seen["dport"]) == ((77, 8 << 8) if pinged else (1, 2))
            found = block.packet(0)
            assert isinstance(found.body, Icmp) if pinged else found.body == Udp(1, 2, b"hello")
