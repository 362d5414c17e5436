"""What vectors do, against the same in plain Python."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from netsim.compiled.flow_records import HOT
from netsim.compiled.jit import kernel
from netsim.compiled.vectors import WIDE, fits, transpose

APART = 48


@kernel
def columns_of(rows, numbers, columns):  # type: ignore[no-untyped-def]
    for at in range(np.uint64(0), np.uint64(numbers.shape[0]), np.uint64(WIDE)):
        transpose(rows, numbers, at, columns, at, APART)


@kernel
def distance(slots, at, wanted):  # type: ignore[no-untyped-def]
    return fits(slots, np.uint64(at), np.uint32(wanted))


def test_records_become_columns() -> None:
    random = np.random.default_rng(1)
    words = random.integers(0, 1 << 32, (100, WIDE), np.uint32)
    numbers = random.integers(0, len(words), APART, np.uint32)
    columns = np.zeros(WIDE * APART, np.uint32)
    columns_of(words.reshape(-1).view(HOT), numbers, columns)
    assert (columns.reshape(WIDE, APART) == words[numbers].T).all()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="lines are those of the memory")  # type: ignore[attr-defined]
@pytest.mark.parametrize("start", range(0, 64, 4))
def test_the_first_slot_of_the_line_that_fits_or_is_empty(start: int) -> None:
    """Wherever the table begins in its first line, and whatever lies behind it."""
    random = np.random.default_rng(start)
    room = np.zeros(4 * 256 + 256, np.uint8)
    begin = -room.ctypes.data % 64 + start
    memory = room[begin : begin + 4 * (256 + WIDE)].view(np.uint32)
    memory[:] = random.integers(0, 4, len(memory), np.uint32) << 24 | 5 * random.integers(0, 2, len(memory), np.uint32)
    for at in range(256):
        line = WIDE - (at + start // 4) % WIDE  # slots from here to the end of the line
        for tag in range(5):
            held = memory[at : at + line]
            there = np.flatnonzero((held >> 24 == tag) | (held == 0))
            assert distance(memory[:256], at, tag << 24) == (there[0] if len(there) else WIDE)
