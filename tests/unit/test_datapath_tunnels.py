"""Tunnels in the compiled datapath: one packet that only the interpreter can take does not make the tunnel its business."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.addresses import Addresses
from netsim.compiled.engine_tables import INTERPRETED
from netsim.compiled.flow_index import tuple_hash
from netsim.compiled.flows import elsewhere
from netsim.compiled.jit import kernel
from netsim.compiled.ref import reference
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.datapath.store import FlowStore
from netsim.interpreter.origin import LocalOrigin
from netsim.linux.conntrack import Entry, Tuple
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Udp
from tests.support.topology_clusters import build, node, pod


def _between(mode: str) -> tuple[Datapath, list[tuple[int, str, str]]]:
    """Two nodes with two pods each; (origin, source, destination) from the pods of the first to those of the second, and
    back."""
    made = build(
        node("n0", "192.168.56.10", cidrs=("10.244.0.0/24",)),
        node("n1", "192.168.56.11", cidrs=("10.244.1.0/24",)),
        *(pod(name, "n0") for name in "ab"), *(pod(name, "n1") for name in "cd"),
        cni=f"flannel:{mode}",
    )  # fmt: skip
    datapath = Datapath(made.network)
    held = {name: made.cluster.pods["default", name] for name in "abcd"}
    origin = {name: datapath.origin(LocalOrigin(made.namespace_of(held[name]))) for name in held}
    ways = ["ac", "bd", "ca", "db"]
    return datapath, [(origin[way[0]], held[way[0]].ips[0], held[way[1]].ips[0]) for way in ways]


@pytest.mark.parametrize("mode", ["vxlan", "udp", "ipip"])
def test_a_tunnel_goes_back_to_the_tables(mode: str) -> None:
    datapath, ways = _between(mode)
    clock = iter(range(0, 1_000_000_000, 1_000))

    def send(port: int, ttl: int = 64) -> list[str]:
        packets = [
            (next(clock), origin, Packet(ip(src), ip(dst), Proto.UDP, Udp(port, port), ttl=ttl))
            for origin, src, dst in ways
        ]
        result = datapath.process(Batch.of_packets(packets, datapath.addresses))
        return ["interpreter" if how == INTERPRETED else "tables" for how in result.how.tolist()]

    assert send(1000) == ["tables"] * 4
    assert send(1001, ttl=2) == ["interpreter"] * 4  # it ends behind the tunnel, and an error comes back through it
    assert send(1002) == ["tables"] * 4
    assert send(1000) == ["tables"] * 4


@kernel
def _may_be_elsewhere(s: object, h: int) -> bool:
    return elsewhere(s, h) != 0  # type: ignore[arg-type]


_TUPLES = [Tuple(ip(f"10.0.0.{n}"), n % 3, ip(f"10.0.1.{n % 5}"), 53, 17) for n in range(40)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 39)), max_size=120))
def test_what_the_interpreter_holds_is_noted_until_it_is_forgotten(steps: list[tuple[bool, int]]) -> None:
    store = FlowStore(64, Addresses())
    held: list[int] = []
    for arrives, number in steps:
        entry = Entry(_TUPLES[number], _TUPLES[number].inverted())
        if arrives:
            store.note(entry)
            held.append(number)
        elif number in held:
            store.forget(entry)
            held.remove(number)
    digests = [np.uint64(int(tuple_hash(one.proto, *store.words(one), 0))) for one in _TUPLES]
    told = [bool(_may_be_elsewhere(reference(store.state), digest)) for digest in digests]
    assert told == [number in held for number in range(len(_TUPLES))]
