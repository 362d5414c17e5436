"""A lab under either kernel: which one is taken, that pods answer there, and that netsim agrees with Linux 6.1 too."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from netsim.lab import doctor, kernels, state
from netsim.lab.kernels import FEATURES, try_out
from netsim.lab.listeners import has_sctp
from tests.support.lab import AGREED, FULL_MATRIX, lab, small

pytestmark = pytest.mark.kernel
# A minute each: for every day the one that the host's kernel often cannot do, and the one that both can.
CNIS = ["flannel:ipip", "flannel:vxlan", *(["flannel:host-gw", "flannel:udp", "DirectRouting"] if FULL_MATRIX else [])]


def _example(folder: Path, cni: str) -> list[str]:
    if cni != "DirectRouting":
        return ["-f", "@example", "--cni", cni]
    for file in files("netsim.data.example").iterdir():
        if file.name.endswith(".yaml"):
            text = file.read_text().replace('{"Type": "vxlan"}', '{"Type": "vxlan", "DirectRouting": true}')
            (folder / file.name).write_text(text)
    return ["-f", str(folder)]


@pytest.mark.uml
@pytest.mark.parametrize("cni", CNIS)
def test_kernel_and_interpreter_agree_under_user_mode_linux(tmp_path: Path, cni: str) -> None:
    (tmp_path / "cluster").mkdir()
    done = lab(tmp_path, "verify", *_example(tmp_path / "cluster", cni), "--kernel", "uml")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    counted = AGREED.search(done.stdout)
    assert counted is not None
    assert int(counted[1]) > 3000


@pytest.mark.uml
def test_the_kernel_is_chosen_by_what_the_network_needs(tmp_path: Path) -> None:
    """flannel's ipip needs ipip devices: where this kernel has none it is user-mode Linux, and that is said."""
    lost = try_out(next(one for one in FEATURES if one.name == "ipip")) is not None
    words = [word for word in small(tmp_path, "flannel:ipip") if word != "-q"]
    try:
        done = lab(tmp_path, "up", *words, "--id", "chosen")
        assert done.returncode == 0, done.stderr
        said = "this machine's kernel lacks ipip (flannel ipip): the lab runs under user-mode Linux 6." in done.stderr
        held = state.Lab("chosen", tmp_path / "netsim" / "labs" / "chosen").holder()
        assert held is not None
        assert (held.kernel == state.UML, said) == (lost, lost)
        shown = lab(tmp_path, "exec", "node/a", "--", "ip", "-d", "link", "show", "flannel.ipip").stdout
        assert "ipip remote any local 192.168.7.1" in shown
    finally:
        lab(tmp_path, "down", "--all")


ASK = """
import json, socket, sys
for address in ("10.244.1.2", "10.96.0.9", "fd00:244:0:1::2", "fd00:96::9"):
    for kind, name, port in ((1, "TCP", 80 if "244" in address else 8080), (2, "UDP", 53), (132, "SCTP", 99)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if kind == 132 and sys.argv[1] == "raw":
            asked = socket.socket(family, socket.SOCK_RAW, 132)
            init = bytes.fromhex(sys.argv[2])
            asked.connect((address, 0))
        else:
            asked = socket.socket(family, socket.SOCK_DGRAM if kind == 2 else socket.SOCK_STREAM, 132 if kind == 132 else 0)
            asked.connect((address, port))
        asked.settimeout(5)
        if kind == 2:
            asked.send(b"?")
        if kind == 132 and sys.argv[1] == "raw":
            asked.send(init)
            said = asked.recv(9999)
            said = said[said.index(b'{"'):].rstrip(b"\\0")  # a checksum may hold a brace, too
        else:
            said = asked.recv(9999)
        print(address, name, said.decode().strip(), asked.getsockname()[0])
"""


