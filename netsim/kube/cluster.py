"""A running cluster, as the backends see it: the store after the controllers have run, with the indexes they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netsim.errors import UsageError
from netsim.kube.objects import EndpointSlice, Node, Pod, Resource, Service
from netsim.kube.store import Event, Store

SERVICE_NAME = "kubernetes.io/service-name"  # the label that says whose a slice is


@dataclass(frozen=True)
class Settings:
    """What the API server, controller manager and command line were told.

    ``pod_cidrs``/``service_cidrs``: one per family, primary first. ``proxy``/``cni``: overrides of what the input says
    (``--proxy``, ``--cni TYPE[:MODE]``). ``proxy_config``: KubeProxyConfiguration as JSON; ``network_config``: flannel's
    net-conf.json; both as found in the input's ConfigMaps or bare documents, {} when absent. ``nodes``: how many
    nodes to supply when the input has none (0: three).
    """

    pod_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/12",)
    node_port_range: tuple[int, int] = (30000, 32767)
    node_cidr_mask: tuple[int, int] = (24, 64)  # IPv4, IPv6
    kubernetes_version: tuple[int, int] = (1, 34)
    cluster_domain: str = "cluster.local"
    proxy: str | None = None
    cni: str | None = None
    proxy_config: dict[str, Any] = field(default_factory=dict)
    network_config: dict[str, Any] = field(default_factory=dict)
    nodes: int = 0


@dataclass
class Cluster:
    """The store plus settings; ``assumptions`` are the one-line notes of what netsim supplied itself."""

    store: Store
    settings: Settings = Settings()
    assumptions: list[str] = field(default_factory=list)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        return {n.name: n for n in self.store.typed("Node", Node)}

    @cached_property
    def pods(self) -> dict[tuple[str, str], Pod]:
        """(namespace, name) → pod; pods that have ended are left out."""
        return {p.key: p for p in self.store.typed("Pod", Pod) if not p.finished}

    @cached_property
    def services(self) -> dict[tuple[str, str], Service]:
        return {s.key: s for s in self.store.typed("Service", Service)}

    @cached_property
    def slices(self) -> dict[tuple[str, str], Sequence[EndpointSlice]]:
        """(namespace, Service name) → its EndpointSlices."""
        found: dict[tuple[str, str], list[EndpointSlice]] = {}
        for item in self.store.typed("EndpointSlice", EndpointSlice):
            service = item.metadata.labels.get(SERVICE_NAME)
            if service:
                found.setdefault((item.namespace, service), []).append(item)
        return {key: tuple(items) for key, items in found.items()}

    @cached_property
    def pods_by_ip(self) -> dict[str, Pod]:
        """Pod address text → pod; hostNetwork pods are not in it (their addresses are their node's)."""
        return {ip: pod for pod in self.pods.values() if not pod.spec.host_network for ip in pod.ips}

    @cached_property
    def pods_by_node(self) -> dict[str, Sequence[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods.values():
            if pod.spec.node_name:
                found.setdefault(pod.spec.node_name, []).append(pod)
        return {node: tuple(pods) for node, pods in found.items()}

    def node_addresses(self, node: str, kind: str = "InternalIP") -> list[str]:
        return [a.address for a in self.nodes[node].status.addresses if a.type == kind]

    def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """The ``data`` of a ConfigMap, {} if absent."""
        found: Resource | None = self.store.get("ConfigMap", namespace, name)
        return dict((found.body.get("data") or {}) if found else {})

    def after(self, events: Iterable[Event]) -> Cluster:
        """The cluster after events of the store that concern Services and EndpointSlices: the other indexes go on as they
        are. UsageError for an event of another kind."""
        events = tuple(events)
        services, slices = self.services, self.slices
        if any(isinstance(event.object, Service) for event in events):
            services = services.copy()
        if any(isinstance(event.object, EndpointSlice) for event in events):
            slices = slices.copy()
        for event in events:
            changed, gone = event.object, event.type == "DELETED"
            if isinstance(changed, Service):
                if gone:
                    services.pop(changed.key, None)
                else:
                    services[changed.key] = changed
            elif isinstance(changed, EndpointSlice):
                _take_slice(slices, changed, gone)
            else:
                raise UsageError(
                    f"a {changed.kind} has changed, which changes more than Services: assemble the cluster anew"
                )
        new = Cluster(self.store, self.settings, self.assumptions)
        new.__dict__.update(self.__dict__, services=services, slices=slices)
        return new

    def forget(self) -> None:
        """Drop the indexes after the store has changed."""
        for name in ("nodes", "pods", "services", "slices", "pods_by_ip", "pods_by_node"):
            self.__dict__.pop(name, None)


def _take_slice(slices: dict[tuple[str, str], Sequence[EndpointSlice]], changed: EndpointSlice, gone: bool) -> None:
    service = changed.metadata.labels.get(SERVICE_NAME)
    key = (changed.namespace, service) if service else None
    if key is None or not any(one.name == changed.name for one in slices.get(key, ())):
        # It is new, or was another Service's so far.
        for other, held in slices.items():
            if other[0] == changed.namespace and any(one.name == changed.name for one in held):
                _put_slices(slices, other, [one for one in held if one.name != changed.name])
                break
    if key is None:
        return
    kept = [changed if one.name == changed.name else one for one in slices.get(key, ())]
    if changed not in kept:
        kept.append(changed)
    _put_slices(slices, key, [one for one in kept if not gone or one.name != changed.name])


def _put_slices(
    slices: dict[tuple[str, str], Sequence[EndpointSlice]], key: tuple[str, str], held: Sequence[EndpointSlice]
) -> None:
    if held:
        slices[key] = tuple(held)
    else:
        slices.pop(key, None)
