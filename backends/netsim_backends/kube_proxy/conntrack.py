"""Which UDP flows kube-proxy forgets after endpoints have changed (kubernetes pkg/proxy/conntrack/cleanup.go, 1.33).

A UDP flow has no end that conntrack could see, so a client that keeps its source port would be sent to a dead endpoint for
ever. TCP and SCTP entries are never touched. All proxy modes share this. Upstream looks at addresses without ports; where
two UDP ports share an address, an endpoint of either keeps the flow here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netsim_backends.kube_proxy.endpoints import EndpointSet
from netsim_backends.kube_proxy.service_ports import ServicePort


@dataclass(frozen=True)
class UdpTargets:
    """Service address, or node port → addresses of the endpoints that still serve (ready or not, local or not)."""

    by_address: Mapping[str, frozenset[str]]
    by_node_port: Mapping[int, frozenset[str]]

    def is_stale(self, destination: str, port: int, replies_from: str) -> bool:
        """Is the UDP entry to be deleted that was sent to ``destination``:``port`` and is answered by ``replies_from``?"""
        for serving in (self.by_address.get(destination), self.by_node_port.get(port)):
            if serving is not None and replies_from not in serving:
                return True
        return False


def udp_targets(services: Iterable[tuple[ServicePort, EndpointSet]]) -> UdpTargets:
    by_address: dict[str, frozenset[str]] = {}
    by_node_port: dict[int, frozenset[str]] = {}
    for port, found in services:
        if port.protocol != "udp":
            continue
        serving = frozenset(e.ip for e in found.endpoints if e.serving)
        for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
            by_address[address] = by_address.get(address, frozenset()) | serving
        if port.node_port:
            by_node_port[port.node_port] = serving
    return UdpTargets(by_address, by_node_port)
