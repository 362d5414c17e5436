"""Pods and pod templates: metadata's company, containers, ports, probes, DNS. Placement is in ``placement``."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults
from netsim.kube.validate import meta, names, placement

Json = dict[str, Any]
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def pod(faults: Faults, body: Json) -> None:
    pod_spec(faults, body["spec"], "spec")
    status = body.get("status")
    if status:
        _addresses(faults, status)


def template(faults: Faults, found: Json, path: str) -> None:
    """A workload's template: the server says its metadata's errors on the template itself."""
    metadata = found.get("metadata") or {}
    if "labels" in metadata:
        meta.labels(faults, metadata["labels"], f"{path}.labels")
    if "annotations" in metadata:
        meta.annotation_map(faults, metadata["annotations"], f"{path}.annotations")
    pod_spec(faults, found.get("spec") or {}, f"{path}.spec", in_template=True)


def pod_spec(faults: Faults, spec: Json, path: str, in_template: bool = False) -> None:
    _volumes(faults, spec.get("volumes") or (), f"{path}.volumes")
    containers = spec.get("containers") or ()
    if not containers:
        faults.required(f"{path}.containers")
    taken: set[str] = set()
    _containers(faults, containers, f"{path}.containers", taken)
    _containers(faults, spec.get("initContainers") or (), f"{path}.initContainers", taken)
    if spec.get("hostNetwork"):
        _host_network(faults, containers, f"{path}.containers", in_template)
    policy = spec.get("restartPolicy", "")
    if policy not in ("Always", "OnFailure", "Never"):
        faults.unsupported(f"{path}.restartPolicy", policy, ("Always", "OnFailure", "Never"))
    dns_policy = spec.get("dnsPolicy", "")
    if dns_policy not in _DNS_POLICIES:
        faults.unsupported(f"{path}.dnsPolicy", dns_policy, _DNS_POLICIES)
    if "nodeSelector" in spec:
        meta.labels(faults, spec["nodeSelector"], f"{path}.nodeSelector")
    if spec.get("affinity"):
        placement.affinity(faults, spec["affinity"], f"{path}.affinity")
    if "dnsConfig" in spec or dns_policy == "None":
        _dns_config(faults, spec.get("dnsConfig"), dns_policy, f"{path}.dnsConfig")
    _gates(faults, spec, path)
    if "topologySpreadConstraints" in spec:
        placement.spread(faults, spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    _names(faults, spec, path)
    if "tolerations" in spec:
        placement.tolerations(faults, spec["tolerations"], f"{path}.tolerations")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        text = alias.get("ip", "")
        faults.all_invalid(f"{path}.hostAliases[{index}].ip", text, names.ip(text))
        for number, host in enumerate(alias.get("hostnames") or ()):
            faults.all_invalid(f"{path}.hostAliases[{index}].hostnames[{number}]", host, names.subdomain(host))


def _names(faults: Faults, spec: Json, path: str) -> None:
    for name in ("serviceAccountName", "nodeName"):
        if spec.get(name) and (wrong := names.subdomain(spec[name])):
            faults.all_invalid(f"{path}.{name}", spec[name], wrong)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 0 < deadline < 1 << 31:
        faults.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        faults.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            faults.all_invalid(f"{path}.{name}", spec[name], names.label(spec[name]))


def _gates(faults: Faults, spec: Json, path: str) -> None:
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        text = gate.get("conditionType", "")
        faults.all_invalid(f"{path}.readinessGates[{index}].conditionType", text, names.qualified(text))
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        text = gate.get("name", "")
        faults.all_invalid(f"{path}.schedulingGates[{index}]", text, names.qualified(text))
        if text in seen:
            faults.duplicate(f"{path}.schedulingGates[{index}]", text)
        seen.add(text)


def _volumes(faults: Faults, volumes: Any, path: str) -> None:
    """Only the names: netsim mounts nothing."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        if not name:
            faults.required(f"{path}[{index}].name")
        elif wrong := names.label(name):
            faults.all_invalid(f"{path}[{index}].name", name, wrong)
        if name in seen:
            faults.duplicate(f"{path}[{index}].name", name)
        seen.add(name)


# -- containers --------------------------------------------------------------------------------------------------------
def _containers(faults: Faults, containers: Any, path: str, taken: set[str]) -> None:
    host_ports: set[str] = set()
    for index, container in enumerate(containers):
        name = container.get("name", "")
        if not name:
            faults.required(f"{path}[{index}].name")
        elif wrong := names.label(name):
            faults.all_invalid(f"{path}[{index}].name", name, wrong)
        image = container.get("image", "")
        if not image:
            faults.required(f"{path}[{index}].image")
        elif image.strip() != image:
            faults.invalid(f"{path}[{index}].image", image, "must not have leading or trailing whitespace")
        if "ports" in container:
            _ports(faults, container["ports"], f"{path}[{index}].ports")
        pull = container.get("imagePullPolicy", "Always")
        if pull not in _PULL_POLICIES:
            faults.unsupported(f"{path}[{index}].imagePullPolicy", pull, _PULL_POLICIES)
        if name in taken:
            faults.duplicate(f"{path}[{index}].name", name)
        elif name:
            taken.add(name)
        for probe in _PROBES:
            if probe in container:
                _probe(faults, container[probe], f"{path}[{index}].{probe}", probe != "readinessProbe")
    if "initContainers" in path:
        return  # they run one after the other: their host ports never meet
    for index, container in enumerate(containers):
        for number, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
                if key in host_ports:
                    faults.duplicate(f"{path}[{index}].ports[{number}].hostPort", key)
                host_ports.add(key)


