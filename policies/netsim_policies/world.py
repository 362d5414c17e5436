"""From a cluster's store to the ``World`` that policy questions are asked of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netsim.errors import InputError, Problem
from netsim.kube.objects import Namespace, Node, Pod, Resource
from netsim.kube.store import Store
from netsim.packet.address import IPAddress, ip
from netsim_policies.algebra import AddressSet
from netsim_policies.apis import apis
from netsim_policies.model import Endpoint, EndpointKind, Policy, World


def world(store: Store, policies_apply: bool = True) -> World:
    """Every live pod and node of ``store`` as endpoints, and every policy of every known API (none of them where the
    network plugin enforces none, and ``policies_apply`` is False).

    Pods that have ended (Succeeded, Failed) keep an address in dumps but are nobody any more. Raises InputError with the
    problems of all unreadable policies.
    """
    namespaces = {n.name: dict(n.metadata.labels) for n in store.typed("Namespace", Namespace)}
    nodes = {n.name: node_endpoint(n) for n in store.typed("Node", Node)}
    pods = (pod_endpoint(p, namespaces, nodes) for p in store.typed("Pod", Pod) if not p.finished)
    policies = tuple(read_policies(store))
    return World((*pods, *nodes.values()), policies if policies_apply else (), namespaces)


def read_policies(store: Store) -> Iterable[Policy]:
    policies: list[Policy] = []
    problems: list[Problem] = []
    for kind, api in apis().items():
        for resource in store.typed(kind, Resource):
            try:
                policies.append(api.read(resource))
            except InputError as error:
                problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return policies


def pod_endpoint(
    pod: Pod, namespaces: Mapping[str, Mapping[str, str]], nodes: Mapping[str, Endpoint] | None = None
) -> Endpoint:
    on = (nodes or {}).get(pod.spec.node_name)
    return Endpoint(
        kind=EndpointKind.POD,
        name=f"{pod.namespace}/{pod.name}",
        namespace=pod.namespace,
        labels=pod.metadata.labels,
        # the server puts this label on every Namespace, though manifests rarely show it
        namespace_labels={**namespaces.get(pod.namespace, {}), "kubernetes.io/metadata.name": pod.namespace},
        addresses=tuple(ip(text) for text in pod.ips),
        named_ports=named_ports(pod),
        host_network=pod.spec.host_network,
        node=pod.spec.node_name or None,
        node_labels=on.labels if on and pod.spec.host_network else {},
        workload=workload_of(pod),
        source=pod.source,
    )


def named_ports(pod: Pod) -> dict[tuple[str, str], int]:
    """(name, protocol) → number; the first container that names a port wins, as for Services."""
    found: dict[tuple[str, str], int] = {}
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers or () if c.restart_policy == "Always")]
    for container in containers:
        for port in container.ports or ():
            if port.name:
                found.setdefault((port.name, port.protocol), port.container_port)
    return found


def workload_of(pod: Pod) -> str:
    """``Deployment shop/web`` for a pod of one of its ReplicaSets; the pod itself when nothing owns it."""
    owner = next((o for o in pod.metadata.owner_references if o.controller), None)
    if owner is None:
        return f"Pod {pod.namespace}/{pod.name}"
    template = pod.metadata.labels.get("pod-template-hash")
    if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
        return f"Deployment {pod.namespace}/{owner.name.removesuffix(f'-{template}')}"
    return f"{owner.kind} {pod.namespace}/{owner.name}"


def node_endpoint(node: Node) -> Endpoint:
    return Endpoint(
        kind=EndpointKind.NODE,
        name=node.name,
        labels=node.metadata.labels,
        node_labels=node.metadata.labels,
        addresses=tuple(_addresses(node)),
        node=node.name,
        source=node.source,
    )


def _addresses(node: Node) -> Iterable[IPAddress]:
    for address in node.status.addresses:
        if address.type in ("InternalIP", "ExternalIP"):
            yield ip(address.address)


def outside(text: str) -> Endpoint:
    """An address or prefix that nobody in the cluster has."""
    return Endpoint(kind=EndpointKind.EXTERNAL, name=text, outside=AddressSet.prefix(text))
