"""Policy answers at scale: the class matrix with port sets, changes of it, one explanation, hostile blocks over pod
addresses, a dump from text to answers, and the naive evaluator beside it.

python benchmarks/policies.py [--pods 150000] [--policies 10000] [--yaml]
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import platform
import random
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from netsim.cli.policy_input import addresses
from netsim.errors import Source
from netsim.kube import control, load, yaml_reader
from netsim.kube.cluster import Settings
from netsim.kube.objects import Meta, Resource
from netsim.packet.address import ip
from netsim_policies.algebra import AddressSet
from netsim_policies.apis import network_policy
from netsim_policies.evaluate import decide
from netsim_policies.explain import explain, to_text
from netsim_policies.matrix import Matrix
from netsim_policies.model import Action, AddressPeer, Direction, Endpoint, EndpointKind, Policy, Rule, World
from netsim_policies.world import world


def build(pods: int, policies: int, seed: int = 1) -> World:
    """Teams, apps, tiers and versions as labels; 70 % of the policies on ingress, 30 % on egress; ports and ipBlocks."""
    draw = random.Random(seed)
    spaces = [f"team-{i}" for i in range(max(1, pods // 300))]
    namespaces = {s: {"kubernetes.io/metadata.name": s, "env": draw.choice(("prod", "stage", "dev"))} for s in spaces}
    apps = max(1, pods // 25)
    endpoints: list[Endpoint] = []
    for index in range(pods):
        app = index % apps
        space = spaces[app % len(spaces)]
        endpoints.append(
            Endpoint(
                EndpointKind.POD,
                f"{space}/app-{app}-{index}",
                namespace=space,
                labels={"app": f"app-{app}", "tier": f"tier-{app % 5}", "version": f"v{index % 3}"},
                namespace_labels=namespaces[space],
                addresses=(ip(f"10.{128 + (index >> 16)}.{(index >> 8) & 255}.{index & 255}"),),
                named_ports={("http", "TCP"): 8080 if app % 3 else 80},
                node=f"n{index % 5000}",
            )
        )
    made = [network_policy.read(policy(i, draw, apps, spaces)) for i in range(policies)]
    return World(tuple(endpoints), tuple(made), namespaces)


def block(draw: random.Random) -> str:
    """Mostly outside ranges; some over all pods, a few over single pod subnets."""
    kind = draw.random()
    if kind < 0.9:
        return f"{draw.randrange(11, 100)}.{draw.randrange(256)}.0.0/16"
    return "10.0.0.0/8" if kind < 0.95 else f"10.129.{draw.randrange(20)}.0/24"


def policy(index: int, draw: random.Random, apps: int, spaces: list[str]) -> Resource:
    app = draw.randrange(apps)
    space = spaces[app % len(spaces)]
    ingress = draw.random() < 0.7
    side = "from" if ingress else "to"
    rules: list[dict[str, Any]] = []
    for _ in range(draw.randint(1, 3)):
        kind = draw.random()
        if kind < 0.5:
            peer: dict[str, Any] = {"podSelector": {"matchLabels": {"app": f"app-{draw.randrange(apps)}"}}}
            if draw.random() < 0.5:
                peer["namespaceSelector"] = {"matchLabels": {"env": draw.choice(("prod", "stage"))}}
        elif kind < 0.8:
            peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": draw.choice(spaces)}}}
        else:
            peer = {"ipBlock": {"cidr": block(draw)}}
        ports: list[dict[str, Any]] = [{"protocol": "TCP", "port": draw.choice((80, 443, 8080, "http", 5432, 9090))}]
        if draw.random() < 0.2:
            ports.append({"protocol": "TCP", "port": 30000, "endPort": 30000 + draw.randrange(1, 500)})
        rules.append({side: [peer], "ports": ports})
    spec = {
        "podSelector": {"matchLabels": {"app": f"app-{app}"}},
        "policyTypes": ["Ingress" if ingress else "Egress"],
        "ingress" if ingress else "egress": rules,
    }
    meta = Meta(name=f"policy-{index}", namespace=space)
    return Resource(kind="NetworkPolicy", metadata=meta, body={"spec": spec}, source=Source("policies.yaml", index))


def hostile(pods: int, policies: int, seed: int = 1) -> World:
    """As ``build``, with every second rule a block of its own over pod addresses, /32 to /28, in every policy."""
    draw = random.Random(seed)
    plain = build(pods, 0, seed)
    spaces = [*plain.namespaces]
    made = []
    for index in range(policies):
        raw = policy(index, draw, max(1, pods // 25), spaces)
        for section, side in (("ingress", "from"), ("egress", "to")):
            for place, rule in enumerate(raw.body["spec"].get(section, ())):
                if place % 2 == 0:
                    value, length = draw.randrange(pods), draw.randrange(28, 33)
                    start = f"10.{128 + (value >> 16)}.{(value >> 8) & 255}.{value & 255}"
                    rule[side] = [{"ipBlock": {"cidr": f"{start}/{length}"}}]
        made.append(network_policy.read(raw))
    return World(plain.endpoints, tuple(made), plain.namespaces)


def timed(what: str, call: Any) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    elapsed, worked = time.perf_counter() - start, time.process_time() - cpu
    print(f"{what:<66}{elapsed * 1000:10.1f} ms ({worked * 1000:.1f} ms of CPU)", flush=True)
    return result


def peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def large(pods: int, policies: int) -> None:
    """The class matrix of a large cluster, changes of it, one explanation."""
    world = timed("generate (not counted)", lambda: build(pods, policies))
    timed("import and compile or load the kernels (a small world)", lambda: Matrix(build(500, 200)).cells())

    def answer() -> tuple[Matrix, Any]:
        matrix = Matrix(world)
        return matrix, matrix.cells()

    matrix, cells = timed("classes and the class matrix with port sets", answer)
    shown = f"{len(matrix.classes)} classes, {cells.nbytes / 1e6:.0f} MB of cells, {len(matrix.port_sets)} port sets"
    print(f"{shown}, {peak()}")

    changed = world.policies[len(world.policies) // 2]
    other = replace(changed, ingress=(), egress=())
    rule = Rule(Action.ALLOW, (AddressPeer(AddressSet.prefix("10.130.7.16/28"), "a block"),), None, "spec.ingress[0]")
    blocked = replace(changed, directions=frozenset((Direction.INGRESS,)), ingress=(rule,), egress=())
    worded = replace(
        changed, subject=replace(changed.subject, pods={"matchLabels": {"tier": "tier-1", "app": "app-1"}})
    )
    cells = timed("one changed policy, the whole matrix refreshed", lambda: change(matrix, cells, changed, other))
    cells = timed("one that names a block nobody named before", lambda: change(matrix, cells, other, blocked))
    cells = timed("one that names a label key nobody named before", lambda: change(matrix, cells, blocked, worded))
    everyone = Rule(Action.ALLOW, (AddressPeer(AddressSet.prefix("10.128.0.0/9"), "all"),), None, "spec.ingress[0]")
    wide = replace(blocked, ingress=(everyone,))
    cells = timed("one that names a block over all pods", lambda: change(matrix, cells, worded, wide))
    pod = world.endpoints[7]
    moved = replace(pod, labels={**pod.labels, "app": "app-3"})
    cells = timed("one pod with other labels", lambda: matrix.refresh(cells, matrix.place(moved)))
    cells = timed("one pod less", lambda: matrix.refresh(cells, matrix.remove(moved)))
    space, labels = "team-3", {"kubernetes.io/metadata.name": "team-3", "env": "none"}
    cells = timed("one namespace with other labels", lambda: matrix.refresh(cells, matrix.relabel(space, labels)))
    timed("explain one pair", lambda: list(to_text(explain(world, world.endpoints[1], world.endpoints[-1]))))


def change(matrix: Matrix, cells: Any, old: Policy, new: Policy) -> Any:
    return matrix.refresh(cells, matrix.update([old], [new]))


def hostile_blocks(pods: int, policies: int) -> None:
    """Thousands of distinct blocks over single pods: as many classes, in bounded memory."""
    world = hostile(pods, policies)
    matrix = timed("hostile blocks: classes", lambda: Matrix(world))

    def stream() -> tuple[int, int]:
        lines, opened = 0, 0
        for _, block in matrix.blocks():
            lines += len(block)
            opened += int(np.count_nonzero(block))
        return lines, opened

    lines, opened = timed("hostile blocks: the class matrix, streamed", stream)
    blocks = len(matrix.vocabulary.known.blocks)
    print(
        f"{blocks} distinct blocks, {len(matrix.labels)} label classes, {lines} classes, {lines**2 / 1e9:.1f} G cells,"
    )
    print(f"{opened / max(1, lines**2):.1%} of them open, {len(matrix.port_sets)} port sets, {peak()}")


def document(pods: int, policies: int) -> list[dict[str, Any]]:
    """The objects of a whole cluster as JSON."""
    sys.path.insert(0, str(Path(__file__).parent))
    import generate

    draw = random.Random(1)
    services = max(1, pods // 25)
    items = list(generate.objects(max(1, pods // 30), pods, services, 10))
    spaces = [f"team-{i}" for i in range(50)]
    for index in range(policies):
        made = policy(index, draw, services, spaces)
        item = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": made.body["spec"]}
        items.append(item | {"metadata": {"name": made.name, "namespace": made.namespace}})
    return items


def from_text(pods: int, policies: int, form: str) -> None:
    """The whole way of a user: a dump in memory, loaded, validated, run through the controllers, answered."""
    items = document(pods, policies)
    whole = {"apiVersion": "v1", "kind": "List", "items": items}
    text = json.dumps(whole).encode() if form == "JSON" else yaml.dump(whole, Dumper=yaml.CSafeDumper).encode()
    del items, whole
    gc.collect()  # a user's process holds none of what the other parts leave behind

    def answer() -> Matrix:
        store = load.store(load.load(["-"], stdin=io.BytesIO(text)))
        matrix = Matrix(world(control.run(store, Settings(pod_cidrs=("10.128.0.0/9",)), addresses).store))
        matrix.cells()
        return matrix

    if form == "YAML":
        timed(
            f"YAML ({len(text) / 1e6:.0f} MB) read and nothing else", lambda: list(yaml_reader.read("-", text.decode()))
        )
    matrix = timed(f"{form} ({len(text) / 1e6:.0f} MB) to answered matrix, {pods} pods, {policies} policies", answer)
    print(f"{len(matrix.classes)} classes, {peak()}")


def against_naive(pods: int, policies: int) -> None:
    """The same questions to the matrix and to the explaining evaluator, which takes each pair for itself."""
    small = build(pods, policies)
    fast = Matrix(small)
    start = time.perf_counter()
    fast.cells()
    fast_pair = (time.perf_counter() - start) / len(small.endpoints) ** 2
    draw = random.Random(2)
    pairs = [(draw.randrange(len(small.endpoints)), draw.randrange(len(small.endpoints))) for _ in range(2000)]
    start = time.perf_counter()
    naive = [decide(small, small.endpoints[a], small.endpoints[b]).allowed for a, b in pairs]
    naive_pair = (time.perf_counter() - start) / len(pairs)
    assert naive == [fast.ports(a, b) for a, b in pairs], "the matrix and the evaluator disagree"
    print(f"{pods} pods, {policies} policies: naive {naive_pair * 1e6:.1f} us a pair, matrix {fast_pair * 1e9:.1f} ns")
    print(f"the matrix is {naive_pair / fast_pair:,.0f} times as fast as the naive evaluator")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=150_000)
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--naive-pods", type=int, default=2_000)
    parser.add_argument("--yaml", action="store_true", help="also read the dump as YAML (slow)")
    given = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {given.pods} pods, {given.policies} policies"
    )
    gc.disable()  # as the command line does
    large(given.pods, given.policies)
    from_text(10_000, 10_000, "JSON")
    if given.yaml:
        from_text(10_000, 10_000, "YAML")
    hostile_blocks(given.pods, given.policies)
    against_naive(given.naive_pods, max(1, given.policies * given.naive_pods // given.pods))


if __name__ == "__main__":
    main()
