"""The command as a process: exit codes, what goes to which stream, what is imported, and no traceback ever."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

BAD_INPUT = Path(__file__).parents[1] / "bad_input"
TRACE = ["trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart:http"]


def netsim(
    *arguments: str, env: dict[str, str] | None = None, program: str = "netsim", code: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``main`` in a process of its own, as the entry point does; ``code`` runs first."""
    script = f"import sys; sys.argv[0] = {program!r}\n{code}\nfrom netsim.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "", "XDG_STATE_HOME": tempfile.gettempdir(), **(env or {})},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["version"], 0, ""),
        (["--help"], 0, ""),
        ([], 2, "error: "),
        (["fly"], 2, "invalid choice"),
        (["trace", "a"], 2, "required"),
        (["trace", "a", "b"], 2, "no input"),
        ([*TRACE, "--protocol", "gre"], 2, "invalid choice"),
        ([*TRACE, "--ttl", "256"], 2, "between 1 and 255"),
        ([*TRACE, "-o", "xml"], 2, "none of text, json, pcapng=FILE"),
        ([*TRACE, "--context", "x"], 2, "two clusters"),
        ([*TRACE, "--pod-cidr", "10.0.0.1/8"], 2, "host bits"),
        ([*TRACE, "--pod-cidr", "10.0.0.0/8,10.1.0.0/16"], 2, "one prefix of each family"),
        ([*TRACE, "--nodes", "0"], 2, "number of nodes"),
        ([*TRACE, "--node-rules", "dir"], 2, "takes the place"),
        (["trace", "-f", "-", "-f", "-", "a", "b"], 2, "only once"),
        (["trace", "--print-kubectl", "a", "b"], 2, "goes with --context"),
        (["render"], 2, "required: NODE"),
        (["render", "n1", "nonsense"], 2, "not among"),
        (["trace", "-f", "/nonexistent.yaml", "a", "b"], 3, "/nonexistent.yaml"),
        (["trace", "-f", str(BAD_INPUT / "unknown-field.yaml"), "a", "b"], 3, "unknown-field.yaml:"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, told: str) -> None:
    done = netsim(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr
    if code:
        assert done.stdout == ""
        assert all(line.startswith(("error: ", "note: ")) for line in done.stderr.splitlines())


def test_every_problem_is_a_line_of_its_own(tmp_path: Path) -> None:
    for name in ("port-65536.yaml", "unknown-field.yaml"):
        (tmp_path / name).write_bytes((BAD_INPUT / name).read_bytes())
    done = netsim("trace", "-f", str(tmp_path), "a", "b")
    assert done.returncode == 3
    assert {Path(line.split()[1]).name.split(":")[0] for line in done.stderr.splitlines()} == {
        "port-65536.yaml",
        "unknown-field.yaml",
    }


def raising(error: str) -> str:
    return f"import netsim.cli.version\ndef run(options): raise {error}\nnetsim.cli.version.run = run"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("KeyboardInterrupt", 130),
        ("BrokenPipeError", 0),
        ("MemoryError", 3),
        ("__import__('netsim.errors').errors.PrivilegeError('needs root')", 4),
        ("__import__('netsim.errors').errors.DisagreementError('they differ')", 5),
    ],
)
def test_what_an_exception_becomes(error: str, code: int) -> None:
    done = netsim("version", code=raising(error))
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_a_bug_leaves_a_report(tmp_path: Path) -> None:
    done = netsim("version", code=raising("ValueError('seven\\neight')"), env={"XDG_STATE_HOME": str(tmp_path)})
    assert done.returncode == 70
    (report,) = (tmp_path / "netsim").iterdir()
    assert len(done.stderr.splitlines()) == 1
    assert str(report) in done.stderr
    assert "Traceback" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_foreign_netsim_is_told_apart() -> None:
    done = netsim("version", code="import netsim; netsim.__doc__ = 'Network simulation tools'")
    assert done.returncode == 70
    assert "networklab" in done.stderr


def test_as_a_kubectl_plugin_it_names_itself_so() -> None:
    done = netsim("--help", program="/usr/bin/kubectl-netsim")
    assert done.stdout.startswith("usage: kubectl netsim ")
    assert "kubectl netsim trace -f @example" in done.stdout


def test_a_reader_that_leaves_is_no_error() -> None:
    script = "import sys; sys.argv[0] = 'netsim'\nfrom netsim.cli import main\nsys.exit(main())"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-c", script, "version", "-o", "json"],
            stdout=gone, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def kubectl(folder: Path, script: str) -> dict[str, str]:
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_kubectl_is_only_asked_to_read() -> None:
    done = netsim("trace", "--context", "prod", "--print-kubectl", "a", "b")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert line.startswith("kubectl --context=prod get ")
        assert "secret" not in line


def test_without_kubectl_it_says_so(tmp_path: Path) -> None:
    done = netsim("trace", "--context", "prod", "a", "b", env={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "not in PATH" in done.stderr


def test_what_kubectl_says_is_passed_on(tmp_path: Path) -> None:
    done = netsim("trace", "--context", "x", "a", "b", env=kubectl(tmp_path, "echo 'no such context' >&2; exit 1"))
    assert done.returncode == 3
    assert "no such context" in done.stderr
