"""Machine code for a plan: loops over a block of packets, each as long as no packet waits for memory.

A packet's way is a chain of loads, each of which says where the next one is: one after the other they would take a hundred
times a load from memory. So the walk is cut into *segments*: each ends where something is needed from a line of a large
table whose address the segment itself has found out; that line is asked for (``prefetch``), and the segment is run for all
packets of the block before the next one begins. A block's loads of one segment are under way at the same time.

What a segment hands on to later ones lies in ``room``, a row of the block's packets for each number. A packet that fails a
guard takes no part any more. After the walk the packets are committed in order, until one has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir

from netsim.compiled.flow_index import TAG, TOMB
from netsim.compiled.flow_records import NUMBER
from netsim.compiled.hashmap import MIX
from netsim.compiled.journey import TRAIL_BLOCK
from netsim.compiled.trails.merge import CHECK, COMMIT, WALK, Plan
from netsim.compiled.trails.symbols import Const, Op
from netsim.compiled.trails.tables import CHANGING

BLOCK = TRAIL_BLOCK
_SMALL = 1 << 17  # bytes of a table that is in the cache anyway
_LINE = 64
_TURNS = 4096
_FEW = 4  # rows of a table that so few samples differ in are in the cache anyway
_SLOTS = ("e.s.slots", "e.s.outer_slots")
_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_POINTER = _BYTE.as_pointer()


def _offsets(held: Any, path: str, at: int, into: dict[str, int]) -> int:
    """Where each array's words begin in a ``Ref`` (``ref._words``)."""
    if isinstance(held, np.ndarray):
        into[path] = at
        return at + 5 + 2 * held.ndim
    if isinstance(held, tuple):
        for name, member in zip(getattr(held, "_fields", ()), held):
            at = _offsets(member, f"{path}.{name}", at, into)
        return at
    return at + 1


def _sizes(held: Any, path: str, into: dict[str, int]) -> None:
    if isinstance(held, np.ndarray):
        into[path] = held.nbytes
    elif isinstance(held, tuple):
        for name, member in zip(getattr(held, "_fields", ()), held):
            _sizes(member, f"{path}.{name}", into)


