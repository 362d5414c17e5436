"""The flat network: host routes on nodes, the agent's rules, routes for the router."""

from __future__ import annotations

import pytest

from netsim.errors import UsageError
from netsim.kube.cluster import Settings
from netsim.packet.address import Family
from netsim_backends.flat import BACKEND
from tests.support.cni_clusters import (
    cluster,
    configured,
    node,
    node_state,
    pod,
    pod_state,
    saved,
    shown_routes,
    underlay,
)

POD = pod("web", "n1", "10.244.1.2")
INSIDE = '-m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
ENSURE = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain"
LAST = "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"


def test_a_node_knows_its_own_pods_alone() -> None:
    state = node_state(configured(BACKEND, cluster(node(1), node(2), POD, pod("far", "n2", "10.244.2.2"))), "n1")
    assert shown_routes(state) == [f"10.244.1.2/32 dev {state.links[0].name} scope host"]
    assert not state.fdb
    assert [link.mtu for link in state.links] == [1500]


def test_the_router_knows_every_pod_cidr() -> None:
    held = cluster(node(2), node(1, "10.244.1.0/24", "fd00:1::/64"))
    routes = BACKEND.configure(held, None, underlay(held)).underlay_routes()
    assert [(str(prefix), name) for prefix, name in routes] == [
        ("10.244.1.0/24", "n1"),
        ("fd00:1::/64", "n1"),
        ("10.244.2.0/24", "n2"),
    ]


def test_masquerading_outside_the_private_networks() -> None:
    assert saved(node_state(configured(BACKEND, cluster(node(1), POD)), "n1"), "nat") == [
        f'-A POSTROUTING -m comment --comment "{ENSURE}" -m addrtype ! --dst-type LOCAL -j IP-MASQ',
        f"-A IP-MASQ -d 169.254.0.0/16 {INSIDE}",
        f"-A IP-MASQ -d 10.0.0.0/8 {INSIDE}",
        f"-A IP-MASQ -d 172.16.0.0/12 {INSIDE}",
        f"-A IP-MASQ -d 192.168.0.0/16 {INSIDE}",
        f'-A IP-MASQ -m comment --comment "{LAST}" -j MASQUERADE',
    ]


def test_public_pod_networks_are_inside_too() -> None:
    held = cluster(node(1, "100.64.1.0/24"), settings=Settings(pod_cidrs=("100.64.0.0/10",)))
    assert f"-A IP-MASQ -d 100.64.0.0/10 {INSIDE}" in saved(node_state(configured(BACKEND, held), "n1"), "nat")


def test_rules_for_the_families_of_the_node_alone() -> None:
    state = node_state(configured(BACKEND, cluster(node(1))), "n1")
    assert saved(state, "nat", Family.IPV6) == []


def test_a_pod_reaches_everything_through_its_gateway() -> None:
    state = pod_state(configured(BACKEND, cluster(node(1), POD)), POD)
    assert shown_routes(state)[-1] == "0.0.0.0/0 via 10.244.1.1 dev eth0"


def test_it_has_no_modes() -> None:
    with pytest.raises(UsageError, match="flat has no modes"):
        configured(BACKEND, cluster(node(1)), "vxlan")
