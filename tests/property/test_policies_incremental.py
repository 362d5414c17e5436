"""A matrix after any changes is the matrix of what came of them, in its answers and in its cells."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from netsim.kube.objects import Meta, Resource
from netsim.packet.address import Family, ip
from netsim_policies import combine
from netsim_policies.algebra import ALL_PORTS, NO_PORTS
from netsim_policies.apis import apis
from netsim_policies.matrix import Matrix, Touched
from netsim_policies.model import Endpoint, EndpointKind, Policy, World
from tests.support.policy_clusters import SPACES, Drawn, draw, labels, pod, policy

EDITS = 8
CHANGES = ("policy", "policy", "policies", "pod", "pod leaves", "labels", "address", "node", "namespace")


def change(what: str, r: Random, drawn: Drawn, matrix: Matrix) -> Touched:
    """One random change of a matrix."""
    nodes = [p for p in drawn.parties if p.kind == "node"]
    pods = [e for e in matrix.endpoints if e is not None and e.kind is EndpointKind.POD]
    if what == "policy":  # comes, goes, or is another one under its name
        held = list(matrix.policies.values())
        removed = [r.choice(held)] if held and r.random() < 0.6 else []
        made: Policy = drawn.read(policy(r, r.randrange(100, 10_000)))
        added = [made] if not removed or r.random() < 0.7 else []
        taken = {(p.kind, p.namespace, p.name) for p in held} - {(p.kind, p.namespace, p.name) for p in removed}
        return matrix.update(removed, [p for p in added if (p.kind, p.namespace, p.name) not in taken])
    if what == "policies":  # some of them for as many others, words and all
        removed = [p for p in matrix.policies.values() if r.random() < 0.3]
        return matrix.update(removed, [drawn.read(policy(r, r.randrange(100, 110))) for _ in range(r.randint(0, 3))])
    if what == "node":  # other labels, one address more or less
        node = r.choice([e for e in matrix.endpoints if e is not None and e.kind is EndpointKind.NODE])
        more = (*node.addresses, ip(r.choice(("10.0.0.5", "203.0.113.77", "192.168.0.77", "2001:db8::77"))))
        chosen = labels(r)
        addresses = r.choice((node.addresses, more, node.addresses[:1]))
        return matrix.place(replace(node, labels=chosen, node_labels=chosen, addresses=addresses))
    if what == "pod" or not pods:
        party = pod(r, r.randint(3, 9), nodes)
        return matrix.place(replace(drawn.endpoint(party), namespace_labels=matrix.namespaces[party.space]))
    if what == "pod leaves":
        return matrix.remove(r.choice(pods))
    if what == "labels":
        return matrix.place(replace(r.choice(pods), labels=labels(r)))
    if what == "address":
        one, other = r.choice(pods), r.choice(pods)
        return matrix.place(replace(one, addresses=other.addresses, named_ports=other.named_ports))
    return matrix.relabel(space := r.choice(SPACES), {**labels(r), "kubernetes.io/metadata.name": space})


@pytest.mark.parametrize("seed", range(120))
def test_changes_in_place_equal_a_fresh_build(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "_PART", 0)  # however small the cluster: only what was touched is filled anew
    if seed % 2:
        monkeypatch.setattr(combine, "_EAGER", 2)  # and rows know only what was asked
    r, drawn = Random(f"edits {seed}"), draw(f"edits {seed}")
    matrix = Matrix(drawn.world(), Family.IPV6 if seed % 3 == 0 else Family.IPV4)
    cells = matrix.cells()
    asked = []
    for number in range(EDITS):
        asked.append(what := r.choice(CHANGES))
        cells = matrix.refresh(cells, change(what, r, drawn, matrix))
        assert np.array_equal(cells, matrix.cells()), f"seed {seed}, change {number}: {asked}"
        for s, d in itertools.product(range(len(cells)), repeat=2):
            assert matrix.port_sets[cells[s, d]] == matrix.class_ports(s, d), f"seed {seed}, change {number}: {asked}"
        if number % 3 == 2:
            check(matrix, f"seed {seed}, change {number}: {asked}")


def check(matrix: Matrix, context: str) -> None:
    fresh = Matrix(matrix.world, matrix.family)
    places = [i for i, e in enumerate(matrix.endpoints) if e is not None]
    for s, i in enumerate(places):
        for d, j in enumerate(places):
            assert matrix.ports(i, j) == fresh.ports(s, d), f"{context}: {matrix.endpoints[i]} -> {matrix.endpoints[j]}"


def test_a_change_touches_only_what_it_can_decide() -> None:
    """One namespace's policy leaves the rows of every other as they are, not merely equal."""
    drawn = draw(7)
    matrix = Matrix(drawn.world())
    matrix.cells()
    before = {d: dict(rows) for d, rows in matrix._row_of.items()}
    raw = {"kind": "NetworkPolicy", "metadata": {"name": "new", "namespace": "one"}, "spec": {"podSelector": {}}}
    touched = matrix.update(added=[drawn.read(raw)])
    assert not len(touched.sources), "it says nothing about egress"
    mine = {matrix.classes.label[c] for c in touched.destinations.tolist()}
    assert mine == set(matrix.labels.in_space("one").tolist())
    for direction, rows in before.items():
        for label, row in rows.items():
            kept = matrix._row_of[direction].get(label) is row
            assert kept != (direction == "Ingress" and label in mine)