class Emitter:
    def __init__(self, plan: Plan, e: Any, b: Any, o: Any) -> None:
        self.plan = plan
        self.offsets: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        for name, held in (("e", e), ("b", b), ("o", o)):
            _offsets(held, name, 0, self.offsets)
            _sizes(held, name, self.sizes)
        self.segment = [0] * len(plan.ops)  # of the walk; the commit comes behind the last one
        self.last_use = [-1] * len(plan.ops)
        self.slots: dict[int, int] = {}
        self.loose: set[int] = set()
        self.lines: dict[int, list[tuple[Any, ...]]] = {}  # by segment: what to ask for at its end

    # -- the plan of loops --------------------------------------------------------------------------------------------
    def schedule(self) -> None:
        """In which segment each operation is: in the first in which it can be. Those of a segment stay in order.

        What is loaded before a guard that came before it may be read from a place that makes no sense, and is not used
        then: such places are ``loose``, and kept within their tables."""
        plan, last = self.plan, 0
        asked: set[Any] = set()
        guarded = 0  # the last segment with a guard among the operations so far
        for number, op in enumerate(plan.ops):
            if plan.phases[number] == WALK:
                at = max([self.segment[arg] for arg in op.args if isinstance(arg, int)], default=0)
                line = self._line(op)
                if line is not None:
                    at = max(at, self.segment[line[0]] + 1)
                    if line not in asked:
                        asked.add(line)
                        self.lines.setdefault(self.segment[line[0]], []).append(line)
                        self.last_use[line[0]] = max(self.last_use[line[0]], self.segment[line[0]])
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
                if line is not None and plan.phases[line[0]] == WALK and line not in asked:
                    asked.add(line)
                    self.lines.setdefault(now, []).append(line)
                    self.last_use[line[0]] = max(self.last_use[line[0]], now)
            for arg in op.args:
                if isinstance(arg, int):
                    self.last_use[arg] = max(self.last_use[arg], self.segment[number])
        free: list[int] = []
        count = 0
        ends: dict[int, list[int]] = {}
        order = sorted(range(len(plan.ops)), key=lambda one: self.segment[one])
        done = 0
        for number in order:
            while done < self.segment[number]:
                free += ends.pop(done, [])
                done += 1
            if self.last_use[number] > self.segment[number]:
                if not free:
                    free.append(count)
                    count += 1
                slot = free.pop()
                self.slots[number] = slot
                ends.setdefault(self.last_use[number], []).append(slot)
        self.room = max(count, 1)

    def _line(self, op: Op) -> tuple[Any, ...] | None:
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
        return root, path, stride, shift // _LINE * _LINE if shift >= 0 else -1

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

    # -- code ---------------------------------------------------------------------------------------------------------
    def module(self, name: str) -> ir.Module:
        self.schedule()
        module = ir.Module()
        words = _WORD.as_pointer()
        kind = ir.FunctionType(_WORD, [words, words, words, words, _POINTER, *[_WORD] * 5])
        self.function = ir.Function(module, kind, name)
        refs, (room, alive, first, count, serial, seed, begin) = self.function.args[:3], self.function.args[3:]
        self.first, self.count, self.serial, self.seed = first, count, serial, seed
        self.memory, self.begin = room, begin
        builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.tables: dict[tuple[str, int], ir.Value] = {}
        used = {op.info[0] for op in self.plan.ops if op.code not in ("input", "guard") and isinstance(op.info, tuple)}
        used |= {op.info[2] for op in self.plan.ops if op.code in ("absent", "insert")}
        for path in sorted(used):
            ref = refs["ebo".index(path[0])]
            for word in (2, 4, 5, 6):
                at = builder.gep(ref, [_WORD(self.offsets[path] + word)])
                self.tables[path, word] = builder.load(at)
        walks, commits = (self.function.append_basic_block(name) for name in ("walks", "commits"))
        builder.cbranch(builder.icmp_unsigned("==", begin, _WORD(0)), walks, commits)
        builder.position_at_end(walks)
        ask = module.declare_intrinsic(
            "llvm.prefetch", (_POINTER,), ir.FunctionType(ir.VoidType(), [_POINTER, *[ir.IntType(32)] * 3])
        )
        by_segment: dict[int, list[int]] = {}
        for number in range(len(self.plan.ops)):
            by_segment.setdefault(self.segment[number], []).append(number)
        for segment in range(self.segments):
            builder = self._segment(builder, by_segment.get(segment, []), segment, alive, ask)
        builder.branch(commits)
        builder.position_at_end(commits)
        self._commit(builder, by_segment.get(self.segments, []), alive)
        return module

    def _loop(self, builder: ir.IRBuilder, begin: ir.Value | None = None) -> tuple[ir.IRBuilder, ir.Value, Any, Any]:
        """A loop over the block's packets: builder in its body, the packet, blocks to go on with and to leave by."""
        function = self.function
        head, body, after, leave = (function.append_basic_block(name) for name in ("head", "body", "next", "leave"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_WORD)
        k.add_incoming(_WORD(0) if begin is None else begin, before)
        builder.cbranch(builder.icmp_unsigned("<", k, self.count), body, leave)
        inside = ir.IRBuilder(after)
        k.add_incoming(inside.add(k, _WORD(1)), after)
        inside.branch(head)
        builder.position_at_end(body)
        return builder, k, after, leave

    def _segment(self, builder: ir.IRBuilder, numbers: list[int], segment: int, alive: Any, ask: Any) -> ir.IRBuilder:
        builder, k, after, leave = self._loop(builder)
        lives = builder.gep(alive, [k])
        goes = self.function.append_basic_block("alive")
        builder.cbranch(builder.icmp_unsigned("!=", builder.load(lives), _BYTE(0)), goes, after)
        builder.position_at_end(goes)
        dies = self.function.append_basic_block("dies")
        inside = ir.IRBuilder(dies)
        inside.store(_BYTE(0), lives)
        inside.branch(after)
        values = _Values(self, builder, k, segment)
        for number in numbers:
            values.emit(number, dies)
        for line in self.lines.get(segment, []):
            values.ask(line, ask)
        if segment == self.segments - 1:
            for op in self.counts:
                if all(self.plan.phases[arg] == WALK for arg in op.args[:2] if isinstance(arg, int)):
                    values.ask_counter(op, ask)
        for number in numbers:
            if number in self.slots:
                builder.store(values[number], self._room(builder, number, k))
        builder.branch(after)
        builder.position_at_end(leave)
        return builder

    def _room(self, builder: ir.IRBuilder, number: int, k: Any) -> ir.Value:
        return builder.gep(self.memory, [builder.add(k, _WORD(self.slots[number] * BLOCK))])

    def _commit(self, builder: ir.IRBuilder, numbers: list[int], alive: Any) -> None:
        builder, k, after, leave = self._loop(builder, self.begin)
        stops, goes = (self.function.append_basic_block(name) for name in ("stops", "goes"))
        ir.IRBuilder(stops).ret(k)
        builder.cbranch(builder.icmp_unsigned("!=", builder.load(builder.gep(alive, [k])), _BYTE(0)), goes, stops)
        builder.position_at_end(goes)
        values = _Values(self, builder, k, self.segments)
        for phase in (CHECK, COMMIT):
            for number in numbers:
                if self.plan.phases[number] == phase:
                    values.emit(number, stops)
        builder.branch(after)
        builder.position_at_end(leave)
        builder.ret(self.count)


_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and_", "or": "or_", "xor": "xor", "shl": "shl", "lshr": "lshr",
           "ashr": "ashr", "udiv": "udiv", "urem": "urem"}  # fmt: skip
