"""The demo cluster's rules to the byte: what is fed to iptables-restore, and what iptables-save prints afterwards."""

from __future__ import annotations

import re
from pathlib import Path

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import print_save
from netsim.packet.address import Family
from netsim_backends.kube_proxy import IPTABLES, restore_document
from tests.support.kube_proxy_clusters import UNDERLAY, demo

GOLDEN = Path(__file__).parents[1] / "golden" / "kube_proxy"
NOT_KUBE_PROXYS = re.compile(r"(:|-A )(KUBE-KUBELET-CANARY|KUBE-PROXY-CANARY|KUBE-IPTABLES-HINT|(?!KUBE-))")


def test_restore_document() -> None:
    plugin = IPTABLES.configure(demo(), None, UNDERLAY)
    text = "".join(f"{line}\n" for line in restore_document(plugin, "worker-1", Family.IPV4))
    assert text == (GOLDEN / "demo.restore").read_text()


def test_save_form() -> None:
    builder = NamespaceBuilder("node/worker-1", "worker-1")
    IPTABLES.configure(demo(), None, UNDERLAY).build_node("worker-1", builder)
    saved = "".join(print_save(builder.build().rulesets[Family.IPV4]))
    kept = [line for line in saved.splitlines() if not line.startswith("#") and not NOT_KUBE_PROXYS.match(line)]
    tables = {block.splitlines()[0]: block for block in re.findall(r"\*.*?COMMIT", "\n".join(kept), re.S)}
    expected = re.findall(r"\*.*?COMMIT", (GOLDEN / "demo.save").read_text(), re.S)
    assert [tables[block.splitlines()[0]] for block in expected] == expected
