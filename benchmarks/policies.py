"""Policy answers at scale: the class matrix with port sets, updates, one explanation, and the naive evaluator beside it.

python benchmarks/policies.py [--pods 150000] [--policies 10000]
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import time
from typing import Any

from netsim.errors import Source
from netsim.kube.objects import Meta, Resource
from netsim.packet.address import ip
from netsim_policies.apis import network_policy
from netsim_policies.evaluate import decide
from netsim_policies.matrix import Matrix
from netsim_policies.model import Endpoint, EndpointKind, Policy, World


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


def timed(what: str, call: Any) -> Any:
    start = time.perf_counter()
    result = call()
    print(f"{what:<58}{(time.perf_counter() - start) * 1000:12.1f} ms")
    return result


def from_json(pods: int, policies: int) -> None:
    """The whole way of a user: a JSON dump in memory, loaded, validated, run through the controllers, answered."""
    import io
    import json
    import sys
    from pathlib import Path

    from netsim.cli.policy_input import addresses
    from netsim.kube import control, load
    from netsim.kube.cluster import Settings
    from netsim_policies.world import world

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
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()

    gc.disable()  # as the command line does

    def answer() -> Matrix:
        store = load.store(load.load(["-"], stdin=io.BytesIO(text)))
        matrix = Matrix(world(control.run(store, Settings(pod_cidrs=("10.128.0.0/9",)), addresses).store))
        matrix.cells()
        return matrix

    matrix = timed(f"JSON ({len(text) / 1e6:.0f} MB) to answered matrix, {pods} pods, {policies} policies", answer)
    print(f"{len(matrix.classes)} classes")
    gc.enable()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=150_000)
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--naive-pods", type=int, default=2_000)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores; {given.pods} pods, {given.policies} policies")
    world = timed("generate (not counted)", lambda: build(given.pods, given.policies))
    timed("import and compile the kernel (small world)", lambda: Matrix(build(50, 5)).cells())
    matrix = timed("classes", lambda: Matrix(world))
    cells = timed("class matrix with port sets", matrix.cells)
    print(
        f"{len(matrix.classes)} classes, {cells.nbytes / 1e6:.0f} MB of cells, {len(matrix.port_sets)} distinct port sets"
    )

    changed = world.policies[len(world.policies) // 2]
    other = Policy(**{f: getattr(changed, f) for f in changed.__dataclass_fields__} | {"ingress": (), "egress": ()})
    touched = [int(c) for c in matrix.classes.scope(changed.subject)]

    def update() -> None:
        matrix.update([changed], [other])
        for number in touched:
            for direction in other.directions:
                matrix.row(number, direction)

    timed("one changed policy, its rows refilled", update)
    timed("explain one pair", lambda: decide(world, world.endpoints[1], world.endpoints[-1]))
    from_json(10_000, 10_000)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")

    small = build(given.naive_pods, max(1, given.policies * given.naive_pods // given.pods))
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
    print(f"{given.naive_pods} pods: naive {naive_pair * 1e6:.1f} us a pair, matrix {fast_pair * 1e9:.1f} ns")
    print(f"the matrix is {naive_pair / fast_pair:,.0f} times as fast as the naive evaluator")


if __name__ == "__main__":
    main()
