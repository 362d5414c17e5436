"""What a kube-proxy knows of its own node: its addresses, its zone, which traffic is from its own pods.

All proxy modes share this (kubernetes pkg/proxy/util/localdetector.go and nodeport_addresses.go, 1.28 to 1.35).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netsim.kube.cluster import Cluster
from netsim.packet.address import Family, IPAddress, IPNetwork, host_network, ip, network
from netsim_backends.kube_proxy.addresses import parse_cidr, parse_ip
from netsim_backends.kube_proxy.config import PRIMARY, ProxyConfig

ZONE_LABEL = "topology.kubernetes.io/zone"
_LOOPBACK: dict[Family, IPAddress] = {Family.IPV4: ip("127.0.0.1"), Family.IPV6: ip("::1")}
_LOOPBACK_START = ip("127.0.0.0")


@dataclass(frozen=True, slots=True)
class LocalDetector:
    """How packets of the node's pods (or the cluster's) are told from others: by source prefix or by interface."""

    cidr: IPNetwork | None = None
    interface: str = ""
    prefix: bool = False  # ``interface`` is the beginning of a name

    @property
    def iptables(self) -> str:
        """The match in iptables syntax; negate it with a leading ``! ``."""
        if self.cidr is not None:
            return f"-s {self.cidr}"
        return f"-i {self.interface}+" if self.prefix else f"-i {self.interface}"


@dataclass(frozen=True)
class NodeView:
    """One node as its own kube-proxy sees it, in one family.

    ``name`` is the name by which it looks for itself (``hostnameOverride`` changes it). ``primary`` is its node IP.
    ``detector`` is None where nothing tells local traffic. ``node_port_ips`` None means every local address.
    """

    name: str
    zone: str
    primary: IPAddress
    detector: LocalDetector | None
    node_port_ips: tuple[IPAddress, ...] | None


@dataclass(frozen=True)
class NodePortAddresses:
    """``nodePortAddresses`` for one family; empty ``networks`` means every address."""

    networks: tuple[IPNetwork, ...] = ()
    primary_only: bool = False

    @classmethod
    def read(cls, texts: Iterable[str], family: Family) -> NodePortAddresses:
        texts = tuple(texts)
        if texts == (PRIMARY,):
            return cls(primary_only=True)
        networks = tuple(n for n in map(parse_cidr, texts) if n.version == family)
        return cls(() if any(n.prefixlen == 0 for n in networks) else networks)

    @property
    def match_all(self) -> bool:
        return not self.networks and not self.primary_only

    @property
    def covers_loopback(self) -> bool:
        """Do node ports open on 127.0.0.0/8 (IPv4 only)? Decides about ``route_localnet``."""
        return self.match_all or any(
            n.version == 4 and (n.network_address.is_loopback or _LOOPBACK_START in n) for n in self.networks
        )

    def of_node(self, addresses: Iterable[IPAddress], primary: IPAddress) -> tuple[IPAddress, ...] | None:
        """The addresses that serve node ports, sorted; None for all of them."""
        if self.match_all:
            return None
        networks = (host_network(primary),) if self.primary_only else self.networks
        chosen = {a for a in addresses if any(a in n for n in networks)}
        return tuple(sorted(chosen, key=int))


def primary_address(cluster: Cluster, node: str, family: Family) -> IPAddress:
    """The node's IP of ``family``: its first InternalIP, else its first ExternalIP, else loopback."""
    if node in cluster.nodes:
        for kind in ("InternalIP", "ExternalIP"):
            for text in cluster.node_addresses(node, kind):
                address = parse_ip(text)
                if address.version == family:
                    return address
    return _LOOPBACK[family]


def detector_for(cluster: Cluster, config: ProxyConfig, node: str, family: Family) -> LocalDetector | None:
    match config.detect_local_mode:
        case "BridgeInterface":
            return LocalDetector(interface=config.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalDetector(interface=config.interface_name_prefix, prefix=True)
        case "NodeCIDR":
            spec = cluster.nodes[node].spec if node in cluster.nodes else None
            texts = (spec.pod_cidrs or [spec.pod_cidr] if spec.pod_cidr or spec.pod_cidrs else []) if spec else []
            cidrs: tuple[IPNetwork, ...] = tuple(map(network, texts))
        case _:
            cidrs = config.cluster_cidrs
    return next((LocalDetector(c) for c in cidrs if c.version == family), None)


def node_view(
    cluster: Cluster, config: ProxyConfig, node: str, family: Family, addresses: Iterable[IPAddress] = ()
) -> NodeView:
    """``addresses``: what the node's interfaces hold beyond the addresses that its Node object states."""
    name = config.hostname_override or node
    bound = parse_ip(config.bind_address) if config.bind_address else None
    primary = bound if bound is not None and bound.version == family else primary_address(cluster, name, family)
    stated = [
        parse_ip(a.address) for a in cluster.nodes[node].status.addresses if a.type in ("InternalIP", "ExternalIP")
    ]
    held = {a for a in (*stated, *addresses, _LOOPBACK[family]) if a.version == family}
    labels = cluster.nodes[name].metadata.labels if name in cluster.nodes else {}
    return NodeView(
        name=name,
        zone=labels.get(ZONE_LABEL, ""),
        primary=primary,
        detector=detector_for(cluster, config, name, family),
        node_port_ips=NodePortAddresses.read(config.node_port_addresses, family).of_node(held, primary),
    )
