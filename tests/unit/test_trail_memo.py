"""What trails remember: rows are found again where machine code searches them, however often the memo has grown."""

from __future__ import annotations

import numpy as np
import pytest

from netsim.compiled.trails import memo
from netsim.compiled.trails.memo import BEGUN, FREE, KEPT, ROOM, SPREAD, STATE_AT, WORDS, Memo

SIZE = 64


def _write(held: Memo, key: int, state: int, number: int) -> None:
    """As a trail does (``recall``): the first free row from the key's home on."""
    rows = held._rows[0]
    at = (key * SPREAD & (1 << 64) - 1) >> int(held.directory[memo.SHIFT])
    while int.from_bytes(rows[at, STATE_AT : STATE_AT + 4].tobytes(), "little") != FREE:
        at = (at + 1) % len(rows)
    rows[at, :8].view(np.uint64)[0] = key
    rows[at, STATE_AT : STATE_AT + 4].view(np.uint32)[0] = state
    rows[at, 16:24].view(np.uint64)[0] = number
    held.directory[ROOM] -= 1


def _found(held: Memo, key: int) -> int | None:
    rows = held._rows[0]
    at = (key * SPREAD & (1 << 64) - 1) >> int(held.directory[memo.SHIFT])
    while True:
        state = int.from_bytes(rows[at, STATE_AT : STATE_AT + 4].tobytes(), "little")
        if state == FREE:
            return None
        if int.from_bytes(rows[at, :8].tobytes(), "little") == key:
            return int.from_bytes(rows[at, 16:24].tobytes(), "little") if state == KEPT else None
        at = (at + 1) % len(rows)


def test_rows_are_found_again_when_the_memo_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_FIRST", 3)
    held, known = Memo([SIZE]), {}
    for key in np.random.default_rng(1).integers(0, 1 << 63, 3000).tolist():
        if held.directory[ROOM] <= 0:
            held.grow()
        state = BEGUN if key % 7 == 0 else KEPT
        _write(held, key, state, number := key & 0xFFFFFF)
        known[key] = number if state == KEPT else None
    assert held._bits[0] == 13
    assert all(_found(held, key) == number for key, number in known.items())
    assert _found(held, 1) is None
    rows = held._rows[0]
    used = np.count_nonzero(rows[:, STATE_AT])
    assert int(held.directory[ROOM]) == (5 << 13 >> 3) - used
    held.clear()
    assert not held._rows[0].any()
    assert int(held.directory[ROOM]) == 5 << 13 >> 3
    assert int(held.directory[memo.ADDRESS]) % 64 == 0


def test_what_nobody_has_begun_is_not_cleared_and_growing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_FIRST", 3)
    monkeypatch.setattr(memo, "_MOST", 4)
    held = Memo([SIZE, 2 * SIZE])
    before = held.directory.copy()
    held.clear()
    assert (held.directory == before).all()
    held.directory[WORDS + ROOM] = 0
    for _ in range(3):
        held.grow()
        held.directory[WORDS + ROOM] = 0
    assert held._bits == [3, 4]
