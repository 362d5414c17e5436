"""flannel's configuration: where it is found, defaults, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.errors import InputError, Source, UnsupportedError
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import Meta, Resource
from netsim.packet.address import Family, network
from netsim_backends.flannel import BACKEND
from netsim_backends.flannel.config import FlannelConfig, read_config
from netsim_backends.flannel.rules import write_masquerade
from tests.support.cni_clusters import (
    VXLAN,
    cluster,
    configured,
    daemon_set,
    net_conf,
    node,
    node_state,
    pod,
    pod_state,
    saved,
    shown_routes,
)


def read(body: dict[str, Any], mode: str | None = None) -> FlannelConfig:
    return read_config(cluster(net_conf(body)), mode)


def told(body: dict[str, Any], mode: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(body, mode)
    return str(caught.value)


# -- where it is found -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("namespace", ["kube-flannel", "kube-system"])
def test_the_config_map_is_found(namespace: str) -> None:
    held = cluster(net_conf(VXLAN, namespace))
    assert BACKEND.detect(held) == f"ConfigMap {namespace}/kube-flannel-cfg"


def test_a_bare_document_and_the_settings_are_found() -> None:
    bare = Resource(kind="FlannelNetConf", metadata=Meta(name="net-conf.json"), body=VXLAN)
    assert BACKEND.detect(cluster(bare)) == "net-conf.json"
    assert BACKEND.detect(cluster(settings=Settings(network_config=VXLAN))) == "net-conf.json"
    assert BACKEND.detect(cluster()) is None


def test_problems_name_their_source() -> None:
    meta = Meta(name="kube-flannel-cfg", namespace="kube-flannel")
    bad = Resource(kind="ConfigMap", metadata=meta, body={"data": {"net-conf.json": "{"}}, source=Source("f.yaml", 7))
    with pytest.raises(
        InputError, match=r'^f\.yaml:7: ConfigMap kube-flannel/kube-flannel-cfg: data\["net-conf\.json"\]: '
    ):
        read_config(cluster(bad), None)


# -- fields ------------------------------------------------------------------------------------------------------------
def test_defaults() -> None:
    config = read(VXLAN)
    assert (config.mode, config.vni, config.port, config.mtu) == ("vxlan", 1, 0, None)
    assert not config.learning
    assert not config.direct_routing
    assert config.networks == {Family.IPV4: network("10.244.0.0/16")}


def test_keys_in_any_case_and_host_bits_masked() -> None:
    config = read({"NETWORK": "10.3.4.5/16", "backend": {"type": "Host-GW"}})
    assert config.mode == "host-gw"
    assert config.networks == {Family.IPV4: network("10.3.0.0/16")}


def test_without_a_backend_it_is_udp() -> None:
    assert read({"Network": "10.244.0.0/16"}).mode == "udp"


def test_the_command_line_replaces_the_type_and_keeps_the_network() -> None:
    config = read({"Network": "10.9.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}, "udp")
    assert (config.mode, config.port) == ("udp", 0)
    assert config.networks == {Family.IPV4: network("10.9.0.0/16")}


def test_unknown_keys_are_noted() -> None:
    held = cluster(net_conf({**VXLAN, "Netwrok": "x", "Backend": {"Type": "vxlan", "Vnid": 2}}))
    read_config(held, None)
    assert [line.split("unknown field ")[1].split(" ")[0] for line in held.assumptions] == ["Netwrok", "Backend.Vnid"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Network": None}, "please define a correct Network parameter in the flannel config"),
        ({"Network": "fd00::/48"}, 'Network: "fd00::/48" is not an IPv4 network'),
        ({"Network": "10.244.0.0"}, 'Network: "10.244.0.0" is not an IPv4 network'),
        ({"EnableIPv6": True}, "IPv6Network: please define a correct IPv6Network"),
        ({"EnableIPv4": False}, "neither IPv4 nor IPv6 is enabled"),
        ({"EnableIPv4": "yes"}, 'EnableIPv4: must be of type bool, not "yes"'),
        ({"SubnetMin": "ten"}, 'SubnetMin: "ten" is not an IPv4 address'),
        ({"Backend": {}}, "unknown backend type: "),
        ({"Backend": {"Type": "vxlam"}}, "Backend.Type: unknown backend type: vxlam"),
        ({"Backend": {"Type": "vxlan", "VNI": 1 << 24}}, "Backend.VNI: 16777216 is not within 0 to 16777215"),
        ({"Backend": {"Type": "vxlan", "Port": True}}, "Backend.Port: must be of type int"),
    ],
)
def test_refused(change: dict[str, Any], words: str) -> None:
    assert words in told({**VXLAN, **change})


def test_every_problem_is_told_at_once() -> None:
    assert told({"Network": "x", "SubnetMin": "y", "Backend": {"Type": "vxlan", "VNI": -1}}).count("\n") == 2


@pytest.mark.parametrize("kind", ["wireguard", "ipsec", "extension"])
def test_backends_that_are_not_modelled(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=r"(not|cannot be) modelled"):
        read({**VXLAN, "Backend": {"Type": kind}})
    with pytest.raises(UnsupportedError):
        read(VXLAN, kind)


@pytest.mark.parametrize("change", [{"EnableNFTables": True}, {"Backend": {"Type": "vxlan", "GBP": True}}])
def test_options_that_are_not_modelled(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        read({**VXLAN, **change})


# -- rules and flags ---------------------------------------------------------------------------------------------------
MASQ = '-m comment --comment "flanneld masq"'
SEVEN = [
    f"-A POSTROUTING {MASQ} -j FLANNEL-POSTRTG",
    f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {MASQ} -j RETURN",
    f"-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 {MASQ} -j RETURN",
    f"-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 {MASQ} -j RETURN",
    f"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 {MASQ} -j RETURN",
    f"-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 {MASQ} -j MASQUERADE --random-fully",
    f"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 {MASQ} -j MASQUERADE --random-fully",
]
FORWARD = [
    '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD',
    '-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
    '-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
]
POD = pod("web", "n1", "10.244.1.2")


def with_flags(*flags: str) -> Cluster:
    return cluster(node(1), node(2), POD, net_conf(VXLAN), daemon_set(*flags))


def test_the_rules_of_a_node() -> None:
    state = node_state(configured(BACKEND, cluster(node(1), node(2), net_conf(VXLAN))), "n1")
    assert saved(state, "nat") == SEVEN
    assert saved(state, "filter") == FORWARD


def test_the_rules_say_why_they_are_there() -> None:
    state = node_state(configured(BACKEND, with_flags("--ip-masq", "--kube-subnet-mgr")), "n1")
    rules = [r for t in state.rulesets[Family.IPV4].tables.values() for c in t.chains.values() for r in c.rules]
    assert rules
    assert all(r.provenance is not None and r.provenance.because.startswith("flannel --") for r in rules)


def test_ipv6_rules_leave_out_ipv6_multicast() -> None:
    from netsim.linux.builder import NamespaceBuilder

    builder = NamespaceBuilder("node/n1", "n1")
    write_masquerade(builder, Family.IPV6, network("fd00:244::/48"), network("fd00:244:0:1::/64"), None)
    lines = saved(builder.build(), "nat", Family.IPV6)
    assert lines[5] == f"-A FLANNEL-POSTRTG -s fd00:244::/48 ! -d ff00::/8 {MASQ} -j MASQUERADE --random-fully"


def test_without_ip_masq_the_bridge_masquerades() -> None:
    state = node_state(configured(BACKEND, with_flags("--kube-subnet-mgr")), "n1")
    nat = saved(state, "nat")
    assert not any("FLANNEL" in line for line in nat)
    assert any(line.startswith("-A CNI-") and line.endswith("-j MASQUERADE") for line in nat)


def test_flags_that_change_rules() -> None:
    flags = ("--kube-subnet-mgr", "--ip-masq", "--ip-masq-fully-random-disable", "--iptables-forward-rules=false")
    state = node_state(configured(BACKEND, with_flags(*flags)), "n1")
    assert saved(state, "nat") == [line.removesuffix(" --random-fully") for line in SEVEN]
    assert saved(state, "filter") == []


def test_a_flag_that_is_not_modelled() -> None:
    with pytest.raises(UnsupportedError, match="--ip-blackhole-route is not modelled"):
        configured(BACKEND, with_flags("--kube-subnet-mgr", "--ip-blackhole-route"))


def test_without_the_kube_manager_subnets_come_from_the_network() -> None:
    held = with_flags("--ip-masq")
    plugin = configured(BACKEND, held)
    assert shown_routes(node_state(plugin, "n1")) == ["10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"]
    assert any("--kube-subnet-mgr" in line for line in held.assumptions)


# -- the delegate ------------------------------------------------------------------------------------------------------
def delegate(**given: Any) -> Cluster:
    cni = {"name": "net", "plugins": [{"type": "flannel", "delegate": given}, {"type": "portmap"}]}
    return cluster(node(1), POD, net_conf(VXLAN, cni=cni))


def test_the_delegate_decides_about_the_bridge() -> None:
    state = node_state(configured(BACKEND, delegate(bridge="br7", mtu=1300, hairpinMode=False)), "n1")
    ports = [one for one in state.links if one.name.startswith("veth")]
    assert [(one.master, one.mtu, one.hairpin) for one in ports] == [("br7", 1300, False)]


def test_without_a_default_gateway_the_network_is_all_a_pod_knows() -> None:
    state = pod_state(configured(BACKEND, delegate(isGateway=True)), POD)
    assert shown_routes(state) == ["10.244.0.0/16 via 10.244.1.1 dev eth0"]


def test_ptp_as_delegate() -> None:
    state = node_state(configured(BACKEND, delegate(type="ptp", isDefaultGateway=True)), "n1")
    assert not any(one.name == "cni0" for one in state.links)
    assert any(line.startswith("10.244.1.2/32 dev veth") for line in shown_routes(state))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "x"}, "'delegate' dictionary must not have 'name' field, it'll be set by flannel"),
        ({"ipam": {}}, "must not have 'ipam' field"),
        ({"type": 7}, "must have (string) 'type' field"),
        ({"type": "macvlan"}, 'delegate type "macvlan" is not modelled'),
        ({"mtu": "1400"}, "delegate.mtu must be of type int"),
        ({"vlan": 5}, "delegate.vlan is not modelled"),
    ],
)
def test_delegates_that_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        configured(BACKEND, delegate(**given))
    assert words in str(caught.value)


def test_a_chain_without_portmap_maps_no_ports() -> None:
    cni = {"name": "net", "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": True}}]}
    one = pod("web", "n1", "10.244.1.2", ports=[{"containerPort": 80, "hostPort": 8080}])
    state = node_state(configured(BACKEND, cluster(node(1), one, net_conf(VXLAN, cni=cni))), "n1")
    assert not any("HOSTPORT" in line for line in saved(state, "nat"))
