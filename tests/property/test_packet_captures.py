"""Capture files: what is written is read, by us, by scapy and by tcpdump; what is damaged is said to be."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import PcapNgReader, RawPcapNgReader

from netsim.packet import pcap, pcapng
from netsim.packet.address import ip
from netsim.packet.codec import PacketError, packet_bytes
from netsim.packet.model import Packet, Proto, Udp
from netsim.packet.pcapng import LINK_ETHERNET, LINK_RAW, Captured, PcapngWriter

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
times = st.integers(0, 2**63 - 1)
captured = st.builds(
    Captured, names, st.sampled_from((LINK_ETHERNET, LINK_RAW)), times, st.binary(min_size=1, max_size=70), names
)
captures = st.lists(captured, max_size=6)


def written(packets: list[Captured]) -> bytes:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    numbers: dict[tuple[str, int], int] = {}
    for one in packets:
        key = (one.interface, one.linktype)
        if key not in numbers:
            numbers[key] = writer.add_interface(*key)
        writer.packet(numbers[key], one.data, one.timestamp_ns, one.comment)
    return file.getvalue()


def classic(packets: list[Captured], order: str, magic: int, tick: int) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, LINK_RAW)
    return head + b"".join(
        struct.pack(f"{order}IIII", p.timestamp_ns // 10**9, p.timestamp_ns % 10**9 // tick, len(p.data), len(p.data))
        + p.data
        for p in packets
    )


@given(captures)
def test_pcapng_round_trips(packets: list[Captured]) -> None:
    assert list(pcapng.read(written(packets))) == packets
    assert list(pcap.read(written(packets))) == packets


@settings(deadline=None)
@given(captures)
def test_scapy_reads_the_same(packets: list[Captured]) -> None:
    with RawPcapNgReader(io.BytesIO(written(packets))) as reader:
        read = [(data, meta.linktype, (meta.tshigh << 32) | meta.tslow) for data, meta in reader]
    assert read == [(p.data, p.linktype, p.timestamp_ns) for p in packets]


def test_comments_and_names_reach_other_readers() -> None:
    packet = Packet(ip("10.0.0.1"), ip("10.0.0.2"), Proto.UDP, Udp(1, 2, b"abc"))
    file = io.BytesIO(written([Captured("node/n1 eth0", LINK_RAW, 1, packet_bytes(packet), "KUBE-SVC-X rule 1")]))
    with PcapNgReader(file) as reader:
        (seen,) = reader
    assert seen.comment == b"KUBE-SVC-X rule 1"
    assert seen.sniffed_on == "node/n1 eth0"
    assert bytes(seen) == packet_bytes(packet)


@pytest.mark.kernel
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    tool = shutil.which("tcpdump")
    assert tool is not None
    packet = Packet(ip("10.0.0.1"), ip("10.0.0.2"), Proto.UDP, Udp(1000, 2000, b"abc"))
    (tmp_path / "x.pcapng").write_bytes(written([Captured("eth0", LINK_RAW, 0, packet_bytes(packet), "why")]))
    done = subprocess.run([tool, "-nvvr", str(tmp_path / "x.pcapng")], capture_output=True, text=True, timeout=20)
    assert "10.0.0.1.1000 > 10.0.0.2.2000: [udp sum ok] UDP, length 3" in done.stdout


@given(captures, st.sampled_from("<>"), st.sampled_from([(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)]))
def test_classic_captures_in_every_dialect(packets: list[Captured], order: str, dialect: tuple[int, int]) -> None:
    magic, tick = dialect
    packets = [Captured("", LINK_RAW, p.timestamp_ns % 2**61 // tick * tick, p.data, "") for p in packets]
    assert list(pcap.read(classic(packets, order, magic, tick))) == packets


@given(captures.filter(bool), st.data(), st.booleans())
def test_a_cut_file_gives_its_whole_packets_and_then_says_so(
    packets: list[Captured], data: st.DataObject, next_generation: bool
) -> None:
    packets = [Captured("", LINK_RAW, p.timestamp_ns % 2**61, p.data, "") for p in packets]
    whole = written(packets) if next_generation else classic(packets, "<", 0xA1B23C4D, 1)
    cut = whole[: -data.draw(st.integers(1, len(packets[-1].data)))]
    seen: list[Captured] = []
    with pytest.raises(PacketError, match=r"bytes|ends inside"):
        seen.extend(pcap.read(cut))
    assert seen == packets[:-1]


@given(captures, st.data())
def test_damage_is_a_packet_error_or_harmless(packets: list[Captured], data: st.DataObject) -> None:
    broken = bytearray(written(packets))
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] ^= data.draw(st.integers(1, 255))
    try:
        list(pcap.read(bytes(broken)))
    except PacketError:
        return


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1"]))
def test_any_bytes_are_a_capture_or_a_packet_error(data: bytes, start: bytes) -> None:
    try:
        list(pcap.read(start + data))
    except PacketError:
        return
