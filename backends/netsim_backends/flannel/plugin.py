"""flannel on every node of one cluster: flanneld's part, then the CNI plugins per pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from netsim.backends import Underlay
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod
from netsim.linux.builder import NamespaceBuilder
from netsim.packet.address import IPAddress, IPNetwork
from netsim_backends.cni.pools import allocate, networked_pods
from netsim_backends.cni.wiring import NetConf, Wiring
from netsim_backends.flannel.config import FlannelConfig
from netsim_backends.flannel.datapath import Site, write
from netsim_backends.flannel.lease import TYPE_IN_LEASE, Lease
from netsim_backends.flannel.peers import Peers
from netsim_backends.flannel.rules import write_forward, write_masquerade


class FlannelPlugin:
    """``leases`` are computed once and shared; what a node derives from them is made when that node is asked for."""

    enforces_policy = False

    def __init__(
        self,
        cluster: Cluster,
        config: FlannelConfig,
        underlay: Underlay,
        leases: Mapping[str, Lease],
        wiring: Wiring,
        conf: NetConf,
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.underlay = underlay
        self.leases = leases
        self.wiring = wiring
        self.conf = conf

    @cached_property
    def visible(self) -> Sequence[Lease]:
        """Leases whose type peers accept, by node name; udp does not look at the type."""
        expected = TYPE_IN_LEASE[self.config.mode]
        return [
            lease for _, lease in sorted(self.leases.items()) if self.config.mode == "udp" or lease.type == expected
        ]

    @cached_property
    def _node_at(self) -> Mapping[str, str]:
        return {text: name for name, held in self.underlay.addresses.items() for text in held}

    def subnets(self, node: str) -> Sequence[IPNetwork]:
        lease = self.leases.get(node)
        return tuple(lease.subnets.values()) if lease is not None else ()

    def allocate(self) -> Mapping[tuple[str, str], Iterable[str]]:
        return {
            key: addresses
            for key, addresses in allocate(self.cluster, self.subnets).items()
            if addresses  # a node without a lease gives none: its pods wait
        }

    @cached_property
    def _peers(self) -> Peers:
        return Peers(self.config, self.visible, self.underlay.device, self._segment_at)

    def _segment_at(self, address: IPAddress) -> str | None:
        """Where the address that a peer announces is reached without a router. Nobody's address goes to the router."""
        node = self._node_at.get(str(address))
        return None if node is None else self.underlay.segments[node]

    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        own = self.leases.get(node)
        if own is not None:
            self._flanneld(own, builder)
        pods = networked_pods(self.cluster, node)
        self.wiring.node(node, pods, self.subnets(node), self.conf, builder)

    def _flanneld(self, own: Lease, builder: NamespaceBuilder) -> None:
        flags = self.config.flags
        for family, subnet in own.subnets.items():
            whole = self.config.networks[family]
            if flags.masquerade:
                write_masquerade(builder, family, whole, subnet, self.config.source, flags.random_fully)
            if flags.forward_rules:
                write_forward(builder, family, whole, self.config.source)
        write(Site(self.config, own, self.underlay.segments[own.node], self.underlay.mtu, self._peers), builder)

    def build_pod(self, pod: Pod, builder: NamespaceBuilder) -> None:
        self.wiring.pod(pod, self.subnets(pod.spec.node_name), self.conf, builder)
