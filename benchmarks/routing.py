"""Routing at scale: what it costs to derive, compile and look into the namespaces of a flannel cluster.

    python benchmarks/routing.py [--nodes 5000] [--pods 5000] [--lookups 2000000]

Every node knows every other node's subnet, so routes come to nodes x nodes; what nodes share is neither derived nor compiled
again. Look-ups are one kernel call each, timed in a loop in one thread (its CPU time); twenty answers of each
kind are held to the interpreter's routing table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from generate import objects

from netsim.compiled.addresses import Addresses
from netsim.compiled.fib import FibCompiler
from netsim.compiled.fib_kernels import fib_lookup
from netsim.compiled.fib_tables import OUT_DEVICE, OUT_GATEWAY, OUT_SIZE, TYPES
from netsim.compiled.jit import kernel
from netsim.compiled.names import Names
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.linux.fib import Fib
from netsim.topology.assemble import Assembled, assemble

CHECKED = 20


@kernel
def lookups(F: Any, words: Any, asked: Any, out: Any, answers: Any) -> None:
    """``asked`` rows: namespace, destination, source, iif. ``answers`` rows: type, device, gateway."""
    for n in range(len(asked)):
        answers[n, 0] = fib_lookup(
            F, words, asked[n, 0], np.int64(4), asked[n, 1], asked[n, 2], asked[n, 3], np.int64(0), np.int64(0),
            np.int64(1), out,
        )  # fmt: skip
        answers[n, 1] = out[OUT_DEVICE]
        answers[n, 2] = out[OUT_GATEWAY]


def memory() -> float:
    """Resident MB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def cluster(nodes: int, pods: int) -> Assembled:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cluster.json"
        with path.open("w") as out:
            out.write('{"apiVersion": "v1", "kind": "List", "items": [\n')
            out.write(",\n".join(json.dumps(item) for item in objects(nodes, pods, 1, 1)))
            out.write("\n]}\n")
        loaded = load([str(path)])
    return assemble(store(loaded), Settings(pod_cidrs=("10.128.0.0/9",)))


class Stage:
    def __init__(self, what: str, count: int) -> None:
        self.what, self.count = what, count

    def __enter__(self) -> None:
        self.memory, self.start = memory(), time.process_time()

    def __exit__(self, *_: object) -> None:
        spent = time.process_time() - self.start
        grown = memory() - self.memory
        each = spent / max(self.count, 1) * 1e6
        print(f"{self.what:<48}{spent:9.2f} s {each:10.1f} us each {grown:8.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--lookups", type=int, default=2_000_000)
    given = parser.parse_args()
    made = cluster(given.nodes, given.pods)
    names = [f"node/{name}" for name in made.cluster.nodes] + [
        made.namespace_of(pod) for pod in made.cluster.pods.values()
    ]
    with Stage(f"namespaces of {given.nodes} nodes", given.nodes):
        held = [made.network.namespace(name) for name in names[: given.nodes]]
    with Stage(f"namespaces of {given.pods} pods", given.pods):
        held += [made.network.namespace(name) for name in names[given.nodes :]]
    addresses, known = Addresses(), Names()
    compiler = FibCompiler(addresses, known)
    for what, first, end in (("nodes", 0, given.nodes), ("pods", given.nodes, len(held))):
        with Stage(f"tables of {end - first} {what}", end - first):
            for number in range(first, end):
                compiler.add(number, held[number])
            tables = compiler.tables
    size = sum(array.nbytes for array in tables[:-1])
    routes = sum(len(namespace.routes) for namespace in held)
    print(f"{routes:,} routes in {size / 1e6:.1f} MB of tables")
    dice = np.random.default_rng(1)
    bridge = known.number("cni0")
    for what, places, iif in (
        ("forwarded by a node to another's pod", dice.integers(0, given.nodes, given.lookups), bridge),
        ("arriving at the pod's node", None, known.number("flannel.1")),
        ("sent by a pod", dice.integers(given.nodes, len(held), given.lookups), 0),
        ("one node, one destination", np.zeros(given.lookups, np.int64), bridge),
    ):
        target = dice.integers(0, given.nodes, given.lookups)
        if what.startswith("one"):
            target[:] = given.nodes - 1
        asked = np.zeros((given.lookups, 4), np.int64)
        asked[:, 0] = target if places is None else places
        asked[:, 1] = (10 << 24 | 128 << 16) + target * 256 + 2
        asked[:, 2] = (10 << 24 | 128 << 16) + asked[:, 0] * 256 + 2
        asked[:, 3] = iif
        answers, out = np.zeros((given.lookups, 3), np.int64), np.zeros(OUT_SIZE, np.int64)
        lookups(tables, addresses.words, asked[:1], out, answers[:1])
        spent = []
        for _ in range(3):
            start = time.thread_time()
            lookups(tables, addresses.words, asked, out, answers)
            spent.append((time.thread_time() - start) / given.lookups * 1e9)
        check(held, asked, answers, addresses, known)
        print(f"look-up, {what:<44}{sorted(spent)[1]:8.1f} ns (median of 3)")


def check(held: list[Any], asked: Any, answers: Any, addresses: Addresses, known: Names) -> None:
    for n in range(0, len(asked), max(1, len(asked) // CHECKED)):
        number, dst, src, iif = (int(value) for value in asked[n])
        found = Fib(held[number]).lookup(
            addresses.address(dst, 4), src=addresses.address(src, 4), iif=known.name(iif) or None
        )
        code, device, gateway = (int(value) for value in answers[n])
        said = TYPES.get(code), known.name(device) or None, addresses.address(gateway, 4) if gateway >= 0 else None
        assert said == (found.type, found.device, found.gateway), (said, found)


if __name__ == "__main__":
    main()
