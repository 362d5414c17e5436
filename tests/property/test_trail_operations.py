"""Operations recorded on symbols: what the machine code computes is what the recording says, and what NumPy says."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.compiled.along import follow
from netsim.compiled.counter_table import TOGETHER, counted, counters, ungroup
from netsim.compiled.engine_tables import Results, results
from netsim.compiled.jit import kernel
from netsim.compiled.ref import reference
from netsim.compiled.trails import memo, parts, schedule
from netsim.compiled.trails.merge import COMMIT, WALK, Plan, merge
from netsim.compiled.trails.symbols import Abort, Const, I, Op, Recording, select
from netsim.compiled.trails.tables import Members

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="there is no machine code without a compiler")

PACKETS = 32
_WORDS = st.lists(
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 2**31, 2**32 - 1))), min_size=PACKETS, max_size=PACKETS
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("+", "-", "*", "&", "|", "^", "<<", ">>", "//", "%", "==", "<", "<=", "select", "~", "bit", "load", "load")
        ),
        st.integers(0, 30), st.integers(0, 30), st.integers(0, 33),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


class Tables(NamedTuple):
    words: Any


ROWS = 64


def computed(values: list[Any], steps: list[tuple[str, int, int, int]], choose: Any, load: Callable[[Any], Any]) -> Any:
    """All numbers are uint64. The same text for symbols and for NumPy's numbers."""
    word = np.uint64
    row = load(values[0] % word(ROWS))
    values = [*values, row, load(row % word(ROWS)), load(values[1] % word(ROWS)) + row]
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
        elif sign == "load":
            made = load((a ^ word(amount)) % word(ROWS))
        values = [*values, made]
    total = values[0]
    for value in values[1:]:
        total = total * word(31) ^ value
    return total


@kernel
def call(address: Any, e: Any, b: Any, o: Any, room: Any, takes: Any, count: Any, begin: Any) -> Any:
    return follow(address, e, b, o, room, takes, 0, count, 0, 0, begin)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_WORDS, _WORDS, _STEPS, st.integers(0, 2**32))
@pytest.mark.parametrize("remembering", [False, True])
def test_machine_code_computes_what_numpy_does(
    monkeypatch: pytest.MonkeyPatch,
    remembering: bool,
    one: list[int],
    other: list[int],
    steps: list[tuple[str, int, int, int]],
    seed: int,
) -> None:
    """``remembering``: as much as possible of what one number decides is worked out once (``parts``), in a memo of a few
    rows that is soon full; the second and third time it is looked up."""
    from netsim.compiled.trails.emit import compiled

    if remembering:
        monkeypatch.setattr(schedule, "_SMALL", 0)
        monkeypatch.setattr(schedule, "_FEW", 0)
        monkeypatch.setattr(parts, "WORTH", 1)
        monkeypatch.setattr(memo, "_FIRST", 4)
    words = np.random.default_rng(seed).integers(0, 2**64, ROWS, np.uint64)
    words[::2] >>= np.uint64(32)
    words[::3] %= np.uint64(ROWS)
    into = results(PACKETS)
    given_columns = Results(*[np.zeros(PACKETS, column.dtype) for column in into])
    given_columns.src[:], given_columns.dst[:] = one, other
    given_columns.src[::5] = one[0]
    engine = Tables(words)
    recordings = []
    for at in (0, 1):
        made = Recording()
        i = made.symbol(Op("input", (), "i"), at, I, 40)
        e, b, o = (Members(made, name, held) for name, held in zip("ebo", (engine, given_columns, into)))
        columns = [b.src[i].cast("U"), b.dst[i].cast("U")]
        total = computed(columns, steps, select, lambda row, table=e.words: table[row])
        o.rules[i] = total
        recordings.append(made)
    try:
        plan = merge(recordings, [])
    except Abort:
        return  # the two have nothing in common
    trail = compiled(plan, engine, given_columns, into)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = [
            int(
                computed(
                    [np.uint64(x), np.uint64(y)], steps, lambda c, a, b: a if c else b, lambda row: words[int(row)]
                )
            )
            & 0xFFFFFFFF
            for x, y in zip(given_columns.src.tolist(), given_columns.dst.tolist())
        ]
    refs = reference(engine), reference(given_columns), reference(into)
    for _ in range(3):
        into.rules[:] = 0
        takes, room, begin = np.ones(PACKETS, np.uint8), np.zeros(trail.room, np.int64), 0
        left = set()
        while begin < PACKETS:
            end = call(trail.address, *refs, room, takes, PACKETS, begin)
            left |= {end} - {PACKETS}
            begin = end + 1
        assert left == set(np.flatnonzero(takes == 0).tolist())
        assert not left & {0, 1}
        assert [int(into.rules[at]) for at in range(PACKETS) if at not in left] == [
            expected[at] for at in range(PACKETS) if at not in left
        ]
        trail.memo.grow()


class Counted(NamedTuple):
    rows: Any


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)),
        min_size=PACKETS,
        max_size=PACKETS,
    )
)
def test_rules_that_are_counted_together(packets: list[tuple[int, int, int, int]]) -> None:
    """Of three rules each, of which the last mostly, but not always, has the same two before it."""
    from netsim.compiled.trails.emit import compiled

    columns = Results(*[np.zeros(PACKETS, column.dtype) for column in results(PACKETS)])
    for number, name in enumerate(("src", "dst", "rules", "flow")):
        getattr(columns, name)[:] = [packet[number] for packet in packets]
    table = 7
    places = [(f"b.{name}", 4, 0, 4, False) for name in ("src", "dst", "rules", "flow")]
    loads = [Op("load", (0,), place) for place in places]
    count = Op("count", (5, 2, Const(1), Const(44), 3, 4), ("e.rows", 32, TOGETHER))
    ops = [Op("input", (), "i"), *loads, Op("or", (1, Const(table << 24))), count]
    plan = Plan(ops, [PACKETS] * 7, [9] * 7, [WALK] * 6 + [COMMIT])
    held = counters(128)
    trail = compiled(plan, Counted(held.rows), columns, columns)
    refs = reference(Counted(held.rows)), reference(columns), reference(columns)
    takes, room = np.ones(PACKETS, np.uint8), np.zeros(trail.room, np.int64)
    assert call(trail.address, *refs, room, takes, PACKETS, 0) == PACKETS
    expected: Counter[tuple[int, int, int]] = Counter()
    for namespace, *rules in packets:
        expected.update((namespace, table, rule) for rule in rules)
    for again in (False, True):  # all together, and one by one
        found: Counter[tuple[int, int, int]] = Counter()
        for namespace, its_table, rule, times, volume in counted(held, ()):
            assert volume == 44 * times
            found[namespace, its_table, rule] += times
        assert found == expected
        if not again:
            for namespace in (1, 2, 3):
                held = ungroup(held, namespace, ())
            assert not ((held.rows["packets"] > 0) & (held.rows["key"] >> np.uint64(56) >= TOGETHER)).any()
