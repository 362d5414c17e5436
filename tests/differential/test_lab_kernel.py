"""The lab in the real kernel: it agrees with the interpreter, and goes away without a trace, whenever it is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.lab import build, holder, state
from netsim.lab.state import STOP_AT
from netsim.lab.verify import verify
from netsim.topology.assemble import assemble

pytestmark = pytest.mark.kernel


def _lab(home: Path, *words: str, stop: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(home), **({STOP_AT: stop} if stop else {})}
    command = [sys.executable, "-c", "import sys, netsim.cli; sys.exit(netsim.cli.main())", "lab", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)


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
    counted = re.search(r"^(\d+) packets of \d+ probes compared.*: all agree$", done.stdout, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) > 3000


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
        assert holder.in_lab(held, lambda: verify(told, build.for_lab(told)[0])) == 5
    finally:
        state.down(lab)
    said = capfd.readouterr().out
    assert "    netsim  " in said
    assert "    kernel  " in said
    assert re.search(r"^pod to pod of another node +\d+ probes, \d+ disagree$", said, re.MULTILINE)
    assert re.search(r"^pod to itself +\d+ probes$", said, re.MULTILINE)


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
