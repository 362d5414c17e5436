"""Subjects and peers as AdminNetworkPolicy and ClusterNetworkPolicy write them (their shapes are the same).

A peer with no field that this version knows comes from a newer API. Such a rule must fail closed: an allowing rule then
matches nothing there, a denying or passing one is read as "deny everything".
"""

from __future__ import annotations

from typing import Any

from netsim_policies.algebra import AddressSet
from netsim_policies.apis.schema import Checker
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    DomainPeer,
    NamedPort,
    NodePeer,
    Peer,
    PodPeer,
    Port,
    Rule,
    Scope,
    UnknownPeer,
)

_POD_FIELDS = ("namespaces", "pods")
_EGRESS_FIELDS = ("namespaces", "pods", "nodes", "networks", "domainNames")


def scope(check: Checker, value: dict[str, Any], field: str) -> Scope:
    """``namespaces`` or ``pods`` of a subject or peer."""
    if "pods" in value:
        pods = check.object(value["pods"], f"{field}.pods")
        check.known(pods, f"{field}.pods", "namespaceSelector", "podSelector")
        optional: dict[str, Any] | None = {} if check.resource.kind == "ClusterNetworkPolicy" else None
        return Scope(
            namespaces=check.selector(pods.get("namespaceSelector"), f"{field}.pods.namespaceSelector", optional),
            pods=check.selector(pods.get("podSelector"), f"{field}.pods.podSelector"),
        )
    return Scope(namespaces=check.selector(value.get("namespaces"), f"{field}.namespaces"))


def subject(check: Checker, spec: dict[str, Any]) -> Scope:
    value = check.object(spec.get("subject"), "spec.subject")
    if "subject" in spec:
        check.exactly_one(value, "spec.subject")
    if not (set(value) & set(_POD_FIELDS)):
        return Scope(namespace="", pods={})  # selects nobody; already complained about
    return scope(check, value, "spec.subject")


def peers(check: Checker, items: list[Any], field: str, direction: Direction) -> tuple[Peer, ...]:
    found: list[Peer] = []
    for index, item in enumerate(items):
        path = f"{field}[{index}]"
        value = check.object(item, path)
        known = _EGRESS_FIELDS if direction is Direction.EGRESS else _POD_FIELDS
        if len(value) != 1:
            check.exactly_one(value, path)
            continue
        (name,) = value
        if name not in known:
            found.append(UnknownPeer((name,)))
        elif name in _POD_FIELDS:
            found.append(PodPeer(scope(check, value, path)))
        elif name == "nodes":
            found.append(NodePeer(check.selector(value["nodes"], f"{path}.nodes")))
        elif name == "networks":
            blocks = check.items(value["networks"], f"{path}.networks", 25, 1)
            addresses = AddressSet()
            for number, block in enumerate(blocks):
                addresses |= AddressSet.prefix(check.cidr(block, f"{path}.networks[{number}]"))
            found.append(AddressPeer(addresses, ", ".join(map(str, blocks))))
        else:
            names = check.items(value["domainNames"], f"{path}.domainNames", 25, 1)
            found.append(DomainPeer(tuple(check.domain(n, f"{path}.domainNames[{i}]") for i, n in enumerate(names))))
    return tuple(found)


def closed(rule: Rule) -> Rule:
    """The rule as it fails closed when one of its peers is unknown."""
    if rule.peers is None or not any(isinstance(p, UnknownPeer) for p in rule.peers):
        return rule
    if rule.action is Action.ALLOW:
        return rule  # an unknown peer of an allowing rule matches nothing
    return Rule(Action.DENY, None, None, rule.path, rule.name)


def check_named_ports(
    check: Checker, chosen: tuple[Peer, ...], ports: tuple[Port, ...], field: str, kinds: str
) -> None:
    outside = any(isinstance(p, NodePeer | AddressPeer | DomainPeer) for p in chosen)
    if outside and any(isinstance(p, NamedPort) for p in ports):
        text = f"{kinds} peer cannot be set with namedPorts since there are no namedPorts for {kinds}"
        check.complain(field, f'Invalid value: "object": {text}')
