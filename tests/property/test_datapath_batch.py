"""Batches: packets become columns and come back; what columns leave out is what forwarding does not look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.compiled.addresses import Addresses
from netsim.datapath import check
from netsim.datapath.batch import Batch, concat
from netsim.datapath.columns import DTYPES, ICMP_TRACKED, ICMPV6_TRACKED, Holding, packet_of, row_of
from netsim.linux.conntrack import is_icmp_error, tuple_of
from netsim.linux.conntrack_tcp import window_scale
from netsim.packet.codec import parse_packet, to_bytes, wire_length
from netsim.packet.fragment import fragment
from netsim.packet.icmp import echo, icmp_error, icmp_proto
from netsim.packet.model import Packet, Proto, Raw, Tcp, Udp
from tests.support.packets import any_packets, families, vxlan_packets

_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def fragments(draw: st.DrawFn) -> Packet:
    packet = draw(any_packets)
    return draw(st.sampled_from(fragment(packet, 1280 if wire_length(packet) <= 120 else 120)))


@st.composite
def errors(draw: st.DrawFn) -> Packet:
    packet = draw(any_packets)
    return icmp_error(packet, *draw(st.sampled_from([(3, 3), (1, 4), (11, 0)])), draw(any_packets).src)


@st.composite
def pings(draw: st.DrawFn) -> Packet:
    packet = draw(any_packets)
    return replace(
        packet, proto=icmp_proto(packet.family), body=echo(packet.family, draw(st.integers(0, 0xFFFF)), 7), options=b""
    )


def _plain(packet: Packet) -> Packet:
    body = replace(packet.body, options=b"") if isinstance(packet.body, Tcp) else packet.body
    return replace(packet, flow_label=0, ident=0, options=b"", body=body)


plain = any_packets.map(_plain)
all_packets = st.one_of(any_packets, plain, pings(), fragments(), vxlan_packets(), errors())


@_SETTINGS
@given(st.lists(all_packets, max_size=4))
def test_every_packet_comes_back(packets: list[Packet]) -> None:
    batch = Batch.of_packets([(n, n, packet) for n, packet in enumerate(packets)], Addresses())
    batch.check(origins=len(packets))
    assert len(batch) == len(packets)
    assert [batch.packet(n) for n in range(len(batch))] == packets


@_SETTINGS
@given(all_packets)
def test_columns_say_all_that_forwarding_looks_at(packet: Packet) -> None:
    addresses = Addresses()
    row, holding = row_of(packet, addresses)
    if holding is Holding.LITTLE:
        return
    again = packet_of(row, addresses)
    assert tuple_of(again) == tuple_of(packet)
    assert wire_length(again) == wire_length(packet)
    assert not is_icmp_error(packet)
    assert not packet.is_fragment
    same = ("src", "dst", "proto", "ttl", "tos", "dont_fragment", "options", "more_fragments", "fragment_offset")
    assert all(getattr(again, name) == getattr(packet, name) for name in same)
    assert type(again.body) is type(packet.body)
    if isinstance(packet.body, Tcp) and isinstance(again.body, Tcp):
        assert len(again.body.payload) == len(packet.body.payload)
        assert window_scale(again.body.options) == window_scale(packet.body.options)
        one, other = (replace(body, payload=b"", options=b"") for body in (again.body, packet.body))
        assert one == other
    if holding is Holding.ALL:
        assert again == packet


@_SETTINGS
@given(all_packets)
def test_what_must_be_interpreted(packet: Packet) -> None:
    """Said in other words than the code does: a packet goes into columns if its bytes are read as one that fits."""
    _, holding = row_of(packet, Addresses())
    body = packet.body
    fits = (
        not packet.is_fragment
        and not packet.options
        and (
            (isinstance(body, Tcp) and packet.proto == Proto.TCP)
            or (isinstance(body, Udp) and packet.proto == Proto.UDP and isinstance(body.payload, bytes))
            or (
                packet.proto == icmp_proto(packet.family) and not isinstance(body, Raw) and tuple_of(packet) is not None
            )
            or (isinstance(body, Raw) and packet.proto in (2, 47, 59, 89, 255))
            or (isinstance(body, Raw) and packet.proto in (0, 43, 50, 51, 60, 136) and packet.src.version == 4)
            or (isinstance(body, Raw) and packet.proto == 136)
        )
    )
    assert fits == (holding is not Holding.LITTLE)
    if holding is not Holding.LITTLE:
        assert parse_packet(to_bytes(packet)) == packet


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Columns of one packet that say nothing contradictory."""
    family = draw(families)
    proto = draw(st.sampled_from([6, 6, 17, 1 if family == 4 else 58, 47, 255]))
    row: dict[str, Any] = dict.fromkeys(DTYPES, 0) | {"wscale": -1, "proto": proto, "flags": family == 6}
    row["flags"] |= draw(st.sampled_from([0, 2])) if family == 4 else 0
    row["src"], row["dst"] = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    row["ttl"], row["tos"] = draw(st.integers(0, 255)), draw(st.integers(0, 255))
    if proto in (6, 17):
        row["sport"], row["dport"] = draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 0xFFFF))
    if proto in (1, 58):
        kind = draw(st.sampled_from(ICMP_TRACKED if proto == 1 else ICMPV6_TRACKED))
        row["sport"], row["dport"] = draw(st.integers(0, 0xFFFF)), kind << 8 | draw(st.integers(0, 255))
    if proto == 6:
        row |= {
            name: draw(st.integers(0, np.iinfo(DTYPES[name]).max)) for name in ("tcp_flags", "seq", "ack", "window")
        }
        row["wscale"] = draw(st.integers(-1, 14))
        row["tcp_options"] = 4 * draw(st.integers(int(row["wscale"] >= 0), 10))
    head = (20 if family == 4 else 40) + {6: 20, 17: 8, 1: 8, 58: 8}.get(proto, 0) + row["tcp_options"]
    row["length"] = draw(st.integers(head, 2000))
    return row


