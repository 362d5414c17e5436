"""The rules of the house, as tests: size of modules, no stray prints, nothing outside the project named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("netsim", "backends/netsim_backends", "policies/netsim_policies")
    for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES = 600


def test_there_are_sources() -> None:
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [p for p in SOURCES if p.stat().st_size], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert path.read_text().lstrip().startswith(('"""', 'r"""')), "a module docstring comes first"


def test_nothing_names_a_path_outside_the_project() -> None:
    pattern = re.compile(r"\.\./shared|/work/|/root/")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    here = Path(__file__).name
    found = [
        name
        for name in tracked
        if not name.endswith(here)
        and (ROOT / name).is_file()
        and pattern.search((ROOT / name).read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("command", [["--help"], ["trace", "--help"], ["render", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys, contextlib, io\n"
        f"sys.argv = ['netsim', *{command!r}]\n"
        "from netsim.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "print(' '.join(m for m in ('numba', 'scapy', 'pyroute2', 'numpy', 'yaml') if m in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_page_of_what_is_modelled_is_fresh() -> None:
    from netsim.modelled import page

    held = (ROOT / "docs" / "modelled.md").read_text()
    assert held == "\n".join(page()) + "\n", "run: python -m netsim.modelled > docs/modelled.md"
