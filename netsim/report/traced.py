"""What a report is made of: the question as it was asked, and the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from netsim.interpreter.outcome import Disposition, Outcome
from netsim.packet.address import IPAddress
from netsim.packet.model import Packet

Naming = Callable[[str, IPAddress, int | None], str]  # (namespace, address, port) → the place's name


def plain_name(namespace: str, address: IPAddress, port: int | None) -> str:
    """Without Kubernetes objects a namespace is all there is to name."""
    return namespace


@dataclass(frozen=True)
class Traced:
    """``origin`` and ``target`` as places are named; ``replies`` by the position of the outcome they answer."""

    origin: str
    target: str
    packet: Packet
    outcomes: tuple[Outcome, ...]
    replies: Mapping[int, tuple[Outcome, ...]] = field(default_factory=dict)
    naming: Naming = plain_name

    def receiver(self, outcome: Outcome) -> str | None:
        """Who received it; "external" for what left the modelled world, None if nobody did."""
        if outcome.disposition is Disposition.LEFT:
            return "external"
        if outcome.disposition is not Disposition.DELIVERED or outcome.receiver is None:
            return None
        return self.naming(outcome.receiver, outcome.packet.dst, outcome.packet.dport)
