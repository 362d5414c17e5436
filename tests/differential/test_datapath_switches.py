"""The compiled datapath with numba's switches: without the JIT (plain Python), and with array bounds checked.

Both compare fewer pairs than ``test_datapath_twins``. Bounds are checked on request (NETSIM_SWITCHES=1, as ``make
test-nojit`` has it): that compiles the engine anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REDUCED = """
from tests.differential.test_datapath_twins import CLUSTERS, agree, clusters, routers
from tests.support.datapath_twins import Tally
import netsim.compiled.jit, numba
assert {switch}
total = agree(routers(range(300, 300 + {routers})), 40)
for name in CLUSTERS:
    total.add(agree(clusters(name, range(5, 6)), {packets}))
assert total.share("fast") > 0.03, total
print("in all", total)
"""
# Plain numpy scalars warn of what wraps round on purpose in hashes.
WRAPS = "ignore:overflow encountered:RuntimeWarning"


def reduced(switch: str, routers: int, packets: int, **environment: str) -> None:
    code = REDUCED.format(switch=switch, routers=routers, packets=packets)
    place = os.pathsep.join([str(ROOT), str(ROOT / "backends"), str(ROOT / "policies")])
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", WRAPS, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": place, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stderr[-4000:] + run.stdout[-2000:]


def test_without_the_jit() -> None:
    reduced("numba.config.DISABLE_JIT", routers=6, packets=60, NUMBA_DISABLE_JIT="1")


@pytest.mark.skipif(not os.environ.get("NETSIM_SWITCHES"), reason="compiles the engine anew: make test-nojit")
@pytest.mark.timeout(0)
def test_with_bounds_checked(tmp_path: Path) -> None:
    reduced("numba.config.BOUNDSCHECK", routers=20, packets=100, NUMBA_BOUNDSCHECK="1", XDG_CACHE_HOME=str(tmp_path))
