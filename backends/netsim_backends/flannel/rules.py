"""flannel's iptables rules (flannel v0.28, pkg/trafficmngr/iptables; --ip-masq and --iptables-forward-rules are on).

Both jumps are appended: what Docker, a firewall or kube-proxy inserted before decides first.
"""

from __future__ import annotations

from netsim.errors import Source
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.packet.address import Family, IPNetwork

_SAID = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'
_MULTICAST = {Family.IPV4: "224.0.0.0/4", Family.IPV6: "ff00::/8"}


def write_masquerade(
    builder: NamespaceBuilder,
    family: Family,
    cluster: IPNetwork,
    subnet: IPNetwork,
    source: Source | None,
    random_fully: bool = True,
) -> None:
    """The seven nat rules: ``cluster`` is the Network, ``subnet`` this node's lease."""
    tables = builder.tables(family)
    masquerade = f"{_SAID} -j MASQUERADE{' --random-fully' if random_fully else ''}"
    lines = (
        (f"-m mark --mark 0x4000/0x4000 {_SAID} -j RETURN", "kube-proxy's mark: kube-proxy masquerades it itself"),
        (f"-s {subnet} -d {cluster} {_SAID} -j RETURN", "pods of this node show their address to pods"),
        (f"-s {cluster} -d {subnet} {_SAID} -j RETURN", "pods show their address to pods of this node"),
        (f"! -s {cluster} -d {subnet} {_SAID} -j RETURN", "others show their address to pods of this node"),
        (
            f"-s {cluster} ! -d {_MULTICAST[family]} {masquerade}",
            "pods leave the cluster network with their node's address",
        ),
        (
            f"! -s {cluster} -d {cluster} {masquerade}",
            "others reach pods of other nodes through this node's address",
        ),
    )
    jump = rule(f"{_SAID} -j FLANNEL-POSTRTG", family, "flannel --ip-masq", source)
    for text, because in lines:
        tables.append("nat", "FLANNEL-POSTRTG", rule(text, family, f"flannel --ip-masq: {because}", source))
    tables.append("nat", "POSTROUTING", jump)


def write_forward(builder: NamespaceBuilder, family: Family, cluster: IPNetwork, source: Source | None) -> None:
    """FORWARD accepts what comes from or goes to the cluster network; its policy is left alone."""
    tables = builder.tables(family)
    because = "flannel --iptables-forward-rules: forwarding from and to pods is allowed"
    for side in ("-s", "-d"):
        tables.append("filter", "FLANNEL-FWD", rule(f"{side} {cluster} {_FORWARD} -j ACCEPT", family, because, source))
    tables.append("filter", "FORWARD", rule(f"{_FORWARD} -j FLANNEL-FWD", family, because, source))
