"""A shared sequence is, to whoever looks at it, the tuple that it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.linux import shared as shared_module
from netsim.linux.shared import Index, Run, SequenceBuilder, SharedSequence, runs_of

RUNS = st.lists(st.lists(st.integers(0, 3), max_size=6).map(tuple).flatmap(
    lambda items: st.tuples(st.just(items), st.sets(st.sampled_from(range(len(items)))) if items else st.just(set()))
), max_size=4)  # fmt: skip


def spelt(runs: list[tuple[tuple[int, ...], set[int]]]) -> tuple[int, ...]:
    return tuple(item for items, without in runs for place, item in enumerate(items) if place not in without)


def shared(runs: list[tuple[tuple[int, ...], set[int]]]) -> SharedSequence[int]:
    return SharedSequence(Run(items, tuple(sorted(without))) for items, without in runs)


@given(RUNS)
def test_it_reads_like_its_tuple(runs: list[tuple[tuple[int, ...], set[int]]]) -> None:
    held, plain = shared(runs), spelt(runs)
    assert tuple(held) == plain
    assert len(held) == len(plain)
    assert held == plain
    assert plain == held
    assert hash(held) == hash(plain)
    assert repr(held) == repr(plain)
    assert tuple(reversed(held)) == plain[::-1]
    assert [held[n] for n in range(-len(plain), len(plain))] == [plain[n] for n in range(-len(plain), len(plain))]
    assert held[1:3] == plain[1:3]
    assert held[::-2] == plain[::-2]
    for beyond in (len(plain), -len(plain) - 1):
        try:
            held[beyond]
        except IndexError:
            continue
        raise AssertionError(beyond)


@given(RUNS, RUNS)
def test_equality_is_that_of_the_tuples(one: list[tuple[tuple[int, ...], set[int]]], other) -> None:  # type: ignore[no-untyped-def]
    assert (shared(one) == shared(other)) == (spelt(one) == spelt(other))
    assert (shared(one) == spelt(other)) == (spelt(one) == spelt(other))
    assert shared(one) != list(spelt(one))


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 3), max_size=4).map(tuple)), max_size=5))
def test_the_builder_keeps_the_order(parts: list[tuple[bool, tuple[int, ...]]]) -> None:
    builder: SequenceBuilder[int] = SequenceBuilder()
    plain: list[int] = []
    for share, items in parts:
        if share:
            builder.share(items, [0] if items else [])
            plain += items[1:]
        else:
            builder += items
            plain += items
    assert list(builder) == plain
    assert len(builder) == len(plain)
    built = builder.build()
    assert built == tuple(plain)
    assert isinstance(built, tuple) or any(share for share, _ in parts)
    kept = {id(run.items) for run in runs_of(built)}
    assert all(id(items) in kept for share, items in parts if share and len(items) > 1)


def parity(number: int) -> int:
    return number % 2


@given(RUNS, st.sampled_from((1, 4, 100)))
def test_an_index_finds_what_a_search_finds(runs: list[tuple[tuple[int, ...], set[int]]], remembered: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_module, "_INDEXED_FROM", remembered)
        for held in (shared(runs), spelt(runs)):
            index = Index(held, parity)
            for wanted in (0, 1, 2):
                assert index.get(wanted) == [item for item in spelt(runs) if item % 2 == wanted]
