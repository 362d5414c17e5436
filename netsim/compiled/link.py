"""Making the engine ready: every unit compiled, or loaded from the cache, before the first that calls it.

Loading a kernel from the cache does not look at what it calls, so the order is written down: callees first. A letter stands
for each argument:

    e Engine  x Scratch  b Columns  o Results (by reference)   s e.s  f e.f  p e.p  h x.rules  c e.recent
    w address words  r registers  u answers of the FIB  g segment (arrays)   t a TCP record   d seed (uint64)
    n seconds (float64)   i a 64-bit integer   # hashes  k candidates (arrays)
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core import types

from netsim import collector
from netsim.compiled import along, flows, machine, units
from netsim.compiled import commit_kernels as commit
from netsim.compiled import engine_kernels as engine
from netsim.compiled import fast_kernels as fast
from netsim.compiled import hook_kernels as hooks
from netsim.compiled import outer_flows as outers
from netsim.compiled import tracking_kernels as tracking
from netsim.compiled import tunnel_kernels as tunnels
from netsim.compiled.engine_tables import Columns, Engine, Results
from netsim.compiled.jit import package_digest
from netsim.compiled.journey import Scratch
from netsim.compiled.ref import reference
from netsim.compiled.unit import ready

ORDER: tuple[tuple[Any, str], ...] = (
    (units.tcp_advance, "tiiiiiiiii"),
    (units.tcp_begin, "tgi"),
    (units.fib_lookup, "fwiiiiiiiiu"),
    (units.address_type, "fwiiiu"),
    (units.martian, "fwiiiiiu"),
    (units.validate_source, "fwiiiiiiiu"),
    (units.select_source, "fwiiiiu"),
    (units.walk, "phcwiirdn"),
    (flows.find, "siiiiiii"),
    (outers.find_outer, "siiiiiii"),
    (flows.same_source, "siiiiii"),
    (flows.link_flow, "si"),
    (flows.drop_flow, "si"),
    (outers.new_outer, "siiiiiiii"),
    (hooks.reroute, "ex"),
    (hooks.walk_table, "exii"),
    (tracking.begin_or_advance, "exii"),
    (tracking.track, "ex"),
    (tracking.taken, "ex"),
    (tracking.move_source, "exii"),
    (tracking.settle, "exii"),
    (tracking.translate, "exi"),
    (tracking.confirm, "ex"),
    (hooks.raw, "exi"),
    (hooks.nat, "exii"),
    (hooks.run_hook, "exi"),
    (machine.neighbour, "exi"),
    (tunnels.flow_port, "ex"),
    (tunnels.wrap, "exiiiiii"),
    (tunnels.unwrap, "exi"),
    (tunnels.vxlan_out, "exi"),
    (tunnels.vxlan_in, "ex"),
    (tunnels.ipip_out, "exi"),
    (tunnels.ipip_in, "ex"),
    (tunnels.tun_out, "exi"),
    (tunnels.tun_in, "exi"),
    (machine.local_out, "ex"),
    (machine.output, "ex"),
    (machine.finish, "ex"),
    (machine.transmit, "ex"),
    (machine.arrive, "ex"),
    (machine.route_input, "ex"),
    (machine.bridge_in, "ex"),
    (machine.receive, "ex"),
    (machine.deliver, "ex"),
    (machine.forward, "ex"),
    (machine.routed, "ex"),
    (machine.run, "exi"),
    (commit.fold, "eii"),
    (commit.forget_class, "eii"),
    (commit.check_stops, "ex"),
    (commit.check_new, "exi"),
    (commit.forget_dead, "ex"),
    (commit.make_flow, "exii"),
    (commit.touch_outer, "exii"),
    (commit.classify, "exiii"),
    (commit.update, "exiiiii"),
    (commit.commit, "ex"),
    (engine.prepare, "exbii"),
    (engine.slow, "exboii"),
    (along.along, "exboiii"),
    (engine.process, "exbo#kiiii"),
    (fast.look_up, "sb#kii"),
)


def units_for(e: Engine, x: Scratch, b: Columns, o: Results) -> list[tuple[Any, tuple[Any, ...]]]:
    """Every kernel of the engine with its types, for tables of these types (their contents do not matter)."""
    kinds = {
        "e": e, "x": x, "b": b, "o": o, "s": e.s, "f": e.f, "p": e.p, "h": x.rules, "c": e.recent,
    }  # fmt: skip
    kinds = {letter: numba.typeof(reference(held)) for letter, held in kinds.items()}
    arrays = {"w": e.words, "r": x.r, "u": x.out, "t": x.tcp[0], "g": x.segment}
    arrays |= {"#": np.empty(0, np.uint64), "k": np.empty(0, np.uint32)}
    kinds |= {letter: numba.typeof(held) for letter, held in arrays.items()}
    kinds |= {"i": types.int64, "d": types.uint64, "n": types.float64}
    return [(one, tuple(kinds[letter] for letter in letters)) for one, letters in ORDER]


def link(
    e: Engine,
    x: Scratch,
    b: Columns,
    o: Results,
    told: Callable[[str], None] | None = None,
    help_with: Sequence[str] = (),
) -> None:
    """See that the engine can run on tables of these types.

    The first time on a machine that means compiling for a while. ``help_with``: a command that calls ``compile_only`` for
    the same kernels, last ones first; it runs beside this process if there is another CPU, and what it has put into the
    cache by the time this process gets there is only loaded."""
    if numba.config.DISABLE_JIT:
        return
    units = units_for(e, x, b, o)
    done = _mark()
    helper = None
    if help_with and not done.exists() and len(os.sched_getaffinity(0)) > 1:
        helper = subprocess.Popen(help_with, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with collector.resting():
            ready(units, told)
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()
    if not done.exists():
        with suppress(OSError):
            done.touch()


def _mark() -> Path:
    """A file that says that the cache holds everything for this text of the package, and for this CPU."""
    cpu = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    digest = hashlib.sha256(f"{package_digest()} {cpu}".encode()).hexdigest()[:16]
    return Path(numba.config.CACHE_DIR or os.devnull) / f"linked-{digest}"
