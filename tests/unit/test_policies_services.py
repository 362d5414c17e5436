"""Through Services and Ingress: what policy sees behind them, and whom it sees as the sender."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec

from netsim.cli.policy_input import addresses
from netsim.kube import control, load
from netsim.kube.cluster import Settings
from netsim.kube.objects import Resource
from netsim_policies.reach import Reachability
from netsim_policies.services import Entrance, Entrances, Way
from netsim_policies.world import world
from tests.unit.test_policies_semantics import Json, node, pod, policy

HTTP = [{"name": "http", "containerPort": 8080}]


def service(name: str, app: str, kind: str = "ClusterIP", **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": kind, "selector": {"app": app}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }


def ready(*made: Json) -> list[Json]:
    for one in made:
        one["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return list(made)


PODS = [
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    *ready(
        pod("web", "10.0.1.2", app="web", ports=HTTP),
        pod("api", "10.0.1.3", app="api", ports=HTTP, node="n2"),
        pod("controller", "10.0.2.2", "ingress", **{"app.kubernetes.io/name": "ingress-nginx"}),
    ),
]


def entrances(*extra: Json) -> list[tuple[Entrance, list[Way]]]:
    items = {"apiVersion": "v1", "kind": "List", "items": [*PODS, *extra]}
    loaded = load.store(load.load(["-"], stdin=BytesIO(msgspec.json.encode(items))))
    cluster = control.run(loaded, Settings(), addresses)
    reach = Reachability(world(cluster.store))
    ingresses = list(cluster.store.typed("Ingress", Resource))
    found = Entrances(reach, cluster.services.values(), cluster.slices, ingresses)
    return [(entrance, list(found.ways(entrance, reach.groups))) for entrance in found]


def ways(*extra: Json) -> dict[tuple[str, str, str], str]:
    """(entrance's kind, its name, sender) → all, some or none."""
    return {(e.kind, e.name, w.sender): w.verdict for e, ways in entrances(*extra) for w in ways}


def opened(**rule: Any) -> Json:
    return policy(podSelector={"matchLabels": {"app": "web"}}, ingress=[rule])


def test_policy_sees_the_target_port_and_not_the_services() -> None:
    for port, verdict in ((8080, "all"), (80, "none")):
        found = ways(service("web", "web"), opened(ports=[{"port": port}]))
        assert found["cluster", "Service shop/web:80", "Pod shop/api"] == verdict


def test_a_block_over_service_addresses_opens_no_service() -> None:
    """Nor does one over its pods' addresses that leaves the Service's out close it: policy never sees that address."""
    for cidr, verdict in (("10.96.0.0/12", "none"), ("10.0.0.0/16", "all")):
        out = policy("out", podSelector={"matchLabels": {"app": "api"}}, egress=[{"to": [{"ipBlock": {"cidr": cidr}}]}])
        out["spec"]["policyTypes"] = ["Egress"]
        found = ways(service("web", "web", clusterIP="10.96.0.9"), out)
        assert found["cluster", "Service shop/web:80", "Pod shop/api"] == verdict


def test_a_pod_that_reaches_itself_through_a_service_is_subject_to_policy() -> None:
    found = ways(service("web", "web"), opened(**{"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}))
    assert found["cluster", "Service shop/web:80", "Pod shop/web"] == "none"
    assert found["cluster", "Service shop/web:80", "Pod shop/api"] == "all"


def test_from_outside_the_client_is_seen_only_where_the_traffic_policy_is_local() -> None:
    world_only = opened(**{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]})
    cluster = ways(service("web", "web", "NodePort"), world_only)
    assert cluster["outside", "Service shop/web:80", "outside by n1"] == "all", "the pod's own node is always let in"
    assert cluster["outside", "Service shop/web:80", "outside by n2"] == "none"
    local = ways(service("web", "web", "NodePort", externalTrafficPolicy="Local"), world_only)
    assert local["outside", "Service shop/web:80", "outside 203.0.113.0/24"] == "all"
    assert local["outside", "Service shop/web:80", "outside"] == "none"


def test_source_ranges_keep_strangers_from_the_balancers_address_alone() -> None:
    balanced = service("web", "web", "LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/25"])
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}
    balanced["spec"]["externalTrafficPolicy"] = "Local"
    from_some = opened(**{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]})
    found = entrances(balanced, from_some)
    ranges = {e.address: {w.sender: w.verdict for w in ways} for e, ways in found if e.kind == "outside"}
    ports = next(address for address in ranges if address.startswith("node:"))
    assert ranges[ports] == {"outside": "none", "outside 203.0.113.0/24": "all"}
    assert ranges["198.51.100.7:80"] == {
        "outside": "none",
        "outside 203.0.113.0/24, of it 203.0.113.0/25": "all",
    }


