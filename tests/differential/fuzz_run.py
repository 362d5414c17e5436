"""The long run, and the recordings: ``python -m tests.differential.fuzz_run [--seconds N] [--seed N] [--output FILE]
[--record]``.

Each worker has a processor and namespaces of its own. What disagrees is sent again at once: if it is there again, it is
shrunk, kept under ``fuzz_examples/`` and shown; if not, it is shown as it was. The last lines count packets, rulesets and
disagreements of both kinds and name the kernel. Exit status 1 if there were any, or a case could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from netsim.packet.address import Family
from tests.conftest import _kernel_is_missing
from tests.differential.fuzz_cases import case_to_json, random_case
from tests.differential.fuzz_compare import Disagreement, ask, compare, shrink
from tests.differential.fuzz_files import RECORDED, examples, keep, versions, write_recording
from tests.differential.fuzz_lab import lab

PACKETS = 26  # of a case
SHOWN = 5
RECORDED_CASES = 60  # of each family
SHRINK_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description="random cases, the interpreter's story next to the kernel's")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=4, help="two for each of two processors: they often wait")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 10**6 * 10**6, help="the first; the time tells if absent"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write what came of it to FILE, as JSON")
    parser.add_argument("--record", action="store_true", help="write tests/data/recorded/fuzz-*.json.gz anew")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if reason := _kernel_is_missing():
        print(f"no kernel to compare with: {reason}", file=sys.stderr)
        return 1
    if given.record:
        return record()
    if given.worker is not None:
        return work(given.worker, given.workers, given.seed, given.seconds)
    return run(given.workers, given.seed, given.seconds, given.output)


def run(workers: int, seed: int, seconds: float, output: Path | None) -> int:
    words = [sys.executable, "-m", "tests.differential.fuzz_run", "--seed", str(seed), "--seconds", str(seconds)]
    begun = time.monotonic()
    started = [
        subprocess.Popen(
            [*words, "--workers", str(workers), "--worker", str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(workers)
    ]
    total = _nothing()
    for worker in started:
        said, _ = worker.communicate()
        if worker.returncode:
            total["failed"].append("a worker ended before its time")
            continue
        told = json.loads(said.splitlines()[-1])
        total = {key: total[key] + told[key] for key in total}
    found, once, failed = total["disagreements"], total["once"], total["failed"]
    for text in found[:SHOWN]:
        print(text, end="\n\n")
    for text in once[:SHOWN]:
        print(f"seen once, not when it was replayed: {text}", end="\n\n")
    for text in failed[:SHOWN]:
        print(f"not compared: {text}", end="\n\n")
    took = round(time.monotonic() - begun)
    on = f"{workers} workers on {os.cpu_count()} processors"
    print(f"{total['packets']} packets over {total['rulesets']} rulesets in {took} s with {on} (first seed {seed}):")
    print(f"{len(found)} disagreements, {len(once)} seen once but not again, {len(failed)} cases not compared")
    print(", ".join(versions().values()))
    if output is not None:
        about = {"seed": seed, "seconds": took, "processors": os.cpu_count(), "versions": versions()}
        output.write_text(json.dumps({**total, **about}, indent=1))
    return 1 if found or once or failed else 0


def _nothing() -> dict[str, Any]:
    """What a run tells. ``once``: disagreements that were not there when the case was sent again; ``failed``: why a case
    could not be made."""
    return {"packets": 0, "rulesets": 0, "disagreements": [], "once": [], "failed": []}


def work(number: int, workers: int, seed: int, seconds: float) -> int:
    told = _nothing()
    end = time.monotonic() + seconds
    with lab(number) as real:
        at = seed + number
        while time.monotonic() < end:
            family = tuple(Family)[at // workers % 2]
            case = random_case(Random(at), family, PACKETS)
            at += workers
            told["rulesets"] += 1
            try:
                told["packets"] += compare(real, case)
                continue
            except Disagreement as difference:
                first = f"{family.name}, seed {at - workers}: {_text(difference)}"
            except RuntimeError as error:
                told["failed"].append(f"{family.name}, seed {at - workers}: {error}")
                continue
            try:
                told["packets"] += compare(real, case)
                told["once"].append(first)
            except Disagreement as again:
                least = shrink(real, again, SHRINK_SECONDS)
                path = keep(least.case, f"{family.name}, seed {at - workers}: {str(least).partition(chr(10))[0]}")
                told["disagreements"].append(f"{_text(least)}\n  kept as {path.name}")
    print(json.dumps(told))
    return 0


def _text(difference: Disagreement) -> str:
    return "\n".join((str(difference), *getattr(difference, "__notes__", ())))


def record() -> int:
    """Cases 0, 1, 2 … of each family and the kept examples, with the kernel's answers."""
    told = {
        f.name.lower(): [random_case(Random(seed), f, packets=16) for seed in range(RECORDED_CASES)] for f in Family
    }
    told["examples"] = [example.case for example in examples() if not example.known]
    with lab() as real:
        for name, cases in told.items():
            held = []
            for case in cases:
                kernel = ask(real, case)
                said = {"answers": kernel.answers, "connections": kernel.connections(), "counters": kernel.counters()}
                held.append({"case": case_to_json(case), **said})
            path = RECORDED / f"fuzz-{name}.json.gz"
            write_recording(path, held)
            print(f"{path.name}: {len(held)} cases, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
