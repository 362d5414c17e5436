"""A replay is the same however the capture is read, and every packet of it is accounted for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.datapath.capture import Capture
from netsim.datapath.conversations import _distinct
from netsim.datapath.replay import NO_BEGINNING, NOT_ARRIVED, Part, Replay, survey
from netsim.interpreter.origin import LocalOrigin
from netsim.linux.network import Network
from netsim.packet.address import Family, ip
from netsim.packet.codec import to_bytes
from netsim.packet.icmp import echo
from netsim.packet.model import Packet, Proto, Sctp, Tcp, TcpFlag, Udp
from tests.support.captures import RAW, Record, pcap
from tests.support.interpreter_datapath import InterpreterDatapath

_CART, _LEGACY, _SIGNALLING = "10.96.3.7", "10.96.3.99", "10.96.7.5"
_SENDERS: dict[Any, Any] = {
    ip("10.244.2.7"): LocalOrigin("pod/shop/web-0"),
    ip("10.244.3.8"): LocalOrigin("pod/shop/web-1"),
    ip("203.0.113.10"): LocalOrigin("external"),
    ip(_CART): NO_BEGINNING,
    ip(_LEGACY): NO_BEGINNING,
    ip(_SIGNALLING): NO_BEGINNING,
    ip("192.168.10.11"): LocalOrigin("node/n1"),
    ip("10.244.9.9"): "nobody",
}


@cache
def _network() -> Network:
    from netsim.kube.cluster import Settings
    from netsim.kube.load import load, store
    from netsim.topology.assemble import assemble

    return assemble(store(load(["@example"])), Settings()).network


@st.composite
def conversations(draw: st.DrawFn) -> list[Packet]:
    """Some packets of one conversation, questions and answers as the capture saw them, in any order."""
    client = draw(st.sampled_from(["10.244.2.7", "10.244.3.8", "203.0.113.10", "10.244.9.9"]))
    server, dport = draw(st.sampled_from([(_CART, 80), (_LEGACY, 80), ("192.168.10.11", 30081), ("10.244.3.8", 8080)]))
    kind, sport = draw(st.sampled_from(["tcp", "udp", "icmp", "sctp"])), draw(st.integers(4000, 4003))
    found = []
    for number in range(draw(st.integers(1, 4))):
        back = draw(st.booleans()) if number else False
        src, dst, ports = (server, client, (dport, sport)) if back else (client, server, (sport, dport))
        match kind:
            case "tcp":
                flags = draw(st.sampled_from([0x02, 0x10, 0x12, 0x11, 0x04]))
                body: Any = Tcp(*ports, TcpFlag(flags), number + 1, number)
            case "udp":
                body = Udp(*ports, b"x")
            case "sctp":
                body = Sctp(*ports) if back or server != _CART else Sctp(ports[0], 2905)
            case _:
                body = echo(Family.IPV4, sport, reply=back)
        protos = {"tcp": Proto.TCP, "udp": Proto.UDP, "sctp": Proto.SCTP, "icmp": Proto.ICMP}
        found.append(Packet(ip(src), ip(dst), protos[kind], body, ident=7))
    return found


captures = st.lists(conversations(), min_size=1, max_size=4).flatmap(
    lambda talks: st.permutations([(n, packet) for n, talk in enumerate(talks) for packet in talk])
)


def _run(path: Path, size: int) -> tuple[Replay, InterpreterDatapath, list[Part]]:
    engine = InterpreterDatapath(_network(), seed=5)
    replay = Replay(engine, _SENDERS)
    return replay, engine, list(replay.run(Capture(path), size))


def _rows(engine: InterpreterDatapath, parts: list[Part]) -> list[tuple[Any, ...]]:
    names = ("verdict", "src", "dst", "sport", "dport", "ttl", "rules")
    return [
        (
            int(part.numbers[n]), int(part.times[n]), bool(part.answers[n]), int(part.batch.time[n]), part.batch.packet(n),
            engine.namespace_name(int(part.result.receiver[n])), *(int(getattr(part.result, name)[n]) for name in names),
        )
        for part in parts
        for n in range(len(part.batch))
    ]  # fmt: skip


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(captures, st.lists(st.integers(-2000, 20_000_000_000), min_size=16, max_size=16))
def test_the_same_however_it_is_read(tmp_path: Path, told: list[tuple[int, Packet]], gaps: list[int]) -> None:
    now, records = 10**18, []
    for (_, packet), gap in zip(told, gaps):
        data = to_bytes(packet)
        records.append(Record(now, data, len(data), RAW))
        now += gap
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(records, link=RAW, nano=True))
    replay, engine, parts = _run(path, 65536)
    rows = _rows(engine, parts)
    for size in (1, 3):
        again, other, pieces = _run(path, size)
        assert _rows(other, pieces) == rows
        assert (again.left_out, again.late) == (replay.left_out, replay.late)
    assert len(rows) + replay.left_out.total() == len(told)
    assert set(replay.left_out) <= {NO_BEGINNING, NOT_ARRIVED, "nobody"}
    sent = [row[0] for row in rows]
    assert sent == sorted(set(sent))
    for (
        number,
        _,
        answer,
        *_,
    ) in rows:
        packet = told[number - 1][1]
        if not answer:
            assert isinstance(_SENDERS[packet.src], LocalOrigin)
    looked = survey(Capture(path))
    assert looked.packets == len(told)
    assert looked.sources == {packet.src for _, packet in told}
    assert looked.destinations == {packet.dst for _, packet in told}
    assert (looked.first, looked.last) == (min(r.time for r in records), max(r.time for r in records))


def _answers(tmp_path: Path, packets: list[tuple[int, Packet]]) -> list[tuple[Any, ...]]:
    records = [Record(time * 1_000_000_000, to_bytes(p), len(to_bytes(p)), RAW) for time, p in packets]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(records, link=RAW))
    _, engine, parts = _run(path, 65536)
    return _rows(engine, parts)


def _udp(back: bool) -> Packet:
    client, server = ip("10.244.2.7"), ip("10.96.0.10")
    if back:
        return Packet(server, client, Proto.UDP, Udp(53, 4000, b"x"))
    return Packet(client, server, Proto.UDP, Udp(4000, 53, b"x"))


def test_an_answer_follows_the_question_that_came_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a silence the kernel has forgotten the connection and chooses anew; the answer comes from the new endpoint."""
    monkeypatch.setitem(_SENDERS, ip("10.96.0.10"), NO_BEGINNING)
    rows = _answers(tmp_path, [(1000 * n + back, _udp(bool(back))) for n in range(1, 12) for back in (0, 1)])
    ends = [row[5] for row in rows[::2]]
    assert len(set(ends)) > 1
    for question, answer in zip(rows[::2], rows[1::2]):
        assert answer[2]
        assert str(answer[4].src) == str(_address(question))
        assert answer[5] == "pod/shop/web-0"


