"""``--cni flat``: pods are hosts of a routed network, as on clouds whose route tables know every node's pod CIDR.

    pod eth0 /32-like ── veth ── node (one host route per pod) ── eth0 ── router (one route per pod CIDR)

Nothing is encapsulated: to other nodes' pods, packets follow the default route, and the router knows the way
(``underlay_routes``). Nodes are wired by the ptp plugin with the external interface's MTU. Pods show their own address
inside the private networks and their node's outside, by the rules of ip-masq-agent in its default configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from netsim.backends import Underlay
from netsim.errors import UsageError
from netsim.kube.cluster import Cluster
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.packet.address import Family, family_of, network
from netsim_backends.cni import DelegatePlugin
from netsim_backends.cni.wiring import NetConf, PointToPoint

CHAIN = "IP-MASQ"
_ENSURE = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain"
_INSIDE = "ip-masq-agent: local traffic is not subject to MASQUERADE"
_OUTSIDE = "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
# Link-local first, then the agent's nonMasqueradeCIDRs as they are without a configuration.
_PRIVATE = {
    Family.IPV4: ("169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    Family.IPV6: ("fe80::/10", "fc00::/7"),
}


class FlatPlugin(DelegatePlugin):
    """ptp on every node, plus the agent's rules."""

    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        for family in sorted({family_of(subnet) for subnet in self.subnets(node)}):
            self._masquerade(family, builder)
        super().build_node(node, builder)

    def _masquerade(self, family: Family, builder: NamespaceBuilder) -> None:
        tables = builder.tables(family)
        because = "ip-masq-agent"
        for prefix in self._inside(family):
            line = f'-d {prefix} -m comment --comment "{_INSIDE}" -j RETURN'
            tables.append("nat", CHAIN, rule(line, family, f"{because}: {prefix} sees pod addresses"))
        line = f'-m comment --comment "{_OUTSIDE}" -j MASQUERADE'
        tables.append("nat", CHAIN, rule(line, family, f"{because}: pods leave with their node's address"))
        jump = f'-m comment --comment "{_ENSURE}" -m addrtype ! --dst-type LOCAL -j {CHAIN}'
        tables.append("nat", "POSTROUTING", rule(jump, family, because))

    def _inside(self, family: Family) -> Iterator[str]:
        """Private prefixes, and the cluster's own where they are not private."""
        private = _PRIVATE[family]
        yield from private
        for text in self.cluster.settings.pod_cidrs:
            own = network(text)
            if family_of(own) is family and not any(own.subnet_of(network(p)) for p in private):  # type: ignore[arg-type]
                yield str(own)


class FlatBackend:
    """Asked for by name only."""

    name = "flat"
    role: Literal["proxy", "cni"] = "cni"

    def detect(self, cluster: Cluster) -> str | None:
        return None

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> FlatPlugin:
        if mode is not None:
            raise UsageError(f"--cni flat:{mode}: flat has no modes")
        cluster.assumptions.append("the network between the nodes routes every podCIDR to its node (--cni flat)")
        return FlatPlugin(cluster, PointToPoint(), NetConf(name="flat", mtu=underlay.mtu))


BACKEND = FlatBackend()
