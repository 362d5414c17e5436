"""What each flannel backend puts on a node: device, address, routes, MTU."""

from __future__ import annotations

import pytest

from netsim.kube.cluster import Cluster, Settings
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.shared import runs_of
from netsim_backends.flannel import BACKEND
from tests.support.cni_clusters import (
    VXLAN,
    cluster,
    configured,
    net_conf,
    node,
    node_state,
    pod,
    pod_state,
    shown_routes,
)

POD = pod("web", "n1", "10.244.1.2")
DUAL = {**VXLAN, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}


def three(conf: dict[str, object] = VXLAN) -> Cluster:
    return cluster(node(1), node(2), node(3), POD, net_conf(conf))


def link(state: Namespace, name: str) -> Link:
    return next(one for one in state.links if one.name == name)


def addresses(state: Namespace) -> list[str]:
    return [f"{one.interface} dev {one.device}" for one in state.addresses]


def without(state: Namespace, *devices: str) -> list[str]:
    return [one.name for one in state.links if not one.name.startswith(("veth", "cni0", *devices))]


# -- one test for each backend -----------------------------------------------------------------------------------------
def test_vxlan() -> None:
    plugin = configured(BACKEND, three())
    state = node_state(plugin, "n1")
    device = link(state, "flannel.1")
    assert device.kind is LinkKind.VXLAN
    assert device.mtu == 1450
    assert device.vxlan is not None
    shown = (device.vxlan.vni, str(device.vxlan.local), device.vxlan.device, device.vxlan.port, device.vxlan.learning)
    assert shown == (1, "192.168.56.11", "eth0", 8472, False)
    assert addresses(state) == ["10.244.1.0/32 dev flannel.1", "10.244.1.1/24 dev cni0"]
    assert shown_routes(state) == [
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
    ]
    macs = [link(node_state(plugin, name), "flannel.1").mac for name in ("n2", "n3")]
    assert [(str(n.address), n.device, n.mac, n.state) for n in state.neighbours] == [
        ("10.244.2.0", "flannel.1", macs[0], "permanent"),
        ("10.244.3.0", "flannel.1", macs[1], "permanent"),
    ]
    assert [(f.mac, f.device, str(f.destination)) for f in state.fdb] == [
        (macs[0], "flannel.1", "192.168.56.12"),
        (macs[1], "flannel.1", "192.168.56.13"),
    ]


def test_host_gw() -> None:
    state = node_state(configured(BACKEND, three(), "host-gw"), "n1")
    assert without(state) == []
    assert shown_routes(state) == [
        "10.244.2.0/24 via 192.168.56.12 dev eth0",
        "10.244.3.0/24 via 192.168.56.13 dev eth0",
    ]
    assert link(state, "cni0").mtu == 1500
    assert not state.neighbours
    assert not state.fdb


def test_udp() -> None:
    state = node_state(configured(BACKEND, three(), "udp"), "n1")
    device = link(state, "flannel0")
    assert (device.kind, device.mtu) == (LinkKind.TUN, 1472)
    assert device.udp_tunnel is not None
    assert (str(device.udp_tunnel.local), device.udp_tunnel.port) == ("192.168.56.11", 8285)
    assert str(device.udp_tunnel.tun_address) == "10.244.1.0"
    assert [(str(subnet), str(at)) for subnet, at in device.udp_tunnel.peers] == [
        ("10.244.2.0/24", "192.168.56.12"),
        ("10.244.3.0/24", "192.168.56.13"),
    ]
    assert addresses(state)[0] == "10.244.1.0/32 dev flannel0"
    assert shown_routes(state) == ["10.244.0.0/16 dev flannel0"]


def test_ipip() -> None:
    state = node_state(configured(BACKEND, three(), "ipip"), "n1")
    device = link(state, "flannel.ipip")
    assert (device.kind, device.mtu) == (LinkKind.IPIP, 1480)
    assert device.tunnel is not None
    assert (str(device.tunnel.local), device.tunnel.remote, device.tunnel.ttl, device.tunnel.pmtudisc) == (
        "192.168.56.11",
        None,
        0,
        False,
    )
    assert addresses(state)[0] == "10.244.1.0/32 dev flannel.ipip"
    assert shown_routes(state) == [
        "10.244.2.0/24 via 192.168.56.12 dev flannel.ipip onlink",
        "10.244.3.0/24 via 192.168.56.13 dev flannel.ipip onlink",
    ]


def test_alloc() -> None:
    state = node_state(configured(BACKEND, three(), "alloc"), "n1")
    assert without(state) == []
    assert shown_routes(state) == []
    assert link(state, "cni0").mtu == 1500


@pytest.mark.parametrize(
    ("mode", "mtu"), [("vxlan", 1450), ("host-gw", 1500), ("udp", 1472), ("ipip", 1480), ("alloc", 1500)]
)
def test_pods_are_told_the_mtu(mode: str, mtu: int) -> None:
    plugin = configured(BACKEND, three(), mode)
    assert link(pod_state(plugin, POD), "eth0").mtu == mtu
    assert {one.mtu for one in node_state(plugin, "n1").links if one.name.startswith(("veth", "cni"))} == {mtu}


