"""What NetworkPolicy and the admin policies mean, point by point, from manifests through the loader.

The points of the semantics, and where each is pinned (names without "test_"):

policyTypes missing                       a_policy_with_only_egress_rules…, empty_egress_without_types…
policyTypes present                       a_section_that_types_do_not_name_is_ignored
missing, empty and null sections          missing_and_empty_peers…, a_missing_section_denies…, an_absent_pod_selector…
whose pods a peer means                   a_pod_selector_alone…, an_empty_namespace_selector…, both_selectors…
operators, missing keys, empty values     operators_on_a_missing_key, an_empty_label_value_is_a_value
union; both sides; common ports           policies_add_up…, both_sides_must_allow_a_common_port
ipBlock                                   blocks_match_pods…, every_ipv4_address…, host_bits…, one_address_of_several…
translation before policy                 test_policies_services
named ports                               a_named_port_is_resolved…, a_port_name_needs_its_protocol
protocols and defaults, endPort           defaults_and_ranges…, a_rule_for_one_protocol_isolates…, an_undeclared_port…
replies                                   replies_need_no_rule
self, own node, hostNetwork               a_pod_reaches_itself…, host_network_pods…; test_policies_services
namespaces and their names                every_namespace_has_its_name…, an_object_without_namespace…
pods that ended, dumps without status     finished_pods…, typed_lists_and_pods_without_status
admin tiers                               an_admin_deny…, an_admin_allow…, pass_leaves…, the_lower_number…, baseline…,
                                          pass_in_the_baseline…, equal_priorities…
admin peers                               networks_cover_pods…, every_peer_of_a_cluster_network_policy, an_unknown_peer…
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import msgspec
import pytest

from netsim.errors import InputError
from netsim.kube import load
from netsim.kube.store import Store
from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, NO_PORTS, PortSet
from netsim_policies.evaluate import decide
from netsim_policies.lint import lint
from netsim_policies.matrix import Matrix
from netsim_policies.model import Endpoint, World
from netsim_policies.world import outside, world

Json = dict[str, Any]


def pod(
    name: str, ip: str, namespace: str = "shop", node: str = "n1", ports: list[Json] | None = None, **labels: str
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", "ports": ports or []}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    }


def node(name: str, ip: str, **labels: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    }


def policy(name: str = "p", namespace: str = "shop", **spec: Any) -> Json:
    spec.setdefault("podSelector", {})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


BASE = [
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2", role="edge"),
    pod("web", "10.0.1.2", app="web", ports=[{"name": "http", "containerPort": 8080}]),
    pod("db", "10.0.1.3", app="db", node="n2", ports=[{"name": "sql", "containerPort": 5432}]),
    pod("job", "10.0.2.2", "batch", app="job", ports=[{"name": "http", "containerPort": 80}]),
]


def build(*extra: Json) -> World:
    store: Store = load.store(
        load.load(
            ["-"], stdin=BytesIO(msgspec.json.encode({"kind": "List", "apiVersion": "v1", "items": [*BASE, *extra]}))
        )
    )
    return world(store)


def find(of: World, name: str) -> Endpoint:
    return next(e for e in of.endpoints if e.name == name)


def allowed(of: World, source: str, destination: str, family: Family = Family.IPV4) -> PortSet:
    ends = [outside(n) if n[0].isdigit() else find(of, n) for n in (source, destination)]
    return decide(of, ends[0], ends[1], family).allowed


def test_without_policies_everything_is_allowed() -> None:
    assert allowed(build(), "shop/web", "shop/db") == ALL_PORTS


def test_a_policy_with_only_egress_rules_and_no_types_denies_ingress_too() -> None:
    of = build(policy(podSelector={"matchLabels": {"app": "db"}}, egress=[{}]))
    assert allowed(of, "shop/web", "shop/db") == NO_PORTS
    assert allowed(of, "shop/db", "shop/web") == ALL_PORTS


def test_empty_egress_without_types_isolates_nothing_outwards() -> None:
    of = build(policy(podSelector={"matchLabels": {"app": "db"}}, egress=[]))
    assert allowed(of, "shop/db", "batch/job") == ALL_PORTS


def test_a_section_that_types_do_not_name_is_ignored() -> None:
    of = build(policy(policyTypes=["Ingress"], ingress=[{}], egress=[]))
    assert allowed(of, "shop/web", "batch/job") == ALL_PORTS


def test_missing_and_empty_peers_and_ports_mean_everything() -> None:
    for rule in ({}, {"from": [], "ports": []}, {"from": None}):
        assert allowed(build(policy(ingress=[rule])), "batch/job", "shop/web") == ALL_PORTS


def test_a_pod_selector_alone_means_the_policys_own_namespace() -> None:
    of = build(policy(ingress=[{"from": [{"podSelector": {}}]}]))
    assert allowed(of, "shop/web", "shop/db") == ALL_PORTS
    assert allowed(of, "batch/job", "shop/db") == NO_PORTS


def test_an_empty_namespace_selector_means_pods_and_no_outside_address() -> None:
    of = build(policy(ingress=[{"from": [{"namespaceSelector": {}}]}]))
    assert allowed(of, "batch/job", "shop/db") == ALL_PORTS
    assert allowed(of, "203.0.113.9", "shop/db") == NO_PORTS


def test_both_selectors_in_one_peer_are_and_in_two_peers_or() -> None:
    batch = {"matchLabels": {"kubernetes.io/metadata.name": "batch"}}
    web = {"matchLabels": {"app": "web"}}
    together = build(policy(ingress=[{"from": [{"namespaceSelector": batch, "podSelector": web}]}]))
    apart = build(policy(ingress=[{"from": [{"namespaceSelector": batch}, {"podSelector": web}]}]))
    assert allowed(together, "batch/job", "shop/db") == NO_PORTS
    assert allowed(apart, "batch/job", "shop/db") == ALL_PORTS
    assert allowed(apart, "shop/web", "shop/db") == ALL_PORTS


@pytest.mark.parametrize(
    ("operator", "values", "selects"),
    [("NotIn", ["x"], True), ("DoesNotExist", None, True), ("In", ["x"], False), ("Exists", None, False)],
)
def test_operators_on_a_missing_key(operator: str, values: list[str] | None, selects: bool) -> None:
    expression = {"key": "absent", "operator": operator, **({"values": values} if values else {})}
    of = build(policy(podSelector={"matchExpressions": [expression]}, policyTypes=["Ingress"]))
    assert (allowed(of, "batch/job", "shop/db") == NO_PORTS) is selects


def test_an_empty_label_value_is_a_value() -> None:
    of = build(policy(podSelector={"matchLabels": {"absent": ""}}, policyTypes=["Ingress"]))
    assert allowed(of, "batch/job", "shop/db") == ALL_PORTS


def test_a_missing_section_denies_as_an_empty_one_does() -> None:
    for spec in ({"policyTypes": ["Ingress"]}, {"policyTypes": ["Ingress"], "ingress": []}, {"ingress": None}):
        assert allowed(build(policy(**spec)), "batch/job", "shop/db") == NO_PORTS
        assert allowed(build(policy(**spec)), "shop/db", "batch/job") == ALL_PORTS


def test_an_absent_pod_selector_selects_every_pod_of_the_namespace() -> None:
    for selector in ({}, None):
        of = build(policy(podSelector=selector, policyTypes=["Ingress"]))
        assert allowed(of, "batch/job", "shop/db") == allowed(of, "batch/job", "shop/web") == NO_PORTS
        assert allowed(of, "shop/db", "batch/job") == ALL_PORTS
    peer = build(policy(ingress=[{"from": [{"podSelector": {}, "namespaceSelector": None}]}]))
    assert allowed(peer, "shop/web", "shop/db") == ALL_PORTS
    assert allowed(peer, "batch/job", "shop/db") == NO_PORTS


def test_policies_add_up_and_never_subtract() -> None:
    deny = policy("deny", policyTypes=["Ingress"])
    some = policy("some", ingress=[{"ports": [{"port": 80}]}])
    more = policy("more", ingress=[{"ports": [{"port": 443}]}])
    assert allowed(build(deny, some, more), "batch/job", "shop/db") == PortSet.of("TCP", 80) | PortSet.of("TCP", 443)


def test_both_sides_must_allow_a_common_port() -> None:
    out = policy("out", "batch", policyTypes=["Egress"], egress=[{"ports": [{"port": 80}]}])
    into = policy("in", ingress=[{"ports": [{"port": 443}]}])
    assert allowed(build(out, into), "batch/job", "shop/db") == NO_PORTS


def test_blocks_match_pods_and_nodes_by_address_and_except_cuts_its_own_peer() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.2.0/24"]}}
    of = build(policy(ingress=[{"from": [block]}]))
    assert allowed(of, "shop/web", "shop/db") == ALL_PORTS
    assert allowed(of, "batch/job", "shop/db") == NO_PORTS
    other = {"ipBlock": {"cidr": "10.0.2.2/32"}}
    assert allowed(build(policy(ingress=[{"from": [block, other]}])), "batch/job", "shop/db") == ALL_PORTS
    near = build(policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.168.0.1/32"}}]}]))
    assert allowed(near, "n1", "shop/db") == ALL_PORTS


def test_one_address_of_several_is_enough() -> None:
    """A node with two addresses, one of them in the block; and the block must not match by the other address."""
    two = node("n3", "192.168.0.3")
    two["status"]["addresses"].append({"type": "ExternalIP", "address": "203.0.113.3"})
    of = build(two, policy(ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]))
    assert allowed(of, "n3", "shop/db") == ALL_PORTS
    assert allowed(of, "n1", "shop/db") == NO_PORTS
    matrix = Matrix(of)
    places = {e.name: i for i, e in enumerate(of.endpoints)}
    assert matrix.ports(places["n3"], places["shop/db"]) == ALL_PORTS


def test_host_bits_of_a_block_are_masked() -> None:
    of = build(policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.2.77/24"}}]}]))
    assert allowed(of, "batch/job", "shop/db") == ALL_PORTS
    assert allowed(of, "shop/web", "shop/db") == NO_PORTS


def test_every_ipv4_address_says_nothing_about_ipv6() -> None:
    of = build(policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]))
    assert allowed(of, "2001:db8::1", "shop/db", Family.IPV6) == NO_PORTS


def test_a_named_port_is_resolved_on_the_destination_also_for_egress() -> None:
    of = build(policy(namespace="shop", policyTypes=["Egress"], egress=[{"ports": [{"port": "http"}]}]))
    assert allowed(of, "shop/web", "batch/job") == PortSet.single("TCP", 80)
    assert allowed(of, "shop/db", "shop/web") == PortSet.single("TCP", 8080)
    assert allowed(of, "shop/web", "shop/db") == NO_PORTS
    assert allowed(of, "shop/web", "203.0.113.9") == NO_PORTS


def test_defaults_and_ranges_of_ports() -> None:
    of = build(
        policy(
            ingress=[{"ports": [{}, {"protocol": "UDP", "port": 53}, {"protocol": "SCTP", "port": 10, "endPort": 12}]}]
        )
    )
    assert str(allowed(of, "batch/job", "shop/db")) == "TCP:* UDP:53 SCTP:10-12"


def test_a_port_name_needs_its_protocol() -> None:
    of = build(policy(namespace="batch", ingress=[{"ports": [{"port": "http", "protocol": "UDP"}]}]))
    assert allowed(of, "shop/web", "batch/job") == NO_PORTS


def test_a_rule_for_one_protocol_isolates_the_others() -> None:
    of = build(policy(ingress=[{"ports": [{"protocol": "SCTP"}]}]))
    assert allowed(of, "batch/job", "shop/db") == PortSet.of("SCTP")


def test_an_undeclared_port_is_not_closed_and_a_declared_one_not_open() -> None:
    assert allowed(build(), "batch/job", "shop/web").holds("TCP", 9)
    assert not allowed(build(policy(policyTypes=["Ingress"])), "batch/job", "shop/web").holds("TCP", 8080)


def test_replies_need_no_rule() -> None:
    """Who may send nothing still answers: only the side that opens the connection is asked for egress."""
    mute = policy(podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Egress"])
    assert allowed(build(mute), "shop/web", "shop/db") == ALL_PORTS
    assert allowed(build(mute), "shop/db", "shop/web") == NO_PORTS


def test_every_namespace_has_its_name_as_a_label_also_one_that_no_manifest_shows() -> None:
    batch = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "batch"}}}
    of = build(policy(ingress=[{"from": [batch]}]))
    assert allowed(of, "batch/job", "shop/db") == ALL_PORTS
    assert allowed(of, "shop/web", "shop/db") == NO_PORTS


def test_an_object_without_namespace_is_in_default() -> None:
    lost, own = pod("lost", "10.0.3.2", app="lost"), policy(policyTypes=["Ingress"])
    del lost["metadata"]["namespace"], own["metadata"]["namespace"]
    of = build(lost, own)
    assert allowed(of, "shop/web", "default/lost") == NO_PORTS
    assert allowed(of, "default/lost", "shop/web") == ALL_PORTS


def test_typed_lists_and_pods_without_status() -> None:
    bare = pod("bare", "", app="web")
    del bare["status"], bare["kind"], bare["apiVersion"]
    listed = {"apiVersion": "v1", "kind": "PodList", "items": [bare]}
    only_web = policy(podSelector={"matchLabels": {"app": "web"}}, policyTypes=["Ingress"])
    of = build(listed, only_web)
    assert allowed(of, "batch/job", "shop/bare") == NO_PORTS


def test_a_pod_reaches_itself_and_a_node_its_own_pods() -> None:
    of = build(policy(policyTypes=["Ingress", "Egress"]))
    assert allowed(of, "shop/web", "shop/web") == ALL_PORTS
    assert allowed(of, "n1", "shop/web") == ALL_PORTS
    assert allowed(of, "n2", "shop/web") == NO_PORTS


def test_host_network_pods_are_their_node() -> None:
    host = pod("agent", "192.168.0.2", node="n2", app="agent")
    host["spec"]["hostNetwork"] = True
    of = build(host, policy(ingress=[{"from": [{"podSelector": {}}]}]))
    assert allowed(of, "shop/agent", "shop/web") == NO_PORTS  # its node is another one
    assert allowed(of, "shop/agent", "shop/db") == ALL_PORTS  # its own node
    assert allowed(of, "batch/job", "shop/agent") == ALL_PORTS  # subject to nothing


def test_finished_pods_are_nobody() -> None:
    done = pod("old", "10.0.1.2", app="web")
    done["status"]["phase"] = "Succeeded"
    assert "shop/old" not in {e.name for e in build(done).endpoints}


def admin(kind: str = "AdminNetworkPolicy", name: str = "a", priority: int | None = 10, **spec: Any) -> Json:
    spec = {"subject": {"namespaces": {}}, **({"priority": priority} if priority is not None else {}), **spec}
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return {"apiVersion": f"policy.networking.k8s.io/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


EVERYONE = [{"namespaces": {}}]
SHUT = policy("shut", policyTypes=["Ingress"])


def test_an_admin_deny_goes_before_any_network_policy() -> None:
    deny = admin(
        ingress=[{"action": "Deny", "from": EVERYONE, "ports": [{"portNumber": {"protocol": "TCP", "port": 22}}]}]
    )
    assert allowed(build(deny), "batch/job", "shop/db") == ALL_PORTS - PortSet.single("TCP", 22)


def test_an_admin_allow_skips_network_policy_and_egress_is_decided_alone() -> None:
    allow = admin(ingress=[{"action": "Allow", "from": EVERYONE}])
    assert allowed(build(allow, SHUT), "batch/job", "shop/db") == ALL_PORTS
    out = admin(egress=[{"action": "Allow", "to": EVERYONE}])
    assert allowed(build(out, SHUT), "batch/job", "shop/db") == NO_PORTS


def test_pass_leaves_it_to_the_next_tier() -> None:
    rules = [{"action": "Pass", "from": EVERYONE}, {"action": "Deny", "from": EVERYONE}]
    assert allowed(build(admin(ingress=rules)), "batch/job", "shop/db") == ALL_PORTS
    assert allowed(build(admin(ingress=rules), SHUT), "batch/job", "shop/db") == NO_PORTS


def test_the_lower_number_goes_first() -> None:
    first = admin(name="first", priority=1, ingress=[{"action": "Allow", "from": EVERYONE}])
    second = admin(name="second", priority=2, ingress=[{"action": "Deny", "from": EVERYONE}])
    assert allowed(build(second, first), "batch/job", "shop/db") == ALL_PORTS


def test_baseline_is_for_pods_not_isolated_in_that_direction() -> None:
    base = admin("BaselineAdminNetworkPolicy", "default", None, ingress=[{"action": "Deny", "from": EVERYONE}])
    assert allowed(build(base), "batch/job", "shop/db") == NO_PORTS
    opened = policy("open", ingress=[{}])
    assert allowed(build(base, opened), "batch/job", "shop/db") == ALL_PORTS
    egress_only = policy("out", policyTypes=["Egress"], egress=[{}])
    assert allowed(build(base, egress_only), "batch/job", "shop/db") == NO_PORTS


def test_pass_in_the_baseline_tier_leads_to_allowed() -> None:
    rules = [{"action": "Pass", "from": EVERYONE}, {"action": "Deny", "from": EVERYONE}]
    base = admin("ClusterNetworkPolicy", tier="Baseline", ingress=rules)
    assert allowed(build(base), "batch/job", "shop/db") == ALL_PORTS


def test_equal_priorities_go_by_name_and_lint_says_so() -> None:
    first = admin(name="a", ingress=[{"action": "Allow", "from": EVERYONE}])
    second = admin(name="b", ingress=[{"action": "Deny", "from": EVERYONE}])
    of = build(second, first)
    assert allowed(of, "batch/job", "shop/db") == ALL_PORTS
    assert "NP008" in {finding.code for finding in lint(of)}


@pytest.mark.parametrize(
    ("peer", "destination", "other"),
    [
        ({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}, "shop/db", "n2"),
        ({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}}, "shop/db", "shop/web"),
        ({"nodes": {"matchLabels": {"role": "edge"}}}, "n2", "n1"),
        ({"networks": ["203.0.113.0/24", "10.0.1.3/32"]}, "203.0.113.9", "198.51.100.1"),
        ({"networks": ["203.0.113.0/24", "10.0.1.3/32"]}, "shop/db", "shop/web"),
    ],
)
def test_every_peer_of_a_cluster_network_policy(peer: Json, destination: str, other: str) -> None:
    deny = admin("ClusterNetworkPolicy", tier="Admin", egress=[{"action": "Deny", "to": [peer]}])
    assert allowed(build(deny), "batch/job", destination) == NO_PORTS
    assert allowed(build(deny), "batch/job", other) == ALL_PORTS


def test_domain_names_are_answered_for_names_outside() -> None:
    accept = {"action": "Accept", "to": [{"domainNames": ["*.example.com", "api.test"]}]}
    rest = {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}
    of = build(admin("ClusterNetworkPolicy", tier="Admin", egress=[accept, rest]))
    for name, ports in (("a.b.example.com", ALL_PORTS), ("API.test.", ALL_PORTS), ("example.com", NO_PORTS)):
        there = replace(outside("203.0.113.9"), name=name)
        assert decide(of, find(of, "batch/job"), there).allowed == ports


def test_networks_cover_pods_and_nodes_peers_are_for_egress() -> None:
    of = build(admin(egress=[{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]}]))
    assert allowed(of, "batch/job", "shop/db") == NO_PORTS
    of = build(admin(egress=[{"action": "Deny", "to": [{"nodes": {"matchLabels": {"role": "edge"}}}]}]))
    assert allowed(of, "batch/job", "n2") == NO_PORTS
    assert allowed(of, "batch/job", "n1") == ALL_PORTS


def test_an_unknown_peer_fails_closed() -> None:
    deny = admin(ingress=[{"action": "Deny", "from": [{"serviceAccounts": {}}]}])
    assert allowed(build(deny), "batch/job", "shop/db") == NO_PORTS
    allow = admin(ingress=[{"action": "Allow", "from": [{"serviceAccounts": {}}]}])
    assert allowed(build(allow, SHUT), "batch/job", "shop/db") == NO_PORTS


def test_cluster_network_policy_has_two_tiers() -> None:
    accept = {
        "action": "Accept",
        "from": EVERYONE,
        "protocols": [{"tcp": {"destinationPort": {"range": {"start": 1, "end": 99}}}}],
    }
    top = admin("ClusterNetworkPolicy", tier="Admin", ingress=[accept])
    assert str(allowed(build(top, SHUT), "batch/job", "shop/db")) == "TCP:1-99"
    base = admin("ClusterNetworkPolicy", tier="Baseline", ingress=[{"action": "Deny", "from": EVERYONE}])
    assert allowed(build(base), "batch/job", "shop/db") == NO_PORTS
    assert allowed(build(base, policy("open", ingress=[{}])), "batch/job", "shop/db") == ALL_PORTS


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (
            admin(priority=1001),
            "spec.priority: Invalid value: 1001: spec.priority in body should be less than or equal to 1000",
        ),
        (
            admin(ingress=[{"action": "Drop", "from": EVERYONE}]),
            'Unsupported value: "Drop": supported values: "Allow", "Deny", "Pass"',
        ),
        (admin(ingress=[{"action": "Deny"}]), "spec.ingress[0].from: Required value"),
        (admin(egress=[{"action": "Deny", "to": [{"networks": ["10.0.0.0/99"]}]}]), "Invalid CIDR format provided"),
        (admin("BaselineAdminNetworkPolicy", "other", None), 'metadata.name="default"'),
        (
            admin("ClusterNetworkPolicy", tier="Middle"),
            'Unsupported value: "Middle": supported values: "Admin", "Baseline"',
        ),
    ],
)
def test_bad_admin_policies_are_refused_in_the_servers_words(bad: Json, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        build(bad)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("-:"), "the place is named"
