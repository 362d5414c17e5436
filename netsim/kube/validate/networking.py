"""Ingress, IngressClass and NetworkPolicy of networking.k8s.io/v1."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults, Go
from netsim.kube.validate import meta, names

Json = dict[str, Any]
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"


# -- Ingress -----------------------------------------------------------------------------------------------------------
def ingress(faults: Faults, body: Json) -> None:
    spec = body.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        told = "either `defaultBackend` or `rules` must be specified"
        faults.invalid("spec", Go("[]networking.IngressRule(nil)"), told)
    if backend is not None:
        _backend(faults, backend, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        _rule(faults, rule, f"spec.rules[{index}]")
    for index, item in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(item.get("hosts") or ()):
            wrong = names.wildcard(host) if "*" in host else names.subdomain(host)
            faults.all_invalid(f"spec.tls[{index}].hosts[{number}]", host, wrong)
        if item.get("secretName"):
            faults.all_invalid(f"spec.tls[{index}].secretName", item["secretName"], names.subdomain(item["secretName"]))
    name = spec.get("ingressClassName")
    if name is not None:
        faults.all_invalid("spec.ingressClassName", name, names.subdomain(name))
        annotation = ((body.get("metadata") or {}).get("annotations") or {}).get(_CLASS_ANNOTATION)
        if annotation is not None and annotation != name:
            told = "must match `ingressClassName` when both are specified"
            at = f"metadata.annotations[{_CLASS_ANNOTATION}]"
            faults.invalid(f"annotations.{_CLASS_ANNOTATION}", annotation, told, at)


def _rule(faults: Faults, rule: Json, path: str) -> None:
    host = rule.get("host", "")
    if host:
        if names.address(host):
            faults.invalid(f"{path}.host", host, "must be a DNS name, not an IP address")
        faults.all_invalid(f"{path}.host", host, names.wildcard(host) if "*" in host else names.subdomain(host))
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        faults.required(f"{path}.http.paths")
    for index, item in enumerate(http.get("paths") or ()):
        _path(faults, item, f"{path}.http.paths[{index}]")


def _path(faults: Faults, item: Json, path: str) -> None:
    kind, text = item.get("pathType"), item.get("path", "")
    if kind is None:
        faults.required(f"{path}.pathType", "pathType must be specified")
        return
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            faults.invalid(f"{path}.path", text, "must be an absolute path")
        if text:
            for sign in ("//", "/./", "/../", "%2f", "%2F"):
                if sign in text:
                    faults.invalid(f"{path}.path", text, f"must not contain '{sign}'")
            for sign in ("/..", "/."):
                if text.endswith(sign):
                    faults.invalid(f"{path}.path", text, f"cannot end with '{sign}'")
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            faults.invalid(f"{path}.path", text, "must be an absolute path")
    else:
        faults.unsupported(f"{path}.pathType", kind, _PATH_TYPES)
    _backend(faults, item.get("backend") or {}, f"{path}.backend")


def _backend(faults: Faults, backend: Json, path: str) -> None:
    found, resource = backend.get("service"), backend.get("resource")
    if found is not None and resource is not None:
        faults.invalid(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        for field in ("kind", "name"):
            if not resource.get(field):
                faults.required(f"{path}.resource.{field}")
    elif found is None:
        faults.invalid(path, "", "resource or service backend is required")
    else:
        name, port = found.get("name", ""), found.get("port") or {}
        if not name:
            faults.required(f"{path}.service.name")
        else:
            faults.all_invalid(f"{path}.service.name", name, names.label_1035(name))
        port_name, number = port.get("name", ""), port.get("number", 0)
        if port_name and number:
            faults.invalid(path, "", "cannot set both port name & port number")
        elif port_name:
            faults.all_invalid(f"{path}.service.port.name", port_name, names.port_name(port_name))
        elif number:
            faults.all_invalid(f"{path}.service.port.number", number, names.port_number(number))
        else:
            faults.required(path, "port name or number is required")


def ingress_class(faults: Faults, body: Json) -> None:
    name = (body.get("spec") or {}).get("controller", "")
    if len(name.encode()) > 250:
        faults.too_long("spec.controller", 250)
    domain, slash, rest = name.partition("/")
    if name and (not slash or not rest or names.subdomain(domain)):
        faults.invalid("spec.controller", name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    elif not name:
        faults.required("spec.controller")


# -- NetworkPolicy -----------------------------------------------------------------------------------------------------
def network_policy(faults: Faults, body: Json) -> None:
    spec = body.get("spec") or {}
    meta.selector(faults, spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                _policy_port(faults, port, f"{path}.ports[{number}]")
            for number, peer in enumerate(rule.get(peers) or ()):
                _policy_peer(faults, peer, f"{path}.{peers}[{number}]")
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        faults.invalid("spec.policyTypes", types, "may not specify more than two policyTypes")
        return
    for index, name in enumerate(types):
        if name not in ("Ingress", "Egress"):
            faults.unsupported(f"spec.policyTypes[{index}]", name, ("Ingress", "Egress"))


def _policy_port(faults: Faults, found: Json, path: str) -> None:
    protocol = found.get("protocol", "TCP")
    if protocol not in ("TCP", "UDP", "SCTP"):
        faults.unsupported(f"{path}.protocol", protocol, ("TCP", "UDP", "SCTP"))
    port, end = found.get("port"), found.get("endPort")
    if port is None:
        if end is not None:
            faults.invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified")
    elif isinstance(port, str):
        if end is not None:
            faults.invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
        faults.all_invalid(f"{path}.port", port, names.port_name(port))
    else:
        if end is not None:
            if end < port:
                faults.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")
            faults.all_invalid(f"{path}.endPort", end, names.port_number(end))
        faults.all_invalid(f"{path}.port", port, names.port_number(port))


def _policy_peer(faults: Faults, peer: Json, path: str) -> None:
    given = [name for name in ("podSelector", "namespaceSelector", "ipBlock") if name in peer]
    for name in ("podSelector", "namespaceSelector"):
        if name in peer:
            meta.selector(faults, peer[name], f"{path}.{name}")
    if "ipBlock" in peer:
        _ip_block(faults, peer["ipBlock"], f"{path}.ipBlock")
    if not given:
        faults.required(path, "must specify a peer")
    elif "ipBlock" in given and len(given) > 1:
        faults.forbidden(path, "may not specify both ipBlock and another peer")


def _ip_block(faults: Faults, block: Json, path: str) -> None:
    text = block.get("cidr", "")
    if not text:
        faults.required(f"{path}.cidr")
        return
    outer = names.prefix(text)
    if outer is None:
        faults.invalid(f"{path}.cidr", text, names.CIDR_TEXT)
        return
    for index, item in enumerate(block.get("except") or ()):
        inner = names.prefix(item)
        if inner is None:
            faults.invalid(f"{path}.except[{index}]", item, names.CIDR_TEXT)
        elif inner.version != outer.version or inner == outer or not _within(inner, outer):
            faults.invalid(f"{path}.except[{index}]", item, "must be a strict subset of `cidr`")


def _within(inner: names.Prefix, outer: names.Prefix) -> bool:
    return inner.prefixlen > outer.prefixlen and inner.network_address in outer
