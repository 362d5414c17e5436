"""What this machine can do for a lab, under either kernel: tools by looking for them, features by trying them."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from netsim.lab import holder, state, uml
from netsim.lab.kernels import EVERYTHING, FEATURES, PATH, try_out

# command → Debian's package, and for what the lab needs it
TOOLS = {
    "ip": ("iproute2", EVERYTHING),
    "bridge": ("iproute2", EVERYTHING),
    "unshare": ("util-linux", EVERYTHING),
    "nsenter": ("util-linux", EVERYTHING),
    "mount": ("mount", EVERYTHING),
    "iptables-restore": ("iptables", EVERYTHING),
    "ip6tables-restore": ("iptables", EVERYTHING),
    "ipset": ("ipset", "kube-proxy ipvs"),
    "ipvsadm": ("ipvsadm", "kube-proxy ipvs"),
    "nft": ("nftables", "kube-proxy nftables, rule traces"),
    "conntrack": ("conntrack", "looking at connections"),
    "tcpdump": ("tcpdump", "looking at packets"),
    "bird": ("bird2", "checking rendered BGP configuration"),
    "linux.uml": ("user-mode-linux", "what this machine's kernel lacks"),
    "modprobe": ("kmod", "user-mode Linux"),
}


@dataclass(frozen=True)
class Finding:
    name: str
    good: bool
    text: str
    needed: str  # by what


def tools() -> Iterator[Finding]:
    for tool, (package, needed) in TOOLS.items():
        path = shutil.which(tool, path=PATH)
        text = path or f"missing: apt-get install {package} (needed by: {needed})"
        yield Finding(tool, path is not None, text, needed)


def features() -> list[Finding]:
    """Of the kernel that this process runs under."""
    found = []
    for feature in FEATURES:
        why = try_out(feature)
        text = "works" if why is None else f"{why} (needed by: {feature.needed_by})"
        found.append(Finding(feature.name, why is None, text, feature.needed_by))
    return found


def host() -> tuple[str, list[Finding]]:
    """This machine's kernel: its name, and what it can do."""
    return f"{platform.system()} {platform.release()}", features()


def user_mode() -> tuple[str, list[Finding]]:
    """User-mode Linux, started for the purpose. NetsimError if it does not start."""
    lab = state.create(f"doctor-{os.getpid()}")
    try:
        found = holder.ask(holder.start(lab, state.UML), features)
    finally:
        state.down(lab)
    return f"user-mode Linux {uml.version()}", found
