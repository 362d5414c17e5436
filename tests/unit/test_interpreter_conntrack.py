"""The TCP tracker: a connection's life, and segments that do not belong."""

from __future__ import annotations

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
