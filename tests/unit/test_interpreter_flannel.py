"""What was observed on real flannel nodes, on hand-built namespaces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netsim.interpreter import Disposition, LocalOrigin, State, trace, trace_reply
from netsim.interpreter.outcome import Outcome
from netsim.linux.link import LinkKind
from netsim.linux.route import Route
from netsim.packet.address import ip, network
from netsim.packet.codec import wire_length
from netsim.packet.icmp import quoted
from netsim.packet.model import Frame, Icmp, Packet, Proto, Tcp, Udp, Vxlan
from tests.support.interpreter_worlds import changed, cluster

ANY = ip("0.0.0.0")


def send(net, origin: str, dst: str, *, src: str | None = None, dport: int = 80, **header) -> Outcome:  # type: ignore[no-untyped-def]
    packet = Packet(ip(src) if src else ANY, ip(dst), Proto.TCP, Tcp(40000, dport), **header)
    (outcome,) = trace(net, LocalOrigin(origin), packet)
    return outcome


@pytest.mark.parametrize(
    ("vxlan", "origin", "src", "dst", "seen"),
    [
        (True, "pod/p12", None, "10.244.1.3", "10.244.1.2"),
        (True, "pod/p12", None, "10.244.2.2", "10.244.1.2"),
        (True, "pod/p12", None, "192.168.56.100", "192.168.56.11"),
        (True, "pod/p12", None, "192.168.56.11", "10.244.1.2"),
        (True, "pod/p12", None, "192.168.56.12", "192.168.56.11"),
        (True, "node/n1", None, "10.244.1.2", "10.244.1.1"),
        (True, "node/n1", None, "10.244.2.2", "10.244.1.0"),
        (True, "node/n1", "192.168.56.11", "10.244.2.2", "10.244.1.0"),
        (False, "node/n1", None, "10.244.2.2", "192.168.56.11"),
        (True, "external", None, "10.244.1.2", "192.168.56.100"),
        (True, "external", None, "10.244.2.2", "10.244.1.0"),
        (False, "external", None, "10.244.2.2", "192.168.56.11"),
    ],
)
def test_the_source_that_receivers_see(vxlan: bool, origin: str, src: str | None, dst: str, seen: str) -> None:
    net = cluster(vxlan=vxlan)
    outcome = send(net, origin, dst, src=src)
    assert outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT)
    assert (str(outcome.packet.src), str(outcome.packet.dst)) == (seen, dst)
    assert outcome.masqueraded == (outcome.sent is not None and outcome.sent.src != outcome.packet.src)
    (reply,) = trace_reply(net, outcome)
    assert outcome.sent is not None
    assert (reply.packet.src, reply.packet.sport) == (outcome.sent.dst, 80)
    assert (reply.packet.dst, reply.packet.dport) == (outcome.sent.src, 40000)
    assert reply.receiver == origin


HOSTPORT = """
nat -A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
nat -A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
"""
ON_NODE1 = """
nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
nat -A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8080 -j CNI-DN-x
nat -A CNI-DN-x -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
nat -A CNI-DN-x -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
nat -A CNI-DN-x -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80
"""


@pytest.mark.parametrize(
    ("origin", "dst", "seen"),
    [
        ("external", "192.168.56.11", "192.168.56.100"),
        ("node/n2", "192.168.56.11", "192.168.56.12"),
        ("pod/p22", "192.168.56.11", "192.168.56.12"),
        ("pod/p12", "192.168.56.11", "10.244.1.1"),
        ("pod/p13", "192.168.56.11", "10.244.1.1"),
        ("node/n1", "127.0.0.1", "10.244.1.1"),
        ("node/n1", "192.168.56.11", "192.168.56.11"),
    ],
)
def test_the_source_seen_through_a_host_port(origin: str, dst: str, seen: str) -> None:
    net = cluster(HOSTPORT + ON_NODE1, **{"net.ipv4.conf.cni0.route_localnet": "1"})
    outcome = send(net, origin, dst, dport=8080)
    assert outcome.disposition is Disposition.DELIVERED
    assert (outcome.receiver, str(outcome.packet.src), outcome.packet.dport) == ("pod/p12", seen, 80)
    assert outcome.decided_by is not None
    assert "DNAT" in outcome.decided_by.step.text
    (reply,) = trace_reply(net, outcome)
    assert (reply.receiver, str(reply.packet.src), reply.packet.sport) == (origin, dst, 8080)


@pytest.mark.parametrize(
    ("vxlan", "ttl", "answer"),
    [(True, 1, "10.244.1.1"), (True, 2, "10.244.2.0"), (False, 2, "192.168.56.12")],
)
def test_who_says_time_exceeded(vxlan: bool, ttl: int, answer: str) -> None:
    outcome = send(cluster(vxlan=vxlan), "pod/p12", "10.244.2.2", ttl=ttl)
    assert outcome.disposition is Disposition.UNREACHABLE
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, str(outcome.icmp.origin)) == (11, 0, answer)
    assert outcome.icmp.arrived
    assert outcome.icmp.packet.tos == 0xC0


def test_three_hops_are_enough() -> None:
    outcome = send(cluster(), "pod/p12", "10.244.2.2", ttl=3)
    assert (outcome.disposition, outcome.packet.ttl) == (Disposition.DELIVERED, 1)


def test_an_absent_pod_in_a_remote_subnet() -> None:
    outcome = send(cluster(), "pod/p12", "10.244.2.77")
    assert outcome.disposition is Disposition.UNREACHABLE
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, str(outcome.icmp.origin)) == (3, 1, "10.244.2.0")
    assert outcome.icmp.arrived


def test_an_absent_pod_in_the_own_subnet() -> None:
    outcome = send(cluster(), "pod/p12", "10.244.1.77")
    assert outcome.disposition is Disposition.UNREACHABLE
    assert outcome.decided_by is not None
    assert outcome.decided_by.namespace == "pod/p12"


def test_a_subnet_without_a_lease_leaves_unmasqueraded() -> None:
    outcome = send(cluster(), "pod/p12", "10.244.9.9")
    assert (outcome.disposition, str(outcome.packet.src)) == (Disposition.LEFT, "10.244.1.2")


def udp(size: int, **header) -> Packet:  # type: ignore[no-untyped-def]
    return Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.UDP, Udp(40000, 9999, b"A" * (size - 28)), **header)


def outer_packets(outcome: Outcome) -> list[Packet]:
    return [
        what.packet
        for hop in outcome.hops
        for device, way, what in hop.wire
        if (hop.namespace, device, way) == ("node/n1", "ens3", "out") and isinstance(what, Frame)
    ]


def test_a_packet_of_exactly_the_tunnel_mtu() -> None:
    (outcome,) = trace(cluster(), LocalOrigin("pod/p12"), udp(1450, dont_fragment=True))
    assert outcome.disposition is Disposition.DELIVERED
    (outer,) = outer_packets(outcome)
    assert wire_length(outer) == 1500
    assert (outer.ttl, outer.dont_fragment, outer.ident != 0, outer.proto) == (64, False, True, 17)


def test_too_big_with_df_is_reported_by_cni0_and_learnt() -> None:
    net = changed(cluster(), "pod/p12", "eth0", mtu=1500)
    state = State()
    (outcome,) = trace(net, LocalOrigin("pod/p12"), udp(1451, dont_fragment=True), state=state)
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, outcome.icmp.mtu) == (3, 4, 1450)
    assert (str(outcome.icmp.origin), outcome.icmp.arrived) == ("10.244.1.1", True)
    (again,) = trace(net, LocalOrigin("pod/p12"), udp(1451, dont_fragment=True), state=outcome.state)
    assert again.decided_by is not None
    assert "EMSGSIZE" in again.decided_by.step.text
    assert state.namespaces == {}


def test_too_big_without_df_is_cut_inside_the_tunnel() -> None:
    net = changed(changed(cluster(), "pod/p12", "eth0", mtu=1500), "node/n1", "veth2", mtu=1500)
    (outcome,) = trace(net, LocalOrigin("pod/p12"), udp(1460))
    assert outcome.disposition is Disposition.DELIVERED
    assert wire_length(outcome.packet) == 1460
    outers = outer_packets(outcome)
    inner = [
        o.body.payload.frame.packet for o in outers if isinstance(o.body, Udp) and isinstance(o.body.payload, Vxlan)
    ]
    assert [wire_length(piece) for piece in inner] == [1444, 36]


def test_a_veth_takes_in_no_more_than_its_own_mtu() -> None:
    net = changed(cluster(), "pod/p12", "eth0", mtu=1500)
    assert trace(net, LocalOrigin("pod/p12"), udp(1454))[0].disposition is Disposition.DELIVERED  # room for a VLAN tag
    (outcome,) = trace(net, LocalOrigin("pod/p12"), udp(1455))
    assert (outcome.disposition, outcome.icmp) == (Disposition.DROPPED, None)


def test_a_small_underlay_cuts_the_outer_datagram() -> None:
    net = changed(cluster(), "node/n1", "ens3", mtu=1400)
    (outcome,) = trace(net, LocalOrigin("pod/p12"), udp(1450, dont_fragment=True))
    assert (outcome.disposition, outcome.icmp) == (Disposition.DELIVERED, None)
    assert len(outer_packets(outcome)) == 2


@pytest.mark.parametrize(("inner", "outer"), [(0, 0), (1, 1), (2, 2), (3, 2), (0xB8, 0), (0xB9, 1), (0xBB, 2)])
def test_ecn_of_the_outer_header(inner: int, outer: int) -> None:
    (outcome,) = trace(cluster(), LocalOrigin("pod/p12"), udp(60, tos=inner))
    assert [packet.tos for packet in outer_packets(outcome)] == [outer]
    assert outcome.packet.tos == inner


def test_a_foreign_inner_mac_is_dropped_after_decapsulation() -> None:
    net = changed(cluster(), "node/n2", "flannel.1", mac="02:00:00:00:05:77")
    outcome = send(net, "pod/p12", "10.244.2.2")
    assert outcome.disposition is Disposition.DROPPED
    assert outcome.decided_by is not None
    assert outcome.decided_by.namespace == "node/n2"


def test_an_unknown_vni_is_dropped() -> None:
    net = cluster()
    link = next(one for one in net.namespaces["node/n2"].links if one.kind is LinkKind.VXLAN)
    assert link.vxlan is not None
    outcome = send(changed(net, "node/n2", "flannel.1", vxlan=replace(link.vxlan, vni=9)), "pod/p12", "10.244.2.2")
    assert outcome.disposition is Disposition.DROPPED
    assert outcome.decided_by is not None
    assert "VNI 1" in outcome.decided_by.step.text


def test_a_device_that_is_down() -> None:
    outcome = send(changed(cluster(), "pod/p22", "eth0", up=False), "pod/p12", "10.244.2.2")
    assert outcome.disposition is Disposition.UNREACHABLE


def test_an_icmp_error_comes_back_through_masquerade() -> None:
    """The outside router's time-exceeded reaches the pod, quoting the packet that the pod sent."""
    net = cluster()
    n1 = net.namespaces["node/n1"]
    routed = replace(n1, routes=(*n1.routes, Route(network("8.8.8.0/24"), ip("192.168.56.12"), "ens3")))
    net = replace(net, namespaces={**net.namespaces, "node/n1": routed})
    outcome = send(net, "pod/p12", "8.8.8.8", ttl=2)
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.arrived) == (11, True)
    assert isinstance(outcome.icmp.packet.body, Icmp)
    inner = quoted(outcome.icmp.packet)
    assert inner is not None
    assert (str(inner.src), inner.sport) == ("10.244.1.2", 40000)
    assert str(outcome.icmp.packet.dst) == "10.244.1.2"
