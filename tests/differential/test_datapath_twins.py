"""The compiled datapath next to the interpreter, packet by packet, in random worlds: verdict, receiver, packet as received,
the rule that settled it, rules evaluated, conntrack entries, trackers, affinities and counters.

NETSIM_FUZZ_PACKETS or NETSIM_FUZZ_SECONDS make it go on with fresh worlds until so many pairs are compared or so much time
has gone; NETSIM_FUZZ_SEED begins elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from netsim.packet.address import Family
from tests.support.datapath_twins import Tally, compare
from tests.support.datapath_worlds import CLUSTERS, ClusterWorld, RouterWorld, WorldOfPackets

PARTS, ROUTERS, PER_ROUTER = 8, 20, 60  # of the default suite: parts, routers of each family in a part, packets of each
CLUSTER_RUNS, PER_CLUSTER = 3, 350
LONG = {name: os.environ.get(f"NETSIM_FUZZ_{name}") for name in ("PACKETS", "SECONDS")}


def routers(seeds: range) -> Iterator[tuple[str, WorldOfPackets]]:
    for seed in seeds:
        for family in Family:
            yield f"{family.name} router {seed}", RouterWorld(seed, family)


def clusters(name: str, seeds: range) -> Iterator[tuple[str, WorldOfPackets]]:
    for seed in seeds:
        yield f"{name}, seed {seed}", ClusterWorld(name, seed)


def agree(worlds: Iterator[tuple[str, WorldOfPackets]], packets: int) -> Tally:
    total = Tally()
    for seed, (name, world) in enumerate(worlds):
        total.add(compare(world, packets, seed, name))
    print(total)
    assert not total.failures, "\n".join([str(total), *total.failures[:5]])
    return total


@pytest.mark.parametrize("part", range(PARTS))
def test_random_rulesets(part: int) -> None:
    total = agree(routers(range(part * ROUTERS, (part + 1) * ROUTERS)), PER_ROUTER)
    assert total.packets == 2 * ROUTERS * PER_ROUTER
    assert total.share("fast", "slow") > 0.2, str(total)
    assert total.paths["fast"] > 10, str(total)


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters(name: str) -> None:
    total = agree(clusters(name, range(CLUSTER_RUNS)), PER_CLUSTER)
    assert total.packets == CLUSTER_RUNS * PER_CLUSTER
    assert total.share("fast", "slow") > 0.4, str(total)
    assert total.share("fast") > 0.05, str(total)


# What the long run has found, for as long as worlds are drawn as they were then.
ONCE_DIFFERENT = {
    (Family.IPV4, 5000021): "left in its tunnel",
    (Family.IPV4, 5000024): "a broadcast where nothing is forwarded",
    (Family.IPV4, 5000031): "a rule about the length of established packets",
    (Family.IPV4, 7000122): "from a port to itself",
    (Family.IPV4, 880002298): "dropped before its tunnel",
    (Family.IPV4, 990001595): "multicast that a route would lead on",
    (Family.IPV6, 5000228): "removed from a recent list",
    (Family.IPV6, 5000457): "an echo whose identifier is translated",
    (Family.IPV6, 9000191): "a set that rules change",
    (Family.IPV6, 1400000998): "rules of OUTPUT behind a translation see the device of before",
    (Family.IPV4, 1300001394): "the same, by its counters",
    (Family.IPV4, 1400001010): "the newest of the connections from one source",
    (Family.IPV6, 1234000004): "a tunnel's port that a translation has taken",
}

CLUSTERS_ONCE_DIFFERENT = {("dual flannel:vxlan", 880002991): "a reset of a connection that is known at one end"}


@pytest.mark.parametrize(("name", "seed"), CLUSTERS_ONCE_DIFFERENT)
def test_clusters_that_were_once_different(name: str, seed: int) -> None:
    told = compare(ClusterWorld(name, seed), 300, seed - seed % 10, CLUSTERS_ONCE_DIFFERENT[name, seed])
    assert not told.failures, told.failures


@pytest.mark.parametrize(("family", "seed"), ONCE_DIFFERENT)
def test_worlds_that_were_once_different(family: Family, seed: int) -> None:
    told = compare(RouterWorld(seed, family), 80, seed - seed % 10, ONCE_DIFFERENT[family, seed])
    assert not told.failures, told.failures


@pytest.mark.skipif(not any(LONG.values()), reason="for hours, not minutes: make fuzz-datapath")
@pytest.mark.timeout(0)
def test_as_long_as_told() -> None:
    seconds, packets = float(LONG["SECONDS"] or "inf"), float(LONG["PACKETS"] or "inf")
    seed = int(os.environ.get("NETSIM_FUZZ_SEED", "1000"))
    end, total, shown = time.monotonic() + seconds, Tally(), 0
    while time.monotonic() < end and total.packets < packets:
        worlds = [*routers(range(seed, seed + 10)), *clusters(CLUSTERS[seed % len(CLUSTERS)], range(seed, seed + 2))]
        for name, world in worlds:
            total.add(compare(world, 300 if isinstance(world, ClusterWorld) else 80, seed, name))
        for failure in total.failures[shown:]:
            print(failure, flush=True)
        shown = len(total.failures)
        assert len(total.failures) < 20, str(total)
        seed += 10
        if seed % 500 == 0:
            print(f"up to seed {seed}:", total, flush=True)
    print(total)
    assert not total.failures, "\n".join([str(total), *total.failures])
