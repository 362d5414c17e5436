"""A CNI backend that works and fits on one page: addresses in name order, one veth pair and one host route per pod.

It stands alone on purpose (the CNI plugins in ``netsim_backends.cni`` do most of this for you): everything that the core
asks of a network is here to be seen.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from netsim.backends import Underlay
from netsim.errors import InputError, Problem, UsageError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link, LinkKind
from netsim.linux.mac import mac_for
from netsim.linux.provenance import Provenance
from netsim.linux.route import Address, Route
from netsim.packet.address import IPNetwork, host_network, interface, ip, network

_GATEWAY = {4: ip("169.254.1.1"), 6: ip("fe80::1")}  # the same on every veth: only pods ever ask for it
_DEFAULT = {4: network("0.0.0.0/0"), 6: network("::/0")}


class TemplatePlugin:
    """One cluster's network. Every method is pure: the same cluster gives the same objects, whatever the order of calls."""

    enforces_policy = False

    def __init__(self, cluster: Cluster, underlay: Underlay) -> None:
        self.cluster = cluster
        self.underlay = underlay

    # -- addresses -----------------------------------------------------------------------------------------------------
    def allocate(self) -> Mapping[tuple[str, str], Iterable[str]]:
        """The lowest free addresses of the node's podCIDRs; the first of each subnet is left alone."""
        given: dict[tuple[str, str], list[str]] = {}
        for node in sorted(self.cluster.nodes):
            taken = {text for pod in self._pods(node) for text in pod.ips}
            for pod in self._pods(node):
                if pod.ips or pod.status.phase:
                    continue
                for subnet in self._subnets(node):
                    address = next((str(a) for a in _usable(subnet) if str(a) not in taken), None)
                    if address is None:
                        source = self.cluster.nodes[node].source
                        raise InputError([Problem(f"no address left in {subnet}", source, f'Node "{node}"')])
                    taken.add(address)
                    given.setdefault(pod.key, []).append(address)
        return given

    def _pods(self, node: str) -> list[Pod]:
        """The node's pods with a network of their own, by (namespace, name)."""
        held = (pod for pod in self.cluster.pods_by_node.get(node, ()) if not pod.spec.host_network)
        return sorted(held, key=lambda pod: pod.key)

    def _subnets(self, node: str) -> list[IPNetwork]:
        return [network(text) for text in self.cluster.nodes[node].spec.pod_cidrs]

    # -- kernel objects ------------------------------------------------------------------------------------------------
    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        """The host end of each pod. The underlay (lo, the external device, default route) and the proxy come before."""
        for pod in self._pods(node):
            if not pod.ips:
                continue
            why = Provenance(f"Pod {pod.namespace}/{pod.name}", pod.source)
            name, there = _device(pod), f"pod/{pod.namespace}/{pod.name}"
            mac = mac_for(builder.name, name)
            builder.links.append(
                Link(name, LinkKind.VETH, mac=mac, mtu=self.underlay.mtu, peer=(there, "eth0"), provenance=why)
            )
            for text in pod.ips:
                address = ip(text)
                gateway = _GATEWAY[address.version]
                builder.addresses.append(Address(name, interface(f"{gateway}/{gateway.max_prefixlen}"), scope="link"))
                builder.routes.append(Route(host_network(address), device=name, scope="link", provenance=why))

    def build_pod(self, pod: Pod, builder: NamespaceBuilder) -> None:
        """The pod's end (lo is there): addresses as host prefixes, and a default route through the node."""
        why = Provenance(f"Pod {pod.namespace}/{pod.name}", pod.source)
        peer, mac = (f"node/{pod.spec.node_name}", _device(pod)), mac_for(builder.name, "eth0")
        builder.links.append(Link("eth0", LinkKind.VETH, mac=mac, mtu=self.underlay.mtu, peer=peer, provenance=why))
        for text in pod.ips:
            address = ip(text)
            gateway = _GATEWAY[address.version]
            builder.addresses.append(Address("eth0", interface(f"{address}/{address.max_prefixlen}"), provenance=why))
            builder.routes.append(Route(host_network(gateway), device="eth0", scope="link", provenance=why))
            builder.routes.append(Route(_DEFAULT[address.version], gateway=gateway, device="eth0", provenance=why))

    def underlay_routes(self) -> list[tuple[IPNetwork, str]]:
        """Optional: prefixes that the router between the nodes hands to a node. A network with tunnels has none."""
        return [(subnet, node) for node in sorted(self.cluster.nodes) for subnet in self._subnets(node)]


def _usable(subnet: IPNetwork) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """All but the network's own address, the first host, and IPv4's broadcast address."""
    last = subnet.num_addresses - (subnet.version == 4)
    return (subnet.network_address + offset for offset in range(2, last))


def _device(pod: Pod) -> str:
    return "tpl" + mac_for("device", pod.namespace, pod.name).replace(":", "")


class TemplateBackend:
    """How the core finds the plugin and starts it."""

    name = "template"
    role: Literal["proxy", "cni"] = "cni"

    def detect(self, cluster: Cluster) -> str | None:
        """Say which object of the input shows that the cluster runs this network ("DaemonSet kube-system/…"), or None."""
        return None

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> TemplatePlugin:
        """Read and check the configuration here, with ``InputError`` and the source of what is wrong."""
        if mode is not None:
            raise UsageError(f"--cni {self.name}:{mode}: {self.name} has no modes")
        return TemplatePlugin(cluster, underlay)


BACKEND = TemplateBackend()
