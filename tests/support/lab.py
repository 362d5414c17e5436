"""Running ``netsim lab`` as a user does, and looking at what it leaves on the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from netsim.lab.state import STOP_AT

# Everything under either kernel, instead of what is different enough for every day.
FULL_MATRIX = bool(os.environ.get("NETSIM_FULL_MATRIX"))
# How ``lab verify`` ends when all is well.
AGREED = re.compile(
    r"^(\d+) packets of \d+ probes compared \((.*)\): all agree(?:, \d+ of them only when sent anew)?$", re.MULTILINE
)

# Two dual-stack nodes on one wire, a server on the first, a client on the second.
SMALL = """
apiVersion: v1
kind: Node
metadata: {name: a}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:244:0:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.168.7.1}, {type: InternalIP, address: "fd00:7::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
spec: {podCIDR: 10.244.2.0/24, podCIDRs: [10.244.2.0/24, "fd00:244:0:2::/64"]}
status: {addresses: [{type: InternalIP, address: 192.168.7.2}, {type: InternalIP, address: "fd00:7::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: a
  containers:
  - name: c
    image: x
    ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}, {containerPort: 99, protocol: SCTP}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: b, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  clusterIP: 10.96.0.9
  clusterIPs: [10.96.0.9, "fd00:96::9"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  selector: {app: server}
  ports: [{name: web, port: 8080, targetPort: 80}, {name: dns, port: 53, protocol: UDP},
          {name: sig, port: 99, protocol: SCTP}]
"""
_CIDRS = ("--pod-cidr", "10.244.0.0/16,fd00:244::/48", "--service-cidr", "10.96.0.0/16,fd00:96::/112")
_PROGRAM = (sys.executable, "-c", "import sys, netsim.cli; sys.exit(netsim.cli.main())", "lab")


def small(folder: Path, cni: str = "bridge") -> list[str]:
    """The options that give ``SMALL``."""
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return ["-q", "-f", str(path), *_CIDRS, "--cni", cni]


def lab(home: Path, *words: str, stop: str | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
    """``netsim lab WORDS`` with its state in ``home``; ``stop``: it kills itself at that step."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home), **({STOP_AT: stop} if stop else {})}
    command = [*_PROGRAM, *words]
    return subprocess.run(
        command, env=environment, input=given, capture_output=True, text=True, timeout=280, check=False
    )


def world(home: Path) -> dict[str, list[str]]:
    """What a lab would leave behind: its devices, namespaces and rules by their names, mounts, and who runs for a lab in
    ``home``. Others may use the machine meanwhile: what has no name of a lab's is theirs."""
    devices = re.compile(r"\d+: (eth|lan|wan|cni|flannel|seg|plug|veth[0-9a-f]{8})\S*:?")
    return {
        "links": sorted(found[0] for line in _said("ip", "-o", "link") if (found := devices.match(line))),
        "namespaces": [one for one in _said("ip", "netns") if re.match(r"(node|pod|router)\.|external|underlay", one)],
        "rules": [line for line in _said("nft", "list", "ruleset") if "KUBE-" in line or "FLANNEL-" in line],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if "netsim" in line or "uml" in line],
        "processes": list(_processes(home)),
        "instances": sorted(entry.name for entry in (Path.home() / ".uml").glob("*") if "lab" in entry.name),
        "files": sorted(str(path) for path in home.rglob("*") if path.is_file()),
    }


def _said(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()


def _processes(home: Path) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                held = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"XDG_STATE_HOME={home}".encode() in held.split(b"\0"):
                yield folder.name
