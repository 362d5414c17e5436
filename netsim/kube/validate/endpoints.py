"""Endpoints and EndpointSlice."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults
from netsim.kube.validate import meta, names

Json = dict[str, Any]
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_VERSIONS = {"IPv4": 4, "IPv6": 6}


def endpoints(faults: Faults, body: Json) -> None:
    for index, subset in enumerate(body.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            faults.required(path, "must specify `addresses` or `notReadyAddresses`")
        for name in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(name) or ()):
                _address(faults, address, f"{path}.{name}[{number}]")
        ports = subset.get("ports") or []
        for number, port in enumerate(ports):
            _port(faults, port, f"{path}.ports[{number}]", len(ports) > 1)


def _address(faults: Faults, found: Json, path: str) -> None:
    text = found.get("ip", "")
    faults.all_invalid(f"{path}.ip", text, names.ip(text))
    if found.get("hostname"):
        faults.all_invalid(f"{path}.hostname", found["hostname"], names.label(found["hostname"]))
    if "nodeName" in found:
        faults.all_invalid(f"{path}.nodeName", found["nodeName"], names.subdomain(found["nodeName"]))
    faults.all_invalid(f"{path}.ip", text, names.not_special(text))


def _port(faults: Faults, port: Json, path: str, name_needed: bool) -> None:
    name = port.get("name", "")
    if name:
        faults.all_invalid(f"{path}.name", name, names.label(name))
    elif name_needed:
        faults.required(f"{path}.name")
    faults.all_invalid(f"{path}.port", port.get("port", 0), names.port_number(port.get("port", 0)))
    _protocol(faults, port, path)
    if "appProtocol" in port:
        faults.all_invalid(f"{path}.appProtocol", port["appProtocol"], names.qualified(port["appProtocol"]))


def _protocol(faults: Faults, port: Json, path: str) -> None:
    protocol = port.get("protocol", "")
    if not protocol:
        faults.required(f"{path}.protocol")
    elif protocol not in _PROTOCOLS:
        faults.unsupported(f"{path}.protocol", protocol, _PROTOCOLS)


def endpoint_slice(faults: Faults, body: Json) -> None:
    kind = body.get("addressType", "")
    found = body.get("endpoints") or []
    if not kind:
        faults.required("addressType")
    elif kind not in _ADDRESS_TYPES:
        faults.unsupported("addressType", kind, _ADDRESS_TYPES)
    if len(found) > 1000:
        faults.too_many("endpoints", len(found), 1000)
    else:
        for index, endpoint in enumerate(found):
            _endpoint(faults, endpoint, kind, index)
    _slice_ports(faults, body.get("ports") or [])


def _endpoint(faults: Faults, endpoint: Json, kind: str, index: int) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        faults.required(f"endpoints[{index}].addresses", "must contain at least 1 address")
    elif len(addresses) > 100:
        faults.too_many(f"endpoints[{index}].addresses", len(addresses), 100)
    for number, text in enumerate(addresses):
        wrong = _address_wrong(text, kind)
        if wrong:
            faults.all_invalid(f"endpoints[{index}].addresses[{number}]", text, wrong)
    for name, rule in (("hostname", names.label), ("nodeName", names.subdomain)):
        if name in endpoint and (wrong := rule(endpoint[name])):
            faults.all_invalid(f"endpoints[{index}].{name}", endpoint[name], wrong)
    if topology := endpoint.get("deprecatedTopology"):
        _topology(faults, topology, f"endpoints[{index}].deprecatedTopology")
    zones = (endpoint.get("hints") or {}).get("forZones") or []
    path = f"endpoints[{index}].hints.forZones"
    if len(zones) > 8:
        faults.too_many(path, len(zones), 8)
        return
    seen: set[str] = set()
    for number, zone in enumerate(zones):
        name = zone.get("name", "")
        if name in seen:
            faults.duplicate(f"{path}[{number}].name", name)
        seen.add(name)
        faults.all_invalid(f"{path}[{number}].name", name, names.label_value(name))


def _address_wrong(text: str, kind: str) -> names.Wrong:
    if kind in _VERSIONS:
        found = names.address(text)
        if found is None or found.version != _VERSIONS[kind]:
            return (f"must be a valid {kind} address", *names.not_special(text))
        return names.not_special(text)
    if kind == "FQDN":
        if wrong := names.subdomain(text.removesuffix(".")):
            return wrong
        return (
            ()
            if "." in text.removesuffix(".")
            else ("should be a domain with at least two segments separated by dots",)
        )
    return ()


def _topology(faults: Faults, topology: Json, path: str) -> None:
    if len(topology) > 16:
        faults.too_many(path, len(topology), 16)
    meta.labels(faults, topology, path)
    zone = "topology.kubernetes.io/zone"
    if zone in topology:
        faults.add(f"{path}[{zone}]", "Internal error: reserved key was not removed in conversion")


def _slice_ports(faults: Faults, ports: list[Json]) -> None:
    if len(ports) > 20000:
        faults.too_many("ports", len(ports), 20000)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name", "")
        if name:
            faults.all_invalid(f"ports[{index}].name", name, names.label(name))
        if name in seen:
            faults.duplicate(f"ports[{index}].name", name)
        seen.add(name)
        _protocol(faults, port, f"ports[{index}]")
        if port.get("appProtocol"):
            faults.all_invalid(f"ports[{index}].appProtocol", port["appProtocol"], names.qualified(port["appProtocol"]))
