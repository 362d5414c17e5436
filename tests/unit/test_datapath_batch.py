"""What is wrong with a batch is said with the column, the packet and what to do."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch, concat
from netsim.datapath.columns import DTYPES
from netsim.errors import InputError
from netsim.packet.model import Packet, Proto, Tcp, Udp


def _batch(count: int = 4) -> Batch:
    one = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), Proto.TCP, Tcp(1000, 80))
    return Batch.of_packets([(n, 0, one) for n in range(count)], Addresses())


def _refused(batch: Batch, text: str, origins: int | None = 1) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        batch.check(origins)


def test_a_good_batch_passes_and_an_empty_one_too() -> None:
    _batch().check(1)
    Batch.of_packets([], Addresses()).check(0)
    Batch.empty(0).check(0)


@pytest.mark.parametrize("name", DTYPES)
def test_each_column_has_its_dtype_and_length(name: str) -> None:
    batch = _batch()
    setattr(batch, name, getattr(batch, name).astype(np.float64))
    _refused(batch, f"column {name} has dtype float64: it must be {DTYPES[name]}")
    batch = _batch()
    setattr(batch, name, getattr(batch, name).tolist())
    _refused(batch, f"column {name} is a list: a numpy array of {DTYPES[name]} is needed")
    batch = _batch()
    setattr(batch, name, getattr(batch, name).reshape(2, 2))
    _refused(batch, f"column {name} has shape (2, 2)")
    batch = _batch()
    setattr(batch, name, getattr(batch, name)[1:])
    _refused(batch, "holds 3 packets, column time 4" if name != "time" else "holds 4 packets, column time 3")


def test_columns_of_the_other_byte_order_are_refused() -> None:
    batch = _batch()
    batch.src = batch.src.astype(">u4")
    _refused(batch, "column src has dtype >u4")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"time": -5}, "packet 2: column time runs backwards, from 1 to -5; sort by time"),
        ({"origin": 7}, "packet 2: column origin is 7, but only 1 origins are known; ask Datapath.origin"),
        ({"flags": 4}, "packet 2: column flags is 4, but bits above 1 mean nothing"),
        ({"flags": 3}, "packet 2: column flags is 3, but IPv6 has no don't-fragment bit"),
        ({"flags": 1}, "packet 2: column src is 167772161, but only 0 IPv6 addresses have handles"),
        ({"proto": 132}, "packet 2: column proto is 132, but columns cannot hold SCTP over IPv4"),
        ({"proto": 58}, "packet 2: column proto is 58, but columns cannot hold ICMPV6 over IPv4"),
        ({"flags": 1, "proto": 44}, "columns cannot hold proto 44 over IPv6"),
        ({"length": 39}, "packet 2: column length is 39, but the headers of TCP are longer"),
        ({"tcp_options": 4}, "packet 2: column length is 40, but the headers of TCP are longer"),
        ({"proto": 1, "dport": 0x300}, "packet 2: column dport is 768, but of ICMP it is type<<8 | code"),
        ({"proto": 47}, "packet 2: column sport is 1000, but proto 47 has no ports: it must be 0"),
        ({"proto": 17}, "packet 2: column tcp_flags is 2, but the packet is UDP: it must be 0"),
        ({"proto": 17, "tcp_flags": 0, "window": 0, "wscale": 3}, "wscale is 3, but the packet is UDP: it must be -1"),
        ({"wscale": 15}, "packet 2: column wscale is 15, but a window scale is at most 14"),
        ({"wscale": -2}, "packet 2: column wscale is -2, but a window scale is at most 14"),
        ({"wscale": 3}, "packet 2: column tcp_options is 0, but the window scale needs 4 bytes"),
        ({"tcp_options": 6, "length": 100}, "packet 2: column tcp_options is 6, but it is a multiple of 4"),
        ({"tcp_options": 44, "length": 100}, "packet 2: column tcp_options is 44, but it is a multiple of 4"),
    ],
)  # fmt: skip
def test_nonsense_is_told_with_the_packet(changes: dict[str, Any], complaint: str) -> None:
    batch = _batch()
    for name, value in changes.items():
        getattr(batch, name)[2] = value
    _refused(batch, complaint)


def test_of_many_the_first_is_named_and_the_others_counted() -> None:
    batch = _batch()
    batch.ttl[:] = 1
    batch.length[1:] = 3
    _refused(batch, "packet 1: column length is 3, but the headers of TCP are longer (and 2 more)")


def test_packets_that_are_interpreted_are_not_checked() -> None:
    batch = _batch()
    batch.proto[2] = 132
    batch.extra[2] = batch.packet(0)
    batch.check(1)
    batch.extra[9] = batch.packet(0)
    _refused(batch, "extra holds a packet 9, but there are only 4")


def test_values_that_no_header_holds() -> None:
    bad = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), Proto.UDP, Udp(1, 70000))
    with pytest.raises(InputError, match="packet 1: dport is 70000, outside of 0 to 65535"):
        Batch.of_packets([(0, 0, _batch().packet(0)), (0, 0, bad)], Addresses())
    with pytest.raises(InputError, match="packet 0: origin is -1"):
        Batch.of_packets([(0, -1, _batch().packet(0))], Addresses())


def test_what_cannot_be_cut_or_put_together() -> None:
    batch = _batch()
    with pytest.raises(ValueError, match="in one piece"):
        batch[::2]
    with pytest.raises(ValueError, match="nothing to put together"):
        concat([])
    with pytest.raises(ValueError, match="same Addresses"):
        concat([batch, _batch()])
    for number in (-1, 4):
        with pytest.raises(IndexError, match=f"packet {number} of a batch of 4"):
            batch.packet(number)


def test_a_slice_shares_memory() -> None:
    batch = _batch()
    batch[1:3].ttl[:] = 9
    assert batch.ttl.tolist() == [64, 9, 9, 64]


def test_numba_is_not_needed_for_a_batch() -> None:
    import subprocess
    import sys

    code = "import netsim.datapath.batch, sys; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
