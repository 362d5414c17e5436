"""kube-proxy's own tables, compiled: what nodes share, the draws, session affinity, and one Service changed among many."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from netsim.compiled.hashing import draw
from netsim.compiled.lowered import Pools
from netsim.compiled.recent_table import RecentTable
from netsim.kube.cluster import Cluster
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.base import CtState, Hook, Nat, Verdict
from netsim.linux.netfilter.rule import Chain
from netsim.linux.netfilter.table import Ruleset, Table
from netsim.linux.netfilter.text import rule as read_rule
from netsim.packet.address import Family, ip
from netsim.packet.model import Packet, Sctp, Tcp, Udp
from netsim_backends.kube_proxy import IPTABLES
from tests.property.test_compiled_rules import long_packet, long_rule, some_buffer
from tests.support.compiled_rules import Engine, World, buffer, compare
from tests.support.kube_proxy_clusters import (
    NODES,
    UNDERLAY,
    cluster,
    clusters,
    demo,
    endpoint,
    endpoint_slice,
    node,
    port,
    service,
)  # fmt: skip

SOURCES = {
    Family.IPV4: ("10.244.1.5", "10.244.2.6", "172.18.0.3", "203.0.113.9", "127.0.0.1"),
    Family.IPV6: ("fd00:244:0:1::5", "fd00:244:0:2::6", "fd00:18::1", "2001:db8::9", "::1"),
}


def rulesets(held: Cluster, *nodes: str) -> list[dict[Family, Ruleset]]:
    plugin = IPTABLES.configure(held, None, UNDERLAY)
    found = []
    for name in nodes:
        builder = NamespaceBuilder(f"node/{name}", name)
        plugin.build_node(name, builder)
        found.append(dict(builder.build().rulesets))
    return found


def aims(table: Table, family: Family) -> list[tuple[str, int, int]]:
    """(address, protocol, port) that the front rules name; any address is the node's own."""
    found = {("10.96.255.1" if family is Family.IPV4 else "fd00:96::ffff", 6, 9)}
    for name in ("KUBE-SERVICES", "KUBE-NODEPORTS"):
        for rule in table.chains[name].rules:
            for match in rule.matches:
                if match.name in ("tcp", "udp", "sctp"):
                    at = str(rule.destination.network_address) if rule.destination else SOURCES[family][2]
                    found.add((at, rule.protocol or 6, match.dport[0]))  # type: ignore[attr-defined]
    return sorted(found)


def towards(src: str, dst: str, proto: int, number: int) -> Packet:
    body = {6: Tcp, 17: Udp, 132: Sctp}[proto](40000, number)
    return Packet(ip(src), ip(dst), proto, body)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters(), st.sampled_from(Family))
def test_any_cluster(held: Cluster, family: Family) -> None:
    engine, serial = Engine(), 0
    for name, found in zip(NODES[:2], rulesets(held, *NODES[:2])):
        recents: dict[str, Any] = {}
        tables = found[family].tables
        for table in tables.values():
            for dst, proto, number in aims(tables["nat"], family):
                for src in SOURCES[family]:
                    serial += 1
                    hook = Hook(table.builtin[serial % len(table.builtin)])
                    world = World(family, hook, table.name, {}, now=serial * 5.0)
                    world.recents = recents
                    skb = buffer(towards(src, dst, proto, number), iif="cni0", oif="eth0", ct_state=CtState.NEW)
                    engine.namespace = name
                    compare(engine, table, skb, world, serial, scope=name)
    assert not {reason for reason in engine.reasons if "nfacct" not in reason}


def many(count: int, nodes: int = 1, endpoints: int = 3, **spec: Any) -> Cluster:
    made = [node(f"n{at}", f"172.18.0.{at + 1}") for at in range(nodes)]
    for at in range(count):
        address = f"10.96.{at // 250}.{at % 250 + 1}"
        made.append(service(f"default/s{at}", {"clusterIP": address, "ports": [port(80)], **spec}))  # type: ignore[arg-type]
        pods = [endpoint(f"10.244.{at % 250}.{pod + 2}", "n0") for pod in range(endpoints)]
        made.append(endpoint_slice(f"default/s{at}", pods, [{"name": "", "protocol": "TCP", "port": 8080}]))  # type: ignore[arg-type]
    return cluster(*made, config={})


