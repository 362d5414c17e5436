"""Small clusters for tests of the control plane, and a stand-in for a CNI plug-in's address management."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from netsim.kube.cluster import Cluster, Settings
from netsim.kube.control import run
from netsim.kube.objects import TYPED_KINDS, Object
from netsim.kube.store import Store


def addresses(cluster: Cluster) -> Mapping[tuple[str, str], Iterable[str]]:
    """host-local in miniature: the lowest free addresses of the node's podCIDRs, pods by name."""
    import ipaddress

    given: dict[tuple[str, str], list[str]] = {}
    taken = {address for pod in cluster.pods.values() for address in pod.ips}
    for pod in sorted(cluster.pods.values(), key=lambda pod: pod.key):
        if not pod.spec.node_name or pod.ips or pod.spec.host_network:
            continue
        for cidr in cluster.nodes[pod.spec.node_name].spec.pod_cidrs:
            address = ipaddress.ip_network(cidr)[2]
            while str(address) in taken:
                address += 1
            taken.add(str(address))
            given.setdefault(pod.key, []).append(str(address))
    return given


def built(body: dict[str, Any]) -> Object:
    from netsim.kube import defaults

    body["metadata"].setdefault("namespace", "" if body["kind"] == "Node" else "default")
    defaults.apply(body, body["kind"])
    return msgspec.convert(body, TYPED_KINDS[body["kind"]])


def store_of(*bodies: dict[str, Any]) -> Store:
    store = Store()
    for body in bodies:
        store.put(built(msgspec.json.decode(msgspec.json.encode(body))))
    return store


def running(*bodies: dict[str, Any], **settings: Any) -> Cluster:
    return run(store_of(*bodies), Settings(**settings), addresses)


def contents(store: Store) -> dict[str, list[Any]]:
    """Everything in the store, whatever the order it came in."""
    found: dict[str, list[Any]] = {}
    for kind in sorted(store.kinds()):
        items = [msgspec.to_builtins(item) for item in sorted(store.list(kind), key=lambda item: item.key)]
        for item in items:
            item["metadata"].pop("resourceVersion", None)
        found[kind] = items
    return found


def workload(
    kind: str, name: str, labels: dict[str, str], pod: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}], **(pod or {})}}
    selector = {} if kind == "Job" else {"selector": {"matchLabels": labels}}
    return {"kind": kind, "metadata": {"name": name}, "spec": {**selector, "template": template, **spec}}


def service(
    name: str, selector: dict[str, str] | None = None, ports: Any = ({"port": 80},), **spec: Any
) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector, "ports": list(ports), **spec}}


def node(name: str, zone: str = "", cpu: str = "4", **spec: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, **({"topology.kubernetes.io/zone": zone} if zone else {})}
    status = {
        "addresses": [{"type": "InternalIP", "address": f"10.0.0.{1 + sum(name.encode()) % 250}"}],
        "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
