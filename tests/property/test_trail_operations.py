"""Operations recorded on symbols: what the machine code computes is what the recording says, and what NumPy says."""

from __future__ import annotations

import warnings
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.along import follow
from netsim.compiled.engine_tables import Results, results
from netsim.compiled.jit import kernel
from netsim.compiled.ref import reference
from netsim.compiled.trails.merge import merge
from netsim.compiled.trails.symbols import I, Op, Recording, select
from netsim.compiled.trails.tables import Members

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="there is no machine code without a compiler")

PACKETS = 32
_WORDS = st.lists(
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 2**31, 2**32 - 1))), min_size=PACKETS, max_size=PACKETS
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("+", "-", "*", "&", "|", "^", "<<", ">>", "//", "%", "==", "<", "<=", "select", "~", "bit")),
        st.integers(0, 30), st.integers(0, 30), st.integers(0, 33),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


def computed(values: list[Any], steps: list[tuple[str, int, int, int]], choose: Any) -> list[Any]:
    """All numbers are uint64. The same text for symbols and for NumPy's numbers."""
    word = np.uint64
    for sign, one, other, amount in steps:
        a, b = values[one % len(values)], values[other % len(values)]
        made: Any = a
        if sign == "+":
            made = a + b
        elif sign == "-":
            made = a - b
        elif sign == "*":
            made = a * b
        elif sign == "&":
            made = a & b
        elif sign == "|":
            made = a | b
        elif sign == "^":
            made = a ^ b
        elif sign == "<<":
            made = a << word(amount)
        elif sign == ">>":
            made = a >> word(amount)
        elif sign == "//":
            made = a // word(amount + 1)
        elif sign == "%":
            made = a % word(amount + 1)
        elif sign == "==":
            made = choose(a == b, word(1), word(0))
        elif sign == "<":
            made = choose(a < b, word(1), word(0))
        elif sign == "<=":
            made = choose(a <= b, word(7), a)
        elif sign == "select":
            made = choose(a & word(1) != word(0), a, b)
        elif sign == "~":
            made = ~a
        elif sign == "bit":
            made = (a >> word(amount)) & word(1)
        values = [*values, made]
    return values


@kernel
def call(address: Any, e: Any, b: Any, o: Any, room: Any, takes: Any, count: Any) -> Any:
    return follow(address, e, b, o, room, takes, 0, count, 0, 0, 0)


@settings(max_examples=25, deadline=None)
@given(_WORDS, _WORDS, _STEPS)
def test_machine_code_computes_what_numpy_does(
    one: list[int], other: list[int], steps: list[tuple[str, int, int, int]]
) -> None:
    from netsim.compiled.trails.emit import compiled

    into = results(PACKETS)
    given_columns = Results(*[np.zeros(PACKETS, column.dtype) for column in into])
    given_columns.src[:], given_columns.dst[:] = one, other
    recordings = []
    for at in (0, 1):
        made = Recording()
        i = made.symbol(Op("input", (), "i"), at, I, 40)
        b, o = Members(made, "b", given_columns), Members(made, "o", into)
        columns = [b.src[i].cast("U"), b.dst[i].cast("U")]
        values = computed(columns, steps, select)
        o.rules[i] = values[-1]
        recordings.append(made)
    trail = compiled(merge(recordings, []), (), given_columns, into)
    takes = np.ones(PACKETS, np.uint8)
    empty = reference(results(0))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        done = call(
            trail.address,
            empty,
            reference(given_columns),
            reference(into),
            np.zeros(trail.room, np.int64),
            takes,
            PACKETS,
        )
        assert done == PACKETS
        for at in range(PACKETS):
            expected = computed([np.uint64(one[at]), np.uint64(other[at])], steps, lambda c, x, y: x if c else y)[-1]
            assert int(into.rules[at]) == int(expected) & 0xFFFFFFFF, (at, steps)
