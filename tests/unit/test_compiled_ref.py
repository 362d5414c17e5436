"""References to tables: their types are keys of numba's cache, which many processes share."""

from __future__ import annotations

import os
import subprocess
import sys

_KIND = """
import pickle, sys
import numba
from netsim.compiled.addresses import Addresses
from netsim.compiled.ref import RefType
from netsim.datapath.store import FlowStore
kind = RefType(numba.typeof(FlowStore(64, Addresses()).state))
"""
_SAVE = "sys.stdout.buffer.write(pickle.dumps({kind: 1}))"
_LOAD = "sys.exit(pickle.loads(sys.stdin.buffer.read()).get(kind) != 1)"


def _run(text: str, seed: str, given: bytes = b"") -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", _KIND + text], input=given, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_another_process_finds_what_this_one_has_compiled() -> None:
    """Hashes of names are not the same there."""
    saved = _run(_SAVE, "1")
    _run(_LOAD, "1", saved)
    _run(_LOAD, "2", saved)
