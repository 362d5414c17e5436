"""Where a traced packet starts."""

from __future__ import annotations

from dataclasses import dataclass

from netsim.linux.fib import Fib
from netsim.linux.network import Network
from netsim.packet.address import IPAddress


@dataclass(frozen=True, slots=True)
class LocalOrigin:
    """A process in ``namespace`` sends it. An unspecified source address is chosen by routing."""

    namespace: str
    mark: int = 0


@dataclass(frozen=True, slots=True)
class WireOrigin:
    """It arrives on ``device`` of ``namespace``, addressed to that device's MAC address unless ``dst_mac`` says another."""

    namespace: str
    device: str
    src_mac: str | None = None
    dst_mac: str | None = None


Origin = LocalOrigin | WireOrigin


def source_for(network: Network, namespace: str, dst: IPAddress) -> IPAddress | None:
    """The address that a process in ``namespace`` would send from to reach ``dst``; None without a route."""
    result = Fib(network.namespace(namespace)).lookup(dst)
    return result.prefsrc
