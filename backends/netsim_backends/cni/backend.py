"""bridge and ptp as backends of their own: ``--cni bridge`` and ``--cni ptp``.

The plugins wire up one node each and know nothing of other nodes. Alone they make a cluster only where the network between
the nodes routes every node's pod CIDR to it, as cloud route tables do; ``underlay_routes`` says so to the topology.
Mode ``masq`` switches the plugins' ipMasq on: then pods show their node's address outside their own subnet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from netsim.backends import Underlay
from netsim.errors import UsageError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod
from netsim.linux.builder import NamespaceBuilder
from netsim.packet.address import IPNetwork
from netsim_backends.cni.pools import allocate, networked_pods, pod_cidrs
from netsim_backends.cni.wiring import Bridge, NetConf, PointToPoint, Wiring


class DelegatePlugin:
    """One wiring on all nodes, each with its own pod CIDRs. NetworkPolicy is not enforced."""

    enforces_policy = False

    def __init__(self, cluster: Cluster, wiring: Wiring, conf: NetConf) -> None:
        self.cluster = cluster
        self.wiring = wiring
        self.conf = conf
        self._subnets = pod_cidrs(cluster)

    def subnets(self, node: str) -> Sequence[IPNetwork]:
        return self._subnets.get(node, ())

    def allocate(self) -> Mapping[tuple[str, str], Iterable[str]]:
        return allocate(self.cluster, self.subnets)

    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        self.wiring.node(node, networked_pods(self.cluster, node), self.subnets(node), self.conf, builder)

    def build_pod(self, pod: Pod, builder: NamespaceBuilder) -> None:
        self.wiring.pod(pod, self.subnets(pod.spec.node_name), self.conf, builder)

    def underlay_routes(self) -> list[tuple[IPNetwork, str]]:
        return [(subnet, node) for node in sorted(self._subnets) for subnet in self._subnets[node]]


class DelegateBackend:
    """Asked for by name only: nothing in a cluster's objects shows which CNI files lie on its nodes."""

    role: Literal["proxy", "cni"] = "cni"

    def __init__(self, name: str, wiring: Wiring, hairpin: bool) -> None:
        self.name = name
        self._wiring = wiring
        self._hairpin = hairpin

    def detect(self, cluster: Cluster) -> str | None:
        return None

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> DelegatePlugin:
        if mode not in (None, "masq"):
            raise UsageError(f"--cni {self.name}:{mode}: the only mode is masq")
        cluster.assumptions.append(
            f"the network between the nodes routes every podCIDR to its node (--cni {self.name})"
        )
        conf = NetConf(name=self.name, mtu=underlay.mtu, hairpin=self._hairpin, ip_masq=mode == "masq")
        return DelegatePlugin(cluster, self._wiring, conf)


BRIDGE = DelegateBackend("bridge", Bridge(), hairpin=True)
PTP = DelegateBackend("ptp", PointToPoint(), hairpin=False)
