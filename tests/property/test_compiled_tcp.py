"""The TCP tracker's kernels against the interpreter's own: the same verdicts, states and numbers, whatever is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.jit import kernel
from netsim.compiled.tcp_kernel import (
    AGAIN,
    INVALID,
    LATE,
    NO_OPTIONS,
    OK,
    TCP_TRACK,
    TIMEOUTS,
    load,
    store,
    tcp_advance,
    tcp_begin,
    tcp_established,
    tracks,
)
from netsim.linux.conntrack import TIMEOUTS as KNOWN
from netsim.linux.conntrack_tcp import STATES, Last, Side, TcpTrack
from netsim.packet.model import Tcp, TcpFlag

_VERDICTS = {OK: "ok", INVALID: "invalid", AGAIN: "again", LATE: "late"}
_MSS = b"\x02\x04\x05\xb4"
_USUAL = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x01, 0x00, 0xC2, 0x42, 0x30]

words = st.integers(0, 0xFFFFFFFF)
edges = st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
flags = st.one_of(st.sampled_from(_USUAL), st.integers(0, 255))
windows = st.one_of(st.sampled_from([0, 1, 29200, 65535]), st.integers(0, 65535))
scales = st.sampled_from([NO_OPTIONS, -1, 0, 7, 14, 15, 100])
payloads = st.one_of(st.just(0), st.integers(1, 1460), st.just(65000))
nearby = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([-66001, -66000, -65999, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 31) + 1]),
    words,
)


@st.composite
def first_packets(draw: st.DrawFn) -> tuple[Tcp, int]:
    wscale = draw(scales)
    body = Tcp(1, 2, TcpFlag(draw(flags)), draw(words | edges), draw(words | edges), draw(windows), _options(wscale),
               bytes(draw(payloads)))  # fmt: skip
    return body, wscale


def _options(wscale: int) -> bytes:
    if wscale < 0:
        return b"" if wscale == NO_OPTIONS else _MSS
    return b"\x01\x03\x03" + bytes((wscale,))


@st.composite
def next_packets(draw: st.DrawFn, track: TcpTrack, reply: bool) -> tuple[Tcp, int]:
    """A segment whose numbers lie about the edges of what the tracker allows."""
    sender, receiver = track.sides[reply], track.sides[not reply]
    seq = draw(
        st.sampled_from([sender.end, sender.end, sender.maxend, sender.end - receiver.maxwin, receiver.maxack or 0, 0])
    )
    ack = draw(st.sampled_from([receiver.end, receiver.end, sender.maxack or 0, receiver.end - sender.maxwin, 0]))
    away = draw(st.booleans())
    seq, ack = (seq + draw(nearby), ack + draw(nearby)) if away else (seq, ack)
    wscale = draw(scales)
    body = Tcp(1, 2, TcpFlag(draw(flags)), seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, draw(windows), _options(wscale),
               bytes(draw(payloads)))  # fmt: skip
    return body, wscale


def _advance(
    record: Any, body: Tcp, wscale: int, reply: bool, liberal: bool, known: tuple[bool, bool] = (False, False)
) -> str:
    verdict = tcp_advance(
        record, reply, int(body.flags), body.seq, body.ack, body.window, wscale, len(body.payload), liberal,
        known[0] + 2 * known[1],
    )  # fmt: skip
    return _VERDICTS[verdict]


def _begin(record: Any, body: Tcp, wscale: int, loose: bool) -> bool:
    return bool(tcp_begin(record, int(body.flags), body.seq, body.ack, body.window, wscale, len(body.payload), loose))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_conversations(data: st.DataObject) -> None:
    records = tracks(2)
    records[:] = np.frombuffer(b"\xa5" * TCP_TRACK.itemsize, TCP_TRACK)[
        0
    ]  # a track begins on whatever was there before
    record = records[0]
    loose, liberal = data.draw(st.booleans()), data.draw(st.booleans())
    body, wscale = data.draw(first_packets())
    track = TcpTrack.begin(body, loose)
    assert _begin(record, body, wscale, loose) == (track is not None)
    reply = False
    for _ in range(data.draw(st.integers(1, 14)) if track else 0):
        known = data.draw(st.tuples(st.booleans(), st.booleans()))
        verdict = track.advance(body, reply, liberal, *known)
        assert _advance(record, body, wscale, reply, liberal, known) == verdict
        assert load(record) == track
        reply = data.draw(st.booleans())
        body, wscale = data.draw(next_packets(track, reply))
    assert records[1].tobytes() == b"\xa5" * TCP_TRACK.itemsize  # the neighbour was left alone


def _segment(kind: int, seq: int, ack: int, payload: int = 0, wscale: int = NO_OPTIONS) -> tuple[Tcp, int]:
    return Tcp(1, 2, TcpFlag(kind), seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 29200, _options(wscale), bytes(payload)), wscale


@settings(deadline=None)
@given(
    words | edges, words | edges, scales, scales,
    st.lists(st.tuples(st.booleans(), st.integers(1, 20000)), max_size=20), st.booleans(),
)  # fmt: skip
def test_honest_conversations_reach_the_end(
    one: int, two: int, scale: int, answered: int, talk: list[tuple[bool, int]], by_reset: bool
) -> None:
    """Handshake, data, a close: the way on which every packet is in its window, wherever the numbers wrap."""
    record, at = tracks(1)[0], [one + 1, two + 1]
    said = [(False, *_segment(0x02, one, 0, wscale=scale)), (True, *_segment(0x12, two, one + 1, wscale=answered))]
    said.append((False, *_segment(0x10, at[0], at[1])))
    for reply, size in talk:
        said.append((reply, *_segment(0x18, at[reply], at[not reply], size)))
        at[reply] += size
        said.append((not reply, *_segment(0x10, at[not reply], at[reply])))
    if by_reset:
        said.append((True, *_segment(0x14, at[1], at[0])))
    else:
        said += [(False, *_segment(0x11, at[0], at[1])), (True, *_segment(0x11, at[1], at[0] + 1))]
        said.append((False, *_segment(0x10, at[0] + 1, at[1] + 1)))
    track = TcpTrack.begin(said[0][1], True)
    assert track is not None
    assert _begin(record, said[0][1], said[0][2], True)
    for reply, body, wscale in said:
        assert _advance(record, body, wscale, reply, False) == track.advance(body, reply, False) == "ok"
    assert STATES[record["state"]] == ("CL" if by_reset else "TW")
    assert load(record) == track


sides = st.builds(
    Side,
    words,
    words,
    st.integers(0, 1 << 30),
    st.integers(0, 14),
    st.booleans(),
    st.one_of(st.none(), words),
    st.booleans(),
    st.booleans(),
)
lasts = st.builds(
    Last, st.sampled_from(["syn", "synack", "fin", "ack", "rst", "none"]), st.booleans(), words, words,
    st.integers(0, 65535), st.one_of(st.none(), st.integers(0, 14)), st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(st.builds(TcpTrack, st.sampled_from(STATES), st.tuples(sides, sides), lasts, st.booleans()))
def test_a_record_holds_a_whole_track(track: TcpTrack) -> None:
    record = tracks(1)[0]
    store(track, record)
    assert load(record) == track


@settings(deadline=None)
@given(
    st.builds(TcpTrack, st.sampled_from(STATES), st.tuples(sides, sides), lasts, st.booleans()),
    st.booleans(), st.booleans(), st.data(),
)  # fmt: skip
def test_one_packet_from_any_state(track: TcpTrack, reply: bool, liberal: bool, data: st.DataObject) -> None:
    record = tracks(1)[0]
    store(track, record)
    body, wscale = data.draw(next_packets(track, reply))
    known = data.draw(st.tuples(st.booleans(), st.booleans()))
    assert _advance(record, body, wscale, reply, liberal, known) == track.advance(body, reply, liberal, *known)
    assert load(record) == track


@settings(deadline=None, max_examples=150)
@given(
    st.builds(
        TcpTrack, st.sampled_from(["SS", "ES", "SR", "FW"]), st.tuples(sides, sides), lasts, st.booleans()
    ),
    st.booleans(), st.booleans(), st.booleans(), st.data(),
)  # fmt: skip
def test_resets(track: TcpTrack, reply: bool, answers: bool, unnumbered: bool, data: st.DataObject) -> None:
    """In the window, of a number that was acknowledged already, or (as the answer to a SYN) of number 0."""
    record = tracks(1)[0]
    store(track, record)
    sender, receiver = track.sides[reply], track.sides[not reply]
    seq = 0 if unnumbered else (receiver.maxack or sender.end) + data.draw(st.integers(-2, 2))
    ack = data.draw(st.sampled_from([receiver.end, 0, receiver.end + 1]))
    body, wscale = _segment(0x14 if answers else 0x04, seq, ack)
    known = data.draw(st.tuples(st.booleans(), st.booleans()))
    assert _advance(record, body, wscale, reply, False, known) == track.advance(body, reply, False, *known)
    assert load(record) == track


@settings(deadline=None, max_examples=150)
@given(
    words, words, windows, windows, st.sampled_from(["ahead", "late", "ack ahead", "ack late"]), st.integers(-2, 2),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_edges_of_the_window(
    one: int, two: int, first: int, second: int, which: str, away: int, reply: bool, wide: bool
) -> None:
    """Two before to two after each of the four bounds, everything else being in order."""
    ends = one, two
    maxwins = (first << 3 if wide else first, second)
    held = tuple(Side(ends[n], (ends[n] + maxwins[1 - n]) & 0xFFFFFFFF, maxwins[n], 3 * wide, True) for n in (0, 1))
    track, record = TcpTrack("ES", sides=(held[0], held[1])), tracks(1)[0]
    store(track, record)
    sender, receiver = track.sides[reply], track.sides[not reply]
    seq, ack = sender.end, receiver.end
    match which:
        case "ahead":
            seq = sender.maxend + 1 + away
        case "late":
            seq = sender.end - receiver.maxwin - 1 + away
        case "ack ahead":
            ack = receiver.end + away
        case _:
            ack = receiver.end - max(sender.maxwin, 66000) - 1 + away
    body, wscale = _segment(0x10, seq, ack)
    assert _advance(record, body, wscale, reply, False) == track.advance(body, reply, False)
    assert load(record) == track


@kernel
def _established(record: Any, reply: Any, seq: Any, ack: Any, window: Any, payload: Any) -> bool:
    return tcp_established(record, reply, seq, ack, window, payload)


def _shortcut(track: TcpTrack, reply: bool, body: Tcp, liberal: bool = False) -> bool:
    """Did the fast path's own look at a segment with ACK and perhaps PSH do? If so, it did what ``tcp_advance`` does."""
    record, whole = tracks(1)[0], tracks(1)[0]
    store(track, record)
    store(track, whole)
    numbers = [np.int64(value) for value in (body.seq, body.ack, body.window, len(body.payload))]
    if not _established(record, reply, *numbers):
        assert load(record) == track  # nothing has changed
        return False
    assert _advance(whole, body, -1, reply, liberal) == "ok"
    assert record.tobytes() == whole.tobytes()
    return True


