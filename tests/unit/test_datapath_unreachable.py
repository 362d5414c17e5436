"""Packets that no route takes, and rules that leave it to chance who takes a packet: what kernels and interpreter share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.engine_tables import INTERPRETED
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.interpreter.origin import LocalOrigin
from netsim.linux.network import StaticNetwork
from netsim.linux.route import Route, RouteType
from netsim.packet.address import ip, network
from netsim.packet.model import Packet, Proto, Udp
from tests.support.datapath_twins import Twins
from tests.support.interpreter_worlds import cluster

# What node/n1 says to its pods' packets: it forwards them, or knows no way.
WAYS = {
    "10.77.1.1": "unreachable",
    "10.77.2.1": "prohibit",
    "10.77.3.1": "blackhole",
    "10.77.4.1": "none",
    "10.244.2.2": "",
}
TOLD = ("10.77.1.1", "10.77.2.1", "10.77.4.1")


@cache
def world(rules: str = "") -> StaticNetwork:
    made = cluster(rules)
    here = made.namespaces["node/n1"]
    routes = [route for route in here.routes if route.destination.prefixlen]  # no default
    routes += [
        Route(network(f"10.77.{number}.0/24"), type=RouteType[name.upper()])
        for number, name in enumerate(("unreachable", "prohibit", "blackhole"), start=1)
    ]
    return replace(made, namespaces={**made.namespaces, "node/n1": replace(here, routes=tuple(routes))})


steps = st.tuples(
    st.integers(0, 1_200), st.sampled_from((2, 3)), st.sampled_from(sorted(WAYS)), st.integers(1000, 1002)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, min_size=12, max_size=40))
def test_senders_are_told_as_often_as_the_kernel_would(taken: list[tuple[int, int, str, int]]) -> None:
    twins, now = Twins(world(), 1), 0
    for pause, pod, destination, port in taken:
        now += 1000 * pause
        packet = Packet(ip(f"10.244.1.{pod}"), ip(destination), Proto.UDP, Udp(port, 53))
        assert twins.send(now, LocalOrigin(f"pod/p1{pod}"), packet) == []
        mine, wanted = (state.of("node/n1").told for state in (twins.datapath.state, twins.state))
        assert dict(mine) == dict(wanted)
    assert twins.states() == []


def test_who_was_told_too_often_is_left_to_the_tables() -> None:
    datapath = Datapath(world())
    handle = datapath.origin(LocalOrigin("pod/p12"))
    packets = [
        (1000 * number, handle, Packet(ip("10.244.1.2"), ip(TOLD[number % 3]), Proto.UDP, Udp(2000 + number, 53)))
        for number in range(40)
    ]
    result = datapath.process(Batch.of_packets(packets, datapath.addresses))
    assert (result.how == INTERPRETED).tolist() == [True] * 5 + [False] * 35
    assert len(set(result.verdict.tolist())) == 1
    fork = Datapath(world())
    assert fork.origin(LocalOrigin("pod/p12"))
    assert len(fork.state.of("node/n1").told) == 0


def test_giving_up_does_not_draw_again() -> None:
    """One endpoint of two has no route: it is chosen as often as the other, although its packets are the interpreter's."""
    rules = """
    nat -A PREROUTING -d 10.96.0.1 -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.77.2.1
    nat -A PREROUTING -d 10.96.0.1 -j DNAT --to-destination 10.244.2.2
    """
    datapath = Datapath(world(rules), seed=4)
    handle = datapath.origin(LocalOrigin("pod/p12"))
    packets = [
        # an error is due: two seconds have passed since the last one
        (2_000_000 * number, handle, Packet(ip("10.244.1.2"), ip("10.96.0.1"), Proto.UDP, Udp(2000 + number, 53)))
        for number in range(400)
    ]
    batch = Batch.of_packets(packets, datapath.addresses)
    result = datapath.process(batch, explainable=True)
    given_up = result.how == INTERPRETED
    assert 160 < np.count_nonzero(given_up) < 240
    assert set(result.verdict[given_up].tolist()).isdisjoint(result.verdict[~given_up].tolist())
    for number in (int(np.flatnonzero(given_up)[-1]), int(np.flatnonzero(~given_up)[-1])):
        outcome = datapath.explain(number)
        assert datapath.addresses.address(int(result.dst[number]), 4) == outcome.packet.dst