def _ports(faults: Faults, ports: list[Json], path: str) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name", "")
        if name:
            if wrong := names.port_name(name):
                faults.all_invalid(f"{path}[{index}].name", name, wrong)
            elif name in seen:
                faults.duplicate(f"{path}[{index}].name", name)
            else:
                seen.add(name)
        number = port.get("containerPort", 0)
        if not number:
            faults.required(f"{path}[{index}].containerPort")
        elif not 0 < number < 65536:
            faults.all_invalid(f"{path}[{index}].containerPort", number, names.port_number(number))
        host = port.get("hostPort", 0)
        if host and not 0 < host < 65536:
            faults.all_invalid(f"{path}[{index}].hostPort", host, names.port_number(host))
        protocol = port.get("protocol", "")
        if protocol not in _PROTOCOLS:
            faults.unsupported(f"{path}[{index}].protocol", protocol, _PROTOCOLS)


def _host_network(faults: Faults, containers: Any, path: str, in_template: bool) -> None:
    for index, container in enumerate(containers):
        for number, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort", 0)
            if host != port.get("containerPort", 0) and not (in_template and not host):
                where = f"{path}[{index}].ports[{number}].hostPort"
                faults.invalid(where, host, "must match `containerPort` when `hostNetwork` is true")


def _probe(faults: Faults, probe: Json, path: str, once: bool) -> None:
    handlers = [name for name in _HANDLERS if name in probe]
    if not handlers:
        faults.required(path, "must specify a handler type")
    for name in handlers[1:]:
        faults.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    if handlers:
        _handler(faults, probe[handlers[0]], f"{path}.{handlers[0]}", handlers[0])
    meta.at_least_zero(
        faults,
        probe,
        path,
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    )
    if once and probe.get("successThreshold", 1) != 1:
        faults.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(faults: Faults, handler: Json, path: str, kind: str) -> None:
    if kind == "exec":
        if not handler.get("command"):
            faults.required(f"{path}.command")
        return
    if kind == "httpGet" and not handler.get("path"):
        faults.required(f"{path}.path")
    port = handler.get("port", 0)
    if isinstance(port, str):
        faults.all_invalid(f"{path}.port", port, names.port_name(port))
    else:
        faults.all_invalid(f"{path}.port", port, names.port_number(port))
    if kind == "httpGet" and handler.get("scheme") not in ("HTTP", "HTTPS"):
        faults.unsupported(f"{path}.scheme", handler.get("scheme", ""), ("HTTP", "HTTPS"))


# -- DNS and status ----------------------------------------------------------------------------------------------------
def _dns_config(faults: Faults, config: Json | None, policy: str, path: str) -> None:
    if policy == "None":
        if config is None:
            faults.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not config.get("nameservers"):
            faults.required(f"{path}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
            return
    config = config or {}
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        faults.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        faults.all_invalid(f"{path}.nameservers[{index}]", server, names.ip(server))
    if len(searches) > 32:
        faults.invalid(f"{path}.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > 2048:
        faults.invalid(
            f"{path}.searches",
            searches,
            "must not have more than 2048 characters (including spaces) in the search list",
        )
    for index, search in enumerate(searches):
        # 1.33 relaxed the rule: underscores are fine, and so is a lone dot
        relaxed = search.removesuffix(".").replace("_", "a")
        if search != ".":
            faults.all_invalid(f"{path}.searches[{index}]", search, names.subdomain(relaxed))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            faults.required(f"{path}.options[{index}]", "must not be empty")


def _addresses(faults: Faults, status: Json) -> None:
    ips = status.get("podIPs")
    if not ips:
        return
    first = ips[0].get("ip", "")
    if len(ips) == 1 and names.address(first) and status.get("podIP", first) == first:
        return
    found = [item.get("ip", "") for item in ips]
    for index, text in enumerate(found):
        if not names.address(text):
            faults.invalid(f"status.podIPs[{index}]", text, names.IP_TEXT)
    if status.get("podIP", first) != first:
        faults.invalid("status.podIPs", found, "first value must match `podIP`")
    versions = [address.version for address in map(names.address, found) if address]
    if len(found) > 2 or len(set(versions)) < len(versions):
        faults.invalid("status.podIPs", found, "may specify no more than one IP for each IP family")
