"""How kernels are compiled.

``_nrt=False`` keeps numba from counting references to every array that is handed from one kernel to another (an atomic
increment each: it alone would cap the engine at some 90 million calls a second). Such kernels own nothing: whatever they
need is passed in. The option is internal to numba; ``tests/unit/test_compiled_jit.py`` fails if it goes.

The cache lives in a directory of its own, keyed by netsim's and numba's versions, so that a stale or torn cache of another
version is never read; numba itself adds the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

import netsim

F = TypeVar("F", bound=Callable[..., Any])


def _cache() -> None:
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "netsim" / f"{netsim.__version__}-numba{numba.__version__}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # numba falls back to __pycache__, or compiles anew
    numba.config.CACHE_DIR = str(place)


_cache()


def kernel(function: F) -> F:
    """Compile ``function`` at first use, without the GIL's reference counting inside, and keep the result on disk."""
    njit: Any = numba.njit
    made: F = njit(cache=True, _nrt=False, nogil=True, error_model="numpy")(function)
    return made
