"""kube-proxy's rules after Services have changed: taken over from the generation before, and yet as if made from nothing."""

from __future__ import annotations

import random
from collections.abc import Collection
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from netsim.kube.cluster import Cluster
from netsim.kube.objects import EndpointSlice, Object, Service
from netsim.kube.store import Event
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.rule import Chain, same_ends, same_rules
from netsim.linux.netfilter.table import Ruleset
from netsim.linux.netfilter.text import print_save
from netsim.linux.netfilter.text import rule as read_rule
from netsim.packet.address import Family
from netsim_backends.kube_proxy import IPTABLES, IptablesPlugin, iptables_proxier, restore_document
from netsim_backends.kube_proxy.iptables_node import LazyChains
from tests.support.kube_proxy_clusters import NODES, UNDERLAY, cluster, configs, objects

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
Mappings = dict[tuple[str, Family, str], LazyChains]


def renamed(state: list[Object]) -> list[Object]:
    """The same objects, with Services by the same few names in all states."""
    numbers: dict[tuple[str, str], int] = {}
    found: list[Object] = []
    for one in state:
        if isinstance(one, Service):
            name = f"s{numbers.setdefault(one.key, len(numbers))}"
            one = replace(one, metadata=replace(one.metadata, name=name, namespace="default"))
        elif isinstance(one, EndpointSlice):
            label = one.metadata.labels["kubernetes.io/service-name"]
            service = f"s{numbers[one.namespace, label]}"
            name = one.name.replace(label, service, 1)
            labels = {"kubernetes.io/service-name": service}
            one = replace(one, metadata=replace(one.metadata, name=name, namespace="default", labels=labels))
        found.append(one)
    return found


def change(held: Cluster, wanted: list[Object], choose: random.Random) -> tuple[Cluster, set[tuple[str, str]]]:
    """Some of the way from the Services and slices that there are to those of ``wanted``; which Services it is about."""
    events: list[Event] = []
    stop = held.store.watch(events.append)
    fresh = {(one.kind, *one.key): one for one in wanted if isinstance(one, Service | EndpointSlice)}
    share = choose.choice((0.2, 0.6))
    old = [one for kind in ("Service", "EndpointSlice") for one in held.store.list(kind)]
    for one in old:
        if (one.kind, *one.key) not in fresh and choose.random() < share:
            held.store.delete(one.kind, *one.key)
    for one in fresh.values():
        if choose.random() < share:
            held.store.put(one)
    stop()
    new = held.after(events)
    services = {event.object.key for event in events if isinstance(event.object, Service)}
    for side in (held, new):
        for key, slices in side.slices.items():
            if held.slices.get(key) != new.slices.get(key) and slices:
                services.add(key)
    return new, services


def built(plugin: IptablesPlugin, node: str) -> dict[Family, Ruleset]:
    builder = NamespaceBuilder(f"node/{node}", node)
    plugin.build_node(node, builder)
    return dict(builder.build().rulesets)


def mappings(plugin: IptablesPlugin) -> Mappings:
    found: Mappings = {}
    for node in NODES:
        for family, ruleset in built(plugin, node).items():
            for table in ruleset.tables.values():
                for one in getattr(table.chains, "maps", ()):
                    if isinstance(one, LazyChains):
                        found[node, family, table.name] = one
    return found


@few
@given(
    st.lists(objects().map(renamed), min_size=2, max_size=4),
    configs(),
    st.randoms(use_true_random=False),
    st.integers(-4, 3),
)
def test_any_change_is_as_good_as_a_new_start(
    states: list[list[Object]], config: dict[str, object], choose: random.Random, near: int
) -> None:
    """``near``: how far the first state is from the number of endpoints that changes all comments."""
    first = IPTABLES.configure(cluster(*states[0], config=config), None, UNDERLAY)
    large = first.proxiers[choose.choice(list(Family))].endpoints + near
    with patch.object(iptables_proxier, "LARGE_CLUSTER_ENDPOINTS", large):
        held = cluster(*states[0], config=config)
        plugin = IPTABLES.configure(held, None, UNDERLAY)
        older = mappings(plugin)
        for wanted in states[1:]:
            before = mappings(plugin)
            for one in before.values():  # somebody has looked at some of the chains
                for name in choose.sample(sorted(one), choose.randrange(len(one) + 1)):
                    one[name]
            was = {key: dict(one) for key, one in before.items()}
            held, services = change(held, wanted, choose)
            plugin = plugin.updated(held, services)
            fresh = IPTABLES.configure(Cluster(held.store, held.settings), None, UNDERLAY)
            renewed = {key: plugin.renewed(older[key], one) for key, one in before.items()}
            check(plugin, fresh)
            check_renewal(plugin, fresh, renewed, before, was)
            assert {key: dict(one) for key, one in before.items()} == was


def check(plugin: IptablesPlugin, fresh: IptablesPlugin) -> None:
    for node in NODES:
        mine, its = built(plugin, node), built(fresh, node)
        for family in Family:
            assert list(restore_document(plugin, node, family)) == list(restore_document(fresh, node, family))
            assert list(print_save(mine[family])) == list(print_save(its[family]))


def check_renewal(
    plugin: IptablesPlugin,
    fresh: IptablesPlugin,
    renewed: dict[tuple[str, Family, str], tuple[LazyChains, Collection[str]]],
    before: Mappings,
    was: dict[tuple[str, Family, str], dict[str, Chain]],
) -> None:
    """What the plug-in says of mappings of earlier generations: what they have become, and what differs."""
    wanted, again = mappings(fresh), mappings(plugin)
    scopes: dict[object, object] = {}
    for key, old in before.items():
        new, names = renewed[key]
        if not names and new.scope != again[key].scope:
            new = again[key]  # nothing has changed: it said that it is what it was
        assert new.scope == again[key].scope
        now = dict(new)
        assert now.keys() == wanted[key].keys()
        assert all(same_rules(now[name].rules, wanted[key][name].rules) for name in now)
        for name in was[key].keys() | now.keys():
            both = was[key].get(name), now.get(name)
            if name not in names:
                assert both[0] is not None, name
                assert both[1] is not None, name
                assert same_rules(both[0].rules, both[1].rules), name
        if plugin.alike:
            assert scopes.setdefault(old.scope, new.scope) == new.scope


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8), st.integers(0, 600))
def test_same_ends(old: list[int], new: list[int], more: int) -> None:
    rules = [read_rule(f"-m mark --mark {number} -j ACCEPT", Family.IPV4) for number in range(6)]
    shared = tuple(rules[n % 6] for n in range(more))
    one, other = (*shared, *[rules[n] for n in old], *shared), (*shared, *[rules[n] for n in new], *shared)
    head, tail = same_ends(one, other)
    assert head + tail <= min(len(one), len(other))
    assert one[:head] == other[:head]
    assert one[len(one) - tail :] == other[len(other) - tail :]
    left, right = one[head : len(one) - tail], other[head : len(other) - tail]
    assert not left or not right or (left[0] != right[0] and left[-1] != right[-1])