def allowing(name: str, *cidrs: str) -> Policy:
    """In namespace one, only these blocks may come in."""
    spec = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]}]}
    meta = Meta(name=name, namespace="one")
    return apis()["NetworkPolicy"].read(Resource(kind="NetworkPolicy", metadata=meta, body={"spec": spec}))


def blocked(*endpoints: Endpoint) -> Matrix:
    """Who of these is in which of two blocks decides whether a pod can be reached."""
    spaces = {"one": {}, "two": {}}
    target = Endpoint(EndpointKind.POD, "one/target", namespace="one", labels={"app": "t"}, addresses=(ip("10.9.0.1"),))
    return Matrix(World((target, *endpoints), (allowing("some", "10.0.0.0/24", "10.1.0.0/24"),), spaces))


def pod_at(name: str, address: str) -> Endpoint:
    return Endpoint(EndpointKind.POD, f"two/{name}", namespace="two", addresses=(ip(address),))


def node_at(name: str, *addresses: str) -> Endpoint:
    return Endpoint(EndpointKind.NODE, name, node=name, addresses=tuple(ip(a) for a in addresses))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod_at("first", "10.0.0.1"), pod_at("second", "10.0.0.2")),
        (node_at("first", "10.0.0.1", "10.1.0.1"), node_at("second", "10.0.0.2", "10.1.0.2")),
    ],
    ids=["pods", "nodes with two addresses"],
)
@pytest.mark.parametrize("gone", [False, True], ids=["both there", "one gone before the other comes"])
def test_a_block_that_holds_one_of_two_who_were_alike(first: Endpoint, second: Endpoint, gone: bool) -> None:
    """Who is left is not taken for who was its class's example, nor who comes later for who went."""
    matrix = blocked(first) if gone else blocked(first, second)
    matrix.cells()
    if gone:
        matrix.remove(first)
    matrix.update(removed=[matrix.policies["NetworkPolicy", "one", "some"]], added=[allowing("one", "10.0.0.1/32")])
    if gone:
        matrix.place(second)
    assert matrix.ports(matrix.index(second), 0) == NO_PORTS
    if not gone:
        assert matrix.ports(1, 0) == ALL_PORTS
    check(matrix, "blocks")


def test_a_word_that_tells_nobody_apart_makes_no_class() -> None:
    """Pods that share it keep their class; those of one class that do not share it are split."""
    party = Endpoint(EndpointKind.POD, "", namespace="one", namespace_labels={"kubernetes.io/metadata.name": "one"})
    blue, green = {"app": "a", "color": "blue"}, {"app": "b", "color": "green"}
    pods = [
        replace(party, name=f"one/{i}", labels=blue if i < 3 else green, addresses=(ip(f"10.0.0.{i}"),))
        for i in range(6)
    ]
    drawn = draw("no policy at all")

    def selecting(name: str, key: str, value: str) -> Policy:
        spec = {"podSelector": {"matchLabels": {key: value}}}
        made: Policy = drawn.read(
            {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "one"}, "spec": spec}
        )
        return made

    matrix = Matrix(World(tuple(pods), (selecting("first", "app", "a"),), {"one": party.namespace_labels}))
    assert len(matrix.classes) == 2
    touched = matrix.update(added=[selecting("second", "color", "blue")])
    assert len(matrix.classes) == 2
    assert len(touched.destinations) == 1
    matrix.place(replace(pods[0], labels={**blue, "size": "xl"}))
    assert len(matrix.classes) == 2
    matrix.update(added=[selecting("third", "size", "xl")])
    assert matrix.classes.of.tolist() == [2, 0, 0, 1, 1, 1]


def test_new_classes_find_room_in_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "_PART", 0)
    drawn = draw("no policy at all")
    drawn.policies.clear()
    matrix = Matrix(drawn.world())
    cells = matrix.cells()
    rule = {"from": [{"ipBlock": {"cidr": "10.0.0.2/32"}}]}
    raw = {"kind": "NetworkPolicy", "metadata": {"name": "new", "namespace": "one"}}
    grown = matrix.refresh(cells, matrix.update(added=[drawn.read({**raw, "spec": {"ingress": [rule]}})]))
    assert len(grown) > len(cells)
    assert np.shares_memory(grown, cells)
    assert np.array_equal(grown, matrix.cells())


def test_an_endpoint_that_was_removed_has_no_answers() -> None:
    matrix = Matrix(draw(3).world())
    gone = matrix.endpoints[0]
    assert gone is not None
    matrix.remove(gone)
    with pytest.raises(IndexError, match="endpoint 0 was removed"):
        matrix.ports(0, 1)


@pytest.mark.parametrize("cidr", ["10.0.0.2/32", "10.0.0.3/32", "10.0.0.0/30", "192.168.0.1/32", "203.0.113.9/32"])
def test_a_new_block_is_known_to_hold_whom_it_holds(cidr: str) -> None:
    """Its first and its last address too; of pods, of nodes and of those outside."""
    drawn = draw("no policy at all")
    drawn.policies.clear()
    matrix = Matrix(drawn.world())
    cells = matrix.cells()
    rule = {"from": [{"ipBlock": {"cidr": cidr}}]}
    for number, space in enumerate(SPACES):
        spec = {"podSelector": {}, "ingress": [rule]}
        raw = {"kind": "NetworkPolicy", "metadata": {"name": f"p{number}", "namespace": space}, "spec": spec}
        cells = matrix.refresh(cells, matrix.update(added=[drawn.read(raw)]))
    assert np.array_equal(cells, matrix.cells())
    check(matrix, cidr)
