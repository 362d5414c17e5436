"""Tables that grow from Python: rows and facts wait in lists."""

from __future__ import annotations

from random import Random

import numpy as np

from netsim.compiled.hashmap import MISSING, HashMap, spread
from netsim.compiled.rows import WAITING_MOST, Rows


def test_rows_are_those_that_were_added() -> None:
    rows, expected = Rows(np.dtype([("a", "u4"), ("b", "u4")])), []
    dice = Random(1)
    while len(expected) < 3 * WAITING_MOST:
        some = [(len(expected) + n, dice.randrange(99)) for n in range(dice.randrange(9))]
        assert rows.add(some) == len(expected)
        expected += some
        if dice.randrange(500) == 0:
            assert rows.array[: rows.used].tolist() == expected
    assert rows.array[: rows.used].tolist() == expected


def test_facts_are_those_that_were_told_last() -> None:
    facts, expected = HashMap(64), dict[tuple[int, int, int], int]()
    dice = Random(2)

    def key() -> tuple[int, int, int]:
        return dice.randint(1, 12), dice.randrange(1 << 24), dice.randrange(1 << 32) if dice.randrange(2) else 7

    drawn = [key() for _ in range(4 * WAITING_MOST)]
    for place, one in enumerate(drawn):
        facts.set(*one, place)
        expected[one] = place
        if dice.randrange(3) == 0:  # told again
            again = dice.choice(drawn[: place + 1])
            facts.set(*again, -2)
            expected[again] = -2
        if dice.randrange(2000) == 0:  # in bulk, what is known stays
            some = [*(key() for _ in range(50)), *dice.sample(drawn, min(place, 9))]
            keys = [kind << 56 | number << 32 | value for kind, number, value in some]
            facts.supply(np.array(keys, np.uint64), np.arange(len(some), dtype=np.int32))
            for at, each in enumerate(some):
                expected.setdefault(each, at)
    assert {one: facts.get(*one) for one in expected} == expected
    assert facts.get(13, 1, 1) == MISSING
    assert np.count_nonzero(facts.rows["key"]) == len(expected) <= len(facts.rows) // 2


def test_facts_of_one_kind_in_many_namespaces_are_found_at_once() -> None:
    """Keys that differ in their upper half alone must not all begin their search in the same few places."""
    facts = HashMap()
    for number in range(1, 20_001):
        facts.set(1, number, 3, number)
    rows = facts.rows
    used = np.flatnonzero(rows["key"])
    homes = getattr(spread, "py_func", spread)(rows["key"][used]) & np.uint64(len(rows) - 1)
    assert np.mean((used - homes.astype(np.int64)) % len(rows)) < 2
