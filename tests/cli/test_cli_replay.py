"""``netsim replay``: what arrives, what does not and why, and that nothing is lost on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from netsim.cli import main
from netsim.packet import pcapng
from netsim.packet.address import ip
from netsim.packet.codec import parse_packet, to_bytes
from netsim.packet.model import Frame, Packet, Proto, Tcp, TcpFlag
from tests.support import example_capture
from tests.support.captures import Record, pcap
from tests.support.interpreter_datapath import InterpreterDatapath


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("netsim.datapath.engine")
    module.Datapath = InterpreterDatapath  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "netsim.datapath.engine", module)


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["replay", *arguments, "-f", "@example"])
    told = capsys.readouterr()
    return code, told.out, told.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = replay(capsys, *arguments, "-o", "json", "-q")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    assert (found["apiVersion"], found["kind"]) == ("netsim/v1alpha1", "Replay")
    assert found["sent"] == sum(found["verdicts"].values())
    assert found["capture"]["packets"] == found["sent"] + sum(found["left_out"].values())
    return found


def capture(tmp_path: Path, packets: list[Packet], step: int = 1000) -> str:
    frames = [to_bytes(Frame("02:00:00:00:00:01", "02:00:00:00:00:02", packet, 0x0800)) for packet in packets]
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([Record(10**18 + n * step, frame, len(frame)) for n, frame in enumerate(frames)]))
    return str(path)


def test_the_bundled_capture_is_what_its_maker_makes(request: pytest.FixtureRequest) -> None:
    path = Path(str(files("netsim.data") / "example.pcap"))
    if request.config.getoption("--update-golden"):
        path.write_bytes(example_capture.make())
    assert path.read_bytes() == example_capture.make()


def test_text(golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = replay(capsys, "@example", "-q")
    assert code == 0
    golden("cli/replay.txt", out)


def test_json(golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    golden("cli/replay.json", json.dumps(document(capsys, "@example"), indent=2) + "\n")


def test_whole_connections_arrive_whichever_endpoint_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """The answers come from where the questions went, so that each connection is established in every replay."""
    receivers = set()
    for seed in range(3):
        found = document(capsys, "@example", "--seed", str(seed))
        receivers |= {name for name in found["receivers"] if "cart" in name}
        assert {(one["to"], one["verdict"]) for one in found["failures"]} == {("10.96.3.99", "REJECTED")}
        assert found["left_out"] == {
            "not IP (ARP and the like)": 1,
            "from an address of the cluster that nobody has": 1,
        }
    assert len(receivers) > 1


def _tcp(src: str, sport: int, dst: str, dport: int, flags: int, seq: int = 1, ack: int = 0) -> Packet:
    return Packet(ip(src), ip(dst), Proto.TCP, Tcp(sport, dport, TcpFlag(flags), seq, ack))


def test_the_compiled_datapath_tells_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever endpoints are chosen: as many packets, answers and outcomes, and the same failures."""
    wanted = document(capsys, "@example")
    monkeypatch.delitem(sys.modules, "netsim.datapath.engine")
    pytest.importorskip("netsim.datapath.engine")
    found = document(capsys, "@example")
    for told in (found, wanted):
        for failure in told["failures"]:
            failure.pop("because")
    for key in ("sent", "answers", "left_out", "verdicts", "failures", "capture"):
        assert found[key] == wanted[key], key
    assert found["how"]["fast"] + found["how"]["slow"] > 0


