"""KubeProxyConfiguration: where it is found, what it defaults to, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.errors import InputError, Source, UnsupportedError
from netsim.kube.objects import Meta, Resource
from netsim.packet.address import Family, ip, network
from netsim_backends.kube_proxy import IPTABLES
from netsim_backends.kube_proxy.config import read_config
from netsim_backends.kube_proxy.local_traffic import NodePortAddresses, detector_for, node_view, primary_address
from tests.support.kube_proxy_clusters import UNDERLAY, cluster, node


def config_map(text: str | None) -> Resource:
    data = {} if text is None else {"config.conf": text}
    return Resource(
        kind="ConfigMap",
        metadata=Meta(name="kube-proxy", namespace="kube-system"),
        body={"data": data},
        source=Source("dump.yaml", 7),
    )


def test_without_any_configuration_the_usual_one_is_assumed_and_said() -> None:
    bare = cluster(pod_cidrs=("10.0.0.0/8", "fd00::/48"))
    config = read_config(bare)
    assert config.cluster_cidrs == (network("10.0.0.0/8"), network("fd00::/48"))
    assert bare.assumptions == ["kube-proxy: no configuration found; assuming clusterCIDR 10.0.0.0/8,fd00::/48"]
    assert IPTABLES.detect(bare) is None


def test_the_config_map_is_read() -> None:
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    held = cluster(config_map(f"{head}mode: iptables\nclusterCIDR: 10.1.0.0/16\n"))
    config = read_config(held)
    assert config.cluster_cidrs == (network("10.1.0.0/16"),)
    assert held.assumptions == []
    assert IPTABLES.detect(held) == "ConfigMap kube-system/kube-proxy"


def test_settings_come_before_the_config_map() -> None:
    held = cluster(config_map("clusterCIDR: 10.1.0.0/16"), config={"clusterCIDR": "10.2.0.0/16"})
    assert read_config(held).cluster_cidrs == (network("10.2.0.0/16"),)


def test_defaults() -> None:
    config = read_config(
        cluster(config_map("clusterCIDR: ''\niptables: {masqueradeBit: null}\nconntrack: {min: null}\n"))
    )
    assert (config.cluster_cidrs, config.mark, config.localhost_node_ports) == ((), 0x4000, True)
    assert (config.conntrack.max_per_core, config.conntrack.min) == (32768, 131072)


@pytest.mark.parametrize("text", [None, "a: [", "- 1", "just words"])
def test_a_config_map_that_holds_no_configuration(text: str | None) -> None:
    with pytest.raises(InputError) as raised:
        read_config(cluster(config_map(text)))
    assert str(raised.value).startswith("dump.yaml:7: ConfigMap kube-system/kube-proxy: data")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mode": "userspace"}, "mode"),
        ({"mode": 1}, "mode"),
        ({"apiVersion": "kubeproxy.config.k8s.io/v1"}, "apiVersion"),
        ({"kind": "KubeletConfiguration"}, "kind"),
        ({"detectLocalMode": "Guess"}, "detectLocalMode"),
        ({"detectLocalMode": "BridgeInterface"}, "detectLocal.bridgeInterface"),
        ({"detectLocalMode": "InterfaceNamePrefix"}, "detectLocal.interfaceNamePrefix"),
        (
            {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "a-name-much-too-long"}},
            "detectLocal.bridgeInterface",
        ),
        ({"clusterCIDR": "10.244.0.0"}, "clusterCIDR"),
        ({"clusterCIDR": "10.244.0.0/16,10.245.0.0/16"}, "clusterCIDR"),
        ({"iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit"),
        ({"iptables": {"masqueradeBit": -1}}, "iptables.masqueradeBit"),
        ({"iptables": {"masqueradeBit": True}}, "iptables.masqueradeBit"),
        ({"iptables": {"masqueradeAll": "yes"}}, "iptables.masqueradeAll"),
        ({"iptables": []}, "iptables"),
        ({"iptables": {"syncPeriod": "0s"}}, "iptables.syncPeriod"),
        ({"iptables": {"syncPeriod": "-1s"}}, "iptables.syncPeriod"),
        ({"iptables": {"syncPeriod": "1s", "minSyncPeriod": "1m0s"}}, "iptables.syncPeriod"),
        ({"iptables": {"minSyncPeriod": "5 seconds"}}, "iptables.minSyncPeriod"),
        ({"conntrack": {"maxPerCore": -1}}, "conntrack.maxPerCore"),
        ({"conntrack": {"tcpCloseWaitTimeout": "-1s"}}, "conntrack.tcpCloseWaitTimeout"),
        ({"nodePortAddresses": ["172.18.0.3"]}, "nodePortAddresses[0]"),
        ({"nodePortAddresses": ["primary", "10.0.0.0/8"]}, "nodePortAddresses[0]"),
        ({"nodePortAddresses": "10.0.0.0/8"}, "nodePortAddresses"),
        ({"bindAddress": "everywhere"}, "bindAddress"),
    ],
)
def test_what_is_refused(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as raised:
        read_config(cluster(config=body))
    assert [p.field for p in raised.value.problems] == [field]


def test_every_problem_is_listed() -> None:
    with pytest.raises(InputError) as raised:
        read_config(cluster(config={"mode": "x", "clusterCIDR": "y", "iptables": {"masqueradeBit": 99}}))
    assert {p.field for p in raised.value.problems} == {"mode", "clusterCIDR", "iptables.masqueradeBit"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h0m0s", 86400), ("1h2m3.5s", 3723.5), ("1500ms", 1.5), ("0", 0), ("0s", 0), (".5m", 30)]
)
def test_durations(text: str, seconds: float) -> None:
    config = read_config(cluster(config={"conntrack": {"tcpEstablishedTimeout": text}}))
    assert config.conntrack.tcp_established == seconds


def test_unknown_fields_are_noted() -> None:
    held = cluster(config={"iptables": {"masqueradAll": True}, "clusterCidr": "x"})
    read_config(held)
    assert [note.split("unknown field ")[1].split()[0] for note in held.assumptions] == [
        "iptables.masqueradAll",
        "clusterCidr",
    ]


@pytest.mark.parametrize("mode", ["ipvs", "nftables"])
def test_other_modes_are_refused_unless_overridden(mode: str) -> None:
    assert IPTABLES.detect(cluster(config={"mode": mode})) is None
    with pytest.raises(UnsupportedError):
        IPTABLES.configure(cluster(config={"mode": mode}), None, UNDERLAY)
    overridden = cluster(config={"mode": mode}, proxy="iptables")
    assert IPTABLES.configure(overridden, None, UNDERLAY).config.mode == mode


@pytest.mark.parametrize(
    ("texts", "family", "match_all", "loopback"),
    [
        ((), Family.IPV4, True, True),
        (("primary",), Family.IPV4, False, False),
        (("172.18.0.0/16",), Family.IPV4, False, False),
        (("172.18.0.0/16",), Family.IPV6, True, True),
        (("172.18.0.0/16", "0.0.0.0/0"), Family.IPV4, True, True),
        (("127.0.0.0/8",), Family.IPV4, False, True),
        (("126.0.0.0/7",), Family.IPV4, False, True),
    ],
)
def test_node_port_addresses(texts: tuple[str, ...], family: Family, match_all: bool, loopback: bool) -> None:
    found = NodePortAddresses.read(texts, family)
    assert (found.match_all, found.covers_loopback) == (match_all, loopback)


def test_addresses_that_serve_node_ports() -> None:
    held = cluster(node("n1", "172.18.0.3", "fd00::3"), config={"nodePortAddresses": ["172.18.0.0/16", "127.0.0.0/8"]})
    view = node_view(held, read_config(held), "n1", Family.IPV4, [ip("172.18.7.7"), ip("10.244.0.1")])
    assert view.node_port_ips == (ip("127.0.0.1"), ip("172.18.0.3"), ip("172.18.7.7"))
    primary = cluster(node("n1", "172.18.0.3", "fd00::3"), config={"nodePortAddresses": ["primary"]})
    assert node_view(primary, read_config(primary), "n1", Family.IPV6).node_port_ips == (ip("fd00::3"),)


def test_primary_address() -> None:
    held = cluster(node("n1", "172.18.0.3"))
    assert primary_address(held, "n1", Family.IPV4) == ip("172.18.0.3")
    assert primary_address(held, "n1", Family.IPV6) == ip("::1")


@pytest.mark.parametrize(
    ("body", "four", "six"),
    [
        ({}, "-s 10.244.0.0/16", "-s fd00:244::/56"),
        ({"clusterCIDR": "10.0.0.0/8"}, "-s 10.0.0.0/8", None),
        ({"clusterCIDR": ""}, None, None),
        ({"detectLocalMode": "NodeCIDR"}, "-s 10.244.1.0/24", None),
        ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}}, "-i cni0", "-i cni0"),
        (
            {"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "veth"}},
            "-i veth+",
            "-i veth+",
        ),
    ],
)
def test_detectors(body: dict[str, Any], four: str | None, six: str | None) -> None:
    held = cluster(node("n1", "172.18.0.3", pod_cidrs=["10.244.1.0/24"]), config=body)
    config = read_config(held)
    found = [detector_for(held, config, "n1", family) for family in Family]
    assert [d.iptables if d else None for d in found] == [four, six]


def test_a_node_may_go_by_another_name() -> None:
    zoned = node("n2", "172.18.0.4", labels={"topology.kubernetes.io/zone": "a"})
    held = cluster(node("n1", "172.18.0.3"), zoned, config={"hostnameOverride": " N2 "})
    view = node_view(held, read_config(held), "n1", Family.IPV4)
    assert (view.name, view.zone, view.primary) == ("n2", "a", ip("172.18.0.4"))
