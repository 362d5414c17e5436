"""What the cluster's DNS would answer: the names of kubernetes/dns specification 1.1.0, with a pod's search path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod, Service

if TYPE_CHECKING:
    from netsim.cli.places import Place


def search_path(cluster: Cluster, sender: Place | None, namespace: str) -> tuple[str, ...]:
    """The kubelet's search list for the sender's namespace (a node's or outsider's resolver: that of ``namespace``)."""
    if sender is not None and sender.namespace and sender.namespace.startswith("pod/"):
        namespace = sender.namespace.split("/")[1]
    domain = cluster.settings.cluster_domain
    return f"{namespace}.svc.{domain}", f"svc.{domain}", domain


def lookup(cluster: Cluster, name: str, search: tuple[str, ...]) -> Service | Pod | None:
    """The Service or pod that ``name`` stands for: as it is, then with each search suffix."""
    name = name.lower()
    if name.endswith("."):
        return _absolute(cluster, name.rstrip("."))
    for suffix in ("", *search):
        if found := _absolute(cluster, f"{name}.{suffix}" if suffix else name):
            return found
    return None


def _absolute(cluster: Cluster, name: str) -> Service | Pod | None:
    domain = f".{cluster.settings.cluster_domain}"
    if not name.endswith(domain):
        return None
    match name.removesuffix(domain).split("."):
        case [service, namespace, "svc"]:
            return cluster.services.get((namespace, service))
        case [host, service, namespace, "svc"]:
            return _host(cluster, host, service, namespace)
        case [dashed, namespace, "pod"]:
            address = dashed.replace("-", "." if dashed.count("-") == 3 else ":")
            pod = cluster.pods_by_ip.get(address)
            return pod if pod is not None and pod.namespace == namespace else None
    return None


def _host(cluster: Cluster, host: str, service: str, namespace: str) -> Pod | None:
    """``web-0.web.shop.svc…``: an endpoint of a headless Service that has a host name."""
    found = cluster.services.get((namespace, service))
    if found is None or found.spec.cluster_ip != "None":
        return None
    for piece in cluster.slices.get(found.key, ()):
        for endpoint in piece.endpoints:
            if endpoint.hostname == host:
                target = endpoint.target_ref or {}
                pod = cluster.pods.get((target.get("namespace", namespace), target.get("name", "")))
                return pod or next((cluster.pods_by_ip.get(text) for text in endpoint.addresses), None)
    return None
