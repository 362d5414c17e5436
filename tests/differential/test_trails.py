"""Storms of new flows, with trails and without: the same results, the same connections, the same memory to the byte."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from netsim.compiled.along import TAKEN
from netsim.compiled.trails import memo, schedule
from netsim.datapath.engine import Datapath
from netsim.datapath.traffic import Flows, Source, Target
from netsim.interpreter.origin import LocalOrigin
from netsim.packet.address import ip
from netsim.packet.model import Proto
from netsim.topology import Assembled
from tests.support.datapath_worlds import cluster, targets_of
from tests.support.service_changes import Changes
from tests.support.trail_storms import differences, eager, state_differences, without_trails

pytestmark = [
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="there are no trails without a compiler"),
    pytest.mark.timeout(600),
]

# A cluster, the protocol (None: any), and the share of packets that trails must take, of storms in which many a packet is of
# a flow that has begun before, in the very block or long ago.
STORMS = {
    ("example flannel:vxlan", Proto.TCP): 0.03,
    ("example flannel:udp", Proto.UDP): 0.02,
    ("boutique flannel:host-gw", None): 0.1,
    ("dual flannel:vxlan", None): 0.004,
}
BATCHES, PACKETS = 3, 2000


def drawn(made: Assembled, datapath: Datapath, proto: Proto | None, count: int) -> Flows:
    """Flows of all pods to everything that answers; the same for the same arguments."""
    sources = [
        Source(datapath.origin(LocalOrigin(made.namespace_of(one))), ip(held.ip))
        for _, one in sorted(made.cluster.pods.items())
        if one.spec.node_name
        for held in one.status.pod_ips
    ]
    nodes = [(name, held.ip) for name, wire in made.network.topology.wires.items() for held in wire.interfaces]
    families = {source.address.version for source in sources}
    targets = [
        Target(*one) for one in targets_of(made, nodes, []) if one[0].version in families and proto in (None, one[2])
    ]
    return Flows.draw(sources, targets, count, datapath.addresses, np.random.default_rng(5))


@pytest.mark.parametrize(("name", "proto"), STORMS)
def test_storms_of_new_flows(name: str, proto: Proto | None) -> None:
    made = cluster(name)
    one, other = eager(Datapath(made.network, seed=9)), without_trails(Datapath(made.network, seed=9))
    flows = [drawn(made, datapath, proto, BATCHES * PACKETS) for datapath in (one, other)]
    random = np.random.default_rng(3)
    for number in range(BATCHES):
        # Some twice, so that a block has packets whose flow begins in the very block; some begun in batches before.
        which = random.integers(0, (number + 1) * PACKETS, PACKETS)
        which[::2] = np.arange(number * PACKETS, number * PACKETS + len(which[::2]))
        first, second = (held.opening(which, start=(number + 1) * 1_000_000, rate=100_000) for held in flows)
        found = differences(one, other, (first, second))
        assert not found, (number, found)
        if one.trails.laid:
            one.trails.wait = 1 << 62
    taken = int(one._scratch.trails[TAKEN])
    assert taken > STORMS[name, proto] * BATCHES * PACKETS, (taken, one.paths, one.reasons)
    assert not int(other._scratch.trails[TAKEN])


def test_segments_with_and_without_a_window_scale() -> None:
    """A column of numbers that may be negative: options without a scale (-1), and with several."""
    made = cluster("boutique flannel:host-gw")
    one, other = eager(Datapath(made.network, seed=4)), without_trails(Datapath(made.network, seed=4))
    flows = [drawn(made, datapath, Proto.TCP, BATCHES * PACKETS) for datapath in (one, other)]
    for number in range(BATCHES):
        which = np.arange(number * PACKETS, (number + 1) * PACKETS)
        first, second = (held.opening(which, start=(number + 1) * 1_000_000, rate=100_000) for held in flows)
        scales = np.random.default_rng(number).integers(-1, 15, PACKETS).astype(np.int8)
        for batch in (first, second):
            batch.wscale[:] = 7 if number == 1 else scales  # trails are recorded from the second
            batch.window[1::3] = 0
        found = differences(one, other, (first, second))
        assert not found, (number, found)
        if number == 1:
            one.trails.wait = 1 << 62
    assert int(one._scratch.trails[TAKEN]) > 0


def test_what_trails_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one number decides is worked out once, also in a small cluster, and in memos that are small at first; then a
    node learns a path MTU, after which nothing that was remembered of it is true."""
    monkeypatch.setattr(schedule, "_SMALL", 0)
    monkeypatch.setattr(schedule, "_FEW", 0)
    monkeypatch.setattr(memo, "_FIRST", 3)
    made = cluster("boutique flannel:host-gw")
    one, other = eager(Datapath(made.network, seed=8), most=1), without_trails(Datapath(made.network, seed=8))
    flows = [drawn(made, datapath, Proto.TCP, 5 * PACKETS) for datapath in (one, other)]
    taken = []
    for number in range(5):
        if number == 4:
            for datapath in (one, other):
                datapath.world.seal(datapath.supply.add(f"node/{min(made.network.topology.wires)}"))
        which = np.arange(number * PACKETS, (number + 1) * PACKETS)[: PACKETS if number < 4 else PACKETS // 10]
        first, second = (held.opening(which, start=(number + 1) * 1_000_000, rate=100_000) for held in flows)
        found = differences(one, other, (first, second))
        assert not found, (number, found)
        if one.trails.laid:
            one.trails.wait = 1 << 62
        taken.append(int(one._scratch.trails[TAKEN]))
    assert taken[3] - taken[2] > PACKETS / 100, taken
    held = [trail.memo for trail in one.trails.laid]
    assert sum(len(memo.sizes) for memo in held) > 2
    assert max(bits for memo in held for bits in memo._bits) > 3


def test_services_that_change_between_storms() -> None:
    """Trails of the cluster that was are not taken any more, others are found, and what they have counted stays counted."""
    made = cluster("boutique flannel:host-gw")
    changes = Changes(made, "storms")
    one, other = eager(Datapath(made.network, seed=2), most=1), without_trails(Datapath(made.network, seed=2))
    flows = [drawn(made, datapath, Proto.TCP, BATCHES * PACKETS) for datapath in (one, other)]
    taken = []
    for number in range(BATCHES):
        which = np.arange(number * PACKETS, (number + 1) * PACKETS)
        for part in (which[: PACKETS // 2], which[PACKETS // 2 :]):
            now = 1_000_000 * (2 * number + 1 + int(part[0] != which[0]))
            first, second = (held.opening(part, start=now, rate=100_000) for held in flows)
            found = differences(one, other, (first, second))
            assert not found, (number, found)
        taken.append(int(one._scratch.trails[TAKEN]))
        made = made.after(changes.draw())
        for datapath in (one, other):
            datapath.update(made.network)
        assert not one.trails.laid
        assert not state_differences(one, other)
    assert taken[-1] > taken[0] > 0