@pytest.mark.parametrize("kernel", ["host", pytest.param("uml", marks=pytest.mark.uml)])
def test_pods_answer_on_both_families_with_the_peer_they_saw(tmp_path: Path, kernel: str) -> None:
    from netsim.packet.address import ip
    from netsim.packet.codec import packet_bytes
    from netsim.packet.model import Packet, Proto, Sctp

    chunk = bytes.fromhex("01000014 0000002a 00010000 00010001 0000002a")
    init = packet_bytes(Packet(ip("10.0.0.1"), ip("10.0.0.2"), Proto.SCTP, Sctp(4000, 99, chunks=chunk)))[20:]
    raw = "raw" if kernel == "host" and not has_sctp() else "kernel"
    words = [word for word in small(tmp_path, "bridge") if word != "-q"]
    try:
        done = lab(tmp_path, "up", *words, "--kernel", kernel)
        assert done.returncode == 0, done.stderr
        assert ("a raw socket answers for SCTP listeners" in done.stderr) == (raw == "raw")
        said = lab(tmp_path, "exec", "pod/default/client", "--", sys.executable, "-c", ASK, raw, init.hex())
        assert said.returncode == 0, said.stderr
    finally:
        lab(tmp_path, "down", "--all")
    lines = [line.split(" ", 2) for line in said.stdout.splitlines()]
    assert [(address, name) for address, name, _ in lines] == [
        (address, name)
        for address in ("10.244.1.2", "10.96.0.9", "fd00:244:0:1::2", "fd00:96::9")
        for name in ("TCP", "UDP", "SCTP")
    ]
    for address, name, rest in lines:
        told, own = json.loads(rest.rpartition(" ")[0]), rest.rpartition(" ")[2]
        here = "fd00:244:0:1::2" if ":" in address else "10.244.1.2"
        assert (told["listener"], told["protocol"]) == ("pod/default/server", name)
        assert (told["peer"][0], told["local"][0]) == (own, here)


@pytest.mark.uml
def test_the_doctor_tries_both_kernels(tmp_path: Path) -> None:
    done = lab(tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    sections = re.split(r"^(tools|Linux .*|user-mode Linux .*)\n", done.stdout, flags=re.MULTILINE)
    assert sections[1] == "tools"
    assert sections[3] == f"Linux {os.uname().release}"
    assert sections[5].startswith("user-mode Linux 6.")
    good = [{line[4:25].strip() for line in part.splitlines() if line.startswith("ok ")} for part in sections[2::2]]
    assert {"ip", "iptables-restore", "linux.uml", "modprobe"} <= good[0]
    assert {"veth", "bridge", "vxlan", "tun", "iptables", "statistic", "nftables"} <= good[1]
    assert {"veth", "bridge", "vxlan", "tun", "iptables", "statistic", "ipip", "dummy", "netem", "sctp"} <= good[2]
    listed = {line[4:25].strip() for line in sections[2].splitlines()}
    assert listed == set(doctor.TOOLS)
    assert not list((tmp_path / "netsim" / "labs").iterdir())


def test_what_no_kernel_here_has_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from netsim.errors import PrivilegeError
    from netsim.lab.plan import Plan
    from netsim.linux.link import Link, LinkKind, TunnelOptions
    from netsim.linux.network import Namespace

    held = Namespace("node/a", (Link("ipip0", LinkKind.IPIP, tunnel=TunnelOptions()),))
    monkeypatch.setattr(kernels, "try_out", lambda feature: "Unknown device type." if feature.name == "ipip" else None)
    monkeypatch.setattr(kernels.uml, "missing", lambda: ["user-mode-linux", "kmod"])
    with pytest.raises(PrivilegeError, match=r"ipip \(flannel ipip\).*apt-get install user-mode-linux kmod"):
        kernels.choose(Plan({"node/a": held}, {}))
    monkeypatch.setattr(kernels.uml, "missing", list)
    assert kernels.choose(Plan({"node/a": held}, {}))[0] == state.UML
    assert kernels.choose(Plan({"node/a": Namespace("node/a")}, {})) == (state.HOST, "")
