"""``jhash2`` of the kernel (``include/linux/jhash.h``): Bob Jenkins' lookup3 over 32-bit words."""

from __future__ import annotations

from collections.abc import Sequence

_GOLDEN = 0xDEADBEEF
_WORD = 0xFFFFFFFF
_MIX = (4, 6, 8, 16, 19, 4)
_FINAL = (14, 11, 25, 16, 4, 14, 24)


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _WORD


def jhash2(words: Sequence[int], start: int = 0) -> int:
    """32 bits of hash over 32-bit ``words``; ``start`` is the initial value."""
    first = (_GOLDEN + (len(words) << 2) + start) & _WORD
    state = [first, first, first]
    at = 0
    while len(words) - at > 3:
        state = [(value + word) & _WORD for value, word in zip(state, words[at : at + 3], strict=True)]
        _mix(state)
        at += 3
    rest = words[at:]
    if not rest:
        return state[2]
    for place, word in enumerate(rest):
        state[place] = (state[place] + word) & _WORD
    for turn, by in enumerate(_FINAL):  # c ^= b, c -= rol(b); a ^= c, a -= rol(c); b ^= a, b -= rol(a); …
        here, there = ((2, 1), (0, 2), (1, 0))[turn % 3]
        state[here] = ((state[here] ^ state[there]) - _rotate(state[there], by)) & _WORD
    return state[2]


def _mix(state: list[int]) -> None:
    for turn, by in enumerate(_MIX):  # a -= c, a ^= rol(c), c += b; b -= a, b ^= rol(a), a += c; …
        here, there, other = ((0, 2, 1), (1, 0, 2), (2, 1, 0))[turn % 3]
        state[here] = ((state[here] - state[there]) & _WORD) ^ _rotate(state[there], by)
        state[there] = (state[there] + state[other]) & _WORD
