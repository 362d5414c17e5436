"""From recordings of the same kind of packet to what has to be done for every one: a *plan*.

What was loaded from a table of the cluster and was the same for all samples is taken to be so for every packet of the kind,
and guarded; whatever follows from it is known beforehand. What nobody asks for is left out. The rest is in three phases:

    walk     reads tables that packets do not change: many packets at once, in any order
    check    reads flows and counters: packet by packet, in order, before anything of it is written
    commit   writes
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from netsim.compiled.counter_table import GROUPED, TOGETHER
from netsim.compiled.trails.fold import PLAIN, Folder
from netsim.compiled.trails.keys import keys
from netsim.compiled.trails.symbols import Abort, Const, Op, Recording
from netsim.compiled.trails.tables import CHANGING

Guard = Callable[[Any, bool], None]
WALK, CHECK, COMMIT = range(3)
EFFECTS = ("store", "insert", "count")
ASKS = ("absent", "lacks")  # guards that look into flows
_NOTHING = Op("and", (Const(0), Const(0)))  # in place of an operation that is not needed: it gives 0


@dataclass
class Plan:
    """Operations whose arguments are numbers of earlier ones. Of each: its phase, how many different words it gave for the
    samples, and the largest of them."""

    ops: list[Op] = field(default_factory=list)
    variety: list[int] = field(default_factory=list)
    largest: list[int] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)


def merge(samples: Sequence[Recording], groups: list[tuple[tuple[int, int], ...]]) -> Plan:
    """Abort if what has to be asked would come after the first thing that is written. ``groups`` of rules that are counted
    together (table and number of each) are added to."""
    made = _folded(samples, groups)
    plan = _needed(made.ops, made.words)
    _set_phases(plan)
    return plan


def _folded(samples: Sequence[Recording], groups: list[tuple[tuple[int, int], ...]]) -> Folder:
    made = Folder(len(samples))
    ops = made.ops
    together: dict[Any, tuple[int, list[tuple[int, int]]]] = {}  # counts by namespace and what is added
    now: list[Any] = []  # of each recorded operation: its number among ``ops``, or a Const
    learned: dict[int, Const] = {}  # numbers among ``ops`` that a guard has fixed

    def guard(condition: Any, wanted: bool) -> None:
        if isinstance(condition, Const):
            if bool(condition.word) != wanted:
                raise Abort("samples differ where they agree")
            return
        if condition in learned:
            return
        made.emit(Op("guard", (condition,), wanted), [0] * len(samples), again=True)
        learned[condition] = Const(int(wanted))
        asked = ops[condition]
        if asked.code == ("eq" if wanted else "ne"):
            one, other = asked.args
            if isinstance(other, Const) and isinstance(one, int):
                learned[one] = other

    for place, op in enumerate(samples[0].ops):
        args = tuple(_current(now[arg] if isinstance(arg, int) else arg, learned) for arg in op.args)
        if op.code == "guard":
            guard(args[0], op.info)
            now.append(None)
            continue
        if op.code in PLAIN:
            number = made.plain(op.code, *args)
            now.append(_current(number, learned))
            continue
        if op.code == "select" and isinstance(args[0], Const):
            now.append(args[1] if args[0].word else args[2])
            continue
        words = [one.words[place] for one in samples]
        if op.code == "load" and not _changes(op):
            if isinstance(args[0], Const):
                now.append(Const(words[0]))
                continue
            if len(set(words)) == 1 and not op.info[0].startswith("b."):
                same = Const(words[0])
                guard(made.plain("eq", made.emit(Op(op.code, args, op.info), words), same), True)
                now.append(same)
                continue
        if op.code == "within":
            rows = [one.rows.get(place) for one in samples]
            now.append(_place_in_list(made, Op(op.code, args, op.info), words, rows, guard))
            continue
        if op.code == "count":
            base, table = _namespace_of(args[0], ops)
            key = base, args[2:]
            if isinstance(args[1], Const):
                if key in together:
                    together[key][1].append((table, args[1].word))
                    now.append(Const(0))  # no counter of its own
                    continue
                together[key] = len(ops), [(table, args[1].word)]
        again = op.code in EFFECTS or (_changes(op) and op.code not in ASKS)
        number = made.emit(Op(op.code, args, op.info), words, again=again)
        now.append(learned.get(number, number))
    for number, rules in together.values():
        if len(rules) > 1:
            group = tuple(rules)
            if group not in groups:
                groups.append(group)
            op = ops[number]
            base, _ = _namespace_of(op.args[0], ops)
            ops[number] = Op("count", (base, Const(groups.index(group)), *op.args[2:]), (*op.info, GROUPED))
    _count_together(ops)
    return made


def _count_together(ops: list[Op]) -> None:
    """Rules of one namespace of which each leads to the next, as a Service's to an endpoint's: the last one's counter will
    do for up to three. Whether it has counted the same ones so far is asked when a packet is counted."""
    key = [number if one is None else one for number, one in enumerate(keys(ops))]
    by_place = defaultdict(list)
    for number, op in enumerate(ops):
        if op.code == "count" and len(op.info) == 2:
            where, rule = op.args[:2]
            # A rule that follows from its namespace has one counter in each anyway.
            if isinstance(where, int) and isinstance(rule, int) and key[rule] != key[where]:
                by_place[where, op.args[2:]].append(number)
    for numbers in by_place.values():
        *others, last = numbers[-3:]
        if others:
            rules = [ops[number].args[1] for number in others]
            ops[last] = Op("count", (*ops[last].args, *rules), (*ops[last].info, TOGETHER))
            for number in others:
                ops[number] = _NOTHING


def _place_in_list(
    made: Folder, op: Op, words: list[int], rows: list[list[tuple[int, int, int]] | None], guard: Guard
) -> Any:
    """A row of a namespace's list of prefixes: the first that an address is in. Where it is the same one of each list for
    all samples, the row follows from the list alone, and so do those before it, with which the address is compared:
    ``rows`` of each sample, (hi, lo, length) each."""
    start, end, hi, lo = op.args
    places = {found - first for found, first in zip(words, made.words_of(start))}
    counts = {last - first for last, first in zip(made.words_of(end), made.words_of(start))}
    lengths = {tuple(length for _, _, length in held) for held in rows if held is not None}
    if isinstance(start, Const) or None in rows or len(places) * len(counts) * len(lengths) != 1:
        return made.emit(op, words)
    place = places.pop()
    guard(made.plain("eq", made.plain("sub", end, start), Const(counts.pop())), True)
    path, stride, offsets = op.info
    for number, length in enumerate(lengths.pop()):
        at = made.plain("add", start, Const(number))
        row = [
            made.emit(
                Op("load", (at,), (path, stride, offset, size, False)), [held[number][part] for held in rows if held]
            )
            for part, (offset, size) in enumerate(zip(offsets, (8, 8, 4)))
        ]
        guard(made.plain("eq", row[2], Const(length)), True)
        inside: Any = Const(1)
        for given, its, bits in ((hi, row[0], min(length, 64)), (lo, row[1], length - 64)):
            if bits > 0:
                same = (made.plain("lshr", one, Const(64 - bits)) for one in (given, its))
                inside = made.plain("and", inside, made.plain("eq", *same))
        guard(inside, number == place)
    return made.plain("add", start, Const(place))


def _namespace_of(where: Any, ops: list[Op]) -> tuple[Any, int]:
    """Namespace and table of the first half of a counter's key."""
    if isinstance(where, Const):
        return Const(where.word & 0xFFFFFF), where.word >> 24
    op = ops[where]
    if op.code == "or" and isinstance(op.args[1], Const) and op.args[1].word & 0xFFFFFF == 0:
        return op.args[0], op.args[1].word >> 24
    return where, 0


