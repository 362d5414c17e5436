"""The page of what was checked, made from the results of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from netsim.lab.probes import Manner, Probe
from netsim.lab.result import Result
from netsim.packet.address import ip
from netsim.packet.model import Proto

SCRIPT = Path(__file__).parents[2] / "scripts" / "checked_page.py"


def result(packets: int, disagreement: str = "") -> dict[str, Any]:
    found = Result(kernel="Linux 6.1.0", tools={"iptables": "iptables v1.8.9"})
    tally = found.tally(Probe("pod to itself", "pod/a/b", ip("10.0.0.1"), Proto.TCP, 80, Manner.CONNECTION))
    tally.probes, tally.packets = 2, packets
    found.count("conntrack entries", 1234)
    found.skipped.append("rule paths: none here")
    if disagreement:
        found.disagreements.append(disagreement)
    return found.to_json()


def page(folder: Path, known: str = "") -> str:
    cases = folder / "cases"
    cases.mkdir()
    (cases / "agrees.json").write_text(json.dumps({"about": "it did not once"}))
    if known:
        (cases / "found-27.json").write_text(json.dumps({"known": known}))
    words = [sys.executable, str(SCRIPT), str(folder), str(cases)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_runs_become_rows_and_sums(tmp_path: Path) -> None:
    (tmp_path / "example, flannel vxlan.host.json").write_text(json.dumps(result(1000)))
    (tmp_path / "example, flannel vxlan.uml.json").write_text(json.dumps(result(500)))
    (tmp_path / "example, flannel udp.uml.failed").write_text("note: x\nerror: no such kernel")
    versions = {"kernel": "Linux 6.18.0", "iptables": "iptables v1.8.9", "ipset": "ipset v7.17"}
    told = {"packets": 51000, "rulesets": 2001, "seconds": 600, "disagreements": [], "once": ["x"], "failed": []}
    (tmp_path / "random-cases.json").write_text(json.dumps({**told, "versions": versions}))
    text = page(tmp_path)
    assert "| example, flannel vxlan | Linux 6.1.0 (host) | 2 | 1,000 | 1,234 | 0 | 0 | all agree |" in text
    assert "| example, flannel udp | uml | | | | | | not made: no such kernel |" in text
    assert "1,500 packets in 2 runs, 0 disagreements." in text
    assert "51,000 random packets over 2,001 random rulesets" in text
    assert "Linux 6.18.0 (iptables v1.8.9; ipset v7.17), in 600 s: 0 disagreements, 1 that did not come again" in text
    assert "| pod to itself | 1,500 |" in text
    assert "| whole connections | 1,500 |" in text
    assert "Nothing: every run agreed" in text
    assert "- not compared: rule paths: none here (Linux 6.1.0)" in text


def test_what_differs_is_told(tmp_path: Path) -> None:
    (tmp_path / "example, flannel vxlan.host.json").write_text(json.dumps(result(10, "a packet\n    kernel  more")))
    text = page(tmp_path, "Because.")
    assert "1 disagreements" in text
    assert "- random case found-27: Because." in text
    assert "- example, flannel vxlan, Linux 6.1.0: a packet" in text
    assert "Nothing:" not in text


def test_what_did_not_come_again_is_told_and_counts_as_agreed(tmp_path: Path) -> None:
    once = result(10) | {"once": ["a late packet\n    kernel  less"]}
    (tmp_path / "example, flannel udp.uml.json").write_text(json.dumps(once))
    text = page(tmp_path)
    assert "| all agree; 1 that did not come again |" in text
    assert "- example, flannel udp, Linux 6.1.0, not again when sent anew: a late packet" in text
