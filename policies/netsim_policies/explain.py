"""Which policies decide between two endpoints, and why: every tier, every policy, and the first reason why not.

``explain`` gives values; ``to_json`` and ``to_text`` spell them. The verdicts come from ``evaluate.decide``; this module
adds, for policies and rules that took no part, the first thing about them that did not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netsim.packet.address import Family
from netsim_policies.algebra import PortSet
from netsim_policies.evaluate import (
    Decision,
    Verdict,
    decide,
    exemption,
    in_scope,
    rule_matches_peer,
    rule_ports,
)
from netsim_policies.model import (
    AddressPeer,
    Direction,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    Rule,
    Scope,
    Selector,
    Tier,
    UnknownPeer,
    World,
    requirements,
)


@dataclass(frozen=True)
class RuleNote:
    """One rule against this pair: ``ports`` it covers (empty with a ``reason`` when it does not match)."""

    rule: Rule
    ports: PortSet
    reason: str


@dataclass(frozen=True)
class PolicyNote:
    """One policy against this pair. ``reason``: why it does not select the subject, or ''."""

    tier: Tier
    policy: Policy
    selects: bool
    reason: str
    rules: tuple[RuleNote, ...] = ()


@dataclass(frozen=True)
class Side:
    """One direction. ``selecting`` are the policies that select the subject; ``policies`` adds all others with the reason
    why not, worked out when asked for: of a large cluster's policies nearly all do not."""

    direction: Direction
    exempt: str
    subject: Endpoint
    selecting: tuple[PolicyNote, ...]
    verdicts: tuple[Verdict, ...]
    world: World = field(repr=False)

    @property
    def others(self) -> int:
        """How many policies do not select the subject."""
        return 0 if self.exempt else len(self.world.policies) - len(self.selecting)

    @cached_property
    def policies(self) -> tuple[PolicyNote, ...]:
        if self.exempt:
            return ()
        selecting = {id(note.policy): note for note in self.selecting}
        return tuple(
            selecting.get(id(policy)) or PolicyNote(tier, policy, False, self._why_not(policy))
            for tier in self.world.tiers
            for policy in self.world.of_tier(tier)
        )

    def _why_not(self, policy: Policy) -> str:
        if self.direction not in policy.directions:
            return f"it says nothing about {self.direction.value.lower()}"
        return why_not_in_scope(policy.subject, self.subject)


@dataclass(frozen=True)
class Explanation:
    decision: Decision
    sides: tuple[Side, Side]  # egress of the source, ingress of the destination


def explain(world: World, source: Endpoint, destination: Endpoint, family: Family = Family.IPV4) -> Explanation:
    decision = decide(world, source, destination, family)
    egress, ingress = (
        Side(
            direction,
            exemption(source, destination, direction),
            source if direction is Direction.EGRESS else destination,
            tuple(_notes(world, source, destination, family, direction)),
            decision.side(direction),
            world,
        )
        for direction in (Direction.EGRESS, Direction.INGRESS)
    )
    return Explanation(decision, (egress, ingress))


def _notes(
    world: World, source: Endpoint, destination: Endpoint, family: Family, direction: Direction
) -> Iterator[PolicyNote]:
    if exemption(source, destination, direction):
        return
    subject, other = (destination, source) if direction is Direction.INGRESS else (source, destination)
    for tier in world.tiers:
        for policy in world.candidates(tier, subject.namespace):
            if direction in policy.directions and in_scope(policy.subject, subject):
                notes = tuple(_rule_note(rule, other, destination, family) for rule in policy.rules(direction))
                yield PolicyNote(tier, policy, True, "", notes)


def _rule_note(rule: Rule, other: Endpoint, destination: Endpoint, family: Family) -> RuleNote:
    if not rule_matches_peer(rule, other, family):
        reasons = [why_not_peer(peer, other, family) for peer in rule.peers or ()]
        return RuleNote(rule, PortSet(), "; ".join(dict.fromkeys(reasons)))
    ports = rule_ports(rule, destination)
    return RuleNote(rule, ports, "" if ports else f"{destination.name} has no port of the name it asks for")


# -- reasons ---------------------------------------------------------------------------------------------------------
def why_not_in_scope(scope: Scope, pod: Endpoint) -> str:
    """The first reason why ``pod`` is not in ``scope``; '' when it is."""
    if pod.kind is EndpointKind.NODE:
        return f"{pod.name} is a node, not a pod"
    if pod.kind is EndpointKind.EXTERNAL:
        return f"{pod.name} is outside the cluster, not a pod"
    if pod.host_network:
        return f"{pod.name} uses its node's network and is not seen as a pod"
    if scope.namespace is not None and scope.namespace != pod.namespace:
        return f"{pod.name} is in namespace {pod.namespace}, not {scope.namespace}"
    if scope.namespaces is not None:
        reason = why_not_selected(scope.namespaces, pod.namespace_labels, f"namespace {pod.namespace}")
        if reason:
            return reason
    return why_not_selected(scope.pods, pod.labels, pod.name)


