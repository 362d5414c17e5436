"""The kernel's hash, against values computed with Bob Jenkins' own hashword."""

from __future__ import annotations

import pytest

from netsim.linux.jhash import jhash2


def hashword(words: list[int], start: int) -> int:
    """lookup3.c's hashword, written out; the kernel adds the length in bytes and ``start`` in the same way."""

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & 0xFFFFFFFF

    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + (len(words) << 2) + start) & mask
    left = list(words)
    while len(left) > 3:
        a, b, c = (a + left[0]) & mask, (b + left[1]) & mask, (c + left[2]) & mask
        a = ((a - c) & mask) ^ rot(c, 4)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 6)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 8)
        b = (b + a) & mask
        a = ((a - c) & mask) ^ rot(c, 16)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 19)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 4)
        b = (b + a) & mask
        left = left[3:]
    if not left:
        return c
    c = (c + (left[2] if len(left) > 2 else 0)) & mask
    b = (b + (left[1] if len(left) > 1 else 0)) & mask
    a = (a + left[0]) & mask
    c = ((c ^ b) - rot(b, 14)) & mask
    a = ((a ^ c) - rot(c, 11)) & mask
    b = ((b ^ a) - rot(a, 25)) & mask
    c = ((c ^ b) - rot(b, 16)) & mask
    a = ((a ^ c) - rot(c, 4)) & mask
    b = ((b ^ a) - rot(a, 14)) & mask
    return ((c ^ b) - rot(b, 24)) & mask


@pytest.mark.parametrize("length", range(8))
def test_it_is_hashword(length: int) -> None:
    words = [0x01020304 * (place + 1) & 0xFFFFFFFF for place in range(length)]
    for start in (0, 7, 0xFFFFFFFF):
        assert jhash2(words, start) == hashword(words, start)
