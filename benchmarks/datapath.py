"""The compiled datapath at scale: packets a second against what the memory of this machine allows.

    python benchmarks/datapath.py                                        # 10,000 Services, 5,000 nodes, 150,000 pods
    python benchmarks/datapath.py --nodes 50 --pods 1500 --services 100 --flows 100000 --few-flows 10000    # a minute

One cluster with vxlan; every pod is a client, every Service a target, uniformly. First a sample of conversations is held to
the interpreter. Then, in one process and one thread, in CPU time of that thread: flows are established; batches of
established packets alternate with independent random gathers of 64-byte lines from a table of the flow table's size (the
baseline: an established packet costs two such lines); storms of new flows; the same again with fewer flows, and (with
``--few-services``) on a second cluster with fewer Services. Ratios are of medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from generate import objects
from msgspec.structs import replace

from netsim.bench.verify import verify
from netsim.bench.workload import Session
from netsim.compiled.addresses import Addresses
from netsim.compiled.flow_records import HOT
from netsim.compiled.jit import kernel
from netsim.compiled.memory import aligned
from netsim.compiled.names import Names
from netsim.compiled.rule_compiler import RuleCompiler
from netsim.datapath.engine import Datapath
from netsim.datapath.traffic import Flows, Source, Target
from netsim.interpreter.origin import LocalOrigin
from netsim.interpreter.outcome import Disposition
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.kube.store import Event
from netsim.packet.address import Family, ip
from netsim.packet.model import Proto
from netsim.topology.assemble import Assembled, LazyNetwork, assemble

gc.disable()  # as the command line does
BLOCK = 65536
_DELIVERED = tuple(Disposition).index(Disposition.DELIVERED)


def memory() -> float:
    """Resident MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def say(what: str, value: str) -> None:
    print(f"{what:<66}{value}", flush=True)


@contextmanager
def stage(what: str, count: int = 0) -> Iterator[None]:
    held, start, wall = memory(), time.process_time(), time.perf_counter()
    yield
    spent = time.process_time() - start
    each = f"{spent / count * 1e6:9.1f} us each" if count else ""
    grown = memory() - held
    say(what, f"{spent:8.2f} s CPU {time.perf_counter() - wall:8.1f} s wall {grown:+7.0f} MB {each}")


# -- the memory's limit ------------------------------------------------------------------------------------------------
@kernel
def gather(lines: Any, which: Any) -> Any:
    """One word of each line: independent loads, as many in flight as the processor can hold."""
    total = np.uint64(0)
    for n in range(len(which)):
        total += lines[which[n], 0]
    return total


class Memory:
    """Random lines of a table as large as the flow table: ``lines`` of 64 bytes."""

    def __init__(self, lines: int, random: np.random.Generator) -> None:
        self.lines = aligned(lines, HOT).view(np.uint64).reshape(lines, 8)
        self.lines[:] = 1  # its pages exist
        self.which = [random.integers(0, lines, 4 * BLOCK).astype(np.uint32) for _ in range(4)]
        gather(self.lines, self.which[0])
        self.round = 0

    def rate(self) -> float:
        which = self.which[self.round % len(self.which)]
        self.round += 1
        start = time.thread_time()
        gather(self.lines, which)
        return len(which) / (time.thread_time() - start)


# -- the cluster -------------------------------------------------------------------------------------------------------
def cluster(nodes: int, pods: int, services: int, endpoints: int, udp: bool = False) -> Assembled:
    """``udp``: the Services are of UDP instead of TCP."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cluster.json"
        with path.open("w") as out:
            out.write('{"apiVersion": "v1", "kind": "List", "items": [\n')
            for number, item in enumerate(objects(nodes, pods, services, endpoints)):
                text = json.dumps(item)
                text = text.replace('"protocol": "TCP"', '"protocol": "UDP"') if udp else text
                out.write((",\n" if number else "") + text)
            out.write("\n]}\n")
        loaded = load([str(path)])
    return assemble(store(loaded), Settings(pod_cidrs=("10.128.0.0/9",), cni="flannel:vxlan"))


def names_of(made: Assembled) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes; and pods with their addresses."""
    nodes = [f"node/{name}" for name in made.cluster.nodes]
    return nodes, [(made.namespace_of(pod), pod.ips[0]) for pod in made.cluster.pods.values()]


