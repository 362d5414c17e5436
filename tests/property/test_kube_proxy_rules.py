"""What holds for the rules of any cluster."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import EndpointSlice, Object
from netsim.kube.store import Store
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.table import Ruleset
from netsim.linux.netfilter.text import parse_rule
from netsim.packet.address import Family
from netsim_backends.kube_proxy import IPTABLES, restore_document
from netsim_backends.kube_proxy.endpoints import Endpoint, categorize
from tests.support.kube_proxy_clusters import NODES, UNDERLAY, cluster, clusters, configs, objects

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
nodes = st.sampled_from(NODES)
families = st.sampled_from(list(Family))


def ruleset(held: Cluster, node: str, family: Family) -> Ruleset:
    builder = NamespaceBuilder(f"node/{node}", node)
    IPTABLES.configure(held, None, UNDERLAY).build_node(node, builder)
    return builder.build().rulesets[family]


def document(held: Cluster, node: str, family: Family) -> list[str]:
    return list(restore_document(IPTABLES.configure(held, None, UNDERLAY), node, family))


def tables_of(lines: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Table → the chains it names, the rules it appends."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for line in lines:
        if line.startswith("*"):
            names, rules = found.setdefault(line[1:], ([], []))
        elif line.startswith(":"):
            names.append(line[1:].split()[0])
        elif line != "COMMIT":
            rules.append(line)
    return found


@few
@given(clusters(), nodes, families)
def test_text_and_kernel_objects_are_one(held: Cluster, node: str, family: Family) -> None:
    built = ruleset(held, node, family)
    for table, (names, lines) in tables_of(document(held, node, family)).items():
        assert len(set(names)) == len(names)
        parsed = {name: [] for name in names}
        for line in lines:
            chain, rule = parse_rule(line, family)
            parsed[chain].append(rule)
        chains = built.tables[table].chains
        assert {name: list(chains[name].rules) for name in names} == parsed
        own = {name for name in chains if re.match("KUBE-(SVC|SVL|EXT|FW|SEP)-", name)}
        assert own == {name for name in names if re.match("KUBE-(SVC|SVL|EXT|FW|SEP)-", name)}


@few
@given(clusters(), nodes, families)
def test_every_jump_arrives_and_every_own_chain_is_entered(held: Cluster, node: str, family: Family) -> None:
    for table, content in ruleset(held, node, family).tables.items():
        jumps = {rule.jump for chain in content.ordered() for rule in chain.rules if rule.jump}
        assert jumps <= set(content.chains), table
        own = {name for name in content.chains if re.match("KUBE-(SVL|EXT|FW|SEP)-", name)}
        assert own <= jumps


@few
@given(objects(), configs(), st.randoms(use_true_random=False), nodes, families)
def test_the_order_of_the_input_does_not_matter(
    made: list[Object], config: dict[str, object], shuffle: random.Random, node: str, family: Family
) -> None:
    mixed = list(made)
    shuffle.shuffle(mixed)
    for index, item in enumerate(mixed):
        if isinstance(item, EndpointSlice) and len({e.addresses[0] for e in item.endpoints}) == len(item.endpoints):
            entries = list(item.endpoints)
            shuffle.shuffle(entries)
            mixed[index] = msgspec.structs.replace(item, endpoints=entries)
    assert document(cluster(*made, config=config), node, family) == document(
        cluster(*mixed, config=config), node, family
    )


@few
@given(objects(), st.randoms(use_true_random=False), nodes)
def test_how_the_cluster_came_about_does_not_matter(made: list[Object], choose: random.Random, node: str) -> None:
    """A full sync after any history writes what a fresh start on the final state writes."""
    store = Store()
    order = [*made, *made]
    choose.shuffle(order)
    for item in order:
        store.put(item)
        if choose.random() < 0.3:
            store.delete(item.kind, item.namespace, item.name)
    held = Cluster(store, Settings(proxy_config={"clusterCIDR": "10.244.0.0/16"}))
    if node in held.nodes:
        left = [item for kind in store.kinds() for item in store.list(kind)]
        fresh = cluster(*left, config={"clusterCIDR": "10.244.0.0/16"})
        assert document(held, node, Family.IPV4) == document(fresh, node, Family.IPV4)


@few
@given(clusters(), nodes, families)
def test_each_endpoint_is_equally_likely(held: Cluster, node: str, family: Family) -> None:
    for name, chain in ruleset(held, node, family).tables["nat"].chains.items():
        if not re.match("KUBE-(SVC|SVL)-", name):
            continue
        left, shares = Fraction(1), {}
        lines = [line for line in document(held, node, family) if line.startswith(f"-A {name} ")]
        for line in lines:
            if "-j KUBE-SEP" not in line or "--rcheck" in line:
                continue
            chance = re.search(r"--probability (\S+)", line)
            share = left * (Fraction(chance[1]) if chance else 1)
            shares[line.split("-j ")[1]] = share
            left -= share
        assert left == 0
        assert shares
        assert all(abs(share - Fraction(1, len(shares))) < Fraction(1, 10**8) for share in shares.values())
        assert len(chain.rules) == len(lines)


@few
@given(clusters(), nodes)
def test_node_ports_are_never_behind_a_source_range(held: Cluster, node: str) -> None:
    for line in document(held, node, Family.IPV4):
        if line.startswith("-A KUBE-NODEPORTS") and "-j KUBE-" in line:
            assert "-j KUBE-EXT-" in line


flags = st.booleans()
hint = st.frozensets(st.sampled_from(["n1", "n2"]), max_size=2)
made_endpoints = st.lists(
    st.builds(
        Endpoint,
        st.integers(1, 30).map("10.0.0.{}:80".format),
        st.just("10.0.0.1"),
        st.just(80),
        st.sampled_from(["", "n1", "n2"]),
        flags,
        flags,
        flags,
        hint,
        hint,
    ),
    unique_by=lambda e: e.name,
    max_size=8,
).map(lambda found: sorted(found, key=lambda e: e.name))


@given(made_endpoints, st.sampled_from(["", "n1", "n2"]), flags, flags)
def test_choices(endpoints: list[Endpoint], zone: str, cluster_policy: bool, local_policy: bool) -> None:
    choice = categorize(endpoints, node="n1", zone=zone, uses_cluster=cluster_policy, uses_local=local_policy)
    assert set(choice.cluster) | set(choice.local) == set(choice.reachable)
    assert list(choice.reachable) == sorted(choice.reachable, key=lambda e: e.name)
    assert all(e.node == "n1" for e in choice.local)
    for group in (choice.cluster, choice.local):
        assert all(e.ready for e in group) or all(e.draining for e in group)
    if cluster_policy or local_policy:
        assert choice.any == any(e.ready or e.draining for e in endpoints)
    if cluster_policy:
        assert bool(choice.cluster) == choice.any
