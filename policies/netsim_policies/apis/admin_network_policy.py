"""policy.networking.k8s.io/v1alpha1: AdminNetworkPolicy and BaselineAdminNetworkPolicy."""

from __future__ import annotations

from typing import Any

from netsim.kube.objects import Resource
from netsim_policies.apis import peers as shared
from netsim_policies.apis.schema import PROTOCOLS, Checker
from netsim_policies.model import (
    ADMIN,
    BASELINE,
    Action,
    Direction,
    NamedPort,
    Policy,
    Port,
    PortRange,
    Rule,
)

KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
_MOST_RULES = 100


def read(resource: Resource) -> Policy:
    check = Checker(resource)
    spec = check.object(resource.body.get("spec"), "spec")
    baseline = resource.kind == "BaselineAdminNetworkPolicy"
    check.known(spec, "spec", "subject", "ingress", "egress", *(() if baseline else ("priority",)))
    if baseline and resource.name != "default":
        text = 'Only one baseline admin network policy with metadata.name="default" can be created in the cluster'
        check.complain("", f'Invalid value: "object": {text}')
    policy = Policy(
        kind=resource.kind,
        namespace="",
        name=resource.name,
        tier=(BASELINE if baseline else ADMIN).name,
        priority=0 if baseline else check.integer(spec.get("priority"), "spec.priority", 0, 1000),
        subject=shared.subject(check, spec),
        directions=frozenset(d for d in Direction if spec.get(d.value.lower())),
        ingress=_rules(check, spec, Direction.INGRESS, baseline),
        egress=_rules(check, spec, Direction.EGRESS, baseline),
        source=resource.source,
    )
    check.finish()
    return policy


def _rules(check: Checker, spec: dict[str, Any], direction: Direction, baseline: bool) -> tuple[Rule, ...]:
    section, side = direction.value.lower(), "from" if direction is Direction.INGRESS else "to"
    actions = ("Allow", "Deny") if baseline else ("Allow", "Deny", "Pass")
    found: list[Rule] = []
    for index, item in enumerate(check.items(spec.get(section), f"spec.{section}", _MOST_RULES)):
        path = f"spec.{section}[{index}]"
        rule = check.object(item, path)
        check.known(rule, path, "name", "action", side, "ports")
        action = Action(check.one_of(rule.get("action"), f"{path}.action", actions))
        listed = check.items(rule.get(side), f"{path}.{side}", _MOST_RULES, 1, required=True)
        chosen = shared.peers(check, listed, f"{path}.{side}", direction)
        ports = None
        if rule.get("ports") is not None:
            entries = check.items(rule["ports"], f"{path}.ports", _MOST_RULES, 1)
            ports = tuple(p for i, e in enumerate(entries) for p in _port(check, e, f"{path}.ports[{i}]"))
            kinds = "networks/nodes" if baseline else "networks/nodes/domainNames"
            shared.check_named_ports(check, chosen, ports, path, kinds)
        found.append(shared.closed(Rule(action, chosen, ports, path, str(rule.get("name") or ""))))
    return tuple(found)


def _port(check: Checker, item: Any, field: str) -> list[Port]:
    value = check.object(item, field)
    check.exactly_one(value, field)
    if "portNumber" in value:
        number = check.object(value["portNumber"], f"{field}.portNumber")
        check.known(number, f"{field}.portNumber", "protocol", "port")
        protocol = check.one_of(number.get("protocol"), f"{field}.portNumber.protocol", PROTOCOLS, "TCP")
        port = check.integer(number.get("port"), f"{field}.portNumber.port", 1, 65535)
        return [PortRange(protocol, port, port)]
    if "portRange" in value:
        given = check.object(value["portRange"], f"{field}.portRange")
        check.known(given, f"{field}.portRange", "protocol", "start", "end")
        protocol = check.one_of(given.get("protocol"), f"{field}.portRange.protocol", PROTOCOLS, "TCP")
        low, high = check.range(given.get("start"), given.get("end"), f"{field}.portRange")
        return [PortRange(protocol, low, high)]
    if "namedPort" in value:
        return [NamedPort(check.text(value["namedPort"], f"{field}.namedPort"), None)]
    check.known(value, field, "portNumber", "portRange", "namedPort")
    return []
