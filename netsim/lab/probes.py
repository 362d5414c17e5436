"""The probe list: every path class that a cluster has, over IPv4. A probe is sent so often that every draw is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netsim.kube.objects import Pod
from netsim.packet.address import IPAddress, ip
from netsim.packet.model import Proto
from netsim.topology.assemble import Assembled
from netsim.topology.underlay import EXTERNAL, EXTERNAL_ADDRESSES

_NUMBERS = {"TCP": Proto.TCP, "UDP": Proto.UDP, "SCTP": Proto.SCTP, "ICMP": Proto.ICMP}
_UDP_PORT = 9  # nobody listens: what counts is how the packet fares
OUTSIDE_PORT = 443


@dataclass(frozen=True)
class Probe:
    """``size`` is that of the IP packet, 0 for the smallest; then DF is set. ``sticky``: the kernel remembers its choice."""

    path: str
    source: str
    target: IPAddress
    protocol: Proto
    port: int = 0
    ttl: int = 64
    size: int = 0
    sticky: bool = False

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        more = f" ttl {self.ttl}" if self.ttl != 64 else ""
        more += f" size {self.size} DF" if self.size else ""
        return f"{self.path}: {self.source} -> {self.target}{port} {self.protocol.name}{more}"


def probes(made: Assembled) -> list[Probe]:
    return list(dict.fromkeys([*_between_pods(made), *_to_services(made), *_elsewhere(made)]))


def _v4(made: Assembled, pod: Pod) -> IPAddress | None:
    return next((ip(one.ip) for one in pod.status.pod_ips if ip(one.ip).version == 4), None)


def _own_network(made: Assembled) -> list[tuple[Pod, IPAddress]]:
    found = []
    for _, pod in sorted(made.cluster.pods.items()):
        address = _v4(made, pod)
        if pod.spec.node_name and not pod.spec.host_network and address is not None:
            found.append((pod, address))
    return found


def _senders(made: Assembled) -> list[tuple[str, str]]:
    """(kind, namespace): two pods of each node, the nodes, the outside."""
    of_node: dict[str, list[str]] = {}
    for pod, _ in _own_network(made):
        of_node.setdefault(str(pod.spec.node_name), []).append(made.namespace_of(pod))
    pods = [("pod", name) for _, names in sorted(of_node.items()) for name in names[:2]]
    return [*pods, *(("node", f"node/{node}") for node in sorted(made.cluster.nodes)), ("outside", EXTERNAL)]


def _between_pods(made: Assembled) -> Iterator[Probe]:
    pods, wires = _own_network(made), made.network.topology.wires
    for source, own in pods:
        name, node = made.namespace_of(source), str(source.spec.node_name)
        seen: dict[str, int] = {}
        for target, address in pods:
            there = str(target.spec.node_name)
            if own == address:
                path = "pod to itself"
            elif node == there:
                path = "pod to pod of the same node"
            elif wires[node].segment == wires[there].segment:
                path = "pod to pod of another node"
            else:
                path = "pod to pod in another segment"
            seen[path] = seen.get(path, 0) + 1
            if seen[path] > 2:
                continue
            for container in target.spec.containers:
                for port in container.ports or ():
                    yield Probe(path, name, address, _NUMBERS[port.protocol or "TCP"], port.container_port)
            yield Probe(path, name, address, Proto.ICMP)
            if seen[path] == 1:
                yield from (
                    Probe(f"{path}, TTL", name, address, Proto.UDP, _UDP_PORT, ttl=ttl) for ttl in (1, 2, 3, 4, 5)
                )
                yield Probe(f"{path}, TTL", name, address, Proto.ICMP, ttl=2)
                mtu = min(link.mtu for link in made.network.namespace(name).links)
                yield from (Probe(f"{path}, MTU", name, address, Proto.UDP, _UDP_PORT, size=s) for s in (mtu - 1, mtu))


def _to_services(made: Assembled) -> Iterator[Probe]:
    senders = _senders(made)
    nodes = {f"node/{n}": made.network.topology.wires[n].interfaces for n in sorted(made.cluster.nodes)}
    for service in made.cluster.store.list("Service"):
        spec = service.spec
        if spec.type == "ExternalName":
            continue
        sticky = spec.session_affinity == "ClientIP"
        targets = [("ClusterIP", ip(text), False) for text in spec.cluster_ips if text not in ("", "None")]
        targets += [("external IP", ip(text), False) for text in spec.external_ips]
        targets += [("load balancer", ip(one.ip), False) for one in service.status.load_balancer.ingress if one.ip]
        if spec.type in ("NodePort", "LoadBalancer"):
            targets += [("NodePort", one.ip, True) for held in nodes.values() for one in held]
        for port in spec.ports:
            for what, address, by_node in targets:
                number = port.node_port if by_node else port.port
                if address.version == 4 and number:
                    for kind, name in senders:
                        path = f"{kind} to Service by {what}"
                        yield Probe(path, name, address, _NUMBERS[port.protocol or "TCP"], number, sticky=sticky)


def _elsewhere(made: Assembled) -> Iterator[Probe]:
    pods, outside = _own_network(made), EXTERNAL_ADDRESSES[0].ip
    for kind, name in _senders(made):
        for protocol in (Proto.TCP, Proto.UDP):
            yield Probe(f"{kind} to outside", name, outside, protocol, OUTSIDE_PORT)
        yield Probe(f"{kind} to outside", name, outside, Proto.ICMP)
        yield from (Probe(f"{kind} to outside, TTL", name, outside, Proto.UDP, OUTSIDE_PORT, ttl=t) for t in (1, 2, 3))
        for node in sorted(made.cluster.nodes):
            address = made.network.topology.wires[node].interfaces[0].ip
            if address.version == 4:
                yield Probe(f"{kind} to node", name, address, Proto.ICMP)
                yield Probe(f"{kind} to node", name, address, Proto.UDP, _UDP_PORT)
        if kind == "pod":
            continue
        for pod, address in pods[::3]:
            for container in pod.spec.containers:
                for port in container.ports or ():
                    yield Probe(f"{kind} to pod", name, address, _NUMBERS[port.protocol or "TCP"], port.container_port)
            yield Probe(f"{kind} to pod", name, address, Proto.ICMP)
            yield from (Probe(f"{kind} to pod, TTL", name, address, Proto.UDP, _UDP_PORT, ttl=t) for t in (1, 2, 3, 4))
    for path, name, address, number in _large(made):
        for size in (1300, 1450, 1451, 1472, 1473, 1500):
            yield Probe(path, name, address, Proto.TCP, number, size=size)


def _large(made: Assembled) -> Iterator[tuple[str, str, IPAddress, int]]:
    """From a host with a larger MTU than the pods may have, through a node."""
    nodes = [wire.interfaces[0].ip for _, wire in sorted(made.network.topology.wires.items())]
    for service in made.cluster.store.list("Service"):
        for port in service.spec.ports:
            if port.node_port and (port.protocol or "TCP") == "TCP":
                for address in nodes:
                    if address.version == 4:
                        yield "outside to Service by NodePort, MTU", EXTERNAL, address, port.node_port
