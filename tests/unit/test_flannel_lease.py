"""Leases: what nodes say in their annotations, and the etcd manager's subnets."""

from __future__ import annotations

import pytest

from netsim.errors import InputError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Node
from netsim.packet.address import Family, ip, network
from netsim_backends.flannel import BACKEND
from netsim_backends.flannel.config import SubnetOptions
from netsim_backends.flannel.subnets import SubnetError, allocate, candidates, subnet_range
from tests.support.cni_clusters import VXLAN, cluster, configured, net_conf, node, node_state, pod, shown_routes

MAC = "12:c6:65:89:b4:e3"


def two(second: Node) -> Cluster:
    return cluster(node(1), second, net_conf(VXLAN))


def refused(held: Cluster, mode: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        configured(BACKEND, held, mode)
    return str(caught.value)


# -- annotations -------------------------------------------------------------------------------------------------------
def test_the_announced_mac_is_believed_by_both_sides() -> None:
    data = f'{{"VNI":1,"VtepMAC":"{MAC}"}}'
    plugin = configured(BACKEND, two(node(2, annotations={"backend-data": data, "backend-type": "vxlan"})))
    assert [one.mac for one in node_state(plugin, "n1").fdb] == [MAC]
    assert [one.mac for one in node_state(plugin, "n2").links] == [MAC]


@pytest.mark.parametrize("key", ["public-ip", "public-ip-overwrite"])
def test_peers_use_what_they_are_told(key: str) -> None:
    plugin = configured(BACKEND, two(node(2, annotations={key: "198.51.100.2"})))
    assert [str(one.destination) for one in node_state(plugin, "n1").fdb] == ["198.51.100.2"]
    vxlan = node_state(plugin, "n2").links[0].vxlan
    assert vxlan is not None
    assert str(vxlan.local) == "192.168.56.12"


def test_node_public_ip_is_the_nodes_own_too() -> None:
    plugin = configured(BACKEND, two(node(2, annotations={"node-public-ip": "198.51.100.2"})))
    assert [str(one.destination) for one in node_state(plugin, "n1").fdb] == ["198.51.100.2"]
    vxlan = node_state(plugin, "n2").links[0].vxlan
    assert vxlan is not None
    assert str(vxlan.local) == "198.51.100.2"


def test_host_gw_refuses_a_public_address_behind_nat() -> None:
    held = two(node(2, annotations={"node-public-ip": "198.51.100.2"}))
    assert "your PublicIP differs from interface IP" in refused(held, "host-gw")


def test_a_lease_of_another_backend_is_ignored_and_noted() -> None:
    held = two(node(2, annotations={"backend-type": "host-gw"}))
    plugin = configured(BACKEND, held)
    assert shown_routes(node_state(plugin, "n1")) == []
    assert any('ignores the lease of node n2: its backend type is "host-gw"' in line for line in held.assumptions)


def test_a_mode_that_is_asked_for_runs_on_every_node() -> None:
    plugin = configured(BACKEND, two(node(2, annotations={"backend-type": "host-gw"})), "vxlan")
    assert len(shown_routes(node_state(plugin, "n1"))) == 1


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            node(2, "10.9.2.0/24"),
            'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain '
            '"10.9.2.0/24" PodCIDR of the "n2" node',
        ),
        (node(2, "10.0.0.0/8"), "doesn't contain"),
        (node(2, "10.244.2.1/24"), "Network has host bits set"),
        (node(2, "fd00::/64"), 'node "n2" pod cidr not assigned'),
        (node(2, annotations={"public-ip": "nowhere"}), 'invalid public IP address "nowhere"'),
        (node(2, annotations={"backend-data": "{"}), "is no JSON"),
        (node(2, annotations={"backend-data": '{"VtepMAC":"12"}'}), "is no MAC address"),
    ],
)
def test_nodes_on_which_flannel_does_not_start(second: Node, words: str) -> None:
    assert words in refused(two(second))


