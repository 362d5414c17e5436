"""What a packet's way owes to one number alone: worked out once for each value of it, and looked up from then on.

Most of what a walk reads is about the sender's place, or about the endpoint that was drawn: ten routes and devices, one
found by the other, all of which follow from one number that packets have in common. The operations between such a *key* and
what others want to know of it are a *part*. A part's numbers are kept by key (``memo``): a line or two of memory instead of
the forty that they were found in.

    key ──▶ operations that know of nothing but the key, and their guards ──▶ kept numbers ──▶ the rest of the walk
        └────────────────────────── a row of the memo ──────────────────────┘

Which operations these are is read off the plan (``keys``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from netsim.compiled.trails.fold import PLAIN
from netsim.compiled.trails.keys import keys
from netsim.compiled.trails.memo import KEPT_AT, row_bytes
from netsim.compiled.trails.merge import WALK, Plan
from netsim.compiled.trails.symbols import Const, Op

WORTH = 3  # lines of memory that a part must spare
_CHEAP = 3  # operations that are done again rather than kept


class Part(NamedTuple):
    """``key`` and ``kept`` are operations, ``members`` too, in order; ``places``: of each kept number its offset and bytes
    in a row of ``size`` bytes."""

    key: int
    members: tuple[int, ...]
    kept: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    size: int


def parts(plan: Plan, line: Callable[[Op], Hashable]) -> list[Part]:
    """The parts of a walk. ``line`` names the line of memory that an operation reads, None if it costs nothing."""
    by_key: defaultdict[int, list[int]] = defaultdict(list)
    for number, key in enumerate(keys(plan.ops)):
        if key is not None and plan.phases[number] == WALK:
            by_key[key].append(number)
    found = []
    for key, members in by_key.items():
        spared = {line(plan.ops[number]) for number in members} - {None}
        if len(spared) >= WORTH:
            found.append(_part(plan, key, members))
    return found


def _part(plan: Plan, key: int, members: list[int]) -> Part:
    inside = set(members)
    others = (op for number, op in enumerate(plan.ops) if number not in inside)
    kept = {arg for op in others for arg in op.args if isinstance(arg, int) and arg in inside}
    for number in sorted(kept, reverse=True):  # what little makes from others need not be kept
        again = _again(plan, number, inside, kept - {number}, _CHEAP)
        if again is not None:
            kept.discard(number)
            inside -= again
    order = sorted(kept, key=lambda number: (plan.largest[number] >> 32 != 0, number))
    places, at = [], KEPT_AT
    for number in order:
        width = 8 if plan.largest[number] >> 32 else 4
        at = -(-at // width) * width
        places.append((at, width))
        at += width
    return Part(
        key, tuple(number for number in members if number in inside), tuple(order), tuple(places), row_bytes(at)
    )


def _again(plan: Plan, number: int, inside: set[int], kept: set[int], most: int) -> set[int] | None:
    """The operations that make a number from kept ones, if they are few; None if it is better kept."""
    op = plan.ops[number]
    if op.code not in PLAIN or most == 0:
        return None
    found = {number}
    for arg in op.args:
        if isinstance(arg, Const) or arg in kept or arg not in inside:
            continue
        more = _again(plan, arg, inside, kept, most - len(found))
        if more is None:
            return None
        found |= more
    return found if len(found) <= most else None
