"""Reports of hand-made outcomes: keys, folding, captures, and names that try to talk to the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from netsim.errors import Source, UsageError
from netsim.interpreter.outcome import DecidedBy, Disposition, Hop, IcmpError, Outcome, Step, StepKind
from netsim.linux.provenance import Provenance
from netsim.packet import pcapng as pcapng_format
from netsim.packet.address import ip
from netsim.packet.codec import parse_frame, parse_packet
from netsim.packet.model import Frame, Packet, Proto, Tcp
from netsim.report import pcapng
from netsim.report.json import trace_document
from netsim.report.style import Style, clean, wants_colour
from netsim.report.text import lines, probability_text
from netsim.report.traced import Traced

SENT = Packet(ip("10.244.1.5"), ip("10.96.3.7"), Proto.TCP, Tcp(40000, 80))
WHY = Provenance("Service shop/cart:http", Source("cart.yaml", 12))


def delivered(number: int, share: Fraction = Fraction(1, 3), node: str = "n2") -> Outcome:
    got = replace(SENT, dst=ip(f"10.244.2.{number}"), body=Tcp(40000, 8080), ttl=62)
    rule = Step(
        StepKind.RULE, "-A KUBE-SERVICES -j KUBE-SVC-X", "PREROUTING", "nat", "KUBE-SERVICES", 14, provenance=WHY
    )
    nat = Step(
        StepKind.NAT, f"DNAT to {got.dst}:8080", "PREROUTING", "nat", "KUBE-SEP-X", 2,
        "10.96.3.7:80", f"{got.dst}:8080", True, WHY,
    )  # fmt: skip
    first = Hop("node/n1", "n1", "veth0", [rule, nat])
    first.wire = [("veth0", "in", Frame("02:00:00:00:00:01", "02:00:00:00:00:02", SENT)), ("eth0", "out", got)]
    last = Hop(f"pod/shop/cart-{number}", node, "eth0", [Step(StepKind.DELIVER, "to the process", decisive=True)])
    last.wire = [("eth0", "in", got)]
    return Outcome(
        share, Disposition.DELIVERED, f"pod/shop/cart-{number}", got, False, None,
        DecidedBy("node/n1", "n1", nat), 37, (first, last), sent=SENT,
    )  # fmt: skip


def rejected() -> Outcome:
    step = Step(
        StepKind.RULE,
        "-A KUBE-SERVICES -j REJECT",
        "FORWARD",
        "filter",
        "KUBE-SERVICES",
        1,
        decisive=True,
        provenance=WHY,
    )
    error = IcmpError(3, 3, "port-unreachable", ip("192.168.10.11"), SENT, arrived=False)
    return Outcome(
        Fraction(1), Disposition.REJECTED, None, SENT, False, error,
        DecidedBy("node/n1", "n1", step), 5, (Hop("node/n1", "n1", "veth0", [step]),), sent=SENT,
    )  # fmt: skip


def traced(outcomes: Sequence[Outcome]) -> Traced:
    return Traced("pod/shop/web-0", "svc/shop/cart:http", SENT, tuple(outcomes))


def text(outcomes: Sequence[Outcome], verbosity: str = "detailed", colour: bool = False) -> str:
    return "\n".join(lines(traced(outcomes), verbosity, Style(colour)))


THREE = [delivered(n) for n in (7, 8, 9)]


def test_json_has_the_keys_others_build_on() -> None:
    document = trace_document(traced([*THREE, rejected()]))
    assert list(document) == ["apiVersion", "kind", "request", "outcomes"]
    assert document["request"]["packet"] == {
        "src": "10.244.1.5", "sport": 40000, "dst": "10.96.3.7", "dport": 80, "proto": "TCP",
    }  # fmt: skip
    first, last = document["outcomes"][0], document["outcomes"][-1]
    assert first["probability"] == 0.3333333333
    assert first["to"] == "pod/shop/cart-7"
    assert first["decided_by"] == {
        "node": "n1", "namespace": "node/n1", "hook": "PREROUTING", "table": "nat", "chain": "KUBE-SEP-X", "rule": 2,
        "text": "DNAT to 10.244.2.7:8080", "because": "Service shop/cart:http", "source": "cart.yaml:12",
    }  # fmt: skip
    assert (last["to"], last["icmp"]["name"], last["icmp"]["from"]) == (None, "port-unreachable", "192.168.10.11")
    assert set(first["hops"][0]) == {"node", "namespace", "device", "steps"}


def test_what_left_went_to_external() -> None:
    left = replace(delivered(7), disposition=Disposition.LEFT, receiver=None)
    assert trace_document(traced([left]))["outcomes"][0]["to"] == "external"


def test_minimal_folds_what_differs_only_in_the_endpoint() -> None:
    assert text(THREE, "minimal").splitlines() == [
        "     1  DELIVERED to pod/shop/cart-7:8080, pod/shop/cart-8:8080, pod/shop/cart-9:8080  via n1, n2"
    ]
    split = text([*THREE[:2], delivered(9, node="n3")], "minimal").splitlines()
    assert [line.split()[0] for line in split] == ["2/3", "1/3"]


def test_summary_leaves_out_what_decided_nothing() -> None:
    assert "KUBE-SVC-X" not in text(THREE, "summary")
    assert "KUBE-SVC-X" in text(THREE)


def test_the_last_line_is_the_verdict_with_the_line_of_the_file() -> None:
    last = text([delivered(7, Fraction(1))]).splitlines()[-1]
    assert last.startswith("DELIVERED to pod/shop/cart-7:8080, 2 hops, 1 translation, 37 rules evaluated.")
    assert "Service shop/cart:http (cart.yaml:12)" in last
    assert "The sender never gets port-unreachable from 192.168.10.11." in text([rejected()])


@pytest.mark.parametrize("verbosity", ["minimal", "summary", "detailed"])
def test_names_cannot_talk_to_the_terminal(verbosity: str) -> None:
    evil = Provenance("Service \x1b]0;owned\x07\u202e", Source("a\x1b[2J.yaml", 1))
    outcome = rejected()
    step = replace(outcome.decided_by.step, provenance=evil, text="-A X \x9b31m")  # type: ignore[union-attr]
    outcome = replace(
        outcome, decided_by=DecidedBy("node/\x1bn", "n", step), hops=(Hop("node/\x1bn", "n\x07", "\x1b", [step]),)
    )
    report = text([outcome], verbosity)
    assert clean(report.replace("\n", "")) == report.replace("\n", "")


def test_colour_adds_nothing_but_colour() -> None:
    import re

    painted = text([*THREE, rejected()], colour=True)
    assert painted != text([*THREE, rejected()])
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == text([*THREE, rejected()])


@pytest.mark.parametrize(
    ("choice", "environment", "terminal", "expected"),
    [
        ("auto", {"TERM": "xterm"}, True, True),
        ("auto", {"TERM": "xterm"}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ("auto", {"CLICOLOR_FORCE": "1"}, False, True),
        ("auto", {"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"CLICOLOR_FORCE": "1"}, True, False),
    ],
)
def test_when_there_is_colour(choice: str, environment: dict[str, str], terminal: bool, expected: bool) -> None:
    assert wants_colour(choice, environment, terminal) is expected


def test_the_capture_holds_true_bytes_and_the_deciding_rule() -> None:
    buffer = io.BytesIO()
    assert pcapng.write(traced([THREE[0]]), buffer) == 3
    captured = list(pcapng_format.read(buffer.getvalue()))
    assert [c.interface for c in captured] == ["node/n1/veth0", "node/n1/eth0", "pod/shop/cart-7/eth0"]
    assert parse_frame(captured[0].data).packet == SENT
    assert parse_packet(captured[1].data) == THREE[0].packet
    assert "DNAT to 10.244.2.7:8080" in captured[1].comment
    assert captured[2].comment.endswith("DELIVERED")


def test_a_capture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    pcapng.write_file(traced(THREE), str(tmp_path / "x.pcapng"))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pcapng"]
    broken = replace(THREE[0], packet=SENT)
    broken.hops[0].wire.append(("eth9", "out", "no packet"))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        pcapng.write_file(traced([broken]), str(tmp_path / "y.pcapng"))
    broken.hops[0].wire.pop()
    assert [p.name for p in tmp_path.iterdir()] == ["x.pcapng"]
    with pytest.raises(UsageError, match="cannot write"):
        pcapng.write_file(traced(THREE), str(tmp_path / "no" / "y.pcapng"))


def test_probabilities_as_people_write_them() -> None:
    assert [probability_text(Fraction(*f)) for f in ((1, 3), (1, 1), (1, 1000))] == ["1/3", "1", "0.100%"]
