"""Subnets and segments: which nodes are neighbours, and where the router is."""

from __future__ import annotations

import pytest

from netsim.errors import InputError
from netsim.interpreter import Disposition
from netsim.linux.fib import Fib
from netsim.packet.address import ip
from tests.support.topology_clusters import Body, build, node, send

CALICO4, CALICO6 = "projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address"


def segments(*nodes: Body) -> dict[str, str]:
    return {name: wire.segment for name, wire in build(*nodes).network.topology.wires.items()}


def interfaces(*nodes: Body) -> dict[str, list[str]]:
    wires = build(*nodes).network.topology.wires
    return {name: [str(one) for one in wire.interfaces] for name, wire in wires.items()}


def test_a_slash_24_and_a_slash_64_where_nothing_is_said() -> None:
    assert interfaces(node("n1", "10.0.1.11", "fd00::11")) == {"n1": ["10.0.1.11/24", "fd00::11/64"]}


def test_the_annotation_gives_the_length() -> None:
    one = node("n1", "10.0.1.11", annotations={CALICO4: "10.0.1.11/20"})
    assert interfaces(one) == {"n1": ["10.0.1.11/20"]}


@pytest.mark.parametrize("text", ["10.9.9.9/20", "10.0.1.11", "nonsense/20", ""])
def test_an_annotation_about_something_else_gives_none(text: str) -> None:
    assert interfaces(node("n1", "10.0.1.11", annotations={CALICO4: text})) == {"n1": ["10.0.1.11/24"]}


def test_an_annotated_subnet_speaks_for_the_other_nodes_in_it() -> None:
    stated = node("n1", "10.0.1.11", annotations={CALICO4: "10.0.1.11/20"})
    assert interfaces(stated, node("n2", "10.0.9.12"), node("n3", "10.0.16.13")) == {
        "n1": ["10.0.1.11/20"],
        "n2": ["10.0.9.12/20"],
        "n3": ["10.0.16.13/24"],
    }


def test_an_annotated_subnet_does_not_speak_for_its_broadcast_address() -> None:
    stated = node("n1", "10.0.1.5", annotations={CALICO4: "10.0.1.5/30"})
    assert interfaces(stated, node("n2", "10.0.1.7"))["n2"] == ["10.0.1.7/24"]


def test_addresses_that_rule_a_slash_24_out_shorten_it_for_all() -> None:
    """10.0.1.0 would be the network's own address."""
    made = build(node("n1", "10.0.1.0"), node("n2", "10.0.0.7"))
    assert {str(w.interfaces[0]) for w in made.network.topology.wires.values()} == {"10.0.1.0/23", "10.0.0.7/23"}
    assert any("/23" in line for line in made.cluster.assumptions)


def test_different_subnets_are_different_segments() -> None:
    assert segments(node("n1", "10.0.1.11"), node("n2", "10.0.2.12")) == {"n1": "10.0.1.0/24", "n2": "10.0.2.0/24"}


def test_a_subnet_shared_in_one_family_is_one_wire() -> None:
    nodes = (node("n1", "10.0.1.11", "fd00::11"), node("n2", "10.0.2.12", "fd00::12"), node("n3", "10.0.3.13"))
    assert segments(*nodes) == {"n1": "10.0.1.0/24", "n2": "10.0.1.0/24", "n3": "10.0.3.0/24"}
    made = build(*nodes)
    outcome = send(made, "node/n1", "fd00::11", "fd00::12")
    assert (outcome.disposition, outcome.receiver) == (Disposition.DELIVERED, "node/n2")
    assert [hop.namespace for hop in outcome.hops] == ["node/n1", "node/n2"], "IPv6 goes straight"
    outcome = send(made, "node/n1", "10.0.1.11", "10.0.2.12")
    assert [hop.namespace for hop in outcome.hops] == ["node/n1", "router/underlay", "node/n2"], "IPv4 by the router"
    # What plug-ins may take for on-link is a matter of subnets: the kernel refuses a gateway outside them.
    assert not made.network.topology.underlay().on_link("n1", "n2")


