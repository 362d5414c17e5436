"""Packets are taken in blocks and runs (``netsim.compiled.fast_kernels``); what becomes of them is as if one came after the
other. Established flows, and among their packets such as are not fast, for every reason that there is."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.bench.workload import Session
from netsim.compiled.fast_kernels import BLOCK
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.datapath.traffic import Flows, Source, Target, replies
from netsim.interpreter.origin import LocalOrigin
from netsim.packet.address import ip
from netsim.packet.model import Proto
from tests.support.topology_clusters import build, node, pod, service

FLOWS, NEW = 60, 40
_SETTINGS = settings(max_examples=25, deadline=None)


@cache
def established() -> tuple[Session, Batch, Batch, Batch]:
    """A session whose flows talk, TCP and UDP alike; one packet of each, its answer, and first packets of other flows."""
    nodes = [node(f"n{n}", f"192.168.56.1{n}", cidrs=(f"10.244.{n}.0/24",)) for n in range(2)]
    pods = [pod(f"client{n}", f"n{n % 2}") for n in range(4)] + [pod(f"web{n}", f"n{n % 2}", port=80) for n in range(3)]
    for one in pods[4:]:
        one["metadata"]["labels"] = {"app": "web"}
    ports = [{"name": name, "port": 80, "protocol": name} for name in ("TCP", "UDP")]
    made = build(*nodes, *pods, service("web", "web", type="ClusterIP", ports=ports), cni="flannel:vxlan")
    datapath = Datapath(made.network, seed=3)
    # The pod behind the Service is a client as well: both ends of some of its flows have one address.
    clients = [made.cluster.pods["default", name] for name in ("client0", "client1", "client2", "client3", "web0")]
    sources = [Source(datapath.origin(LocalOrigin(made.namespace_of(one))), ip(one.ips[0])) for one in clients]
    web = ip(made.cluster.services["default", "web"].spec.cluster_ip)
    targets = [Target(web, 80, Proto.TCP), Target(web, 80, Proto.UDP)]
    flows = Flows.draw(sources, targets, FLOWS + NEW, datapath.addresses, np.random.default_rng(5))
    session = Session(datapath, flows)
    session.establish(np.arange(FLOWS))
    asked = session.packets(np.arange(FLOWS))
    asked.tcp_flags[asked.proto == Proto.TCP] = 16
    answered = replies(asked, session.send(asked), session.origin_of)
    session.send(_at(answered, session.now))
    opening = flows.opening(np.arange(FLOWS, FLOWS + NEW), start=session.now)
    return session, asked, answered, opening


def _at(batch: Batch, time: int) -> Batch:
    batch.time[:] = time
    return batch


packets = st.lists(
    st.tuples(
        st.sampled_from(["asked", "asked", "answered", "opening"]),
        st.integers(0, NEW - 1),
        st.sampled_from(["as it is"] * 40 + ["far", "old", "window", "fin", "ttl", "long", "elsewhere", "pause"]),
    ),
    min_size=1,
    max_size=80,
)


def drawn(told: list[tuple[str, int, str]], times: int) -> Batch:
    """These packets, ``times`` over: enough for several blocks."""
    session, *kinds = established()
    by = dict(zip(("asked", "answered", "opening"), kinds))
    parts = [by[kind].take(np.array([number % len(by[kind])])) for kind, number, _ in told]
    now, clock = session.now, []
    for part, (_, _, what) in zip(parts, told):
        now += 200_000_000 if what == "pause" else 300  # UDP is forgotten meanwhile
        clock.append(now)
        if part.proto[0] == Proto.TCP:
            part.seq[0] = (int(part.seq[0]) + {"far": 1 << 30, "old": 0xFFFF0000}.get(what, 0)) & 0xFFFFFFFF
            part.window[0] = 10 if what == "window" else part.window[0]
            part.tcp_flags[0] |= np.uint8(what == "fin")
        part.ttl[0] = 1 if what == "ttl" else part.ttl[0]
        part.length[0] = 1480 if what == "long" else part.length[0]
        if what == "elsewhere":
            part.origin[0] = kinds[0].origin[0]
    lap = now - session.now
    whole = [part.take(np.arange(1)) for _ in range(times) for part in parts]
    columns = {
        name: np.concatenate([getattr(part, name) for part in whole])
        for name, _ in Batch.empty(0).columns()
        if name != "time"
    }
    time = np.concatenate([np.array(clock, np.int64) + lap * number for number in range(times)])
    return Batch(**columns, time=time, addresses=session.datapath.addresses)


def run(batch: Batch, cuts: list[int], threads: int = 1) -> list[bytes]:
    """All columns of the result, and all that is remembered of flows."""
    datapath = established()[0].datapath._fork()
    datapath.threads = threads
    parts = [datapath.process(batch[start:stop]) for start, stop in pairwise([0, *cuts, len(batch)])]
    columns = [np.concatenate(column).tobytes() for column in zip(*[part.columns for part in parts])]
    return columns + [array.tobytes() for array in datapath.store.state] + [repr(datapath.counters()).encode()]


@_SETTINGS
@given(packets, st.integers(1, 30), st.data())
def test_a_run_is_its_packets_one_by_one(told: list[tuple[str, int, str]], times: int, data: st.DataObject) -> None:
    batch = drawn(told, times)
    whole = run(batch, [])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(batch)), max_size=6)))
    assert run(batch, cuts) == whole
    assert run(batch, [], threads=2) == whole
    if len(batch) < 300:
        assert run(batch, list(range(1, len(batch)))) == whole


@pytest.mark.parametrize("kind", ["asked", "answered"])
def test_one_flow_may_fill_its_counter_in_the_middle_of_a_run(kind: str) -> None:
    batch = drawn([(kind, 0, "as it is"), (kind, 1, "as it is")], 70_000)
    result = run(batch, [])
    assert run(batch, [65_500 * 2, 65_535 * 2 - 17, 65_535 * 2 + 9]) == result
    how = np.frombuffer(result[1], np.uint8)
    assert 0 < np.count_nonzero(how) < 8  # folded once, each of the two
    assert len(batch) > 2 * BLOCK


def test_columns_may_lie_anyhow() -> None:
    """Read-only, as those of a mapped file, and by steps."""
    batch = drawn([("asked", 0, "as it is"), ("answered", 1, "as it is")], 1500)
    expected = run(batch, [])
    for name, column in batch.columns():
        column.setflags(write=False)
        if name != "time":
            setattr(batch, name, np.repeat(column, 2)[::2])
    assert run(batch, []) == expected
