"""From outside and to it: load balancers, externalIPs, ExternalIPs, and where the host outside may be."""

from __future__ import annotations

import pytest

from netsim.errors import UsageError
from netsim.interpreter import Disposition, trace_reply
from netsim.kube.cluster import Settings
from netsim.packet.address import ip
from netsim.topology import Assembled, assemble
from tests.support.control_clusters import store_of
from tests.support.topology_clusters import address_of, build, node, pod, send, service

CLIENT = "203.0.113.10"
N1, N2, N3 = node("n1", "10.0.1.11"), node("n2", "10.0.1.12"), node("n3", "10.0.2.13")
WEB = pod("web", "n3")


def entry(made: Assembled, destination: str, source: str = CLIENT) -> str | None:
    """The first node that a packet from outside meets."""
    return next((hop.node for hop in send(made, "external", source, destination).hops if hop.node), None)


@pytest.mark.parametrize("address", ["192.0.2.80", "203.0.113.80", "10.99.0.80", "10.0.1.80"])
def test_a_load_balancers_address_reaches_the_first_node_whatever_prefix_it_is_from(address: str) -> None:
    made = build(N2, N1, N3, WEB, service("web", "web", address))
    outcome = send(made, "external", CLIENT, address)
    assert (outcome.disposition, outcome.receiver) == (Disposition.DELIVERED, "pod/default/web")
    assert entry(made, address) == "n1"
    assert outcome.masqueraded
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.receiver, str(reply.packet.src)) == ("external", address)
    assert f"{address} of Service default/web is delivered to a ready node, here n1" in made.cluster.assumptions


def test_an_external_ip_is_delivered_likewise() -> None:
    made = build(N1, N3, WEB, service("web", "web", externalIPs=["198.51.100.7"]))
    assert entry(made, "198.51.100.7") == "n1"


def test_a_local_policy_takes_a_node_with_an_endpoint_and_keeps_the_client() -> None:
    made = build(N1, N2, N3, WEB, service("web", "web", "192.0.2.80", externalTrafficPolicy="Local"))
    outcome = send(made, "external", CLIENT, "192.0.2.80")
    assert entry(made, "192.0.2.80") == "n3"
    assert (outcome.receiver, str(outcome.packet.src)) == ("pod/default/web", CLIENT)


def test_a_local_policy_without_endpoints_is_delivered_nowhere() -> None:
    made = build(N1, N3, service("web", "web", "192.0.2.80", externalTrafficPolicy="Local"))
    assert send(made, "external", CLIENT, "192.0.2.80").disposition is Disposition.UNREACHABLE
    assert "192.0.2.80 of Service default/web reaches no node: none is ready for it" in made.cluster.assumptions


def test_nodes_that_are_not_ready_or_excluded_get_nothing() -> None:
    excluded = node("n1", "10.0.1.11", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})
    lost = node("n2", "10.0.1.12", ready=False)
    balanced = service("web", "web", "192.0.2.80")
    assert entry(build(excluded, lost, N3, WEB, balanced), "192.0.2.80") == "n3"
    assert entry(build(excluded, lost, balanced), "192.0.2.80") == "n1", "better than nobody"


def test_an_address_on_the_nodes_own_network_is_answered_there() -> None:
    """As MetalLB does it on layer 2: a node of that segment answers ARP."""
    made = build(N1, N3, WEB, service("web", "web", "10.0.2.80"))
    assert entry(made, "10.0.2.80") == "n3"
    assert made.network.on_segment("10.0.2.0/24", ip("10.0.2.80")) == ("node/n3", "eth0")
    assert made.network.on_segment("10.0.1.0/24", ip("10.0.2.80")) is None


def test_ipv6_goes_to_a_node_that_has_it() -> None:
    made = build(N1, node("n2", "10.0.1.12", "fd00::12"), service("web", "web", "2001:db8::80"))
    assert [d.node for d in made.network.balancers.deliveries.values()] == ["n2"]


