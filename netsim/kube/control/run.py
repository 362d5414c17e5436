"""The control plane's pipeline: from what the input says to a running cluster.

nodes → podCIDRs → Service addresses → controllers → scheduler → pod addresses → EndpointSlices. Everything goes by
name, priority and creation time, never by the order of the input, and running again on the result changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from netsim.kube.cluster import Cluster, Settings
from netsim.kube.control import allocation, mirror, nodes, slices, workloads
from netsim.kube.control.assumed import supply_endpoint_pods
from netsim.kube.control.scheduler import Scheduler, priority_order
from netsim.kube.objects import Condition, Node, Pod, PodIP, PodStatus
from netsim.kube.store import Store

Allocate = Callable[[Cluster], Mapping[tuple[str, str], Iterable[str]]]


def run(store: Store, settings: Settings, allocate: Allocate) -> Cluster:
    """Bring ``store`` to the state a cluster would settle in; ``assumptions`` of the result say what was supplied.

    ``allocate`` is the CNI plug-in's address management: (namespace, name) → addresses for pods that have a node but no
    address. Raises InputError with all that the API server would refuse.
    """
    notes: list[str] = []
    nodes.supply(store, settings, notes)
    nodes.assign_pod_cidrs(store, settings, notes)
    allocation.allocate(store, settings, notes)
    workloads.expand(store, settings, notes)
    waiting = _waiting(store)
    _schedule(store, waiting, notes)
    cluster = Cluster(store, settings, notes)
    _start(cluster, waiting, allocate)
    slices.make(store, notes)
    mirror.mirror(store, notes)
    supply_endpoint_pods(store, notes)
    cluster.forget()
    return cluster


def _waiting(store: Store) -> list[tuple[str, str]]:
    """Pods that nothing has been said about yet: those of manifests and those just made, by (namespace, name)."""
    return sorted(pod.key for pod in store.typed("Pod", Pod) if not pod.status.phase and not pod.ips)


def _schedule(store: Store, waiting: Sequence[tuple[str, str]], notes: list[str]) -> None:
    pods = [store.get("Pod", *key) for key in waiting]
    unplaced = [pod for pod in pods if not pod.spec.node_name]
    if not unplaced:
        return
    scheduler = Scheduler(store, nodes.ordered(store))
    placed = 0
    refused: dict[str, list[str]] = {}
    for pod in priority_order(unplaced):
        node, message = scheduler.place(pod)
        if node:
            placed += 1
            store.put(msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=node)))
            continue
        reason = "SchedulingGated" if pod.spec.scheduling_gates else "Unschedulable"
        status = PodStatus(phase="Pending", conditions=[Condition(type="PodScheduled", status="False", reason=reason)])
        store.put(msgspec.structs.replace(pod, status=status))
        refused.setdefault(message, []).append(f"{pod.namespace}/{pod.name}")
    if placed:
        notes.append(f"{placed} Pod{'s' if placed > 1 else ''} scheduled")
    for message, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        notes.append(f"Pod {names[0]}{more} pending: {message} (preemption is not modelled)")


def _start(cluster: Cluster, waiting: Sequence[tuple[str, str]], allocate: Allocate) -> None:
    """Addresses and Running for the pods that have a node; whatever a dump says of its pods stays."""
    store, notes = cluster.store, cluster.assumptions
    bound = [pod for key in waiting if (pod := store.get("Pod", *key)).spec.node_name and not pod.status.phase]
    if not bound:
        return
    cluster.forget()
    known = {node.name: node for node in store.typed("Node", Node)}
    lost = sorted({pod.spec.node_name for pod in bound} - set(known))
    for name in lost:
        notes.append(f"node {name} is not in the input: the pods bound to it do not run")
    bound = [pod for pod in bound if pod.spec.node_name in known]
    given = allocate(cluster) if any(not pod.spec.host_network for pod in bound) else {}
    without: list[str] = []
    for pod in bound:
        node = known[pod.spec.node_name]
        own = node_ips(node)
        addresses = own if pod.spec.host_network else list(given.get(pod.key, ()))
        if not addresses:
            without.append(f"{pod.namespace}/{pod.name}")
        store.put(msgspec.structs.replace(pod, status=_status(pod, addresses, own)))
    cluster.forget()
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        notes.append(f"Pod {without[0]}{more} pending: no address for it on its node")


def node_ips(node: Node) -> list[str]:
    """What hostNetwork pods have: the node's first InternalIP of each family."""
    found: dict[bool, str] = {}
    for address in node.status.addresses:
        if address.type == "InternalIP":
            found.setdefault(":" in address.address, address.address)
    return list(found.values())


def _status(pod: Pod, addresses: Sequence[str], host: Sequence[str]) -> PodStatus:
    started = bool(addresses)
    # Readiness gates are somebody else's to fulfil, and nobody else is here.
    ready = started and not pod.spec.readiness_gates
    states = {"PodScheduled": True, "Initialized": started, "ContainersReady": started, "Ready": ready}
    return PodStatus(
        phase="Running" if started else "Pending",
        pod_ip=addresses[0] if started else "",
        pod_ips=[PodIP(ip=text) for text in addresses],
        host_ip=host[0] if host else "",
        conditions=[Condition(type=name, status="True" if held else "False") for name, held in states.items()],
    )
