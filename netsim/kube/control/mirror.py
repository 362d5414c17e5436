"""The EndpointSlice mirroring controller: hand-written Endpoints to slices (Kubernetes 1.33).

For a Service without selector and Endpoints of the same name, unless labelled skip-mirror; one set of slices per subset
and family, 1000 addresses of a subset at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netsim.kube.control.names import Generator, prefix
from netsim.kube.control.slices import LARGEST, MANAGED_BY, SERVICE_LABEL, services_with_slices
from netsim.kube.objects import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    Meta,
    OwnerReference,
    Service,
)
from netsim.kube.store import Store
from netsim.packet.address import ip

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_MOST = 1000
Json = Mapping[str, Any]


def mirror(store: Store, notes: list[str]) -> None:
    if not store.count("Endpoints"):
        return
    sliced = services_with_slices(store)
    mirrored = 0
    for item in sorted(store.typed("Endpoints", Endpoints), key=lambda endpoints: endpoints.key):
        service: Service | None = store.get("Service", *item.key)
        if service is None or service.spec.selector or item.key in sliced:
            continue
        if item.metadata.labels.get(SKIP) == "true" or _LEADER in item.metadata.annotations:
            continue
        for made in _slices(item, store):
            store.put(made)
        mirrored += 1
    if mirrored:
        notes.append(f"{mirrored} Endpoints mirrored to EndpointSlices")


def _slices(item: Endpoints, store: Store) -> Iterator[EndpointSlice]:
    names = Generator(
        item.namespace,
        item.name,
        "EndpointSlice",
        lambda name: store.get("EndpointSlice", item.namespace, name) is not None,
    )
    base = prefix(item.name)
    labels = {**item.metadata.labels, SERVICE_LABEL: item.name, MANAGED_BY: CONTROLLER}
    for subset in item.subsets or ():
        stated = [(entry, True) for entry in subset.get("addresses") or ()]
        stated += [(entry, False) for entry in subset.get("notReadyAddresses") or ()]
        ports = [
            EndpointPort(
                name=port.get("name", ""),
                protocol=port.get("protocol", "TCP"),
                port=port.get("port"),
                app_protocol=port.get("appProtocol"),
            )
            for port in subset.get("ports") or ()
        ]
        for family in ("IPv4", "IPv6"):
            fitting = [pair for pair in stated[:_MOST] if (":" in pair[0]["ip"]) is (family == "IPv6")]
            endpoints = [
                _endpoint(entry, ready) for entry, ready in sorted(fitting, key=lambda pair: ip(pair[0]["ip"]))
            ]
            for start in range(0, len(endpoints), LARGEST):
                yield EndpointSlice(
                    kind="EndpointSlice",
                    api_version="discovery.k8s.io/v1",
                    metadata=Meta(
                        name=names.next(base),
                        generate_name=base,
                        namespace=item.namespace,
                        labels=labels,
                        owner_references=[
                            OwnerReference(kind="Endpoints", name=item.name, uid=item.metadata.uid, controller=True)
                        ],
                    ),
                    address_type=family,
                    endpoints=endpoints[start : start + LARGEST],
                    ports=ports,
                    source=item.source,
                )


def _endpoint(entry: Json, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[entry["ip"]],
        conditions=EndpointConditions(ready=ready),
        hostname=entry.get("hostname"),
        node_name=entry.get("nodeName"),
        target_ref=entry.get("targetRef"),
    )
