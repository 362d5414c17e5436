"""The interpreter next to the real kernel: the same probes through the same namespaces must fare the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from netsim.interpreter import Disposition, LocalOrigin, source_for, trace
from netsim.packet.address import ip
from netsim.packet.codec import wire_length
from netsim.packet.icmp import is_error, quoted
from netsim.packet.model import Icmp, Packet, Proto, Udp
from tests.support.interpreter_kernel import KernelNetwork, kernel
from tests.support.interpreter_worlds import cluster

pytestmark = pytest.mark.kernel

SERVICE = """
nat -A PREROUTING -j SERVICES
nat -A OUTPUT -j SERVICES
nat -A SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j REMOTE
nat -A SERVICES -d 10.96.0.11/32 -p udp -m udp --dport 53 -j LOCAL
nat -A SERVICES -p udp -m udp --dport 30053 -m addrtype --dst-type LOCAL -j NODEPORT
nat -A NODEPORT -j MARK --set-xmark 0x4000/0x4000
nat -A NODEPORT -j REMOTE
nat -A REMOTE ! -s 10.244.0.0/16 -j MARK --set-xmark 0x4000/0x4000
nat -A REMOTE -p udp -j DNAT --to-destination 10.244.2.2:5353
nat -A LOCAL ! -s 10.244.0.0/16 -j MARK --set-xmark 0x4000/0x4000
nat -A LOCAL -s 10.244.1.2/32 -j MARK --set-xmark 0x4000/0x4000
nat -A LOCAL -p udp -j DNAT --to-destination 10.244.1.2:5353
nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MARKED
nat -A MARKED -j MARK --set-xmark 0x4000/0x0
nat -A MARKED -j MASQUERADE
filter -A FORWARD -d 10.96.0.66/32 -j REJECT --reject-with icmp-port-unreachable
filter -A OUTPUT -d 10.96.0.66/32 -j REJECT --reject-with icmp-port-unreachable
filter -A FORWARD -p udp -m udp --dport 5666 -j REJECT --reject-with icmp-admin-prohibited
filter -A FORWARD -p udp -m udp --dport 5667 -j DROP
filter -A INPUT -p udp -m udp --dport 5668 -j REJECT --reject-with icmp-host-prohibited
"""
_ports = count(20000)

PROBES = [
    (origin, dst, dport, ttl)
    for origin in ("pod/p12", "node/n1")
    for dst, dport, ttl in (
        ("10.244.1.3", 5353, 64),
        ("10.244.2.2", 5353, 64),
        ("10.244.2.2", 5353, 1),
        ("10.244.2.2", 5353, 2),
        ("10.244.2.2", 5353, 3),
        ("10.96.0.10", 53, 64),
        ("10.96.0.11", 53, 64),
        ("10.96.0.66", 53, 64),
        ("10.244.2.2", 5666, 64),
        ("10.244.2.3", 5667, 64),
        ("192.168.56.100", 5353, 64),
        ("192.168.56.12", 5353, 64),
        ("192.168.56.12", 30053, 64),
        ("192.168.56.11", 30053, 64),
        ("192.168.56.12", 5668, 64),
        ("192.168.56.11", 5353, 64),
    )
] + [
    ("external", "192.168.56.11", 30053, 64),
    ("external", "10.244.1.2", 5353, 64),
    ("external", "10.244.2.2", 5353, 64),
    ("external", "10.244.2.2", 5353, 2),
]


@pytest.fixture(scope="module", params=[True, False], ids=["vxlan", "host-gw"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[KernelNetwork, bool]]:
    with kernel(cluster(SERVICE, vxlan=request.param)) as real:
        yield real, request.param


@pytest.mark.parametrize(("origin", "dst", "dport", "ttl"), PROBES)
def test_same_fate(pair: tuple[KernelNetwork, bool], origin: str, dst: str, dport: int, ttl: int) -> None:
    real, _ = pair
    source = source_for(real.network, origin, ip(dst))
    assert source is not None
    packet = Packet(source, ip(dst), Proto.UDP, Udp(next(_ports), dport, b"netsim probe"), ttl=ttl, ident=1)
    (outcome,) = trace(real.network, LocalOrigin(origin), packet)
    heard = real.send(origin, packet)
    arrived = [
        (where, str(got.src), str(got.dst), got.dport, got.ttl)
        for where, got in heard
        if isinstance(got.body, Udp) and got.body.payload == b"netsim probe"
    ]
    expected = []
    if outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT):
        got = outcome.packet
        expected = [(outcome.receiver, str(got.src), str(got.dst), got.dport, got.ttl)]
    assert arrived == expected
    errors = [_error(got) for where, got in heard if where == origin and is_error(got)]
    if outcome.icmp is not None:
        assert outcome.icmp.arrived
        assert errors == [_error(outcome.icmp.packet)]
    elif not expected:
        assert errors == []


def _error(packet: Packet) -> tuple[object, ...]:
    assert isinstance(packet.body, Icmp)
    inner = quoted(packet)
    assert inner is not None
    quote = (str(inner.src), str(inner.dst), inner.sport, inner.dport, inner.ttl)
    return (packet.body.type, packet.body.code, str(packet.src), str(packet.dst), packet.tos, packet.ttl, *quote)


def test_too_big_with_df(pair: tuple[KernelNetwork, bool]) -> None:
    """A pod whose own device is larger than the tunnel's is told so by cni0."""
    real, vxlan = pair
    body = Udp(next(_ports), 5353, bytes(1450 - 28))
    packet = Packet(ip("10.244.1.2"), ip("10.244.2.3"), Proto.UDP, body, dont_fragment=True)
    assert wire_length(packet) == 1450
    (outcome,) = trace(real.network, LocalOrigin("pod/p12"), packet)
    heard = real.send("pod/p12", packet)
    assert (outcome.receiver, vxlan) in (("pod/p23", True), ("pod/p23", False))
    assert [where for where, got in heard if isinstance(got.body, Udp) and got.dport == 5353] == ["pod/p23"]
