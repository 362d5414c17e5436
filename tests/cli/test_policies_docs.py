"""docs/policies.md shows what the commands print: every block that begins with ``$`` is run, in a copy of tests/data.

A last line of ``…`` leaves out the rest. Notes on stderr are not shown, errors are. ``--update-golden`` writes the outputs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policies.md"
BLOCK = re.compile(r"^```\n(\$ .*?)^```$", re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """(command, the output shown)."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def printed(command: str, directory: Path) -> list[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1"}
    done = subprocess.run(
        command, shell=True, cwd=directory, env=environment, text=True, check=False, stdout=-1, stderr=subprocess.STDOUT
    )
    return [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("note: ")]


@pytest.mark.parametrize("number", range(len(BLOCK.findall(PAGE.read_text()))))
def test_the_page_shows_what_is_printed(number: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "data")
    block = BLOCK.findall(PAGE.read_text())[number]
    fresh: list[str] = []
    for command, shown in commands(block):
        output = printed(command, tmp_path / "data")
        if shown[-1:] == ["…"]:
            output = [*output[: len(shown) - 1], "…"]
        fresh += [f"$ {command}", *output]
        if not request.config.getoption("--update-golden"):
            assert output == shown, command
    if request.config.getoption("--update-golden"):
        PAGE.write_text(PAGE.read_text().replace(f"```\n{block}```", "```\n" + "\n".join(fresh) + "\n```"))