def _batch(told: list[dict[str, Any]]) -> Batch:
    addresses = Addresses()
    for number in range(4):
        addresses.handle(_v6_address(number))
    batch = Batch.empty(len(told), addresses)
    for name, column in batch.columns():
        column[:] = [row[name] for row in told]
    return batch


def _v6_address(number: int) -> Any:
    import ipaddress

    return ipaddress.IPv6Address((0xFD << 120) + number)


@_SETTINGS
@given(st.lists(rows(), max_size=4))
def test_every_row_comes_back(told: list[dict[str, Any]]) -> None:
    batch = _batch(told)
    batch.check()
    again = Batch.of_packets([(0, 0, batch.packet(n)) for n in range(len(batch))], batch.addresses)
    assert not again.extra
    assert all(again.recall(number) is None for number in range(len(batch)))
    for name, column in batch.columns():
        assert column.tolist() == getattr(again, name).tolist(), name


@_SETTINGS
@given(st.lists(rows(), min_size=1, max_size=5), st.none() | st.integers(0, 3), st.data())
def test_the_kernel_finds_fault_where_the_rules_do(
    told: list[dict[str, Any]], origins: int | None, data: st.DataObject
) -> None:
    batch = _batch(told)
    for name in data.draw(st.lists(st.sampled_from([*DTYPES, "time", "proto", "flags"]), max_size=2)):
        room = np.iinfo(DTYPES[name])
        near = st.integers(room.min, room.max) | st.integers(0, 60)
        getattr(batch, name)[data.draw(st.integers(0, len(told) - 1))] = data.draw(near)
    columns, limits = dict(batch.columns()), ({}, batch.addresses.interned, origins)
    faults = list(check.nonsense(columns, *limits))
    assert check.flawless(columns, *limits, least=1) == (not faults), faults


@_SETTINGS
@given(rows(), st.integers(0, 3000), st.sampled_from(sorted(DTYPES)), st.data())
def test_the_kernel_finds_a_fault_wherever_it_is(row: dict[str, Any], at: int, name: str, data: st.DataObject) -> None:
    """Blocks of packets are looked at together."""
    batch = _batch([row])
    columns = {each: np.repeat(column, 3001) for each, column in batch.columns()}
    room = np.iinfo(DTYPES[name])
    columns[name][at] = data.draw(st.integers(room.min, room.max) | st.integers(0, 60))
    limits = {}, batch.addresses.interned, 4
    faults = list(check.nonsense(columns, *limits))
    assert check.flawless(columns, *limits) == (not faults), faults


@_SETTINGS
@given(st.lists(all_packets, min_size=1, max_size=5), st.data())
def test_cut_and_put_together(packets: list[Packet], data: st.DataObject) -> None:
    whole = Batch.of_packets([(n, 0, packet) for n, packet in enumerate(packets)], Addresses())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packets)), max_size=3)))
    parts = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(packets)])]
    for part, start in zip(parts, [0, *cuts]):
        assert [part.packet(n) for n in range(len(part))] == packets[start : start + len(part)]
    again = concat(parts)
    assert [again.packet(n) for n in range(len(again))] == packets
    assert again.extra == whole.extra
    for name, column in whole.columns():
        assert column.tolist() == getattr(again, name).tolist()
        assert getattr(again, name).dtype == DTYPES[name]
