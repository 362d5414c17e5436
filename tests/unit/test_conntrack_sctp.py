"""The SCTP tracker: an association's life, verification tags, chunks that cannot stand together."""

from __future__ import annotations

import pytest

from netsim.linux.conntrack_sctp import SctpTrack
from netsim.packet.model import Sctp


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return bytes((kind, flags)) + (4 + len(body)).to_bytes(2, "big") + body


def init(kind: int, tag: int) -> bytes:
    return chunk(kind, tag.to_bytes(4, "big") + bytes(12))


INIT, INIT_ACK = init(1, 77), init(2, 78)
DATA, ABORT, SHUTDOWN, SHUTDOWN_ACK = chunk(0, bytes(12)), chunk(6), chunk(7, bytes(4)), chunk(8)
COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = chunk(10, b"cook"), chunk(11), chunk(14)


def opened() -> SctpTrack:
    track = SctpTrack.begin(Sctp(1, 2, 0, INIT))
    assert track is not None
    states = []
    for tag, chunks, reply in (
        (0, INIT, False), (77, INIT_ACK, True), (78, COOKIE_ECHO, False), (77, COOKIE_ACK, True),
    ):  # fmt: skip
        assert track.advance(Sctp(1, 2, tag, chunks), reply) == "ok"
        states.append(track.state)
    assert states == ["CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED"]
    return track


def test_a_whole_life() -> None:
    track = opened()
    assert track.advance(Sctp(1, 2, 78, DATA), False) == "ok"
    assert track.advance(Sctp(1, 2, 78, SHUTDOWN), False) == "ok"
    assert track.state == "SHUTDOWN_SENT"
    assert track.advance(Sctp(2, 1, 77, SHUTDOWN_ACK), True) == "ok"
    assert track.state == "SHUTDOWN_ACK_SENT"
    assert track.advance(Sctp(1, 2, 78, SHUTDOWN_COMPLETE), False) == "ok"
    assert track.state == "CLOSED"


def test_the_verification_tag_is_checked() -> None:
    assert opened().advance(Sctp(1, 2, 5, DATA), False) == "invalid"
    assert opened().advance(Sctp(1, 2, 5, ABORT), False) == "invalid"
    assert opened().advance(Sctp(1, 2, 77, chunk(6, flags=1)), False) == "ok"  # T: the peer's tag, reflected
    assert opened().advance(Sctp(1, 2, 9, INIT), False) == "invalid"


@pytest.mark.parametrize("chunks", [b"", DATA + INIT, COOKIE_ACK + INIT, bytes(4), DATA + COOKIE_ECHO])
def test_chunks_that_cannot_stand_so(chunks: bytes) -> None:
    assert SctpTrack.begin(Sctp(1, 2, 0, chunks)) is None
    assert opened().advance(Sctp(1, 2, 78, chunks), False) == "invalid"


@pytest.mark.parametrize("chunks", [ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK, DATA])
def test_what_starts_no_association(chunks: bytes) -> None:
    assert SctpTrack.begin(Sctp(1, 2, 78, chunks)) is None
    assert SctpTrack.begin(Sctp(1, 2, 1, INIT)) is None


def test_a_second_init_changes_nothing_but_the_tag() -> None:
    track = SctpTrack.begin(Sctp(1, 2, 0, INIT))
    assert track is not None
    assert track.advance(Sctp(1, 2, 0, INIT), False) == "ok"
    assert track.advance(Sctp(1, 2, 0, INIT), False) == "late"  # and the entry is not kept alive by it
    assert SctpTrack.in_state("SHUTDOWN_RECD").timeout == "shutdown_recd"
