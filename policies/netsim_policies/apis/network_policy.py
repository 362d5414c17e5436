"""networking.k8s.io/v1 NetworkPolicy.

The loader has validated and defaulted the object (``policyTypes``: Ingress always, Egress when ``egress`` has an element);
the defaults are applied here as well, so that a policy built in Python means the same. A section that ``policyTypes`` does
not name is ignored even when filled in; missing ``from``/``to``/``ports`` and empty ones mean everything.
"""

from __future__ import annotations

from typing import Any

from netsim.kube.objects import Resource
from netsim_policies.algebra import MAX_PORT, MIN_PORT, AddressSet
from netsim_policies.model import (
    NETWORK_POLICY,
    Action,
    AddressPeer,
    Direction,
    NamedPort,
    Peer,
    PodPeer,
    Policy,
    Port,
    PortRange,
    Rule,
    Scope,
)

KINDS = ("NetworkPolicy",)


def read(resource: Resource) -> Policy:
    spec = resource.spec
    namespace = resource.namespace or "default"
    return Policy(
        kind="NetworkPolicy",
        namespace=namespace,
        name=resource.name,
        tier=NETWORK_POLICY.name,
        priority=0,
        subject=Scope(namespace=namespace, pods=spec.get("podSelector") or {}),
        directions=_directions(spec),
        ingress=_rules(spec.get("ingress"), "from", "ingress", namespace),
        egress=_rules(spec.get("egress"), "to", "egress", namespace),
        source=resource.source,
    )


def _directions(spec: dict[str, Any]) -> frozenset[Direction]:
    types = spec.get("policyTypes")
    if types:
        return frozenset(Direction(t) for t in types)
    return frozenset((Direction.INGRESS, Direction.EGRESS) if spec.get("egress") else (Direction.INGRESS,))


def _rules(rules: list[dict[str, Any]] | None, side: str, section: str, namespace: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            action=Action.ALLOW,
            peers=tuple(_peer(peer, namespace) for peer in rule[side]) if rule.get(side) else None,
            ports=tuple(_port(port) for port in rule["ports"]) if rule.get("ports") else None,
            path=f"spec.{section}[{index}]",
        )
        for index, rule in enumerate(rules or ())
        if rule is not None
    )


def _peer(peer: dict[str, Any], namespace: str) -> Peer:
    block = peer.get("ipBlock")
    if block is not None:
        addresses = AddressSet.cidr(block["cidr"])
        text = block["cidr"]
        for cut in block.get("except") or ():
            addresses -= AddressSet.cidr(cut)
        if block.get("except"):
            text += " except " + ", ".join(block["except"])
        return AddressPeer(addresses, text)
    namespaces, pods = peer.get("namespaceSelector"), peer.get("podSelector") or {}
    if namespaces is None:  # the policy's own namespace
        return PodPeer(Scope(namespace=namespace, pods=pods))
    return PodPeer(Scope(namespaces=namespaces, pods=pods))


def _port(port: dict[str, Any]) -> Port:
    protocol = port.get("protocol") or "TCP"
    value = port.get("port")
    if value is None:
        return PortRange(protocol, MIN_PORT, MAX_PORT)
    if isinstance(value, str):
        return NamedPort(value, protocol)
    return PortRange(protocol, value, port.get("endPort") or value)
