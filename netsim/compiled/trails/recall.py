"""Parts of a trail as machine code (``parts``, ``memo``): look up what has been worked out for a key, or work it out.

row of the key ─┬─ KEPT ───────────────────────────────────┬─▶ its numbers, where the rest of the trail asks for them
                └─ else ─▶ the members, in order ─▶ BEGUN ─┘   … at the end of the walk: KEPT
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir

from netsim.compiled.memory import LINE
from netsim.compiled.trails import memo
from netsim.compiled.trails.operations import ASKED, POINTER, WORD, Values

if TYPE_CHECKING:
    from netsim.compiled.trails.parts import Part

_HALF = ir.IntType(32)


def _word(values: Values, part: int, word: int) -> ir.Value:
    """Where a part's ADDRESS, SHIFT or ROOM is."""
    at = int(values.emitter.memo.directory.ctypes.data) + 8 * (memo.WORDS * part + word)
    return values.builder.inttoptr(WORD(at), WORD.as_pointer())


def _home(values: Values, part: int) -> tuple[ir.Value, ir.Value]:
    """The number of the row where the search for a key begins, and how many rows there are, less one."""
    builder = values.builder
    shift = builder.load(_word(values, part, memo.SHIFT))
    key = values[values.emitter.schedule.parts[part].key]
    home = builder.lshr(builder.mul(key, WORD(memo.SPREAD)), shift)
    return home, builder.lshr(WORD(-1), shift)


def ask_row(values: Values, part: int, intrinsic: Any) -> None:
    """Have the lines of a key's row brought."""
    builder, size = values.builder, values.emitter.schedule.parts[part].size
    address = builder.load(_word(values, part, memo.ADDRESS))
    home, _ = _home(values, part)
    row = builder.add(address, builder.mul(home, WORD(size)))
    for line in range(0, size, LINE):
        builder.call(intrinsic, [builder.inttoptr(builder.add(row, WORD(line)), POINTER), *ASKED])


def recall(values: Values, number: int, dies: Any) -> None:
    """The row that has the kept numbers of a part, in the slot of its rows."""
    emitter, builder = values.emitter, values.builder
    part = emitter.schedule.parts[number]
    address, room = builder.load(_word(values, number, memo.ADDRESS)), _word(values, number, memo.ROOM)
    home, mask = _home(values, number)
    key = values[part.key]

    head, more, found = (emitter.function.append_basic_block(name) for name in ("search", "more", "found"))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    at = builder.phi(WORD)
    at.add_incoming(home, before)
    row = builder.add(address, builder.mul(at, WORD(part.size)))
    state = builder.load(place(builder, row, memo.STATE_AT, 4))
    same = builder.icmp_unsigned("==", builder.load(place(builder, row, 0, 8)), key)
    free = builder.icmp_unsigned("==", state, _HALF(memo.FREE))
    builder.cbranch(builder.or_(same, free), found, more)
    builder.position_at_end(more)
    at.add_incoming(builder.and_(builder.add(at, WORD(1)), mask), more)
    builder.branch(head)

    builder.position_at_end(found)
    unknown, after = (emitter.function.append_basic_block(name) for name in ("unknown", "after"))
    builder.cbranch(builder.icmp_unsigned("==", state, _HALF(memo.KEPT)), after, unknown)
    builder.position_at_end(unknown)
    values.fails = dies
    begun = _begun(values, number, _worked_out(values, part, dies), row, free, room)
    last = builder.block
    builder.branch(after)

    builder.position_at_end(after)
    held = builder.phi(WORD)
    held.add_incoming(row, found)
    held.add_incoming(begun, last)
    values.rows_of_parts[number] = held
    builder.store(held, emitter.slot(builder, emitter.schedule.rows[number], values.k))


def place(builder: ir.IRBuilder, row: ir.Value, offset: int, width: int) -> ir.Value:
    """Where a number of ``width`` bytes lies in a row."""
    return builder.inttoptr(builder.add(row, WORD(offset)), ir.IntType(8 * width).as_pointer())


def _worked_out(values: Values, part: Part, dies: Any) -> list[ir.Value]:
    """The kept numbers, by the part's operations."""
    inside = Values(values.emitter, values.builder, values.k, values.segment)
    inside.held[part.key] = values[part.key]
    inside.alone = True
    for member in part.members:
        inside.make(member, dies)
    return [inside[number] for number in part.kept]


def _begun(
    values: Values, number: int, made: list[ir.Value], row: ir.Value, free: ir.Value, room: ir.Value
) -> ir.Value:
    """Write the numbers into the row if there is room for one more, else into one that this packet alone has: which it is. A
    packet whose numbers do not fit leaves the trail."""
    builder, emitter = values.builder, values.emitter
    part = emitter.schedule.parts[number]
    narrow: Any = WORD(0)
    for (_, width), one in zip(part.places, made):
        if width == 4:
            narrow = builder.or_(narrow, one)
    fits = emitter.function.append_basic_block("fits")
    builder.cbranch(builder.icmp_unsigned("==", builder.lshr(narrow, WORD(32)), WORD(0)), fits, values.fails)
    builder.position_at_end(fits)
    left = builder.load(room)
    may = builder.or_(builder.not_(free), builder.icmp_signed(">", left, WORD(0)))
    builder.store(builder.sub(left, builder.zext(builder.and_(may, free), WORD)), room)
    own = builder.ptrtoint(emitter.slot(builder, emitter.schedule.own_rows[number], WORD(0)), WORD)
    into = builder.select(may, row, builder.add(own, builder.mul(values.k, WORD(part.size))))
    builder.store(values[part.key], place(builder, into, 0, 8))
    builder.store(_HALF(memo.BEGUN), place(builder, into, memo.STATE_AT, 4))
    for (offset, width), one in zip(part.places, made):
        cut = one if width == 8 else builder.trunc(one, _HALF)
        builder.store(cut, place(builder, into, offset, width))
    return into


def kept_number(values: Values, number: int) -> ir.Value:
    """A number that a part has kept."""
    emitter, builder = values.emitter, values.builder
    part, offset, width = emitter.schedule.kept[number]
    row = values.rows_of_parts.get(part)
    if row is None:
        row = builder.load(emitter.slot(builder, emitter.schedule.rows[part], values.k))
        values.rows_of_parts[part] = row
    held = builder.load(place(builder, row, offset, width))
    return held if width == 8 else builder.zext(held, WORD)


def keep(values: Values) -> None:
    """The packet has passed every guard: rows that it has begun are kept."""
    emitter, builder = values.emitter, values.builder
    for slot in emitter.schedule.rows:
        row = builder.load(emitter.slot(builder, slot, values.k))
        state = place(builder, row, memo.STATE_AT, 4)
        begun, after = (emitter.function.append_basic_block(name) for name in ("begun", "kept"))
        builder.cbranch(builder.icmp_unsigned("==", builder.load(state), _HALF(memo.BEGUN)), begun, after)
        builder.position_at_end(begun)
        builder.store(_HALF(memo.KEPT), state)
        builder.branch(after)
        builder.position_at_end(after)
