"""Services change while packets flow: a datapath that is updated, next to an interpreter that gets a network built anew from
the changed objects and keeps its memory.

What an update does to memory is told to the interpreter the slow way, by comparing every chain of every namespace: rules in
a chain that has changed count from 0, lists of ``-m recent`` that no rule names are gone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from netsim.interpreter.scene import World
from netsim.linux.netfilter.match.recent import Recent
from netsim.linux.netfilter.rule import Chain
from netsim.linux.network import Network
from tests.support.datapath_twins import Twins
from tests.support.datapath_worlds import ClusterWorld, cluster, pause
from tests.support.service_changes import Changes, anew

RUNS, PACKETS = 3, 300
CLUSTERS = ("example flannel:vxlan", "boutique flannel:host-gw", "dual flannel:vxlan")


@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.parametrize("name", CLUSTERS)
def test_updates_while_packets_flow(name: str, seed: int) -> None:
    made = cluster(name)
    world, changes = ClusterWorld(name, seed, made), Changes(made, f"{name} {seed}")
    network: Network = anew(made)
    twins, now, updates = Twins(made.network, seed), 0, 0
    hits: dict[int, Hits] = {4: {}, 6: {}}
    for number in range(PACKETS):
        now += pause(world.rng)
        if number % 12 == 11:
            made = made.after(changes.draw())
            assert twins.datapath.network is not made.network
            twins.datapath.update(made.network)
            network = told(twins, hits, network, anew(made))
            updates += 1
            assert not (found := twins.states()), "\n".join(found)
        origin, packet = world.next()
        before = twins.hits.copy(), twins.volume.copy()
        found = twins.send(now, origin, packet)
        counted(twins, hits[packet.src.version], before)
        if not found and number % 25 == 24:
            found = twins.states()
        assert not found, f"{name}, seed {seed}, packet {number} at {now} us from {origin}: {packet}\n" + "\n".join(
            found
        )
        assert twins.last is not None
        world.heard(twins.last)
    assert updates > 20
    paths = twins.datapath.paths
    assert paths["slow"] > PACKETS / 4, paths
    assert paths["fast"], paths


Hits = dict[tuple[str, str, str, int], tuple[int, int]]


def told(twins: Twins, by_version: dict[int, Hits], before: Network, after: Network) -> Network:
    """Let the interpreter go on in ``after``."""
    twins.world = World(after)
    for name, held in twins.state.namespaces.items():
        old, new = chains_of(before, name), chains_of(after, name)
        for version, hits in by_version.items():
            for key in [key for key in hits if key[0] == name]:
                if old.get((version, *key[1:3])) != new.get((version, *key[1:3])):
                    packets, volume = hits.pop(key)
                    twins.hits[key] -= packets
                    twins.volume[key] -= volume
        named = {
            match.list_name
            for chain in new.values()
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, Recent)
        }
        for lost in held.recent.keys() - named:
            del held.recent[lost]
    return after


def counted(twins: Twins, hits: Hits, before: tuple[Counter[Any], Counter[Any]]) -> None:
    """Note what the last packet has added to the interpreter's counters."""
    for key in twins.hits - before[0]:
        held = hits.get(key, (0, 0))
        hits[key] = held[0] + twins.hits[key] - before[0][key], held[1] + twins.volume[key] - before[1][key]


def chains_of(network: Network, name: str) -> dict[tuple[int, str, str], Chain]:
    """By IP version, table and chain."""
    return {
        (int(family), table.name, chain.name): chain
        for family, ruleset in network.namespace(name).rulesets.items()
        for table in ruleset.tables.values()
        for chain in table.chains.values()
    }
