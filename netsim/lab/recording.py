"""Recorded kernel answers: what a kernel did with each probe, for machines that cannot ask one.

    {"kind": "LabRecording", "kernel": …, "tools": …, "cluster": {"files": …, "cni": …}, "lines": [every line once],
     "flights": [{"probe": {…}, "turns": [[numbers of lines] for each turn]}]}

gzip, if the name ends in .gz. A line belongs to a story as ``stories`` spells it. Of each path, protocol, aspect and family
the first probe is kept, and of equal flights one.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from netsim.errors import InputError, Problem, Source
from netsim.lab.expected import Course, Way
from netsim.lab.flights import Flight
from netsim.lab.probes import PROTOCOLS, Manner, Probe
from netsim.lab.result import Result
from netsim.lab.retuned import courses
from netsim.lab.stories import Story
from netsim.linux.network import Network
from netsim.packet.address import ip

_VERSION = "netsim/v1alpha1"
_KEPT = 1  # probes of each kind
# What names of the probe's fields are left to their defaults in the file.
_PLAIN = {"ttl": 64, "size": 0, "dont_fragment": False, "sticky": False, "timeout": 0}
PORTS = (10001, 10002, 10003, 10004)  # the client's in the interpreter


def write(path: Path, result: Result, flights: Iterable[Flight], cluster: Mapping[str, Any]) -> None:
    """Always gzip. ``cluster``: how to get it again."""
    lines: dict[str, int] = {}
    kept: dict[str, dict[str, Any]] = {}
    first: dict[tuple[object, ...], set[Probe]] = {}
    for flight in flights:
        probe = flight.course.probe
        same = first.setdefault((probe.path, probe.protocol, probe.aspect, probe.family), set())
        if not flight.told or (probe not in same and len(same) == _KEPT):
            continue
        same.add(probe)
        turns = [sorted(lines.setdefault(line, len(lines)) for line in story.elements()) for story in flight.told]
        one = {"probe": probe_json(flight.course.probe), "turns": turns}
        kept.setdefault(json.dumps(one), one)
    document = {
        "apiVersion": _VERSION,
        "kind": "LabRecording",
        "kernel": result.kernel,
        "tools": result.tools,
        "cluster": dict(cluster),
        "lines": list(lines),
        "flights": list(kept.values()),
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0))


def read(path: Path) -> dict[str, Any]:
    """InputError if it is no recording."""
    try:
        data = path.read_bytes()
        document: Any = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, ValueError, EOFError) as error:
        raise InputError([Problem(f"cannot be read: {error}", Source(str(path)))]) from None
    if not isinstance(document, dict) or document.get("kind") != "LabRecording":
        raise InputError([Problem("is no recording of `netsim lab verify --record`", Source(str(path)))])
    return document


def probe_json(probe: Probe) -> dict[str, Any]:
    more = {name: getattr(probe, name) for name, plain in _PLAIN.items() if getattr(probe, name) != plain}
    return {
        "path": probe.path, "source": probe.source, "target": str(probe.target), "protocol": probe.protocol.name,
        "port": probe.port, "manner": probe.manner.value, **more,
    }  # fmt: skip


def probe_of(value: Mapping[str, Any]) -> Probe:
    more = {name: value[name] for name in _PLAIN if name in value}
    return Probe(
        value["path"], value["source"], ip(value["target"]), PROTOCOLS[value["protocol"]], value["port"],
        Manner(value["manner"]), **more,
    )  # fmt: skip


def replay(recorded: Mapping[str, Any], network: Network, names: Sequence[str]) -> Iterator[str]:
    """Hold the interpreter against the recorded kernel: one text for each flight that it tells another story of."""
    lines = recorded["lines"]
    known: dict[Probe, Course] = {}
    for flight in recorded["flights"]:
        probe = probe_of(flight["probe"])
        course = known.get(probe)
        if course is None:
            (course,) = courses(network, names, [probe], PORTS)
            known[probe] = course
        stage = course.first
        for number, turn in enumerate(flight["turns"]):
            told = Counter(lines[line] for line in turn)
            way = next((way for way in course.ways(stage) if _is(way, told)), None)
            if way is None:
                yield _differing(probe, number, told, course.ways(stage))
                break
            if way.after is None:
                if number + 1 < len(flight["turns"]):
                    yield f"{probe}: netsim ends the conversation after turn {number + 1}, the kernel went on\n"
                break
            stage = way.after


def _is(way: Way, told: Story) -> bool:
    sure = way.main + way.entries
    return told == sure + way.errors or (way.limited and sure <= told <= sure + way.errors)


def _differing(probe: Probe, number: int, told: Story, ways: Iterable[Way]) -> str:
    stories = [way.main + way.errors + way.entries for way in ways]
    said = min(stories, key=lambda story: ((story - told) + (told - story)).total())
    text = f"{probe}, turn {number + 1}\n"
    for line in dict.fromkeys([*said, *told]):
        sign = "both  " if said[line] == told[line] else "netsim" if said[line] > told[line] else "kernel"
        text += f"    {sign}  {line}\n"
    return text
