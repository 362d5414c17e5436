"""The EndpointSlice controller (k8s.io/endpointslice; Kubernetes 1.33).

Only Services that have no slice in the input get slices. Endpoints are put in order of address (upstream's order is by
chance), so one pass fills each slice to 100 and there is nothing to repack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from netsim.kube.control.hints import with_hints
from netsim.kube.control.names import Generator, prefix
from netsim.kube.objects import (
    ContainerPort,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Meta,
    Node,
    OwnerReference,
    Pod,
    Service,
)
from netsim.kube.store import Store
from netsim.packet.address import ip

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
LARGEST = 100
_RESERVED = (SERVICE_LABEL, MANAGED_BY, HEADLESS)
PortList = tuple[tuple[str, str, int, str | None], ...]


def make(store: Store, notes: list[str]) -> None:
    """Slices for every Service with a selector that has none yet."""
    sliced = services_with_slices(store)
    wanting = sorted(
        (
            service
            for service in store.typed("Service", Service)
            if service.spec.selector and service.spec.type != "ExternalName" and service.key not in sliced
        ),
        key=lambda service: service.key,
    )
    if not wanting:
        return
    nodes = {node.name: node for node in store.typed("Node", Node)}
    pods = PodIndex(store)
    made = 0
    for service in wanting:
        for item in slices_of(service, pods.select(service.namespace, service.spec.selector or {}), nodes, store):
            store.put(item)
            made += 1
    notes.append(
        f"{made} EndpointSlice{'s' if made != 1 else ''} made for {len(wanting)} Service{'s' if len(wanting) != 1 else ''}"
    )


def services_with_slices(store: Store) -> set[tuple[str, str]]:
    return {
        (item.namespace, item.metadata.labels[SERVICE_LABEL])
        for item in store.typed("EndpointSlice", EndpointSlice)
        if SERVICE_LABEL in item.metadata.labels
    }


class PodIndex:
    """Pods that may be endpoints, by namespace and label."""

    def __init__(self, store: Store) -> None:
        self._by_label: dict[tuple[str, str, str], list[Pod]] = {}
        for pod in store.typed("Pod", Pod):
            if not pod.finished and pod.ips:
                for key, value in pod.metadata.labels.items():
                    self._by_label.setdefault((pod.namespace, key, value), []).append(pod)

    def select(self, namespace: str, selector: Mapping[str, str]) -> list[Pod]:
        lists = [self._by_label.get((namespace, key, value), []) for key, value in selector.items()]
        shortest = min(lists, key=len)
        return [
            pod for pod in shortest if all(pod.metadata.labels.get(key) == value for key, value in selector.items())
        ]


def slices_of(
    service: Service, pods: Iterable[Pod], nodes: Mapping[str, Node], store: Store
) -> Iterator[EndpointSlice]:
    names = Generator(
        service.namespace,
        service.name,
        "EndpointSlice",
        lambda name: store.get("EndpointSlice", service.namespace, name) is not None,
    )
    candidates = [pod for pod in pods if pod.spec.node_name in nodes or service.spec.publish_not_ready_addresses]
    for family in service.spec.ip_families or ["IPv4"]:
        groups: dict[PortList, list[Endpoint]] = {}
        for pod in candidates:
            addresses = [text for text in pod.ips if (":" in text) is (family == "IPv6")]
            if addresses:
                groups.setdefault(_ports(service, pod), []).append(_endpoint(service, pod, addresses[:1], nodes))
        every = [endpoint for group in groups.values() for endpoint in group]
        hinted = with_hints(service, every, nodes)
        given = dict(zip(map(id, every), hinted))
        if not groups:
            yield _slice(service, names, family, [], None)
        for ports in sorted(groups, key=lambda ports: [(*port[:3], port[3] or "") for port in ports]):
            ordered = sorted(
                (given[id(e)] for e in groups[ports]), key=lambda e: (ip(e.addresses[0]), str(e.target_ref))
            )
            for start in range(0, len(ordered), LARGEST):
                yield _slice(service, names, family, ordered[start : start + LARGEST], ports)


def _endpoint(service: Service, pod: Pod, addresses: list[str], nodes: Mapping[str, Node]) -> Endpoint:
    node = nodes.get(pod.spec.node_name)
    terminating = pod.metadata.deletion_timestamp is not None
    serving = pod.ready
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    named = bool(pod.spec.hostname) and pod.spec.subdomain == service.name
    return Endpoint(
        addresses=addresses,
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=pod.spec.hostname if named else None,
        node_name=pod.spec.node_name or None,
        zone=node.metadata.labels.get(ZONE) if node else None,
        target_ref={"kind": "Pod", "name": pod.name, "namespace": pod.namespace}
        | ({"uid": pod.metadata.uid} if pod.metadata.uid else {}),
    )


def _ports(service: Service, pod: Pod) -> PortList:
    """(name, protocol, number, appProtocol) of each Service port that this pod has; a named one it lacks is left out."""
    found = []
    for port in service.spec.ports:
        number = _target(port.target_port or port.port, port.protocol, pod)
        if number is not None:
            found.append((port.name, port.protocol, number, port.app_protocol))
    return tuple(found)


def _target(target: int | str, protocol: str, pod: Pod) -> int | None:
    if isinstance(target, int):
        return target
    for port in _container_ports(pod):
        if port.name == target and port.protocol == protocol:
            return port.container_port
    return None


def _container_ports(pod: Pod) -> Iterator[ContainerPort]:
    for container in pod.spec.containers:
        yield from container.ports or ()
    for container in pod.spec.init_containers or ():
        if container.restart_policy == "Always":
            yield from container.ports or ()


def _slice(
    service: Service, names: Generator, family: str, endpoints: Sequence[Endpoint], ports: PortList | None
) -> EndpointSlice:
    labels = {key: value for key, value in service.metadata.labels.items() if key not in _RESERVED}
    labels |= {SERVICE_LABEL: service.name, MANAGED_BY: CONTROLLER}
    if service.spec.cluster_ip == "None":
        labels[HEADLESS] = ""
    base = prefix(service.name)
    return EndpointSlice(
        kind="EndpointSlice",
        api_version="discovery.k8s.io/v1",
        metadata=Meta(
            name=names.next(base),
            generate_name=base,
            namespace=service.namespace,
            labels=labels,
            owner_references=[
                OwnerReference(kind="Service", name=service.name, uid=service.metadata.uid, controller=True)
            ],
        ),
        address_type=family,
        endpoints=list(endpoints),
        ports=None
        if ports is None
        else [
            EndpointPort(name=name, protocol=protocol, port=number, app_protocol=app)
            for name, protocol, number, app in ports
        ],
        source=service.source,
    )
