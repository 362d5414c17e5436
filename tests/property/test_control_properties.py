"""What holds of every cluster that the control plane brings up."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.kube import selectors
from netsim.kube.cluster import Settings
from netsim.kube.control import placement, run
from tests.support.control_clusters import addresses, contents, node, service, store_of, workload

APPS = ("a", "b", "c")
apps = st.sampled_from(APPS)
labels = st.fixed_dictionaries({"app": apps}, optional={"tier": st.sampled_from(["x", "y"])})
taints = st.lists(
    st.sampled_from([{"key": "k", "effect": "NoSchedule"}, {"key": "p", "effect": "PreferNoSchedule"}]), max_size=1
)
pod_specs = st.fixed_dictionaries(
    {"containers": st.just([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "700m"}}}])},
    optional={
        "hostNetwork": st.just(True),
        "nodeSelector": st.sampled_from([{"topology.kubernetes.io/zone": "z1"}, {"kubernetes.io/hostname": "n2"}]),
        "tolerations": st.just([{"key": "k", "operator": "Exists"}]),
        "affinity": st.just(
            {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}
                    ]
                }
            }
        ),
    },
)


@st.composite
def inputs(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = [
        node(f"n{number}", zone=draw(st.sampled_from(["", "z1", "z2"])), taints=draw(taints))
        for number in range(draw(st.integers(0, 4)))
    ]
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"]))
        amount = {} if kind in ("DaemonSet", "Job") else {"replicas": draw(st.integers(0, 5))}
        # Distinct selectors: workloads that fight over pods are a mistake in any cluster.
        own = {**draw(labels), "own": str(number)}
        found.append(workload(kind, f"w{number}", own, draw(pod_specs), **amount))
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
        ports = draw(
            st.sampled_from(
                [
                    [{"port": 80}],
                    [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}],
                    [{"name": "h", "port": 80}, {"name": "s", "port": 443}],
                ]
            )
        )
        found.append(service(f"s{number}", draw(labels), ports, type=kind))
    return found


@settings(max_examples=60, deadline=None)
@given(inputs(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_never_matters(bodies: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(bodies)
    random.shuffle(shuffled)
    one, other = run(store_of(*bodies), Settings(), addresses), run(store_of(*shuffled), Settings(), addresses)
    assert contents(one.store) == contents(other.store)
    assert one.assumptions == other.assumptions


@settings(max_examples=40, deadline=None)
@given(inputs())
def test_running_again_changes_nothing(bodies: list[dict[str, Any]]) -> None:
    store = store_of(*bodies)
    run(store, Settings(), addresses)
    version = store.resource_version
    run(store, Settings(), addresses)
    assert store.resource_version == version


@settings(max_examples=60, deadline=None)
@given(inputs())
def test_a_cluster_is_sound(bodies: list[dict[str, Any]]) -> None:
    cluster = run(store_of(*bodies), Settings(), addresses)
    range_ = ipaddress.ip_network("10.96.0.0/12")
    ips = [service.spec.cluster_ip for service in cluster.services.values()]
    assert len(set(ips)) == len(ips)
    assert all(ipaddress.ip_address(ip) in range_ for ip in ips)
    held: list[int] = []
    for item in cluster.services.values():
        shared = {(port.port, port.node_port) for port in item.spec.ports if port.node_port}
        assert len({port for port, _ in shared}) == len(shared), "one nodePort per port number"
        held += [number for _, number in shared]
        assert bool(shared) is (item.spec.type != "ClusterIP")
    assert len(set(held)) == len(held)
    assert all(30000 <= number <= 32767 for number in held)
    used: dict[str, int] = {}
    for pod in cluster.pods.values():
        if not pod.spec.node_name:
            assert pod.status.phase == "Pending"
            continue
        where = cluster.nodes[pod.spec.node_name]
        assert placement.matches_affinity(pod.spec, where)
        assert placement.untolerated(placement.tolerations_of(pod.spec), where) is None
        assert pod.ready
        used[where.name] = used.get(where.name, 0) + 700
        if pod.spec.affinity and "podAntiAffinity" in pod.spec.affinity:
            others = [other for other in cluster.pods_by_node[where.name] if other.key != pod.key]
            assert not any(other.metadata.labels["app"] == "a" for other in others)
    if any(body["kind"] == "Node" for body in bodies):
        assert all(amount <= 4000 for amount in used.values())
    for key, item in cluster.services.items():
        wanted = sorted(
            (pod.name, pod.ips[0])
            for pod in cluster.pods.values()
            if pod.ips and selectors.matches_map(item.spec.selector, pod.metadata.labels)
        )
        slices = cluster.slices[key]
        assert (
            sorted((e.target_ref["name"], e.addresses[0]) for s in slices for e in s.endpoints if e.target_ref)
            == wanted
        )
