"""The iptables chains that a node's kubelet makes before any other component starts.

Models kubernetes pkg/kubelet/kubelet_network_linux.go, 1.28 and later: the chain against packets from outside to
127.0.0.0/8 (IPv4 only, where ``route_localnet`` could let them in), a chain whose presence tells others which iptables
backend is in use, and canaries that show when somebody flushes the tables.
"""

from __future__ import annotations

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.packet.address import Family

MARTIAN_RULE = (
    '-m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8'
    " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
BECAUSE = "kubelet"


def kubelet_chains(builder: NamespaceBuilder, family: Family) -> None:
    """Write the kubelet's chains of ``family``."""
    tables = builder.tables(family)
    tables.chain("mangle", "KUBE-IPTABLES-HINT")
    if family is Family.IPV4:
        because = f"{BECAUSE}: packets from other hosts must not reach loopback addresses"
        tables.ensure("filter", "KUBE-FIREWALL", rule(MARTIAN_RULE, family, because))
        for hook in ("OUTPUT", "INPUT"):
            tables.ensure("filter", hook, rule("-j KUBE-FIREWALL", family, because), prepend=True)
    for table in ("mangle", "nat", "filter"):
        tables.chain(table, "KUBE-KUBELET-CANARY")
