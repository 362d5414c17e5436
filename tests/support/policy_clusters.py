"""Small adversarial clusters as the API's own JSON, and the most naive evaluator of it there can be: one pair, one port,
yes or no, from the raw objects. It shares no code with the model, its sets or its matrix.

Shared labels, missing keys, empty selectors and values, overlapping blocks over pods, nodes and outside addresses, port
names that differ between pods, hostNetwork, both families, every API, action and peer kind.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from netsim.errors import Source
from netsim.kube.objects import Meta, Resource
from netsim.packet.address import ip
from netsim_policies.algebra import AddressSet
from netsim_policies.apis import apis
from netsim_policies.model import Endpoint, EndpointKind, World

Json = dict[str, Any]

KEYS, VALUES = ("app", "tier", "x"), ("a", "b", "")
SPACES = ("one", "two", "three")
V4_BLOCKS = ("10.0.0.0/24", "10.0.0.0/29", "10.0.0.4/31", "10.0.0.5/32", "0.0.0.0/0", "192.168.0.1/32", "192.168.0.0/16",
             "203.0.113.0/24", "10.0.0.6/8", "128.0.0.0/1")  # fmt: skip
V6_BLOCKS = ("fd00::/64", "fd00::2/127", "fd00::5/128", "::/0", "2001:db8::/32")
PORTS = (1, 53, 79, 80, 81, 90, 443, 8080, 65535)
PROTOCOLS = ("TCP", "UDP", "SCTP")
NAMES = (("http", "TCP"), ("http", "UDP"), ("dns", "UDP"), ("sig", "SCTP"))
DOMAINS = ("www.example.com", "*.example.com", "example.com")


@dataclass
class Party:
    """Someone of a generated cluster. ``labels`` are a pod's or a node's."""

    kind: str  # pod, host (a hostNetwork pod), node, outside
    name: str
    addresses: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    space: str = ""
    node: str = ""
    names: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class Drawn:
    """A generated cluster: raw policies and parties, and the same as a ``World``."""

    spaces: dict[str, dict[str, str]]
    parties: list[Party]
    policies: list[Json]

    def endpoint(self, party: Party) -> Endpoint:
        nodes = {p.name: p for p in self.parties if p.kind == "node"}
        if party.kind == "outside":
            parts = AddressSet()
            for text in party.addresses:
                parts |= AddressSet.prefix(text)
            return Endpoint(EndpointKind.EXTERNAL, party.name, outside=parts)
        addresses = tuple(ip(a) for a in party.addresses)
        if party.kind == "node":
            return Endpoint(
                EndpointKind.NODE, party.name, node=party.name, labels=party.labels, node_labels=party.labels,
                addresses=addresses,
            )  # fmt: skip
        host = party.kind == "host"
        return Endpoint(
            EndpointKind.POD, party.name, namespace=party.space, labels=party.labels,
            namespace_labels=self.spaces[party.space], addresses=addresses, named_ports=party.names, host_network=host,
            node=party.node, node_labels=nodes[party.node].labels if host else {},
        )  # fmt: skip

    def read(self, raw: Json) -> Any:
        meta = Meta(name=raw["metadata"]["name"], namespace=raw["metadata"].get("namespace", ""))
        return apis()[raw["kind"]].read(Resource(kind=raw["kind"], metadata=meta, body=raw, source=Source("drawn")))

    def world(self) -> World:
        endpoints = tuple(self.endpoint(p) for p in self.parties)
        return World(endpoints, tuple(self.read(raw) for raw in self.policies), self.spaces)


# -- drawing ---------------------------------------------------------------------------------------------------------
def draw(seed: int | str) -> Drawn:
    r = Random(seed)
    spaces = {s: {**labels(r), "kubernetes.io/metadata.name": s} for s in SPACES}
    nodes = [
        Party("node", f"n{i}", (f"192.168.0.{i + 1}", f"fd01::{i + 1}", *([f"203.0.113.{i}"] if i else [])), labels(r))
        for i in range(2)
    ]
    pods = [pod(r, i, nodes) for i in range(r.randint(2, 6))]
    outside = [
        Party("outside", text, (text,))
        for text in ("203.0.113.9/32", "198.51.100.0/24", "10.0.0.7/32", "2001:db8::1/128")
    ]
    outside += [
        Party("outside", name, ("192.0.2.1/32", "2001:db9::1/128")) for name in ("www.example.com", "example.com")
    ]
    policies = {
        (p["kind"], p["metadata"]["name"]): p for p in (policy(r, i) for i in range(r.choice((0, 1, 2, 3, 4, 6))))
    }
    return Drawn(spaces, [*pods, *nodes, *outside], list(policies.values()))


def labels(r: Random) -> dict[str, str]:
    return {key: r.choice(VALUES) for key in KEYS if r.random() < 0.6}


def pod(r: Random, number: int, nodes: list[Party]) -> Party:
    on = r.choice(nodes)
    space = r.choice(SPACES)
    host = r.random() < 0.15
    names = {name: r.choice((80, 81, 8080)) for name in NAMES if r.random() < 0.4}
    own = (f"10.0.0.{number + 2}", f"fd00::{number + 1}")
    if r.random() < 0.1:
        own = own[:1]
    return Party(
        "host" if host else "pod",
        f"{space}/pod-{number}",
        on.addresses if host else own,
        labels(r),
        space,
        on.name,
        names,
    )


def policy(r: Random, number: int) -> Json:
    kind = r.choice(
        ("NetworkPolicy",) * 3 + ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
    )
    if kind == "NetworkPolicy":
        return _network_policy(r, number)
    spec: Json = {"subject": _subject(r)}
    name = f"p{number}"
    most = 100 if kind == "AdminNetworkPolicy" else 25
    if kind == "BaselineAdminNetworkPolicy":
        name = "default"
    else:
        spec["priority"] = r.randint(0, 3)
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = r.choice(("Admin", "Baseline"))
    for section, side in (("ingress", "from"), ("egress", "to")):
        if r.random() < 0.7:
            spec[section] = [_admin_rule(r, kind, section, side) for _ in range(r.randint(0, min(3, most)))]
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return {"apiVersion": f"policy.networking.k8s.io/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _network_policy(r: Random, number: int) -> Json:
    spec: Json = {}
    if r.random() < 0.9:
        spec["podSelector"] = selector(r)
    if r.random() < 0.7:
        spec["policyTypes"] = r.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"]))
    for section, side in (("ingress", "from"), ("egress", "to")):
        if r.random() < 0.6:
            spec[section] = [_rule(r, side) for _ in range(r.randint(0, 3))]
    meta = {"name": f"p{number}", "namespace": r.choice(SPACES)}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def _rule(r: Random, side: str) -> Json:
    rule: Json = {}
    if r.random() < 0.8:
        rule[side] = [_peer(r) for _ in range(r.choice((0, 1, 1, 2)))]
    if r.random() < 0.7:
        rule["ports"] = [_port(r) for _ in range(r.choice((0, 1, 1, 2)))]
    return rule


def _peer(r: Random) -> Json:
    kind = r.random()
    if kind < 0.35:
        block: Json = {"cidr": r.choice(V4_BLOCKS + V6_BLOCKS)}
        inner = [b for b in V4_BLOCKS + V6_BLOCKS if b != block["cidr"] and _inside(b, block["cidr"])]
        if inner and r.random() < 0.5:
            block["except"] = r.sample(inner, r.randint(1, min(2, len(inner))))
        return {"ipBlock": block}
    peer: Json = {}
    if kind < 0.75:
        peer["podSelector"] = selector(r)
    if kind > 0.6:
        peer["namespaceSelector"] = selector(r, spaces=True)
    return peer


def _inside(inner: str, outer: str) -> bool:
    a, b = ipaddress.ip_network(inner, strict=False), ipaddress.ip_network(outer, strict=False)
    return a.version == b.version and a.subnet_of(b)  # type: ignore[arg-type]


def _port(r: Random) -> Json:
    port: Json = {}
    if r.random() < 0.7:
        port["protocol"] = r.choice(PROTOCOLS)
    kind = r.random()
    if kind < 0.3:
        port["port"] = r.choice(("http", "dns", "sig"))
    elif kind < 0.9:
        port["port"] = low = r.choice((1, 79, 80, 81, 443))
        if r.random() < 0.3:
            port["endPort"] = low + r.choice((0, 1, 10))
    return port


def selector(r: Random, spaces: bool = False) -> Json:
    kind = r.random()
    if kind < 0.2:
        return {}
    if spaces and kind < 0.4:
        return {"matchLabels": {"kubernetes.io/metadata.name": r.choice(SPACES)}}
    found: Json = {}
    if kind < 0.7:
        found["matchLabels"] = {key: r.choice(VALUES) for key in r.sample(KEYS, r.choice((1, 1, 2)))}
    if kind > 0.6:
        found["matchExpressions"] = [_expression(r) for _ in range(r.choice((1, 1, 2)))]
    return found


def _expression(r: Random) -> Json:
    operator = r.choice(("In", "NotIn", "Exists", "DoesNotExist"))
    made: Json = {"key": r.choice(KEYS), "operator": operator}
    if operator in ("In", "NotIn"):
        made["values"] = r.sample(VALUES, r.randint(1, 2))
    return made


def _subject(r: Random) -> Json:
    if r.random() < 0.4:
        return {"namespaces": selector(r, spaces=True)}
    return {"pods": {"namespaceSelector": selector(r, spaces=True), "podSelector": selector(r)}}


def _admin_rule(r: Random, kind: str, section: str, side: str) -> Json:
    cluster = kind == "ClusterNetworkPolicy"
    actions = ("Allow", "Deny") if kind == "BaselineAdminNetworkPolicy" else ("Allow", "Deny", "Pass")
    action = r.choice(actions)
    rule: Json = {"action": "Accept" if cluster and action == "Allow" else action}
    chosen = [_admin_peer(r, section, kind) for _ in range(r.choice((1, 1, 2)))]
    rule[side] = chosen
    if r.random() < 0.6:
        named = not any(set(p) & {"nodes", "networks", "domainNames"} for p in chosen)
        make = _cluster_port if cluster else _admin_port
        rule["protocols" if cluster else "ports"] = [make(r, named) for _ in range(r.choice((1, 1, 2)))]
    return rule


def _admin_peer(r: Random, section: str, kind: str) -> Json:
    what = r.random()
    if what < 0.04:
        return {"serviceAccounts": {}}  # of an API to come
    if section == "egress" and what < 0.5:
        if what < 0.15:
            return {"nodes": selector(r)}
        if what < 0.25 and kind == "ClusterNetworkPolicy":
            return {"domainNames": [r.choice(DOMAINS)]}
        return {"networks": r.sample(V4_BLOCKS + V6_BLOCKS, r.randint(1, 2))}
    return _subject(r)


def _admin_port(r: Random, named: bool) -> Json:
    kind = r.random()
    if named and kind < 0.3:
        return {"namedPort": r.choice(("http", "dns", "sig"))}
    protocol = {"protocol": r.choice(PROTOCOLS)} if kind < 0.9 else {}
    low = r.choice((1, 79, 80, 81, 443))
    if kind < 0.6:
        return {"portNumber": {**protocol, "port": low}}
    return {"portRange": {**protocol, "start": low, "end": low + r.choice((1, 10))}}


def _cluster_port(r: Random, named: bool) -> Json:
    kind = r.random()
    if named and kind < 0.3:
        return {"destinationNamedPort": r.choice(("http", "dns", "sig"))}
    low = r.choice((1, 79, 80, 81, 443))
    port = {"number": low} if kind < 0.7 else {"range": {"start": low, "end": low + r.choice((1, 10))}}
    return {r.choice(("tcp", "udp", "sctp")): {"destinationPort": port}}


# -- the naive evaluator -----------------------------------------------------------------------------------------------
def reaches(drawn: Drawn, a: Party, b: Party, protocol: str, port: int, version: int) -> bool:
    """May ``a`` open a connection to ``b``'s address of this IP version?"""
    return all(side(drawn, a, b, protocol, port, version, way) for way in ("egress", "ingress"))


