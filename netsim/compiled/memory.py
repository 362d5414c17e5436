"""Arrays that begin on a cache line: a record of 64 bytes must not straddle two, nor must blocks that are laid out by lines.

What the allocator gives begins 16 bytes into a line: every second record of 32 bytes, and all of 64, would lie in two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LINE = 64  # bytes
_PAGE = 4096


def aligned(count: int, dtype: npt.DTypeLike, *, there: bool = False) -> Any:
    """``count`` zeros. ``there``: the kernel finds memory for them now, and not packet by packet."""
    size = np.dtype(dtype).itemsize
    room = np.zeros(count * size + LINE, np.uint8)
    if there:
        room[::_PAGE] = 0
    start = -room.ctypes.data % LINE
    return room[start : start + count * size].view(dtype)


def padded(fields: list[Any], size: int) -> np.dtype[Any]:
    """A record of ``size`` bytes, so that none lies in two lines; what is behind its fields is nobody's."""
    made = np.dtype(fields)
    held: Any = made.fields or {}
    names = list(made.names or ())
    return np.dtype(
        {"names": names, "formats": [held[name][0] for name in names], "offsets": [held[name][1] for name in names],
         "itemsize": size}
    )  # fmt: skip


def longer(array: npt.NDArray[Any], count: int, *, there: bool = False) -> Any:
    """The same items, and zeros behind them: ``count`` in all."""
    grown = aligned(count, array.dtype, there=there)
    grown[: len(array)] = array
    return grown
