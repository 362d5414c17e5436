"""ICMP errors as the kernel builds them, flow hashes that keep to a flow, packets in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.packet.address import Family, ip
from netsim.packet.codec import packet_bytes, parse_packet, wire_length
from netsim.packet.describe import describe
from netsim.packet.flow import LOCAL_PORTS, flow_hash, vxlan_source_port
from netsim.packet.fragment import fragment, with_header
from netsim.packet.icmp import SAME, echo, error_allowed, icmp_error, is_error, name, quoted
from netsim.packet.model import Frame, Icmp, Packet, Proto, Raw, Tcp, TcpFlag, Udp, Vxlan
from tests.support.packets import any_packets

A, B = ip("10.0.0.1"), ip("10.0.0.2")
A6, B6 = ip("fd00::1"), ip("fd00::2")


@given(any_packets, st.sampled_from(sorted(SAME)), st.integers(0, 60))
def test_an_error_quotes_its_offender_within_limits(packet: Packet, code: tuple[int, int], more: int) -> None:
    four = packet.family is Family.IPV4
    long = Packet(packet.src, packet.dst, 253, Raw(bytes(50 * more)))
    for offender in (packet, long):
        kind = code if four else SAME[code]
        error = icmp_error(offender, *kind, A if four else A6, mtu=1400)
        assert is_error(error)
        assert not error_allowed(error)
        assert wire_length(error) <= (576 if four else 1280)
        assert (error.src, error.dst) == (A if four else A6, offender.src)
        assert isinstance(error.body, Icmp)
        assert error.body.payload == packet_bytes(offender)[: (548 if four else 1232)]
        assert parse_packet(packet_bytes(error)) == error


@given(any_packets)
def test_a_short_offender_is_read_back_whole(packet: Packet) -> None:
    four = packet.family is Family.IPV4
    error = icmp_error(packet, 3 if four else 1, 3 if four else 4, A if four else A6)
    if len(packet_bytes(packet)) <= (548 if four else 1232):
        assert quoted(error) == packet


def test_ports_are_read_from_eight_bytes_of_tcp() -> None:
    sent = Packet(A, B, Proto.TCP, Tcp(40000, 80, seq=7))
    cut = Packet(B, A, Proto.ICMP, Icmp(3, 1, 0, packet_bytes(sent)[:28]))
    inner = quoted(cut)
    assert inner is not None
    assert (inner.src, inner.sport, inner.dport) == (A, 40000, 80)


def test_the_tos_of_errors_is_network_control() -> None:
    sent = Packet(A, B, Proto.UDP, Udp(1, 2), tos=0xB8)
    assert icmp_error(sent, 3, 3, B).tos == 0xD8
    assert icmp_error(Packet(A, B, Proto.UDP, Udp(1, 2)), 3, 3, B).tos == 0xC0


@pytest.mark.parametrize(
    ("packet", "allowed"),
    [
        (Packet(A, B, Proto.UDP, Udp(1, 2)), True),
        (Packet(A, B, Proto.ICMP, echo(Family.IPV4, 1)), True),
        (Packet(A, B, Proto.ICMP, Icmp(11)), False),
        (Packet(A, B, Proto.ICMP, Icmp(5)), False),
        (Packet(A, B, Proto.ICMP, Icmp(42)), False),
        (Packet(A, ip("224.0.0.5"), Proto.UDP, Udp(1, 2)), True),  # IPv4 asks the route, not the address
        (Packet(A, ip("255.255.255.255"), Proto.UDP, Udp(1, 2)), True),
        (Packet(ip("224.0.0.5"), B, Proto.UDP, Udp(1, 2)), False),
        (Packet(ip("0.0.0.0"), B, Proto.UDP, Udp(1, 2)), False),
        (Packet(A, B, Proto.UDP, Raw(bytes(8)), more_fragments=True), True),
        (Packet(A, B, Proto.UDP, Raw(bytes(8)), fragment_offset=8), False),
        (Packet(A6, B6, Proto.UDP, Raw(bytes(8)), fragment_offset=8), True),
        (Packet(A6, B6, Proto.ICMPV6, Icmp(3)), False),
        (Packet(A6, B6, Proto.ICMPV6, echo(Family.IPV6, 1)), True),
        (Packet(A6, ip("ff02::1"), Proto.UDP, Udp(1, 2)), False),
        (Packet(ip("::"), B6, Proto.UDP, Udp(1, 2)), False),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, bool) else describe(value),
)
def test_who_may_be_answered_with_an_error(packet: Packet, allowed: bool) -> None:
    assert error_allowed(packet) is allowed


@given(any_packets)
def test_the_vxlan_port_belongs_to_the_flow(packet: Packet) -> None:
    port = vxlan_source_port(packet)
    assert LOCAL_PORTS[0] <= port < LOCAL_PORTS[1]
    other = Packet(packet.src, packet.dst, packet.proto, packet.body, ttl=1, tos=7, ident=9)
    assert vxlan_source_port(other) == port


def test_fragments_hash_alike_and_unlike_their_datagram() -> None:
    whole = Packet(A, B, Proto.UDP, Udp(40000, 80, bytes(3000)), ident=5)
    pieces = [with_header(piece) for piece in fragment(whole, 1450)]
    assert len({flow_hash(piece) for piece in pieces}) == 1
    assert flow_hash(pieces[0]) != flow_hash(whole)
    pings = {flow_hash(Packet(A, B, Proto.ICMP, echo(Family.IPV4, ident))) for ident in range(9)}
    assert len(pings) == 1
    flows = {vxlan_source_port(Packet(A, B, Proto.UDP, Udp(port, 80))) for port in range(40000, 40020)}
    assert len(flows) == 20


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Packet(A, B, Proto.TCP, Tcp(40000, 80)), "10.0.0.1:40000 -> 10.0.0.2:80 TCP SYN ttl 64"),
        (
            Packet(A6, B6, Proto.TCP, Tcp(1, 2, TcpFlag.SYN | TcpFlag.ACK), ttl=3),
            "[fd00::1]:1 -> [fd00::2]:2 TCP SYN,ACK ttl 3",
        ),
        (Packet(A, B, Proto.ICMP, Icmp(3, 4, 1450)), "10.0.0.1 -> 10.0.0.2 ICMP fragmentation-needed ttl 64"),
        (Packet(A, B, 89, Raw(b"abc")), "10.0.0.1 -> 10.0.0.2 proto 89 ttl 64 3 bytes"),
        (
            Packet(A, B, Proto.UDP, Raw(bytes(8)), fragment_offset=1480, more_fragments=True),
            "10.0.0.1 -> 10.0.0.2 UDP ttl 64 fragment at 1480+",
        ),
        (
            Packet(A, B, Proto.UDP, Udp(5, 8472, Vxlan(1, Frame("", "", Packet(B, A, Proto.UDP, Udp(1, 2)))))),
            "10.0.0.1:5 -> 10.0.0.2:8472 UDP ttl 64 vxlan 1 [10.0.0.2:1 -> 10.0.0.1:2 UDP ttl 64]",
        ),
        (
            Packet(A, B, Proto.IPIP, Packet(B, A, Proto.ICMP, echo(Family.IPV4, 1))),
            "10.0.0.1 -> 10.0.0.2 IPIP ttl 64 [10.0.0.2 -> 10.0.0.1 ICMP echo-request ttl 64]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_packet_in_one_line(packet: Packet, text: str) -> None:
    assert describe(packet) == text


def test_every_error_has_the_same_meaning_in_both_families() -> None:
    names = {four: (name(Family.IPV4, *four), name(Family.IPV6, *six)) for four, six in SAME.items()}
    assert names[3, 3] == ("port-unreachable", "port-unreachable")
    assert names[3, 4] == ("fragmentation-needed", "packet-too-big")
    assert names[11, 0] == ("ttl-exceeded", "hop-limit-exceeded")
    assert name(Family.IPV4, 77, 1) == "type 77 code 1"
