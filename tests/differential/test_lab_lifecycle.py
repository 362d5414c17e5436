"""A lab goes away without a trace, whenever and however it ends, under either kernel and for whoever runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import netsim
from netsim.lab import state
from netsim.lab.build import STEPS
from tests.support.lab import FULL_MATRIX, lab, small, world

pytestmark = pytest.mark.kernel
STOPS = [stop for step in STEPS for stop in (step, f"{step}:done")]
# Under the second kernel for every day: before there is a guest, while it builds, and when all is there.
STOPS_UML = STOPS if FULL_MATRIX else ["holder", "holder:done", "rules", "ready:done"]
MATRIX = [
    *(("host", stop) for stop in STOPS),
    *(pytest.param("uml", stop, marks=pytest.mark.uml) for stop in STOPS_UML),
]
KERNELS = ["host", pytest.param("uml", marks=pytest.mark.uml)]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where the labs' state goes; whatever the test does, no lab outlives it."""
    folder = tmp_path / "state"
    folder.mkdir()
    yield folder
    lab(folder, "down", "--all")
    lab(folder, "prune")


@pytest.mark.parametrize(("kernel", "stop"), MATRIX)
def test_killed_at_any_step_it_comes_down_cleanly(home: Path, kernel: str, stop: str) -> None:
    words = small(home.parent)
    before = world(home)
    killed = lab(home, "up", *words, "--id", "doomed", "--kernel", kernel, stop=stop)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert lab(home, "list").stdout.split()[0] == "doomed"
    assert lab(home, "down", "doomed").stdout == "lab doomed is down\n"
    assert lab(home, "down", "doomed").stdout == ""
    assert world(home) == before


def test_its_kernel_killed_a_lab_is_pruned(home: Path, kernel: str) -> None:
    before = world(home)
    assert lab(home, "up", *small(home.parent), "--id", "one", "--kernel", kernel).returncode == 0
    held = state.Lab("one", home / "netsim" / "labs" / "one").holder()
    assert held is not None
    assert held.kernel == kernel
    assert held.inside is not None
    os.kill(held.inside, signal.SIGKILL)
    while held.alive:
        pass
    assert lab(home, "list").stdout.split() == ["one", "ended", kernel]
    refused = lab(home, "exec", "pod/default/client", "--", "true")
    assert refused.returncode != 0
    assert "lab down" in refused.stderr
    assert lab(home, "prune").stdout == "removed one\n"
    assert world(home) == before


def test_labs_are_not_kept_where_they_would_be_hidden(home: Path) -> None:
    refused = lab(Path("/run/netsim-test"), "up", *small(home.parent), "--kernel", "host")
    assert refused.returncode == 2
    assert "XDG_STATE_HOME" in refused.stderr
    assert not Path("/run/netsim-test").exists()


@pytest.mark.parametrize("lost", ["journal.jsonl", "holder", ""])
def test_what_is_remembered_of_a_lab_may_be_lost(home: Path, lost: str) -> None:
    """Its journal, the note of who holds it, or the whole folder: prune and down find it all the same."""
    before = world(home)
    assert lab(home, "up", *small(home.parent), "--id", "one").returncode == 0
    folder = home / "netsim" / "labs" / "one"
    if lost:
        (folder / lost).unlink()
    else:
        shutil.rmtree(folder)
    if lost == "holder":
        assert lab(home, "down", "one").stdout == "lab one is down\n"
    else:
        assert lab(home, "prune").stdout.startswith("removed one")
    assert world(home) == before


def test_a_failed_build_leaves_nothing_and_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world(home)
    tools = home.parent / "bin"
    tools.mkdir()
    broken = tools / "iptables-restore"
    broken.write_text("#!/bin/sh\necho 'iptables-restore: line 7 failed' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    failed = lab(home, "up", *small(home.parent), "--kernel", "host")
    assert failed.returncode == 4
    assert "iptables-restore: iptables-restore: line 7 failed" in failed.stderr
    assert world(home) == before


def _closed() -> list[Path]:
    """The topmost directories on the way to this Python and this checkout that others may not pass."""
    needed = {Path(sys.base_prefix), Path(sys.prefix), Path(netsim.__file__).parents[1]}
    ways = [[*reversed(path.parents), path] for path in needed]
    shut = (next((part for part in way if not part.stat().st_mode & 0o001), None) for way in ways)
    return sorted({part for part in shut if part is not None})


def _as_nobody(folder: Path, script: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as nobody, in a mount namespace in which nobody may reach this Python and this checkout."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), Path(netsim.__file__).parents[1]]
    opening = []
    for number, shut in enumerate(_closed()):
        aside = folder / f"aside{number}"
        opening += [f"mkdir '{aside}'; mount --rbind '{shut}' '{aside}'; mount -t tmpfs -o mode=755 tmpfs '{shut}'"]
        for path in needed:
            if path.is_relative_to(shut):
                opening += [f"mkdir -p '{path}'; mount --rbind '{aside / path.relative_to(shut)}' '{path}'"]
    user = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all"
    words = ["unshare", "--mount", "sh", "-ec", "\n".join([*opening, "cd /", f"exec {user} sh '{script}'"])]
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder), "PYTHON": sys.executable}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    for aside in folder.glob("aside*"):
        aside.rmdir()
    return done


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that nobody owns; pytest's are the tester's alone."""
    with tempfile.TemporaryDirectory(prefix="netsim-nobody-") as name:
        os.chown(name, 65534, 65534)
        yield Path(name)


_MINE = """
lab() { "$PYTHON" -c "import sys, netsim.cli; sys.exit(netsim.cli.main())" lab "$@"; }
id -u
lab up %s --id mine --kernel %s && lab exec pod/default/client -- bash -c "cat < /dev/tcp/10.96.0.9/8080"
lab down mine
"""


def test_an_ordinary_user_has_labs_too(everybodys: Path, kernel: str) -> None:
    script = everybodys / "script"
    script.write_text(_MINE % (" ".join(small(everybodys)), kernel))
    before = world(everybodys)
    done = _as_nobody(everybodys, script)
    assert done.stdout.startswith("65534\nlab mine is up"), done.stderr[-2000:]
    assert '"listener": "pod/default/server"' in done.stdout
    assert '"peer": ["10.244.2.' in done.stdout
    assert done.stdout.endswith("lab mine is down\n")
    assert world(everybodys) == before
