"""Old API versions, converted to today's form as the API server converts (and defaults) them.

Each function takes the decoded JSON and changes it in place. After it the object is what a 1.33 server would hand out
for the current version, except for the defaults that do not depend on the version it came in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.kube.kinds import Kind

Json = dict[str, Any]


def convert(body: Json, kind: Kind) -> str:
    """Bring ``body`` to ``kind.current``; returns the notice about a version that is no longer served, or ``""``."""
    version = body["apiVersion"]
    if version == kind.current:
        return ""
    change = _CHANGES.get((version, kind.name))
    if change:
        change(body)
    body["apiVersion"] = kind.current
    release = kind.removed.get(version, "")
    return f"{version} {kind.name} (removed in {release}): read as {kind.current}" if release else ""


# -- Ingress -----------------------------------------------------------------------------------------------------------
def _ingress(body: Json) -> None:
    spec = body.get("spec")
    if not spec:
        return
    if "backend" in spec:
        spec["defaultBackend"] = _ingress_backend(spec.pop("backend"))
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            path.setdefault("pathType", "ImplementationSpecific")
            path["backend"] = _ingress_backend(path.get("backend") or {})


def _ingress_backend(old: Json) -> Json:
    new: Json = {"resource": old["resource"]} if "resource" in old else {}
    name, port = old.get("serviceName", ""), old.get("servicePort")
    if name or port:
        service = new["service"] = {"name": name}
        if port:
            service["port"] = {"number": port} if isinstance(port, int) else {"name": port}
    return new


# -- workloads ---------------------------------------------------------------------------------------------------------
def _labels_from_template(body: Json, *, map_selector: bool = False) -> None:
    """v1beta1's defaults (still those of the v1 ReplicationController): selector and labels come from the template."""
    spec = body.get("spec")
    labels = (((spec or {}).get("template") or {}).get("metadata") or {}).get("labels")
    if spec is None or not labels:
        return
    if not spec.get("selector"):
        spec["selector"] = dict(labels) if map_selector else {"matchLabels": dict(labels)}
    metadata = body.setdefault("metadata", {})
    if not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def replication_controller(body: Json) -> None:
    _labels_from_template(body, map_selector=True)


def _extensions_deployment(body: Json) -> None:
    spec = body.setdefault("spec", {})
    spec.pop("rollbackTo", None)
    _labels_from_template(body)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", 1)
        rolling.setdefault("maxUnavailable", 1)
    spec.setdefault("revisionHistoryLimit", 2147483647)
    spec.setdefault("progressDeadlineSeconds", 2147483647)


def _beta_deployment(body: Json) -> None:
    spec = body.setdefault("spec", {})
    spec.pop("rollbackTo", None)
    _labels_from_template(body)
    spec.setdefault("revisionHistoryLimit", 2)


def _beta_stateful_set(body: Json) -> None:
    _labels_from_template(body)
    body.setdefault("spec", {}).setdefault("updateStrategy", {}).setdefault("type", "OnDelete")


def _extensions_daemon_set(body: Json) -> None:
    spec = body.setdefault("spec", {})
    spec.pop("templateGeneration", None)
    _labels_from_template(body)
    spec.setdefault("updateStrategy", {}).setdefault("type", "OnDelete")


def _extensions_replica_set(body: Json) -> None:
    _labels_from_template(body)


def _beta_daemon_set(body: Json) -> None:
    body.setdefault("spec", {}).pop("templateGeneration", None)


# -- the rest ----------------------------------------------------------------------------------------------------------
def _endpoint_slice(body: Json) -> None:
    for endpoint in body.get("endpoints") or ():
        topology = dict(endpoint.pop("topology", None) or {})
        if zone := topology.pop("topology.kubernetes.io/zone", ""):
            endpoint["zone"] = zone
        host = topology.get("kubernetes.io/hostname")
        if host and endpoint.get("nodeName", host) in ("", host):
            endpoint["nodeName"] = topology.pop("kubernetes.io/hostname")
        if topology:
            endpoint["deprecatedTopology"] = topology


def _disruption_budget(body: Json) -> None:
    """``{}`` selected no pod in v1beta1 and selects all in v1: the server adds a requirement nothing meets."""
    spec = body.get("spec") or {}
    selector = spec.get("selector")
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        key = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"
        spec["selector"] = {"matchExpressions": [{"key": key, "operator": "Exists"}]}


def _autoscaler_v1(body: Json) -> None:
    spec = body.get("spec") or {}
    target = spec.pop("targetCPUUtilizationPercentage", None)
    if target is not None:
        resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
        spec["metrics"] = [{"type": "Resource", "resource": resource}]


def _autoscaler_v2beta1(body: Json) -> None:
    for metric in (body.get("spec") or {}).get("metrics") or ():
        for name in ("resource", "containerResource"):
            if source := metric.get(name):
                source["target"] = _target(source, "targetAverageUtilization", "targetAverageValue", "")
        if source := metric.get("pods"):
            source["target"] = _target(source, "", "targetAverageValue", "")
            source["metric"] = _metric(source)
        for name in ("object", "external"):
            if source := metric.get(name):
                average = "averageValue" if name == "object" else "targetAverageValue"
                described = source.pop("target", None) if name == "object" else None
                source["target"] = _target(source, "", average, "targetValue")
                source["metric"] = _metric(source)
                if described:
                    source["describedObject"] = described


def _target(source: Json, utilization: str, average: str, value: str) -> Json:
    if (found := source.pop(utilization, None)) is not None:
        return {"type": "Utilization", "averageUtilization": found}
    if (found := source.pop(average, None)) is not None:
        source.pop(value, None)
        return {"type": "AverageValue", "averageValue": found}
    return {"type": "Value", "value": source.pop(value, "0")}


def _metric(source: Json) -> Json:
    metric: Json = {"name": source.pop("metricName", "")}
    for old in ("selector", "metricSelector"):
        if old in source:
            metric["selector"] = source.pop(old)
    return metric


_CHANGES: dict[tuple[str, str], Callable[[Json], None]] = {
    ("extensions/v1beta1", "Ingress"): _ingress,
    ("networking.k8s.io/v1beta1", "Ingress"): _ingress,
    ("extensions/v1beta1", "Deployment"): _extensions_deployment,
    ("apps/v1beta1", "Deployment"): _beta_deployment,
    ("apps/v1beta2", "Deployment"): lambda body: (body.get("spec") or {}).pop("rollbackTo", None),
    ("apps/v1beta1", "StatefulSet"): _beta_stateful_set,
    ("extensions/v1beta1", "DaemonSet"): _extensions_daemon_set,
    ("apps/v1beta2", "DaemonSet"): _beta_daemon_set,
    ("extensions/v1beta1", "ReplicaSet"): _extensions_replica_set,
    ("discovery.k8s.io/v1beta1", "EndpointSlice"): _endpoint_slice,
    ("policy/v1beta1", "PodDisruptionBudget"): _disruption_budget,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _autoscaler_v1,
    ("autoscaling/v2beta1", "HorizontalPodAutoscaler"): _autoscaler_v2beta1,
}
