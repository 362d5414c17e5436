"""Policies and Services that cannot mean what they say, each with its place and what to do about it.

NP001 policy-selects-nothing    warning   the policy's podSelector matches no pod
NP002 peer-matches-nothing      warning   a peer matches no pod, node or address of this input
NP003 rule-allows-nothing       error     a rule whose ports exist on no pod it selects
NP004 rule-covered              info      another rule of the same policy already covers this one
NP005 named-port-missing        error     no selected pod has a port of that name
NP006 service-cut-off           warning   no pod of the cluster can reach any of a Service's pods on its port
NP007 not-enforced              error     the cluster's network plugin enforces no policy
NP008 equal-priority            warning   two policies of a tier share a priority: their order is undefined
NP009 ingress-only-isolation    info      a policy without policyTypes and with only egress rules denies all ingress
NP010 domain-names-not-allow    warning   domainNames in a rule that does not accept: the API supports them in no other
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from netsim.errors import Source
from netsim.kube.objects import Resource, Service
from netsim.kube.selectors import matches_map
from netsim_policies.algebra import PortSet
from netsim_policies.evaluate import peer_matches, rule_ports
from netsim_policies.matrix import Matrix
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NamedPort,
    Peer,
    PodPeer,
    Policy,
    Rule,
    UnknownPeer,
    World,
)

RULES: Mapping[str, tuple[str, str]] = {
    "NP001": ("policy-selects-nothing", "warning"),
    "NP002": ("peer-matches-nothing", "warning"),
    "NP003": ("rule-allows-nothing", "error"),
    "NP004": ("rule-covered", "info"),
    "NP005": ("named-port-missing", "error"),
    "NP006": ("service-cut-off", "warning"),
    "NP007": ("not-enforced", "error"),
    "NP008": ("equal-priority", "warning"),
    "NP009": ("ingress-only-isolation", "info"),
    "NP010": ("domain-names-not-allow", "warning"),
}
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """``field`` is the API path, ``advice`` says what to do."""

    code: str
    object: str
    field: str
    message: str
    advice: str
    source: Source | None

    @property
    def name(self) -> str:
        return RULES[self.code][0]

    @property
    def severity(self) -> str:
        return RULES[self.code][1]

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        field = f" {self.field}" if self.field else ""
        return f"{where}{self.severity} {self.code} {self.object}{field}: {self.message}; {self.advice}"


def lint(
    world: World,
    services: Sequence[Service] = (),
    resources: Sequence[Resource] = (),
    not_enforced_by: str | None = None,
) -> list[Finding]:
    """All findings, by severity and place. ``resources`` are the raw NetworkPolicies (for what defaulting hides);
    ``not_enforced_by`` names the network plugin that enforces no policy."""
    matrix = Matrix(world)
    findings = [
        *_of_policies(world, matrix),
        *_of_priorities(world),
        *_of_services(world, matrix, services),
        *_of_defaults(resources),
    ]
    if not_enforced_by and world.policies:
        first = world.policies[0]
        text = f"{not_enforced_by} enforces no policy, so none of the {len(world.policies)} here has any effect"
        advice = "run a network plugin that enforces policy (Calico, Canal, Cilium …)"
        findings.append(Finding("NP007", first.label, "", text, advice, first.source))
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), str(f.source), f.code, f.object, f.field))


def _finding(code: str, policy: Policy, field: str, message: str, advice: str) -> Finding:
    return Finding(code, policy.label, field, message, advice, policy.source)


def _of_policies(world: World, matrix: Matrix) -> Iterator[Finding]:
    labels = matrix.labels
    for policy in world.policies:
        selected = [labels.examples[n] for n in labels.scope(policy.subject).tolist()]
        if not selected:
            yield _finding(
                "NP001", policy, "spec", "it selects no pod of this input", "check its selector and namespace"
            )
        for direction in Direction:
            rules = policy.rules(direction)
            for place, rule in enumerate(rules):
                yield from _of_peers(matrix, policy, rule)
                if any(isinstance(port, NamedPort) for port in rule.ports or ()):
                    targets = selected if direction is Direction.INGRESS else _destinations(matrix, rule)
                    yield from _of_ports(policy, rule, targets)
                if any(_covers(other, rule) for other in rules[:place]) and rule.action is not Action.LOG:
                    text, advice = "an earlier rule already covers it", "remove it, or narrow the earlier one"
                    yield _finding("NP004", policy, rule.path, text, advice)


def _of_peers(matrix: Matrix, policy: Policy, rule: Rule) -> Iterator[Finding]:
    for peer in rule.peers or ():
        if isinstance(peer, DomainPeer):
            if rule.action is not Action.ALLOW:
                text = "domainNames are supported only in Accept rules: what this one does is up to the network plugin"
                yield _finding("NP010", policy, rule.path, text, "accept the names, and deny networks in a later rule")
        elif isinstance(peer, AddressPeer):
            if not peer.addresses:
                text = f"{peer.text} holds no address"
                yield _finding("NP002", policy, rule.path, text, "its exceptions take everything away; narrow them")
        elif isinstance(peer, UnknownPeer):
            text = f"a peer's field {', '.join(peer.fields)} is not known to this version"
            yield _finding("NP002", policy, rule.path, text, "it fails closed: allowing rules match nothing there")
        elif not _who(matrix, peer, rule.action):
            text = "a peer matches no pod or node of this input"
            yield _finding("NP002", policy, rule.path, text, "check its selectors, or the labels of the pods you mean")


def _who(matrix: Matrix, peer: Peer, action: Action) -> list[Endpoint]:
    """An example of each class that ``peer`` matches."""
    if isinstance(peer, PodPeer):
        return [matrix.labels.examples[n] for n in matrix.labels.scope(peer.scope).tolist()]
    return [e for e in matrix.classes.examples if peer_matches(peer, e, matrix.family, action)]


def _destinations(matrix: Matrix, rule: Rule) -> list[Endpoint]:
    if rule.peers is None:
        return [e for e in matrix.labels.examples if e.kind is EndpointKind.POD]
    return [e for peer in rule.peers for e in _who(matrix, peer, rule.action) if e.kind is EndpointKind.POD]


def _of_ports(policy: Policy, rule: Rule, targets: Sequence[Endpoint]) -> Iterator[Finding]:
    names = [p for p in rule.ports or () if isinstance(p, NamedPort)]
    missing = [
        p.name
        for p in names
        if targets
        and not any(name == p.name and p.protocol in (None, proto) for t in targets for name, proto in t.named_ports)
    ]
    for name in missing:
        text = f'no pod that it applies to has a port named "{name}"'
        yield _finding("NP005", policy, rule.path, text, "name the container port, or use its number")
    if missing and len(missing) == len(rule.ports or ()) and targets:
        if not any(rule_ports(rule, t) for t in targets):
            yield _finding("NP003", policy, rule.path, "it allows no port on any pod", "give it a port that exists")


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Plain cases only: the same or more peers (by value) and the same or more ports."""
    if wide.action is not narrow.action:
        return False
    peers = wide.peers is None or (
        narrow.peers is not None and set(map(repr, narrow.peers)) <= set(map(repr, wide.peers))
    )
    if not peers:
        return False
    if wide.ports is None:
        return True
    if narrow.ports is None:
        return False
    named = {p for p in narrow.ports if isinstance(p, NamedPort)}
    nobody = Endpoint(EndpointKind.EXTERNAL, "")
    return named <= {p for p in wide.ports if isinstance(p, NamedPort)} and rule_ports(narrow, nobody) <= rule_ports(
        wide, nobody
    )