def test_nodes_that_see_the_same_share_what_is_compiled() -> None:
    engine = Engine()
    faults = []
    for name, found in zip(("n0", "n1", "n2"), rulesets(many(40, nodes=3), "n0", "n1", "n2")):
        before = engine.faults
        table = found[Family.IPV4].tables["nat"]
        for serial in range(20):
            skb = buffer(towards("10.244.9.9", "10.96.0.7", 6, 80), ct_state=CtState.NEW)
            assert compare(engine, table, skb, World(Family.IPV4, Hook.PREROUTING, "nat", {}), serial, scope=name)
        faults.append(engine.faults - before)
    assert 0 < faults[0] <= 3, "a Service's endpoint chains come with its own"
    assert faults[1:] == [0, 0], "the second node finds all chains compiled"


def test_nodes_that_differ_do_not() -> None:
    """Policy Local: each node's chains lead to its own endpoints."""
    engine, found = Engine(), {}
    for name, held in zip(("worker-1", "worker-2"), rulesets(demo(), "worker-1", "worker-2")):
        engine.namespace = name
        recents: dict[str, Any] = {}
        for serial in range(40):
            skb = buffer(towards("203.0.113.8", "198.51.100.7", 6, 80), ct_state=CtState.NEW)
            world = World(Family.IPV4, Hook.PREROUTING, "nat", {}, now=1e6 * serial)
            world.recents = recents
            answer = compare(engine, held[Family.IPV4].tables["nat"], skb, world, serial, scope=name)
            assert answer is not None
            assert isinstance(answer.action, Nat)
            found.setdefault(name, set()).add(str(answer.action.low))
    assert found == {"worker-1": {"10.244.1.5"}, "worker-2": {"10.244.2.6", "10.244.2.7"}}


def test_affinity_keeps_its_endpoint_until_it_is_too_old() -> None:
    engine = Engine()
    table = rulesets(demo(), "worker-2")[0][Family.IPV4].tables["nat"]
    world = World(Family.IPV4, Hook.PREROUTING, "nat", {})
    chosen = []
    for serial in range(60):
        world.now = serial * 600.0 if serial < 30 else serial * 1000.0  # 600 seconds are not too old yet
        skb = buffer(towards("203.0.113.8", "198.51.100.7", 6, 80), ct_state=CtState.NEW)
        assert compare(engine, table, skb, world, serial)
        chosen.append(max((stamps[-1], name) for name, seen in world.recents.items() for stamps in seen.values())[1])
    assert len(set(chosen[:30])) == 1
    assert len(set(chosen[30:])) == 2
    assert not engine.reasons


def test_one_service_changed_among_many() -> None:
    """The chain that names them all is written from what it was, and still walks as the interpreter does."""
    engine = Engine()
    old = rulesets(many(400), "n0")[0][Family.IPV4].tables["nat"]
    rules = list(old.chains["KUBE-SERVICES"].rules)
    rng = Random(5)
    for step in range(12):
        change = rng.choice(("replace", "delete", "insert", "move"))
        at = rng.randrange(len(rules))
        if change == "replace":
            rules[at] = replace(rules[at], protocol=17)
        elif change == "delete":
            del rules[at]
        elif change == "insert":
            rules.insert(at, read_rule(f"-d 10.96.0.{at % 250}/32 -p tcp -j RETURN", Family.IPV4))
        else:
            rules.insert(rng.randrange(len(rules)), rules.pop(at))
        chain = Chain("KUBE-SERVICES", tuple(rules))
        table = Table("nat", {**old.chains, "KUBE-SERVICES": chain})
        for serial in range(25):
            where = serial if serial else at
            dst = f"10.96.{where % 400 // 250}.{where % 400 % 250 + 1}"
            skb = buffer(towards("10.244.9.9", dst, 6, 80), ct_state=CtState.NEW)
            assert compare(engine, table, skb, World(Family.IPV4, Hook.PREROUTING, "nat", {}), serial, scope=step)


