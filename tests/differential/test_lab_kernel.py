"""The lab in the real kernel: it agrees with the interpreter, and goes away without a trace, whenever it is killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.lab import build, holder, recording, state
from netsim.lab.probe_list import probes
from netsim.lab.probes import Manner
from netsim.lab.result import show
from netsim.lab.state import STOP_AT
from netsim.lab.verify import Asked, verify
from netsim.packet.address import Family
from netsim.topology.assemble import assemble
from tests.support.lab import AGREED
from tests.support.lab_clusters import assembled, every_class

pytestmark = pytest.mark.kernel
PLAIN = (Manner.ONE, Manner.ANSWERED)


def _lab(home: Path, *words: str, stop: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(home), **({STOP_AT: stop} if stop else {})}
    command = [sys.executable, "-c", "import sys, netsim.cli; sys.exit(netsim.cli.main())", "lab", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def _direct_routing(folder: Path) -> str:
    for file in files("netsim.data.example").iterdir():
        if file.name.endswith(".yaml"):
            text = file.read_text().replace('{"Type": "vxlan"}', '{"Type": "vxlan", "DirectRouting": true}')
            (folder / file.name).write_text(text)
    return str(folder)


@pytest.mark.parametrize("network", ["vxlan", "host-gw", "udp", "DirectRouting"])
def test_kernel_and_interpreter_agree(tmp_path: Path, network: str) -> None:
    direct = network == "DirectRouting"
    words = ["-f", _direct_routing(tmp_path)] if direct else ["-f", "@example", "--cni", f"flannel:{network}"]
    done = _lab(tmp_path, "verify", *words)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    counted = AGREED.search(done.stdout)
    assert counted is not None
    assert int(counted[1]) > 3000
    others = {what: int(number) for number, what in re.findall(r"(\d+) ([a-z ]+)", counted[2])}
    assert others["conntrack entries"] > 4000
    assert others["rule counters"] > 5000
    assert others["rules traced"] > 2000 or "skipped: rule paths" in done.stdout


@pytest.mark.parametrize("half", range(2))
@pytest.mark.parametrize("family", Family)
def test_every_path_class_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], family: Family, half: int
) -> None:
    """The cluster that has them all, a quarter of its probes at a time (all would take minutes); its list of probes is held
    against the list of classes in the unit tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = every_class()
    network, _ = build.for_lab(made)
    paths = sorted({one.path for one in probes(made)})[half::2]
    wanted = [one for one in probes(made) if one.family == family and one.path in paths]

    def compared() -> int:
        result, _ = verify(made, network, Asked(wanted, rule_trace=False))
        return show(result, as_json=True, verbose=False)

    lab = build.up(made, network, "classes", listening=False)
    try:
        held = lab.holder()
        assert held is not None
        code = holder.in_lab(held, compared)
    finally:
        state.down(lab)
    said = capfd.readouterr()
    assert code == 0, said.out[-6000:] + said.err[-2000:]
    result = json.loads(said.out)
    packets = {(one["path"], one["aspect"], one["family"]): one["packets"] for one in result["classes"]}
    assert set(packets) == {(one.path, one.aspect, int(one.family)) for one in wanted}
    assert all(packets.values())


def test_another_network_than_the_one_built_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The comparison can fail: a lab with vxlan, next to the story of one with host-gw."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    objects = load(["@example"], recursive=False, lenient=False, namespace=None, stdin=None)
    built, told = (assemble(store(objects), Settings(cni=f"flannel:{mode}")) for mode in ("vxlan", "host-gw"))
    lab = build.up(built, build.for_lab(built)[0], "wrong")
    try:
        held = lab.holder()
        assert held is not None
        wanted = Asked([probe for probe in probes(told) if "pod to" in probe.path and probe.manner in PLAIN])

        def compared() -> int:
            result, _ = verify(told, build.for_lab(told)[0], wanted)
            return show(result, as_json=False, verbose=False)

        assert holder.in_lab(held, compared) == 5
    finally:
        state.down(lab)
    said = capfd.readouterr().out
    assert "    netsim  " in said
    assert "    kernel  " in said
    assert re.search(r"^pod to pod of another node +\d+ +\d+ +\d+ disagree$", said, re.MULTILINE)
    assert re.search(r"^pod to itself +\d+ +\d+$", said, re.MULTILINE)


def test_the_doctor_finds_what_the_lab_was_seen_to_need(tmp_path: Path) -> None:
    done = _lab(tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    good = {line[4:25].strip() for line in done.stdout.splitlines() if line.startswith("ok ")}
    assert {"veth", "bridge", "vxlan", "tun", "iptables", "statistic"} <= good


def test_pods_answer_with_the_peer_they_saw(tmp_path: Path) -> None:
    try:
        assert _lab(tmp_path, "up", "-f", "@example", "--id", "talk").returncode == 0
        said = _lab(tmp_path, "exec", "pod/shop/web-0", "--", "bash", "-c", "cat < /dev/tcp/10.96.3.7/80")
        assert '"peer": ["10.244.2.7", ' in said.stdout, said.stderr
        assert "pod/shop/cart-" in said.stdout
        (listed,) = json.loads(_lab(tmp_path, "list", "-o", "json").stdout)["labs"]
        assert listed == {"id": "talk", "state": "up", "kernel": "host"}
        nobody = _lab(tmp_path, "exec", "pod/shop/wev-0", "--", "true")
        assert nobody.returncode == 2
        assert "pod/shop/wev-0: is not in lab talk; did you mean pod/shop/web-0" in nobody.stderr
    finally:
        assert _lab(tmp_path, "down", "--all").returncode == 0


def test_what_cannot_be_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    for words, said in ((["--kernel", "kvm"], "invalid choice: 'kvm'"), (["--id", "../x"], "an id is")):
        refused = _lab(tmp_path, "up", "-q", "-f", "@example", *words)
        assert refused.returncode == 2
        assert said in refused.stderr
    many = _lab(
        tmp_path, "up", "-q", "-f", str(Path(__file__).parents[1] / "data" / "online-boutique"), "--nodes", "60"
    )
    assert many.returncode == 2
    assert "--force" in many.stderr
    assert _lab(tmp_path, "list").stdout == ""


PROBES = """
probes:
  - {from: pod/shop/web-0, to: "svc/shop/cart:http", manner: connection, count: 3, name: shopping}
  - {from: external, to: "192.168.10.11:30081", size: 1500, df: true, manner: one}
  - {from: node/n1, to: pod/data/postgres-0, protocol: icmp, ttl: 1, name: a ping}
"""


def test_a_probe_list_of_ones_own_and_its_recording(tmp_path: Path) -> None:
    (tmp_path / "probes.yaml").write_text(PROBES)
    recorded = tmp_path / "recorded.json.gz"
    done = _lab(
        tmp_path, "verify", "-f", "@example", "--probes", str(tmp_path / "probes.yaml"), "--record", str(recorded),
        "--no-rule-trace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"^shopping +1 +27$", done.stdout, re.MULTILINE)
    held = recording.read(recorded)
    assert held["cluster"] == {"files": ["@example"]}
    assert {flight["probe"]["path"] for flight in held["flights"]} >= {"shopping", "a ping"}
    made = assembled("@example")
    assert not list(recording.replay(held, build.for_lab(made)[0], build.names_of(made)))
