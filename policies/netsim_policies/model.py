"""The one model behind every policy API.

Each API is a module that reads its objects into ``Policy`` values; evaluation, explanation, diff and lint know only these.
The model is tiered, as ClusterNetworkPolicy and Calico are; NetworkPolicy is one tier in the middle:

    Admin tier ─────▶ NetworkPolicy tier ─────▶ Baseline tier ─────▶ allowed
    first match wins   any allow wins;           first match wins
    Allow/Deny end,    selected but not
    Pass → next tier   allowed = denied

A tier whose policies select the endpoint in a direction, but none of whose rules match, ends with its ``unmatched``
action: PASS for Admin and Baseline, DENY for NetworkPolicy (isolation) and for Calico tiers. Since NetworkPolicy rules
only allow, "first match wins" and "any allow wins" are the same walk: one evaluator serves all.

Other tiered APIs fit in by adding members, not by changing the walk: tiers are a list with an ``unmatched`` action each,
``LOG`` rules decide nothing, and a peer is one of a closed set of kinds. A peer that asks for labels *and* addresses needs
no more than a kind of its own, since rows of the matrix keep the two answers apart until a pair of them is valued.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netsim.errors import Source
from netsim.packet.address import IPAddress
from netsim_policies.algebra import AddressSet

Selector = Mapping[str, Any]  # a LabelSelector as JSON; {} selects everything


def requirements(selector: Selector) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """A LabelSelector as (key, operator, values)."""
    for key, value in (selector.get("matchLabels") or {}).items():
        yield key, "In", (value,)
    for item in selector.get("matchExpressions") or ():
        yield item["key"], item["operator"], tuple(item.get("values") or ())


class Direction(enum.StrEnum):
    INGRESS = "Ingress"
    EGRESS = "Egress"

    @property
    def other(self) -> Direction:
        return Direction.EGRESS if self is Direction.INGRESS else Direction.INGRESS


class Action(enum.StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"
    LOG = "Log"  # Calico: no verdict, go on


@dataclass(frozen=True)
class Scope:
    """Which pods: a namespace by name, or namespaces by selector; then pods by selector.

    ``namespace`` None with ``namespaces`` None means every namespace. ``not_same``/``same`` label lists are not part of
    any API read here.
    """

    namespace: str | None = None
    namespaces: Selector | None = None
    pods: Selector = field(default_factory=dict)

    @cached_property
    def key(self) -> Any:
        """Equal for scopes that say the same, in whatever order."""
        chosen = None if self.namespaces is None else tuple(sorted(requirements(self.namespaces)))
        return self.namespace, chosen, tuple(sorted(requirements(self.pods)))


@dataclass(frozen=True)
class PodPeer:
    scope: Scope


@dataclass(frozen=True)
class NodePeer:
    """Nodes by their labels (egress only); hostNetwork pods are seen as their node."""

    nodes: Selector


@dataclass(frozen=True)
class AddressPeer:
    """Addresses, whoever has them: outside hosts, nodes and pods alike. ``text`` is for readers ("10.0.0.0/8 except …")."""

    addresses: AddressSet
    text: str


@dataclass(frozen=True)
class DomainPeer:
    """Outside names (egress Accept rules of ClusterNetworkPolicy); ``*.example.com`` covers one or more labels."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class UnknownPeer:
    """A peer with a field this version does not know: an Allow matches nothing, Deny and Pass match everything."""

    fields: tuple[str, ...]


Peer = PodPeer | NodePeer | AddressPeer | DomainPeer | UnknownPeer


@dataclass(frozen=True)
class PortRange:
    """``protocol`` None: each of TCP, UDP, SCTP."""

    protocol: str | None
    low: int
    high: int


@dataclass(frozen=True)
class NamedPort:
    """Resolved on the DESTINATION pod, also for egress; never matches an address outside or a node."""

    name: str
    protocol: str | None


Port = PortRange | NamedPort


@dataclass(frozen=True)
class Rule:
    """``peers``/``ports`` None: everybody / every port. ``path`` is the rule's field (``spec.ingress[0]``)."""

    action: Action
    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None
    path: str
    name: str = ""


@dataclass(frozen=True)
class Policy:
    """One policy object. ``directions`` are those in which it selects (isolates) its subject."""

    kind: str  # NetworkPolicy, AdminNetworkPolicy, …
    namespace: str  # "" for cluster-scoped kinds
    name: str
    tier: str
    priority: int
    subject: Scope
    directions: frozenset[Direction]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    source: Source | None = None

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress

    @property
    def label(self) -> str:
        """``NetworkPolicy shop/allow-web``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Tier:
    """``unmatched``: what happens to an endpoint that a policy here selects and no rule decides."""

    name: str
    order: float
    unmatched: Action


ADMIN = Tier("Admin", 0, Action.PASS)
NETWORK_POLICY = Tier("NetworkPolicy", 500, Action.DENY)
BASELINE = Tier("Baseline", 1000, Action.PASS)


class EndpointKind(enum.StrEnum):
    POD = "pod"
    NODE = "node"
    EXTERNAL = "external"


@dataclass(frozen=True)
class Endpoint:
    """Someone who can send or receive: a pod (or a workload standing for its pods), a node, or outside addresses.

    ``addresses`` are the endpoint's own; for EXTERNAL, ``outside`` is the set it stands for. ``named_ports`` maps
    (name, protocol) to numbers. ``node_labels`` are those of a node, or of the node that a hostNetwork pod is.
    ``workload`` groups pods for readers (``Deployment shop/web``).
    """

    kind: EndpointKind
    name: str  # "shop/web-0", "n1", "203.0.113.0/24"
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[IPAddress, ...] = ()
    outside: AddressSet | None = None
    named_ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    host_network: bool = False
    node: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    workload: str = ""
    source: Source | None = None


@dataclass(frozen=True)
class World:
    """Everything a policy question needs. Tiers are in evaluation order; policies of a tier in theirs."""

    endpoints: tuple[Endpoint, ...]
    policies: tuple[Policy, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    tiers: Sequence[Tier] = (ADMIN, NETWORK_POLICY, BASELINE)

    @cached_property
    def _by_tier(self) -> Mapping[str, Sequence[Policy]]:
        ranked: dict[str, list[Policy]] = {}
        for policy in sorted(self.policies, key=lambda p: (p.priority, p.namespace, p.name)):
            ranked.setdefault(policy.tier, []).append(policy)
        return ranked

    @cached_property
    def _by_space(self) -> dict[tuple[str, str], Sequence[Policy]]:
        return {}

    def candidates(self, tier: Tier, namespace: str) -> Sequence[Policy]:
        """Those of a tier that can select something in this namespace, in the same order."""
        key = tier.name, namespace
        if key not in self._by_space:
            self._by_space[key] = [p for p in self.of_tier(tier) if p.subject.namespace in (None, namespace)]
        return self._by_space[key]

    def of_tier(self, tier: Tier) -> Sequence[Policy]:
        """Lower priority number first; equal priorities are undefined by the APIs: by name here."""
        return self._by_tier.get(tier.name, ())