# -- shared by all nodes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("conf", [{"Type": "vxlan"}, {"Type": "vxlan", "DirectRouting": True}, {"Type": "host-gw"}])
def test_nodes_share_what_their_peers_bring(conf: dict[str, object]) -> None:
    plugin = configured(BACKEND, three({**VXLAN, "Backend": conf}))
    held = [runs_of(node_state(plugin, name).routes) for name in ("n1", "n2", "n3")]
    assert [[run.without for run in runs] for runs in held] == [[(0,)], [(1,)], [(2,)]]
    assert len({id(run.items) for runs in held for run in runs}) == 1


def test_udp_nodes_share_the_lease_table() -> None:
    plugin = configured(BACKEND, three(), "udp")
    tables = [link(node_state(plugin, name), "flannel0").udp_tunnel for name in ("n1", "n2")]
    assert len({id(run.items) for one in tables if one is not None for run in runs_of(one.peers)}) == 1


# -- variants ----------------------------------------------------------------------------------------------------------
def test_vxlan_options() -> None:
    conf = {**VXLAN, "Backend": {"Type": "VXLAN", "VNI": 42, "Port": 4789, "MTU": 9000, "Learning": True}}
    device = link(node_state(configured(BACKEND, three(conf)), "n1"), "flannel.42")
    assert device.vxlan is not None
    assert (device.mtu, device.vxlan.port, device.vxlan.learning) == (
        1450,
        4789,
        True,
    )  # asked for 8950, but the external interface carries no more


def test_direct_routing_needs_the_same_segment() -> None:
    conf = {**VXLAN, "Backend": {"Type": "vxlan", "DirectRouting": True}}
    plugin = configured(BACKEND, three(conf), far=["n3"])
    near, far = node_state(plugin, "n1"), node_state(plugin, "n3")
    assert shown_routes(near) == [
        "10.244.2.0/24 via 192.168.56.12 dev eth0",
        "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
    ]
    assert [str(one.destination) for one in near.fdb] == ["192.168.56.13"]
    assert [str(one.address) for one in near.neighbours] == ["10.244.3.0"]
    assert [str(one.destination) for one in far.fdb] == ["192.168.56.11", "192.168.56.12"]
    assert link(near, "cni0").mtu == 1450


def test_ipip_direct_routing_keeps_the_gateway_and_onlink() -> None:
    conf = {**VXLAN, "Backend": {"Type": "ipip", "DirectRouting": True}}
    state = node_state(configured(BACKEND, three(conf), far=["n3"]), "n1")
    assert shown_routes(state) == [
        "10.244.2.0/24 via 192.168.56.12 dev eth0 onlink",
        "10.244.3.0/24 via 192.168.56.13 dev flannel.ipip onlink",
    ]


def test_host_gw_routes_that_the_kernel_refuses() -> None:
    held = three()
    state = node_state(configured(BACKEND, held, "host-gw", far=["n3"]), "n1")
    assert shown_routes(state) == ["10.244.2.0/24 via 192.168.56.12 dev eth0"]
    assert sum("Nexthop has invalid gateway" in line for line in held.assumptions) == 1


def test_dual_stack() -> None:
    nodes = [
        node(n, f"10.244.{n}.0/24", f"fd00:244:0:{n}::/64", more=[f"fd00:56::{n}"])  # both families on the wire
        for n in (1, 2)
    ]
    one = pod("web", "n1", "10.244.1.2", "fd00:244:0:1::2")
    held = cluster(*nodes, one, net_conf(DUAL))
    plugin = configured(BACKEND, held)
    state = node_state(plugin, "n1")
    assert addresses(state) == [
        "10.244.1.0/32 dev flannel.1",
        "fd00:244:0:1::/128 dev flannel-v6.1",
        "10.244.1.1/24 dev cni0",
        "fd00:244:0:1::1/64 dev cni0",
    ]
    assert shown_routes(state) == [
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "fd00:244:0:2::/64 via fd00:244:0:2:: dev flannel-v6.1 onlink",
    ]
    assert [str(f.destination) for f in state.fdb] == ["192.168.56.12", "fd00:56::2"]
    assert (
        link(state, "flannel-v6.1").mtu == 1430
    )  # flanneld asks for 1450, the kernel gives less (VXLAN over IPv6 takes 70)
    assert shown_routes(pod_state(plugin, one)) == [
        "10.244.0.0/16 via 10.244.1.1 dev eth0",
        "0.0.0.0/0 via 10.244.1.1 dev eth0",
        "fd00:244::/48 via fd00:244:0:1::1 dev eth0",
        "::/0 via fd00:244:0:1::1 dev eth0",
    ]


def test_no_configuration_takes_the_pod_cidrs() -> None:
    held = cluster(node(1), node(2), settings=Settings(pod_cidrs=("10.244.0.0/16",)))
    assert BACKEND.detect(held) is None
    state = node_state(configured(BACKEND, held), "n1")
    assert "flannel.1" in without(state)
    assert held.assumptions == ["flannel: no net-conf.json found; assuming vxlan with Network 10.244.0.0/16"]


def test_a_pod_of_flannel() -> None:
    state = pod_state(configured(BACKEND, three()), POD)
    assert addresses(state) == ["10.244.1.2/24 dev eth0"]
    assert shown_routes(state) == ["10.244.0.0/16 via 10.244.1.1 dev eth0", "0.0.0.0/0 via 10.244.1.1 dev eth0"]


def test_the_bridge_comes_with_the_first_pod() -> None:
    state = node_state(configured(BACKEND, three()), "n2")
    assert [one.name for one in state.links] == ["flannel.1"]
