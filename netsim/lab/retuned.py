"""The network that probes are held against: as it is, or with conntrack's timeouts short while replies come late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from netsim.lab.expected import Course
from netsim.lab.probes import Manner, Probe
from netsim.lab.stories import Storyteller
from netsim.lab.turns import TIMEOUT
from netsim.linux.network import Namespace, Network
from netsim.packet.address import IPAddress

SHORT = {
    f"net.netfilter.nf_conntrack_{name}": str(TIMEOUT)
    for name in ("udp_timeout", "icmp_timeout", "icmpv6_timeout", "tcp_timeout_syn_sent", "sctp_timeout_closed")
}


class Retuned:
    """A network whose sysctls are set otherwise in some namespaces."""

    def __init__(self, network: Network, sysctls: Mapping[str, str], names: Iterable[str]) -> None:
        self._network = network
        self._held = {name: self._set(network.namespace(name), sysctls) for name in names}

    @staticmethod
    def _set(held: Namespace, sysctls: Mapping[str, str]) -> Namespace:
        return replace(held, sysctls={**held.sysctls, **sysctls})

    def namespace(self, name: str) -> Namespace:
        return self._held.get(name) or self._network.namespace(name)

    def on_segment(self, segment: str, address: IPAddress) -> tuple[str, str] | None:
        return self._network.on_segment(segment, address)

    def by_mac(self, segment: str, mac: str) -> tuple[str, str] | None:
        return self._network.by_mac(segment, mac)

    def segment_mtu(self, segment: str) -> int:
        return self._network.segment_mtu(segment)


def tracking(network: Network, names: Iterable[str]) -> list[str]:
    """Where connections are tracked: where there are rules, on nodes and a router that translates."""
    return [name for name in names if network.namespace(name).rulesets]


def tunnel_ports(network: Network, names: Iterable[str]) -> frozenset[int]:
    links = [link for name in names for link in network.namespace(name).links]
    return frozenset(option.port for link in links for option in (link.vxlan, link.udp_tunnel) if option is not None)


def courses(network: Network, names: Sequence[str], probes: Iterable[Probe], ports: Sequence[int]) -> list[Course]:
    """What netsim says of each probe, once for equal ones."""
    teller = Storyteller(network)
    short = Retuned(network, SHORT, tracking(network, names))
    tunnels = tunnel_ports(network, names)
    return [
        Course(short if probe.manner is Manner.LATE else network, teller, tunnels, probe, ports)
        for probe in dict.fromkeys(probes)
    ]