def test_a_long_chain_written_from_another_is_as_good_as_new() -> None:
    """Rules of every kind; a few change place, come or go. Both compilers, the one with and the one without a past."""
    for seed in range(6):
        rng = Random(seed)
        family = rng.choice((Family.IPV4, Family.IPV6))
        rules = [long_rule(rng, [], family) for _ in range(300)]
        engine = Engine()
        for step in range(4):
            for _ in range(rng.randrange(1, 5)):
                at = rng.randrange(len(rules))
                rules[at : at + rng.randrange(3)] = [long_rule(rng, [], family) for _ in range(rng.randrange(3))]
            table = Table("filter", {"FORWARD": Chain("FORWARD", tuple(rules), Verdict.DROP)})
            fresh = Engine(addresses=engine.addresses, names=engine.names)
            for serial in range(20):
                skb = some_buffer(rng, long_packet(rng, family))
                skb.iif = rng.choice(("cali0", "cali1", "eth0"))
                found = []
                for one in (engine, fresh):
                    one.recent.recent.slots["used"] = 0
                    one.recent.recent.count[0] = 0
                    found.append(
                        compare(one, table, skb, World(family, Hook.FORWARD, "filter", {}), serial, scope=step)
                    )
                assert found[0] == found[1]


def test_draws_are_spread_as_the_chain_would() -> None:
    """Chi-square over the endpoints of a Service: ten endpoints and 4,000 packets, 9 degrees of freedom."""
    engine = Engine(seed=11)
    table = rulesets(many(1, endpoints=10), "n0")[0][Family.IPV4].tables["nat"]
    skb = buffer(towards("10.244.9.9", "10.96.0.1", 6, 80), ct_state=CtState.NEW)
    world = World(Family.IPV4, Hook.PREROUTING, "nat", {})
    count = 4000
    found: Counter[str] = Counter()
    for serial in range(count):
        answer = engine.walk("n0", table, skb, world, serial)
        assert answer is not None
        assert isinstance(answer.action, Nat)
        found[str(answer.action.low)] += 1
    assert len(found) == 10
    assert sum((have - count / 10) ** 2 / (count / 10) for have in found.values()) < 27.9, "0.1 % by chance"


def test_thresholds_are_the_exact_chances_of_the_questions() -> None:
    engine = Engine()
    pools: Pools = engine.compiler._pools
    for chances in ((1 << 30, 1 << 30), (214748365, 238609294, 268435456, 1), (1, 2**31 - 1)):
        at = pools.run(chances)
        words = pools.code.array[at : at + 1 + 2 * len(chances)].tolist()
        assert words[0] == len(chances)
        fails = Fraction(1)
        for place, chance in enumerate(chances):
            fails *= 1 - Fraction(chance, 1 << 31)
            threshold = words[1 + 2 * place] << 32 | words[2 + 2 * place]
            assert 0 <= (1 - fails) * (1 << 64) - threshold < 1


def test_random_bits_are_even_and_independent_of_each_other() -> None:
    """Each bit of the 64 is set half of the time, over seeds, serial numbers and numbers of draws."""
    for vary in range(3):
        total = np.zeros(64)
        for at in range(2000):
            key = [5, 9, 0]
            key[vary] = at
            value = int(draw(np.uint64(key[0]), np.uint64(key[1]), np.uint64(key[2])))
            total += [value >> bit & 1 for bit in range(64)]
        assert abs(total - 1000).max() < 5 * (2000**0.5) / 2


