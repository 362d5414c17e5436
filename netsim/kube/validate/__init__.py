"""What the API server's validation says about an object: its rules, its order, its words (Kubernetes 1.33).

Objects come decoded, converted to today's version and defaulted. Kinds without rules of their own get the metadata's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.kube.fault import Fault, Faults
from netsim.kube.validate import cluster, endpoints, meta, names, networking, pod, service, workload

Json = dict[str, Any]
_NAME_RULES: dict[str, Callable[[str], names.Wrong]] = {
    "Service": names.label_1035,
    "Namespace": names.label,
    "StatefulSet": names.label,
    "PodDisruptionBudget": names.path_segment,
    "CronJob": workload.cron_job_name,
    "IPAddress": cluster.any_name,
}
_RULES: dict[str, Callable[[Faults, Json], None]] = {
    "Node": cluster.node,
    "ServiceCIDR": cluster.service_cidr,
    "IPAddress": cluster.ip_address,
    "Pod": pod.pod,
    "Service": service.service,
    "Endpoints": endpoints.endpoints,
    "EndpointSlice": endpoints.endpoint_slice,
    "Ingress": networking.ingress,
    "IngressClass": networking.ingress_class,
    "NetworkPolicy": networking.network_policy,
    "Deployment": workload.deployment,
    "ReplicaSet": workload.replica_set,
    "ReplicationController": workload.replication_controller,
    "StatefulSet": workload.stateful_set,
    "DaemonSet": workload.daemon_set,
    "Job": workload.job,
    "CronJob": workload.cron_job,
    "PodDisruptionBudget": workload.disruption_budget,
    "HorizontalPodAutoscaler": workload.autoscaler,
}


def validate(body: Json, kind: str, namespaced: bool = True) -> list[Fault]:
    """Every error, each text once."""
    faults = Faults()
    meta.metadata(faults, body.get("metadata") or {}, namespaced, _NAME_RULES.get(kind, names.subdomain))
    rules = _RULES.get(kind)
    if rules:
        rules(faults, body)
    return list(dict.fromkeys(faults.found)) if len(faults.found) > 1 else faults.found