def _address(row: tuple[Any, ...]) -> Any:
    return ip(".".join(str(row[8] >> shift & 255) for shift in (24, 16, 8, 0)))


def test_sctp_is_answered_too(tmp_path: Path) -> None:
    init = b"\x01\x00\x00\x14" + (9).to_bytes(4, "big") + bytes(12)  # answers must bear the tag that it names
    ask = Packet(ip("10.244.2.7"), ip(_SIGNALLING), Proto.SCTP, Sctp(4000, 2905, 0, init))
    answer = Packet(ip(_SIGNALLING), ip("10.244.2.7"), Proto.SCTP, Sctp(2905, 4000, 9, b"\x02\x00\x00\x14" + bytes(16)))
    rows = _answers(tmp_path, [(1, ask), (2, answer)])
    assert [(row[2], row[5]) for row in rows][1] == (True, "pod/shop/web-0")
    assert rows[1][4].src == _address(rows[0])


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=20), st.data())
def test_distinct_pairs(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    """Also where the mixtures of two different pairs are the same: the first word can always be chosen so."""
    clashing = data.draw(st.booleans())
    if clashing and pairs:
        one, other = pairs[0]
        moved = data.draw(st.integers(0, 2**64 - 1))
        pairs = [*pairs, (one ^ (other * _ODD ^ moved * _ODD) & (1 << 64) - 1, moved)]
    drawn = [*pairs, *data.draw(st.lists(st.sampled_from(pairs), max_size=5) if pairs else st.just([]))]
    told = np.array(drawn, np.uint64).reshape(-1, 2)
    known, which = _distinct(told[:, 0].copy(), told[:, 1].copy())
    assert known[which].tolist() == told.tolist()
    assert len(set(map(tuple, known.tolist()))) == len(known) == len(set(drawn))


_ODD = 0x9E3779B97F4A7C15


def _segment(back: bool, flags: int, seq: int, ack: int = 0, server: str = _CART) -> Packet:
    client = ip("10.244.2.7")
    if back:
        return Packet(ip(server), client, Proto.TCP, Tcp(80, 4000, TcpFlag(flags), seq, ack))
    return Packet(client, ip(server), Proto.TCP, Tcp(4000, 80, TcpFlag(flags), seq, ack))


def test_a_tuple_that_is_used_again_is_a_new_question(tmp_path: Path) -> None:
    """A reset, and the same port once more: the kernel chooses anew, and the answers come from the new endpoint."""
    told = [_segment(False, 0x02, 100), _segment(True, 0x12, 7, 101), _segment(False, 0x04, 101)]
    rows = _answers(tmp_path, [(1 + n, packet) for n, packet in enumerate(told * 8)])
    assert len({row[5] for row in rows[::3]}) > 1
    for question, answer in zip(rows[::3], rows[1::3]):
        assert answer[2]
        assert answer[4].src == _address(question)
        assert answer[5] == "pod/shop/web-0"


def test_who_talks_to_himself_is_answered_by_himself(tmp_path: Path) -> None:
    told = [_segment(False, 0x02, 100, server="10.244.2.7"), _segment(True, 0x12, 7, 101, server="10.244.2.7")]
    rows = _answers(tmp_path, list(enumerate(told)))
    assert [(row[2], row[5]) for row in rows] == [(False, "pod/shop/web-0"), (True, "pod/shop/web-0")]
