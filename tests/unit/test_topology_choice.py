"""Which data plane runs: asked for, seen in the input, or assumed and said."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.errors import UnsupportedError, UsageError
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import Meta, Object, OwnerReference, Pod, Resource, Workload
from netsim.kube.store import Store
from netsim.topology.choice import choose

ASSUMED = "the input names no network plugin: flannel with vxlan is assumed (--cni chooses another)"
NET_CONF = Resource(
    kind="ConfigMap",
    metadata=Meta(name="kube-flannel-cfg", namespace="kube-flannel"),
    body={"data": {"net-conf.json": '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'}},
)


def daemon_set(name: str) -> Workload:
    return Workload(kind="DaemonSet", metadata=Meta(name=name, namespace="kube-system"))


def owned_pod(owner: str, kind: str = "DaemonSet") -> Pod:
    owners = [OwnerReference(kind=kind, name=owner)]
    return Pod(kind="Pod", metadata=Meta(name="x", namespace="kube-system", owner_references=owners))


def cluster(*objects: Object, **settings: Any) -> Cluster:
    store = Store()
    for item in objects:
        store.put(item)
    return Cluster(store, Settings(**settings))


def chosen(held: Cluster) -> tuple[str, str, str | None]:
    found = choose(held)
    return found.proxy.name, found.cni.name, found.cni_mode


def test_the_default_is_said() -> None:
    held = cluster()
    assert chosen(held) == ("kube-proxy-iptables", "flannel", None)
    assert held.assumptions == [ASSUMED]


@pytest.mark.parametrize("sign", [NET_CONF, daemon_set("kube-flannel-ds"), daemon_set("kube-flannel-ds-amd64")])
def test_flannel_that_is_seen_is_not_assumed(sign: Object) -> None:
    held = cluster(sign)
    assert chosen(held)[1] == "flannel"
    assert ASSUMED not in held.assumptions


@pytest.mark.parametrize(
    ("asked", "found"),
    [("flannel", ("flannel", None)), ("flannel:host-gw", ("flannel", "host-gw")), ("flat", ("flat", None))],
)
def test_what_is_asked_for_wins(asked: str, found: tuple[str, str | None]) -> None:
    held = cluster(daemon_set("cilium"), cni=asked)
    assert chosen(held)[1:] == found
    assert held.assumptions == []


@pytest.mark.parametrize(
    ("sign", "what"),
    [
        (daemon_set("cilium"), "Cilium"),
        (daemon_set("calico-node"), "Calico"),
        (daemon_set("weave-net"), "Weave Net"),
        (owned_pod("canal"), "Canal"),
        (Resource(kind="IPPool", metadata=Meta(name="default-ipv4-ippool")), "Calico"),
    ],
)
def test_another_network_is_refused_by_name_with_the_way_out(sign: Object, what: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        choose(cluster(sign))
    (problem,) = caught.value.problems
    assert what in problem.text
    assert "--cni flannel" in problem.text
    assert sign.name in problem.object
    # Beside flannel it is no clearer what forwards.
    with pytest.raises(UnsupportedError, match=f"{what} beside flannel"):
        choose(cluster(NET_CONF, sign))


@pytest.mark.parametrize("sign", [daemon_set("ciliumish"), owned_pod("canal", "ReplicaSet"), daemon_set("my-cilium")])
def test_names_that_only_look_alike_mean_nothing(sign: Object) -> None:
    assert chosen(cluster(sign))[1] == "flannel"


@pytest.mark.parametrize(
    "asked", [{"cni": "nothing"}, {"cni": "kube-proxy-iptables"}, {"proxy": "nothing"}, {"proxy": "flannel"}]
)
def test_what_is_not_there_is_refused_with_what_is(asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"there is: .*(flannel|iptables)"):
        choose(cluster(**asked))
