"""Cases on disk: those that once failed, one a file, and recordings of what a kernel said about many."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.differential.fuzz_cases import Case, case_from_json, case_to_json

EXAMPLES = Path(__file__).parent / "fuzz_examples"
RECORDED = Path(__file__).parents[1] / "data" / "recorded"


@dataclass(frozen=True)
class Example:
    """A kept case. ``known``: why the interpreter is known to tell another story than the kernel; '' if it agrees now."""

    name: str
    case: Case
    about: str
    known: str


def examples() -> Iterator[Example]:
    for path in sorted(EXAMPLES.glob("*.json")):
        held = json.loads(path.read_text())
        yield Example(path.stem, case_from_json(held["case"]), held["about"], held.get("known", ""))


def keep(case: Case, about: str, name: str = "") -> Path:
    """Write a case down to be run before all others from now on."""
    text = json.dumps(case_to_json(case))
    path = EXAMPLES / f"{name or 'found-' + hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_text(about, case_to_json(case)))
    return path


def _text(about: str, case: dict[str, Any]) -> str:
    """One thing a line: a rule, a route, a packet."""
    parts = []
    for key, value in case.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n   " + ",\n   ".join(map(json.dumps, value)) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n " + f'"about": {json.dumps(about)},\n "case": {{\n' + ",\n".join(parts) + "\n }\n}\n"


def versions() -> dict[str, str]:
    """The kernel and the tools that answers come from."""
    asked = {"kernel": ["uname", "-sr"], "iptables": ["iptables", "--version"], "ipset": ["ipset", "--version"],
             "iproute2": ["ip", "-V"]}  # fmt: skip
    return {
        name: subprocess.run(words, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
        for name, words in asked.items()
    }


def write_recording(path: Path, told: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"versions": versions(), "cases": told}, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def read_recording(path: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    held = json.loads(gzip.decompress(path.read_bytes()))
    return held["versions"], held["cases"]
