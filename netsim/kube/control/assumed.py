"""Pods behind endpoint addresses that the input names but shows no pod for (a dump of Services and slices alone)."""

from __future__ import annotations

import re

from netsim.kube.objects import Condition, EndpointSlice, Meta, Node, Pod, PodIP, PodSpec, PodStatus
from netsim.kube.store import Store

LABEL = "netsim/assumed"


def supply_endpoint_pods(store: Store, notes: list[str]) -> None:
    """One pod for each such address, on the endpoint's node, with a label that no selector asks for."""
    if not store.count("EndpointSlice"):
        return
    known = {address for pod in store.typed("Pod", Pod) if not pod.finished for address in pod.ips}
    held = {node.name for node in store.typed("Node", Node)}
    known.update(entry.address for node in store.typed("Node", Node) for entry in node.status.addresses)
    missing: dict[str, tuple[str, str]] = {}
    for item in store.typed("EndpointSlice", EndpointSlice):
        for endpoint in item.endpoints:
            if endpoint.node_name not in held or (
                endpoint.conditions.ready is False and not endpoint.conditions.serving
            ):
                continue
            for address in endpoint.addresses if item.address_type in ("IPv4", "IPv6") else ():
                if address not in known:
                    place = (item.namespace, endpoint.node_name or "")
                    missing[address] = min(missing.get(address, place), place)
    for address in sorted(missing):
        namespace, node = missing[address]
        store.put(_pod(address, namespace, node))
    if missing:
        notes.append(f"{len(missing)} endpoint addresses belong to no Pod of the input: Pods assumed for them")


def _pod(address: str, namespace: str, node: str) -> Pod:
    name = "assumed-" + re.sub(r"[^0-9a-f]", "-", address.lower()).strip("-")
    return Pod(
        kind="Pod",
        metadata=Meta(name=name, namespace=namespace, labels={LABEL: "true"}),
        spec=PodSpec(node_name=node),
        status=PodStatus(
            phase="Running",
            pod_ip=address,
            pod_ips=[PodIP(ip=address)],
            conditions=[Condition(type="Ready", status="True")],
        ),
    )
