"""Service: the static rules, in the server's order. Allocation (node ports, cluster IPs) is the control plane's."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults, Go, quote
from netsim.kube.validate import meta, names

Json = dict[str, Any]
_EXTERNALLY = ("NodePort", "LoadBalancer")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")


def service(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    kind, ports = spec.get("type", ""), spec.get("ports") or []
    ips = spec.get("clusterIPs") or []
    headless = "None" in ips[:1]
    if not ports and not headless and kind != "ExternalName":
        faults.required("spec.ports")
    if headless and kind in _EXTERNALLY:
        faults.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services", "spec.clusterIP")
    if kind == "ExternalName":
        _external_name(faults, spec)
    _ports(faults, ports)
    if "selector" in spec:
        meta.labels(faults, spec["selector"], "spec.selector")
    _affinity(faults, spec)
    if kind != "ExternalName":
        cluster_ips(faults, spec)
    for index, text in enumerate(spec.get("externalIPs") or ()):
        faults.all_invalid(f"spec.externalIPs[{index}]", text, names.ip(text) or names.not_special(text))
    if kind not in _TYPES:
        faults.unsupported("spec.type", kind, _TYPES)
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                faults.forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
    _repeats(faults, ports)
    _source_ranges(faults, body, spec, kind)
    _load_balancer(faults, spec, kind)
    _traffic_policies(faults, spec, kind)


def _external_name(faults: Faults, spec: Json) -> None:
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            faults.forbidden(f"spec.{name}", "may not be set for ExternalName services")
    name = spec.get("externalName", "").removesuffix(".")
    if not name:
        faults.required("spec.externalName")
    else:
        faults.all_invalid("spec.externalName", name, names.subdomain(name))


def _ports(faults: Faults, ports: list[Json]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name:
            if len(ports) > 1:
                faults.required(f"{path}.name")
        else:
            faults.all_invalid(f"{path}.name", name, names.label(name))
            if name in seen:
                faults.duplicate(f"{path}.name", name)
            seen.add(name)
        number = port.get("port", 0)
        if not 0 < number < 65536:
            faults.all_invalid(f"{path}.port", number, names.port_number(number))
        protocol = port.get("protocol", "")
        if not protocol:
            faults.required(f"{path}.protocol")
        elif protocol not in ("TCP", "UDP", "SCTP"):
            faults.unsupported(f"{path}.protocol", protocol, ("SCTP", "TCP", "UDP"))
        target = port.get("targetPort", 0)
        if isinstance(target, str):
            faults.all_invalid(f"{path}.targetPort", target, names.port_name(target))
        else:
            faults.all_invalid(f"{path}.targetPort", target, names.port_number(target))
        if "appProtocol" in port:
            faults.all_invalid(f"{path}.appProtocol", port["appProtocol"], names.qualified(port["appProtocol"]))


def _affinity(faults: Faults, spec: Json) -> None:
    affinity = spec.get("sessionAffinity", "")
    if not affinity:
        faults.required("spec.sessionAffinity")
    elif affinity not in ("None", "ClientIP"):
        faults.unsupported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    elif affinity == "ClientIP":
        timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        if timeout is None:
            faults.required(path)
        elif not 0 < timeout <= 86400:
            faults.invalid(path, timeout, "must be greater than 0 and less than 86400")


def cluster_ips(faults: Faults, spec: Json) -> None:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy against each other."""
    ips, families = spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    first = spec.get("clusterIP", "")
    if ips and not first:
        faults.invalid("spec.clusterIPs", ips, "must be empty when `clusterIP` is not specified")
    elif ips and ips[0] != first:
        faults.invalid("spec.clusterIPs", ips, "first value must match `clusterIP`")
    for index, family in enumerate(families):
        path = f"spec.ipFamilies[{index}]"
        if family not in _FAMILIES:
            faults.unsupported(path, family, _FAMILIES)
        if family in families[:index]:
            faults.duplicate(path, family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        faults.unsupported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    if "None" in ips and len(ips) > 1:
        faults.invalid("spec.clusterIPs", ips, "'None' must be the first and only value")
    malformed = False
    for index, text in enumerate(ips):
        if text != "None" and not names.address(text):
            malformed = True
            faults.invalid(f"spec.clusterIPs[{index}]", text, names.IP_TEXT, "spec.clusterIP" if not index else "")
    if len(ips) > 2:
        faults.invalid("spec.clusterIPs", ips, "may only hold up to 2 values")
    if malformed or "None" in ips:
        return
    versions = [found.version for found in map(names.address, ips) if found]
    if len(ips) > 1 and len(set(versions)) < len(versions):
        faults.invalid("spec.clusterIPs", ips, "may specify no more than one IP for each IP family")
    for index, (version, family) in enumerate(zip(versions, families)):
        if family in _FAMILIES and family != f"IPv{version}":
            told = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            faults.invalid(f"spec.clusterIPs[{index}]", ips[index], told)


def _repeats(faults: Faults, ports: list[Json]) -> None:
    if len(ports) < 2:
        return
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        number = port.get("nodePort", 0)
        if number and (port.get("protocol", ""), number) in node_ports:
            faults.duplicate(f"spec.ports[{index}].nodePort", number)
        node_ports.add((port.get("protocol", ""), number))
    taken: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        key = (port.get("protocol", ""), port.get("port", 0))
        if key in taken:
            shown = (
                f'core.ServicePort{{Name:"", Protocol:{quote(key[0])}, AppProtocol:(*string)(nil), Port:{key[1]}, '
                'TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}'
            )
            faults.duplicate(f"spec.ports[{index}]", Go(shown))
        taken.add(key)


def _source_ranges(faults: Faults, body: Json, spec: Json, kind: str) -> None:
    ranges = spec.get("loadBalancerSourceRanges")
    if ranges:
        path, at = "spec.LoadBalancerSourceRanges", "spec.loadBalancerSourceRanges"
        if kind != "LoadBalancer":
            faults.add(path, f"Forbidden: {_ONLY_LOAD_BALANCER}", at)
        for index, text in enumerate(ranges):
            faults.all_invalid(f"{path}[{index}]", text, names.cidr(text.strip()), f"{at}[{index}]")
        return
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    if _SOURCE_RANGES in annotations:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        text = annotations[_SOURCE_RANGES].strip()
        if kind != "LoadBalancer":
            faults.forbidden(path, _ONLY_LOAD_BALANCER)
        if text and not all(names.prefix(item.strip()) for item in text.split(",")):
            told = "must be a list of IP ranges. For example, 10.240.0.0/24,10.250.0.0/24"
            faults.invalid(path, annotations[_SOURCE_RANGES], told)


def _load_balancer(faults: Faults, spec: Json, kind: str) -> None:
    if kind != "LoadBalancer":
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(name) is not None:
                faults.forbidden(f"spec.{name}", _ONLY_LOAD_BALANCER)
    elif spec.get("loadBalancerClass") is not None:
        name = spec["loadBalancerClass"]
        faults.all_invalid("spec.loadBalancerClass", name, names.qualified(name))


def _traffic_policies(faults: Faults, spec: Json, kind: str) -> None:
    external = spec.get("externalTrafficPolicy", "")
    reachable = kind in _EXTERNALLY or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if external:
        if not reachable:
            told = "may only be set for externally-accessible services"
            faults.invalid("spec.externalTrafficPolicy", external, told)
        elif external not in ("Cluster", "Local"):
            faults.unsupported("spec.externalTrafficPolicy", external, ("Cluster", "Local"))
    elif reachable:
        faults.required("spec.externalTrafficPolicy")
    health = spec.get("healthCheckNodePort", 0)
    if health < 0:
        faults.all_invalid("spec.healthCheckNodePort", health, names.port_number(health))
    if health and not (kind == "LoadBalancer" and external == "Local"):
        told = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        faults.invalid("spec.healthCheckNodePort", health, told)
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in ("Cluster", "Local"):
        faults.unsupported("spec.internalTrafficPolicy", internal, ("Cluster", "Local"))
    elif internal is None and kind in ("ClusterIP", *_EXTERNALLY):
        faults.required("spec.internalTrafficPolicy")
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        faults.unsupported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)
