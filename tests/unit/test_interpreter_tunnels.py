"""IPIP and flanneld's UDP tunnel, between the two nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netsim.interpreter import Disposition, LocalOrigin, trace, trace_reply
from netsim.linux.link import Link, LinkKind, TunnelOptions, UdpTunnelOptions
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import Address, Route
from netsim.packet.address import interface, ip, network
from netsim.packet.model import Frame, Packet, Proto, Tcp, Udp
from tests.support.interpreter_worlds import CLUSTER, cluster


def tunnelled(kind: str) -> StaticNetwork:
    net = cluster(vxlan=False)

    def convert(space: Namespace, own: int) -> Namespace:
        other = 3 - own
        local, peer, remote = ip(f"192.168.56.1{own}"), ip(f"192.168.56.1{other}"), network(f"10.244.{other}.0/24")
        if kind == "ipip":
            link = Link("tun", LinkKind.IPIP, mtu=1480, tunnel=TunnelOptions(local, pmtudisc=False))
            route = Route(remote, peer, "tun", onlink=True)
        else:
            options = UdpTunnelOptions(local, 8285, ip(f"10.244.{own}.0"), ((remote, peer),))
            link = Link("tun", LinkKind.TUN, mtu=1472, udp_tunnel=options)
            route = Route(network(CLUSTER), device="tun")
        routes = (*(r for r in space.routes if r.destination != remote), route)
        addresses = (*space.addresses, Address("tun", interface(f"10.244.{own}.0/32")))
        return replace(space, links=(*space.links, link), routes=routes, addresses=addresses)

    nodes = {f"node/n{n}": convert(net.namespaces[f"node/n{n}"], n) for n in (1, 2)}
    return replace(net, namespaces={**net.namespaces, **nodes})


def syn(dst: str = "10.244.2.2", **header) -> Packet:  # type: ignore[no-untyped-def]
    return Packet(ip("10.244.1.2"), ip(dst), Proto.TCP, Tcp(40000, 80), **header)


def outer(outcome) -> Packet:  # type: ignore[no-untyped-def]
    (frame,) = [w for hop in outcome.hops for d, way, w in hop.wire if (hop.node, d, way) == ("n1", "ens3", "out")]
    assert isinstance(frame, Frame)
    return frame.packet


@pytest.mark.parametrize(("kind", "ttl"), [("ipip", 62), ("udp", 60)])
def test_both_ways(kind: str, ttl: int) -> None:
    (outcome,) = trace(tunnelled(kind), LocalOrigin("pod/p12"), syn())
    assert (outcome.receiver, outcome.packet.ttl) == ("pod/p22", ttl)
    (reply,) = trace_reply(tunnelled(kind), outcome)
    assert (reply.receiver, reply.packet.ttl) == ("pod/p12", ttl)


@pytest.mark.parametrize("df", [True, False])
def test_ipip_header(df: bool) -> None:
    (outcome,) = trace(tunnelled("ipip"), LocalOrigin("pod/p12"), syn(ttl=20, dont_fragment=df))
    header = outer(outcome)
    assert (header.proto, header.ttl, header.dont_fragment) == (Proto.IPIP, 19, df)
    assert (str(header.src), str(header.dst)) == ("192.168.56.11", "192.168.56.12")


def test_udp_header() -> None:
    (outcome,) = trace(tunnelled("udp"), LocalOrigin("pod/p12"), syn(ttl=20, tos=3))
    header = outer(outcome)
    assert isinstance(header.body, Udp)
    assert (header.body.sport, header.body.dport, header.ttl, header.tos) == (8285, 8285, 64, 0)
    assert isinstance(header.body.payload, Packet)
    assert header.body.payload.ttl == 18


@pytest.mark.parametrize(
    ("ttl", "end"), [(1, Disposition.UNREACHABLE), (2, Disposition.DROPPED), (3, Disposition.DROPPED)]
)
def test_flanneld_discards_without_a_word(ttl: int, end: Disposition) -> None:
    (outcome,) = trace(tunnelled("udp"), LocalOrigin("pod/p12"), syn(ttl=ttl))
    assert outcome.disposition is end
    assert (outcome.icmp is None) == (end is Disposition.DROPPED)


def test_flanneld_without_a_lease_says_so_in_vain() -> None:
    """The error's source is the node's own address, so the kernel takes it for a martian (accept_local=0)."""
    (outcome,) = trace(tunnelled("udp"), LocalOrigin("pod/p12"), syn("10.244.9.9"))
    assert outcome.disposition is Disposition.UNREACHABLE
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, str(outcome.icmp.origin)) == (3, 0, "10.244.1.0")
    assert (outcome.icmp.arrived, outcome.icmp.packet.ttl) == (False, 8)
