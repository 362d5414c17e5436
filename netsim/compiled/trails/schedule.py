"""Which operation of a plan is done when: segments of the walk, the lines they ask for, the numbers that are kept.

A packet's way is a chain of loads, each of which says where the next one is: one after the other they would take a hundred
times a load from memory. So the walk is cut into *segments*: what is needed from a line of a large table is done in a later
segment than what says where it is; the line is asked for (``prefetch``), and a segment is run for all packets of the block
before the next one begins. A block's loads of one segment are under way at the same time.

What is owed to one number alone (``parts``) is looked up instead, in the segment behind that of the number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from netsim.compiled.ref import arrays
from netsim.compiled.trails.merge import WALK, Plan
from netsim.compiled.trails.parts import parts
from netsim.compiled.trails.symbols import Const, Op

_SMALL = 1 << 17  # bytes of a table that is in the cache anyway
_LINE = 64
_MOST = 3  # lines of a list behind the first
_FEW = 4  # rows of a table that so few samples differ in are in the cache anyway


class Line(NamedTuple):
    """A line to ask for: ``root``, the operation that says where; ``shift``, bytes behind its row, -1: a place of a hash."""

    root: int
    path: str
    stride: int
    shift: int


class Schedule:
    """``segment`` of each operation; those of the commit come in a last one. ``lines``: by segment, what to ask for at its
    end. ``slots``: where numbers are kept that a later segment asks for, ``room`` of them. ``loose``: see ``_arrange``.
    ``counts``: the operations that count. ``parts`` and their ``members``; ``recalled``: by segment, which are looked up at
    its beginning; ``kept``: numbers that rows of parts have, each with its part, offset and bytes; ``rows``: for each part
    the slot of its row's address, ``own_rows``: the first slot of what is a row for each packet."""

    def __init__(self, plan: Plan, tables: tuple[Any, Any, Any]) -> None:
        self.plan = plan
        self.sizes = {path: array.nbytes for name, held in zip("ebo", tables) for path, _, array in arrays(held, name)}
        self.segment = [0] * len(plan.ops)
        self.last_use = [-1] * len(plan.ops)
        self.slots: dict[int, int] = {}
        self.loose: set[int] = set()
        self.lines: dict[int, list[Line]] = {}
        self.parts = parts(plan, self._line)
        self.members = {number: part for part, one in enumerate(self.parts) for number in one.members}
        self.recalled: dict[int, list[int]] = {}
        self.kept = {
            number: (part, *place) for part, one in enumerate(self.parts) for number, place in zip(one.kept, one.places)
        }
        self._arrange()
        self._keep()

    def _arrange(self) -> None:
        """In which segment each operation is: in the first in which it can be. Those of a segment stay in order.

        What is loaded before a guard that came before it may be read from a place that makes no sense, and is not used
        then: such places are ``loose``, and kept within their tables."""
        plan, last = self.plan, 0
        asked: set[Line] = set()
        guarded = 0  # the last segment with a guard among the operations so far
        for number, op in enumerate(plan.ops):
            if number in self.members:
                at = self.segment[number] = self._recall(self.members[number])
                last = max(last, at)
                if op.code == "guard":
                    guarded = max(guarded, at)
            elif plan.phases[number] == WALK:
                at = max([self.segment[arg] for arg in op.args if isinstance(arg, int)], default=0)
                line = self._line(op)
                if line is not None:
                    at = max(at, self.segment[line.root] + 1)
                    self._ask(line, self.segment[line.root], op, asked)
                self.segment[number] = at
                last = max(last, at)
                if op.code == "guard":
                    guarded = max(guarded, at)
                elif at < guarded:
                    self.loose.add(number)
        now = last
        self.segments = last + 1
        self.counts = [op for op in plan.ops if op.code == "count"]
        for number, op in enumerate(plan.ops):
            if plan.phases[number] != WALK:
                self.segment[number] = self.segments
                line = self._line(op)
                if line is not None and plan.phases[line.root] == WALK:
                    self._ask(line, now, op, asked)
            for arg in op.args if number not in self.members else ():
                if isinstance(arg, int):
                    self.last_use[arg] = max(self.last_use[arg], self.segment[number])

    def _ask(self, line: Line, segment: int, op: Op, asked: set[Line]) -> None:
        """Ask for a line at the end of a segment, and for those behind it that a list goes on in."""
        more = 0
        if op.code == "within":
            first, last = (self._root(arg) for arg in op.args[:2])
            more = (last[1] - first[1]) * line.stride // _LINE if first[0] == last[0] else 0
        for one in (line._replace(shift=line.shift + _LINE * k) for k in range(min(more, _MOST) + 1)):
            if one not in asked:
                asked.add(one)
                self.lines.setdefault(segment, []).append(one)
        self.last_use[line.root] = max(self.last_use[line.root], segment)

    def _recall(self, part: int) -> int:
        """The segment in which a part is looked up."""
        key = self.parts[part].key
        at = self.segment[key] + 1
        recalled = self.recalled.setdefault(at, [])
        if part not in recalled:
            recalled.append(part)
            self.last_use[key] = max(self.last_use[key], at)
        return at

    def _keep(self) -> None:
        """Give each number that is needed later a slot, and give slots again whose numbers nobody needs any more."""
        free: list[int] = []
        count = 0
        ends: dict[int, list[int]] = {}
        order = sorted(range(len(self.plan.ops)), key=lambda one: self.segment[one])
        done = 0
        for number in order:
            while done < self.segment[number]:
                free += ends.pop(done, [])
                done += 1
            if self.last_use[number] > self.segment[number] and number not in self.kept:
                if not free:
                    free.append(count)
                    count += 1
                slot = free.pop()
                self.slots[number] = slot
                ends.setdefault(self.last_use[number], []).append(slot)
        self.rows = [count + part for part in range(len(self.parts))]
        self.own_rows: list[int] = []
        count += len(self.parts)
        for part in self.parts:
            self.own_rows.append(count)
            count += part.size // 8
        self.room = max(count, 1)

    def _line(self, op: Op) -> Line | None:
        """A line to ask for: the operation that says where, path, stride, bytes behind its row (-1: a place of a hash)."""
        if op.code == "load":
            path, stride, offset, *_ = op.info
            root, more = self._root(op.args[0])
            if root is None or self._found_there(root, path):
                return None
            shift = more * stride + offset
        elif op.code in ("probe", "absent", "lacks", "insert"):
            path, shift = op.info[0], -1
            if op.code == "probe" and not isinstance(op.args[0], Const):
                return None
            root = op.args[1] if op.code == "probe" else op.args[0]
            stride = op.info[2] if op.code == "probe" else op.info[1]
        elif op.code == "within":
            path, stride, _ = op.info
            root, shift = self._root(op.args[0])
            shift *= stride
        else:
            return None
        if not isinstance(root, int) or path[:2] in ("b.", "o.") or self.sizes[path] < _SMALL:
            return None
        if self.plan.variety[root] < _FEW:
            return None
        return Line(root, path, stride, shift // _LINE * _LINE if shift >= 0 else -1)

    def _found_there(self, root: int, path: str) -> bool:
        """Is the row the one that a search has just ended at?"""
        op = self.plan.ops[root]
        return op.code in ("probe", "within") and op.info[0] == path

    def _root(self, index: Any) -> tuple[int | None, int]:
        """An index as an operation and a number that is added to it."""
        more = 0
        while isinstance(index, int):
            op = self.plan.ops[index]
            if op.code != "add" or not isinstance(op.args[1], Const) or op.args[1].word >> 32:
                return index, more
            more += op.args[1].word
            index = op.args[0]
        return None, more
