"""Fragments inside a namespace: gathered, dropped, cut again; each a fact that the kernel comparison found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netsim.interpreter import Disposition, LocalOrigin, State, WireOrigin, trace
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import Address, Neighbour
from netsim.packet.address import Family, interface, ip
from netsim.packet.codec import packet_bytes, wire_length
from netsim.packet.fragment import fragment
from netsim.packet.model import Frame, Packet, Proto, Raw, Udp
from tests.support.interpreter_worlds import cluster, mac, ruleset

TRACKED = "filter -A FORWARD -m conntrack --ctstate NEW -j ACCEPT"
PLANS = {Family.IPV4: ("10.1.0", "10.2.0", ".", 24), Family.IPV6: ("fd00:1:", "fd00:2:", ":", 64)}


def router(family: Family, rules: str = TRACKED, mtu: int = 1500) -> StaticNetwork:
    left, right, dot, length = PLANS[family]
    links = (
        Link("lo", LinkKind.LOOPBACK, mtu=65536),
        Link("a0", LinkKind.VETH, mac(1, 1), peer=("outside", "xa0")),
        Link("b0", LinkKind.VETH, mac(1, 2), mtu, peer=("outside", "xb0")),
    )
    addresses = (
        Address("a0", interface(f"{left}{dot}1/{length}")),
        Address("b0", interface(f"{right}{dot}1/{length}")),
    )
    neighbours = tuple(
        Neighbour(ip(f"{net}{dot}2"), device, mac(2, number))
        for number, (net, device) in enumerate(((left, "a0"), (right, "b0")))
    )
    sysctls = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
    space = Namespace("R", links, addresses, (), (), neighbours, (), sysctls, {family: ruleset(rules, family)})
    return StaticNetwork({"R": space})


def datagram(family: Family, size: int = 1400) -> Packet:
    left, right, dot, _ = PLANS[family]
    src, dst = ip(f"{left}{dot}2"), ip(f"{right}{dot}2")
    return Packet(src, dst, Proto.UDP, Udp(1000, 2000, bytes(size)), ident=7)


def pieces_of(packet: Packet, mtu: int) -> list[Packet]:
    at = 20 if packet.src.version == 4 else 48
    return [replace(piece, body=Raw(packet_bytes(piece)[at:])) for piece in fragment(packet, mtu)]


def send(net: StaticNetwork, pieces: list[Packet]) -> list[list[Packet]]:
    """What R emits after each piece."""
    state, found = State(), []
    for piece in pieces:
        (outcome,) = trace(net, WireOrigin("R", "a0"), piece, state=state, only="R")
        assert isinstance(outcome.state, State)
        state = outcome.state
        wires = [what for hop in outcome.hops for _, direction, what in hop.wire if direction == "out"]
        found.append([what.packet for what in wires if isinstance(what, Frame)])
    return found


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1), (1, 1, 0)])
def test_repeated_and_late_fragments(family: Family, order: tuple[int, ...]) -> None:
    pieces = pieces_of(datagram(family), 1280)
    told = send(router(family), [pieces[at] for at in order])
    assert [len(packets) for packets in told] == [0] * (len(order) - 1) + [2]
    assert [packet.fragment_offset for packet in told[-1]] == [piece.fragment_offset for piece in pieces]


@pytest.mark.parametrize("family", Family)
def test_a_contradiction_ends_the_datagram(family: Family) -> None:
    first, last = pieces_of(datagram(family), 1280)
    overlapping = replace(last, fragment_offset=last.fragment_offset - 8)
    assert send(router(family), [first, overlapping, last]) == [[], [], []]


@pytest.mark.parametrize("family", Family)
def test_fragments_leave_as_they_came_where_they_fit(family: Family) -> None:
    whole = datagram(family, 2600)
    pieces = pieces_of(whole, 1280)
    (sent,) = [told for told in send(router(family, mtu=1400), pieces) if told]
    assert [wire_length(packet) for packet in sent] == [wire_length(piece) for piece in pieces]


def test_without_conntrack_fragments_are_forwarded_one_by_one() -> None:
    net = router(Family.IPV4, "filter -A FORWARD -p udp -j ACCEPT\nnat -A PREROUTING -j ACCEPT")  # that tracks nothing
    assert [len(told) for told in send(net, pieces_of(datagram(Family.IPV4), 800))] == [1, 1]


def test_tproxy_gathers_fragments_by_itself() -> None:
    net = router(Family.IPV4, "mangle -A PREROUTING -p tcp -j TPROXY --on-port 80 --tproxy-mark 0x1/0x1")
    assert [len(told) for told in send(net, pieces_of(datagram(Family.IPV4), 800))] == [0, 2]


def test_input_sees_ipv6_fragments_and_ipv4_datagrams() -> None:
    for family, expected in ((Family.IPV4, [0, 1]), (Family.IPV6, [1, 1])):
        left, _, dot, _ = PLANS[family]
        state, counted = State(), []
        net = router(family, "filter -A INPUT -p udp -j ACCEPT")
        for piece in pieces_of(replace(datagram(family), dst=ip(f"{left}{dot}1")), 1280):
            (outcome,) = trace(net, WireOrigin("R", "a0"), piece, state=state, only="R")
            assert isinstance(outcome.state, State)
            state = outcome.state
            counted.append(sum(step.table == "filter" for hop in outcome.hops for step in hop.steps))
        assert counted == expected
        assert outcome.disposition is Disposition.DELIVERED


UNEVEN = (104, 304, 200)  # bytes of UDP payload in each fragment, with the header


def uneven(source: str, target: str, port: int) -> list[Packet]:
    whole = Packet(ip(source), ip(target), Proto.UDP, Udp(1000, port, bytes(sum(UNEVEN) - 8)), ident=7)
    data, pieces, at = packet_bytes(whole)[20:], [], 0
    for size in UNEVEN:
        more = at + size < len(data)
        pieces.append(replace(whole, body=Raw(data[at : at + size]), more_fragments=more, fragment_offset=at))
        at += size
    return pieces


def by_flannel(pieces: list[Packet], rules: str) -> list[int]:
    """The sizes of what node n1's own process sends by its VXLAN device."""
    net, state, sizes = cluster(rules), State(), []
    for piece in pieces:
        (outcome,) = trace(net, LocalOrigin("node/n1"), piece, state=state)
        assert outcome.state is not None
        state = outcome.state
        wire = [one for hop in outcome.hops if hop.namespace == "node/n1" for one in hop.wire]
        sizes += [wire_length(w.packet) for device, way, w in wire if (device, way) == ("flannel.1", "out")]  # type: ignore[union-attr]
    return sizes


def test_a_sockets_fragments_have_room_for_the_tunnel_they_were_made_for_alone() -> None:
    """Made for the VXLAN device they leave as they came; made for another and translated they are cut anew."""
    made_for_it = uneven("10.244.1.0", "10.244.2.2", 2000)
    assert by_flannel(made_for_it, "nat -A OUTPUT -j ACCEPT") == [size + 20 for size in UNEVEN]
    service = "nat -A OUTPUT -d 10.96.0.9/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.244.2.2:2000"
    translated = by_flannel(uneven("192.168.56.11", "10.96.0.9", 53), service)
    assert translated == [324, 324]