@dataclass
class Supplied:
    """Facts that the kernels asked for, and the CPU seconds that it took to supply them."""

    count: int = 0
    seconds: float = 0.0
    kinds: dict[int, int] = field(default_factory=dict)

    def watch(self, datapath: Datapath) -> None:
        answer = datapath.supply.answer

        def timed(kind: int, number: int, value: int) -> None:
            start = time.thread_time()
            answer(kind, number, value)
            self.seconds += time.thread_time() - start
            self.count += 1
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

        datapath.supply.answer = timed  # type: ignore[method-assign]


# -- packets -----------------------------------------------------------------------------------------------------------
@dataclass
class Found:
    established: float
    new: float
    gathers: float
    bytes_per_flow: float


def run(
    made: Assembled, datapath: Datapath, supplied: Supplied, sources: list[Source], given: Any, flows: int
) -> Found:
    """One protocol, ``flows`` of them established, then rounds of established packets, gathers and new flows."""
    random = np.random.default_rng(given.seed)
    proto = Proto.UDP if given.udp else Proto.TCP
    targets = [
        Target(ip(service.spec.cluster_ip), service.spec.ports[0].port, proto)
        for service in made.cluster.services.values()
    ]
    new = max(8 * given.rounds, given.new)
    drawn = Flows.draw(sources, targets, flows + new + new // 4, datapath.addresses, random)
    session = Session(datapath, drawn)
    before = memory()
    with stage(f"  {flows:,} flows established", flows):
        first = session.establish(np.arange(flows), BLOCK)
    grown = memory() - before
    arrived = float(np.mean(first.verdict == _DELIVERED))
    say(
        "  first packets delivered",
        f"{arrived:8.2%}; facts supplied {supplied.count:,} in {supplied.seconds:.1f} s CPU",
    )
    session.open(np.arange(flows, flows + new // 4))  # what storms ask for once
    limit = Memory(len(datapath.store.state.hot), random)
    rates: dict[str, list[float]] = {"gathers": [], "established": [], "new": []}
    part = new // given.rounds
    fast = total = 0
    for number in range(given.rounds + 1):
        for _ in range(given.batches):
            batch = session.packets(random.integers(0, flows, given.block))
            spent = session.spent
            result = session.send(batch)
            rate = given.block / (session.spent - spent)
            if number:
                rates["established"].append(rate)
                rates["gathers"].append(limit.rate())
                fast, total = fast + int((result.how == 0).sum()), total + given.block
        if number:
            start = flows + new // 4 + (number - 1) * part
            opening = drawn.opening(np.arange(start, start + part), start=session.now, rate=4_000_000)
            spent, fed = session.spent, supplied.seconds
            session.send(opening)
            rates["new"].append(part / (session.spent - spent - (supplied.seconds - fed)))
    mid = {name: median(values) for name, values in rates.items()}
    for name, values in rates.items():
        say(f"  {name}, millions a second: median (least, most)",
            f"{mid[name] / 1e6:8.2f} ({min(values) / 1e6:.2f}, {max(values) / 1e6:.2f})")  # fmt: skip
    say("  established, share on the fast path", f"{fast / total:8.2%}")
    say("  established x 2 lines / gathers (goal 25%)", f"{2 * mid['established'] / mid['gathers']:8.2%}")
    say("  new / established (goal 5%)", f"{mid['new'] / mid['established']:8.2%}")
    arrays = sum(getattr(datapath.store.state, name).nbytes for name in datapath.store.state._fields)
    say("  bytes a flow: arrays / room; resident growth / flow",
        f"{arrays / len(datapath.store.state.hot):8.0f} / {grown * 1e6 / flows:.0f}")  # fmt: skip
    return Found(mid["established"], mid["new"], mid["gathers"], arrays / len(datapath.store.state.hot))


def ready(made: Assembled, given: Any, capacity: int) -> tuple[Datapath, Supplied, list[Source]]:
    """A datapath whose namespaces are all there, and the clients."""
    datapath = Datapath(made.network, seed=given.seed, capacity=capacity)
    supplied = Supplied()
    supplied.watch(datapath)
    nodes, pods = names_of(made)
    random = np.random.default_rng(given.seed)
    if given.clients and given.clients < len(pods):
        chosen = [pods[number] for number in sorted(random.choice(len(pods), given.clients, replace=False).tolist())]
    else:
        chosen = pods
    with stage(f"  namespaces derived and compiled: {len(nodes):,} nodes", len(nodes)):
        for name in nodes:
            datapath.supply.add(name)
    with stage(f"  the same: {len(chosen):,} pods", len(chosen)):
        sources = [Source(datapath.origin(LocalOrigin(name)), ip(address)) for name, address in chosen]
    if given.warm:
        with stage("  neighbours behind the bridges supplied", len(nodes)):
            for name in nodes:
                datapath.supply.warm(name)
    return datapath, supplied, sources


# -- rules -------------------------------------------------------------------------------------------------------------
def compiling(made: Assembled, given: Any) -> None:
    """Objects to tables, for all Services; and what one changed Service costs a datapath that has compiled them all."""
    node = f"node/{next(iter(made.cluster.nodes))}"
    services = len(made.cluster.services)
    whole(made, node)  # kernels are loaded, texts read once
    spent = []
    for _ in range(3):
        configured, derived, compiled, rules = whole(made, node)
        spent.append((configured + derived + compiled, configured, derived, compiled))
    total, configured, derived, compiled = min(spent)
    say(f"objects to tables, {services:,} Services, {rules:,} rules (goal 3 s)", f"{total:8.2f} s CPU")
    say("  Services and endpoints read, rules derived, tables compiled",
        f"{configured:8.2f}, {derived:.2f}, {compiled:.2f} s CPU")  # fmt: skip
    datapath = Datapath(made.network)
    for name in made.cluster.nodes:
        datapath.supply.add(f"node/{name}")
    for table in made.network.namespace(node).rulesets[Family.IPV4].tables.values():
        datapath.rules.compile_all(datapath.rules.table(node, table, Family.IPV4, {}))
    for what, seconds in updates(made, datapath):
        say(f"{what} (goal 5 ms): median, most", f"{median(seconds) * 1e3:8.2f}, {max(seconds) * 1e3:.2f} ms CPU")


def updates(made: Assembled, datapath: Datapath) -> Iterator[tuple[str, list[float]]]:
    """From an object in the store to a datapath that goes on with all nodes' new rules, by what has changed."""
    store = made.cluster.store
    key, (held, *_) = list(made.cluster.slices.items())[len(made.cluster.slices) // 2]
    service = made.cluster.services[key]
    fewer = replace(held, endpoints=held.endpoints[1:])
    steps: dict[str, Callable[[], object]] = {
        "one endpoint removed": lambda: store.put(fewer),
        "one endpoint added": lambda: store.put(held),
        "one Service removed": lambda: store.delete("Service", *key),
        "one Service added": lambda: store.put(service),
    }
    events: list[Event] = []
    stop = store.watch(events.append)
    found: dict[str, list[float]] = {what: [] for what in steps}
    for number in range(12):
        for what, step in steps.items():
            events.clear()
            start = time.thread_time()
            step()
            made = made.after(events)
            datapath.update(made.network)
            spent = time.thread_time() - start
            if number > 1:
                found[what].append(spent)
    stop()
    yield from found.items()


def whole(made: Assembled, node: str) -> tuple[float, float, float, int]:
    """Every chain of one node (nodes share nearly all of them): CPU seconds to read the Services, to derive the rules, to
    compile them; and how many rules there are."""
    begin = time.thread_time()
    proxy = made.choice.proxy.configure(made.cluster, None, made.network.topology.underlay())
    namespace = LazyNetwork(made.cluster, made.network.topology, proxy, made.cni).namespace(node)
    configured = time.thread_time()
    tables = namespace.rulesets[Family.IPV4].tables.values()
    held = [
        getattr(table.chains, "maps", (table.chains,)) for table in tables
    ]  # a map's chains are quickest in its order
    count = sum(len(chain.rules) for maps in held for one in maps for _, chain in one.items())
    derived = time.thread_time()
    rules = RuleCompiler(Addresses(), Names())
    for table in tables:
        rules.compile_all(rules.table(node, table, Family.IPV4, namespace.ipsets))
    assert rules.programs
    return configured - begin, derived - configured, time.thread_time() - derived, count


# -- start -------------------------------------------------------------------------------------------------------------
_START = """
import time
start = time.perf_counter(), time.process_time()
from netsim.datapath.engine import Datapath
from netsim.linux.network import StaticNetwork
loaded = time.perf_counter(), time.process_time()
datapath = Datapath(StaticNetwork({}))
from netsim.datapath.batch import Batch
datapath.process(Batch.empty(0, datapath.addresses))
print(loaded[0] - start[0], loaded[1] - start[1], time.perf_counter() - loaded[0], time.process_time() - loaded[1])
"""


def starting() -> None:
    with tempfile.TemporaryDirectory() as cache:
        for what, goal in (("without a cache of kernels", 15), ("with it", 1)):
            done = subprocess.run(
                [sys.executable, "-c", _START], env={**os.environ, "NUMBA_CACHE_DIR": cache},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            _, imports, wall, cpu = map(float, done.stdout.split())
            say(f"first use {what} (goal {goal} s)",
                f"{cpu:8.2f} s CPU {wall:8.1f} s wall; imports {imports:.2f} s CPU")  # fmt: skip


def options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=150_000)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--few-flows", type=int, default=100_000)
    parser.add_argument("--few-services", type=int, default=0, help="compare with so many Services (0: do not)")
    parser.add_argument("--clients", type=int, default=0, help="pods that send (all of them)")
    parser.add_argument("--new", type=int, default=100_000, help="new flows, timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4, help="of established packets, in a round")
    parser.add_argument("--block", type=int, default=262_144, help="packets in such a batch")
    parser.add_argument("--sample", type=int, default=100, help="conversations that are held to the interpreter")
    parser.add_argument("--udp", action="store_true", help="UDP flows instead of TCP")
    parser.add_argument("--warm", action="store_true", help="supply all neighbours before the first packet")
    parser.add_argument("--skip-start", action="store_true", help="leave out the time of the first use")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def checked(made: Assembled, given: Any) -> None:
    datapath = Datapath(made.network, seed=given.seed)
    random = np.random.default_rng(given.seed)
    _, pods = names_of(made)
    some = [pods[number] for number in random.integers(0, len(pods), given.sample).tolist()]
    few = [Source(datapath.origin(LocalOrigin(name)), ip(address)) for name, address in dict.fromkeys(some)]
    proto = Proto.UDP if given.udp else Proto.TCP
    targets = [
        Target(ip(service.spec.cluster_ip), service.spec.ports[0].port, proto)
        for service in made.cluster.services.values()
    ]
    flows = Flows.draw(few, targets, given.sample, datapath.addresses, random)
    with stage(f"  {given.sample} conversations held to the interpreter"):
        compared = verify(datapath, flows, np.arange(given.sample))
    say("  packets compared: verdict, receiver, packet, rules: all equal", f"{compared:8,}")


def main() -> None:
    given = options()
    say("load of this machine when it began (1 min), CPUs", f"{os.getloadavg()[0]:8.1f}, {os.cpu_count()}")
    if not given.skip_start:
        starting()
    found: dict[tuple[int, int], Found] = {}
    for services in [given.services, *[given.few_services] * bool(given.few_services)]:
        print(f"{services:,} Services x {given.endpoints}, {given.nodes:,} nodes, {given.pods:,} pods, flannel vxlan, "
              f"{'UDP' if given.udp else 'TCP'}", flush=True)  # fmt: skip
        with stage("  objects read and cluster assembled", given.pods):
            made = cluster(given.nodes, given.pods, services, given.endpoints, given.udp)
        if services == given.services:
            compiling(made, given)
        checked(made, given)
        counts = [given.few_flows, given.flows] if services == given.services else [given.flows]
        for flows in dict.fromkeys(counts):
            datapath, supplied, sources = ready(made, given, flows + 2 * given.new)
            found[services, flows] = run(made, datapath, supplied, sources, given, flows)
            del datapath
    largest = found[given.services, given.flows]
    few = found[given.services, given.few_flows]
    say(
        f"rate at {given.few_flows:,} flows / at {given.flows:,} (goal 2)",
        f"{few.established / largest.established:8.2f}",
    )
    if given.few_services:
        small = found[given.few_services, given.flows]
        say(f"cost per packet with {given.services:,} Services / with {given.few_services:,} (goal at most 1.2)",
            f"{small.established / largest.established:8.2f}")  # fmt: skip
    say("most memory resident", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:8.0f} MB")


if __name__ == "__main__":
    main()
