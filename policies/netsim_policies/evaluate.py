"""The evaluator that explains: one pair of endpoints, every port, with the rule that decides each.

Obvious rather than fast: it is the reference that the class matrix (``matrix``) is held to. Semantics follow the API
documents of networking.k8s.io/v1 and policy.networking.k8s.io (v1alpha1, v1alpha2); the points that are often got wrong:

- the egress side of the source and the ingress side of the destination are decided alone, and both must allow;
- a pod always reaches its own address, and a node always reaches the pods on it (kubelet probes);
- hostNetwork pods are seen as their node and are subject to no policy; addresses outside are subject to none either;
- an address peer matches whoever has the address, pods and nodes included, per family;
- a port name is resolved on the destination pod, also for egress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netsim.kube.selectors import matches
from netsim.packet.address import Family, family_of
from netsim_policies.algebra import ALL_PORTS, NO_PORTS, PROTOCOLS, PortSet
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NamedPort,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    PortRange,
    Rule,
    Scope,
    Tier,
    UnknownPeer,
    World,
)


@dataclass(frozen=True)
class Verdict:
    """Who decided about ``ports`` in one direction. ``rule`` None with policies: selected (isolated) but not allowed;
    without policies: nothing selects the endpoint, or ``exempt`` says why policy does not apply."""

    ports: PortSet
    allowed: bool
    tier: Tier | None = None
    policies: tuple[Policy, ...] = ()
    rule: Rule | None = None
    exempt: str = ""


@dataclass(frozen=True)
class Decision:
    """``allowed`` = ports allowed by both sides. The verdicts of a side partition all ports."""

    source: Endpoint
    destination: Endpoint
    family: Family
    allowed: PortSet
    egress: tuple[Verdict, ...]
    ingress: tuple[Verdict, ...]

    def side(self, direction: Direction) -> tuple[Verdict, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


def in_scope(scope: Scope, pod: Endpoint) -> bool:
    """Is this pod in the scope? Only pods that are policy subjects and peers (not hostNetwork) ever are."""
    if pod.kind is not EndpointKind.POD or pod.host_network:
        return False
    if scope.namespace is not None and scope.namespace != pod.namespace:
        return False
    if scope.namespaces is not None and not matches(dict(scope.namespaces), pod.namespace_labels):
        return False
    return matches(dict(scope.pods), pod.labels)


def peer_matches(peer: Peer, other: Endpoint, family: Family, action: Action) -> bool:
    """Does ``peer`` mean ``other``, reached over ``family``?"""
    match peer:
        case PodPeer(scope):
            return in_scope(scope, other)
        case NodePeer(nodes):
            return _is_node(other) and matches(dict(nodes), other.node_labels)
        case AddressPeer(addresses):
            if other.outside is not None:
                whole = other.outside.of_family(family)
                inside = whole & addresses
                if inside and inside != whole:
                    raise ValueError(f"{other.name} is only partly inside {peer.text}; split it first")
                return bool(inside)
            return any(family_of(a) is family and addresses.holds(a) for a in other.addresses)
        case DomainPeer(names):
            return other.kind is EndpointKind.EXTERNAL and any(_domain_matches(name, other.name) for name in names)
        case UnknownPeer():
            return action in (Action.DENY, Action.PASS)


def _is_node(endpoint: Endpoint) -> bool:
    return endpoint.kind is EndpointKind.NODE or endpoint.host_network


def _domain_matches(pattern: str, name: str) -> bool:
    name = name.rstrip(".").lower()
    pattern = pattern.rstrip(".").lower()
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def rule_ports(rule: Rule, destination: Endpoint) -> PortSet:
    """The ports of a rule as numbers; names are looked up on ``destination``, which must be a pod to have any."""
    if rule.ports is None:
        return ALL_PORTS
    found = NO_PORTS
    for port in rule.ports:
        match port:
            case PortRange(protocol, low, high):
                for one in (protocol,) if protocol and low <= high else PROTOCOLS if low <= high else ():
                    found |= PortSet(**{one.lower(): ((low, high),)})
            case NamedPort(name, protocol):
                for one in (protocol,) if protocol else PROTOCOLS:
                    number = destination.named_ports.get((name, one))
                    if number is not None and destination.kind is EndpointKind.POD and not destination.host_network:
                        found |= PortSet.single(one, number)
    return found


def rule_matches_peer(rule: Rule, other: Endpoint, family: Family) -> bool:
    return rule.peers is None or any(peer_matches(peer, other, family, rule.action) for peer in rule.peers)


def exemption(source: Endpoint, destination: Endpoint, direction: Direction) -> str:
    """Why no policy applies to this side at all, or ''."""
    subject = destination if direction is Direction.INGRESS else source
    if subject.kind is EndpointKind.EXTERNAL:
        return "an address outside the cluster is subject to no policy"
    if subject.kind is EndpointKind.NODE:
        return "a node is subject to no NetworkPolicy"
    if subject.host_network:
        return "a hostNetwork pod is its node: subject to no NetworkPolicy"
    if source == destination:
        return "a pod always reaches its own address"
    if direction is Direction.INGRESS and _is_node(source) and source.node == destination.node and source.node:
        return "traffic from the pod's own node is always allowed"
    return ""


def decide_side(
    world: World, source: Endpoint, destination: Endpoint, family: Family, direction: Direction
) -> Iterator[Verdict]:
    """Walk the tiers for one direction; the yielded port sets partition ``ALL_PORTS``."""
    exempt = exemption(source, destination, direction)
    if exempt:
        yield Verdict(ALL_PORTS, True, exempt=exempt)
        return
    subject, other = (destination, source) if direction is Direction.INGRESS else (source, destination)
    undecided = ALL_PORTS
    for tier in world.tiers:
        there = world.candidates(tier, subject.namespace)
        selecting = [p for p in there if direction in p.directions and in_scope(p.subject, subject)]
        if not selecting or not undecided:
            continue
        passed = NO_PORTS  # ports that a Pass rule sends on to the next tier
        for policy in selecting:
            for rule in policy.rules(direction):
                if rule.action is Action.LOG or not rule_matches_peer(rule, other, family):
                    continue
                hit = rule_ports(rule, destination) & undecided
                if not hit:
                    continue
                undecided -= hit
                if rule.action is Action.PASS:
                    passed |= hit
                else:
                    yield Verdict(hit, rule.action is Action.ALLOW, tier, (policy,), rule)
        if tier.unmatched is Action.DENY:
            if undecided:
                yield Verdict(undecided, False, tier, tuple(selecting))
            undecided = passed
        else:
            undecided |= passed
    if undecided:
        yield Verdict(undecided, True)


def decide(world: World, source: Endpoint, destination: Endpoint, family: Family = Family.IPV4) -> Decision:
    """Every port from ``source`` to ``destination``, with who decides; both are members of the world or free-standing."""
    egress = tuple(decide_side(world, source, destination, family, Direction.EGRESS))
    ingress = tuple(decide_side(world, source, destination, family, Direction.INGRESS))
    return Decision(source, destination, family, _allowed(egress) & _allowed(ingress), egress, ingress)


def _allowed(verdicts: tuple[Verdict, ...]) -> PortSet:
    total = NO_PORTS
    for verdict in verdicts:
        if verdict.allowed:
            total |= verdict.ports
    return total
