"""The TCP tracker: a connection's life, and segments that do not belong; and when connections expire."""

from __future__ import annotations

from netsim.linux.conntrack import after
from netsim.linux.conntrack_tcp import TcpTrack
from netsim.packet.model import Tcp, TcpFlag

S, A, F, R = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST


def opened() -> TcpTrack:
    track = TcpTrack.begin(Tcp(1, 2, S, seq=100, window=1000), loose=True)
    assert track is not None
    assert track.advance(Tcp(1, 2, S, seq=100, window=1000), False, False) == "ok"
    assert track.state == "SYN_SENT"
    assert track.advance(Tcp(2, 1, S | A, seq=500, ack=101, window=1000), True, False) == "ok"
    assert track.state == "SYN_RECV"
    assert track.advance(Tcp(1, 2, A, seq=101, ack=501, window=1000), False, False) == "ok"
    assert track.state == "ESTABLISHED"
    return track


def test_a_whole_life() -> None:
    track = opened()
    states = []
    for body, reply in (
        (Tcp(1, 2, A, seq=101, ack=501, window=1000, payload=b"GET"), False),
        (Tcp(2, 1, F | A, seq=501, ack=104, window=1000), True),
        (Tcp(1, 2, A, seq=104, ack=502, window=1000), False),
        (Tcp(1, 2, F | A, seq=104, ack=502, window=1000), False),
        (Tcp(2, 1, A, seq=502, ack=105, window=1000), True),
    ):
        assert track.advance(body, reply, False) == "ok"
        states.append(track.state)
    assert states == ["ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"]
    assert track.advance(Tcp(1, 2, S, seq=9000), False, False) == "again"


def test_out_of_window_is_invalid_unless_liberal() -> None:
    far = Tcp(1, 2, A, seq=900_000, ack=501, window=1000, payload=b"x")
    assert opened().advance(far, False, False) == "invalid"
    assert opened().advance(far, False, True) == "ok"
    early = Tcp(2, 1, A, seq=501, ack=700_000, window=1000)
    assert opened().advance(early, True, False) == "invalid"


def test_pick_up_in_the_middle() -> None:
    middle = Tcp(1, 2, A, seq=7, ack=9)
    assert TcpTrack.begin(middle, loose=False) is None
    assert TcpTrack.begin(middle, loose=True) is not None
    assert TcpTrack.begin(Tcp(1, 2, S | F), loose=True) is None
    assert TcpTrack.begin(Tcp(1, 2, S | A), loose=True) is None


def test_reset() -> None:
    track = opened()
    assert track.advance(Tcp(2, 1, R | A, seq=501, ack=101), True, False) == "ok"
    assert track.state == "CLOSE"


def test_a_reset_that_is_not_exact_keeps_the_connection() -> None:
    track = opened()
    assert track.advance(Tcp(1, 2, A, seq=101, ack=501, window=1000), False, False, True, True) == "ok"
    inexact = Tcp(2, 1, R, seq=600)  # the other side has acknowledged 501: a challenge may follow (RFC 5961)
    assert track.advance(inexact, True, False, True, True) == "ok"
    assert track.state == "ESTABLISHED"
    assert track.advance(Tcp(2, 1, R, seq=400), True, False, True, True) == "invalid"
    assert track.advance(Tcp(2, 1, R, seq=501), True, False, True, True) == "ok"
    assert track.state == "CLOSE"


def test_a_syn_let_through_unseen_counts_once_it_is_answered() -> None:
    track = opened()
    again = Tcp(1, 2, S, seq=70_000, window=2000)
    assert track.advance(again, False, False, True, True) == "late"
    assert track.state == "ESTABLISHED"
    answer = Tcp(2, 1, S | A, seq=9_000_000, ack=70_001, window=3000)
    assert track.advance(answer, True, False, True, True) == "ok"
    assert track.state == "SYN_RECV"
    assert track.advance(Tcp(1, 2, A, seq=70_001, ack=9_000_001), False, False, True, True) == "ok"
    assert track.state == "ESTABLISHED"


def test_only_a_connection_that_was_closed_is_opened_again() -> None:
    track = opened()
    reset = Tcp(1, 2, R, seq=101)
    assert track.advance(reset, False, False, True, True) == "ok"
    assert track.advance(Tcp(2, 1, A, seq=501, ack=101), True, False, True, True) == "ok"
    assert track.advance(Tcp(1, 2, S, seq=5), False, False, True, True) == "late"  # the reset was not the last word
    assert track.advance(reset, False, False, True, True) == "ok"
    assert track.advance(Tcp(1, 2, S, seq=5), False, False, True, True) == "again"


def test_syns_that_cross() -> None:
    track = TcpTrack.begin(Tcp(1, 2, S, seq=100, window=1000), loose=True)
    assert track is not None
    assert track.advance(Tcp(1, 2, S, seq=100, window=1000), False, False) == "ok"
    assert track.advance(Tcp(2, 1, S, seq=900, window=1000), True, False) == "ok"
    assert track.state == "SYN_SENT2"
    assert track.advance(Tcp(1, 2, S | A, seq=100, ack=901, window=1000), False, False, True) == "ok"
    assert track.advance(Tcp(2, 1, A, seq=901, ack=101, window=1000), True, False, True) == "ok"
    assert track.state == "ESTABLISHED"


def test_times_add_up_to_what_the_clock_will_read() -> None:
    """Milliseconds are not whole in binary: without rounding one sum in sixteen is too long, and as many too short."""
    assert all(after(at / 1000, 30.0) == (at + 30_000) / 1000 for at in range(0, 10**6, 7))
