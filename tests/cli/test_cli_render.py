"""Renderings by place name, with WHAT before or behind the options, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from netsim.cli import main


def render(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["render", "-q", *arguments]) == 0
    return capsys.readouterr().out


def test_arguments_stand_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    orders = (
        ["-f", "@example", "n1", "fdb", "neigh"],
        ["n1", "fdb", "neigh", "-f", "@example"],
        ["node/n1", "-f", "@example", "fdb", "neigh"],
    )
    first, *others = (render(capsys, *order) for order in orders)
    assert "dev flannel.1 dst 192.168.20.13 self permanent" in first
    assert others == [first, first]


def test_a_pod_and_a_workload_show_their_own_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    text = render(capsys, "pod/shop/web-0", "route", "-f", "@example")
    assert "default via 10.244." in text
    assert "flannel" not in text
    assert "default via 10.244." in render(capsys, "deploy/shop/cart", "route", "-f", "@example")


def test_json_holds_each_rendering_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(render(capsys, "n2", "-f", "@example", "-o", "json", "route", "iptables"))
    assert (document["apiVersion"], document["kind"], document["node"]) == ("netsim/v1alpha1", "Render", "n2")
    assert list(document["objects"]) == ["route", "iptables"]
    assert document["objects"]["iptables"] == render(capsys, "n2", "-f", "@example", "iptables")


def test_both_forms_of_the_rules_hold_the_same_service_rules(capsys: pytest.CaptureFixture[str]) -> None:
    save = render(capsys, "n1", "iptables", "-f", "@example").splitlines()
    restore = render(capsys, "n1", "iptables", "--form", "restore", "-f", "@example").splitlines()
    chains = [
        {line.split()[0] for line in lines if line.startswith((":KUBE-SVC", ":KUBE-SEP"))} for lines in (save, restore)
    ]
    assert chains[0] == chains[1] != set()
    assert "" not in save


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["n9"], "did you mean node/n1"),
        (["svc/shop/cart"], "only receives"),
        (["n1", "rules"], "not among iptables"),
        (["pod/shop/web-0", "--form", "restore"], "only a node"),
        (["n1", "--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_what_cannot_be_rendered(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    try:
        code = main(["render", "-q", "-f", "@example", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert told in capsys.readouterr().err
