"""Properties of policy answers that need no oracle."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.packet.address import ip
from netsim_policies import reach
from netsim_policies.algebra import AddressSet
from netsim_policies.diff import diff
from netsim_policies.evaluate import decide
from netsim_policies.explain import explain, to_json, to_text
from netsim_policies.matrix import Matrix
from netsim_policies.model import Action, AddressPeer, Direction, Endpoint, EndpointKind, Policy, Rule, Scope, World
from netsim_policies.reach import Reachability
from tests.support.policy_clusters import Drawn, Party, draw
from tests.support.policy_worlds import rules, scopes, worlds


def table(world: World) -> list[list[object]]:
    matrix = Matrix(world)
    count = range(len(world.endpoints))
    return [[matrix.ports(s, d) for d in count] for s in count]


@settings(max_examples=60, deadline=None)
@given(worlds(), scopes, rules((Action.ALLOW,), False), rules((Action.ALLOW,), True))
def test_an_allow_on_isolated_pods_never_removes_and_the_first_policy_never_adds(
    world: World, subject: Scope, ingress: tuple[Rule, ...], egress: tuple[Rule, ...]
) -> None:
    only = tuple(p for p in world.policies if p.tier == "NetworkPolicy")
    shut = Policy("NetworkPolicy", "one", "shut", "NetworkPolicy", 0, subject, frozenset(Direction))
    opened = replace(shut, name="opened", ingress=ingress, egress=egress)
    before = table(replace(world, policies=only))
    isolated = table(replace(world, policies=(*only, shut)))
    wider = table(replace(world, policies=(*only, shut, opened)))
    for was, tight, wide in zip(before, isolated, wider, strict=True):
        for a, b, c in zip(was, tight, wide, strict=True):
            assert b <= a  # type: ignore[operator]
            assert b <= c  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_policies_changes_nothing(world: World, draw: object) -> None:
    shuffled = list(world.policies)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    assert table(replace(world, policies=tuple(shuffled))) == table(world)


@settings(max_examples=40, deadline=None)
@given(worlds(3), worlds(3))
def test_diff_of_a_world_with_itself_is_empty_and_diff_mirrors(world: World, other: World) -> None:
    assert not diff(world, world)
    changed = replace(world, policies=other.policies)
    there, back = diff(world, changed), diff(changed, world)
    assert [(c.source, c.destination, c.added, c.removed) for c in there.changes] == [
        (c.source, c.destination, c.removed, c.added) for c in back.changes
    ]


@settings(max_examples=40, deadline=None)
@given(worlds(3), worlds(3))
def test_a_diff_is_the_same_pair_by_pair_and_class_by_class(world: World, other: World) -> None:
    world = replace(world, endpoints=tuple(e for e in world.endpoints if e.outside is None))
    moved = tuple(replace(e, node="n0") if e.kind is EndpointKind.POD else e for e in world.endpoints[1:])
    changed = replace(world, policies=other.policies, endpoints=moved)
    found = []
    for many in (0, 1 << 60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reach, "_MANY", many)
            found.append(diff(world, changed))
    assert found[0] == found[1]


def test_what_one_side_alone_can_tell_apart_is_compared_on_both() -> None:
    """A block or a pod that only the new policy names was part of something before: nothing is added there."""
    labels = {"app": "db"}
    pods = [
        Endpoint(EndpointKind.POD, f"one/db-{i}", namespace="one", labels={**labels, "index": str(i)}, node=f"n{i}",
                 addresses=(ip(f"10.0.0.{i}"),), workload="StatefulSet one/db")
        for i in range(3)
    ]  # fmt: skip
    before = World(tuple(pods), (), {"one": {}})
    rule = Rule(Action.ALLOW, (AddressPeer(AddressSet.prefix("203.0.113.0/24"), ""),), None, "spec.ingress[0]")
    scope = Scope(namespace="one", pods={"matchLabels": {"index": "0"}})
    shut = Policy("NetworkPolicy", "one", "p", "NetworkPolicy", 0, scope, frozenset((Direction.INGRESS,)), (rule,))
    found = diff(before, replace(before, policies=(shut,)))
    assert not found.workloads_added
    assert not found.workloads_removed
    assert {(c.source, c.destination, c.kind) for c in found.changes} == {
        ("Pod one/db-1", "Pod one/db-0", "removed"),
        ("Pod one/db-2", "Pod one/db-0", "removed"),
        ("outside", "Pod one/db-0", "removed"),
    }


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_the_explanation_reports_the_decision(world: World) -> None:
    for source in world.endpoints[:3]:
        for destination in world.endpoints[-4:]:
            explained = explain(world, source, destination)
            document = to_json(explained)
            assert len(document["sides"]) == 2
            last = list(to_text(explained))[-1].strip()
            assert last == (f"ALLOWED {explained.decision.allowed}" if explained.decision.allowed else "DENIED")
            for side in explained.sides:
                for note in side.policies:
                    assert note.selects != bool(note.reason), "a policy selects, or there is a reason why not"
                    for rule in note.rules:
                        assert bool(rule.ports) != bool(rule.reason)


@pytest.mark.parametrize("seed", range(60))
def test_what_reach_says_of_workloads_holds_for_every_pair_of_their_pods(seed: int) -> None:
    world = draw(f"reach {seed}").world()
    endpoints = [
        replace(e, workload=f"Deployment {e.namespace}/{e.labels.get('app')}") if e.kind is EndpointKind.POD else e
        for e in world.endpoints
        if e.outside is None
    ]
    reach = Reachability(replace(world, endpoints=tuple(endpoints)))
    held = reach.world.endpoints
    for source, destination in itertools.product(reach.groups, repeat=2):
        pairs = [(held[a], held[b]) for a in source.members for b in destination.members]
        answers = [decide(world, a, b).allowed for a, b in pairs if a != b or len(pairs) == 1]
        told = reach.between(source, destination)
        assert all(told <= answer for answer in answers)
        if len(answers) == 1:
            assert told == answers[0], (source.name, destination.name)


@pytest.mark.parametrize("seed", range(40))
def test_renaming_permutes_the_answers_and_nothing_else(seed: int) -> None:
    """Other names for namespaces, pods and nodes: the same ports between the same places."""
    drawn = draw(f"names {seed}")
    text = repr((drawn.spaces, drawn.parties, drawn.policies))
    for old, new in (("one", "eins"), ("two", "zwei"), ("three", "drei"), ("pod-", "p-"), ("n0", "m0"), ("n1", "m1")):
        text = re.sub(rf"(?<=['/]){old}(?=['/\\d])", new, text)
    spaces, parties, policies = eval(text, {"Party": Party})
    renamed = Drawn(spaces, parties, policies)
    assert {p.name for p in parties}.isdisjoint({p.name for p in drawn.parties if p.kind != "outside"})
    assert table(renamed.world()) == table(drawn.world())
