"""The words in which kernel and interpreter are compared: marks survive, what is random is left out, what is not is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from netsim.interpreter import LocalOrigin, trace
from netsim.interpreter.counters import RuleKey, counters
from netsim.lab.capture import opened
from netsim.lab.marks import filled, layers, mark, mark_of, option, quoted_mark
from netsim.lab.rule_counters import Account, parse
from netsim.lab.stories import Names, view
from netsim.linux.network import StaticNetwork
from netsim.packet.address import Family, ip
from netsim.packet.codec import body_bytes, packet_bytes, parse_packet
from netsim.packet.fragment import fragment
from netsim.packet.icmp import echo, icmp_error
from netsim.packet.model import Frame, Packet, Proto, Sctp, Tcp, TcpFlag, Udp, Vxlan
from tests.support.interpreter_worlds import cluster

SERIALS = st.integers(0, (1 << 24) - 1)
PAIRS = {4: (ip("10.0.0.1"), ip("10.0.0.2")), 6: (ip("fd00::1"), ip("fd00::2"))}


def marked(version: int, kind: str, with_: bytes, length: int = 40) -> Packet:
    src, dst = PAIRS[version]
    payload = filled(with_, length)
    if kind == "tcp":
        return Packet(src, dst, Proto.TCP, Tcp(1, 2, TcpFlag.ACK, options=option(with_), payload=payload))
    if kind == "udp":
        return Packet(src, dst, Proto.UDP, Udp(1, 2, payload))
    if kind == "sctp":
        return Packet(src, dst, Proto.SCTP, Sctp(1, 2, chunks=b"\x0a\0\0\x08" + with_))
    family = Family(version)
    return Packet(src, dst, Proto.ICMP if version == 4 else Proto.ICMPV6, echo(family, 7, payload=payload))


@given(st.sampled_from((4, 6)), st.sampled_from(("tcp", "udp", "sctp", "icmp")), SERIALS)
def test_a_mark_survives_the_wire_and_quoting(version: int, kind: str, serial: int) -> None:
    packet = parse_packet(packet_bytes(marked(version, kind, mark(serial))))
    assert mark_of(packet) == mark(serial)
    error = icmp_error(packet, 3 if version == 4 else 1, 1, PAIRS[version][1])
    assert quoted_mark(error) == mark(serial)
    assert mark_of(error) is None
    if version == 4:
        outer = Packet(*PAIRS[4], Proto.IPIP, packet)
        assert quoted_mark(icmp_error(parse_packet(packet_bytes(outer)), 11, 0, PAIRS[4][1])) == mark(serial)


@given(
    st.sampled_from((4, 6)), st.sampled_from(("udp", "icmp")), SERIALS, st.integers(600, 3000), st.integers(200, 900)
)
def test_every_fragment_carries_the_mark(version: int, kind: str, serial: int, length: int, mtu: int) -> None:
    whole = replace(marked(version, kind, mark(serial), length), ident=1)
    pieces = [parse_packet(packet_bytes(piece)) for piece in fragment(whole, mtu)]
    assume(len(body_bytes(pieces[-1])) >= 4)
    assert {mark_of(piece) for piece in pieces} == {mark(serial)}


@given(SERIALS, SERIALS, st.integers(4, 200))
def test_stories_do_not_tell_marks_ports_or_identification(one: int, other: int, length: int) -> None:
    src, dst = PAIRS[4]
    first, second = (
        Packet(src, dst, Proto.UDP, Udp(port, 53, filled(mark(serial), length)), ident=ident)
        for serial, port, ident in ((one, 1111, 1), (other, 2222, 2))
    )
    assert view(first, Names({1111: "client"})) == view(second, Names({2222: "client"}))
    assert view(first, Names(hidden=True)) == view(second, Names(hidden=True))
    assert view(first, Names({1111: "client"})) != view(second, Names({1111: "client"}))


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": 63},
        {"tos": 4},
        {"dont_fragment": True},
        {"body": Tcp(1, 2, TcpFlag.ACK | TcpFlag.PSH, options=option(mark(5)), payload=filled(mark(5), 40))},
        {"body": Tcp(1, 2, TcpFlag.ACK, seq=1, options=option(mark(5)), payload=filled(mark(5), 40))},
        {"body": Tcp(1, 3, TcpFlag.ACK, options=option(mark(5)), payload=filled(mark(5), 40))},
        {"body": Tcp(1, 2, TcpFlag.ACK, options=option(mark(5)), payload=filled(mark(5), 41))},
    ],
)
def test_stories_tell_everything_else(change: dict[str, object]) -> None:
    packet = marked(4, "tcp", mark(5))
    assert view(packet, Names()) != view(replace(packet, **change), Names())  # type: ignore[arg-type]


SAVED = """*nat
:PREROUTING ACCEPT [3:180]
:OUTPUT ACCEPT [0:0]
:SVC - [0:0]
[2:120] -A PREROUTING -j SVC
[1:60] -A SVC -p tcp -j ACCEPT
[0:0] -A SVC -j ACCEPT
COMMIT
"""


def test_counters_are_read_by_place() -> None:
    found = parse(SAVED, "node/n1", Family.IPV4)
    place = ("node/n1", Family.IPV4, "nat")
    assert found[RuleKey(*place, "PREROUTING", 0)] == (3, 180)
    assert found[RuleKey(*place, "SVC", 1)] == (1, 60)
    assert found[RuleKey(*place, "SVC", 2)] == (0, 0)
    assert RuleKey(*place, "SVC", 0) not in found


RULES = """
nat -A PREROUTING -j SERVICES
nat -A SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.244.2.2:53
filter -A FORWARD -p udp -m udp --dport 5666 -j REJECT --reject-with icmp-port-unreachable
"""


def network() -> StaticNetwork:
    return cluster(RULES)


def test_an_outcome_counts_its_rules_and_the_policies_behind_them() -> None:
    packet = Packet(ip("10.244.1.2"), ip("10.96.0.10"), Proto.UDP, Udp(4000, 53, b"12345"))
    (outcome,) = trace(network(), LocalOrigin("pod/p12"), packet)
    found = counters(outcome)
    place = ("node/n1", Family.IPV4)
    assert found[RuleKey(*place, "nat", "PREROUTING", 1)] == (1, 33)
    assert found[RuleKey(*place, "nat", "SERVICES", 1)] == (1, 33)
    assert RuleKey(*place, "nat", "PREROUTING", 0) not in found  # DNAT ended the walk
    assert found[RuleKey(*place, "filter", "FORWARD", 2)] == (1, 33)
    assert found[RuleKey(*place, "nat", "POSTROUTING", 0)] == (2, 33 + 83)  # the packet, and the VXLAN packet around it


def test_the_answer_of_a_reject_counts_too_unless_it_is_left_out() -> None:
    packet = Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.UDP, Udp(4000, 5666, b""))
    (outcome,) = trace(network(), LocalOrigin("pod/p12"), packet)
    answered = {key for key in counters(outcome) if key.chain == "OUTPUT"}
    assert {(key.table, key.rule) for key in answered} >= {("filter", 0)}
    assert not [key for key in counters(outcome, answer=False) if key.chain == "OUTPUT"]


def test_an_account_finds_what_was_counted_otherwise() -> None:
    packet = Packet(ip("10.244.1.2"), ip("10.96.0.10"), Proto.UDP, Udp(4000, 53, b"12345"))
    key = RuleKey("node/n1", Family.IPV4, "nat", "SERVICES", 1)
    account = Account(frozenset())
    account.add([(key, packet)])
    assert not list(account.differences({key: (4, 99)}, {key: (5, 132)}, {}, (), network()))
    (text,) = account.differences({key: (4, 99)}, {key: (6, 165)}, {}, (), network())
    assert "-A SERVICES -d 10.96.0.10/32" in text
    assert text.endswith("netsim 1 packets 33 bytes, kernel 2 packets 66 bytes")


def test_tunnels_are_opened() -> None:
    inner = Packet(ip("10.9.1.2"), ip("10.9.2.2"), Proto.UDP, Udp(1, 2, mark(3)))
    frame = Frame("02:00:00:00:00:01", "02:00:00:00:00:02", inner)
    for payload, port in ((Vxlan(1, frame), 8472), (inner, 8285)):
        outer = Packet(ip("10.0.0.1"), ip("10.0.0.2"), Proto.UDP, Udp(9, port, payload))
        seen = parse_packet(packet_bytes(outer))
        assert layers(opened(seen, frozenset({8472, 8285})))[-1] == inner
        assert layers(opened(seen, frozenset())) == [seen]
