"""(cluster, pair, port) questions put to three evaluators: the class matrix, the explaining evaluator and, one port at a
time and from the raw API objects, the naive one of ``tests.support.policy_clusters``.

100,000 questions by default. NETSIM_FUZZ_QUESTIONS asks for more (``make fuzz-policies``: 10,000,000), NETSIM_FUZZ_SEED
begins elsewhere.
"""

from __future__ import annotations

import json
import os
from random import Random

from netsim.packet.address import Family
from netsim_policies.evaluate import decide
from netsim_policies.explain import explain, to_json
from netsim_policies.matrix import Matrix
from netsim_policies.model import Direction
from tests.support.policy_clusters import PORTS, PROTOCOLS, draw, reaches, side

DEFAULT = 100_000
PAIRS, PROBES = 24, 8


def ask(seed: int) -> int:
    """One cluster; how many questions were asked of it."""
    drawn, r = draw(seed), Random(f"ask {seed}")
    world, family = drawn.world(), r.choice(tuple(Family))
    matrix = Matrix(world, family)
    count = 0
    for number in range(PAIRS):
        i, j = r.randrange(len(world.endpoints)), r.randrange(len(world.endpoints))
        a, b = drawn.parties[i], drawn.parties[j]
        fast = matrix.ports(i, j)
        told = decide(world, world.endpoints[i], world.endpoints[j], family)
        for _ in range(PROBES):
            protocol, port = r.choice(PROTOCOLS), r.choice(PORTS)
            naive = reaches(drawn, a, b, protocol, port, family.value)
            if not fast.holds(protocol, port) == told.allowed.holds(protocol, port) == naive:
                asked = f"seed {seed}, IPv{family.value}, {protocol}:{port}\n  {a}\n  {b}"
                answers = f"naive {naive}, matrix {fast}, evaluator {told.allowed}"
                raise AssertionError(f"{asked}\n{answers}\n{json.dumps(drawn.policies, indent=1)}")
            count += 1
        if number < 2:  # what explain reports, side by side
            document = to_json(explain(world, world.endpoints[i], world.endpoints[j], family))
            for direction, shown in zip((Direction.EGRESS, Direction.INGRESS), document["sides"], strict=True):
                opened = side(drawn, a, b, protocol, port, family.value, direction.value.lower())
                (deciding,) = [v for v in shown["verdicts"] if _holds(v["ports"], protocol, port)]
                assert deciding["allowed"] == opened, f"seed {seed}: explain's {direction} of {a.name} -> {b.name}"
    return count


def _holds(shown: list[dict[str, object]], protocol: str, port: int) -> bool:
    for item in shown:
        for text in item["ports"] if item["protocol"] == protocol else ():  # type: ignore[attr-defined]
            low, _, high = text.replace("*", "1-65535").partition("-")
            if int(low) <= port <= int(high or low):
                return True
    return False


def test_three_evaluators_agree() -> None:
    wanted = int(os.environ.get("NETSIM_FUZZ_QUESTIONS", DEFAULT))
    seed, asked = int(os.environ.get("NETSIM_FUZZ_SEED", "0")), 0
    while asked < wanted:
        asked += ask(seed)
        seed += 1
    print(f"{asked} questions of {seed} clusters, no disagreement")
    assert asked >= wanted >= DEFAULT