def test_source_ranges_where_policy_sees_the_node() -> None:
    balanced = service("web", "web", "LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/25"])
    balanced["status"] = {
        "loadBalancer": {"ingress": [{"ip": "198.51.100.7"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}]}
    }
    found = entrances(balanced)
    senders = {e.address.partition(":")[0]: {w.sender for w in ways} for e, ways in found if e.kind == "outside"}
    assert senders["198.51.100.7"] == {"outside 203.0.113.0/25 by n1", "outside 203.0.113.0/25 by n2"}
    assert senders["node"] == {"outside by n1", "outside by n2"}
    assert any("198.51.100.8:80" in e.address for e, _ in found if e.clients is None), "kube-proxy never sees that one"


def test_ranges_that_let_everybody_in_are_none() -> None:
    for ranges in (["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"], ["2001:db8::/32"]):
        balanced = service("web", "web", "LoadBalancer", loadBalancerSourceRanges=ranges)
        balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}
        assert all(e.clients is None for e, _ in entrances(balanced)), ranges


def test_an_internal_traffic_policy_keeps_to_the_clients_node() -> None:
    """The one endpoint is on n1: who is elsewhere is sent nowhere, whatever policy says."""
    local = service("web", "web", internalTrafficPolicy="Local")
    found = ways(local)
    assert found["cluster", "Service shop/web:80", "Pod shop/api"] == "none"
    assert found["cluster", "Service shop/web:80", "n2"] == "none"
    assert found["cluster", "Service shop/web:80", "n1"] == "all"
    assert ways(service("web", "web"))["cluster", "Service shop/web:80", "Pod shop/api"] == "all"


def test_an_ingress_comes_from_its_controllers_pods() -> None:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "front", "namespace": "shop"},
        "spec": {
            "rules": [{"host": "a.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
        },
    }
    key = ("ingress", "Ingress shop/front by Service web:80", "Pod ingress/controller")
    space = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
    assert ways(service("web", "web"), ingress, opened(**{"from": [space]}))[key] == "all"
    assert ways(service("web", "web"), ingress, opened(**{"from": [{"podSelector": {}}]}))[key] == "none"


def test_a_headless_service_stands_for_each_of_its_pods() -> None:
    both = {**service("all", "web", clusterIP="None"), "spec": {"clusterIP": "None", "ports": [{"port": 8080}]}}
    both["spec"]["selector"] = {"tier": "x"}
    pods = ready(
        pod("x-0", "10.0.5.2", app="web", tier="x", ports=HTTP),
        pod("x-1", "10.0.5.3", app="other", tier="x", ports=HTTP),
    )
    found = ways(both, *pods, opened(**{"from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}))
    assert found["cluster", "Service shop/all:8080", "Pod shop/api"] == "some"


def test_a_pod_that_is_not_ready_is_not_behind_a_service() -> None:
    sick = pod("sick", "10.0.1.9", app="api", ports=HTTP)
    sick["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    shut = policy(podSelector={"matchLabels": {"app": "api"}}, policyTypes=["Ingress"])
    found = ways(service("api", "api"), sick, shut)
    assert found["cluster", "Service shop/api:80", "n2"] == "all", "the one ready pod is on this node"
    assert found["cluster", "Service shop/api:80", "n1"] == "none"
