"""Topology hints on endpoints: trafficDistribution, and the topology-mode annotation (k8s.io/endpointslice; 1.33).

trafficDistribution hints every ready endpoint with its own zone (PreferSameNode: also its node). The annotation's Auto
heuristic shares endpoints out by the zones' cpu, and gives up where that would overload a zone by more than 20 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import msgspec

from netsim.kube.control.resources import amount
from netsim.kube.objects import Endpoint, Node, Service

_ZONE = "topology.kubernetes.io/zone"
_ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_OVERLOAD = Fraction(12, 10)


def with_hints(service: Service, endpoints: Sequence[Endpoint], nodes: Mapping[str, Node]) -> list[Endpoint]:
    """The same endpoints, in the same order, with the hints the controller would give."""
    distribution = service.spec.traffic_distribution
    if distribution in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return [_close(endpoint, distribution == "PreferSameNode") for endpoint in endpoints]
    annotations = service.metadata.annotations
    mode = next((annotations[name] for name in reversed(_ANNOTATIONS) if name in annotations), "")
    if mode in ("Auto", "auto"):
        return _shared_out(endpoints, nodes)
    return list(endpoints)


def _close(endpoint: Endpoint, same_node: bool) -> Endpoint:
    if not endpoint.conditions.ready:
        return endpoint
    hints: dict[str, Any] = {}
    if endpoint.zone:
        hints["forZones"] = [{"name": endpoint.zone}]
    if same_node and endpoint.node_name:
        hints["forNodes"] = [{"name": endpoint.node_name}]
    return msgspec.structs.replace(endpoint, hints=hints) if hints else endpoint


def zone_shares(nodes: Mapping[str, Node]) -> dict[str, Fraction]:
    """Each zone's part of the cpu of the ready worker nodes; {} where a node lacks a zone or cpu, or zones are few."""
    cpu: dict[str, int] = {}
    for node in nodes.values():
        if any(label in node.metadata.labels for label in _CONTROL_PLANE):
            continue
        if not any(c.type == "Ready" and c.status == "True" for c in node.status.conditions):
            continue
        zone = node.metadata.labels.get(_ZONE)
        stated = (node.status.allocatable or node.status.capacity).get("cpu")
        if not zone or not stated or not amount("cpu", stated):
            return {}
        cpu[zone] = cpu.get(zone, 0) + amount("cpu", stated)
    total = sum(cpu.values())
    return {zone: Fraction(cpu[zone], total) for zone in sorted(cpu)} if len(cpu) >= 2 else {}


def _shared_out(endpoints: Sequence[Endpoint], nodes: Mapping[str, Node]) -> list[Endpoint]:
    ready = [index for index, endpoint in enumerate(endpoints) if endpoint.conditions.ready]
    shares = zone_shares(nodes)
    if not shares or len(ready) < len(shares) or any(not endpoints[index].zone for index in ready):
        return list(endpoints)
    total = len(ready)
    least = {zone: ceil(share * total / _OVERLOAD) for zone, share in shares.items()}
    if sum(least.values()) > total:
        return list(endpoints)
    most = {zone: max(least[zone], floor(share * total * _OVERLOAD)) for zone, share in shares.items()}
    given: dict[str, list[int]] = {zone: [] for zone in shares}
    spare: list[int] = []
    # Own zone first, then from the zones with most to spare to those that lack most.
    for index in sorted(ready, key=lambda index: (endpoints[index].addresses, index)):
        zone = endpoints[index].zone or ""
        if zone in given and len(given[zone]) < most[zone]:
            given[zone].append(index)
        else:
            spare.append(index)
    while True:
        needy = max(shares, key=lambda zone: (least[zone] - len(given[zone]), zone))
        if len(given[needy]) >= least[needy]:
            break
        if spare:
            given[needy].append(spare.pop(0))
            continue
        giver = max(shares, key=lambda zone: (len(given[zone]) - least[zone], zone))
        given[needy].append(given[giver].pop())
    for index in spare:
        zone = min(shares, key=lambda zone: (Fraction(len(given[zone])) / (shares[zone] * total), zone))
        given[zone].append(index)
    found = list(endpoints)
    for zone, indexes in given.items():
        for index in indexes:
            found[index] = msgspec.structs.replace(found[index], hints={"forZones": [{"name": zone}]})
    return found
