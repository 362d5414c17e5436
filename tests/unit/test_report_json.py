"""Traces as JSON: the keys that others build on, complete and in order."""

from __future__ import annotations

import json
from fractions import Fraction

from netsim.report.json import trace_document
from netsim.report.traced import Traced
from tests.support.traced_outcomes import SENT, delivered, left, rejected

OUTCOME = ["probability", "verdict", "to", "packet", "masqueraded", "icmp", "decided_by", "rules_evaluated", "hops"]
STEP = {"kind", "text", "table", "chain", "rule", "before", "after", "because", "source"}


def document(*outcomes: object, **more: object) -> dict:  # type: ignore[type-arg]
    traced = Traced("pod/shop/web-0", "svc/shop/cart:http", SENT, outcomes, **more)  # type: ignore[arg-type]
    return json.loads(json.dumps(trace_document(traced)))  # type: ignore[no-any-return]


def test_the_head_says_what_was_asked() -> None:
    found = document(delivered())
    assert list(found) == ["apiVersion", "kind", "request", "outcomes"]
    assert (found["apiVersion"], found["kind"]) == ("netsim/v1alpha1", "Trace")
    packet = {"src": "10.244.1.5", "sport": 40000, "dst": "10.96.3.7", "dport": 80, "proto": "TCP"}
    assert found["request"] == {"from": "pod/shop/web-0", "to": "svc/shop/cart:http", "packet": packet}


def test_an_outcome_has_every_key_in_order() -> None:
    (outcome,) = document(delivered())["outcomes"]
    assert list(outcome) == OUTCOME
    assert outcome["probability"] == 0.3333333333
    assert (outcome["verdict"], outcome["to"]) == ("DELIVERED", "pod/shop/cart-1")
    assert outcome["packet"]["dport"] == 8080
    assert outcome["rules_evaluated"] == 37
    assert outcome["decided_by"] == {
        "node": "n1",
        "namespace": "node/n1",
        "hook": "PREROUTING",
        "table": "nat",
        "chain": "KUBE-SEP-X",
        "rule": 2,
        "text": "-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.2.7:8080",
        "because": "Service shop/cart:http",
        "source": "cart.yaml:12",
    }


def test_hops_and_steps_have_theirs() -> None:
    (outcome,) = document(delivered())["outcomes"]
    assert [hop["namespace"] for hop in outcome["hops"]] == ["pod/shop/web-0", "node/n1", "node/n2", "pod/shop/cart-1"]
    assert all({"node", "namespace", "device", "steps"} <= set(hop) for hop in outcome["hops"])
    steps = [step for hop in outcome["hops"] for step in hop["steps"]]
    assert [step["kind"] for step in steps] == ["rule", "nat", "encap", "deliver"]
    assert all(set(step) >= STEP for step in steps)


def test_nobody_received_what_was_rejected() -> None:
    (outcome,) = document(rejected())["outcomes"]
    assert (outcome["verdict"], outcome["to"]) == ("REJECTED", None)
    assert {key: outcome["icmp"][key] for key in ("type", "code", "name", "from")} == {
        "type": 3,
        "code": 3,
        "name": "icmp-port-unreachable",
        "from": "10.244.1.1",
    }


def test_what_left_is_external() -> None:
    (outcome,) = document(left())["outcomes"]
    assert (outcome["to"], outcome["masqueraded"], outcome["decided_by"]) == ("external", True, None)


def test_a_reply_has_the_shape_of_an_outcome() -> None:
    (outcome,) = document(delivered(share=Fraction(1)), replies={0: (left(),)})["outcomes"]
    assert list(outcome["reply"]) == OUTCOME


def test_receivers_are_named_by_the_cluster() -> None:
    def naming(namespace: str, address: object, port: int | None) -> str:
        return f"{namespace}@{address}:{port}"

    (outcome,) = document(delivered(), naming=naming)["outcomes"]
    assert outcome["to"] == "pod/shop/cart-1@10.244.2.7:8080"
