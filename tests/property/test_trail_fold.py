"""Operations made simpler: what ``Folder.plain`` answers is what the operation gives, and not for the samples alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.trails.fold import PLAIN, Folder
from netsim.compiled.trails.keys import keys
from netsim.compiled.trails.symbols import Const, Op, compute

_WIDTHS = (8, 1, 4, 2, 2)  # bytes of what is loaded
_MASKS = st.sampled_from((0, 1, 0xFF, 0xFFFF, 0xFFFF0000, 0xFF00, 0xFFFFFFFF, 0xFFFFFFFFFF, (1 << 64) - 1))
_COUNTS = st.sampled_from((0, 8, 16, 24, 32, 48, 63))
_BACK = st.one_of(st.integers(1, 3), st.integers(1, 40))  # operands: rather what has just been made
_FIELDS = st.one_of(
    st.tuples(st.just("and"), _BACK, _MASKS.map(Const)),
    st.tuples(st.sampled_from(("shl", "lshr")), _BACK, _COUNTS.map(Const)),
    st.tuples(st.just("or"), _BACK, _BACK),
)
_OTHERS = st.one_of(
    st.tuples(st.just("ashr"), _BACK, _COUNTS.map(Const)),
    st.tuples(st.sampled_from(("or", "xor", "add", "mul")), _BACK, _MASKS.map(Const)),
    st.tuples(st.sampled_from(sorted(PLAIN - {"shl", "lshr", "ashr", "udiv", "urem"})), _BACK, _BACK),
)
_STEPS = st.lists(st.one_of(_FIELDS, _FIELDS, _FIELDS, _OTHERS), min_size=15, max_size=40)


def _numbers(width: int) -> st.SearchStrategy[int]:
    most = (1 << 8 * width) - 1
    return st.one_of(st.integers(0, most), st.sampled_from((0, 1, most)))


_PACKETS = st.tuples(*[_numbers(width) for width in _WIDTHS])


def _evaluated(ops: list[Op], packet: tuple[int, ...]) -> list[int]:
    words: list[int] = []
    for op in ops:
        if op.code == "load":
            words.append(packet[len(words)])
        else:
            words.append(compute(op.code, *(arg.word if isinstance(arg, Const) else words[arg] for arg in op.args)))
    return words


@settings(max_examples=300)
@given(st.lists(_PACKETS, min_size=1, max_size=3), _STEPS, st.lists(_PACKETS, min_size=1, max_size=4))
def test_what_is_simpler_gives_the_same(
    samples: list[tuple[int, ...]], steps: list[tuple[str, int, Any]], others: list[tuple[int, ...]]
) -> None:
    folder = Folder(len(samples))
    made: list[Any] = [
        folder.emit(Op("load", (), (f"b.{place}", width, 0, width, False)), [one[place] for one in samples])
        for place, width in enumerate(_WIDTHS)
    ]
    plain = [Op("load", ())] * len(_WIDTHS)
    for code, one, other in steps:
        first = -one % len(plain)
        second = other if isinstance(other, Const) else -other % len(plain)
        plain.append(Op(code, (first, second)))
        made.append(folder.plain(code, made[first], second if isinstance(second, Const) else made[second]))
    for packet in [*samples, *others]:
        expected, found = _evaluated(plain, packet), _evaluated(folder.ops, packet)
        for number, folded in enumerate(made):
            assert expected[number] == (folded.word if isinstance(folded, Const) else found[folded]), (number, steps)
            assert isinstance(folded, Const) or not found[folded] & ~folder.bits(folded)
    for number, words in enumerate(folder.words):
        assert list(words) == [_evaluated(folder.ops, packet)[number] for packet in samples]


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=1, max_size=14))
def test_a_key_is_what_all_ways_lead_through(arguments: list[list[int]]) -> None:
    """Held to what it means: without the key, nothing leads from the packet to the operation."""
    ops = [Op("input", (), "i")]
    for given_ in arguments:
        args = tuple(sorted({one % len(ops) for one in given_}))
        ops.append(Op("probe", args) if args else Op("load", (0,), ("b.src", 4, 0, 4, False)))

    def reached(without: int | None) -> set[int]:
        found: set[int] = set()
        for number, op in enumerate(ops):
            if number != without and (op.code == "input" or any(arg in found for arg in op.args)):
                found.add(number)
        return found

    for number, key in enumerate(keys(ops)):
        cuts = [one for one in range(1, number) if number not in reached(one)]
        assert key == (cuts[0] if cuts else None), (number, ops)
