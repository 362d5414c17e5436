"""``--node-rules``: one node's kernel as its own tools dumped it, without Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netsim.cli import main


def link(name: str, mac: str, kind: str = "", **more: Any) -> dict[str, Any]:
    info = {"linkinfo": {"info_kind": kind}} if kind else {}
    flags = ["BROADCAST", "UP", "LOWER_UP"]
    return {"ifname": name, "flags": flags, "mtu": 1500, "link_type": "ether", "address": mac, **info, **more}


def address(name: str, local: str, length: int) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"local": local, "prefixlen": length, "scope": "global"}]}


@pytest.fixture
def dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Node n1 of the example with its own rules, one pod behind cni0 and a plain route to the others."""
    folder = tmp_path / "n1"
    folder.mkdir()
    links = [
        link("eth0", "02:00:00:00:00:01"),
        link("cni0", "02:00:00:00:00:02", "bridge"),
        link("veth1", "02:00:00:00:00:03", "veth", master="cni0", link_netnsid=0),
    ]
    addresses = [address("eth0", "192.168.10.11", 24), address("cni0", "10.244.1.1", 24)]
    routes = [
        {"dst": "default", "gateway": "192.168.10.1", "dev": "eth0"},
        {"dst": "192.168.10.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": "192.168.10.11"},
        {"dst": "10.244.1.0/24", "dev": "cni0", "protocol": "kernel", "scope": "link", "prefsrc": "10.244.1.1"},
        {"dst": "10.244.2.0/24", "gateway": "192.168.10.12", "dev": "eth0"},
        {"dst": "10.244.3.0/24", "gateway": "192.168.10.1", "dev": "eth0"},
    ]
    neighbours = [
        {"dst": f"192.168.10.{host}", "dev": "eth0", "lladdr": f"02:00:00:00:01:{host:02x}", "state": ["PERMANENT"]}
        for host in (1, 12)
    ]
    neighbours += [
        {"dst": f"10.244.1.{host}", "dev": "cni0", "lladdr": f"02:00:00:00:02:{host:02x}", "state": ["PERMANENT"]}
        for host in range(2, 20)
    ]
    for name, value in (("link", links), ("addr", addresses), ("route", routes), ("neigh", neighbours)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    assert main(["render", "-q", "-f", "@example", "n1", "iptables"]) == 0
    (folder / "iptables-save").write_text(capsys.readouterr().out)
    (folder / "sysctl.txt").write_text("net.ipv4.ip_forward = 1\n")
    return str(folder)


def outcomes(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["trace", "-o", "json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["outcomes"]
    return found


def test_a_client_outside_is_sent_on_by_the_nodes_own_rules(dump: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcomes(capsys, "--node-rules", dump, "external", "192.168.10.11:30081")
    assert {o["verdict"] for o in found} == {"LEFT"}
    assert sum(o["probability"] for o in found) == pytest.approx(1)
    assert {o["packet"]["dport"] for o in found} == {8080}
    assert all(o["masqueraded"] and o["decided_by"]["namespace"] == "node/n1" for o in found)


def test_a_pod_is_an_address_behind_the_bridge(dump: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcomes(capsys, "--node-rules", dump, "10.244.1.3", "10.96.3.7:80")
    assert len(found) == 3
    assert {o["hops"][0]["device"] for o in found} == {"veth1"}
    assert {o["packet"]["dport"] for o in found} == {8080}
    assert not any(o["masqueraded"] for o in found)


def test_everything_that_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--node-rules", str(tmp_path), "external", "10.0.0.1:80"]) == 3
    told = capsys.readouterr().err
    assert "link.json: is missing" in told
    assert len(told.splitlines()) == 3


def test_only_addresses_have_names_without_kubernetes(dump: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--node-rules", dump, "pod/shop/web-0", "10.96.3.7:80"]) == 2
    assert "there are only addresses" in capsys.readouterr().err