# -- ExternalIPs -------------------------------------------------------------------------------------------------------
def test_external_ips_are_translated_in_and_out() -> None:
    named = node("n1", "10.0.1.11", external="198.51.100.11")
    made = build(named, N3, pod("host", "n1", hostNetwork=True), pod("web", "n1", port=81))
    outcome = send(made, "external", CLIENT, "198.51.100.11")
    assert (outcome.receiver, str(outcome.packet.dst)) == ("node/n1", "10.0.1.11")
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.receiver, str(reply.packet.src)) == ("external", "198.51.100.11")
    outcome = send(made, "pod/default/web", address_of(made, "web"), CLIENT)
    assert (outcome.disposition, str(outcome.packet.src)) == (Disposition.LEFT, "198.51.100.11")
    assert any("ExternalIPs" in line for line in made.cluster.assumptions)


def test_a_node_reaches_anothers_external_ip_and_hears_back() -> None:
    made = build(node("n1", "10.0.1.11", external="198.51.100.11"), node("n2", "10.0.1.12", external="198.51.100.12"))
    outcome = send(made, "node/n1", "10.0.1.11", "198.51.100.12")
    assert (outcome.receiver, str(outcome.packet.src)) == ("node/n2", "198.51.100.11")
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.receiver, str(reply.packet.src)) == ("node/n1", "198.51.100.12")


def test_an_external_ip_that_is_a_nodes_own_needs_no_translation() -> None:
    made = build(node("n1", "10.0.1.11", external="10.0.1.11"))
    assert not made.network.namespace("router/underlay").rulesets
    assert not any("ExternalIPs" in line for line in made.cluster.assumptions)


# -- the host outside --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", ["8.8.8.8", "10.0.1.50", "203.0.113.77", "2001:4860:4860::8888", "fd00::50"])
def test_the_host_outside_may_have_any_free_address(source: str) -> None:
    """Even one of the nodes' own network: the router answers for it there."""
    store = store_of(node("n1", "10.0.1.11", "fd00::11"), pod("host", "n1", hostNetwork=True))
    made = assemble(store, Settings(cni="flannel"), external=ip(source))
    target = "fd00::11" if ":" in source else "10.0.1.11"
    outcome = send(made, "external", source, target)
    assert (outcome.receiver, str(outcome.packet.src)) == ("node/n1", source)
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.disposition, reply.receiver) == (Disposition.LEFT, "external")
    assert send(made, "node/n1", target, source).receiver == "external"


def test_nodes_in_the_outsides_own_prefix_reach_it_and_are_reached() -> None:
    made = build(node("n1", "203.0.113.21"), node("n2", "203.0.113.22"), pod("host", "n1", hostNetwork=True))
    assert send(made, "external", CLIENT, "203.0.113.21").receiver == "node/n1"
    assert send(made, "node/n1", "203.0.113.21", CLIENT).receiver == "external"


@pytest.mark.parametrize(
    ("address", "owner"),
    [("10.0.1.11", "node n1"), ("198.51.100.3", "node n3"), ("192.0.2.80", "Service default/web")],
)
def test_what_the_cluster_has_cannot_be_outside(address: str, owner: str) -> None:
    made = build(N1, node("n3", "10.0.2.13", external="198.51.100.3"), WEB, service("web", "web", "192.0.2.80"))
    with pytest.raises(UsageError, match=f"{address} cannot be outside: it is an address of {owner}"):
        made.network.outside(ip(address))
    with pytest.raises(UsageError, match="of pod default/web"):
        made.network.outside(ip(address_of(made, "web")))


def test_an_unused_pod_address_goes_nowhere() -> None:
    made = build(N1, N3, WEB)
    assert send(made, "node/n1", "10.0.1.11", "10.244.99.5").disposition is Disposition.UNREACHABLE


# -- who is where ------------------------------------------------------------------------------------------------------
def test_a_host_network_pod_stands_for_its_port_on_the_node() -> None:
    made = build(N1, pod("proxy", "n1", port=8080, hostNetwork=True), pod("web", "n1"))
    assert made.place("node/n1", ip("10.0.1.11"), 8080) == "pod/default/proxy"
    assert made.place("node/n1", ip("10.0.1.11"), 80) == "node/n1", "web has a network of its own"
    assert made.place("pod/default/web", None, 8080) == "pod/default/web"
    pods = made.cluster.pods
    assert made.namespace_of(pods["default", "proxy"]) == "node/n1"
    assert made.namespace_of(pods["default", "web"]) == "pod/default/web"
    with pytest.raises(KeyError):
        made.network.namespace("pod/default/proxy")
