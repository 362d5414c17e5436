"""The class matrix against its twin, the evaluator that explains, over random worlds of every API."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.packet.address import Family
from netsim_policies import combine, reach
from netsim_policies.algebra import ALL_PORTS, NO_PORTS
from netsim_policies.classes import Ids
from netsim_policies.evaluate import decide, exemption
from netsim_policies.matrix import Matrix
from netsim_policies.model import NETWORK_POLICY, Action, Direction, Rule, Tier, World
from netsim_policies.rows import refine, refine_all, zones
from tests.support.policy_clusters import draw
from tests.support.policy_worlds import worlds

families = st.sampled_from(Family)


@settings(max_examples=150, deadline=None)
@given(worlds(), families)
def test_the_matrix_agrees_with_the_evaluator(world: World, family: Family) -> None:
    matrix = Matrix(world, family)
    for s, source in enumerate(world.endpoints):
        for d, destination in enumerate(world.endpoints):
            assert matrix.ports(s, d) == decide(world, source, destination, family).allowed, (
                source.name,
                destination.name,
            )


@settings(max_examples=60, deadline=None)
@given(worlds(), families, st.sampled_from(Action), st.sampled_from(Action))
def test_tiers_of_other_apis_are_walked_alike(world: World, family: Family, first: Action, last: Action) -> None:
    """Tiers that end with a denial for who is selected, and rules that only log, as Calico's."""
    ends = {a: Action.DENY if a is Action.DENY else Action.PASS for a in Action}
    log = Rule(Action.LOG, None, None, "spec.ingress[0]")
    policies = tuple(replace(p, ingress=(log, *p.ingress), egress=(*p.egress, log)) for p in world.policies)
    tiers = (Tier("Admin", 0, ends[first]), NETWORK_POLICY, Tier("Baseline", 9, ends[last]))
    other = replace(world, policies=policies, tiers=tiers)
    matrix = Matrix(other, family)
    for (s, source), (d, destination) in itertools.product(enumerate(other.endpoints), repeat=2):
        assert matrix.ports(s, d) == decide(other, source, destination, family).allowed


@settings(max_examples=40, deadline=None)
@given(worlds(), families)
def test_cells_agree_with_class_ports(world: World, family: Family) -> None:
    matrix = Matrix(world, family)
    cells = matrix.cells()
    for s in range(len(matrix.classes)):
        for d in range(len(matrix.classes)):
            assert matrix.port_sets[cells[s, d]] == matrix.class_ports(s, d)


@pytest.mark.parametrize("narrow", ["_PAIRS", "_NARROW", "_EAGER", "_CELLS"])
@pytest.mark.parametrize("seed", range(12))
def test_cells_do_not_depend_on_the_sizes_of_the_tables(
    narrow: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that overflow at once: of pairs, of port sets in two bytes, of cells worked out beforehand, of lines."""
    monkeypatch.setattr(combine, narrow, 4 if narrow == "_PAIRS" else 2)
    matrix = Matrix(draw(seed).world())
    cells = matrix.cells()
    for s, d in itertools.product(range(len(matrix.classes)), repeat=2):
        assert matrix.port_sets[cells[s, d]] == matrix.class_ports(s, d)
    pieces = [(first, lines.copy()) for first, lines in matrix.blocks(size=4 * len(cells) * 3)]
    assert [first for first, _ in pieces] == [*range(0, len(cells), 3)]
    assert np.array_equal(np.concatenate([lines for _, lines in pieces]), cells)


def test_a_matrix_too_large_for_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "MOST_BYTES", 1)
    with pytest.raises(MemoryError, match="take the matrix in blocks"):
        Matrix(draw(1).world()).cells()


@pytest.mark.parametrize("seed", range(10))
def test_reachability_looked_up_and_spelled_out_are_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = draw(seed).world()
    found = []
    for many in (0, 1 << 60):
        monkeypatch.setattr(reach, "_MANY", many)
        asked = reach.Reachability(replace(world, endpoints=tuple(e for e in world.endpoints if e.outside is None)))
        found.append((list(asked.edges()), [asked.exposure(g) for g in asked.groups]))
        assert (asked._cells is None) == (many > 0)
    assert found[0] == found[1]


postings = st.lists(st.sets(st.integers(0, 9)).map(lambda s: np.array(sorted(s), np.int32)), max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(postings, max_size=4))
def test_the_kernel_refines_as_its_twin(rows: list[list[Ids]]) -> None:
    for lists, found in zip(rows, refine_all(rows, 10), strict=True):
        for mine, twin in zip(found, refine(lists), strict=True):
            assert list(mine) == list(twin)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 3), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda t: (t[0], t[0] + t[1])))
    )
)
def test_zones_tell_which_rules_hold_an_address(blocks: dict[int, list[tuple[int, int]]]) -> None:
    cuts, numbers, members = zones(blocks)
    for address in range(45):
        held = tuple(place for place in sorted(blocks) if any(low <= address <= high for low, high in blocks[place]))
        assert members[numbers[bisect_right(cuts, address)]] == held


@settings(max_examples=80, deadline=None)
@given(worlds(), families)
def test_verdicts_partition_all_ports(world: World, family: Family) -> None:
    for source in world.endpoints[:4]:
        for destination in world.endpoints:
            decision = decide(world, source, destination, family)
            for direction in Direction:
                seen = NO_PORTS
                for verdict in decision.side(direction):
                    assert not seen & verdict.ports
                    seen |= verdict.ports
                assert seen == ALL_PORTS
                if exemption(source, destination, direction):
                    assert len(decision.side(direction)) == 1
