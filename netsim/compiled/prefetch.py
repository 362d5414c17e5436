"""Ask for a cache line before it is needed: LLVM's ``prefetch`` on a row of a structured array.

Worth it where branches depend on the loaded data, as when the flow of a packet is verified; a loop of independent loads
keeps more of them in flight by itself than prefetching would.

Lines go to the second cache. The first can wait for some two dozen lines at a time, and what the program itself loads and
stores must share them; to ask for lines to be written there costs more still. From the second cache a line comes within a
dozen cycles, which out-of-order execution hides.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_READ, _SECOND_CACHE, _DATA = 0, 2, 1

if numba.config.DISABLE_JIT:

    def prefetch(array: Any, row: Any) -> None:
        """Nothing to do without a compiler."""

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(typing_context: Any, array: Any, row: Any) -> Any:
        """``array[row]`` will be needed soon; a row that is not there does no harm."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
            number = builder.zext(args[1], ir.IntType(64)) if args[1].type.width < 64 else args[1]
            pointer = builder.bitcast(builder.gep(base, [number]), ir.IntType(8).as_pointer())
            word = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [pointer, word(_READ), word(_SECOND_CACHE), word(_DATA)])
            return context.get_dummy_value()

        return types.void(array, row), code
