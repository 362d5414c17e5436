"""The command on the bundled example: every example of every help text, golden outputs, and the same bytes every time."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netsim.cli.parser import build
from netsim.packet import pcapng

SCRIPT = "import sys; sys.argv[0] = 'netsim'\nfrom netsim.cli import main\nsys.exit(main())"
TRACES = {
    "cluster-ip": "pod/shop/web-0 svc/shop/cart:http",
    "no-endpoints": "pod/shop/web-0 svc/shop/legacy",
    "node-port": "external 192.168.20.13:30081 --reply",
    "load-balancer": "external 192.0.2.80:80",
}


def netsim(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1", **env},
    )  # fmt: skip


def examples() -> list[str]:
    parser = build("netsim")
    (commands,) = (action.choices for action in parser._actions if action.dest == "command" or action.choices)
    texts = [parser.epilog or "", *(sub.epilog or "" for sub in (commands or {}).values())]  # type: ignore[union-attr]
    return list(
        dict.fromkeys(line.strip() for text in texts for line in text.splitlines() if line.startswith("  netsim "))
    )


def test_there_are_examples() -> None:
    assert len(examples()) >= 5


@pytest.mark.parametrize("example", [e for e in examples() if not e.startswith("netsim lab ")])
def test_the_examples_of_the_help_work_as_pasted(example: str) -> None:
    done = netsim(*shlex.split(example, comments=True)[1:])
    # 1 is an answer too where the question is whether something is wrong
    answers = (0, 1) if example.split()[1] in ("lint", "check", "diff") else (0,)
    assert done.returncode in answers, done.stderr
    assert done.stdout
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("verbosity", ["minimal", "summary", "detailed"])
def test_text(golden: Callable[[str, str], None], name: str, verbosity: str) -> None:
    done = netsim("trace", "-f", "@example", *TRACES[name].split(), f"--{verbosity}")
    assert done.returncode == 0, done.stderr
    golden(f"cli/{name}.{verbosity}.txt", done.stdout)


@pytest.mark.parametrize("name", TRACES)
def test_json(golden: Callable[[str, str], None], name: str) -> None:
    done = netsim("trace", "-f", "@example", *TRACES[name].split(), "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "Trace"
    assert sum(o["probability"] for o in document["outcomes"]) == pytest.approx(1)
    golden(f"cli/{name}.json", done.stdout)


@pytest.mark.parametrize(
    "arguments", ["trace -f @example pod/shop/web-0 svc/shop/cart -o json", "render -f @example n1"]
)
def test_the_same_bytes_whatever_the_hash_seed(arguments: str) -> None:
    assert len({netsim(*arguments.split(), PYTHONHASHSEED=seed).stdout for seed in ("0", "1", "4242")}) == 1


def test_a_seed_follows_one_outcome() -> None:
    found = set()
    for seed in range(12):
        done = netsim("trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart", "--seed", str(seed), "-o", "json")
        (outcome,) = json.loads(done.stdout)["outcomes"]
        found.add(outcome["to"])
    assert len(found) == 3


def test_notes_say_that_policies_do_nothing_and_quiet_silences_them() -> None:
    loud = netsim("trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart")
    quiet = netsim("trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart", "-q")
    assert "note: flannel enforces no policy: the 3 policies of the input have no effect" in loud.stderr
    assert (quiet.stderr, quiet.stdout) == ("", loud.stdout)


def test_colour_only_where_it_is_wanted() -> None:
    ask = ["trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart"]
    assert "\x1b[" not in netsim(*ask).stdout
    assert "\x1b[" not in netsim(*ask, NO_COLOR="", CLICOLOR_FORCE="").stdout
    painted = netsim(*ask, NO_COLOR="", CLICOLOR_FORCE="1").stdout
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == netsim(*ask).stdout != painted


def test_a_trace_is_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    done = netsim("trace", "-f", "@example", "pod/shop/web-0", "svc/shop/cart", "-o", f"pcapng={path}")
    assert (done.returncode, done.stdout) == (0, "")
    captured = list(pcapng.read(path.read_bytes()))
    assert {c.interface.split("/")[0] for c in captured} >= {"pod", "node"}
    assert any("-j DNAT" in c.comment for c in captured)


def test_what_is_not_used_renders_as_nothing() -> None:
    done = netsim("render", "-f", "@example", "n1", "ipvs", "nft")
    assert (done.returncode, done.stdout) == (0, "")
    assert "ipvs is not used by this cluster's data plane" in done.stderr


@pytest.mark.parametrize("arguments", ["trace -f @example pod/shop/web-0 svc/shop/cart", "render -f @example n1"])
def test_nothing_heavy_is_imported(arguments: str) -> None:
    heavy = ("numba", "numpy", "scapy", "pyroute2", "asyncio", "typer", "rich")
    code = SCRIPT.replace("sys.exit(main())", f"main(); sys.exit(' '.join(m for m in {heavy!r} if m in sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split(), "-q"], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
