"""First packets on trails (``netsim.compiled.trails``): which packets are let on, and what comes of it.

The packets that follow one that no flow knows are looked at too: those that are unknown as well make a block. The trail
walks all of them, then commits them in order, and stops where one has left it, or was never on it. That one goes its own
way in ``process``, and the block's others go on behind it: what the walk has found out does not depend on it, and what does
is asked when a packet is committed.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netsim.compiled.fast_kernels import flow_of
from netsim.compiled.jit import Int, kernel
from netsim.compiled.journey import TRAIL_BLOCK
from netsim.compiled.unit import unit

# Places in ``Scratch.trails``: how many there are; the block at hand, its first packet, how many, and the one that has left
# the trail; packets that trails have taken so far, and first packets that they have not; the addresses of trails follow.
COUNT, FIRST, PACKETS, LEFT, TAKEN, PASSED, ADDRESSES = range(7)

if numba.config.DISABLE_JIT:

    def follow(address: Int, e: Any, b: Any, o: Any, room: Any, takes: Any, *numbers: Int) -> Int:
        """There are no trails without a compiler."""
        return 0

else:

    @intrinsic
    def follow(typing: Any, address: Any, e: Any, b: Any, o: Any, room: Any, takes: Any, first: Any, count: Any,
               serial: Any, seed: Any, begin: Any) -> Any:  # fmt: skip
        """Call a trail: how many packets of the block are behind us, ``begin`` of them before the call."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            words = word.as_pointer()
            refs = [builder.bitcast(ref, words) for ref in args[1:4]]
            room, takes = (
                context.make_array(signature.args[place])(context, builder, args[place]).data for place in (4, 5)
            )
            numbers = [builder.bitcast(number, word) for number in args[6:]]
            given = [*refs, builder.bitcast(room, words), builder.bitcast(takes, ir.IntType(8).as_pointer()), *numbers]
            kind = ir.FunctionType(word, [one.type for one in given])
            return builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)

        return types.int64(address, e, b, o, room, takes, first, count, serial, seed, begin), code


@unit
def along(e: Any, x: Any, b: Any, o: Any, i: Int, stop: Int, serial: Int) -> Int:
    """How many packets from ``i`` on, which no flow knows, trails have taken; 0: it is for the slow path."""
    held, seed = x.trails, np.int64(x.seed[0])
    first, packets = held[FIRST], held[PACKETS]
    if not first <= i < first + packets:
        first, packets = i, min(np.int64(TRAIL_BLOCK), stop - i)
        for k in range(packets):
            x.takes[k] = flow_of(e.s, b, i + k) == 0
        held[FIRST], held[PACKETS], held[LEFT] = first, packets, -1
        begin = np.int64(0)
    else:
        begin = i - first
    if held[LEFT] != i:
        end = follow(held[ADDRESSES], e, b, o, x.room, x.takes, first, packets, serial + first, seed, begin)
        held[LEFT] = first + end
        if end > begin:
            held[TAKEN] += end - begin
            return end - begin
    for other in range(1, held[COUNT]):
        x.takes[TRAIL_BLOCK] = 1
        half = x.room[x.room.shape[0] // 2 :]
        one = np.int64(1)
        if follow(held[ADDRESSES + other], e, b, o, half, x.takes[TRAIL_BLOCK:], i, one, serial + i, seed, np.int64(0)):
            held[TAKEN] += 1
            return np.int64(1)
    held[PASSED] += 1
    return np.int64(0)


@kernel
def try_out(address: Int, e: Any, b: Any, o: Any, room: Any, takes: Any, goes: Any, serial: Int, seed: Int) -> None:
    """Which packets would stay on a trail, of those that ``goes`` has 1 for: the others get 0, and so does one of each block
    (nothing is committed that way). ``serial``: of packet 0."""
    for first in range(0, len(goes), TRAIL_BLOCK):
        count = min(TRAIL_BLOCK, len(goes) - first)
        for k in range(count):
            takes[k] = goes[first + k]
        takes[0] = 0
        follow(address, e, b, o, room, takes, first, np.int64(count), serial + first, seed, np.int64(0))
        for k in range(count):
            goes[first + k] = takes[k]
