"""Traces as text: what is told in which verbosity, what is folded, and that names cannot talk to the terminal."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from netsim.interpreter.outcome import Disposition
from netsim.report.style import Style, clean, wants_colour
from netsim.report.text import VERBOSITIES, lines, probability_text
from netsim.report.traced import Traced
from tests.support.traced_outcomes import SENT, delivered, ended, left, rejected

THREE = tuple(delivered(f"10.244.2.{n}", f"pod/shop/cart-{n}") for n in (7, 8, 9))


def told(*outcomes: object, verbosity: str = "detailed", **more: object) -> str:
    traced = Traced("pod/shop/web-0", "svc/shop/cart:http", SENT, outcomes, **more)  # type: ignore[arg-type]
    return "\n".join(lines(traced, verbosity))


def test_detailed_shows_the_rule_verbatim_with_its_object_and_line() -> None:
    text = told(delivered(share=Fraction(1)))
    assert "-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.2.7:8080" in text
    assert "# Service shop/cart:http (cart.yaml:12)" in text
    assert "10.96.3.7:80 -> 10.244.2.7:8080" in text


def test_detailed_opens_a_block_for_each_namespace_and_table() -> None:
    text = told(delivered(share=Fraction(1)))
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert [head.split()[0] for head in heads[1:]] == [
        "pod/shop/web-0",
        "node/n1",
        "node/n2",
        "pod/shop/cart-1",
        "DELIVERED",
    ]
    assert "  nat/PREROUTING" in text


def test_every_outcome_ends_with_one_sentence() -> None:
    text = told(*THREE)
    sentences = [line for line in text.splitlines() if line.startswith("DELIVERED")]
    assert [line.split(",")[0] for line in sentences] == [f"DELIVERED to pod/shop/cart-{n}:8080" for n in (7, 8, 9)]
    assert all("4 hops" in line and "37 rules evaluated" in line for line in sentences)


def test_minimal_folds_outcomes_that_differ_in_their_endpoint_alone() -> None:
    (line,) = told(*THREE, verbosity="minimal").splitlines()
    assert line.split()[:2] == ["1", "DELIVERED"]
    assert all(f"pod/shop/cart-{n}:8080" in line for n in (7, 8, 9))


def test_minimal_tells_other_fates_apart() -> None:
    half = [replace(o, probability=Fraction(1, 2)) for o in (delivered(), rejected())]
    found = told(*half, verbosity="minimal").splitlines()
    assert [line.split()[:2] for line in found] == [["1/2", "DELIVERED"], ["1/2", "REJECTED"]]
    assert "Service shop/cart:http has no endpoints (shop.yaml:7)" in found[1]


def test_summary_leaves_out_what_decided_nothing() -> None:
    text = told(delivered(share=Fraction(1)), verbosity="summary")
    assert "-A PREROUTING -j KUBE-SERVICES" not in text
    assert "DNAT" in text
    assert "vxlan 1 to 192.168.10.12" in text


def test_summary_follows_one_of_the_folded() -> None:
    text = told(*THREE, verbosity="summary")
    assert text.count("DNAT") == 1
    assert "3 of 3 outcomes alike but for the endpoint, probability 1 (1/3 each)" in text


def test_what_the_sender_gets_is_said() -> None:
    assert "The sender gets icmp-port-unreachable from 10.244.1.1." in told(rejected())
    lost = rejected()
    assert lost.icmp is not None
    silent = replace(lost, icmp=replace(lost.icmp, arrived=False, mtu=1450))
    assert "The sender never gets icmp-port-unreachable from 10.244.1.1, MTU 1450." in told(silent)


def test_a_drop_says_what_decided_it_and_where() -> None:
    rule = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    text = told(ended(Disposition.DROPPED, rule))
    assert text.splitlines()[-1].startswith("DROPPED on the way to 10.96.3.7:80, 1 hop, 9 rules evaluated.")
    assert text.endswith(
        "Decided by -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP [node/n1 filter/KUBE-FORWARD rule 1]."
    )


def test_leaving_shows_the_packet_as_it_left() -> None:
    assert "LEFT as 192.168.10.11:61000 -> 203.0.113.10:80 TCP, 1 hop, source masqueraded" in told(left())


def test_a_reply_stands_with_its_outcome() -> None:
    text = told(delivered(share=Fraction(1)), replies={0: (left(),)})
    assert text.index("DELIVERED to") < text.index("reply  ") < text.index("LEFT as")


def test_hop_titles_show_the_devices() -> None:
    text = told(delivered(share=Fraction(1)))
    assert "pod/shop/web-0 on n1  local process -> eth0" in text
    assert "node/n1  veth1 -> eth0" in text


def test_the_same_in_every_verbosity_without_outcomes() -> None:
    assert told(verbosity="minimal") == ""
    assert len(told().splitlines()) == 1


def test_names_cannot_talk_to_the_terminal() -> None:
    evil = "pod/shop/\x1b]0;owned\x07\u202edecoy"
    for verbosity in VERBOSITIES:
        outcome = replace(ended(Disposition.DROPPED, f"drop {evil}", because=evil), receiver=evil)
        text = "\n".join(lines(Traced(evil, evil, SENT, (outcome,)), verbosity))
        assert not any(sign in text for sign in "\x1b\x07\u202e")
        assert "\\x1b]0;owned\\x07\\u202edecoy" in text


def test_colour_never_carries_meaning_alone() -> None:
    import re

    traced = Traced("a", "b", SENT, (rejected(),))
    for verbosity in VERBOSITIES:
        painted = "\n".join(lines(traced, verbosity, Style(True)))
        assert "\x1b[" in painted
        assert re.sub("\x1b\\[[0-9;]*m", "", painted) == "\n".join(lines(traced, verbosity))


def test_who_wants_colour() -> None:
    terminal = {"TERM": "xterm"}
    assert wants_colour("auto", terminal, True)
    assert not wants_colour("auto", terminal, False)
    assert not wants_colour("auto", {**terminal, "NO_COLOR": "1"}, True)
    assert wants_colour("auto", {**terminal, "NO_COLOR": ""}, True)
    assert not wants_colour("auto", {"TERM": "dumb"}, True)
    assert wants_colour("auto", {"CLICOLOR_FORCE": "1"}, False)
    assert not wants_colour("auto", {"CLICOLOR_FORCE": "0"}, False)
    assert wants_colour("always", {"NO_COLOR": "1"}, False)
    assert not wants_colour("never", terminal, True)


def test_clean_leaves_honest_text_alone() -> None:
    assert clean("Grüße, 世界 -> 10.0.0.1:80") == "Grüße, 世界 -> 10.0.0.1:80"
    assert clean("a\nb\x9bc") == "a\\x0ab\\x9bc"


def test_probabilities_as_people_write_them() -> None:
    assert [probability_text(Fraction(*pair)) for pair in ((1, 1), (1, 3), (2, 100), (1, 1000))] == [
        "1",
        "1/3",
        "1/50",
        "0.100%",
    ]