def _of_priorities(world: World) -> Iterator[Finding]:
    seen: dict[tuple[str, int], Policy] = {}
    for policy in sorted(world.policies, key=lambda p: (p.tier, p.priority, p.name)):
        if policy.kind == "NetworkPolicy":
            continue
        other = seen.setdefault((policy.tier, policy.priority), policy)
        if other is not policy:
            text = f"its priority {policy.priority} is also that of {other.label}, so which goes first is undefined"
            yield _finding("NP008", policy, "spec.priority", text, "give each its own priority")


def _of_services(world: World, matrix: Matrix, services: Sequence[Service]) -> Iterator[Finding]:
    pods: dict[str, list[int]] = {}  # by namespace
    for index, e in enumerate(world.endpoints):
        if e.kind is EndpointKind.POD and not e.host_network:
            pods.setdefault(e.namespace, []).append(index)
    of = matrix.classes.of
    everybody = np.array([index for inside in pods.values() for index in inside], np.int64)
    for service in services:
        inside = pods.get(service.namespace, ())
        backing = [i for i in inside if matches_map(service.spec.selector, world.endpoints[i].labels)]
        clients = np.unique(of[np.setdiff1d(everybody, np.array(backing, np.int64))]).tolist()
        if not backing or not clients:
            continue
        wanted = _target_ports(service, world.endpoints[backing[0]])
        behind = np.unique(of[np.array(backing, np.int64)]).tolist()
        if wanted and not any(matrix.class_ports(c, b) & wanted for b in behind for c in clients):
            text = f"no other pod can reach its pods on {wanted}"
            advice = "allow a client in the policies that select them, or remove the Service"
            name = f"Service {service.namespace}/{service.name}"
            yield Finding("NP006", name, "spec.selector", text, advice, service.source)


def _target_ports(service: Service, pod: Endpoint) -> PortSet:
    found = PortSet()
    for port in service.spec.ports:
        number = port.target_port or port.port
        if isinstance(number, str):
            number = pod.named_ports.get((number, port.protocol), 0)
        if number:
            found |= PortSet.single(port.protocol, number)
    return found


def _of_defaults(resources: Sequence[Resource]) -> Iterator[Finding]:
    for resource in resources:
        spec = resource.spec
        types = spec.get("policyTypes") or ()
        if spec.get("egress") and not spec.get("ingress") and list(types) == ["Ingress", "Egress"]:
            text = "it has only egress rules, and still denies all ingress to the pods it selects"
            advice = "write policyTypes: [Egress] if that is not meant"
            name = f"NetworkPolicy {resource.namespace}/{resource.name}"
            yield Finding("NP009", name, "spec.policyTypes", text, advice, resource.source)


def to_sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """SARIF 2.1.0, as code hosts read it."""
    levels = {"error": "error", "warning": "warning", "info": "note"}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "netsim",
                        "version": version,
                        "rules": [
                            {
                                "id": code,
                                "name": name,
                                "shortDescription": {"text": name.replace("-", " ")},
                                "defaultConfiguration": {"level": levels[severity]},
                            }
                            for code, (name, severity) in RULES.items()
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": f.code,
                        "level": levels[f.severity],
                        "message": {"text": f"{f.object} {f.field}: {f.message}; {f.advice}"},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": quote(f.source.file)},
                                    "region": {"startLine": max(f.source.line, 1)},
                                }
                            }
                        ]
                        if f.source
                        else [],
                    }
                    for f in findings
                ],
            }
        ],
    }
