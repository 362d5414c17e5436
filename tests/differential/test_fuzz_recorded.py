"""The recorded answers of a real kernel to random cases, and what the cases are drawn from. Needs no privileges."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from netsim.linux.netfilter import registry
from netsim.packet.address import Family
from tests.differential.fuzz_cases import case_from_json, case_to_json, random_case, smaller
from tests.differential.fuzz_compare import Disagreement, Recorded, check
from tests.differential.fuzz_files import RECORDED, examples, read_recording
from tests.differential.fuzz_matches import MATCHES
from tests.differential.fuzz_rules import NOT_HERE, TARGETS, random_ruleset
from tests.differential.fuzz_world import PLANS

FILES = sorted(RECORDED.glob("fuzz-*.json.gz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_interpreter_tells_what_a_kernel_once_did(path: Path) -> None:
    versions, recorded = read_recording(path)
    packets = 0
    sent = sum(len(held["answers"]) for held in recorded)
    for number, held in enumerate(recorded):
        kernel = Recorded(iter(held["answers"]), held["connections"], held["counters"])
        try:
            packets += check(case_from_json(held["case"]), kernel)
        except Disagreement as difference:
            raise AssertionError(f"case {number}, {versions['kernel']}: {difference}") from None
    assert packets == sent


def test_there_are_recordings_of_both_families_and_of_all_examples() -> None:
    assert [path.name for path in FILES] == ["fuzz-examples.json.gz", "fuzz-ipv4.json.gz", "fuzz-ipv6.json.gz"]
    _, recorded = read_recording(FILES[0])
    kept = [case_to_json(example.case) for example in examples() if not example.known]
    assert [held["case"] for held in recorded] == kept, "python -m tests.differential.fuzz_run --record"


def test_a_recording_that_says_otherwise_is_noticed() -> None:
    _, recorded = read_recording(FILES[1])
    held = recorded[0]
    changed = next(one for one in recorded if any("ttl=63" in line for lines in one["answers"] for line in lines))
    answers = [[line.replace("ttl=63", "ttl=62") for line in lines] for lines in changed["answers"]]
    with pytest.raises(Disagreement):
        check(case_from_json(changed["case"]), Recorded(iter(answers), changed["connections"], changed["counters"]))
    entries = [*held["connections"], "udp 17 src=10.0.0.1"]
    with pytest.raises(Disagreement, match="connections"):
        check(case_from_json(held["case"]), Recorded(iter(held["answers"]), entries, held["counters"]))


@pytest.mark.parametrize("family", Family)
def test_a_case_survives_being_written_down(family: Family) -> None:
    for seed in range(20):
        case = random_case(Random(seed), family, packets=8)
        assert case_from_json(case_to_json(case)) == case


def test_smaller_cases_lack_something() -> None:
    case = random_case(Random(3), Family.IPV4, packets=6)
    size = len(str(case_to_json(case)))
    assert all(len(str(case_to_json(less))) < size for less in smaller(case))


def test_every_registered_member_is_drawn() -> None:
    """A new match or target needs a line in ``MATCHES`` or ``TARGETS``, and must then turn up in rules."""
    drawn: set[str] = set()
    for seed in range(150):
        for family, plan in PLANS.items():
            ruleset = random_ruleset(Random(f"{seed}/{family}"), plan, sets=True)
            for table in ruleset.tables.values():
                for chain in table.chains.values():
                    for rule in chain.rules:
                        drawn |= {f"match {match.name}" for match in rule.matches}
                        drawn |= {f"target {rule.target.name}"} if rule.target is not None else set()
    wanted = {f"match {one.name}" for one in registry.all_matches()} | {
        f"target {t.name}" for t in registry.all_targets()
    }
    assert {f"match {name}" for name in MATCHES} | {f"target {name}" for name in TARGETS} == wanted - set(NOT_HERE)
    assert drawn == wanted - set(NOT_HERE)
