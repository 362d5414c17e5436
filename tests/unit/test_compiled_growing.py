"""Tables that grow from Python: rows and facts wait in lists, counters move to larger tables."""

from __future__ import annotations

from random import Random

import numpy as np

from netsim.compiled.addresses import Addresses
from netsim.compiled.hashmap import HashMap, get
from netsim.compiled.rows import WAITING_MOST, Rows
from netsim.datapath.store import FlowStore


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
    facts, expected = HashMap(64), dict[int, int]()
    dice = Random(2)

    def key() -> tuple[int, int, int]:
        return dice.randint(1, 12), dice.randrange(1 << 24), dice.randrange(1 << 32) if dice.randrange(2) else 7

    def number(one: tuple[int, int, int]) -> int:
        return one[0] << 56 | one[1] << 32 | one[2]

    drawn = [key() for _ in range(4 * WAITING_MOST)]
    for place, one in enumerate(drawn):
        facts.set(*one, place)
        expected[number(one)] = place
        if dice.randrange(3) == 0:  # told again
            again = dice.choice(drawn[: place + 1])
            facts.set(*again, -2)
            expected[number(again)] = -2
        if dice.randrange(2000) == 0:  # in bulk, what is known stays
            some = [*(key() for _ in range(50)), *dice.sample(drawn, min(place, 9))]
            facts.supply(np.array(list(map(number, some)), np.uint64), np.arange(len(some), dtype=np.int32))
            for at, each in enumerate(some):
                expected.setdefault(number(each), at)
    held = {one: int(get(facts.keys, facts.values, np.uint64(one))) for one in expected}
    assert held == expected
    assert facts.known(*drawn[0])
    assert not facts.known(13, 1, 1)
    assert np.count_nonzero(facts.keys) == len(expected) <= len(facts.keys) // 2


def test_counters_keep_what_they_count_when_they_grow() -> None:
    store = FlowStore(64, Addresses())
    keys, rows, used = store.counters
    expected = {}
    for n in range(1, len(keys) // 2):
        key = n * 0x9E3779B1 % (1 << 40)
        at = (key * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 20 & len(keys) - 1
        while keys[at]:
            at = at + 1 & len(keys) - 1
        keys[at], rows[at] = key, (n, 2 * n)
        expected[key] = [n, 2 * n]
    used[0] = len(expected)
    store.grow_counters()
    found, counts, kept = store.counters
    assert len(found) == 2 * len(keys)
    assert int(kept[0]) == len(expected)
    for key, count in expected.items():
        at = (key * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 20 & len(found) - 1
        while found[at] not in (0, key):
            at = at + 1 & len(found) - 1
        assert counts[at].tolist() == count
