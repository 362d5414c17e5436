"""One packet recorded: what the slow path would do with it, as operations."""

from __future__ import annotations

import warnings

import numpy as np

from netsim.compiled.engine_kernels import DONE
from netsim.compiled.engine_tables import Columns, Engine, Results
from netsim.compiled.trails import rebind
from netsim.compiled.trails.symbols import Abort, I, Op, Recording, U
from netsim.compiled.trails.tables import Journey, Members


def record(e: Engine, b: Columns, o: Results, at: int, serial: int, seed: int) -> Recording:
    """The recording of packet ``at`` of a batch, as tables are now; nothing is changed. Abort if it is no trail's."""
    made = Recording()
    i = made.symbol(Op("input", (), "i"), at, I, 40)
    number = made.symbol(Op("input", (), "serial"), serial, I, 64)
    x = Journey(made.symbol(Op("input", (), "seed"), seed, U, 64))
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore")
        engine, columns, results = (Members(made, name, held) for name, held in zip("ebo", (e, b, o)))
        answer = rebind.slow()(engine, x, columns, results, i, number)
    if answer != DONE:
        raise Abort(f"{answer}: {int(x.j[0])}")
    return made
