"""What this machine can do for a lab, found out by trying it in a throw-away namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from netsim.lab.holder import own_user

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
TOOLS = {
    "ip": "iproute2", "bridge": "iproute2", "unshare": "util-linux", "nsenter": "util-linux",
    "iptables-restore": "iptables", "ip6tables-restore": "iptables", "ipset": "ipset", "mount": "mount",
}  # fmt: skip
# what is tried → the commands, and for what the lab needs it
_TRIALS = {
    "namespaces": ("ip link set lo up", "everything"),
    "veth": ("ip link add name x0 type veth peer name x1", "everything"),
    "bridge": ("ip link add name x0 type bridge", "everything"),
    "bridge netfilter": ("test -e /proc/sys/net/bridge/bridge-nf-call-iptables", "Services between pods of one node"),
    "vxlan": ("ip link add name x0 type vxlan id 1 dstport 8472", "flannel vxlan"),
    "tun": ("ip tuntap add mode tun name x0", "flannel udp"),
    "ipip": ("ip link add name x0 type ipip local 127.0.0.1", "flannel ipip"),
    "dummy": ("ip link add name x0 type dummy", "kube-proxy ipvs"),
    "iptables": ("iptables -t nat -A POSTROUTING -m comment --comment x -j MASQUERADE --random-fully", "Services"),
    "ip6tables": ("ip6tables -t nat -A POSTROUTING -j MASQUERADE --random-fully", "Services over IPv6"),
    "statistic": ("iptables -A INPUT -m statistic --mode random --probability 0.5 -j ACCEPT", "load balancing"),
    "recent": ("iptables -A INPUT -m recent --name x --rcheck --seconds 9 --reap -j ACCEPT", "session affinity"),
    "ipset": ("ipset create a hash:ip,port", "kube-proxy ipvs"),
}


@dataclass(frozen=True)
class Finding:
    name: str
    good: bool
    text: str
    needed: str  # by what


def unshare_words() -> list[str]:
    return ["unshare", "--mount", "--net", *own_user()]


def examine() -> list[Finding]:
    found = []
    for tool, package in TOOLS.items():
        path = shutil.which(tool, path=_PATH)
        found.append(Finding(tool, path is not None, path or f"missing: apt-get install {package}", "everything"))
    quiet = "mount -t tmpfs tmpfs /run 2>/dev/null;"
    for name, (words, needed) in _TRIALS.items():
        done = subprocess.run(
            [*unshare_words(), "sh", "-c", f"{quiet} {words}"],
            capture_output=True, text=True, timeout=20, check=False, env={**os.environ, "PATH": _PATH},
        )  # fmt: skip
        good, why = not done.returncode, (done.stderr.strip().splitlines() or ["not there"])[-1]
        found.append(Finding(name, good, "works" if good else f"{why} (needed by: {needed})", needed))
    return found
