"""A cache line of sixteen words at a time, as a vector of LLVM's: whatever registers the processor has, LLVM cuts vectors to
their width.

``transpose`` makes columns of sixteen records, so that one instruction does the arithmetic of many packets: sixteen loads
and four rounds of shuffles. ``fits`` compares all slots of a line at once, where a loop over them would be foreseen badly.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

WIDE = 16  # records, and words of each

if numba.config.DISABLE_JIT:

    def transpose(rows: Any, numbers: Any, at: Any, columns: Any, to: Any, apart: int) -> None:
        """The records ``rows[numbers[at : at + WIDE]]``: word ``f`` of the ``k``-th goes to ``columns[to + f * apart + k]``.

        ``rows``: of 64 bytes each; ``numbers`` and ``columns``: uint32; ``apart``: a constant."""
        words = rows[numbers[int(at) : int(at) + WIDE]].view(np.uint32).reshape(WIDE, WIDE)
        for place in range(WIDE):
            begin = int(to) + place * apart
            columns[begin : begin + WIDE] = words[:, place]

    def fits(slots: Any, at: Any, wanted: Any) -> int:
        """How far behind ``at`` the first of the line's slots is that is 0 or differs from ``wanted`` in its low 24 bits at
        most; ``WIDE`` if there is none. ``slots``: uint32. What lies behind the last one may seem to be a slot."""
        for place, slot in enumerate(slots[int(at) : (int(at) | (WIDE - 1)) + 1].tolist()):
            if slot == 0 or slot ^ int(wanted) < 1 << 24:
                return place
        return WIDE

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(typing_context: Any, rows: Any, numbers: Any, at: Any, columns: Any, to: Any, apart: Any) -> Any:
        if not isinstance(apart, types.IntegerLiteral):
            return None
        stride = apart.literal_value

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word, vector = ir.IntType(32), ir.VectorType(ir.IntType(32), WIDE)

            def data(place: int) -> Any:
                return cgutils.create_struct_proxy(signature.args[place])(context, builder, value=args[place]).data

            def load(pointer: Any) -> Any:
                made = builder.load(builder.bitcast(pointer, vector.as_pointer()))
                made.align = 4
                return made

            held = []
            first = builder.gep(data(1), [args[2]])
            for k in range(WIDE):
                number = builder.load(builder.gep(first, [ir.Constant(word, k)]))
                held.append(load(builder.gep(data(0), [builder.zext(number, ir.IntType(64))])))
            for step in (8, 4, 2, 1):
                low = [j - step + WIDE if j & step else j for j in range(WIDE)]
                high = [j + WIDE if j & step else j + step for j in range(WIDE)]
                low, high = (ir.Constant(ir.VectorType(word, WIDE), mask) for mask in (low, high))
                for k in range(WIDE):
                    if not k & step:
                        one, other = held[k], held[k + step]
                        held[k] = builder.shuffle_vector(one, other, low)
                        held[k + step] = builder.shuffle_vector(one, other, high)
            into = builder.gep(data(3), [args[4]])
            for place, column in enumerate(held):
                pointer = builder.bitcast(builder.gep(into, [ir.Constant(word, place * stride)]), vector.as_pointer())
                builder.store(column, pointer, align=4)
            return context.get_dummy_value()

        return types.void(rows, numbers, at, columns, to, apart), code

    @intrinsic  # type: ignore[untyped-decorator]
    def fits(typing_context: Any, slots: Any, at: Any, wanted: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word, wide, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.IntType(32), WIDE)
            base = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
            address = builder.ptrtoint(builder.gep(base, [args[1]]), wide)
            # The whole line is read, also where it begins before the table or ends behind it: it is all in one page.
            line = builder.inttoptr(builder.and_(address, ir.Constant(wide, -4 * WIDE)), vector.as_pointer())
            held = builder.load(line, align=4 * WIDE)
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, args[2], ir.Constant(word, 0))
            same = builder.shuffle_vector(first, undefined, ir.Constant(vector, [0] * WIDE))
            limit = ir.Constant(vector, [1 << 24] * WIDE)
            found = builder.icmp_unsigned("<", builder.xor(held, same), limit)
            found = builder.or_(found, builder.icmp_unsigned("==", held, ir.Constant(vector, [0] * WIDE)))
            bits = builder.zext(builder.bitcast(found, ir.IntType(WIDE)), wide)
            before = builder.and_(builder.lshr(address, ir.Constant(wide, 2)), ir.Constant(wide, WIDE - 1))
            none = ir.Constant(wide, 1 << WIDE)
            return builder.cttz(builder.or_(builder.lshr(bits, before), none), ir.Constant(ir.IntType(1), 1))

        return types.uint64(slots, at, types.uint32), code