def side(drawn: Drawn, a: Party, b: Party, protocol: str, port: int, version: int, way: str) -> bool:
    subject, other = (b, a) if way == "ingress" else (a, b)
    if subject.kind != "pod" or a is b:
        return True
    if way == "ingress" and a.kind in ("node", "host") and b.node == (a.name if a.kind == "node" else a.node):
        return True
    ask = (drawn, subject, other, b, protocol, port, version, way)
    for tier in ("Admin", "NetworkPolicy", "Baseline"):
        verdict = _network_policies(*ask) if tier == "NetworkPolicy" else _admin_tier(tier, *ask)
        if verdict is not None:
            return verdict
    return True


def _admin_tier(
    tier: str, drawn: Drawn, subject: Party, other: Party, b: Party, protocol: str, port: int, version: int, way: str
) -> bool | None:
    mine = []
    for raw in drawn.policies:
        held = {"AdminNetworkPolicy": "Admin", "BaselineAdminNetworkPolicy": "Baseline"}.get(raw["kind"])
        if (held or raw["spec"].get("tier")) == tier and _is(raw["spec"]["subject"], drawn, subject):
            mine.append(raw)
    mine.sort(key=lambda raw: (raw["spec"].get("priority", 0), raw["metadata"]["name"]))
    for raw in mine:
        for rule in raw["spec"].get(way) or ():
            listed = rule["from" if way == "ingress" else "to"]
            unknown = any("serviceAccounts" in peer for peer in listed)
            allows = rule["action"] in ("Allow", "Accept")
            if unknown and not allows:
                return False  # fails closed: everything is denied
            if not any(_admin_peer_is(peer, drawn, other, version) for peer in listed):
                continue
            ports = rule.get("ports", rule.get("protocols"))
            if ports is not None and not any(_admin_port_is(one, b, protocol, port) for one in ports):
                continue
            if rule["action"] == "Pass":
                return None
            return bool(allows)
    return None


