"""Addresses for the pods of a cluster, one host-local store per node.

On a real node the order of pod starts decides who gets which address. Here it is the order of (namespace, name), behind the
addresses that the input says are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from netsim.errors import InputError, Problem
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod
from netsim.packet.address import IPAddress, IPInterface, IPNetwork, ip
from netsim_backends.cni.host_local import Range, RangeError, RangeSet, canonical

Subnets = Callable[[str], Sequence[IPNetwork]]  # node → its pod subnets, one per family


def networked_pods(cluster: Cluster, node: str) -> list[Pod]:
    """The node's pods that have a namespace and addresses of their own, in (namespace, name) order."""
    held = cluster.pods_by_node.get(node, ())
    return sorted((p for p in held if not p.spec.host_network and p.ips), key=lambda p: p.key)


def ranges_of(cluster: Cluster, node: str, subnets: Sequence[IPNetwork]) -> list[Range]:
    """One range per subnet; InputError in host-local's words."""
    try:
        return [canonical(subnet) for subnet in subnets]
    except RangeError as error:
        source = cluster.nodes[node].source
        raise InputError([Problem(str(error), source, f'Node "{node}"', "spec.podCIDRs")]) from None


def allocate(cluster: Cluster, subnets: Subnets) -> dict[tuple[str, str], tuple[str, ...]]:
    """Addresses for every scheduled pod without any; InputError naming the node whose range is full."""
    given: dict[tuple[str, str], tuple[str, ...]] = {}
    for node in sorted(cluster.nodes):
        pods = [p for p in cluster.pods_by_node.get(node, ()) if not p.spec.host_network]
        lacking = sorted((p for p in pods if not p.ips and not p.status.phase), key=lambda p: p.key)
        if not lacking:
            continue
        sets = [RangeSet([one]) for one in ranges_of(cluster, node, subnets(node))]
        _take(sets, cluster, node)
        for pod in lacking:
            try:
                given[pod.key] = tuple(str(one.allocate(f"{pod.namespace}/{pod.name}")[0]) for one in sets)
            except RangeError as error:
                text = f"failed to allocate for pod {pod.namespace}/{pod.name}: {error}"
                raise InputError([Problem(text, cluster.nodes[node].source, f'Node "{node}"')]) from None
    return given


def _take(sets: Sequence[RangeSet], cluster: Cluster, node: str) -> None:
    """What the node's pods hold already, whichever pod that is: an address is never given twice."""
    for pod in cluster.pods_by_node.get(node, ()):
        for text in pod.ips:
            address = ip(text)
            for one in sets:
                if address in one:
                    one.held[address] = f"held {pod.namespace}/{pod.name}"


def interfaces_of(pod: Pod, subnets: Sequence[IPNetwork]) -> list[IPInterface]:
    """The pod's addresses with their subnet's length; one outside every subnet (as a dump may say) is alone in its own."""
    found: list[IPInterface] = []
    for text in pod.ips:
        address: IPAddress = ip(text)
        length = next((s.prefixlen for s in subnets if s.version == address.version and address in s), None)
        kind = IPv4Interface if address.version == 4 else IPv6Interface
        found.append(kind((int(address), address.max_prefixlen if length is None else length)))
    return found


def pod_cidrs(cluster: Cluster) -> Mapping[str, tuple[IPNetwork, ...]]:
    """Node → ``spec.podCIDRs``, read once and checked: no host bits (host-local refuses them)."""
    import ipaddress

    found: dict[str, tuple[IPNetwork, ...]] = {}
    problems: list[Problem] = []
    for name, node in cluster.nodes.items():
        texts = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
        held: list[IPNetwork] = []
        for index, text in enumerate(texts):
            try:
                value = ipaddress.ip_interface(text)
            except ValueError:
                said = f'Invalid value: "{text}": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
                problems.append(Problem(said, node.source, f'Node "{name}"', f"spec.podCIDRs[{index}]"))
                continue
            if value.ip != value.network.network_address:
                said = (
                    f"Network has host bits set. For a subnet mask of length {value.network.prefixlen} the "
                    f"network address is {value.network.network_address}"
                )
                problems.append(Problem(said, node.source, f'Node "{name}"', f"spec.podCIDRs[{index}]"))
                continue
            held.append(value.network)
        found[name] = tuple(held)
    if problems:
        raise InputError(problems)
    return found