def _current(arg: Any, learned: dict[int, Const]) -> Any:
    return learned.get(arg, arg) if isinstance(arg, int) else arg


def _changes(op: Op) -> bool:
    """Does what it reads depend on what packets have done? (No array is replaced while kernels run.)"""
    return (op.code in ("load", "probe") and op.info[0].startswith(CHANGING)) or op.code in ASKS


def _needed(ops: list[Op], words: list[Sequence[int]]) -> Plan:
    needed = [False] * len(ops)
    for place in range(len(ops) - 1, -1, -1):
        op = ops[place]
        if op.code in EFFECTS or op.code in ("guard", *ASKS):
            needed[place] = True
        if needed[place]:
            for arg in op.args:
                if isinstance(arg, int):
                    needed[arg] = True
    plan = Plan()
    number: dict[int, int] = {}
    for place, op in enumerate(ops):
        if needed[place]:
            number[place] = len(plan.ops)
            plan.ops.append(
                Op(op.code, tuple(number[arg] if isinstance(arg, int) else arg for arg in op.args), op.info)
            )
            plan.variety.append(len(set(words[place])))
            plan.largest.append(max(words[place]))
    return plan


def _set_phases(plan: Plan) -> None:
    written: set[tuple[str, int, Any]] = set()  # (table, bytes into a row, number of the row or None)
    for op in plan.ops:
        phase = max([plan.phases[arg] for arg in op.args if isinstance(arg, int)], default=WALK)
        if op.code in EFFECTS:
            phase = COMMIT
            if op.code == "store":
                path, _, offset, _ = op.info
                written.add((path, offset, op.args[0] if isinstance(op.args[0], Const) else None))
            elif op.code == "insert":
                written.add((op.info[2], 0, Const(op.info[3])))
        elif _changes(op):
            phase = COMMIT if op.code == "load" and _may_be_written(op, written) else max(phase, CHECK)
        if op.code in ("guard", *ASKS) and phase == COMMIT:
            raise Abort("it must be asked what has been written")
        plan.phases.append(phase)


def _may_be_written(op: Op, written: set[tuple[str, int, Any]]) -> bool:
    path, _, offset, *_ = op.info
    if isinstance(op.args[0], Const):
        return (path, offset, None) in written or (path, offset, op.args[0]) in written
    return any(one[:2] == (path, offset) for one in written)
