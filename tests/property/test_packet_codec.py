"""Bytes and values say the same, whatever the packet; scapy, which shares no line with us, agrees about every checksum."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, in4_chksum
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.sctp import crc32c
from scapy.utils import checksum as in_checksum

from netsim.packet.address import Family
from netsim.packet.codec import (
    PacketError,
    checksum,
    frame_bytes,
    header_length,
    packet_bytes,
    parse_frame,
    parse_packet,
    parse_vxlan,
    wire_length,
)
from netsim.packet.fragment import fragment, reassemble, with_header
from netsim.packet.model import Frame, Packet, Proto, Raw, Udp
from tests.support.packets import any_packets, macs, vxlan_packets


@given(any_packets)
def test_parsing_bytes_gives_the_packet_back(packet: Packet) -> None:
    assert parse_packet(packet_bytes(packet)) == packet


@given(any_packets, macs, macs)
def test_frames_round_trip(packet: Packet, src: str, dst: str) -> None:
    frame = Frame(src, dst, packet, 0x0800 if packet.family is Family.IPV4 else 0x86DD)
    assert parse_frame(frame_bytes(frame)) == frame


@given(vxlan_packets())
def test_vxlan_is_read_on_request(packet: Packet) -> None:
    outer = parse_packet(packet_bytes(packet))
    assert isinstance(outer.body, Udp)
    assert isinstance(outer.body.payload, bytes)
    assert isinstance(packet.body, Udp)
    assert parse_vxlan(outer.body.payload) == packet.body.payload


@given(any_packets | vxlan_packets())
def test_length_needs_no_bytes(packet: Packet) -> None:
    assert wire_length(packet) == len(packet_bytes(packet))


@given(any_packets, st.binary(max_size=8))
def test_ethernet_padding_is_dropped(packet: Packet, padding: bytes) -> None:
    assert parse_packet(packet_bytes(packet) + padding) == packet


@given(any_packets, st.data())
def test_a_cut_packet_is_an_error_that_says_so(packet: Packet, data: st.DataObject) -> None:
    whole = packet_bytes(packet)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PacketError, match=r"bytes|empty"):
        parse_packet(whole[:cut])


@given(st.binary(max_size=80), st.sampled_from([parse_packet, parse_frame, parse_vxlan]))
def test_any_bytes_are_a_packet_or_a_packet_error(data: bytes, parse: object) -> None:
    assert callable(parse)
    try:
        parse(data)
    except PacketError:
        return


@given(any_packets, st.integers(0, 0xFFFF))
def test_a_udp_length_that_lies_leaves_bytes(packet: Packet, length: int) -> None:
    if not isinstance(packet.body, Udp) or length == len(packet_bytes(packet)) - header_length(packet):
        return
    data = bytearray(packet_bytes(packet))
    at = header_length(packet) + 4
    data[at : at + 2] = length.to_bytes(2, "big")
    read = parse_packet(bytes(data))
    assert read == replace(packet, body=Raw(bytes(data[at - 4 :])))
    assert packet_bytes(read) == data


@given(any_packets)
def test_ipv4_headers_sum_to_zero(packet: Packet) -> None:
    if packet.family is Family.IPV4:
        assert checksum(packet_bytes(packet)[: header_length(packet)]) == 0


@settings(deadline=None)
@given(any_packets)
def test_scapy_finds_every_transport_checksum_right(packet: Packet) -> None:
    data = packet_bytes(packet)
    four = packet.family is Family.IPV4
    segment = data[header_length(packet) :]
    if packet.proto == Proto.SCTP:
        assert segment[8:12] == crc32c(segment[:8] + bytes(4) + segment[12:]).to_bytes(4, "big")
    elif packet.proto == Proto.ICMP and four:
        assert in_checksum(segment) == 0
    elif packet.proto in (Proto.TCP, Proto.UDP, Proto.ICMPV6) and not isinstance(packet.body, Raw):
        if isinstance(packet.body, Udp) and not packet.body.checksum:
            assert segment[6:8] == bytes(2)
        elif four:
            assert in4_chksum(packet.proto, IP(src=str(packet.src), dst=str(packet.dst)), segment) == 0
        else:
            assert in6_chksum(packet.proto, IPv6(src=str(packet.src), dst=str(packet.dst)), segment) == 0


def sendable(packet: Packet) -> Packet:
    return replace(packet, dont_fragment=False, ident=7)


def arrived(packet: Packet) -> Packet:
    """A whole IPv6 packet has no identification: it went with the fragment header."""
    return packet if packet.family is Family.IPV4 else replace(packet, ident=0)


@given(any_packets.map(sendable), st.integers(68, 120), st.randoms(use_true_random=False))
def test_fragments_come_together_in_any_order(packet: Packet, mtu: int, random: Random) -> None:
    pieces = fragment(packet, mtu)
    assert all(wire_length(piece) <= mtu for piece in pieces)
    assert all(piece.fragment_offset % 8 == 0 for piece in pieces)
    assert [p.more_fragments for p in pieces] == [True] * (len(pieces) - 1) + [False]
    random.shuffle(pieces)
    assert reassemble(pieces) == arrived(packet)
    if len(pieces) > 1:
        assert reassemble(pieces[1:]) is None


@given(any_packets.map(sendable), st.integers(68, 120))
def test_fragments_survive_the_wire_and_show_their_ports_once(packet: Packet, mtu: int) -> None:
    for piece in fragment(packet, mtu):
        read = parse_packet(packet_bytes(piece))
        assert with_header(piece if piece.is_fragment else read) == read
        assert read.sport is None or not piece.fragment_offset


@given(any_packets.map(sendable), st.integers(100, 120), st.integers(68, 99))
def test_fragments_of_fragments_come_together_too(packet: Packet, first: int, second: int) -> None:
    pieces = [small for piece in fragment(packet, first) for small in fragment(piece, second)]
    assert reassemble(pieces) == arrived(packet)


def test_a_vxlan_header_needs_its_flag() -> None:
    with pytest.raises(PacketError, match="VNI"):
        parse_vxlan(bytes(30))
