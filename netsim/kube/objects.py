"""Kubernetes objects as netsim keeps them: the fields that decide about packets, typed; the rest is dropped on load.

Structs are made from the defaulted, converted, validated JSON of an object (``msgspec.convert``; unknown keys are ignored
here because the loader has already judged them). Names in JSON are camelCase. ``source`` is the file and line.
Workload templates and policies stay plain dicts: the controllers and the policy modules read those.
"""

from __future__ import annotations

from typing import Any

import msgspec

from netsim.errors import Source


class _Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False, kw_only=True):
    pass


class OwnerReference(_Struct, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Meta(_Struct, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] = []


class Object(_Struct, frozen=True, kw_only=True):
    """Base of every kind. ``kind`` and ``api_version`` are those after conversion to today's API."""

    kind: str
    api_version: str = "v1"
    metadata: Meta
    source: Source | None = None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def key(self) -> tuple[str, str]:
        return self.metadata.namespace, self.metadata.name


class Namespace(Object, frozen=True, kw_only=True):
    status: dict[str, Any] = {}


# -- Node ------------------------------------------------------------------------------------------------------------
class Taint(_Struct, frozen=True, kw_only=True):
    key: str
    value: str = ""
    effect: str = ""


class NodeSpec(_Struct, frozen=True, kw_only=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] = msgspec.field(name="podCIDRs", default_factory=list)
    unschedulable: bool = False
    taints: list[Taint] = []


class NodeAddress(_Struct, frozen=True, kw_only=True):
    type: str = ""  # InternalIP, ExternalIP, Hostname
    address: str = ""


class Condition(_Struct, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    last_transition_time: str | None = None


class NodeStatus(_Struct, frozen=True, kw_only=True):
    addresses: list[NodeAddress] = []
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []


class Node(Object, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# -- Pod -------------------------------------------------------------------------------------------------------------
class ContainerPort(_Struct, frozen=True, kw_only=True):
    name: str = ""
    container_port: int
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")
    protocol: str = "TCP"


class Resources(_Struct, frozen=True, kw_only=True):
    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class Container(_Struct, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    ports: list[ContainerPort] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None  # "Always" marks a sidecar among init containers


class PodSpec(_Struct, frozen=True, kw_only=True):
    """``affinity``, ``tolerations`` and the like stay JSON: only the scheduler reads them."""

    node_name: str = ""
    host_network: bool = False
    host_aliases: list[dict[str, Any]] | None = None
    containers: list[Container] = []
    init_containers: list[Container] | None = None
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[dict[str, Any]] | None = None
    topology_spread_constraints: list[dict[str, Any]] | None = None
    priority: int | None = None
    hostname: str = ""
    subdomain: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: dict[str, Any] | None = None
    service_account_name: str = ""
    scheduling_gates: list[dict[str, Any]] | None = None
    readiness_gates: list[dict[str, Any]] | None = None
    overhead: dict[str, Any] | None = None


class PodIP(_Struct, frozen=True, kw_only=True):
    ip: str = ""


class PodStatus(_Struct, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] = msgspec.field(name="podIPs", default_factory=list)
    host_ip: str = msgspec.field(name="hostIP", default="")
    conditions: list[Condition] = []


class Pod(Object, frozen=True, kw_only=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ips(self) -> list[str]:
        if self.status.pod_ips:
            return [p.ip for p in self.status.pod_ips if p.ip]
        return [self.status.pod_ip] if self.status.pod_ip else []

    @property
    def finished(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


# -- Service and endpoints --------------------------------------------------------------------------------------------
class ServicePort(_Struct, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    port: int
    target_port: int | str = 0
    node_port: int = 0
    app_protocol: str | None = None


class ServiceSpec(_Struct, frozen=True, kw_only=True):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: list[ServicePort] = []
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] = msgspec.field(name="clusterIPs", default_factory=list)
    ip_families: list[str] = []
    ip_family_policy: str | None = None
    external_ips: list[str] = msgspec.field(name="externalIPs", default_factory=list)
    external_name: str = ""
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    health_check_node_port: int = 0
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_source_ranges: list[str] = []
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    session_affinity: str = "None"
    session_affinity_config: dict[str, Any] | None = None
    publish_not_ready_addresses: bool = False
    traffic_distribution: str | None = None


class IngressStatus(_Struct, frozen=True, kw_only=True):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(_Struct, frozen=True, kw_only=True):
    ingress: list[IngressStatus] = []


class ServiceStatus(_Struct, frozen=True, kw_only=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object, frozen=True, kw_only=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(_Struct, frozen=True, kw_only=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(_Struct, frozen=True, kw_only=True):
    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: dict[str, Any] | None = None
    hints: dict[str, Any] | None = None


class EndpointPort(_Struct, frozen=True, kw_only=True):
    name: str | None = None
    protocol: str | None = "TCP"
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    address_type: str = "IPv4"
    endpoints: list[Endpoint] = []
    ports: list[EndpointPort] | None = None


class Endpoints(Object, frozen=True, kw_only=True):
    subsets: list[dict[str, Any]] | None = None


# -- everything that stays JSON ----------------------------------------------------------------------------------------
class Workload(Object, frozen=True, kw_only=True):
    """Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, Job, CronJob: ``spec`` is JSON."""

    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


class Resource(Object, frozen=True, kw_only=True):
    """Any other kind that netsim uses (policies, Ingress, ConfigMap, Calico resources …): ``body`` is its whole JSON."""

    body: dict[str, Any] = {}

    @property
    def spec(self) -> dict[str, Any]:
        return self.body.get("spec") or {}


WORKLOAD_KINDS = ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job", "CronJob")
TYPED_KINDS: dict[str, type[Object]] = {
    "Namespace": Namespace,
    "Node": Node,
    "Pod": Pod,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Endpoints": Endpoints,
    **dict.fromkeys(WORKLOAD_KINDS, Workload),
}
