"""The page of what was checked against real kernels, from the JSON of `lab verify` runs: ``checked_page.py FOLDER KNOWN``.

FOLDER holds NAME.KERNEL.json for each run, NAME.KERNEL.failed with the reason for each that could not be made, and
random-cases.json, what `make fuzz-lab` told. KNOWN is the folder of cases that random comparisons with the kernel have kept;
"known" in one says what still differs.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAD = """\
# What was checked against real kernels

Written by `make checked` from runs of `netsim lab verify`; do not edit. Every packet of every conversation is compared
device by device; [the lab](lab.md) says what that means.
"""


RANDOM = "random-cases.json"


def page(folder: Path, known: Path, today: str) -> Iterator[str]:
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.name != RANDOM}
    failed = {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.failed"))}
    yield HEAD
    yield f"Checked on {today}.\n"
    yield "| cluster and network | kernel | probes | packets | conntrack entries | rule counters | rules traced | result |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for name, run in runs.items():
        yield _row(name, run)
    for name, why in failed.items():
        cluster, _, kernel = name.rpartition(".")
        yield f"| {cluster} | {kernel} | | | | | | not made: {_last(why)} |"
    total = sum(run["packets"] for run in runs.values())
    wrong = sum(len(run["disagreements"]) for run in runs.values())
    yield f"\n{total:,} packets in {len(runs)} runs, {wrong} disagreements.\n"
    yield "Tools: " + "; ".join(sorted({text for run in runs.values() for text in run["tools"].values()})) + ".\n"
    if (folder / RANDOM).exists():
        yield from _random(json.loads((folder / RANDOM).read_text()))
    yield "## Packets by path class\n"
    yield from _classes(runs, "path")
    yield "\n## Packets by what was looked at\n"
    yield from _classes(runs, "aspect")
    yield "\n## What is known to differ\n"
    yield from _known(runs, known)


def _random(run: Mapping[str, Any]) -> Iterator[str]:
    """What `make fuzz-lab` compared."""
    versions = run["versions"]
    yield "## Random cases\n"
    yield (
        f"{run['packets']:,} random packets over {run['rulesets']:,} random rulesets, route tables and sets, on one router, "
        f"{versions['kernel']} ({versions['iptables']}; {versions['ipset']}), in {run['seconds']} s: "
        f"{len(run['disagreements'])} disagreements, {len(run['once'])} that did not come again, "
        f"{len(run['failed'])} cases that could not be made.\n"
    )


def _row(name: str, run: Mapping[str, Any]) -> str:
    compared = run["compared"]
    cells = [compared.get(key, 0) for key in ("conntrack entries", "rule counters", "rules traced")]
    result = "all agree" if run["agrees"] else f"{len(run['disagreements'])} disagreements"
    if run["once"]:
        result += f"; {len(run['once'])} that did not come again"
    numbers = " | ".join(f"{number:,}" for number in (run["probes"], run["packets"], *cells))
    return f"| {name.rpartition('.')[0]} | {run['kernel']} ({name.rpartition('.')[2]}) | {numbers} | {result} |"


def _classes(runs: Mapping[str, Mapping[str, Any]], key: str) -> Iterator[str]:
    """One row a class, one column a network and family."""
    columns = sorted({(_network(name), one["family"]) for name, run in runs.items() for one in run["classes"]})
    rows: dict[str, dict[tuple[str, int], int]] = {}
    for name, run in runs.items():
        for one in run["classes"]:
            row = rows.setdefault(one[key], {})
            column = _network(name), one["family"]
            row[column] = row.get(column, 0) + one["packets"]
    yield (
        f"| {'path class' if key == 'path' else 'looked at'} | " + " | ".join(f"{n} IPv{f}" for n, f in columns) + " |"
    )
    yield "| --- |" + " ---: |" * len(columns)
    for text, row in sorted(rows.items()):
        yield f"| {text} | " + " | ".join(f"{row[column]:,}" if column in row else "" for column in columns) + " |"


def _network(name: str) -> str:
    return name.rpartition(".")[0].rpartition("flannel ")[2]


def _known(runs: Mapping[str, Mapping[str, Any]], known: Path) -> Iterator[str]:
    kept = [(path.stem, json.loads(path.read_text())) for path in sorted(known.glob("*.json"))]
    held = [(name, case["known"]) for name, case in kept if case.get("known")]
    skipped = sorted({f"{text} ({run['kernel']})" for run in runs.values() for text in run["skipped"]})
    for name, why in held:
        yield f"- random case {name}: {why}"
    for name, run in runs.items():
        for text in run["disagreements"]:
            yield f"- {name.rpartition('.')[0]}, {run['kernel']}: {text.splitlines()[0]}"
        for text in run["once"]:
            yield f"- {name.rpartition('.')[0]}, {run['kernel']}, not again when sent anew: {text.splitlines()[0]}"
    if not held and all(run["agrees"] for run in runs.values()):
        yield "Nothing: every run agreed, and so does every random case that was kept."
    yield from (f"- not compared: {text}" for text in skipped)
    yield "\nWhere the lab itself differs from a real node: see [the lab](lab.md)."


def _last(text: str) -> str:
    return text.splitlines()[-1].removeprefix("error: ") if text else "no reason given"


if __name__ == "__main__":
    sys.stdout.write("\n".join(page(Path(sys.argv[1]), Path(sys.argv[2]), datetime.date.today().isoformat())) + "\n")
