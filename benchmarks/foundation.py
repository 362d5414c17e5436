"""Start-up, rendering and loading, as whole processes: what a user waits for.

    python benchmarks/foundation.py [--quick]

Prints medians of five runs (one run for the large dump) with the machine's core count, wall seconds and peak memory.
``--quick`` leaves out the dump of 5,000 nodes, 150,000 pods and 10,000 Services.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
NETSIM = [sys.executable, "-c", "import sys; from netsim.cli import main; sys.exit(main())"]


def run(words: list[str], runs: int = 5) -> tuple[float, float]:
    """(median wall seconds, peak memory in MB) of netsim with ``words``; a failure stops the benchmark."""
    walls, peaks = [], []
    for _ in range(runs):
        start = time.perf_counter()
        child = subprocess.Popen([*NETSIM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(child.pid, 0)
        walls.append(time.perf_counter() - start)
        peaks.append(usage.ru_maxrss / 1000)
        told = child.stderr.read().decode() if child.stderr else ""
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"netsim {' '.join(words)} failed: {told}")
        if child.stderr:
            child.stderr.close()
    return statistics.median(walls), max(peaks)


def report(what: str, bar: str, words: list[str], runs: int = 5) -> None:
    wall, peak = run(words, runs)
    print(f"{what:<66}{wall:8.2f} s {peak:8.0f} MB   (bar: {bar})", flush=True)


def dump(folder: Path, name: str, nodes: int, pods: int, services: int) -> str:
    path = folder / f"{name}.json"
    numbers = ["--nodes", str(nodes), "--pods", str(pods), "--services", str(services)]
    with path.open("wb") as file:
        subprocess.run([sys.executable, str(HERE / "generate.py"), *numbers], stdout=file, check=True)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    network = ["-q", "--pod-cidr", "10.128.0.0/9"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report("--help", "0.2 s", ["--help"])
        report(
            "first trace on the example",
            "1 s",
            ["trace", "-q", "-f", "@example", "pod/shop/web-0", "svc/shop/cart:http"],
        )
        small = dump(folder, "small", 10, 100, 20)
        words = ["trace", *network, "-f", small, "pod/team-0/app-0-0", "svc/team-1/app-1"]
        report("first trace on a cluster of 100 pods", "1 s", words)
        wide = dump(folder, "wide", 1000, 100_000, 10_000)
        words = ["render", *network, "-f", wide, "node-1", "iptables"]
        report("iptables of 10,000 Services x 10 endpoints, loading included", "10 s and 1.5 GiB without", words, 1)
        render(wide)
        if not given.quick:
            large = dump(folder, "large", 5000, 150_000, 10_000)
            size = Path(large).stat().st_size / 1e6
            words = ["trace", *network, "-f", large, "pod/team-0/app-0-0", "svc/team-1/app-1", "--minimal"]
            report(f"load 5,000 nodes, 150,000 pods ({size:.0f} MB) and trace", "60 s, 6 GiB, 3 s more", words, 1)
            stages(large)


def render(path: str) -> None:
    """The rendering alone, without loading."""
    code = f"""
import gc, time
gc.disable()  # as the command line does
from netsim.kube import load
from netsim.kube.cluster import Settings
from netsim.linux.netfilter.text import print_save
from netsim.packet.address import Family
from netsim.topology import assemble
made = assemble(load.store(load.load([{path!r}])), Settings(pod_cidrs=("10.128.0.0/9",)))
start = time.perf_counter()
lines = sum(text.count("\\n") for text in print_save(made.network.namespace("node/node-1").rulesets[Family.IPV4]))
print(f"  of which rendering {{lines:,}} lines: {{time.perf_counter() - start:.2f}} s")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def stages(path: str) -> None:
    """Where the time of the large dump goes."""
    code = f"""
import gc, time
from netsim.interpreter import LocalOrigin, trace
from netsim.kube import load
from netsim.kube.cluster import Settings
from netsim.packet.address import ip
from netsim.packet.model import Packet, Tcp
from netsim.topology import assemble
def stage(what, call):
    start = time.perf_counter()
    result = call()
    print(f"  {{what:<64}}{{time.perf_counter() - start:8.2f}} s", flush=True)
    return result
store = stage("reading, validating, storing", lambda: load.store(load.load([{path!r}])))
gc.disable()  # as the command line does
made = stage("controllers and topology", lambda: assemble(store, Settings(pod_cidrs=("10.128.0.0/9",))))
pod, service = made.cluster.pods["team-0", "app-0-0"], made.cluster.services["team-1", "app-1"]
packet = Packet(ip(pod.ips[0]), ip(service.spec.cluster_ip), 6, Tcp(40000, 80))
stage("first trace, all ten outcomes", lambda: trace(made.network, LocalOrigin(made.namespace_of(pod)), packet))
packet = Packet(ip(pod.ips[0]), ip(made.cluster.services["team-9", "app-9"].spec.cluster_ip), 6, Tcp(40001, 80))
stage("second trace, another Service", lambda: trace(made.network, LocalOrigin(made.namespace_of(pod)), packet))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