_COMPARE = {"eq": ("==", False), "ne": ("!=", False), "slt": ("<", True), "sle": ("<=", True), "ult": ("<", False),
            "ule": ("<=", False)}  # fmt: skip


class _Values:
    """The values of operations in one loop's body."""

    def __init__(self, emitter: Emitter, builder: ir.IRBuilder, k: ir.Value, segment: int) -> None:
        self.emitter, self.builder, self.k, self.segment = emitter, builder, k, segment
        self.held: dict[int, ir.Value] = {}
        self.rows: dict[tuple[int, str], ir.Value] = {}
        self.fails: Any = None
        self.loose = False

    def __getitem__(self, arg: Any) -> ir.Value:
        if isinstance(arg, Const):
            return _WORD(arg.word)
        found = self.held.get(arg)
        if found is None:
            # Where it is needed first may be a branch: its memory is read at once, before any.
            found = self.held[arg] = self.builder.load(self.emitter._room(self.builder, arg, self.k))
        return found

    def address(self, path: str, row: ir.Value, stride: int, offset: int) -> ir.Value:
        builder = self.builder
        base = self.emitter.tables[path, 4]
        at = builder.add(base, builder.add(builder.mul(row, _WORD(stride)), _WORD(offset)))
        return builder.inttoptr(at, _POINTER)

    def field(self, path: str, row: ir.Value, stride: int, offset: int, size: int) -> ir.Value:
        kind = ir.IntType(8 * size)
        found = self.builder.load(self.builder.bitcast(self.address(path, row, stride, offset), kind.as_pointer()))
        return found if size == 8 else self.builder.zext(found, _WORD)

    def put(self, path: str, row: ir.Value, stride: int, offset: int, size: int, value: ir.Value) -> None:
        kind = ir.IntType(8 * size)
        cut = value if size == 8 else self.builder.trunc(value, kind)
        self.builder.store(cut, self.builder.bitcast(self.address(path, row, stride, offset), kind.as_pointer()))

    def ask(self, line: tuple[Any, ...], intrinsic: Any) -> None:
        root, path, stride, shift = line
        builder, row = self.builder, self[root]
        if path in _SLOTS:
            row = self.slot_home(path, row)
        elif shift < 0:
            row = builder.and_(row, builder.sub(self.emitter.tables[path, 5], _WORD(1)))
        address = self.address(path, row, stride, max(shift, 0))
        number = ir.IntType(32)
        builder.call(intrinsic, [address, number(1 if path.startswith(CHANGING) else 0), number(3), number(1)])

    def ask_counter(self, op: Op, intrinsic: Any) -> None:
        path, stride, *_ = op.info
        address = self.address(path, self.counter_home(self.counter_key(op), path), stride, 0)
        number = ir.IntType(32)
        self.builder.call(intrinsic, [address, number(1), number(3), number(1)])

    def emit(self, number: int, fails: Any) -> None:
        op = self.emitter.plan.ops[number]
        self.fails, self.loose = fails, number in self.emitter.loose
        value: Any
        if op.code in _BINARY:
            value = getattr(self.builder, _BINARY[op.code])(self[op.args[0]], self[op.args[1]])
        elif op.code in _COMPARE:
            sign, is_signed = _COMPARE[op.code]
            compare = self.builder.icmp_signed if is_signed else self.builder.icmp_unsigned
            value = self.builder.zext(compare(sign, self[op.args[0]], self[op.args[1]]), _WORD)
        else:
            value = getattr(self, f"_{op.code}")(op)
        if value is not None:
            self.held[number] = value

    def _least(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned("<", one, other), one, other)

    def _row(self, arg: Any, path: str) -> ir.Value:
        """A row of a table; one that is there, if the number may make no sense."""
        if not self.loose or isinstance(arg, Const):
            return self[arg]
        found = self.rows.get((arg, path))
        if found is None:
            most = self.builder.sub(self.emitter.tables[path, 2], _WORD(1))
            found = self.rows[arg, path] = self._least(self[arg], most)
        return found

    def slot_home(self, path: str, digest: ir.Value) -> ir.Value:
        """``flow_index.home``."""
        low = self.builder.and_(digest, _WORD(0xFFFFFFFF))
        return self.builder.lshr(self.builder.mul(low, self.emitter.tables[path, 5]), _WORD(32))

    def slot_after(self, path: str, at: ir.Value) -> ir.Value:
        """``flow_index.after``."""
        following = self.builder.add(at, _WORD(1))
        last = self.builder.icmp_unsigned("==", following, self.emitter.tables[path, 5])
        return self.builder.select(last, _WORD(0), following)

    # -- operations ---------------------------------------------------------------------------------------------------
    def _input(self, op: Op) -> ir.Value:
        emitter = self.emitter
        at = self.builder.add(emitter.first, self.k)
        return {"i": at, "serial": self.builder.add(emitter.serial, self.k), "seed": emitter.seed}[op.info]

    def _length(self, op: Op) -> ir.Value:
        path, axis = op.info
        return self.emitter.tables[path, 5 + axis]

    def _load(self, op: Op) -> ir.Value:
        path, stride, offset, size, _ = op.info
        return self.field(path, self._row(op.args[0], path), stride, offset, size)

    def _store(self, op: Op) -> None:
        path, stride, offset, size = op.info
        self.put(path, self[op.args[0]], stride, offset, size, self[op.args[1]])

    def _select(self, op: Op) -> ir.Value:
        condition = self.builder.icmp_unsigned("!=", self[op.args[0]], _WORD(0))
        return self.builder.select(condition, self[op.args[1]], self[op.args[2]])

    def _guard(self, op: Op) -> None:
        goes = self.emitter.function.append_basic_block("goes")
        holds = self.builder.icmp_unsigned("!=" if op.info else "==", self[op.args[0]], _WORD(0))
        self.builder.cbranch(holds, goes, self.fails)
        self.builder.position_at_end(goes)

    def _while(self, start: ir.Value, step: Callable[[ir.Value], tuple[ir.Value, ir.Value]]) -> ir.Value:
        """A loop: ``step`` says of a place whether the search ends there, and which place is next. One that may make no
        sense does not go on for long."""
        builder, function = self.builder, self.emitter.function
        head, more, done = (function.append_basic_block(name) for name in ("search", "more", "found"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(_WORD)
        at.add_incoming(start, before)
        turns = builder.phi(_WORD) if self.loose else None
        ends, following = step(at)
        builder.cbranch(ends, done, more)
        builder.position_at_end(more)
        at.add_incoming(following, more)
        if turns is None:
            builder.branch(head)
        else:
            turns.add_incoming(_WORD(0), before)
            turns.add_incoming(builder.add(turns, _WORD(1)), more)
            builder.cbranch(builder.icmp_unsigned("<", turns, _WORD(_TURNS)), head, self.fails)
        builder.position_at_end(done)
        return at

    def _probe(self, op: Op) -> ir.Value:
        path, stride, step, keys, free = op.info
        base, start, size, *wanted = (self[arg] for arg in op.args)
        builder = self.builder
        begin = builder.mul(base, _WORD(stride))
        mask = builder.sub(size, _WORD(1))

        def field(at: ir.Value, offset: int, width: int) -> ir.Value:
            place = builder.add(begin, builder.mul(at, _WORD(step)))
            if self.loose:
                most = builder.sub(builder.mul(self.emitter.tables[path, 2], _WORD(stride)), _WORD(step))
                place = self._least(place, most)
            return self.field(path, place, 1, offset, width)

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            same: Any = ir.IntType(1)(1)
            for (offset, width), value in zip(keys, wanted):
                same = builder.and_(same, builder.icmp_unsigned("==", field(at, offset, width), value))
            ends = builder.or_(same, builder.icmp_unsigned("==", field(at, *free), _WORD(0)))
            return ends, builder.and_(builder.add(at, _WORD(1)), mask)

        return self._while(builder.and_(start, mask), look)

    def _search(self, op: Op) -> ir.Value:
        path, stride, kind = op.info
        at, count, value = (self[arg] for arg in op.args)
        builder = self.builder

        def look(place: ir.Value) -> tuple[ir.Value, ir.Value]:
            pair = builder.add(at, builder.shl(place, _WORD(1)))
            if self.loose:
                pair = self._least(pair, builder.sub(self.emitter.tables[path, 2], _WORD(3)))
            if kind == "interval":  # is the next one above it?
                held = self.field(path, pair, stride, 2 * stride, 4)
                last = builder.icmp_unsigned(">=", builder.add(place, _WORD(1)), count)
                ends = builder.or_(last, builder.icmp_unsigned(">", held, value))
            else:
                high, low = (self.field(path, pair, stride, word * stride, 4) for word in range(2))
                held = builder.or_(builder.shl(high, _WORD(32)), low)
                ends = builder.or_(builder.icmp_unsigned(">=", place, count), builder.icmp_unsigned(">", held, value))
            return ends, builder.add(place, _WORD(1))

        return self._while(_WORD(0), look)

    def _within(self, op: Op) -> ir.Value:
        path, stride, (hi_at, lo_at, length_at) = op.info
        start, end, hi, lo = (self[arg] for arg in op.args)
        builder, wide = self.builder, ir.IntType(128)

        def both(high: ir.Value, low: ir.Value) -> ir.Value:
            return builder.or_(builder.shl(builder.zext(high, wide), wide(64)), builder.zext(low, wide))

        address = both(hi, lo)

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            # A row past the last may be another namespace's, and is not looked at for long.
            row = self._least(at, builder.sub(self.emitter.tables[path, 2], _WORD(1)))
            length = self.field(path, row, stride, length_at, 4)
            held = both(self.field(path, row, stride, hi_at, 8), self.field(path, row, stride, lo_at, 8))
            shift = builder.and_(builder.zext(builder.sub(_WORD(128), length), wide), wide(127))
            differs = builder.icmp_unsigned("!=", builder.lshr(builder.xor(held, address), shift), wide(0))
            inside = builder.or_(builder.icmp_unsigned("==", length, _WORD(0)), builder.not_(differs))
            ends = builder.or_(builder.icmp_unsigned(">=", at, end), inside)
            return ends, builder.add(at, _WORD(1))

        return self._while(start, look)

    def _absent(self, op: Op) -> ir.Value:
        path, stride, records, size, alike = op.info
        builder, (digest, *values) = self.builder, (self[arg] for arg in op.args)
        tag = builder.and_(builder.lshr(digest, _WORD(32)), _WORD(int(TAG)))
        function = self.emitter.function
        head, looks, more, compare, goes = (
            function.append_basic_block(name) for name in ("search", "looks", "more", "compare", "goes")
        )
        start, before = self.slot_home(path, digest), builder.block
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(_WORD)
        at.add_incoming(start, before)
        held = self.field(path, at, stride, 0, 4)
        builder.cbranch(builder.icmp_unsigned("==", held, _WORD(0)), goes, looks)
        builder.position_at_end(looks)
        same = builder.icmp_unsigned("==", builder.and_(held, _WORD(int(TAG))), tag)
        builder.cbranch(builder.and_(same, builder.icmp_unsigned("!=", held, _WORD(int(TOMB)))), compare, more)
        builder.position_at_end(compare)
        record = builder.and_(held, _WORD(int(NUMBER)))
        found: Any = ir.IntType(1)(0)
        for fields in alike:
            fits: Any = ir.IntType(1)(1)
            for offset, width, number in fields:
                have = self.field(records, record, size, offset, width)
                fits = builder.and_(fits, builder.icmp_unsigned("==", have, values[number]))
            found = builder.or_(found, fits)
        builder.cbranch(found, self.fails, more)
        builder.position_at_end(more)
        at.add_incoming(self.slot_after(path, at), more)
        builder.branch(head)
        builder.position_at_end(goes)
        return _WORD(1)

    def _lacks(self, op: Op) -> ir.Value:
        path, stride = op.info
        builder, (start, value) = self.builder, (self[arg] for arg in op.args)
        mask = builder.sub(self.emitter.tables[path, 5], _WORD(1))
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 8))
            ends = builder.or_(
                builder.icmp_unsigned("==", held[0], value), builder.icmp_unsigned("==", held[0], _WORD(0))
            )
            return ends, builder.and_(builder.add(at, _WORD(1)), mask)

        self._while(builder.and_(start, mask), look)
        goes = self.emitter.function.append_basic_block("goes")
        builder.cbranch(builder.icmp_unsigned("==", held[0], value), self.fails, goes)
        builder.position_at_end(goes)
        return _WORD(1)

    def _insert(self, op: Op) -> None:
        path, stride, counts, counter = op.info
        builder, (digest, number) = self.builder, (self[arg] for arg in op.args)
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 4))
            ends = builder.or_(
                builder.icmp_unsigned("==", held[0], _WORD(0)), builder.icmp_unsigned("==", held[0], _WORD(int(TOMB)))
            )
            return ends, self.slot_after(path, at)

        at = self._while(self.slot_home(path, digest), look)
        tag = builder.and_(builder.lshr(digest, _WORD(32)), _WORD(int(TAG)))
        self.put(path, at, stride, 0, 4, builder.or_(tag, number))
        reused = builder.zext(builder.icmp_unsigned("!=", held[0], _WORD(0)), _WORD)
        tombs = self.field(counts, _WORD(counter), 8, 0, 8)
        self.put(counts, _WORD(counter), 8, 0, 8, builder.sub(tombs, reused))

    def counter_key(self, op: Op) -> ir.Value:
        """Of the counters of a namespace's rule: see ``counter_table``."""
        where, rule = self[op.args[0]], self[op.args[1]]
        if len(op.info) > 2:
            where = self.builder.or_(where, _WORD(op.info[2] << 24))
        return self.builder.or_(self.builder.shl(where, _WORD(32)), rule)

    def counter_home(self, key: ir.Value, path: str) -> ir.Value:
        mask = self.builder.sub(self.emitter.tables[path, 5], _WORD(1))
        folded = self.builder.xor(key, self.builder.lshr(key, _WORD(29)))  # ``hashmap.spread``
        return self.builder.and_(self.builder.lshr(self.builder.mul(folded, _WORD(int(MIX))), _WORD(32)), mask)

    def _count(self, op: Op) -> ir.Value:
        path, stride, *_ = op.info
        builder, packets, volume = self.builder, self[op.args[2]], self[op.args[3]]
        mask = builder.sub(self.emitter.tables[path, 5], _WORD(1))
        key = self.counter_key(op)
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 8))
            ends = builder.or_(
                builder.icmp_unsigned("==", held[0], key), builder.icmp_unsigned("==", held[0], _WORD(0))
            )
            return ends, builder.and_(builder.add(at, _WORD(1)), mask)

        at = self._while(self.counter_home(key, path), look)
        self.put(path, at, stride, 0, 8, key)
        for offset, more in ((8, packets), (16, volume)):
            self.put(path, at, stride, offset, 8, builder.add(self.field(path, at, stride, offset, 8), more))
        return builder.zext(builder.icmp_unsigned("==", held[0], _WORD(0)), _WORD)


_engines: list[Any] = []  # whose code may be called as long as this process lives


def compiled(plan: Plan, e: Any, b: Any, o: Any) -> tuple[int, int]:
    """(address of the machine code, words of room that it needs). Call it by ``along.follow``."""
    name = f"trail{len(_engines)}"
    emitter = Emitter(plan, e, b, o)
    text = str(emitter.module(name))
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2
    )
    module = binding.parse_assembly(text)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name), emitter.room * BLOCK
