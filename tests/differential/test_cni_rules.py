"""Real iptables takes what flannel, portmap, ipMasq and the flat network write, and prints it back unchanged."""

from __future__ import annotations

import re
import subprocess

import pytest

from netsim.backends import Backend
from netsim.linux.netfilter.text import print_save
from netsim.packet.address import Family
from netsim_backends.cni import BRIDGE, PTP
from netsim_backends.flannel import BACKEND as FLANNEL
from netsim_backends.flat import BACKEND as FLAT
from tests.support.cni_clusters import cluster, configured, net_conf, node, node_state, pod

pytestmark = pytest.mark.kernel

CONF = {
    "Network": "10.244.0.0/16",
    "EnableIPv6": True,
    "IPv6Network": "fd00:244::/48",
    "Backend": {"Type": "vxlan"},
}
PORTS = [
    {"containerPort": 80, "hostPort": 8080},
    {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.168.56.11"},
    {"containerPort": 99, "hostPort": 99, "protocol": "SCTP"},
    *({"containerPort": n, "hostPort": 9000 + n} for n in range(1, 17)),
]


def by_table(saved: str) -> dict[str, str]:
    """Table → its text; comments and packet counters left out, the order of tables with them."""
    text = re.sub(r"\[\d+:\d+\]", "[0:0]", "\n".join(line for line in saved.splitlines() if not line.startswith("#")))
    return {block.split("\n", 1)[0]: block for block in re.findall(r"^\*.*?^COMMIT", text, re.M | re.S)}


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("family", list(Family), ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("backend", "mode"),
    [(FLANNEL, None), (BRIDGE, "masq"), (PTP, "masq"), (FLAT, None)],
    ids=lambda b: getattr(b, "name", b),
)
def test_the_kernel_prints_what_the_model_prints(
    backend: Backend, mode: str | None, family: Family, variant: str
) -> None:
    nodes = [node(n, f"10.244.{n}.0/24", f"fd00:244:0:{n}::/64", more=[f"fd00:56::{n}"]) for n in (1, 2)]
    pods = [pod(f"p{n}", "n1", f"10.244.1.{n}", f"fd00:244:0:1::{n}", ports=PORTS) for n in (2, 3)]
    state = node_state(configured(backend, cluster(*nodes, *pods, net_conf(CONF)), mode), "n1")
    model = "".join(print_save(state.rulesets[family]))
    assert "CNI-HOSTPORT-DNAT" in model
    tool = f"ip{'6' if family is Family.IPV6 else ''}tables-{variant}"
    command = ["unshare", "-n", "sh", "-c", f'printf %s "$1" | {tool}-restore && {tool}-save', "sh", model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert by_table(done.stdout) == by_table(model)