def _network_policies(
    drawn: Drawn, subject: Party, other: Party, b: Party, protocol: str, port: int, version: int, way: str
) -> bool | None:
    isolated = False
    for raw in drawn.policies:
        if raw["kind"] != "NetworkPolicy" or raw["metadata"]["namespace"] != subject.space:
            continue
        spec = raw["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        if way.title() not in types or not selects(spec.get("podSelector") or {}, subject.labels):
            continue
        isolated = True
        for rule in spec.get(way) or ():
            listed = rule.get("from" if way == "ingress" else "to")
            ports = rule.get("ports")
            if listed and not any(_peer_is(peer, raw, drawn, other, version) for peer in listed):
                continue
            if not ports or any(_port_is(one, b, protocol, port) for one in ports):
                return True
    return False if isolated else None


def _peer_is(peer: Json, raw: Json, drawn: Drawn, other: Party, version: int) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return _in_block(block["cidr"], other, version, block.get("except", ()))
    if other.kind != "pod":
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], drawn.spaces[other.space]):
            return False
    elif other.space != raw["metadata"]["namespace"]:
        return False
    return selects(peer.get("podSelector") or {}, other.labels)


def _in_block(cidr: str, other: Party, version: int, cut: Any = ()) -> bool:
    """Some address of this version lies in the block and in none of ``cut``."""

    own = [a for a in map(_address, other.addresses) if a.version == version]
    return any(a in _network(cidr) and not any(a in _network(c) for c in cut) for a in own)


