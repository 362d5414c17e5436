"""A real namespace dumped by its own tools, read back and traced: ``--node-rules``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from netsim.cli import main
from netsim.linux.dump import read_dump

pytestmark = pytest.mark.kernel

NODE = """
ip link set lo up
ip link add cni0 type bridge && ip addr add 10.244.1.1/24 dev cni0 && ip link set cni0 up
ip link add eth0 type veth peer name other && ip addr add 192.168.1.5/24 dev eth0
ip link set eth0 up && ip link set other up
ip route add default via 192.168.1.1
ip route add blackhole 10.244.9.0/24
ip rule add fwmark 0x10 table 100
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -A PREROUTING -p tcp --dport 30080 -j DNAT --to-destination 10.244.1.9:80
iptables -A FORWARD -d 10.244.1.9 -p tcp --dport 81 -j REJECT
ipset create friends hash:ip && ipset add friends 10.0.0.1
cd "$1"
ip -j -d link > link.json; ip -j addr > addr.json; ip -j route show table all > route.json
ip -6 -j route show table all > route6.json; ip -j rule > rule.json; ip -6 -j rule > rule6.json
ip -j neigh > neigh.json; bridge -j fdb > fdb.json; iptables-save > iptables-save; ip6tables-save > ip6tables-save
ipset save > ipset-save
sysctl -a 2>/dev/null | grep -E '^net\\.ipv[46]\\.(ip_forward|conf\\.(all|eth0)\\.(rp_filter|forwarding)) ' > sysctl.txt
"""


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    folder = tmp_path / "worker-1"
    folder.mkdir()
    subprocess.run(["unshare", "-n", "bash", "-ec", NODE, "bash", str(folder)], check=True, timeout=60)
    return folder


def test_a_real_node_is_traced_without_kubernetes(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = read_dump(str(dump))
    assert held.name == "node/worker-1"
    assert {link.name for link in held.links} == {"lo", "cni0", "eth0", "other"}
    assert held.ipsets["friends"].name == "friends"
    assert any(rule.mark == 0x10 and rule.table == 100 for rule in held.rules)
    words = ["trace", "--node-rules", str(dump), "192.168.1.77", "192.168.1.5:30080", "-o", "json"]
    assert main(words) == 0
    (outcome,) = json.loads(capsys.readouterr().out)["outcomes"]
    assert outcome["verdict"] == "LEFT"
    assert (outcome["packet"]["dst"], outcome["packet"]["dport"]) == ("10.244.1.9", 80)
    assert outcome["decided_by"]["text"].endswith("-j DNAT --to-destination 10.244.1.9:80")
    assert main(["trace", "--node-rules", str(dump), "192.168.1.77", "10.244.9.1:80", "-o", "json"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)["outcomes"]
    assert outcome["verdict"] in ("DROPPED", "UNREACHABLE")
    assert "blackhole" in outcome["decided_by"]["text"]


def test_what_is_missing_or_unreadable_is_named(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dump / "link.json").unlink()
    (dump / "iptables-save").write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m nonsense\nCOMMIT\n")
    (dump / "notes.txt").write_text("?")
    assert main(["trace", "--node-rules", str(dump), "192.168.1.77", "192.168.1.5:80"]) == 3
    told = capsys.readouterr().err
    assert "link.json" in told
    assert "iptables-save:3" in told
    assert "notes.txt" in told
