"""From recordings of the same kind of packet to what has to be done for every one: a *plan*.

What was loaded from a table of the cluster and was the same for all samples is taken to be so for every packet of the kind,
and guarded; whatever follows from it is known beforehand. What nobody asks for is left out. The rest is in three phases:

    walk     reads tables that packets do not change: many packets at once, in any order
    check    reads flows and counters: packet by packet, in order, before anything of it is written
    commit   writes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from netsim.compiled.trails.symbols import Abort, Const, Op, Recording, compute
from netsim.compiled.trails.tables import CHANGING

WALK, CHECK, COMMIT = range(3)
EFFECTS = ("store", "insert", "count")
_PLAIN = {
    "add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "udiv", "urem", "eq", "ne", "slt", "ult", "sle", "ule",
}  # fmt: skip


@dataclass
class Plan:
    """Operations whose arguments are numbers of earlier ones; ``phases`` of each."""

    ops: list[Op] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)


def merge(samples: Sequence[Recording]) -> Plan:
    """Abort if what has to be asked would come after the first thing that is written."""
    made = _folded(samples)
    plan = _needed(made)
    _set_phases(plan)
    return plan


def _folded(samples: Sequence[Recording]) -> list[Op]:
    ops: list[Op] = []
    known: dict[Op, int] = {}
    now: list[Any] = []  # of each recorded operation: its number among ``ops``, or a Const
    learned: dict[int, Const] = {}  # numbers among ``ops`` that a guard has fixed

    def emit(op: Op) -> int:
        if op.code in EFFECTS or op.code == "guard" or _changes(op):
            ops.append(op)
            return len(ops) - 1
        found = known.get(op)
        if found is None:
            ops.append(op)
            found = known[op] = len(ops) - 1
        return found

    def guard(condition: int, wanted: bool) -> None:
        if condition in learned:
            return
        emit(Op("guard", (condition,), wanted))
        learned[condition] = Const(int(wanted))
        asked = ops[condition]
        if asked.code == ("eq" if wanted else "ne"):
            one, other = asked.args
            if isinstance(other, Const) and isinstance(one, int):
                learned[one] = other
            elif isinstance(one, Const) and isinstance(other, int):
                learned[other] = one

    for place, op in enumerate(samples[0].ops):
        args = tuple(_current(now[arg] if isinstance(arg, int) else arg, learned) for arg in op.args)
        if op.code == "guard":
            if isinstance(args[0], Const):
                if bool(args[0].word) != op.info:
                    raise Abort("samples differ where they agree")
            else:
                guard(args[0], op.info)
            now.append(None)
            continue
        if op.code in _PLAIN:
            one, other = args
            if isinstance(one, Const) and isinstance(other, Const):
                now.append(Const(compute(op.code, one.word, other.word)))
                continue
            short = _simple(op.code, one, other)
            if short is not None:
                now.append(short)
                continue
        if op.code == "select" and isinstance(args[0], Const):
            now.append(args[1] if args[0].word else args[2])
            continue
        if op.code == "load" and not _changes(op):
            words = {one.words[place] for one in samples}
            if isinstance(args[0], Const):
                now.append(Const(samples[0].words[place]))
                continue
            if len(words) == 1 and not op.info[0].startswith("b."):
                number = emit(Op(op.code, args, op.info))
                same = Const(words.pop())
                guard(emit(Op("eq", (number, same))), True)
                now.append(same)
                continue
        number = emit(Op(op.code, args, op.info))
        now.append(learned.get(number, number))
    return ops


def _current(arg: Any, learned: dict[int, Const]) -> Any:
    return learned.get(arg, arg) if isinstance(arg, int) else arg


def _simple(code: str, one: Any, other: Any) -> Any:
    """What an operation gives that does nothing; None if it does something."""
    if isinstance(other, Const):
        if other.word == 0 and code in ("add", "sub", "or", "xor", "shl", "lshr", "ashr"):
            return one
        if other.word == 0 and code in ("and", "mul"):
            return Const(0)
        if other.word == 1 and code in ("mul", "udiv"):
            return one
    if isinstance(one, Const) and one.word == 0 and code in ("add", "or", "xor"):
        return other
    return None


def _changes(op: Op) -> bool:
    return op.code in ("load", "length") and op.info[0].startswith(CHANGING) or op.code == "absent"


def _needed(ops: list[Op]) -> Plan:
    needed = [False] * len(ops)
    for place in range(len(ops) - 1, -1, -1):
        op = ops[place]
        if op.code in EFFECTS or op.code in ("guard", "absent"):
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
            plan.ops.append(Op(op.code, tuple(number[arg] if isinstance(arg, int) else arg for arg in op.args), op.info))
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
        if op.code in ("guard", "absent") and phase == COMMIT:
            raise Abort("it must be asked what has been written")
        plan.phases.append(phase)


def _may_be_written(op: Op, written: set[tuple[str, int, Any]]) -> bool:
    path, _, offset, *_ = op.info
    if isinstance(op.args[0], Const):
        return (path, offset, None) in written or (path, offset, op.args[0]) in written
    return any(one[:2] == (path, offset) for one in written)
