"""The class matrix against its twin, the evaluator that explains, over random worlds of every API."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.packet.address import Family
from netsim_policies.algebra import ALL_PORTS, NO_PORTS
from netsim_policies.evaluate import decide, exemption
from netsim_policies.matrix import Matrix
from netsim_policies.model import Direction, World
from tests.support.policy_worlds import policies, worlds

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


@settings(max_examples=40, deadline=None)
@given(worlds(), families)
def test_cells_agree_with_class_ports(world: World, family: Family) -> None:
    matrix = Matrix(world, family)
    cells = matrix.cells()
    for s in range(len(matrix.classes)):
        for d in range(len(matrix.classes)):
            assert matrix.port_sets[cells[s, d]] == matrix.class_ports(s, d)


@settings(max_examples=80, deadline=None)
@given(worlds(), policies(2), st.data())
def test_an_update_equals_a_fresh_build(world: World, changed: object, data: st.DataObject) -> None:
    matrix = Matrix(world)
    for s in range(len(world.endpoints)):
        matrix.ports(s, 0)
    old = [p for p in world.policies if (p.kind, p.name) == (changed.kind, changed.name)]  # type: ignore[attr-defined]
    matrix.update(old, [changed])  # type: ignore[list-item]
    fresh = Matrix(matrix.world)
    for s in range(len(world.endpoints)):
        for d in range(len(world.endpoints)):
            assert matrix.ports(s, d) == fresh.ports(s, d)


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