def test_a_node_without_pod_cidr_has_no_part_in_it() -> None:
    bare = node(2, "")
    held = cluster(node(1), bare, pod("waits", "n2"), net_conf(VXLAN))
    plugin = configured(BACKEND, held)
    assert plugin.allocate() == {}
    assert node_state(plugin, "n2").links == ()
    assert shown_routes(node_state(plugin, "n1")) == []
    assert any('node "n2" pod cidr not assigned' in line for line in held.assumptions)


# -- the etcd manager --------------------------------------------------------------------------------------------------
def bounds(prefix: str, **options: object) -> tuple[int, str, str]:
    found = subnet_range(network(prefix), SubnetOptions(**options))  # type: ignore[arg-type]
    return found.length, str(found.low), str(found.high)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("10.0.0.0/8", (24, "10.0.1.0", "10.255.255.0")),
        ("10.244.0.0/16", (24, "10.244.1.0", "10.244.255.0")),
        ("10.244.0.0/22", (24, "10.244.1.0", "10.244.3.0")),
        ("10.244.0.0/23", (25, "10.244.0.128", "10.244.1.128")),
        ("10.244.0.0/28", (30, "10.244.0.4", "10.244.0.12")),
        ("fd00::/48", (64, "fd00:0:0:1::", "fd00:0:0:ffff::")),
        ("fd00::/63", (65, "fd00::8000:0:0:0", "fd00:0:0:1:8000::")),
        ("::/48", (64, "0:0:0:1::", "0:0:0:ffff::")),
    ],
)
def test_default_ranges(prefix: str, expected: tuple[int, str, str]) -> None:
    assert bounds(prefix) == expected


@pytest.mark.parametrize(
    ("prefix", "options", "words"),
    [
        ("10.244.0.0/16", {"length": 31}, "SubnetLen must be less than /31"),
        ("10.244.0.0/16", {"length": 17}, "network must be able to accommodate at least four subnets"),
        ("10.244.0.0/29", {}, "network is too small. Minimum useful network prefix is /28"),
        ("fd00::/125", {}, "network is too small. Minimum useful network prefix is /124"),
        ("fd00::/48", {"length": 127}, "SubnetLen must be less than /127"),
        ("10.244.0.0/16", {"low": ip("10.245.0.0")}, "SubnetMin is not in the range of the Network"),
        ("10.244.0.0/16", {"high": ip("10.245.0.0")}, "SubnetMax is not in the range of the Network"),
        ("10.244.0.0/16", {"low": ip("10.244.1.1")}, "SubnetMin is not on a SubnetLen boundary: 10.244.1.1"),
        ("10.244.0.0/16", {"high": ip("10.244.1.1")}, "SubnetMax is not on a SubnetLen boundary: 10.244.1.1"),
    ],
)
def test_ranges_that_are_refused(prefix: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(SubnetError) as caught:
        bounds(prefix, **options)
    assert str(caught.value) == words


def test_candidates_are_the_first_hundred_that_overlap_nothing() -> None:
    whole = subnet_range(network("10.244.0.0/16"), SubnetOptions())
    found = candidates(whole, [network("10.244.1.0/24"), network("10.244.4.0/22")])
    assert [str(one) for one in found[:4]] == ["10.244.2.0/24", "10.244.3.0/24", "10.244.8.0/24", "10.244.9.0/24"]
    assert len(found) == 100


def test_each_pick_is_the_first_candidate() -> None:
    whole = subnet_range(network("10.244.0.0/20"), SubnetOptions())
    given = allocate(whole, ["c", "a", "b"])
    held: list = []  # type: ignore[type-arg]
    for name in ("a", "b", "c"):
        assert given[name] == candidates(whole, held)[0]
        held.append(given[name])


def test_min_above_max_leaves_nothing() -> None:
    options = SubnetOptions(low=ip("10.244.9.0"), high=ip("10.244.3.0"))
    empty = subnet_range(network("10.244.0.0/16"), options)
    assert candidates(empty, []) == []
    with pytest.raises(SubnetError, match="out of subnets"):
        allocate(empty, ["a"])


def test_families_do_not_mix() -> None:
    whole = subnet_range(network("::/48"), SubnetOptions())
    assert all(one.version == Family.IPV6 for one in candidates(whole, [network("0.0.0.0/0")]))
