"""Finding a record by its tuple: slots of 4 bytes, 8 bits of tag | 24 bits of number, open addressing with linear probing.

A slot is not the key: whoever looks compares the record, and a tag that fits by chance (one of 256) costs a line. The
table may have any length, so it need not be half empty: with six eighths in use a search that finds looks at two and a half
slots on average, and one that finds nothing at eight and a half, nearly always in one cache line (sixteen slots); with five
eighths at less than two, which packets of known flows can tell, and at four. What has been removed leaves a *tomb*, which
searches go past; the owner of the table writes it anew before tombs and records have filled too much of it.

The hash is symmetric (both directions of a tuple meet in one slot). Its low half says where, its high byte is the tag.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, inner, kernel

U = np.uint64
TOMB = np.uint32(0xFFFFFFFF)
TAG = np.uint32(0xFF000000)

Slots = npt.NDArray[np.uint32]


def room_for(keys: int, eighths: int) -> int:
    """Slots of which so many eighths are in use with so many keys."""
    return 8 * keys // eighths + 64


@kernel
def crowded(slots: Slots, keys: Int, tombs: Int) -> Int:
    """Are so many slots in use, by ``keys`` and tombs, that the table should be written anew?"""
    return 8 * (keys + tombs) > 7 * slots.shape[0]


@kernel
def tuple_hash(proto: Int, src: Int, dst: Int, ports: Int, ipv6: Int) -> Int:
    """Symmetric: a tuple and its inverse have one hash. Of ICMP the identifier counts alone: the type changes sides."""
    if proto == 1 or proto == 58:
        a = U(src) << U(16) | U(ports) >> U(16)
        b = U(dst) << U(16) | U(ports) >> U(16)
    else:
        a = U(src) << U(16) | U(ports) >> U(16)
        b = U(dst) << U(16) | (U(ports) & U(0xFFFF))
    low = min(a, b)
    high = max(a, b)
    h = low * U(0x9E3779B97F4A7C15)
    h ^= h >> U(32)
    h = (h + high) * U(0xD6E8FEB86659FD93)
    h ^= h >> U(32)
    h = (h + (U(proto) | U(ipv6) << U(8))) * U(0xA24BAED4963EE407)
    return h ^ h >> U(29)


@kernel
def inverted_ports(proto: Int, ports: Int) -> Int:
    """The ports of the other direction; for ICMP echo the other type, with the same identifier."""
    if proto == 1:
        kind = (ports >> 8) & 0xFF
        return (ports & 0xFFFF0000) | (0 if kind == 8 else 8) << 8
    if proto == 58:
        kind = (ports >> 8) & 0xFF
        return (ports & 0xFFFF0000) | (129 if kind == 128 else 128) << 8
    return (ports >> 16 | ports << 16) & 0xFFFFFFFF


@kernel
def tag(h: Int) -> Int:
    return np.uint32(h >> U(32)) & TAG


@inner
def home(slots: Slots, h: Int) -> Int:
    """Where the search for a hash begins."""
    return (h & U(0xFFFFFFFF)) * U(slots.shape[0]) >> U(32)


@inner
def after(slots: Slots, at: Int) -> Int:
    return U(0) if at + U(1) == U(slots.shape[0]) else at + U(1)


@inner
def fitting(slots: Slots, h: Int, start: Int) -> Int:
    """The place of the first slot from ``start`` on whose tag fits a hash; of an empty one (0) if there is none."""
    wanted = tag(h)
    at = start
    while slots[at] != 0 and (slots[at] & TAG != wanted or slots[at] == TOMB):
        at = after(slots, at)
    return at


@kernel
def insert(slots: Slots, h: Int, number: Int) -> Int:
    """True if a tomb was reused."""
    at = home(slots, h)
    while slots[at] != 0 and slots[at] != TOMB:
        at = after(slots, at)
    reused = slots[at] == TOMB
    slots[at] = tag(h) | np.uint32(number)
    return reused


@kernel
def remove(slots: Slots, h: Int, number: Int) -> Int:
    """True if it was there; a tomb is now."""
    wanted = tag(h) | np.uint32(number)
    at = home(slots, h)
    while slots[at] != 0:
        if slots[at] == wanted:
            slots[at] = TOMB
            return True
        at = after(slots, at)
    return False
