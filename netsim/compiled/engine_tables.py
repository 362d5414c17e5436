"""All that the engine's kernels are given, as named tuples of arrays; and the columns of a batch and of its result."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.counter_table import Counters
from netsim.compiled.fib_tables import FibTables
from netsim.compiled.flow_records import FlowState
from netsim.compiled.programs import Programs
from netsim.compiled.recent_table import Recent
from netsim.compiled.world import WorldTables

OTHER_ORIGINS = 1 << 24  # smaller handles are namespaces whose processes send


class Engine(NamedTuple):
    """``origins``: of the handles from ``OTHER_ORIGINS`` on, (namespace, device or 0, mark, MAC number of the frame's
    destination)."""

    w: WorldTables
    f: FibTables
    p: Programs
    s: FlowState
    words: npt.NDArray[np.uint64]
    recent: Recent
    told: Any  # rows of ``told_table.TOLD``
    c: Counters
    origins: npt.NDArray[np.int64]


class Columns(NamedTuple):
    """A batch as kernels see it (``netsim.datapath.columns`` says what each column means)."""

    time: Any
    origin: Any
    src: Any
    dst: Any
    sport: Any
    dport: Any
    proto: Any
    flags: Any
    tcp_flags: Any
    ttl: Any
    length: Any
    seq: Any
    ack: Any
    window: Any
    wscale: Any
    tcp_options: Any


class Results(NamedTuple):
    """What became of each packet. ``verdict`` counts in the order of ``netsim.interpreter.outcome.Disposition``."""

    verdict: Any  # uint8
    how: Any  # uint8: 0 fast path, 1 slow path, 2 interpreter
    masqueraded: Any  # uint8
    ttl: Any  # uint8, as received
    receiver: Any  # uint32, number of a namespace, 0: nobody
    src: Any  # uint32, as received
    dst: Any
    sport: Any  # uint16
    dport: Any
    rules: Any  # uint32, evaluated as the kernel would
    flow: Any  # uint32, flow << 1 | direction, 0: none
    decided: Any  # uint32, rule + 1 that settled it, 0: none
    decided_ns: Any  # uint32


FAST, SLOW, INTERPRETED = 0, 1, 2

_RESULT_TYPES = ("u1", "u1", "u1", "u1", "u4", "u4", "u4", "u2", "u2", "u4", "u4", "u4", "u4")


def results(count: int) -> Results:
    """Columns for ``count`` packets, not filled in: whoever decides a packet writes all of them. They share one piece of
    memory: batch after batch, the allocator gives the same one back, and its pages are there already."""
    starts, room = [], 0
    for kind in _RESULT_TYPES:
        starts.append(room)
        room += -(-count * np.dtype(kind).itemsize // 64) * 64
    block = np.empty(room, np.uint8)
    return Results(
        *[
            block[start : start + count * np.dtype(kind).itemsize].view(kind)
            for start, kind in zip(starts, _RESULT_TYPES)
        ]
    )
