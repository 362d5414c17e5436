"""The kernels of routing, rules and the TCP tracker as units, in the form in which the machine calls them."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import fib_checks, fib_kernels, tcp_kernel
from netsim.compiled import walk as rules
from netsim.compiled.jit import Int
from netsim.compiled.unit import unit

fib_lookup = unit(fib_kernels.fib_lookup)
address_type = unit(fib_kernels.address_type)
martian = unit(fib_checks.martian)
validate_source = unit(fib_checks.validate_source)
select_source = unit(fib_checks.select_source)


@unit
def walk(p: Any, s: Any, recent: Any, words: Any, table: Int, chain: Int, r: Any, seed: Any, now: Int) -> Int:
    """``walk.walk`` with the seed in an array and the time in milliseconds."""
    return rules.walk(p, s, recent, words, table, chain, r, seed[0], np.float64(now) / 1000.0)


@unit
def tcp_begin(record: Any, segment: Any, loose: Int) -> Int:
    """``tcp_kernel.tcp_begin`` on the one record of an array."""
    begun = tcp_kernel.tcp_begin(
        record[0], segment[0], segment[1], segment[2], segment[3], segment[4], segment[5], loose != 0
    )
    return np.int64(1 if begun else 0)


@unit
def tcp_advance(record: Any, segment: Any, reply: Int, liberal: Int) -> Int:
    """``tcp_kernel.tcp_advance`` on the one record of an array. ``reply`` carries what is known of the entry above bit 0."""
    s = segment
    answer = tcp_kernel.tcp_advance(
        record[0], reply & 1 != 0, s[0], s[1], s[2], s[3], s[4], s[5], liberal != 0, reply >> 1
    )
    return np.int64(answer)
