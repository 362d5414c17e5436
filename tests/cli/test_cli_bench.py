"""``netsim bench``: what it compares and how it refuses. The interpreter runs the packets here; the examples of the help
(``test_cli_example``) run the compiled datapath."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsim.bench import plot, side
from netsim.cli import main
from netsim.cli.bench import _cases
from netsim.cli.parser import parse
from netsim.datapath.engine import Datapath

SMALL = ("--flows", "60", "--packets", "128", "--storm", "100", "--sample", "2")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "Datapath", partial(Datapath, compiled=False))


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["bench", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = bench(
        capsys, "-f", "@example", "-q", *SMALL, "--backends", "flannel:vxlan,iptables/flat", "-o", "json"
    )
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert (found["apiVersion"], found["kind"]) == ("netsim/v1alpha1", "Bench")
    assert found["workload"] == {
        "flows": 60, "packets": 128, "newFlows": 100, "zipf": None, "elephants": False, "seed": 0,
    }  # fmt: skip
    assert found["leftOut"] == found["kernel"] == []
    tunnelled, flat = found["backends"]
    assert (tunnelled["name"], flat["name"]) == ("flannel:vxlan", "iptables/flat")
    assert tunnelled["overhead"] == tunnelled["mtu"]["node"] - tunnelled["mtu"]["pod"] == 50
    assert flat["overhead"] == 0
    for one in (tunnelled, flat):
        assert set(one) == {
            "name", "node", "rules", "bytes", "seconds", "memory", "packetsPerSecond", "paths", "delivered",
            "rulesEvaluated", "overhead", "mtu", "balance", "compared",
        }  # fmt: skip
        assert one["rulesEvaluated"]["median"] <= one["rulesEvaluated"]["p99"]
        assert one["delivered"] == 1
        assert all(value > 0 for value in one["packetsPerSecond"].values())
        assert all(value > 0 for value in one["seconds"].values())
        assert one["compared"] >= 2 * 5  # each conversation: SYN, SYN/ACK, ACK, data both ways


def test_rules_and_bytes_are_those_of_render(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "-f", "@example", "-q", *SMALL, "--cni", "flannel:vxlan", "-o", "json")
    assert code == 0
    (one,) = json.loads(out)["backends"]
    texts = []
    for kind in ("iptables", "ip6tables"):
        assert main(["render", "-f", "@example", "-q", "--cni", "flannel:vxlan", one["node"], kind]) == 0
        texts.append(capsys.readouterr().out)
    text = "".join(texts)
    assert one["bytes"] == len(text)
    assert one["rules"] == sum(line.startswith("-A ") for line in text.splitlines())


def test_text_says_what_stands_where(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = bench(capsys, "-f", "@example", *SMALL, "--backends", "flannel:ipip,flat", "--zipf", "1.1")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "60 flows, 128 packets, 100 new flows; Zipf 1.1 over Services; seed 0"
    assert lines[3].split() == ["flannel:ipip", "flat"]
    rows = {line[:29].strip(): line[29:].split() for line in lines[4:]}
    assert rows["tunnel headers"] == ["20", "B", "0", "B"]
    assert rows["MTU of a pod"] == ["1,480", "1,500"]
    notes = err.splitlines()
    assert all(line.startswith("note: ") for line in notes)
    assert len(notes) == len(set(notes)), "each thing assumed is said once"


def test_what_this_cluster_cannot_run_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from netsim.cli import bench as command

    cases = [("flat", "iptables", "flat"), ("flannel:wireguard", "iptables", "flannel:wireguard")]
    monkeypatch.setattr(command, "_cases", lambda options: cases)
    code, out, _ = bench(capsys, "-f", "@example", "-q", *SMALL)
    assert code == 0
    assert "left out  flannel:wireguard: " in out


def test_every_backend_is_a_case() -> None:
    names = [name for name, *_ in _cases(parse("netsim", ["bench", "-f", "@example"]))]
    assert {"flannel:vxlan", "flannel:host-gw", "flannel:udp", "flannel:ipip", "flat"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--backends", "flannel:teleport"), 3, "unknown backend type: teleport"),
        (("--backends", "nosuch"), 2, "no such network here"),
        (("--backends", "flat,,flat"), 2, "'' is not [PROXY/]CNI[:MODE]"),
        (("--backends", "flat,flat"), 2, "one is named twice"),
        (("--backends", "flat", "--cni", "flat"), 2, "give one of them"),
        (("--storm", "5"), 2, "fewer than 100 new flows"),
        (("--plot", "here.pdf"), 2, ".png or .svg"),
        (("--plot", "/no/such/place.png"), 2, "no such directory"),
        (("-f", "-"), 2, "name a file"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = bench(capsys, "-f", "@example", "-q", *arguments)
    assert (found, out) == (code, "")
    assert said in err


@pytest.mark.parametrize("words", [("--flows", "0"), ("--packets", "many"), ("--zipf", "-1"), ("--zipf", "nan")])
def test_numbers_that_are_none(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "-f", "@example", *words])
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_cluster_without_services(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n")
    code, _, err = bench(capsys, "-f", str(path), "-q", *SMALL, "--cni", "flat")
    assert code == 2
    assert "there is nowhere to send to" in err


def test_a_datapath_that_errs_is_found_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is off by one, and a disagreement: exit 5."""
    right = Datapath.process

    def wrong(self: Datapath, batch: Any) -> Any:
        result = right(self, batch)
        result.dport[:] += np.uint16(1)
        return result

    monkeypatch.setattr(Datapath, "process", wrong)
    code, _, err = bench(capsys, "-f", "@example", "-q", *SMALL, "--cni", "flat")
    assert code == 5
    assert "datapath and interpreter disagree" in err


def test_plot_without_matplotlib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    code, out, err = bench(capsys, "-f", "@example", "-q", *SMALL, "--plot", "here.png")
    assert (code, out) == (2, "")
    assert "pip install 'kube-netsim[plot]'" in err


def test_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        code, _, err = bench(capsys, "-f", "@example", "-q", *SMALL, "--cni", "flat", "--plot", str(tmp_path / name))
        assert code == 0, err
        assert (tmp_path / name).read_bytes().startswith(begins)
