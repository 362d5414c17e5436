"""How kernels are compiled.

``_nrt=False`` keeps numba from counting references to every array that is handed from one kernel to another (an atomic
increment each: it alone would cap the engine at some 90 million calls a second). Such kernels own nothing: whatever they
need is passed in. The option is internal to numba; if it goes, no kernel compiles.

numba keys its cache by the file of a kernel, not by those of the kernels that it calls. So the cache lives in a directory
named after the text of this whole package: whatever changes here, nothing stale is ever loaded. numba itself adds the CPU.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.extending import register_jitable

F = TypeVar("F", bound=Callable[..., Any])
Int = Any  # an integer or truth value inside a kernel, of whatever width numba infers


@cache
def package_digest() -> str:
    """Of numba's version and the text of this package."""
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _cache() -> None:
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "netsim" / f"kernels-{package_digest()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # numba falls back to __pycache__, or compiles anew
    config: Any = numba.config
    config.CACHE_DIR = str(place)


_cache()


def kernel(function: F) -> F:
    """Compile ``function`` at first use, without counting references inside, and keep the result on disk."""
    njit: Any = numba.njit
    made: F = njit(cache=True, _nrt=False, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    return made


def inner(function: F) -> F:
    """A part of kernels, which only they call: put into each of them whole (a call hands over every array of every table,
    which takes longer than most look-ups), and without entry points from Python (a third of the time to compile it)."""
    njit: Any = numba.njit
    made: F = njit(
        cache=True, _nrt=False, nogil=True, error_model="numpy",
        forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True,
    )(function)  # fmt: skip
    return made


def shared(function: F) -> F:
    """A part of kernels that Python calls just as it stands: arithmetic on one record, say."""
    made: F = register_jitable(_nrt=False, error_model="numpy", forceinline=True)(function)
    return made


def bare(function: F) -> F:
    """A kernel without entry points from Python: for ``unit``."""
    njit: Any = numba.njit
    made: F = njit(
        cache=True, _nrt=False, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)
    return made
