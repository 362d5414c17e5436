"""policy.networking.k8s.io/v1alpha2: ClusterNetworkPolicy, tiers Admin and Baseline."""

from __future__ import annotations

from typing import Any

from netsim.kube.objects import Resource
from netsim_policies.algebra import MAX_PORT, MIN_PORT
from netsim_policies.apis import peers as shared
from netsim_policies.apis.schema import PROTOCOLS, Checker
from netsim_policies.model import Action, Direction, NamedPort, Policy, Port, PortRange, Rule

KINDS = ("ClusterNetworkPolicy",)
_MOST = 25
_ACTIONS = {"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}
_KINDS_WITHOUT_NAMES = "networks/nodes/domainNames"


def read(resource: Resource) -> Policy:
    check = Checker(resource)
    spec = check.object(resource.body.get("spec"), "spec")
    check.known(spec, "spec", "tier", "priority", "subject", "ingress", "egress")
    policy = Policy(
        kind=resource.kind,
        namespace="",
        name=resource.name,
        tier=check.one_of(spec.get("tier"), "spec.tier", ("Admin", "Baseline")),
        priority=check.integer(spec.get("priority"), "spec.priority", 0, 1000),
        subject=shared.subject(check, spec),
        directions=frozenset(d for d in Direction if spec.get(d.value.lower())),
        ingress=_rules(check, spec, Direction.INGRESS),
        egress=_rules(check, spec, Direction.EGRESS),
        source=resource.source,
    )
    check.finish()
    return policy


def _rules(check: Checker, spec: dict[str, Any], direction: Direction) -> tuple[Rule, ...]:
    section, side = direction.value.lower(), "from" if direction is Direction.INGRESS else "to"
    found: list[Rule] = []
    for index, item in enumerate(check.items(spec.get(section), f"spec.{section}", _MOST)):
        path = f"spec.{section}[{index}]"
        rule = check.object(item, path)
        check.known(rule, path, "name", "action", side, "protocols")
        action = _ACTIONS[check.one_of(rule.get("action"), f"{path}.action", tuple(_ACTIONS))]
        listed = check.items(rule.get(side), f"{path}.{side}", _MOST, 1, required=True)
        chosen = shared.peers(check, listed, f"{path}.{side}", direction)
        ports = None
        if rule.get("protocols") is not None:
            entries = check.items(rule["protocols"], f"{path}.protocols", _MOST, 1)
            ports = tuple(p for i, e in enumerate(entries) for p in _protocol(check, e, f"{path}.protocols[{i}]"))
            shared.check_named_ports(check, chosen, ports, path, _KINDS_WITHOUT_NAMES)
        found.append(shared.closed(Rule(action, chosen, ports, path, str(rule.get("name") or ""))))
    return tuple(found)


def _protocol(check: Checker, item: Any, field: str) -> list[Port]:
    value = check.object(item, field)
    check.exactly_one(value, field)
    if "destinationNamedPort" in value:
        return [NamedPort(check.text(value["destinationNamedPort"], f"{field}.destinationNamedPort"), None)]
    for protocol in PROTOCOLS:
        name = protocol.lower()
        if name in value:
            inner = check.object(value[name], f"{field}.{name}")
            check.exactly_one(inner, f"{field}.{name}")
            check.known(inner, f"{field}.{name}", "destinationPort")
            return [_port(check, inner.get("destinationPort"), f"{field}.{name}.destinationPort", protocol)]
    check.known(value, field, "tcp", "udp", "sctp", "destinationNamedPort")
    return []


def _port(check: Checker, item: Any, field: str, protocol: str) -> PortRange:
    if item is None:
        return PortRange(protocol, MIN_PORT, MAX_PORT)
    value = check.object(item, field)
    check.exactly_one(value, field)
    check.known(value, field, "number", "range")
    if "range" in value:
        given = check.object(value["range"], f"{field}.range")
        low, high = check.range(
            given.get("start"), given.get("end"), f"{field}.range", "Start port must be less than End port"
        )
        return PortRange(protocol, low, high)
    number = check.integer(value.get("number"), f"{field}.number", 1, 65535)
    return PortRange(protocol, number, number)
