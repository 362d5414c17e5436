"""Random rulesets, routes, sysctls and packets: the interpreter's story of a router next to the real kernel's.

What once failed is kept in ``fuzz_examples/`` and runs first. ``make fuzz-lab`` is the long run of the same (``fuzz_run``).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.differential.fuzz_cases import Case, cases
from tests.differential.fuzz_compare import Disagreement, Live, check, compare, shrink
from tests.differential.fuzz_files import Example, examples, keep
from tests.differential.fuzz_lab import Lab, lab

pytestmark = pytest.mark.kernel

EXAMPLES, LEAST = 160, 3000  # cases drawn, packets to be compared at the least
KEPT = list(examples())


@pytest.fixture(scope="module")
def real() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.mark.parametrize("example", KEPT, ids=lambda one: one.name)
def test_what_once_failed_agrees(real: Lab, example: Example) -> None:
    """And what is known to disagree still does: one that agrees by now must lose its "known" in the file."""
    if not example.known:
        compare(real, example.case)
        return
    with pytest.raises(Disagreement):
        check(example.case, Live(real, example.case))


def test_interpreter_tells_what_the_kernel_does(real: Lab) -> None:
    compared = 0

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases())
    def draw(case: Case) -> None:
        nonlocal compared
        try:
            compared += compare(real, case)
        except Disagreement as difference:
            least = shrink(real, difference)
            kept = keep(least.case, str(least).partition("\n")[0])
            raise AssertionError(f"{least}\n  kept as {kept.name}: it runs first from now on") from None

    draw()
    print(f"{compared} packets compared over {EXAMPLES} rulesets")
    assert compared >= LEAST