@settings(deadline=None)
@given(
    st.builds(
        TcpTrack, st.sampled_from([*STATES, "ES", "ES"]), st.tuples(sides, sides), lasts, st.booleans()
    ),
    st.booleans(), st.booleans(), st.booleans(), st.data(),
)  # fmt: skip
def test_the_shortcut_from_any_state(
    track: TcpTrack, reply: bool, push: bool, liberal: bool, data: st.DataObject
) -> None:
    body, _ = data.draw(next_packets(track, reply))
    _shortcut(track, reply, replace(body, flags=TcpFlag(0x18 if push else 0x10)), liberal)


@settings(deadline=None)
@given(
    words | edges, words | edges, windows, windows, st.integers(0, 14), st.booleans(), st.booleans(),
    st.lists(st.tuples(st.booleans(), st.integers(0, 20000), st.integers(1, 65535)), min_size=1, max_size=12),
)  # fmt: skip
def test_the_shortcut_takes_honest_talk(
    one: int, two: int, first: int, second: int, scale: int, pushes: bool, picked: bool,
    talk: list[tuple[bool, int, int]],
) -> None:  # fmt: skip
    at, wide = [one, two], [first | 1, second | 1]
    held = [
        Side(at[n], (at[n] + (wide[1 - n] << scale)) & 0xFFFFFFFF, wide[n] << scale, scale, True, liberal=picked)
        for n in (0, 1)
    ]
    track = TcpTrack("ES", (held[0], held[1]))
    for reply, size, window in talk:
        room = (track.sides[reply].maxend - at[reply]) & 0xFFFFFFFF
        body = Tcp(
            1, 2, TcpFlag(0x18 if pushes else 0x10), at[reply], at[not reply], window, b"", bytes(min(size, room))
        )
        assert _shortcut(track, reply, body)
        assert track.advance(body, reply, False) == "ok"
        at[reply] = at[reply] + len(body.payload) & 0xFFFFFFFF


def test_a_record_is_small_and_its_states_have_timeouts() -> None:
    assert (
        TCP_TRACK.itemsize == 48
    )  # the first part of a line of the cache: one that straddles two costs the fast path twice
    assert len(TIMEOUTS) == len(STATES)
    assert set(TIMEOUTS[1:]) <= set(KNOWN)