def why_not_selected(selector: Selector, labels: Mapping[str, str], who: str) -> str:
    for key, operator, values in requirements(selector):
        held = f'has {key}="{labels[key]}"' if key in labels else f"has no label {key}"
        wanted = " or ".join(f'"{value}"' for value in values)
        match operator:
            case "In" if key not in labels or labels[key] not in values:
                return f"{who} {held}, not {wanted}"
            case "NotIn" if key in labels and labels[key] in values:
                return f"{who} {held}, which is excluded"
            case "Exists" if key not in labels:
                return f"{who} {held}"
            case "DoesNotExist" if key in labels:
                return f"{who} {held}, and must not have that label"
            case _:
                pass
    return ""


def why_not_peer(peer: Peer, other: Endpoint, family: Family) -> str:
    match peer:
        case PodPeer(scope):
            return why_not_in_scope(scope, other)
        case AddressPeer(_, text):
            shown = ", ".join(str(a) for a in other.addresses) or other.name
            return f"{shown} is not in {text}"
        case NodePeer(nodes):
            if other.kind is not EndpointKind.NODE and not other.host_network:
                return f"{other.name} is not a node"
            return why_not_selected(nodes, other.node_labels, f"node {other.node or other.name}")
        case DomainPeer(names):
            return f"{other.name} is not {' or '.join(names)}"
        case UnknownPeer(fields):
            return f"the peer's field {', '.join(fields)} is not known to this version"


# -- spelling --------------------------------------------------------------------------------------------------------
def to_json(explanation: Explanation) -> dict[str, Any]:
    """Stable keys: from, to, family, allowed, sides[direction, exempt, verdicts[], policies[]]."""
    decision = explanation.decision
    return {
        "apiVersion": "netsim/v1alpha1",
        "kind": "Explanation",
        "from": decision.source.name,
        "to": decision.destination.name,
        "family": f"IPv{decision.family.value}",
        "allowed": ports_json(decision.allowed),
        "sides": [_side_json(side) for side in explanation.sides],
    }


def ports_json(ports: PortSet) -> list[dict[str, Any]]:
    return [{"protocol": protocol, "ports": ports.texts(protocol)} for protocol, _ in ports.items()]


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "direction": side.direction.value,
        "exempt": side.exempt or None,
        "verdicts": [
            {
                "ports": ports_json(verdict.ports),
                "allowed": verdict.allowed,
                "tier": verdict.tier.name if verdict.tier else None,
                "policies": [_policy_json(p) for p in verdict.policies],
                "rule": verdict.rule.path if verdict.rule else None,
                "because": because(verdict),
            }
            for verdict in side.verdicts
        ],
        "policies": [
            {
                **_policy_json(note.policy),
                "tier": note.tier.name,
                "selects": note.selects,
                "reason": note.reason or None,
                "rules": [
                    {
                        "path": r.rule.path,
                        "action": r.rule.action.value,
                        "ports": ports_json(r.ports),
                        "reason": r.reason or None,
                    }
                    for r in note.rules
                ],
            }
            for note in side.policies
        ],
    }


def _policy_json(policy: Policy) -> dict[str, Any]:
    return {
        "kind": policy.kind,
        "namespace": policy.namespace or None,
        "name": policy.name,
        "source": str(policy.source) if policy.source else None,
    }


def because(verdict: Verdict) -> str:
    """One phrase for a reader."""
    if verdict.exempt:
        return verdict.exempt
    if verdict.rule is not None:
        policy = verdict.policies[0]
        named = f' "{verdict.rule.name}"' if verdict.rule.name else ""
        return f"{policy.label} {verdict.rule.path}{named} ({where(policy)})"
    if verdict.policies:
        listed = ", ".join(f"{p.label} ({where(p)})" for p in verdict.policies)
        return f"selected by {listed}, and no rule allows it"
    return "no policy selects it in this direction"


def where(policy: Policy) -> str:
    return str(policy.source) if policy.source else "no source"


def to_text(explanation: Explanation, *, everything: bool = False) -> Iterator[str]:
    """Lines for a reader. ``everything`` lists also the policies that do not select the subject."""
    decision = explanation.decision
    yield f"{decision.source.name} -> {decision.destination.name} (IPv{decision.family.value})"
    for side in explanation.sides:
        subject = decision.source if side.direction is Direction.EGRESS else decision.destination
        yield f"  {side.direction.value} of {subject.name}"
        if side.exempt:
            yield f"    allowed: {side.exempt}"
            continue
        for note in side.policies if everything else side.selecting:
            yield f"    {note.tier.name}: {note.policy.label} ({where(note.policy)})"
            if not note.selects:
                yield f"      does not select it: {note.reason}"
            for r in note.rules:
                told = f"{r.rule.action.value} {r.ports}" if not r.reason else f"does not match: {r.reason}"
                yield f"      {r.rule.path}: {told}"
            if note.selects and not note.rules:
                yield "      no rules"
        if side.others and not everything:
            other = "other " if side.selecting else ""
            noun = "policy does" if side.others == 1 else "policies do"
            yield f"    {side.others} {other}{noun} not select it (-v lists them)"
        for verdict in side.verdicts:
            yield f"    {'allowed' if verdict.allowed else 'DENIED '} {verdict.ports}: {because(verdict)}"
    yield f"  {'ALLOWED ' + str(decision.allowed) if decision.allowed else 'DENIED'}"


__all__ = ["Explanation", "because", "explain", "ports_json", "to_json", "to_text", "where"]