def test_lists_whose_rules_need_every_stamp_are_left_to_the_interpreter() -> None:
    texts = (
        "-m recent --name A --rcheck --seconds 10 --reap -j ACCEPT",
        "-m recent --name A --rcheck --seconds 60 -j ACCEPT",
    )
    for lines, left in ((texts[:1], False), (texts[1:], False), (texts, True)):
        engine = Engine()
        rules = tuple(read_rule(line, Family.IPV4) for line in lines)
        table = Table("filter", {"FORWARD": Chain("FORWARD", rules, Verdict.DROP)})
        skb = buffer(towards("10.0.0.1", "10.0.0.2", 6, 80))
        found = compare(engine, table, skb, World(Family.IPV4, Hook.FORWARD, "filter", {}))
        assert (found is None) is left


def test_each_namespace_remembers_for_itself() -> None:
    engine = Engine()
    texts = ("-p tcp -m recent --name A --set -j ACCEPT", "-m recent --name A --rcheck -j ACCEPT")
    rules = tuple(read_rule(text, Family.IPV4) for text in texts)
    table = Table("filter", {"FORWARD": Chain("FORWARD", rules, Verdict.DROP)})
    recents: dict[str, dict[str, Any]] = {"one": {}, "other": {}}
    found = []
    for name, proto in (("one", 6), ("other", 17), ("one", 17), ("other", 6), ("other", 17)):
        world = World(Family.IPV4, Hook.FORWARD, "filter", {})
        world.recents, engine.namespace = recents[name], name
        answer = compare(engine, table, buffer(towards("10.0.0.1", "10.0.0.2", proto, 80)), world, scope=name)
        assert answer is not None
        found.append(answer.action)
    accept, drop = Verdict.ACCEPT, Verdict.DROP
    assert found == [accept, drop, accept, accept, accept]


def test_types_are_asked_for_at_the_first_rule_that_needs_them() -> None:
    engine = Engine()
    rule = read_rule("-p tcp -m addrtype --dst-type LOCAL -j ACCEPT", Family.IPV4)
    table = Table("filter", {"FORWARD": Chain("FORWARD", (rule,), Verdict.DROP)})
    world = World(Family.IPV4, Hook.FORWARD, "filter", {})
    assert compare(engine, table, buffer(towards("10.0.0.1", "10.0.0.2", 17, 80)), world)
    assert engine.types == 0
    assert compare(engine, table, buffer(towards("10.0.0.1", "10.0.0.3", 6, 80)), world)
    assert engine.types == 1


def test_what_recent_lists_hold_goes_to_the_interpreter_and_back() -> None:
    engine = Engine()
    compiler = engine.compiler
    held = {"A": {ip("10.0.0.1"): [1.0, 5.0], ip("fd00::1"): [2.0]}, "B": {ip("10.0.0.1"): [9.0]}}
    engine.recent.load(3, held, compiler.recent_list, engine.addresses.handle)
    back = engine.recent.lists(compiler.recent_name, engine.addresses.address)
    assert back == {3: {"A": {ip("10.0.0.1"): [5.0], ip("fd00::1"): [2.0]}, "B": {ip("10.0.0.1"): [9.0]}}}
    many_more = {"C": {ip(f"10.1.{at // 250}.{at % 250}"): [float(at)] for at in range(3000)}}
    engine.recent.load(4, many_more, compiler.recent_list, engine.addresses.handle)
    assert engine.recent.lists(compiler.recent_name, engine.addresses.address)[4] == {
        "C": {address: stamps[-1:] for address, stamps in many_more["C"].items()}
    }
    crowded = RecentTable()  # slots are shared by hash, never by namespace, list or address
    held = {name: {ip(f"10.0.0.{at}"): [at + 0.5] for at in range(4)} for name in "ABCD"}
    for namespace in range(60):
        crowded.load(namespace, held, compiler.recent_list, engine.addresses.handle)
    assert crowded.lists(compiler.recent_name, engine.addresses.address) == dict.fromkeys(range(60), held)
