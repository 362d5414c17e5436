"""What kube-proxy's iptables mode writes whatever the Services are: hooks, fixed rules, canaries, sysctls.

Models kubernetes pkg/proxy/iptables and cmd/kube-proxy/app, 1.28 to 1.35; the nfacct counters are from 1.32 on.
``net.ipv4.ip_forward`` and ``bridge-nf-call-iptables`` are expected of the node, not set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, IPAddress
from netsim_backends.kube_proxy.config import Conntrack, ProxyConfig
from netsim_backends.kube_proxy.iptables_line import Line, Part, comment, option
from netsim_backends.kube_proxy.iptables_rules import (
    EXTERNAL_SERVICES,
    MARK_MASQ,
    NODE_PORTS,
    PROXY_FIREWALL,
    SERVICES,
)
from netsim_backends.kube_proxy.kubelet import MARTIAN_RULE

FORWARD_CHAIN = "KUBE-FORWARD"
POSTROUTING_CHAIN = "KUBE-POSTROUTING"
FIREWALL_CHAIN = "KUBE-FIREWALL"
CANARY_CHAIN = "KUBE-PROXY-CANARY"
INVALID_COUNTER = "ct_state_invalid_dropped_pkts"

# The chains named first in each table of the restore document.
DOCUMENT_CHAINS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("filter", (SERVICES, EXTERNAL_SERVICES, FORWARD_CHAIN, NODE_PORTS, PROXY_FIREWALL)),
    ("nat", (SERVICES, NODE_PORTS, POSTROUTING_CHAIN, MARK_MASQ)),
)

_NEW = "-m conntrack --ctstate NEW "
_EXTERNAL_JUMP = f'{_NEW}-m comment --comment "kubernetes externally-visible service portals" -j {EXTERNAL_SERVICES}'
_PORTALS = f'-m comment --comment "kubernetes service portals" -j {SERVICES}'
_FIREWALL_JUMP = f'{_NEW}-m comment --comment "kubernetes load balancer firewall" -j {PROXY_FIREWALL}'
# Each is put at the head of its chain in turn: the later one here ends up above the earlier one there.
HOOKS: tuple[tuple[str, str, str], ...] = (
    ("filter", "INPUT", _EXTERNAL_JUMP),
    ("filter", "FORWARD", _EXTERNAL_JUMP),
    ("filter", "INPUT", f'-m comment --comment "kubernetes health check service ports" -j {NODE_PORTS}'),
    ("filter", "FORWARD", _NEW + _PORTALS),
    ("filter", "OUTPUT", _NEW + _PORTALS),
    ("filter", "FORWARD", f'-m comment --comment "kubernetes forwarding rules" -j {FORWARD_CHAIN}'),
    ("filter", "INPUT", _FIREWALL_JUMP),
    ("filter", "OUTPUT", _FIREWALL_JUMP),
    ("filter", "FORWARD", _FIREWALL_JUMP),
    ("nat", "OUTPUT", _PORTALS),
    ("nat", "PREROUTING", _PORTALS),
    ("nat", "POSTROUTING", f'-m comment --comment "kubernetes postrouting rules" -j {POSTROUTING_CHAIN}'),
)
_OWN = Provenance("kube-proxy")


def write_hooks(builder: NamespaceBuilder, family: Family, martians: bool) -> None:
    """The jumps from the built-in chains; ``martians``: KUBE-FIREWALL is kept too (IPv4 with node ports on loopback)."""
    tables = builder.tables(family)
    for table, hook, text in HOOKS:
        tables.ensure(table, hook, rule(text, family, _OWN.because), prepend=True)
    if martians:
        for hook in ("INPUT", "OUTPUT"):
            tables.ensure("filter", hook, rule(f"-j {FIREWALL_CHAIN}", family, _OWN.because), prepend=True)
        kept = tables.chain("filter", FIREWALL_CHAIN)
        kept.clear()  # the restore document names the chain, which empties it
        kept.extend(line.rule() for line in martian_lines(family))
    for table in ("mangle", "nat", "filter"):
        tables.chain(table, CANARY_CHAIN)


def martian_lines(family: Family) -> Iterator[Line]:
    because = Provenance("kube-proxy: packets from other hosts must not reach loopback addresses")
    yield Line("filter", FIREWALL_CHAIN, (option(MARTIAN_RULE, family),), because)


def _mark(config: ProxyConfig) -> str:
    return f"0x{config.mark:08x}"


def first_lines(config: ProxyConfig, family: Family) -> Iterator[Line]:
    """nat rules before all Services: masquerade what is marked, once."""
    mark = _mark(config)
    because = Provenance("kube-proxy: packets marked for masquerading")

    def line(chain: str, text: str) -> Line:
        return Line("nat", chain, (option(text, family),), because)

    yield line(POSTROUTING_CHAIN, f"-m mark ! --mark {mark}/{mark} -j RETURN")
    yield line(POSTROUTING_CHAIN, f"-j MARK --xor-mark {mark}")
    text = '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully'
    yield line(POSTROUTING_CHAIN, text)
    yield line(MARK_MASQ, f"-j MARK --or-mark {mark}")


def forward_lines(config: ProxyConfig, family: Family, nfacct: bool) -> Iterator[Line]:
    """filter rules after all Services."""

    def line(text: str, because: str) -> Line:
        return Line("filter", FORWARD_CHAIN, (option(text, family),), Provenance(f"kube-proxy: {because}"))

    # With liberal TCP tracking INVALID no longer means what the rule is against.
    if not config.conntrack.tcp_be_liberal:
        counter = f"-m nfacct --nfacct-name {INVALID_COUNTER} " if nfacct else ""
        yield line(f"-m conntrack --ctstate INVALID {counter}-j DROP", "packets that conntrack calls invalid")
    mark = _mark(config)
    text = f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT'
    yield line(text, "forwarded packets marked for masquerading")
    text = '-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED'
    yield line(f"{text} -j ACCEPT", "forwarded packets of known connections")


def node_port_tail(addresses: Sequence[IPAddress] | None, localhost_node_ports: bool, family: Family) -> Iterator[Line]:
    """The end of nat KUBE-SERVICES: what is addressed to the node itself may be for a node port."""
    because = Provenance("kube-proxy: node ports")
    text = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"

    def line(*parts: Part) -> Line:
        return Line("nat", SERVICES, (comment(text), *parts), because, NODE_PORTS)

    if addresses is None:
        parts = [option("-m addrtype --dst-type LOCAL", family)]
        if family is Family.IPV6:
            parts.append(option("! -d ::1/128", family))
        elif not localhost_node_ports:
            parts.append(option("! -d 127.0.0.0/8", family))
        yield line(*parts)
        return
    for address in addresses:
        if not address.is_loopback or localhost_node_ports:
            yield line(option(f"-d {address}", family))


def write_sysctls(sysctls: dict[str, str], conntrack: Conntrack, cores: int, route_localnet: bool) -> None:
    """What kube-proxy sets at its start, in every mode. (The hash table's size is no sysctl and decides nothing here.)"""
    prefix = "net.netfilter.nf_conntrack_"
    if conntrack.max_per_core:
        sysctls[f"{prefix}max"] = str(max(conntrack.max_per_core * cores, conntrack.min))
    for name, seconds in (
        ("tcp_timeout_established", conntrack.tcp_established),
        ("tcp_timeout_close_wait", conntrack.tcp_close_wait),
        ("udp_timeout", conntrack.udp),
        ("udp_timeout_stream", conntrack.udp_stream),
    ):
        if int(seconds):
            sysctls[prefix + name] = str(int(seconds))
    if conntrack.tcp_be_liberal:
        sysctls[f"{prefix}tcp_be_liberal"] = "1"
    if route_localnet:
        sysctls["net.ipv4.conf.all.route_localnet"] = "1"
