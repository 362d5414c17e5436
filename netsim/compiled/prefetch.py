"""Ask for a cache line before it is needed: LLVM's ``prefetch`` on a row of a structured array.

Worth it where branches depend on the loaded data, as when the flow of a packet is verified; a loop of independent loads
keeps more of them in flight by itself than prefetching would.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

if numba.config.DISABLE_JIT:

    def prefetch(array: Any, row: Any) -> None:
        """Nothing to do without a compiler."""

    prefetch_read = prefetch

else:

    def _asks(to_write: int) -> Any:
        def typed(typing_context: Any, array: Any, row: Any) -> Any:
            def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                base = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
                number = builder.zext(args[1], ir.IntType(64)) if args[1].type.width < 64 else args[1]
                pointer = builder.bitcast(builder.gep(base, [number]), ir.IntType(8).as_pointer())
                word = ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
                function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
                builder.call(function, [pointer, word(to_write), word(3), word(1)])
                return context.get_dummy_value()

            return types.void(array, row), code

        return typed

    prefetch = intrinsic(_asks(1))  # ``array[row]`` will be written soon; a row that is not there does no harm
    prefetch_read = intrinsic(_asks(0))  # it will be read, perhaps by several threads at once
