"""The control plane, case by case: what is supplied, what is believed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.errors import InputError
from netsim.kube.cluster import Cluster
from netsim.kube.control.allocation import address_pool, port_pool
from netsim.kube.objects import EndpointSlice
from tests.support.control_clusters import contents, node, running, service, store_of, workload

WEB = {"app": "web"}
DUAL = {"service_cidrs": ("10.96.0.0/12", "fd00:96::/112"), "pod_cidrs": ("10.244.0.0/16", "fd00:244::/56")}


def pod(name: str, labels: dict[str, str], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    whole = {"containers": [{"name": "c", "image": "i"}], **spec}
    return {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": whole, "status": status or {}}


def up(*ips: str, ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready)}
    return {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips], "conditions": [condition]}


def slices(cluster: Cluster, name: str = "web") -> list[EndpointSlice]:
    return list(cluster.slices["default", name])


# -- nodes -----------------------------------------------------------------------------------------------------------
def test_three_nodes_when_there_are_none() -> None:
    cluster = running(workload("Deployment", "web", WEB))
    assert [(n.name, n.status.addresses[0].address, n.spec.pod_cidr) for n in cluster.nodes.values()] == [
        ("node-1", "192.168.56.11", "10.244.0.0/24"),
        ("node-2", "192.168.56.12", "10.244.1.0/24"),
        ("node-3", "192.168.56.13", "10.244.2.0/24"),
    ]
    assert "no Node in the input: 3 supplied (node-1 to node-3)" in cluster.assumptions


def test_nodes_that_only_pods_name_are_supplied_by_that_name() -> None:
    seen = pod("p", WEB, {**up("10.244.7.7"), "hostIP": "172.18.0.9"}, nodeName="worker")
    (only,) = running(seen).nodes.values()
    assert (only.name, only.status.addresses[0].address) == ("worker", "172.18.0.9")


def test_stated_pod_cidrs_are_believed_and_their_blocks_not_given_again() -> None:
    cluster = running(node("a"), node("b", podCIDR="10.244.0.0/24"), node("c", podCIDR="10.9.0.0/24"))
    assert {n.name: n.spec.pod_cidrs for n in cluster.nodes.values()} == {
        "a": ["10.244.1.0/24"],
        "b": ["10.244.0.0/24"],
        "c": ["10.9.0.0/24"],
    }


def test_numbers_in_node_names_count_as_numbers() -> None:
    cluster = running(*(node(f"n{number}") for number in (10, 9, 1)))
    assert [cluster.nodes[name].spec.pod_cidr[:10] for name in ("n1", "n9", "n10")] == [
        "10.244.0.0",
        "10.244.1.0",
        "10.244.2.0",
    ]


# -- Services --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cidr", "static"), [("10.0.0.0/24", 16), ("10.0.0.0/22", 64), ("10.0.0.0/12", 256), ("10.0.0.0/28", 0)]
)
def test_static_band(cidr: str, static: int) -> None:
    assert address_pool(cidr).static == static


def test_the_node_port_band_is_that_of_the_default_range() -> None:
    assert port_pool(30000, 32767).static == 86


def test_a_full_range_falls_back_to_the_static_band_and_then_is_refused() -> None:
    fitting = [service(f"s{number}") for number in range(14)]
    assert len({s.spec.cluster_ip for s in running(*fitting, service_cidrs=("10.0.0.0/28",)).services.values()}) == 14
    with pytest.raises(InputError, match="range is full"):
        running(*fitting, service("more"), service_cidrs=("10.0.0.0/28",))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"clusterIP": "10.0.0.1"},
            "the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12",
        ),
        ({"clusterIP": "10.96.0.9"}, "failed to allocate IP 10.96.0.9: provided IP is already allocated"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack services"),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}, "The range of valid ports is 30000-32767"),
        ({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}, "30001: provided port is already allocated"),
    ],
)
def test_refusals_in_the_servers_words(body: dict[str, Any], told: str) -> None:
    first = service("a", type="NodePort", clusterIP="10.96.0.9", ports=[{"port": 80, "nodePort": 30001}])
    with pytest.raises(InputError) as caught:
        running(first, service("b", **body))
    assert told in str(caught.value)
    assert len(caught.value.problems) == 1


def test_ports_that_differ_in_protocol_only_share_a_node_port() -> None:
    ports = [{"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}, {"name": "t", "port": 53}]
    cluster = running(service("dns", type="NodePort", ports=ports))
    assert [port.node_port for port in cluster.services["default", "dns"].spec.ports] == [30053, 30053]


def test_families() -> None:
    cluster = running(
        service("single"),
        service("both", ipFamilyPolicy="PreferDualStack", ipFamilies=["IPv6"]),
        service("bare", clusterIP="None"),
        **DUAL,
    )
    spec = {name: item.spec for (_, name), item in cluster.services.items()}
    assert spec["single"].ip_families == ["IPv4"]
    assert spec["both"].ip_families == ["IPv6", "IPv4"]
    assert [":" in text for text in spec["both"].cluster_ips] == [True, False]
    assert (spec["bare"].ip_family_policy, spec["bare"].cluster_ips) == ("RequireDualStack", ["None"])


def test_what_a_dump_states_is_believed_outside_the_ranges() -> None:
    stated = service("k3s", clusterIP="10.43.0.10", type="NodePort", ports=[{"port": 1, "nodePort": 20000}])
    stated["metadata"]["uid"] = "1"
    spec = running(stated).services["default", "k3s"].spec
    assert (spec.cluster_ips, spec.ports[0].node_port, spec.ip_families) == (["10.43.0.10"], 20000, ["IPv4"])


# -- workloads -------------------------------------------------------------------------------------------------------
def test_names_and_labels() -> None:
    cluster = running(
        workload("StatefulSet", "db", {"app": "db"}, replicas=2, serviceName="peers", ordinals={"start": 3}),
        workload("Job", "work", {}, {"restartPolicy": "Never"}, completions=2, parallelism=5, completionMode="Indexed"),
    )
    db = cluster.pods["default", "db-3"]
    assert (db.spec.hostname, db.spec.subdomain) == ("db-3", "peers")
    assert db.metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-3"
    assert sorted(p.spec.hostname for p in cluster.pods.values()) == ["db-3", "db-4", "work-0", "work-1"]


def test_a_dump_gets_no_extra_pods() -> None:
    deployment = workload("Deployment", "web", WEB, replicas=5)
    made = running(deployment, node("a"))
    bodies = [b for items in contents(made.store).values() for b in items]
    for drop in ((), ("ReplicaSet",), ("Deployment",)):
        kept = [body for body in bodies if body["kind"] not in drop]
        keep_pods = [
            body
            for body in kept
            if body["kind"] != "Pod" or body["metadata"]["name"] != min(p.name for p in made.pods.values())
        ]
        again = running(*keep_pods)
        assert len(again.pods) == 4, "one pod fewer than replicas is what the dump says"
        assert again.store.count("ReplicaSet") == (0 if drop == ("ReplicaSet",) else 1)


def test_pods_without_a_controller_are_adopted() -> None:
    cluster = running(workload("ReplicaSet", "web", WEB, replicas=3), pod("mine", WEB))
    assert len(cluster.pods) == 3
    assert ("default", "mine") in cluster.pods


def test_a_daemon_set_takes_every_node_it_tolerates() -> None:
    nodes = [node("a"), node("b", unschedulable=True), node("c", taints=[{"key": "k", "effect": "NoExecute"}])]
    cluster = running(*nodes, workload("DaemonSet", "agent", WEB))
    assert sorted(p.spec.node_name for p in cluster.pods.values()) == ["a", "b"]


def test_a_cron_job_without_jobs_says_so() -> None:
    cron = {
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {}}},
    }
    assert "CronJob default/c: no Job is running, no pods are made" in running(cron).assumptions


# -- scheduler -------------------------------------------------------------------------------------------------------
def test_a_pod_that_fits_nowhere_stays_pending_with_the_schedulers_message() -> None:
    big = pod("big", WEB)
    big["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "5"}}
    cluster = running(node("a"), node("b", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]), big)
    assert not cluster.pods["default", "big"].spec.node_name
    told = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s) {k: v}."
    assert any(told in note for note in cluster.assumptions)


def test_priority_goes_first() -> None:
    small = [pod(name, WEB, priority=priority) for name, priority in (("a", 0), ("b", 10))]
    for body in small:
        body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "3"}}
    cluster = running(node("n"), *small)
    assert [p.name for p in cluster.pods.values() if p.spec.node_name] == ["b"]


def test_hard_spreading_over_zones() -> None:
    spread = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    constraint = {**spread, "labelSelector": {"matchLabels": WEB}}
    nodes = [node("a", "z1", cpu="64"), node("b", "z2", cpu="1"), node("c", "z2", cpu="1")]
    cluster = running(
        *nodes, workload("Deployment", "web", WEB, {"topologySpreadConstraints": [constraint]}, replicas=6)
    )
    zones = [
        cluster.nodes[p.spec.node_name].metadata.labels["topology.kubernetes.io/zone"] for p in cluster.pods.values()
    ]
    assert sorted(zones) == ["z1"] * 3 + ["z2"] * 3


def test_affinity_draws_a_group_to_its_first_member() -> None:
    term = {"labelSelector": {"matchLabels": WEB}, "topologyKey": "kubernetes.io/hostname"}
    together = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    cluster = running(node("a"), node("b"), workload("Deployment", "web", WEB, together, replicas=4))
    assert len({p.spec.node_name for p in cluster.pods.values()}) == 1


# -- EndpointSlices --------------------------------------------------------------------------------------------------
def test_readiness_serving_and_terminating() -> None:
    leaving = pod("leaving", WEB, up("10.244.0.3"), nodeName="a")
    leaving["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    pods = [
        pod("ready", WEB, up("10.244.0.1"), nodeName="a"),
        pod("unready", WEB, up("10.244.0.2", ready=False), nodeName="a"),
        leaving,
        pod("done", WEB, {"phase": "Succeeded", "podIP": "10.244.0.4"}, nodeName="a"),
    ]
    for publish, expected in ((False, [True, False, False]), (True, [True, True, True])):
        cluster = running(node("a"), *pods, service("web", WEB, publishNotReadyAddresses=publish))
        (only,) = slices(cluster)
        assert [e.conditions.ready for e in only.endpoints] == expected
        assert [e.conditions.serving for e in only.endpoints] == [True, False, True]
        assert [e.conditions.terminating for e in only.endpoints] == [False, False, True]


def test_named_ports_are_looked_up_in_each_pod() -> None:
    def with_port(name: str, ip: str, number: int | None) -> dict[str, Any]:
        ports = [{"name": "http", "containerPort": number}] if number else []
        return pod(name, WEB, up(ip), nodeName="a", containers=[{"name": "c", "image": "i", "ports": ports}])

    pods = [with_port("a", "10.244.0.1", 80), with_port("b", "10.244.0.2", 8080), with_port("c", "10.244.0.3", None)]
    cluster = running(node("a"), *pods, service("web", WEB, [{"port": 80, "targetPort": "http"}]))
    found = {tuple(p.port for p in s.ports or ()): [e.addresses[0] for e in s.endpoints] for s in slices(cluster)}
    assert found == {(80,): ["10.244.0.1"], (8080,): ["10.244.0.2"], (): ["10.244.0.3"]}


def test_slices_hold_a_hundred_and_families_are_apart() -> None:
    deployment = workload("Deployment", "web", WEB, replicas=230)
    many = [node(f"n{number}", cpu="64") for number in range(3)]
    dual = service("web", WEB, ipFamilyPolicy="RequireDualStack")
    cluster = running(*many, deployment, dual, **DUAL)
    sizes = sorted((s.address_type, len(s.endpoints)) for s in slices(cluster))
    assert sizes == [("IPv4", 30), ("IPv4", 100), ("IPv4", 100), ("IPv6", 30), ("IPv6", 100), ("IPv6", 100)]


def test_a_service_without_endpoints_has_a_placeholder() -> None:
    (only,) = slices(running(node("a"), service("web", WEB)))
    assert (only.endpoints, only.ports) == ([], None)


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        ("PreferClose", {"forZones": [{"name": "z1"}]}),
        ("PreferSameNode", {"forZones": [{"name": "z1"}], "forNodes": [{"name": "a"}]}),
        (None, None),
    ],
)
def test_traffic_distribution(distribution: str | None, hints: dict[str, Any] | None) -> None:
    spec = {"trafficDistribution": distribution} if distribution else {}
    cluster = running(node("a", "z1"), pod("p", WEB), service("web", WEB, **spec))
    assert slices(cluster)[0].endpoints[0].hints == hints


@pytest.mark.parametrize(("cpus", "hinted"), [(("4", "4"), True), (("1", "7"), False)])
def test_topology_mode_auto_gives_hints_unless_a_zone_would_be_overloaded(cpus: tuple[str, str], hinted: bool) -> None:
    nodes = [node("a", "z1", cpu=cpus[0]), node("b", "z2", cpu=cpus[1])]
    pods = [pod(f"p{number}", WEB, up(f"10.244.0.{number + 1}"), nodeName="a") for number in range(2)]
    auto = service("web", WEB)
    auto["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    (only,) = slices(running(*nodes, *pods, auto))
    zones = sorted(e.hints["forZones"][0]["name"] for e in only.endpoints if e.hints)
    assert zones == (["z1", "z2"] if hinted else [])


def test_endpoints_are_mirrored() -> None:
    subset = {"addresses": [{"ip": "10.1.1.1"}], "notReadyAddresses": [{"ip": "10.1.1.2"}], "ports": [{"port": 5432}]}
    endpoints = {"kind": "Endpoints", "metadata": {"name": "db"}, "subsets": [subset]}
    (only,) = slices(running(node("a"), service("db"), endpoints), "db")
    assert [(e.addresses[0], e.conditions.ready) for e in only.endpoints] == [("10.1.1.1", True), ("10.1.1.2", False)]
    assert only.metadata.labels["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"


def test_slices_of_the_input_are_believed_and_their_unknown_pods_assumed() -> None:
    made = {
        "kind": "EndpointSlice",
        "metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "a"}, {"addresses": ["10.0.0.98"], "nodeName": "a"}],
        "ports": [{"port": 80}],
    }
    cluster = running(node("a"), service("web", WEB), made, pod("p", WEB))
    assert [s.name for s in slices(cluster)] == ["web-x"]
    assert sorted(name for _, name in cluster.pods) == ["assumed-10-244-1-5", "p"]
    assert store_of(made).count("EndpointSlice") == 1
