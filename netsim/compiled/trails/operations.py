"""The operations of a plan as machine code, for one packet of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from netsim.compiled.counter_table import COUNTER
from netsim.compiled.flow_index import TAG, TOMB
from netsim.compiled.flow_records import NUMBER
from netsim.compiled.hashmap import LOWER, UPPER
from netsim.compiled.ref import DATA, ITEMS, SHAPE
from netsim.compiled.trails.schedule import Line
from netsim.compiled.trails.symbols import Const, Op

if TYPE_CHECKING:
    from netsim.compiled.trails.emit import Emitter

WORD, BYTE = ir.IntType(64), ir.IntType(8)
POINTER = BYTE.as_pointer()
ASKED = [ir.IntType(32)(number) for number in (0, 2, 1)]  # a line to read, into the second cache: see ``prefetch``
_TURNS = 4096  # of a search that may make no sense
_SLOTS = ("e.s.slots", "e.s.outer_slots")
_HELD: Any = COUNTER.fields
_PACKETS_AT, _BYTES_AT, _ALSO_AT = (_HELD[name][1] for name in ("packets", "bytes", "also"))

_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and_", "or": "or_", "xor": "xor", "shl": "shl", "lshr": "lshr",
           "ashr": "ashr", "udiv": "udiv", "urem": "urem"}  # fmt: skip
_SHIFTS = ("shl", "lshr", "ashr")
_COMPARE = {"eq": ("==", False), "ne": ("!=", False), "slt": ("<", True), "sle": ("<=", True), "ult": ("<", False),
            "ule": ("<=", False)}  # fmt: skip


class Values:
    """The values of operations in one loop's body. ``alone``: what is asked for is made here, and not in an earlier
    segment; nothing that guards it may have been asked yet."""

    def __init__(self, emitter: Emitter, builder: ir.IRBuilder, k: ir.Value, segment: int) -> None:
        self.emitter, self.builder, self.k, self.segment = emitter, builder, k, segment
        self.held: dict[int, ir.Value] = {}
        self.rows: dict[tuple[int, str], ir.Value] = {}
        self.rows_of_parts: dict[int, ir.Value] = {}  # addresses, see ``recall``
        self.fails: Any = None
        self.loose = self.alone = False

    def __getitem__(self, arg: Any) -> ir.Value:
        if isinstance(arg, Const):
            return WORD(arg.word)
        found = self.held.get(arg)
        if found is None and self.alone:
            self.make(arg, self.fails)
            found = self.held[arg]
        if found is None:
            # Where it is needed first may be a branch: its memory is read at once, before any.
            found = self.held[arg] = self.emitter.handed_on(self, arg)
        return found

    def address(self, path: str, row: ir.Value, stride: int, offset: int) -> ir.Value:
        builder = self.builder
        base = self.emitter.tables[path, DATA]
        at = builder.add(base, builder.add(builder.mul(row, WORD(stride)), WORD(offset)))
        return builder.inttoptr(at, POINTER)

    def field(self, path: str, row: ir.Value, stride: int, offset: int, size: int) -> ir.Value:
        kind = ir.IntType(8 * size)
        found = self.builder.load(self.builder.bitcast(self.address(path, row, stride, offset), kind.as_pointer()))
        return found if size == 8 else self.builder.zext(found, WORD)

    def put(self, path: str, row: ir.Value, stride: int, offset: int, size: int, value: ir.Value) -> None:
        kind = ir.IntType(8 * size)
        cut = value if size == 8 else self.builder.trunc(value, kind)
        self.builder.store(cut, self.builder.bitcast(self.address(path, row, stride, offset), kind.as_pointer()))

    def ask(self, line: Line, intrinsic: Any) -> None:
        root, path, stride, shift = line
        builder, row = self.builder, self[root]
        if path in _SLOTS:
            row = self.slot_home(path, row)
        elif shift < 0:
            row = builder.and_(row, builder.sub(self.emitter.tables[path, SHAPE], WORD(1)))
        address = self.address(path, row, stride, max(shift, 0))
        builder.call(intrinsic, [address, *ASKED])

    def ask_counter(self, op: Op, intrinsic: Any) -> None:
        path, stride, *_ = op.info
        address = self.address(path, self.counter_home(self.counter_key(op), path), stride, 0)
        self.builder.call(intrinsic, [address, *ASKED])

    def make(self, number: int, fails: Any) -> None:
        """``emit``, behind what it is made from, unless that has been done."""
        if number not in self.held:
            self.fails = fails
            for arg in self.emitter.plan.ops[number].args:
                if isinstance(arg, int):
                    self[arg]
            self.emit(number, fails)

    def emit(self, number: int, fails: Any) -> None:
        op = self.emitter.plan.ops[number]
        self.fails, self.loose = fails, self.alone or number in self.emitter.schedule.loose
        value: Any
        if op.code in _BINARY:
            one, other = (self[arg] for arg in op.args)
            if op.code in _SHIFTS and not isinstance(op.args[1], Const):
                other = self.builder.and_(other, WORD(63))  # LLVM may do as it likes past that
            value = getattr(self.builder, _BINARY[op.code])(one, other)
        elif op.code in _COMPARE:
            sign, is_signed = _COMPARE[op.code]
            compare = self.builder.icmp_signed if is_signed else self.builder.icmp_unsigned
            value = self.builder.zext(compare(sign, self[op.args[0]], self[op.args[1]]), WORD)
        elif op.code in ("least", "most"):
            one, other = (self[arg] for arg in op.args)
            value = self._extreme(op.code, one, other)
        else:
            value = getattr(self, f"_{op.code}")(op)
        if value is not None:
            self.held[number] = value

    def _extreme(self, code: str, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned("<" if code == "least" else ">", one, other), one, other)

    def _at_most(self, number: ir.Value, most: ir.Value) -> ir.Value:
        return self._extreme("least", number, most)

    def _row(self, arg: Any, path: str) -> ir.Value:
        """A row of a table; one that is there, if the number may make no sense."""
        if not self.loose or isinstance(arg, Const):
            return self[arg]
        found = self.rows.get((arg, path))
        if found is None:
            most = self.builder.sub(self.emitter.tables[path, ITEMS], WORD(1))
            found = self.rows[arg, path] = self._at_most(self[arg], most)
        return found

    def slot_home(self, path: str, digest: ir.Value) -> ir.Value:
        """``flow_index.home``."""
        low = self.builder.and_(digest, WORD(0xFFFFFFFF))
        return self.builder.lshr(self.builder.mul(low, self.emitter.tables[path, SHAPE]), WORD(32))

    def slot_after(self, path: str, at: ir.Value) -> ir.Value:
        """``flow_index.after``."""
        following = self.builder.add(at, WORD(1))
        last = self.builder.icmp_unsigned("==", following, self.emitter.tables[path, SHAPE])
        return self.builder.select(last, WORD(0), following)

    # -- operations ---------------------------------------------------------------------------------------------------
    def _input(self, op: Op) -> ir.Value:
        emitter = self.emitter
        at = self.builder.add(emitter.first, self.k)
        return {"i": at, "serial": self.builder.add(emitter.serial, self.k), "seed": emitter.seed}[op.info]

    def _length(self, op: Op) -> ir.Value:
        path, axis = op.info
        return self.emitter.tables[path, SHAPE + axis]

    def _load(self, op: Op) -> ir.Value:
        path, stride, offset, size, is_signed = op.info
        found = self.field(path, self._row(op.args[0], path), stride, offset, size)
        if not is_signed or size == 8:
            return found
        return self.builder.sext(self.builder.trunc(found, ir.IntType(8 * size)), WORD)

    def _store(self, op: Op) -> None:
        path, stride, offset, size = op.info
        self.put(path, self[op.args[0]], stride, offset, size, self[op.args[1]])

    def _select(self, op: Op) -> ir.Value:
        condition = self.builder.icmp_unsigned("!=", self[op.args[0]], WORD(0))
        return self.builder.select(condition, self[op.args[1]], self[op.args[2]])

    def _guard(self, op: Op) -> None:
        goes = self.emitter.function.append_basic_block("goes")
        holds = self.builder.icmp_unsigned("!=" if op.info else "==", self[op.args[0]], WORD(0))
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
        at = builder.phi(WORD)
        at.add_incoming(start, before)
        turns = builder.phi(WORD) if self.loose else None
        ends, following = step(at)
        builder.cbranch(ends, done, more)
        builder.position_at_end(more)
        at.add_incoming(following, more)
        if turns is None:
            builder.branch(head)
        else:
            turns.add_incoming(WORD(0), before)
            turns.add_incoming(builder.add(turns, WORD(1)), more)
            builder.cbranch(builder.icmp_unsigned("<", turns, WORD(_TURNS)), head, self.fails)
        builder.position_at_end(done)
        return at

    def _probe(self, op: Op) -> ir.Value:
        path, stride, step, keys, free = op.info
        base, start, size, *wanted = (self[arg] for arg in op.args)
        builder = self.builder
        begin = builder.mul(base, WORD(stride))
        mask = builder.sub(size, WORD(1))

        def field(at: ir.Value, offset: int, width: int) -> ir.Value:
            place = builder.add(begin, builder.mul(at, WORD(step)))
            if self.loose:
                most = builder.sub(builder.mul(self.emitter.tables[path, ITEMS], WORD(stride)), WORD(step))
                place = self._at_most(place, most)
            return self.field(path, place, 1, offset, width)

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            same: Any = ir.IntType(1)(1)
            for (offset, width), value in zip(keys, wanted):
                same = builder.and_(same, builder.icmp_unsigned("==", field(at, offset, width), value))
            ends = builder.or_(same, builder.icmp_unsigned("==", field(at, *free), WORD(0)))
            return ends, builder.and_(builder.add(at, WORD(1)), mask)

        return self._while(builder.and_(start, mask), look)

    def _search(self, op: Op) -> ir.Value:
        path, stride, kind = op.info
        at, count, value = (self[arg] for arg in op.args)
        builder = self.builder

        def look(place: ir.Value) -> tuple[ir.Value, ir.Value]:
            pair = builder.add(at, builder.shl(place, WORD(1)))
            if self.loose:
                pair = self._at_most(pair, builder.sub(self.emitter.tables[path, ITEMS], WORD(3)))
            if kind == "interval":  # is the next one above it?
                held = self.field(path, pair, stride, 2 * stride, 4)
                last = builder.icmp_unsigned(">=", builder.add(place, WORD(1)), count)
                ends = builder.or_(last, builder.icmp_unsigned(">", held, value))
            else:
                high, low = (self.field(path, pair, stride, word * stride, 4) for word in range(2))
                held = builder.or_(builder.shl(high, WORD(32)), low)
                ends = builder.or_(builder.icmp_unsigned(">=", place, count), builder.icmp_unsigned(">", held, value))
            return ends, builder.add(place, WORD(1))

        return self._while(WORD(0), look)

    def _within(self, op: Op) -> ir.Value:
        path, stride, (hi_at, lo_at, length_at) = op.info
        start, end, hi, lo = (self[arg] for arg in op.args)
        builder, wide = self.builder, ir.IntType(128)

        def both(high: ir.Value, low: ir.Value) -> ir.Value:
            return builder.or_(builder.shl(builder.zext(high, wide), wide(64)), builder.zext(low, wide))

        address = both(hi, lo)

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            # A row past the last may be another namespace's, and is not looked at for long.
            row = self._at_most(at, builder.sub(self.emitter.tables[path, ITEMS], WORD(1)))
            length = self.field(path, row, stride, length_at, 4)
            held = both(self.field(path, row, stride, hi_at, 8), self.field(path, row, stride, lo_at, 8))
            shift = builder.and_(builder.zext(builder.sub(WORD(128), length), wide), wide(127))
            differs = builder.icmp_unsigned("!=", builder.lshr(builder.xor(held, address), shift), wide(0))
            inside = builder.or_(builder.icmp_unsigned("==", length, WORD(0)), builder.not_(differs))
            ends = builder.or_(builder.icmp_unsigned(">=", at, end), inside)
            return ends, builder.add(at, WORD(1))

        return self._while(start, look)

    def _absent(self, op: Op) -> ir.Value:
        path, stride, records, size, alike = op.info
        builder, (digest, *values) = self.builder, (self[arg] for arg in op.args)
        tag = builder.and_(builder.lshr(digest, WORD(32)), WORD(int(TAG)))
        function = self.emitter.function
        head, looks, more, compare, goes = (
            function.append_basic_block(name) for name in ("search", "looks", "more", "compare", "goes")
        )
        start, before = self.slot_home(path, digest), builder.block
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(WORD)
        at.add_incoming(start, before)
        held = self.field(path, at, stride, 0, 4)
        builder.cbranch(builder.icmp_unsigned("==", held, WORD(0)), goes, looks)
        builder.position_at_end(looks)
        same = builder.icmp_unsigned("==", builder.and_(held, WORD(int(TAG))), tag)
        builder.cbranch(builder.and_(same, builder.icmp_unsigned("!=", held, WORD(int(TOMB)))), compare, more)
        builder.position_at_end(compare)
        record = builder.and_(held, WORD(int(NUMBER)))
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
        return WORD(1)

    def _lacks(self, op: Op) -> ir.Value:
        path, stride = op.info
        builder, (start, value) = self.builder, (self[arg] for arg in op.args)
        mask = builder.sub(self.emitter.tables[path, SHAPE], WORD(1))
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 8))
            ends = builder.or_(
                builder.icmp_unsigned("==", held[0], value), builder.icmp_unsigned("==", held[0], WORD(0))
            )
            return ends, builder.and_(builder.add(at, WORD(1)), mask)

        self._while(builder.and_(start, mask), look)
        goes = self.emitter.function.append_basic_block("goes")
        builder.cbranch(builder.icmp_unsigned("==", held[0], value), self.fails, goes)
        builder.position_at_end(goes)
        return WORD(1)

    def _insert(self, op: Op) -> None:
        path, stride, counts, counter = op.info
        builder, (digest, number) = self.builder, (self[arg] for arg in op.args)
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 4))
            ends = builder.or_(
                builder.icmp_unsigned("==", held[0], WORD(0)), builder.icmp_unsigned("==", held[0], WORD(int(TOMB)))
            )
            return ends, self.slot_after(path, at)

        at = self._while(self.slot_home(path, digest), look)
        tag = builder.and_(builder.lshr(digest, WORD(32)), WORD(int(TAG)))
        self.put(path, at, stride, 0, 4, builder.or_(tag, number))
        reused = builder.zext(builder.icmp_unsigned("!=", held[0], WORD(0)), WORD)
        tombs = self.field(counts, WORD(counter), 8, 0, 8)
        self.put(counts, WORD(counter), 8, 0, 8, builder.sub(tombs, reused))

    def counter_key(self, op: Op) -> ir.Value:
        """Of the counters of a namespace's rule: see ``counter_table``."""
        where, rule = self[op.args[0]], self[op.args[1]]
        if len(op.info) > 2:
            where = self.builder.or_(where, WORD(op.info[2] << 24))
        return self.builder.or_(self.builder.shl(where, WORD(32)), rule)

    def counter_home(self, key: ir.Value, path: str) -> ir.Value:
        mask = self.builder.sub(self.emitter.tables[path, SHAPE], WORD(1))
        builder = self.builder
        lower = builder.mul(builder.and_(key, WORD(0xFFFFFFFF)), WORD(int(LOWER)))  # ``hashmap.spread``
        value = builder.xor(lower, builder.mul(builder.lshr(key, WORD(32)), WORD(int(UPPER))))
        return builder.and_(builder.xor(builder.lshr(value, WORD(32)), builder.lshr(value, WORD(13))), mask)

    def _count(self, op: Op) -> ir.Value:
        """How many counters are new."""
        builder, where = self.builder, self[op.args[0]]
        rule, packets, volume, *others = (self[arg] for arg in op.args[1:])
        key = self.counter_key(op)
        if not others:
            return self._add_to(op, *self._counter(op, key), packets, volume)
        parts = [builder.shl(builder.add(one, WORD(1)), WORD(32 * place)) for place, one in enumerate(others)]
        also = parts[0] if len(parts) == 1 else builder.or_(*parts)
        at, fresh = self._counter(op, key)
        path, stride, *_ = op.info
        same = builder.icmp_unsigned("==", self.field(path, at, stride, _ALSO_AT, 8), also)
        one_for_all, each, after = (self.emitter.function.append_basic_block(name) for name in ("all", "each", "after"))
        builder.cbranch(builder.or_(fresh, same), one_for_all, each)
        builder.position_at_end(one_for_all)
        self.put(path, at, stride, _ALSO_AT, 8, also)
        together = self._add_to(op, at, fresh, packets, volume)
        builder.branch(after)
        builder.position_at_end(each)
        apart: Any = WORD(0)
        for number in (rule, *others):
            own = self._counter(op, builder.or_(builder.shl(where, WORD(32)), number))
            apart = builder.add(apart, self._add_to(op, *own, packets, volume))
        last = builder.block
        builder.branch(after)
        builder.position_at_end(after)
        found = builder.phi(WORD)
        found.add_incoming(together, one_for_all)
        found.add_incoming(apart, last)
        return found

    def _counter(self, op: Op, key: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where a counter is, its key written; and is it new?"""
        path, stride, *_ = op.info
        builder = self.builder
        mask = builder.sub(self.emitter.tables[path, SHAPE], WORD(1))
        held: list[ir.Value] = []

        def look(at: ir.Value) -> tuple[ir.Value, ir.Value]:
            held.append(self.field(path, at, stride, 0, 8))
            ends = builder.or_(builder.icmp_unsigned("==", held[0], key), builder.icmp_unsigned("==", held[0], WORD(0)))
            return ends, builder.and_(builder.add(at, WORD(1)), mask)

        at = self._while(self.counter_home(key, path), look)
        self.put(path, at, stride, 0, 8, key)
        return at, builder.icmp_unsigned("==", held[0], WORD(0))

    def _add_to(self, op: Op, at: ir.Value, fresh: ir.Value, packets: ir.Value, volume: ir.Value) -> ir.Value:
        path, stride, *_ = op.info
        for offset, more in ((_PACKETS_AT, packets), (_BYTES_AT, volume)):
            self.put(path, at, stride, offset, 8, self.builder.add(self.field(path, at, stride, offset, 8), more))
        return self.builder.zext(fresh, WORD)
