"""What kernels remember from packet to packet: conntrack, rule state, learnt path MTUs. Cheap to copy for branching."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from netsim.linux.conntrack import Table
from netsim.linux.ipset import IpSet
from netsim.packet.address import IPAddress
from netsim.packet.model import Packet

FragmentKey = tuple[str, IPAddress, IPAddress, int, int]  # who gathers, source, destination, protocol, identification


@dataclass(slots=True)
class NamespaceState:
    """The memory of one namespace. ``counters`` are nfacct's; ``rates`` belong to limit, hashlimit and
    statistic; ``ipsets`` are those that rules have changed."""

    conntrack: Table = field(default_factory=Table)
    recent: dict[str, dict[IPAddress, list[float]]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    rates: dict[object, dict[str, float]] = field(default_factory=dict)
    ipsets: dict[str, IpSet] = field(default_factory=dict)
    ident: int = 0
    first_ports: list[int] = field(default_factory=list)  # where searches for free ports start, for the kernel's draws
    path_mtu: dict[IPAddress, int] = field(default_factory=dict)
    told: MutableMapping[IPAddress, tuple[float, float]] = field(
        default_factory=dict
    )  # replies.tells: (allowance, when) by sender
    fragments: dict[FragmentKey, list[Packet]] = field(default_factory=dict)

    def copy(self) -> NamespaceState:
        return NamespaceState(
            self.conntrack.copy(),
            copy.deepcopy(self.recent),
            dict(self.counters),
            {key: dict(value) for key, value in self.rates.items()},
            dict(self.ipsets),
            self.ident,
            list(self.first_ports),
            dict(self.path_mtu),
            dict(self.told),
            {key: list(value) for key, value in self.fragments.items()},
        )


@dataclass(slots=True)
class State:
    """The memory of the whole network, and the simulated clock in seconds."""

    now: float = 0.0
    namespaces: dict[str, NamespaceState] = field(default_factory=dict)

    def of(self, namespace: str) -> NamespaceState:
        found = self.namespaces.get(namespace)
        if found is None:
            found = self.namespaces[namespace] = NamespaceState()
        return found

    def copy(self) -> State:
        return State(self.now, {name: held.copy() for name, held in self.namespaces.items()})
