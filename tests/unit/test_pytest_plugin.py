"""The pytest plugin, run by a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUITE = """
def test_holds(netsim):
    cluster = netsim("@example")
    cluster.assert_allowed("pod/shop/web-0", "svc/shop/cart:http")
    cluster.assert_denied("external", "pod/data/postgres-0", port=5432)

def test_fails(netsim):
    netsim("@example").assert_allowed("deploy/shop/checkout", "svc/shop/cart:http")
"""


def test_a_failed_assertion_prints_what_disproves_it(tmp_path: Path) -> None:
    (tmp_path / "test_connections.py").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "expected allow, is deny" in done.stdout
    assert "NetworkPolicy shop/cart-from-web" in done.stdout
