"""Traffic made up: what is sent is what was asked for, TCP's tracker believes it, and replies are what a process answers."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch, merge
from netsim.datapath.columns import DTYPES
from netsim.datapath.traffic import Flows, Source, Target, choose, elephants, replies, uniform, zipf
from netsim.errors import UsageError
from netsim.interpreter.api import answer_to
from netsim.linux.conntrack import tuple_of
from netsim.linux.conntrack_tcp import TcpTrack
from netsim.packet.model import Proto, Tcp
from tests.property.test_datapath_batch import all_packets

_SOURCES = [Source(n, ip_address(f"10.0.{n}.1")) for n in range(5)] + [Source(9, ip_address("fd00::1"))]
_TARGETS = [
    Target(ip_address("10.96.0.1"), 80),
    Target(ip_address("10.96.0.1"), 80, Proto.UDP),
    Target(ip_address("fd96::1"), 443),
    Target(ip_address("10.96.0.2"), 0, Proto.ICMP),
    Target(ip_address("fd96::2"), 0, Proto.ICMPV6),
]


@dataclass
class _Received:
    """Everything was delivered to receiver 3, as it was sent."""

    batch: Batch
    verdicts: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)

    @property
    def verdict(self) -> Any:
        return np.array(self.verdicts, np.uint8)

    @property
    def receiver(self) -> Any:
        return np.full(len(self.batch), 3, np.uint32)


def _flows(count: int, seed: int = 1, **shares: Any) -> Flows:
    return Flows.draw(_SOURCES, _TARGETS, count, Addresses(), np.random.default_rng(seed), **shares)


def _same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(column, getattr(other, name)) for name, column in one.columns())


def _stages(flows: Flows) -> list[Batch]:
    which = np.arange(len(flows))
    return [flows.opening(), flows.acknowledging(start=5), flows.packets(which[::-1], payload=100), flows.closing()]


@given(st.integers(0, 200), st.integers(0, 99))
def test_batches_are_good_and_flows_distinct(count: int, seed: int) -> None:
    flows = _flows(count, seed)
    for batch in _stages(flows):
        batch.check(origins=10)
        assert all(column.dtype == DTYPES[name] for name, column in batch.columns())
    opening = flows.opening()
    tuples = [tuple_of(opening.packet(n)) for n in range(count)]
    assert len(set(tuples)) == count
    origins = {source.address: source.origin for source in _SOURCES}
    for number, told in enumerate(tuples):
        assert told is not None
        assert opening.origin[number] == origins[told.src]
        asked = {(target.address, target.proto) for target in _TARGETS}
        assert (told.dst, told.proto) in asked


@given(st.integers(1, 60), st.integers(0, 99))
def test_a_seed_gives_the_same_packets(count: int, seed: int) -> None:
    assert all(_same(one, other) for one, other in zip(_stages(_flows(count, seed)), _stages(_flows(count, seed))))


@given(st.integers(1, 40), st.integers(0, 99), st.integers(1, 5))
def test_the_tracker_takes_the_packets_for_connections(count: int, seed: int, times: int) -> None:
    flows = _flows(count, seed)
    tracks: dict[object, TcpTrack] = {}

    def see(batch: Batch, reply: bool) -> Batch:
        for number in range(len(batch)):
            packet = batch.packet(number)
            told = tuple_of(packet)
            if not isinstance(packet.body, Tcp) or told is None:
                continue
            key = told.inverted() if reply else told
            if key not in tracks:
                begun = TcpTrack.begin(packet.body, loose=False)
                assert begun is not None
                tracks[key] = begun
            assert tracks[key].advance(packet.body, reply, liberal=False) == "ok"
        return replies(batch, _Received(batch, [0] * len(batch)), lambda _: 7)

    see(see(flows.opening(), False), True)
    see(flows.acknowledging(), False)
    for _ in range(times):
        see(see(flows.packets(np.arange(count), payload=1000), False), True)
    assert {track.state for track in tracks.values()} <= {"ESTABLISHED"}
    see(see(flows.closing(), False), True)
    assert {track.state for track in tracks.values()} <= {"LAST_ACK"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(all_packets, st.integers(0, 5)), max_size=4))
def test_replies_are_what_a_process_answers(told: list[tuple[Any, int]]) -> None:
    addresses = Addresses()
    packets = Batch.of_packets([(n, 0, packet) for n, (packet, _) in enumerate(told)], addresses)
    rebuilt = Batch(**dict(packets.columns()), addresses=addresses, extra=packets.extra)
    found = replies(packets, _Received(packets, [verdict for _, verdict in told]), lambda number: number + 4, start=50)
    expected = []
    for number, (_, verdict) in enumerate(told):
        if verdict > 1 or number in packets.extra:
            continue
        try:
            expected.append(answer_to(rebuilt.packet(number)))
        except UsageError:
            continue
    assert [found.packet(n) for n in range(len(found))] == expected
    assert found.origin.tolist() == [7] * len(found)
    assert found.time.tolist() == [50 + n for n in range(len(found))]
    found.check(8)


def test_shares() -> None:
    for shares in (uniform(50), zipf(50), elephants(50), elephants(1), elephants(3, 0.9, 0.5)):
        assert shares.sum() == pytest.approx(1)
        assert (np.diff(shares) <= 1e-15).all()
    assert zipf(3, 1.0).tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert elephants(100)[:10].sum() == pytest.approx(0.9)
    for bad in ((0, 0.5), (0.5, 1), (2, 0.5)):
        with pytest.raises(ValueError, match="both lie between 0 and 1"):
            elephants(10, *bad)


@pytest.mark.parametrize("shares", [uniform(20), zipf(20), elephants(20), np.array([0.0, 1.0, 0.0, 3.0])])
def test_draws_follow_the_shares(shares: Any) -> None:
    """With a fixed seed; a wrong share would be off by far more than 5 standard deviations."""
    count = 100_000
    found = np.bincount(choose(shares, count, np.random.default_rng(3)), minlength=len(shares))
    expected = shares / shares.sum()
    assert (np.abs(found - count * expected) <= 5 * np.sqrt(count * expected * (1 - expected)) + 1e-9).all()


def test_popular_targets_and_sources_have_more_flows() -> None:
    flows = _flows(5000, source_shares=np.array([0, 0, 1, 0, 0, 1.0]), target_shares=np.array([0.9, 0, 0.1, 0, 0]))
    assert set(flows.origin.tolist()) == {2, 9}
    assert 4300 < int((flows.flags == 0).sum()) < 4700


def test_one_flow_a_pair_in_their_order() -> None:
    addresses = Addresses()
    told = [
        (3, _SOURCES[0].address, target.address, target.port, int(target.proto))
        for target in (*_TARGETS[:2], _TARGETS[0])
    ]
    batch = Flows.of(told, addresses, np.random.default_rng(0)).opening(rate=1000)
    assert batch.dport.tolist() == [80, 80, 80]
    assert batch.proto.tolist() == [6, 17, 6]
    assert batch.time.tolist() == [0, 1000, 2000]
    assert sorted(batch.sport.tolist()) == [32768, 32769, 32770]


def test_ports_run_out() -> None:
    one, other = _TARGETS[0], Target(ip_address("10.96.0.9"), 80)
    addresses, random = Addresses(), np.random.default_rng(0)
    flows = Flows.draw(_SOURCES[:1], [one, other], 100_000, addresses, random)  # more than ports, over two targets
    assert len(np.unique(flows.sport.astype(np.uint64) << np.uint64(32) | flows.dst)) == 100_000
    assert int(flows.sport.min()) == 1024
    with pytest.raises(ValueError, match="more than 64,512 flows of one source to one target"):
        Flows.draw(_SOURCES[:1], [one], 64_513, addresses, random)


def test_what_has_no_flows() -> None:
    addresses, random = Addresses(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="no source has an IPv6 address, but some target does"):
        Flows.draw(_SOURCES[:5], _TARGETS, 100, addresses, random)
    with pytest.raises(ValueError, match="protocol 132: flows are of TCP, UDP or ICMP"):
        Flows.draw(_SOURCES[:5], [Target(ip_address("10.0.0.1"), 1, 132)], 1, addresses, random)


def test_merged_by_time() -> None:
    flows = _flows(20)
    one, other = flows.opening(rate=1000), flows.packets(np.arange(20), start=500, rate=1000)
    both = merge([one, other])
    both.check()
    assert both.time.tolist() == sorted([*one.time.tolist(), *other.time.tolist()])
    assert both.packet(0) == one.packet(0)
    assert both.packet(1) == other.packet(0)
