"""Addresses that no pod or node has: the world outside, addresses of Services, and holes in the cluster's own prefixes."""

from __future__ import annotations

import json

import pytest

from netsim.cli import main


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict]]:  # type: ignore[type-arg]
    code = main(["trace", "-q", "-f", "@example", "-o", "json", *arguments])
    text = capsys.readouterr().out
    return code, json.loads(text)["outcomes"] if text else []


def test_any_address_of_the_world_can_be_reached_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    code, (outcome,) = ask(capsys, "pod/shop/web-0", "9.9.9.9:53", "--protocol", "udp", "--reply")
    assert (code, outcome["verdict"], outcome["to"]) == (0, "LEFT", "external")
    assert outcome["masqueraded"]
    assert outcome["packet"]["dst"] == "9.9.9.9"
    assert (outcome["reply"]["verdict"], outcome["reply"]["to"]) == ("DELIVERED", "pod/shop/web-0")


@pytest.mark.parametrize("source", [["external", "--from-ip", "198.51.100.7"], ["198.51.100.7"]])
def test_a_client_from_anywhere_gets_its_answer(capsys: pytest.CaptureFixture[str], source: list[str]) -> None:
    code, outcomes = ask(capsys, source[0], "node/n1:30081", *source[1:], "--reply")
    assert code == 0
    assert {outcome["verdict"] for outcome in outcomes} == {"DELIVERED"}
    for outcome in outcomes:
        assert outcome["hops"][0]["namespace"] == "external"
        assert outcome["reply"]["verdict"] == "LEFT"
        assert outcome["reply"]["packet"]["dst"] == "198.51.100.7"


def test_only_the_networks_that_the_load_balancer_lets_in(capsys: pytest.CaptureFixture[str]) -> None:
    _, (inside,) = ask(capsys, "external", "192.0.2.80:80", "--from-ip", "198.51.100.7")
    _, (stranger,) = ask(capsys, "external", "192.0.2.80:80", "--from-ip", "8.8.8.8")
    assert (inside["verdict"], inside["masqueraded"]) == ("DELIVERED", False)
    assert stranger["verdict"] == "DROPPED"
    assert "loadBalancerSourceRanges" in stranger["decided_by"]["because"]
    assert stranger["decided_by"]["source"].startswith("@example/shop.yaml:")


@pytest.mark.parametrize("unused", ["10.96.99.99:80", "10.244.1.200:80", "192.168.10.77:80"])
def test_a_hole_in_the_cluster_is_not_the_world(capsys: pytest.CaptureFixture[str], unused: str) -> None:
    code, (outcome,) = ask(capsys, "pod/shop/web-0", unused)
    assert (code, outcome["verdict"], outcome["to"]) == (0, "UNREACHABLE", None)
    assert outcome["icmp"]["name"].endswith("unreachable")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["external", "9.9.9.9:53"], "are both outside"),
        (["10.96.3.7", "pod/shop/web-0"], "nobody sends from this address"),
        (["10.244.1.200", "pod/shop/web-0"], "nobody sends from this address"),
        (["external", "node/n1:30081", "--at", "n4"], "did you mean node/n1"),
        (["external", "node/n1:30081", "--at", "pod/shop/web-0"], "name a node"),
    ],
)
def test_what_makes_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(["trace", "-q", "-f", "@example", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_one_node_by_either_of_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    found = [ask(capsys, "external", "node/n3:30081", "--at", node) for node in ("n3", "node/n3")]
    assert found[0] == found[1]
    assert {hop["namespace"] for outcome in found[0][1] for hop in outcome["hops"]} == {"node/n3"}
    assert {outcome["verdict"] for outcome in found[0][1]} == {"LEFT"}
