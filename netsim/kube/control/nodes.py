"""Nodes: those supplied when the input has none, and the node IPAM controller's podCIDRs (Kubernetes 1.33).

Where upstream goes by the order in which nodes register, netsim goes by creation time and then by name, numbers in
names compared as numbers (node-2 before node-10): the order of the input never matters.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import msgspec

from netsim.kube.cluster import Settings
from netsim.kube.objects import Condition, EndpointSlice, Meta, Node, NodeAddress, NodeStatus, Pod
from netsim.kube.store import Store
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of, network

DEFAULT_NODES = 3
_FIRST_ADDRESS = {Family.IPV4: "192.168.56.11", Family.IPV6: "fd00:192:168:56::11"}


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which ``node-2`` comes before ``node-10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts)


def ordered(store: Store) -> list[Node]:
    """Every node in the order that decides: oldest first, then by name."""
    return sorted(
        store.typed("Node", Node), key=lambda node: (node.metadata.creation_timestamp or "", natural(node.name))
    )


def supply(store: Store, settings: Settings, notes: list[str]) -> None:
    """Nodes for an input without any: those that its pods and endpoints name, else ``settings.nodes`` of our own."""
    if store.count("Node"):
        return
    named = _named_by_others(store)
    if named:
        names, addresses = sorted(named, key=natural), named
    else:
        names, addresses = [f"node-{number}" for number in range(1, (settings.nodes or DEFAULT_NODES) + 1)], {}
    taken = {address for known in addresses.values() for address in known}
    families = list(dict.fromkeys(family_of(network(text)) for text in settings.pod_cidrs)) or [Family.IPV4]
    following = {family: ipaddress.ip_address(_FIRST_ADDRESS[family]) for family in families}
    for name in names:
        own = list(addresses.get(name, ()))
        for family in families:
            if not any((":" in text) is (family is Family.IPV6) for text in own):
                while str(following[family]) in taken:
                    following[family] += 1
                own.append(str(following[family]))
                following[family] += 1
        store.put(_node(name, own))
    origin = "named by pods and endpoints" if named else f"{names[0]} to {names[-1]}"
    notes.append(f"no Node in the input: {len(names)} supplied ({origin})")


def _named_by_others(store: Store) -> dict[str, list[str]]:
    """Node name → the addresses that hostIPs give it."""
    found: dict[str, set[str]] = {}
    for pod in store.typed("Pod", Pod):
        if pod.spec.node_name:
            addresses = found.setdefault(pod.spec.node_name, set())
            addresses.update([pod.status.host_ip] if pod.status.host_ip else ())
    for item in store.typed("EndpointSlice", EndpointSlice):
        for endpoint in item.endpoints:
            if endpoint.node_name:
                found.setdefault(endpoint.node_name, set())
    return {name: sorted(addresses) for name, addresses in found.items()}


def _node(name: str, addresses: Iterable[str]) -> Node:
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }
    stated = [NodeAddress(type="InternalIP", address=text) for text in addresses]
    return Node(
        kind="Node",
        metadata=Meta(name=name, labels=labels),
        status=NodeStatus(
            addresses=[*stated, NodeAddress(type="Hostname", address=name)],
            conditions=[Condition(type="Ready", status="True", reason="KubeletReady")],
        ),
    )


class _Blocks:
    """The blocks of one cluster CIDR, handed out in index order behind a cursor (ipam/cidrset)."""

    def __init__(self, cluster: IPNetwork, mask: int) -> None:
        self.cluster = cluster
        self._shift = cluster.max_prefixlen - mask
        self.count = 1 << max(0, mask - cluster.prefixlen) if mask >= cluster.prefixlen else 0
        self._mask = mask
        self._used: set[int] = set()
        self._cursor = 0

    def occupy(self, taken: IPNetwork) -> None:
        if taken.version != self.cluster.version or not taken.overlaps(self.cluster):
            return
        base = int(self.cluster.network_address)
        first = max(0, (int(taken.network_address) - base) >> self._shift)
        last = min(self.count - 1, (int(taken.broadcast_address) - base) >> self._shift)
        self._used.update(range(first, last + 1))

    def next(self) -> str | None:
        for step in range(self.count):
            index = (self._cursor + step) % self.count
            if index not in self._used:
                self._used.add(index)
                self._cursor = (index + 1) % self.count
                start = int(self.cluster.network_address) + (index << self._shift)
                address: IPAddress = type(self.cluster.network_address)(start)
                return f"{address}/{self._mask}"
        return None


def assign_pod_cidrs(store: Store, settings: Settings, notes: list[str]) -> None:
    """One block per cluster CIDR for each node that has none; a node's stated podCIDRs are believed as they are."""
    nodes = ordered(store)
    lacking = [node for node in nodes if not node.spec.pod_cidrs]
    if not lacking:
        return
    pools = []
    for text in settings.pod_cidrs:
        cluster = network(text)
        mask = settings.node_cidr_mask[0 if cluster.version == 4 else 1]
        pool = _Blocks(cluster, mask)
        for held in (*(cidr for node in nodes for cidr in node.spec.pod_cidrs), *settings.service_cidrs):
            pool.occupy(network(held))
        pools.append(pool)
    without = 0
    for node in lacking:
        blocks = [pool.next() for pool in pools]
        given = [block for block in blocks if block is not None]
        if not given or len(given) < len(pools):
            without += 1
            continue
        spec = msgspec.structs.replace(node.spec, pod_cidr=given[0], pod_cidrs=given)
        store.put(msgspec.structs.replace(node, spec=spec))
    if len(lacking) > without:
        notes.append(f"podCIDRs assigned to {len(lacking) - without} of {len(nodes)} nodes")
    if without:
        notes.append(f"{without} nodes have no podCIDR: CIDRNotAvailable, the cluster CIDR has no free block")
