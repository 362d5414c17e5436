"""kube-proxy in iptables mode as a backend."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, Literal

from netsim.backends import Underlay
from netsim.errors import Problem, UnsupportedError
from netsim.kube.cluster import Cluster
from netsim.linux.builder import NamespaceBuilder
from netsim.packet.address import Family, IPAddress
from netsim_backends.kube_proxy.config import ProxyConfig, find_document, read_config
from netsim_backends.kube_proxy.iptables_fixed import write_hooks, write_sysctls
from netsim_backends.kube_proxy.iptables_node import LazyChains, NodeProxier
from netsim_backends.kube_proxy.iptables_proxier import Proxier
from netsim_backends.kube_proxy.kubelet import kubelet_chains
from netsim_backends.kube_proxy.local_traffic import node_view

NFACCT_SINCE = (1, 32)
_MILLI = re.compile(r"(\d+)m")


class IptablesPlugin:
    """kube-proxy on every node of one cluster; both families run on every node, as they do on a kernel with both."""

    def __init__(
        self,
        cluster: Cluster,
        config: ProxyConfig,
        nfacct: bool,
        before: tuple[IptablesPlugin, Collection[tuple[str, str]]] | None = None,
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.nfacct = nfacct
        self._followers: dict[Proxier, Proxier] = {}  # by those of the generation before
        self._renewed: dict[Hashable, tuple[NodeProxier, Mapping[str, Collection[str]]]] = {}
        if before is None:
            self.proxiers = {family: Proxier(cluster, config, family, nfacct) for family in Family}
        else:
            plugin, services = before
            self.proxiers = {family: one.updated(cluster, services) for family, one in plugin.proxiers.items()}
            pairs = [(plugin.proxiers[family], new) for family, new in self.proxiers.items()]
            self._followers = {old: new for old, new in pairs if new is not old}

    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        """The kubelet's chains, kube-proxy's own, and the sysctls that kube-proxy sets."""
        held = [address.interface.ip for address in builder.addresses]
        for family, proxier in self.proxiers.items():
            kubelet_chains(builder, family)
            write_hooks(builder, family, martians=proxier.localhost_node_ports)
            chains = self.node_proxier(node, family, held)
            tables = builder.tables(family)
            for table in ("filter", "nat"):
                tables.lazy(table, LazyChains(table, chains))
        route_localnet = self.proxiers[Family.IPV4].localhost_node_ports
        write_sysctls(builder.sysctls, self.config.conntrack, self._cores(node), route_localnet)

    def node_proxier(self, node: str, family: Family, addresses: Iterable[IPAddress] = ()) -> NodeProxier:
        """``addresses``: those on the node's interfaces that its Node object does not state."""
        return NodeProxier(self.proxiers[family], node_view(self.cluster, self.config, node, family, addresses))

    # -- generations -----------------------------------------------------------------------------------------------------
    def updated(self, cluster: Cluster, services: Collection[tuple[str, str]]) -> IptablesPlugin:
        """The plug-in for ``cluster``, which is this one's with other Services, or EndpointSlices of Services, of these
        names. InputError as from ``configure``."""
        return IptablesPlugin(cluster, self.config, self.nfacct, (self, services))

    def renewed(self, chains: Any, before: Any) -> tuple[Any, Collection[str]]:
        """What ``chains`` of some node, of any generation, have become, and which names mean something else in them than in
        ``before``, of the generation before; ``chains`` itself if they are none of ours, or nothing has changed."""
        if not isinstance(chains, LazyChains) or not isinstance(before, LazyChains):
            return chains, ()
        proxier = self._followers.get(before.node.proxier)
        if proxier is None:
            return chains, ()
        node = before.node.updated(proxier, chains.node.node)
        key = before.node, node.sees
        if key not in self._renewed:
            self._renewed[key] = node, before.node.differing(node)
        node, names = self._renewed[key]
        return LazyChains(chains.table, node), names[chains.table]

    @property
    def alike(self) -> bool:
        """Not if nodes see one of the Services in their own ways."""
        return not any(
            key in side.specific or key in side.ranged
            for old, new in self._followers.items()
            for side in (old, new)
            for key in new.changed
        )

    def _cores(self, node: str) -> int:
        """CPUs by the Node's capacity; 1 where it states none."""
        text = self.cluster.nodes[node].status.capacity.get("cpu", "1")
        milli = _MILLI.fullmatch(text)
        if milli:
            return max(1, int(milli[1]) // 1000)
        return max(1, int(text)) if text.isdigit() else 1


class IptablesBackend:
    """``nfacct``: can this kernel count with nfacct? None: as kube-proxy would find on an ordinary kernel, from 1.32 on."""

    name = "kube-proxy-iptables"
    role: Literal["proxy", "cni"] = "proxy"

    def __init__(self, nfacct: bool | None = None) -> None:
        self.nfacct = nfacct

    def detect(self, cluster: Cluster) -> str | None:
        document = find_document(cluster)
        if document is None or document.body.get("mode") not in (None, "", "iptables"):
            return None
        return document.name

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> IptablesPlugin:
        config = read_config(cluster)
        # Asked for by name, this mode runs whatever the configuration says.
        if config.mode != "iptables" and cluster.settings.proxy is None:
            text = f"kube-proxy's mode {config.mode} is not in this version of netsim; --proxy iptables overrides it"
            raise UnsupportedError([Problem(text, config.source, field="mode")])
        nfacct = cluster.settings.kubernetes_version >= NFACCT_SINCE if self.nfacct is None else self.nfacct
        return IptablesPlugin(cluster, config, nfacct)


def restore_document(
    plugin: IptablesPlugin, node: str, family: Family, addresses: Iterable[IPAddress] = ()
) -> Iterator[str]:
    """Line by line, what this node's kube-proxy feeds to ``iptables-restore`` (``ip6tables-restore``) on a full sync."""
    return plugin.node_proxier(node, family, addresses).document()


IPTABLES = IptablesBackend()
