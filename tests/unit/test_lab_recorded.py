"""The interpreter next to what real kernels were recorded to do: no kernel and no privilege is needed for that."""

from __future__ import annotations

import copy
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from netsim.errors import InputError
from netsim.lab import build, recording
from netsim.topology.assemble import Assembled
from tests.support.lab_clusters import assembled

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests" / "data" / "recorded").glob("*-*.json.gz"))
LAB = [path for path in RECORDED if not path.name.startswith("fuzz-")]


def cluster(held: dict[str, Any]) -> Assembled:
    given = held["cluster"]
    files = [name if name.startswith("@") else str(ROOT / name) for name in given["files"]]
    cidrs = {
        key: tuple(part for text in given.get(name, []) for part in text.split(","))
        for key, name in (("pod_cidrs", "podCIDRs"), ("service_cidrs", "serviceCIDRs"))
        if name in given
    }
    return assembled(*files, cni=given.get("cni"), proxy=given.get("proxy"), nodes=given.get("nodes", 0), **cidrs)


@cache
def recorded(path: Path) -> dict[str, Any]:
    return recording.read(path)


def replayed(held: dict[str, Any]) -> list[str]:
    made = cluster(held)
    return list(recording.replay(held, build.for_lab(made)[0], build.names_of(made)))


@pytest.mark.parametrize("path", LAB, ids=lambda path: path.name)
def test_the_interpreter_tells_the_story_that_a_kernel_was_seen_to_act(path: Path) -> None:
    held = recorded(path)
    assert held["kernel"].startswith("Linux ")
    assert len(held["flights"]) > 300
    wrong = replayed(held)
    assert not wrong, f"{len(wrong)} of {len(held['flights'])} flights on {held['kernel']} differ:\n{wrong[0]}"


def test_there_are_recordings_and_they_are_small() -> None:
    assert len(LAB) >= 4
    assert sum(path.stat().st_size for path in LAB) < 300_000


def test_another_story_is_found_out() -> None:
    held = copy.deepcopy(recorded(LAB[0]))
    touched = {number for number, line in enumerate(held["lines"]) if "ttl 63" in line}
    held["flights"] = [flight for flight in held["flights"] if touched & set(flight["turns"][0])][:5]
    held["lines"] = [line.replace("ttl 63", "ttl 62") for line in held["lines"]]
    (text, *others) = replayed(held)
    assert len(others) == 4
    assert "    netsim  " in text
    assert "    kernel  " in text


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    for data in (b"", b"nonsense", gzip.compress(b"{}"), gzip.compress(json.dumps({"kind": "Trace"}).encode())):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x\.json\.gz: (cannot be read|is no recording)"):
            recording.read(path)
