"""Traces as captures: one interface a device, one packet a passage, true bytes, the deciding rule as comment."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import pytest

from netsim.errors import UsageError
from netsim.packet.codec import parse_frame, parse_packet
from netsim.packet.model import Frame, Packet, Udp
from netsim.packet.pcapng import LINK_ETHERNET, LINK_RAW, Captured, read
from netsim.report.pcapng import write, write_file
from netsim.report.traced import Traced
from tests.support.traced_outcomes import SENT, delivered, left, rejected


def capture(*outcomes: object, **more: object) -> list[Captured]:
    file = io.BytesIO()
    count = write(Traced("a", "b", SENT, outcomes, **more), file)  # type: ignore[arg-type]
    found = list(read(file.getvalue()))
    assert len(found) == count
    return found


def test_every_passage_of_a_device_is_one_packet_in_order() -> None:
    found = capture(delivered(share=Fraction(1)))
    assert [packet.interface for packet in found] == [
        "pod/shop/web-0/eth0",
        "node/n1/veth1",
        "node/n1/eth0",
        "node/n2/eth0",
        "node/n2/veth7",
        "pod/shop/cart-1/eth0",
    ]
    times = [packet.timestamp_ns for packet in found]
    assert times == sorted(set(times))


def test_the_bytes_are_those_of_the_wire() -> None:
    found = capture(delivered(share=Fraction(1)), left())
    assert {packet.linktype for packet in found[:-1]} == {LINK_ETHERNET}
    outer = parse_frame(found[2].data).packet
    assert isinstance(outer.body, Udp)
    assert outer.body.dport == 8472
    assert found[-1].linktype == LINK_RAW
    out = left().hops[0].wire[0][2]
    assert isinstance(out, Packet)
    assert parse_packet(found[-1].data) == out
    inner = delivered().hops[0].wire[0][2]
    assert isinstance(inner, Frame)
    assert parse_frame(found[0].data) == inner


def test_comments_say_which_rule_decided() -> None:
    found = capture(delivered(share=Fraction(1)))
    assert "DNAT --to-destination 10.244.2.7:8080  # Service shop/cart:http" in found[2].comment
    assert "DNAT" not in found[1].comment
    assert found[-1].comment.endswith("DELIVERED")
    (died,) = capture(rejected())
    assert "REJECT --reject-with icmp-port-unreachable" in died.comment
    assert died.comment.endswith("REJECTED")


def test_each_outcome_is_labelled_and_followed_by_its_reply() -> None:
    found = capture(delivered(), rejected(), replies={0: (left(),)})
    labels = list(dict.fromkeys(packet.comment.splitlines()[0].rpartition(",")[0] for packet in found))
    assert labels == ["outcome 1 of 2", "outcome 1 of 2, reply", "outcome 2 of 2"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    traced = Traced("a", "b", SENT, (delivered(share=Fraction(1)),))
    target = tmp_path / "out.pcapng"
    assert write_file(traced, str(target)) == 6
    assert len(list(read(target.read_bytes()))) == 6
    with pytest.raises(UsageError, match="cannot write"):
        write_file(traced, str(tmp_path / "missing" / "out.pcapng"))
    broken = Traced("a", "b", SENT, (object(),))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write_file(broken, str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["out.pcapng"]
    assert len(list(read(target.read_bytes()))) == 6
