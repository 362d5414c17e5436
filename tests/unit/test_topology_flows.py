"""Whose address the receiver sees, from manifests to the last hop: what was observed on flannel nodes with real kernels."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.interpreter import Disposition, LocalOrigin, WireOrigin, trace, trace_reply
from netsim.interpreter.origin import source_for
from netsim.interpreter.outcome import Outcome
from netsim.kube.cluster import Settings
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Tcp
from netsim.topology import Assembled, assemble
from tests.support.control_clusters import store_of
from tests.support.topology_clusters import Body, address_of, build, node, pod, send

N1, N2, FAR, OUTSIDE = "192.168.56.11", "192.168.56.12", "192.168.57.13", "203.0.113.10"
NODES = (
    node("n1", N1, cidrs=("10.244.1.0/24",)),
    node("n2", N2, cidrs=("10.244.2.0/24",)),
    node("n3", FAR, cidrs=("10.244.3.0/24",)),
)


def mapped(name: str, on: str) -> Body:
    """A pod whose port 80 is host port 8080."""
    body = pod(name, on)
    body["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]
    return body


PODS = (mapped("a", "n1"), pod("b", "n1"), pod("c", "n2"), pod("d", "n3"), pod("host", "n2", hostNetwork=True))


@pytest.fixture(scope="module", params=["flannel:vxlan", "flannel:host-gw"])
def made(request: pytest.FixtureRequest) -> Assembled:
    return build(*NODES, *PODS, cni=request.param)


def source_seen(outcome: Outcome) -> str:
    assert outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT), outcome.decided_by
    return str(outcome.packet.src)


def tunnelled(made: Assembled) -> bool:
    return made.choice.cni_mode == "vxlan"


def test_the_addresses_that_host_local_gives(made: Assembled) -> None:
    given = {name: address_of(made, name) for name in "abcd"}
    assert given == {"a": "10.244.1.2", "b": "10.244.1.3", "c": "10.244.2.2", "d": "10.244.3.2"}


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("10.244.1.3", "10.244.1.2"),  # a pod of the same node
        ("10.244.2.2", "10.244.1.2"),  # a pod of another node
        (N1, "10.244.1.2"),  # the own node: no POSTROUTING on the way to a local process
        (N2, N1),
        (OUTSIDE, N1),
    ],
)
def test_from_a_pod(made: Assembled, destination: str, expected: str) -> None:
    outcome = send(made, "pod/default/a", "10.244.1.2", destination)
    assert source_seen(outcome) == expected
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.disposition, reply.receiver) == (Disposition.DELIVERED, "pod/default/a")
    assert str(reply.packet.src) == destination


def from_node(made: Assembled, destination: str, bound: str | None = None) -> Outcome:
    """By a process of n1; unbound, the kernel picks the source address by the route."""
    source = ip(bound) if bound else source_for(made.network, "node/n1", ip(destination))
    assert source is not None
    packet = Packet(source, ip(destination), Proto.TCP, Tcp(40000, 80))
    (outcome,) = trace(made.network, LocalOrigin("node/n1"), packet)
    return outcome


def test_from_a_node(made: Assembled) -> None:
    remote = "10.244.1.0" if tunnelled(made) else N1
    assert source_seen(from_node(made, "10.244.1.2")) == "10.244.1.1"
    assert source_seen(from_node(made, "10.244.2.2")) == remote
    assert source_seen(from_node(made, "10.244.2.2", bound=N1)) == remote


def test_from_outside_by_a_node_that_routes(made: Assembled) -> None:
    for destination, expected in (("10.244.1.2", OUTSIDE), ("10.244.2.2", "10.244.1.0" if tunnelled(made) else N1)):
        packet = Packet(ip(OUTSIDE), ip(destination), Proto.TCP, Tcp(40000, 80))
        (outcome,) = trace(made.network, WireOrigin("node/n1", "eth0"), packet)
        assert source_seen(outcome) == expected


# -- host ports: 10.244.1.2:80 is 192.168.56.11:8080 -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("origin", "source", "expected"),
    [
        ("external", OUTSIDE, OUTSIDE),
        ("node/n2", N2, N2),
        ("pod/default/c", "10.244.2.2", N2),
        ("pod/default/a", "10.244.1.2", "10.244.1.1"),
        ("pod/default/b", "10.244.1.3", "10.244.1.1"),
        ("node/n1", N1, N1),
    ],
)
def test_a_host_port(made: Assembled, origin: str, source: str, expected: str) -> None:
    outcome = send(made, origin, source, N1, 8080)
    assert (outcome.receiver, outcome.packet.dport) == ("pod/default/a", 80)
    assert source_seen(outcome) == expected
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.receiver, str(reply.packet.src), reply.packet.sport) == (origin, N1, 8080)


def test_a_host_port_by_loopback(made: Assembled) -> None:
    outcome = send(made, "node/n1", "127.0.0.1", "127.0.0.1", 8080)
    assert (outcome.receiver, source_seen(outcome)) == ("pod/default/a", "10.244.1.1")


# -- across segments ---------------------------------------------------------------------------------------------------
def ways(made: Assembled, destination: str) -> list[str]:
    outcome = send(made, "pod/default/a", "10.244.1.2", destination)
    return [outcome.disposition.value, *(hop.namespace for hop in outcome.hops)]


def test_host_gw_ends_at_the_router_that_knows_no_pod() -> None:
    made = build(*NODES, *PODS, cni="flannel:host-gw")
    assert ways(made, "10.244.2.2") == ["DELIVERED", "pod/default/a", "node/n1", "node/n2", "pod/default/c"]
    assert ways(made, "10.244.3.2") == ["UNREACHABLE", "pod/default/a", "node/n1", "router/underlay"]


def test_the_tunnel_passes_the_router() -> None:
    made = build(*NODES, *PODS, cni="flannel:vxlan")
    path = ["pod/default/a", "node/n1", "router/underlay", "node/n3", "pod/default/d"]
    assert ways(made, "10.244.3.2") == ["DELIVERED", *path]


def test_direct_routing_tunnels_only_what_must_pass_the_router() -> None:
    conf: dict[str, Any] = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": True}}
    made = assemble(store_of(*NODES, *PODS), Settings(cni="flannel", network_config=conf))
    near = send(made, "pod/default/a", "10.244.1.2", "10.244.2.2")
    far = send(made, "pod/default/a", "10.244.1.2", "10.244.3.2")
    assert (near.receiver, far.receiver) == ("pod/default/c", "pod/default/d")
    kinds = [{step.kind.value for hop in outcome.hops for step in hop.steps} for outcome in (near, far)]
    assert ["encap" in found for found in kinds] == [False, True]


def test_a_dual_stack_cluster_talks_in_both_families() -> None:
    nodes = [
        node(f"n{n}", f"192.168.56.1{n}", f"fd00:56::1{n}", cidrs=(f"10.244.{n}.0/24", f"fd00:244:0:{n}::/64"))
        for n in (1, 2)
    ]
    conf: dict[str, Any] = {
        "Network": "10.244.0.0/16", "IPv6Network": "fd00:244::/48", "EnableIPv6": True, "Backend": {"Type": "vxlan"},
    }  # fmt: skip
    store = store_of(*nodes, pod("a", "n1"), pod("c", "n2"))
    cidrs, services = ("10.244.0.0/16", "fd00:244::/48"), ("10.96.0.0/16", "fd00:96::/112")
    made = assemble(store, Settings(cni="flannel", network_config=conf, pod_cidrs=cidrs, service_cidrs=services))
    one, other = made.cluster.pods["default", "a"].ips, made.cluster.pods["default", "c"].ips
    assert (one, other) == (["10.244.1.2", "fd00:244:0:1::2"], ["10.244.2.2", "fd00:244:0:2::2"])
    for source, destination in zip(one, other):
        outcome = send(made, "pod/default/a", source, destination)
        assert (outcome.receiver, source_seen(outcome)) == ("pod/default/c", source)
        (reply,) = trace_reply(made.network, outcome)
        assert reply.receiver == "pod/default/a"