def test_every_packet_as_received(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bytes of the capture, with the addresses, ports and TTL they arrived with; times and verdicts beside them."""
    path = tmp_path / "out.pcapng"
    code, _, _ = replay(capsys, "@example", "--write", str(path), "-q")
    assert code == 0
    told = list(pcapng.read(path.read_bytes()))
    sent = [packet for packet in example_capture.packets() if str(packet.src) != "10.244.1.99"]
    assert len(told) == len(sent) == 70
    for packet, found in zip(sent, told):
        number, words = found.comment.removeprefix("packet ").split(", ", 1)
        assert words.split(": ")[0] in ("sent", "answer")
        assert found.timestamp_ns == 1_700_000_000_000_000_000 + (int(number) - 1) * 12_345_000 // 1000 * 1000
        received = parse_packet(found.data)
        assert (type(received.body), received.ident, received.proto) == (type(packet.body), packet.ident, packet.proto)
        if isinstance(packet.body, Tcp) and isinstance(received.body, Tcp):
            assert replace(received.body, sport=0, dport=0) == replace(packet.body, sport=0, dport=0)
    carts = [found for found in told if "cart" in found.interface]
    assert carts
    assert all(str(parse_packet(found.data).dst) in ("10.244.1.5", "10.244.2.5", "10.244.3.6") for found in carts)
    assert all(parse_packet(found.data).dport == 8080 for found in carts)
    refused = [found for found in told if found.interface == "did not arrive"]
    assert [found.comment.split(": ")[1].split(",")[0] for found in refused] == ["REJECTED"] * 3


def test_every_packet_as_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    assert replay(capsys, "@example", "--parquet", str(path), "-q")[0] == 0
    rows = parquet.read_table(path).to_pylist()
    packets = example_capture.packets()
    assert len(rows) == 70
    for row in rows:
        packet = packets[row["packet"] - 2]  # the first frame is an ARP request
        assert row["proto"] == packet.proto
        if not row["answer"]:
            assert (row["src"], row["dst"]) == (str(packet.src), str(packet.dst))
            assert row["dport"] == (packet.dport if packet.dport is not None else 8 << 8)
        assert row["how"] == "interpreter"
        assert row["ttl"] <= packet.ttl if not row["answer"] else 64
    to_carts = [row for row in rows if "cart" in row["receiver"]]
    assert {row["received_dport"] for row in to_carts} == {8080}
    assert {row["verdict"] for row in rows} == {"DELIVERED", "LEFT", "REJECTED"}
    empty = capture(tmp_path, [])
    assert replay(capsys, empty, "--parquet", str(path), "-q")[0] == 0
    assert parquet.read_table(path).num_rows == 0


def test_parquet_needs_pyarrow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "out.parquet"
    code, out, err = replay(capsys, "@example", "--parquet", str(path), "-q")
    assert (code, out) == (2, "")
    assert "--parquet needs pyarrow: pip install 'kube-netsim[parquet]'" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "an empty file, not a capture"), (b"kind: Pod", "not a capture: it begins neither as pcap nor as pcapng")],
)
def test_what_is_no_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    code, out, err = replay(capsys, str(path))
    assert (code, out) == (3, "")
    assert f"{path}: {complaint}" in err


def test_what_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = replay(capsys, "@example", "--write", str(tmp_path / "none" / "x.pcapng"), "-q")
    assert (code, out) == (2, "")
    assert "cannot write" in err


def test_nobody_sends_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses of the cluster without an owner, of Services, of no host; each counted by its reason."""
    path = capture(tmp_path, [
        _tcp("10.244.1.200", 1, "10.96.3.7", 80, 2),
        _tcp("10.96.3.7", 80, "10.244.2.7", 5000, 0x12),
        _tcp("127.0.0.1", 1, "10.96.3.7", 80, 2),
        _tcp("0.0.0.0", 68, "255.255.255.255", 67, 2),
        _tcp("169.254.1.1", 1, "10.96.3.7", 80, 2),
    ])  # fmt: skip
    found = document(capsys, path)
    assert found["left_out"] == {
        "from an address of the cluster that nobody has": 1,
        "answers to what the capture does not have, from a Service's address": 1,
        "from an address that is no host's own (unspecified, loopback, link-local, multicast)": 3,
    }
    assert found["sent"] == 0


def test_answers_to_what_did_not_arrive_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The capture knows of an endpoint that the cluster at hand does not have."""
    path = capture(tmp_path, [
        _tcp("10.244.2.7", 4000, "10.96.3.99", 80, 2),
        _tcp("10.96.3.99", 80, "10.244.2.7", 4000, 0x12, 5, 2),
        _tcp("10.244.2.7", 4000, "10.96.3.99", 80, 0x10, 2, 6),
    ])  # fmt: skip
    found = document(capsys, path)
    assert found["left_out"] == {"answers to packets that did not arrive": 1}
    assert (found["sent"], found["answers"], found["verdicts"]["DELIVERED"]) == (2, 0, 0)


def test_an_answer_crosses_the_translation_of_its_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A client outside and a NodePort: the question is masqueraded, and its answer finds back to the client."""
    path = capture(tmp_path, [
        _tcp("198.51.100.7", 4000, "192.168.20.13", 30081, 2),
        _tcp("192.168.20.13", 30081, "198.51.100.7", 4000, 0x12, 5, 2),
    ])  # fmt: skip
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = str(tmp_path / "rows")
    assert replay(capsys, path, "-q", "--parquet", rows)[0] == 0
    question, answer = parquet.read_table(rows).to_pylist()
    assert (question["verdict"], answer["verdict"], answer["receiver"]) == ("DELIVERED", "LEFT", "external")
    assert answer["src"] == question["received_dst"]
    assert (answer["dst"], answer["dport"]) == (question["received_src"], question["received_sport"])
    assert (answer["received_src"], answer["received_sport"]) == ("192.168.20.13", 30081)
    assert (answer["received_dst"], answer["received_dport"]) == ("198.51.100.7", 4000)


def test_of_very_many_failures_the_first_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netsim.report.replay._KEPT", 12)
    path = capture(tmp_path, [_tcp("10.244.2.7", 1, "10.244.1.200", 80 + n, 2) for n in range(15)])
    found = document(capsys, path)
    assert [one["dport"] for one in found["failures"]] == list(range(80, 92))
    assert found["unlisted_failures"] == 3
    _, out, _ = replay(capsys, path, "-q")
    assert "2  of 2 more such pairs (-o json lists them)" in out
    assert "3  of pairs beyond the first 12, which are not told apart" in out


def test_packets_that_are_out_of_order_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = capture(tmp_path, [_tcp("10.244.2.7", 4000 + n, "10.96.3.7", 80, 2) for n in range(3)], step=-1_000_000)
    assert document(capsys, path)["late"] == 2
    _, out, _ = replay(capsys, path, "-q")
    assert "of these  2  captured before the packet ahead of them (sent at its time)" in out


def test_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = replay(capsys, capture(tmp_path, []), "-q")
    assert code == 0
    assert "sent      0 packets\noutcomes  none\n" in out


def test_help_is_instant() -> None:
    import subprocess

    heavy = ("numba", "numpy", "scapy", "pyroute2", "pyarrow")
    code = f"import sys, netsim.cli.parser as p; p.build('netsim'); sys.exit(any(m in sys.modules for m in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