def test_a_subnet_inside_another_is_on_its_wire() -> None:
    wide = node("n1", "10.0.1.11", annotations={CALICO4: "10.0.1.11/16"})
    narrow = node("n2", "10.0.2.12", annotations={CALICO4: "10.0.2.12/24"})
    assert set(segments(wide, narrow).values()) == {"10.0.0.0/16"}


def gateways(name: str, *nodes: Body) -> list[str | None]:
    routes = build(*nodes).network.namespace(f"node/{name}").routes
    return [str(r.gateway) for r in routes if r.destination.prefixlen == 0]


def test_the_router_has_the_first_address_that_no_node_has() -> None:
    assert gateways("n1", node("n1", "10.0.1.11", "fd00::11")) == ["10.0.1.1", "fd00::1"]
    assert gateways("n1", node("n1", "10.0.1.1"), node("n2", "10.0.1.2")) == ["10.0.1.3"]


@pytest.mark.parametrize("length", [32, 30])
def test_a_subnet_without_an_address_to_spare_has_a_link_local_router(length: int) -> None:
    texts = ("10.0.1.1", "10.0.1.2")
    nodes = [node(f"n{t[-1]}", t, annotations={CALICO4: f"{t}/{length}"}) for t in texts]
    assert gateways("n1", *nodes) == ["169.254.1.1"]
    made = build(*nodes, node("n9", "10.7.0.9"))
    assert send(made, "node/n1", "10.0.1.1", "10.7.0.9").receiver == "node/n9"
    assert send(made, "node/n9", "10.7.0.9", "10.0.1.2").receiver == "node/n2"


def test_a_slash_31_has_both_its_addresses_for_hosts() -> None:
    assert gateways("n1", node("n1", "10.0.1.0", annotations={CALICO4: "10.0.1.0/31"})) == ["10.0.1.1"]


def test_an_ipv6_host_prefix_has_a_link_local_router() -> None:
    nodes = [node(f"n{n}", f"fd00:{n}::5", annotations={CALICO6: f"fd00:{n}::5/128"}) for n in (1, 2)]
    made = build(*nodes, pod_cidrs=("fd00:244::/48",))
    assert send(made, "node/n1", "fd00:1::5", "fd00:2::5").receiver == "node/n2"


def test_nodes_are_wired_as_a_kernel_would_have_it() -> None:
    state = build(node("n1", "10.0.1.11"), node("n2", "10.0.2.12")).network.namespace("node/n1")
    assert [one.name for one in state.links][:2] == ["lo", "eth0"]
    assert {state.sysctls[f"net.{name}"] for name in ("ipv4.ip_forward", "bridge.bridge-nf-call-iptables")} == {"1"}
    found = Fib(state).lookup(ip("10.0.2.12"))
    assert (str(found.gateway), found.device, str(found.prefsrc)) == ("10.0.1.1", "eth0", "10.0.1.11")


def test_every_bad_address_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        build(node("n1", "10.0.1.11"), node("n2", "10.0.1.11"), node("n3"), node("n4", "10.0.1.999"), cni="flat")
    told = [(p.object, p.field, p.text.split(":")[0]) for p in caught.value.problems]
    assert told == [
        ('Node "n2"', "status.addresses[0].address", "address 10.0.1.11 is also that of node n1"),
        ('Node "n3"', "status.addresses", "Required value"),
        ('Node "n4"', "status.addresses[0].address", "Invalid value"),
    ]


def test_a_doubled_address_is_the_later_nodes_mistake_whatever_the_order() -> None:
    for nodes in (
        (node("n1", "10.0.1.11"), node("n2", "10.0.1.11")),
        (node("n2", "10.0.1.11"), node("n1", "10.0.1.11")),
    ):
        with pytest.raises(InputError, match=r'Node "n2".*also that of node n1'):
            build(*nodes)
