"""What holds of every cluster that is wired up, on every network."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.interpreter import Disposition
from netsim.linux.fib import Fib
from netsim.linux.network import Namespace
from netsim.packet.address import ip
from netsim.topology import Assembled
from tests.support.topology_clusters import Body, build, node, pod, send, service

NETWORKS = ("flannel:vxlan", "flannel:host-gw", "flannel:udp", "flannel:ipip", "bridge", "ptp", "flat")
ROUTED = ("flannel:vxlan", "flannel:udp", "flat")  # these carry pods' packets between any two nodes, whatever the wires
# Never the first or last address of a /30: that would be no host's in one of the lengths below.
v4 = st.builds(
    lambda third, quarter, low: f"10.0.{third}.{4 * quarter + low}",
    st.integers(0, 3),
    st.integers(0, 63),
    st.integers(1, 2),
)
lengths = st.sampled_from([None, 16, 20, 24, 30, 32])


@st.composite
def nodes(draw: st.DrawFn) -> list[Body]:
    found = []
    for number, address in enumerate(draw(st.lists(v4, min_size=1, max_size=5, unique=True)), 1):
        addresses = [address]
        if draw(st.booleans()):
            addresses.append(f"fd00:{draw(st.integers(0, 1))}::{10 + number}")
        length = draw(lengths)
        annotations = {"projectcalico.org/IPv4Address": f"{address}/{length}"} if length else {}
        external = f"198.51.100.{number}" if draw(st.booleans()) else ""
        cidrs = (f"10.244.{number}.0/24",)
        ready = draw(st.booleans())
        found.append(
            node(f"n{number}", *addresses, annotations=annotations, external=external, cidrs=cidrs, ready=ready)
        )
    return found


@st.composite
def clusters(draw: st.DrawFn) -> list[Body]:
    held = draw(nodes())
    names = [one["metadata"]["name"] for one in held]
    for number in range(draw(st.integers(0, 6))):
        host = {"hostNetwork": True} if draw(st.integers(0, 4)) == 0 else {}
        held.append(pod(f"p{number}", draw(st.sampled_from(names)), port=1000 + number, **host))
    policy = st.sampled_from(["Cluster", "Local"])
    balancers = st.sampled_from(["192.0.2.80", "203.0.113.80", "10.0.1.253"])
    used = {a["address"] for one in held for a in one.get("status", {}).get("addresses", ())}
    for number, address in enumerate(sorted(draw(st.sets(balancers)) - used)):
        held.append(service(f"s{number}", f"p{number}", address, externalTrafficPolicy=draw(policy)))
    return held


def namespaces(made: Assembled) -> list[str]:
    pods = [made.namespace_of(p) for p in made.cluster.pods.values()]
    return sorted({*pods, *(f"node/{n}" for n in made.cluster.nodes), "router/underlay", "external"})


def everything(made: Assembled) -> dict[str, Namespace]:
    return {name: made.network.namespace(name) for name in namespaces(made)}


@settings(max_examples=60, deadline=None)
@given(bodies=clusters(), cni=st.sampled_from(NETWORKS), seed=st.integers(0, 1 << 16))
def test_the_order_of_the_input_never_matters(bodies: list[Body], cni: str, seed: int) -> None:
    shuffled = list(bodies)
    random.Random(seed).shuffle(shuffled)
    one, other = build(*bodies, cni=cni), build(*shuffled, cni=cni)
    assert everything(one) == everything(other)
    assert sorted(one.cluster.assumptions) == sorted(other.cluster.assumptions)


@settings(max_examples=60, deadline=None)
@given(bodies=clusters(), cni=st.sampled_from(NETWORKS))
def test_every_namespace_is_sound(bodies: list[Body], cni: str) -> None:
    made = build(*bodies, cni=cni)
    spaces = everything(made)
    for name, space in spaces.items():
        assert made.network.namespace(name) is space, "derived once"
        links = {link.name: link for link in space.links}
        assert len(links) == len(space.links), "device names are unique"
        assert {a.device for a in space.addresses} <= links.keys()
        assert {r.device for r in space.routes if r.device} <= links.keys()
        assert {n.device for n in space.neighbours} | {f.device for f in space.fdb} <= links.keys()
        assert {link.master for link in space.links if link.master} <= links.keys()
        fib = Fib(space)
        for link in space.links:
            if link.peer is not None:
                far = next(one for one in spaces[link.peer[0]].links if one.name == link.peer[1])
                assert far.peer == (name, link.name), "both ends of a veth pair know each other"
                assert far.mtu == link.mtu
            if link.segment is not None and link.mac is not None:
                assert made.network.by_mac(link.segment, link.mac) == (name, link.name)
        for held in space.addresses:
            assert fib.address_type(held.interface.ip) == "LOCAL"


@settings(max_examples=60, deadline=None)
@given(bodies=clusters(), cni=st.sampled_from(NETWORKS))
def test_addresses_are_unique_and_answered_by_who_has_them(bodies: list[Body], cni: str) -> None:
    made = build(*bodies, cni=cni)
    pods = [p for p in made.cluster.pods.values() if not p.spec.host_network]
    given_out = [text for p in pods for text in p.ips]
    assert len(set(given_out)) == len(given_out)
    assert all(p.ips for p in pods)
    topology = made.network.topology
    for name, wire in topology.wires.items():
        for one in wire.interfaces:
            assert made.network.on_segment(wire.segment, one.ip) == (f"node/{name}", "eth0")
            router = topology.subnets[wire.segment][one.network]
            assert made.network.on_segment(wire.segment, router.ip) == ("router/underlay", _device(made, wire.segment))
            assert topology.node_at(router.ip) is None


def _device(made: Assembled, segment: str) -> str:
    return next(k.name for k in made.network.namespace("router/underlay").links if k.segment == segment)


@settings(max_examples=60, deadline=None)
@given(held=nodes(), data=st.data())
def test_any_two_nodes_reach_each_other_in_every_family_they_share(held: list[Body], data: st.DataObject) -> None:
    made = build(*held)
    wires = made.network.topology.wires
    one, other = data.draw(st.sampled_from(sorted(wires))), data.draw(st.sampled_from(sorted(wires)))
    for source in wires[one].interfaces:
        for target in wires[other].interfaces:
            if source.version == target.version:
                outcome = send(made, f"node/{one}", str(source.ip), str(target.ip))
                assert (outcome.disposition, outcome.receiver) == (Disposition.DELIVERED, f"node/{other}")


@settings(max_examples=60, deadline=None)
@given(bodies=clusters(), cni=st.sampled_from(ROUTED), data=st.data())
def test_any_two_pods_reach_each_other_untranslated(bodies: list[Body], cni: str, data: st.DataObject) -> None:
    made = build(*bodies, cni=cni)
    pods = sorted((p for p in made.cluster.pods.values() if not p.spec.host_network), key=lambda p: p.key)
    if not pods:
        return
    one, other = data.draw(st.sampled_from(pods)), data.draw(st.sampled_from(pods))
    outcome = send(made, made.namespace_of(one), one.ips[0], other.ips[0])
    assert (outcome.disposition, outcome.receiver) == (Disposition.DELIVERED, made.namespace_of(other))
    assert outcome.packet.src == ip(one.ips[0])


@settings(max_examples=60, deadline=None)
@given(bodies=clusters(), cni=st.sampled_from(ROUTED))
def test_balancers_deliver_to_ready_nodes_with_endpoints_where_asked(bodies: list[Body], cni: str) -> None:
    made = build(*bodies, cni=cni)
    states: dict[str, Any] = {n: node.status.conditions[0].status for n, node in made.cluster.nodes.items()}
    for address, delivery in made.network.balancers.deliveries.items():
        assert states[delivery.node] == "True"
        first = next(h.node for h in send(made, "external", "203.0.113.10", str(address)).hops if h.node)
        assert first == delivery.node
        if delivery.service.spec.external_traffic_policy == "Local":
            endpoints = [e for s in made.cluster.slices[delivery.service.key] for e in s.endpoints]
            assert delivery.node in {e.node_name for e in endpoints}
