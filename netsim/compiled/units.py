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
# Of its own: numba's cache tells one function's compilations apart by their argument types alone, so a function must not be
# compiled with and without entry points for the same ones. Nobody else walks by reference.
walk = unit(rules.walk.py_func if hasattr(rules.walk, "py_func") else rules.walk, exact=(7,))  # the seed is unsigned
tcp_advance = unit(tcp_kernel.tcp_advance)


@unit
def tcp_begin(record: Any, segment: Any, loose: Int) -> Int:
    """``tcp_kernel.tcp_begin`` on a segment as the scratch of a journey holds it."""
    begun = tcp_kernel.tcp_begin(
        record, segment[0], segment[1], segment[2], segment[3], segment[4], segment[5], loose != 0
    )
    return np.int64(1 if begun else 0)
