"""Machine code for a plan: a loop over a block of packets for each segment of the walk (``schedule``), and one that commits.

What a segment hands on to later ones lies in ``room``, a row of the block's packets for each number. A packet that fails a
guard takes no part any more. After the walk the packets are committed in order, until one has failed. What parts have been
worked out is kept at the end of the walk (``recall``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import binding, ir

from netsim.compiled.journey import TRAIL_BLOCK
from netsim.compiled.ref import DATA, ITEMS, SHAPE, arrays
from netsim.compiled.trails.memo import Memo
from netsim.compiled.trails.merge import CHECK, COMMIT, WALK, Plan
from netsim.compiled.trails.operations import BYTE, POINTER, WORD, Values
from netsim.compiled.trails.recall import ask_row, keep, kept_number, recall
from netsim.compiled.trails.schedule import Schedule

BLOCK = TRAIL_BLOCK


class Emitter:
    def __init__(self, plan: Plan, e: Any, b: Any, o: Any) -> None:
        self.plan = plan
        self.schedule = Schedule(plan, (e, b, o))
        self.memo = Memo([part.size for part in self.schedule.parts])
        self.offsets = {path: at for name, held in zip("ebo", (e, b, o)) for path, at, _ in arrays(held, name)}

    def module(self, name: str) -> ir.Module:
        module = ir.Module()
        words = WORD.as_pointer()
        kind = ir.FunctionType(WORD, [words, words, words, words, POINTER, *[WORD] * 5])
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
            for word in (ITEMS, DATA, SHAPE, SHAPE + 1):
                at = builder.gep(ref, [WORD(self.offsets[path] + word)])
                self.tables[path, word] = builder.load(at)
        walks, commits = (self.function.append_basic_block(name) for name in ("walks", "commits"))
        builder.cbranch(builder.icmp_unsigned("==", begin, WORD(0)), walks, commits)
        builder.position_at_end(walks)
        ask = module.declare_intrinsic(
            "llvm.prefetch", (POINTER,), ir.FunctionType(ir.VoidType(), [POINTER, *[ir.IntType(32)] * 3])
        )
        by_segment: dict[int, list[int]] = {}
        for number in range(len(self.plan.ops)):
            by_segment.setdefault(self.schedule.segment[number], []).append(number)
        for segment in range(self.schedule.segments):
            builder = self._segment(builder, by_segment.get(segment, []), segment, alive, ask)
        builder.branch(commits)
        builder.position_at_end(commits)
        self._commit(builder, by_segment.get(self.schedule.segments, []), alive)
        return module

    def _loop(self, builder: ir.IRBuilder, begin: ir.Value | None = None) -> tuple[ir.IRBuilder, ir.Value, Any, Any]:
        """A loop over the block's packets: builder in its body, the packet, blocks to go on with and to leave by."""
        function = self.function
        head, body, after, leave = (function.append_basic_block(name) for name in ("head", "body", "next", "leave"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(WORD)
        k.add_incoming(WORD(0) if begin is None else begin, before)
        builder.cbranch(builder.icmp_unsigned("<", k, self.count), body, leave)
        inside = ir.IRBuilder(after)
        k.add_incoming(inside.add(k, WORD(1)), after)
        inside.branch(head)
        builder.position_at_end(body)
        return builder, k, after, leave

    def _segment(self, builder: ir.IRBuilder, numbers: list[int], segment: int, alive: Any, ask: Any) -> ir.IRBuilder:
        builder, k, after, leave = self._loop(builder)
        lives = builder.gep(alive, [k])
        goes = self.function.append_basic_block("alive")
        builder.cbranch(builder.icmp_unsigned("!=", builder.load(lives), BYTE(0)), goes, after)
        builder.position_at_end(goes)
        dies = self.function.append_basic_block("dies")
        inside = ir.IRBuilder(dies)
        inside.store(BYTE(0), lives)
        inside.branch(after)
        values = Values(self, builder, k, segment)
        for part in self.schedule.recalled.get(segment, []):
            recall(values, part, dies)
        for number in numbers:
            if number not in self.schedule.members:
                values.emit(number, dies)
        for line in self.schedule.lines.get(segment, []):
            values.ask(line, ask)
        for part in self.schedule.recalled.get(segment + 1, []):
            ask_row(values, part, ask)
        if segment == self.schedule.segments - 1:
            for op in self.schedule.counts:
                if all(self.plan.phases[arg] == WALK for arg in op.args[:2] if isinstance(arg, int)):
                    values.ask_counter(op, ask)
        for number in numbers:
            if number in self.schedule.slots:
                builder.store(values[number], self.room_of(builder, number, k))
        if segment == self.schedule.segments - 1:
            keep(values)
        builder.branch(after)
        builder.position_at_end(leave)
        return builder

    def handed_on(self, values: Values, number: int) -> ir.Value:
        """A number from an earlier segment."""
        if number in self.schedule.kept:
            return kept_number(values, number)
        return values.builder.load(self.room_of(values.builder, number, values.k))

    def room_of(self, builder: ir.IRBuilder, number: int, k: Any) -> ir.Value:
        return self.slot(builder, self.schedule.slots[number], k)

    def slot(self, builder: ir.IRBuilder, slot: int, k: Any) -> ir.Value:
        return builder.gep(self.memory, [builder.add(k, WORD(slot * BLOCK))])

    def _commit(self, builder: ir.IRBuilder, numbers: list[int], alive: Any) -> None:
        builder, k, after, leave = self._loop(builder, self.begin)
        stops, goes = (self.function.append_basic_block(name) for name in ("stops", "goes"))
        ir.IRBuilder(stops).ret(k)
        builder.cbranch(builder.icmp_unsigned("!=", builder.load(builder.gep(alive, [k])), BYTE(0)), goes, stops)
        builder.position_at_end(goes)
        values = Values(self, builder, k, self.schedule.segments)
        for phase in (CHECK, COMMIT):
            for number in numbers:
                if self.plan.phases[number] == phase:
                    values.emit(number, stops)
        builder.branch(after)
        builder.position_at_end(leave)
        builder.ret(self.count)


class Trail(NamedTuple):
    """Machine code for ``plan``, to be called by ``along.follow`` as long as ``engine`` and ``memo`` are held, with ``room``
    words of scratch."""

    plan: Plan
    address: int
    room: int
    memo: Memo
    engine: Any


def compiled(plan: Plan, e: Any, b: Any, o: Any) -> Trail:
    name = "trail"
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
    return Trail(plan, engine.get_function_address(name), emitter.schedule.room * BLOCK, emitter.memo, engine)
