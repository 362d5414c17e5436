"""Real iptables takes kube-proxy's documents, and then prints what the model prints."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsim.kube.cluster import Cluster
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import print_save
from netsim.packet.address import Family
from netsim_backends.kube_proxy import IptablesBackend, restore_document
from netsim_backends.kube_proxy.iptables_fixed import DOCUMENT_CHAINS, write_hooks
from netsim_backends.kube_proxy.kubelet import kubelet_chains
from tests.support.kube_proxy_clusters import NODES, UNDERLAY, clusters, demo

pytestmark = pytest.mark.kernel

# nfacct objects are made through netlink before rules may name them; they change nothing about the other rules.
BACKEND = IptablesBackend(nfacct=False)
variants = pytest.mark.parametrize("variant", ["nft", "legacy"])
families = pytest.mark.parametrize("family", list(Family), ids=["ipv4", "ipv6"])


def by_table(saved: str) -> dict[str, str]:
    """Table → its text; iptables variants list the tables in different orders. Counters of packets do not matter."""
    text = re.sub(r"\[\d+:\d+\]", "[0:0]", "\n".join(line for line in saved.splitlines() if not line.startswith("#")))
    return {block.split("\n", 1)[0]: block for block in re.findall(r"^\*.*?^COMMIT", text, re.M | re.S)}


def in_kernel(variant: str, family: Family, *documents: str) -> str:
    """Restore the documents one after the other in a network namespace of our own; what ``-save`` prints at the end."""
    tool = f"ip{'6' if family is Family.IPV6 else ''}tables-{variant}"
    steps = " && ".join(f'printf %s "${i}" | {tool}-restore --noflush --counters' for i in range(1, len(documents) + 1))
    command = ["unshare", "-n", "sh", "-c", f"{steps} && {tool}-save", "sh", *documents]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(held: Cluster, node: str, family: Family, variant: str) -> None:
    plugin = BACKEND.configure(held, None, UNDERLAY)
    before = NamespaceBuilder(f"node/{node}", node)
    kubelet_chains(before, family)
    for table, chains in DOCUMENT_CHAINS:
        for chain in chains:
            before.tables(family).chain(table, chain)
    write_hooks(before, family, martians=plugin.proxiers[family].localhost_node_ports)
    prepared = "".join(print_save(before.build().rulesets[family]))
    document = "".join(f"{line}\n" for line in restore_document(plugin, node, family))

    builder = NamespaceBuilder(f"node/{node}", node)
    plugin.build_node(node, builder)
    model = "".join(print_save(builder.build().rulesets[family]))
    assert by_table(in_kernel(variant, family, prepared, document)) == by_table(model)


@variants
def test_the_worked_example(variant: str) -> None:
    check(demo(), "worker-1", Family.IPV4, variant)


@variants
@families
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(held=clusters(), node=st.sampled_from(NODES))
def test_any_cluster(held: Cluster, node: str, variant: str, family: Family) -> None:
    check(held, node, family, variant)
