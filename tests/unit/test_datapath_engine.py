"""What a datapath refuses: batches that mean nothing to it, and places that are not there."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch
from netsim.datapath.columns import LATEST
from netsim.datapath.engine import Datapath
from netsim.errors import InputError, UsageError
from netsim.interpreter.origin import LocalOrigin, WireOrigin
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Udp
from tests.support.topology_clusters import build, node, pod

MADE = build(
    node("n0", "192.168.56.10", cidrs=("10.244.0.0/24",)), pod("a", "n0"), pod("b", "n0"), cni="flannel:host-gw"
)
A, B = (MADE.cluster.pods["default", name] for name in "ab")


@pytest.fixture(scope="module")
def datapath() -> Datapath:
    return Datapath(MADE.network)


def _batch(datapath: Datapath, count: int = 4, addresses: Addresses | None = None) -> Batch:
    handle = datapath.origin(LocalOrigin(MADE.namespace_of(A)))
    packet = Packet(ip(A.ips[0]), ip(B.ips[0]), Proto.UDP, Udp(1000, 53))
    return Batch.of_packets([(number, handle, packet) for number in range(count)], addresses or datapath.addresses)


def _refused(datapath: Datapath, batch: Batch, text: str) -> None:
    """It says so, and nothing has happened."""
    serial, paths, held = datapath.serial, dict(datapath.paths), datapath.connections()
    with pytest.raises(InputError, match=re.escape(text)):
        datapath.process(batch)
    assert (datapath.serial, dict(datapath.paths)) == (serial, paths)
    assert {name: list(map(str, entries)) for name, entries in datapath.connections().items()} == {
        name: list(map(str, entries)) for name, entries in held.items()
    }


@pytest.mark.parametrize(
    ("name", "column", "complaint"),
    [
        ("src", np.zeros(4, np.int64), "column src has dtype int64: it must be uint32"),
        ("ttl", np.zeros(3, np.uint8), "column ttl holds 3 packets, column time 4"),
        ("ttl", [64] * 4, "column ttl is a list"),
        ("proto", np.zeros((4, 1), np.uint8), "column proto has shape (4, 1)"),
        ("time", np.array([0, 5, 4, 5]), "packet 2: column time runs backwards, from 5 to 4"),
        ("time", np.array([-1, 0, 0, 0]), "packet 0: column time is -1, but the clock shows 0 to 4294967294999"),
        ("time", np.array([0, 0, 0, LATEST + 1]), "packet 3: column time is 4294967295000, but the clock shows 0 to"),
        ("length", np.full(4, 27, np.uint16), "packet 0: column length is 27, but the headers of UDP are longer (and 3"),
    ],
)  # fmt: skip
def test_a_malformed_batch_is_refused_whole(datapath: Datapath, name: str, column: Any, complaint: str) -> None:
    batch = _batch(datapath)
    setattr(batch, name, column)
    _refused(datapath, batch, complaint)


@pytest.mark.parametrize("handle", [0, 999_999, (1 << 24) - 1, 1 << 24, (1 << 32) - 1])
def test_an_origin_that_was_not_given_out(datapath: Datapath, handle: int) -> None:
    batch = _batch(datapath)
    batch.origin[2] = handle
    _refused(datapath, batch, f"packet 2: origin {handle} was not given out; ask Datapath.origin for one")


def test_a_namespace_that_is_known_but_was_not_asked_for() -> None:
    """B has been met on the way, yet nobody asked for it as an origin."""
    datapath = Datapath(MADE.network)
    batch = _batch(datapath)
    result = datapath.process(batch)
    number = int(result.receiver[0])
    assert datapath.namespace_name(number) == MADE.namespace_of(B)
    batch.origin[3] = number
    _refused(datapath, batch, f"packet 3: origin {number} was not given out")
    assert datapath.origin(LocalOrigin(MADE.namespace_of(B))) == number
    batch.time += 4
    datapath.process(batch)


def test_addresses_of_another_datapath(datapath: Datapath) -> None:
    _refused(datapath, _batch(datapath, addresses=Addresses()), "its addresses are not Datapath.addresses")


def test_places_that_are_not_there(datapath: Datapath) -> None:
    with pytest.raises(UsageError, match="no namespace pod/default/nobody"):
        datapath.origin(LocalOrigin("pod/default/nobody"))
    with pytest.raises(UsageError, match=r"node/n0 has no device eth9"):
        datapath.origin(WireOrigin("node/n0", "eth9"))


def test_the_last_moment_of_the_clock() -> None:
    datapath = Datapath(MADE.network)
    batch = _batch(datapath)
    batch.time[:] = LATEST - np.arange(3, -1, -1) * 1000
    assert (datapath.process(batch).receiver == datapath.world.number(MADE.namespace_of(B))).all()
    (entry,) = datapath.connections()["node/n0"]
    assert (entry.born, entry.expires) == (4294967.292, 4294967.295 + 30)


def test_time_goes_on_from_batch_to_batch() -> None:
    datapath = Datapath(MADE.network)
    batch = _batch(datapath)
    datapath.process(batch)
    _refused(datapath, batch, "packet 0: column time is 0, but the clock shows 3 since the last batch")
    batch.time += 3
    assert (datapath.process(batch).receiver != 0).all()


def test_an_empty_batch(datapath: Datapath) -> None:
    serial = datapath.serial
    result = datapath.process(_batch(datapath, 0))
    assert len(result.verdict) == 0
    assert datapath.serial == serial
