"""What a lab needs of a kernel, and which kernel has it: found out by trying, in a throw-away namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from netsim.errors import PrivilegeError
from netsim.lab import uml
from netsim.lab.holder import own_user
from netsim.lab.plan import Plan
from netsim.lab.state import HOST, UML
from netsim.linux.link import LinkKind
from netsim.linux.network import Namespace

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
EVERYTHING = "everything"


@dataclass(frozen=True)
class Feature:
    """``trial`` is a shell command that succeeds, in a network namespace of its own, where the kernel has it.

    ``wanted`` tells whether a namespace needs it; None: every lab does, or none, so that no choice hangs on it."""

    name: str
    trial: str
    needed_by: str
    wanted: Callable[[Namespace], bool] | None = None


def _kind(kind: LinkKind) -> Callable[[Namespace], bool]:
    return lambda held: any(link.kind is kind for link in held.links)


_SCTP = f"{sys.executable} -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)'"
FEATURES = (
    Feature("namespaces", "ip link set lo up", EVERYTHING),
    Feature("veth", "ip link add name x0 type veth peer name x1", EVERYTHING),
    Feature("bridge", "ip link add name x0 type bridge", EVERYTHING),
    Feature("bridge netfilter", "test -e /proc/sys/net/bridge/bridge-nf-call-iptables", "Services on one node"),
    Feature("vxlan", "ip link add name x0 type vxlan id 1 dstport 8472", "flannel vxlan", _kind(LinkKind.VXLAN)),
    Feature("tun", "ip tuntap add mode tun name x0", "flannel udp", _kind(LinkKind.TUN)),
    Feature("ipip", "ip link add name x0 type ipip local 127.0.0.1", "flannel ipip", _kind(LinkKind.IPIP)),
    Feature("dummy", "ip link add name x0 type dummy", "kube-proxy ipvs", _kind(LinkKind.DUMMY)),
    Feature("netem", "tc qdisc add dev lo root netem delay 1ms", "delay and loss"),
    Feature(
        "iptables", "iptables -t nat -A POSTROUTING -m comment --comment x -j MASQUERADE --random-fully", "Services"
    ),
    Feature("ip6tables", "ip6tables -t nat -A POSTROUTING -j MASQUERADE --random-fully", "Services over IPv6"),
    Feature("statistic", "iptables -A INPUT -m statistic --mode random --probability 0.5 -j ACCEPT", "load balancing"),
    Feature("recent", "iptables -A INPUT -m recent --name x --rcheck --seconds 9 --reap -j ACCEPT", "session affinity"),
    Feature("ipset", "ipset create a hash:ip,port", "kube-proxy ipvs", lambda held: bool(held.ipsets)),
    Feature("ipvs", "ipvsadm -A -t 10.0.0.1:80", "kube-proxy ipvs"),
    Feature("nftables", "nft add table ip x", "kube-proxy nftables"),
    Feature("sctp", _SCTP, "SCTP listeners; a raw socket answers for them otherwise"),
)


def try_out(feature: Feature) -> str | None:
    """None if this process's kernel has it, else the last words of the tool that tried."""
    own_run = "[ -d /run/uml ] || mount -t tmpfs tmpfs /run 2>/dev/null"  # where iptables has its lock
    done = subprocess.run(
        ["unshare", "--mount", "--net", *own_user(), "sh", "-c", f"{own_run}; {feature.trial}"],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "PATH": PATH},
    )  # fmt: skip
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return next((line for line in reversed(said) if ": " in line), said[-1] if said else "not there")


def lacking(blueprint: Plan) -> list[Feature]:
    """What a network needs and this machine's kernel does not have."""
    held = blueprint.namespaces.values()
    needed = [one for one in FEATURES if one.wanted is not None and any(map(one.wanted, held))]
    return [one for one in needed if try_out(one) is not None]


def choose(blueprint: Plan) -> tuple[str, str]:
    """The kernel for a network, and why if it is not the host's. PrivilegeError if no kernel here has what it needs."""
    lost = lacking(blueprint)
    if not lost:
        return HOST, ""
    what = ", ".join(f"{one.name} ({one.needed_by})" for one in lost)
    packages = uml.missing()
    if packages:
        text = f"this machine's kernel lacks what the network needs: {what}; user-mode Linux has it: apt-get install "
        raise PrivilegeError(text + " ".join(packages))
    return UML, f"this machine's kernel lacks {what}: the lab runs under user-mode Linux {uml.version()}"