_network = lru_cache(lambda text: ipaddress.ip_network(text, strict=False))
_address = lru_cache(lambda text: ipaddress.ip_interface(text).ip)


def _is(scope: Json, drawn: Drawn, party: Party) -> bool:
    if party.kind != "pod":
        return False
    if "namespaces" in scope:
        return selects(scope["namespaces"], drawn.spaces[party.space])
    pods = scope["pods"]
    return selects(pods["namespaceSelector"], drawn.spaces[party.space]) and selects(pods["podSelector"], party.labels)


def _admin_peer_is(peer: Json, drawn: Drawn, other: Party, version: int) -> bool:
    (kind,) = peer
    if kind in ("namespaces", "pods"):
        return _is(peer, drawn, other)
    if kind == "nodes":
        nodes = {p.name: p for p in drawn.parties if p.kind == "node"}
        node = other if other.kind == "node" else nodes[other.node] if other.kind == "host" else None
        return node is not None and selects(peer["nodes"], node.labels)
    if kind == "networks":
        return any(_in_block(cidr, other, version) for cidr in peer["networks"])
    if kind == "domainNames":
        return other.kind == "outside" and any(
            other.name.endswith(n[1:]) if n[0] == "*" else other.name == n for n in peer["domainNames"]
        )
    return False


def _port_is(one: Json, b: Party, protocol: str, port: int) -> bool:
    if one.get("protocol", "TCP") != protocol:
        return False
    wanted = one.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return b.kind == "pod" and b.names.get((wanted, protocol)) == port
    return bool(wanted <= port <= one.get("endPort", wanted))


def _admin_port_is(one: Json, b: Party, protocol: str, port: int) -> bool:
    ((kind, value),) = one.items()
    if kind in ("namedPort", "destinationNamedPort"):
        return b.kind == "pod" and b.names.get((value, protocol)) == port
    if kind == "portNumber":
        return bool(value.get("protocol", "TCP") == protocol and value["port"] == port)
    if kind == "portRange":
        return bool(value.get("protocol", "TCP") == protocol and value["start"] <= port <= value["end"])
    if kind != protocol.lower():
        return False
    inner = value["destinationPort"]
    if "number" in inner:
        return bool(inner["number"] == port)
    return bool(inner["range"]["start"] <= port <= inner["range"]["end"])


def selects(selector: Json, held: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if key not in held or held[key] != value:
            return False
    for one in selector.get("matchExpressions", ()):
        key, operator = one["key"], one["operator"]
        if operator == "Exists" and key not in held:
            return False
        if operator == "DoesNotExist" and key in held:
            return False
        if operator == "In" and (key not in held or held[key] not in one["values"]):
            return False
        if operator == "NotIn" and key in held and held[key] in one["values"]:
            return False
    return True
