"""The capture reader against the project's own codec: the same packets, whatever file, link layer or cut they come in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from netsim.compiled.addresses import Addresses
from netsim.compiled.capture_kernel import CUT, EXTENDED
from netsim.datapath.batch import Batch
from netsim.datapath.capture import Capture
from netsim.datapath.captured import REASONS, Block
from netsim.datapath.columns import Holding, row_of
from netsim.errors import InputError
from netsim.packet.codec import PacketError, parse_packet, to_bytes
from netsim.packet.fragment import fragment
from netsim.packet.icmp import icmp_error
from netsim.packet.model import Packet, Tcp, TcpFlag
from tests.support.captures import ETHERNET, Record, files, links
from tests.support.packets import any_packets, vxlan_packets

_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
_EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)


@st.composite
def pieces(draw: st.DrawFn) -> Packet:
    packet = draw(any_packets)
    try:
        return draw(st.sampled_from(fragment(packet, draw(st.sampled_from([90, 120, 1280])))))
    except ValueError:
        return packet


_OPTION = st.one_of(
    st.sampled_from([b"\x00", b"\x01", b"\x02\x04\x05\xb4", b"\x04\x02", b"\x08\x0a12345678", b"\x03\x04\x07\x01"]),
    st.sampled_from([0, 7, 14, 15, 255]).map(lambda shift: b"\x03\x03" + bytes((shift,))),
    st.binary(min_size=1, max_size=3),
)


@st.composite
def segments(draw: st.DrawFn) -> Packet:
    """TCP with options that are some, in an order, cut anywhere."""
    options = b"".join(draw(st.lists(_OPTION, max_size=6)))[:40]
    options = options[: len(options) & ~3] if draw(st.booleans()) else options + bytes(-len(options) % 4)
    flags = TcpFlag(draw(st.sampled_from([0x02, 0x12, 0x10])))
    packet = draw(any_packets)
    body = Tcp(1, 2, flags, options=options, payload=draw(st.binary(max_size=8)))
    return replace(packet, proto=6, body=body)


errors = st.builds(lambda p, q: icmp_error(p, 3 if p.src.version == 4 else 1, 3, p.dst), any_packets, any_packets)
all_packets = st.one_of(any_packets, segments(), pieces(), errors, vxlan_packets())
times = st.integers(0, 2_000_000_000_000_000_000)


def _read(path: Path, file: bytes, size: int = 65536) -> list[Block]:
    path.write_bytes(file)
    capture = Capture(path)
    blocks = list(capture.blocks(size))
    assert capture.packets == sum(len(block.records) for block in blocks)
    assert capture.unusable == sum(int(np.count_nonzero(block.records["oddity"])) for block in blocks)
    return blocks


def _batch(block: Block, addresses: Addresses) -> Batch:
    usable = np.flatnonzero(block.records["oddity"] == 0)
    return block.batch(usable, block.records["time"][usable] // 1000, np.zeros(len(usable), np.uint32), addresses)


def _same_columns(batch: Batch, number: int, packet: Packet) -> None:
    """The columns are those that the packet would have had by way of ``row_of``."""
    row, holding = row_of(packet, batch.addresses)
    assert (number in batch.extra) == (holding is Holding.LITTLE)
    for name, value in row._asdict().items():
        assert getattr(batch, name)[number] == value, name


@_SETTINGS
@given(st.data())
def test_files_of_every_variety(tmp_path: Path, data: st.DataObject) -> None:
    packets = data.draw(st.lists(all_packets, max_size=5))
    assume(all(packet.src.version == 4 or packet.proto not in _EXTENSIONS for packet in packets))
    records = []
    for packet in packets:
        link, header = data.draw(links(packet.src.version))
        padding = data.draw(st.sampled_from([b"", bytes(12)]))
        frame = header + to_bytes(packet) + padding
        records.append(Record(data.draw(times), frame, len(frame), link))
    file, tick = data.draw(files(records))
    size = data.draw(st.sampled_from([1, 2, 65536]))
    blocks = _read(tmp_path / "x.pcap", file, size)
    assert [len(block.records) for block in blocks] == [size] * (len(packets) // size) + [len(packets) % size] * (
        len(packets) % size > 0
    )
    addresses = Addresses()
    for block in blocks:
        assert not block.records["oddity"].any()
        batch = _batch(block, addresses)
        batch.time[:] -= batch.time.min()  # a replay's clock begins with its first packet
        if (np.diff(batch.time) >= 0).all() and batch.time.max(initial=0) < 1 << 40:
            batch.check(1)
        for number in range(len(batch)):
            packet, record = packets[block.first - 1 + number], records[block.first - 1 + number]
            parsed = parse_packet(to_bytes(packet))
            assert block.records["time"][number] == record.time // tick * tick
            assert batch.packet(number) == parsed
            _same_columns(batch, number, parsed)


@_SETTINGS
@given(st.data())
def test_bytes_of_every_kind(tmp_path: Path, data: st.DataObject) -> None:
    """Damaged packets: usable exactly if the codec can read them, and then the columns say what it says."""
    packet = data.draw(all_packets)
    sent = bytearray(to_bytes(packet))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, min(len(sent), 70) - 1))
        sent[place] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 3, 6, 44, 60, 0x45, 0x60])))
    frame = bytes(sent[: data.draw(st.one_of(st.just(len(sent)), st.integers(0, len(sent))))])
    link = 101
    (block,) = _read(tmp_path / "x.pcap", _one(Record(0, frame, len(frame), link)))
    record = block.records[0]
    try:
        parsed = parse_packet(frame)
    except PacketError:
        assert record["oddity"] in REASONS
        assert record["oddity"] != CUT
        with pytest.raises(ValueError, match="packet 1 cannot be used"):
            block.packet(0)
        return
    assert not record["oddity"]
    batch = _batch(block, Addresses())
    if record["flags"] & EXTENDED:
        assert batch.extra == {0: parsed}
        return
    assert batch.packet(0) == parsed
    _same_columns(batch, 0, parsed)


@_SETTINGS
@given(st.data())
def test_a_snap_length_hides_but_never_lies(tmp_path: Path, data: st.DataObject) -> None:
    """Of a packet that was cut, either the columns are those of the whole packet, or it is not used."""
    packet = data.draw(all_packets)
    assume(packet.src.version == 4 or packet.proto not in _EXTENSIONS)
    link, header = data.draw(links(packet.src.version))
    frame = header + to_bytes(packet)
    keep = data.draw(st.integers(0, len(frame)))
    (block,) = _read(tmp_path / "x.pcap", _one(Record(0, frame[:keep], len(frame), link)))
    record = block.records[0]
    if record["oddity"]:
        assert record["oddity"] == CUT
        assert keep < len(frame)
        return
    batch = _batch(block, Addresses())
    whole = parse_packet(to_bytes(packet))
    if isinstance(whole.body, Tcp) and not whole.body.flags & TcpFlag.SYN:
        batch.wscale[0] = row_of(whole, batch.addresses)[0].wscale  # of no account, and it may be beyond the cut
    _same_columns(batch, 0, whole)
    assert batch.packet(0).src == whole.src


def _one(record: Record) -> bytes:
    from tests.support.captures import pcap

    return pcap([record], link=record.link)


@_SETTINGS
@given(st.binary(max_size=80), st.sampled_from([0, 1, 101, 108, 113, 276]))
def test_no_frame_breaks_it(tmp_path: Path, frame: bytes, link: int) -> None:
    (block,) = _read(tmp_path / "x.pcap", _one(Record(0, frame, len(frame) + 3, link)))
    batch = _batch(block, Addresses())
    for number in range(len(batch)):
        batch.packet(number)


@_SETTINGS
@given(st.data())
def test_no_file_breaks_it(tmp_path: Path, data: st.DataObject) -> None:
    """Any damage to a file is an InputError that names it, or is counted; nothing else."""
    records = [Record(n * 1000, bytes(60), 60, ETHERNET) for n in range(data.draw(st.integers(0, 3)))]
    file = bytearray(data.draw(files(records))[0])
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place] = data.draw(st.integers(0, 255))
    kept = bytes(file[: data.draw(st.one_of(st.just(len(file)), st.integers(0, len(file))))])
    path = tmp_path / "x.pcap"
    path.write_bytes(kept)
    with suppress(InputError):
        capture = Capture(path)
        assert sum(len(block.records) for block in capture.blocks()) == capture.packets
