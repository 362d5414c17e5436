"""What policies would have done, where the network plugin enforces none: one line beside what really happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from netsim.cli import enforcement
from netsim.interpreter import Disposition

if TYPE_CHECKING:
    from netsim.interpreter.outcome import Outcome
    from netsim.topology.assemble import Assembled
    from netsim_policies.model import Endpoint, World

_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}


def would_drop(made: Assembled, sender: str, outcomes: Sequence[Outcome]) -> str | None:
    """A sentence naming the policies that would drop a delivered packet, or None.

    ``sender`` is the namespace that sent. Policy sees the packet behind the Service: the pod's address and target port,
    and after masquerading the node's address."""
    if made.cni.enforces_policy or not enforcement.policies_count(made.cluster):
        return None
    from netsim_policies.world import world

    of = world(made.cluster.store)
    by_name = {f"{e.kind.value}/{e.name}": e for e in of.endpoints}
    found: dict[str, None] = {}
    for outcome in outcomes:
        if outcome.disposition is Disposition.DELIVERED and outcome.receiver is not None:
            source = _sender(by_name, sender, outcome)
            destination = by_name.get(outcome.receiver)
            if source is not None and destination is not None:
                found.update(dict.fromkeys(_denied(of, source, destination, outcome)))
    if not found:
        return None
    return f"a network plugin that enforces policy would drop this: {'; '.join(found)}"


def _sender(by_name: dict[str, Endpoint], sender: str, outcome: Outcome) -> Endpoint | None:
    from netsim_policies.world import outside

    return by_name.get(sender) or outside(str(outcome.packet.src))


def _denied(of: World, source: Endpoint, destination: Endpoint, outcome: Outcome) -> list[str]:
    from netsim_policies.evaluate import decide
    from netsim_policies.model import Direction

    protocol, port = _PROTOCOLS.get(outcome.packet.proto), outcome.packet.dport
    if protocol is None or port is None:
        return []
    decision = decide(of, source, destination, outcome.packet.family)
    return [
        f"{direction.value.lower()} of {(destination if direction is Direction.INGRESS else source).name} by "
        + ", ".join(f"{p.label} ({p.source})" if p.source else p.label for p in verdict.policies)
        for direction in Direction
        for verdict in decision.side(direction)
        if not verdict.allowed and verdict.ports.holds(protocol, port)
    ]
