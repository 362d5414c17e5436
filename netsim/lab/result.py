"""What a run of ``lab verify`` found, for people and for programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from netsim.lab.probes import Probe
from netsim.packet.address import Family


@dataclass
class Tally:
    probes: int = 0
    packets: int = 0
    disagreements: int = 0

    def to_json(self) -> dict[str, int]:
        return {"probes": self.probes, "packets": self.packets, "disagreements": self.disagreements}


@dataclass
class Result:
    """``classes``: path, aspect and family → what was sent. ``disagreements``: both stories, as text. ``once``: those that
    did not come again when the same was sent anew. ``compared``: what else was, and how many of it."""

    kernel: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    classes: dict[tuple[str, str, Family], Tally] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)
    agreements: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        return not self.disagreements

    @property
    def packets(self) -> int:
        return sum(tally.packets for tally in self.classes.values())

    @property
    def probes(self) -> int:
        return sum(tally.probes for tally in self.classes.values())

    def tally(self, probe: Probe) -> Tally:
        return self.classes.setdefault((probe.path, probe.aspect, probe.family), Tally())

    def count(self, what: str, number: int = 1) -> None:
        self.compared[what] = self.compared.get(what, 0) + number

    def text(self, *, verbose: bool = False) -> Iterator[str]:
        if verbose:
            yield from (f"agree     {text}" for text in self.agreements)
        yield from (f"DISAGREE  {text.rstrip()}" for text in self.disagreements)
        yield from (f"ONCE      {text.rstrip()}" for text in self.once)
        yield from self._table("path", 0)
        yield from self._table("what is looked at", 1)
        yield from (f"skipped: {text}" for text in self.skipped)
        others = ", ".join(f"{number} {what}" for what, number in sorted(self.compared.items()))
        verdict = "all agree" if self.agrees else f"{len(self.disagreements)} disagreements"
        verdict += f", {len(self.once)} of them only when sent anew" if self.agrees and self.once else ""
        yield f"{self.packets} packets of {self.probes} probes compared ({others}): {verdict}"

    def _table(self, title: str, place: int) -> Iterator[str]:
        """Sums by path or by aspect."""
        families = sorted({key[2] for key in self.classes})
        rows: dict[str, dict[Family, Tally]] = {}
        for (path, aspect, family), tally in self.classes.items():
            total = rows.setdefault((path, aspect)[place], {}).setdefault(family, Tally())
            total.probes += tally.probes
            total.packets += tally.packets
            total.disagreements += tally.disagreements
        width = max((len(row) for row in rows), default=10)
        yield f"{title:<{width}}" + "".join(f"  IPv{int(family)} probes  packets" for family in families)
        for row, held in sorted(rows.items()):
            cells = [held.get(family, Tally()) for family in families]
            wrong = sum(cell.disagreements for cell in cells)
            numbers = "".join(f"  {cell.probes:>11}  {cell.packets:>7}" for cell in cells)
            yield f"{row:<{width}}{numbers}{f'  {wrong} disagree' if wrong else ''}"

    def to_json(self) -> dict[str, Any]:
        return {
            "apiVersion": "netsim/v1alpha1",
            "kind": "LabVerification",
            "kernel": self.kernel,
            "tools": self.tools,
            "agrees": self.agrees,
            "seconds": round(self.seconds, 1),
            "probes": self.probes,
            "packets": self.packets,
            "compared": self.compared,
            "classes": [
                {"path": path, "aspect": aspect, "family": int(family), **tally.to_json()}
                for (path, aspect, family), tally in sorted(self.classes.items())
            ],
            "disagreements": self.disagreements,
            "once": self.once,
            "skipped": self.skipped,
        }


def show(result: Result, *, as_json: bool, verbose: bool) -> int:
    """Print it; the exit code."""
    if as_json:
        import json

        sys.stdout.write(json.dumps(result.to_json(), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(result.text(verbose=verbose)) + "\n")
    return 0 if result.agrees else 5


def tools() -> dict[str, str]:
    """The versions of what the lab was built with."""
    found = {}
    environment = {**os.environ, "LC_ALL": "C"}
    for name, words in (("iptables", ["iptables", "-V"]), ("iproute2", ["ip", "-V"]), ("ipset", ["ipset", "-v"])):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False, env=environment)
        except OSError:
            continue
        lines = (done.stdout or done.stderr).strip().splitlines()
        if lines:
            found[name] = lines[0].strip()
    return found
