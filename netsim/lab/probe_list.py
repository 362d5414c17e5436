"""The default probe list: every path class that a cluster has, over each family it has.

    pods        to themselves, to pods of their node, of another one, of another segment; over TTLs and sizes
    Services    from pods, nodes and the outside, by every address and port they have, with and without endpoints
    elsewhere   nodes, the outside, hostPorts; pods from nodes and from outside

Two pods of each node send, the nodes, and the host outside. Where the kernel draws, the first sender of a kind sends until
every outcome was seen; the others send twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from netsim.kube.objects import Pod, Service, ServicePort
from netsim.lab.probes import PROTOCOLS, Manner, Probe
from netsim.packet.address import Family, IPAddress, family_of, ip
from netsim.packet.model import Proto
from netsim.topology.assemble import Assembled
from netsim.topology.underlay import EXTERNAL, EXTERNAL_ADDRESSES

_UDP_PORT = 9  # nobody listens there: what counts is how the packet fares
OUTSIDE_PORT = 443
_LONGEST = 10  # seconds: session affinity that lasts longer is not waited for
_FIXED = {Family.IPV4: (True, False), Family.IPV6: (True,)}  # DF, which IPv6 packets have so to speak
_SIZES = {Family.IPV4: (1300, 1450, 1451, 1472, 1473, 1500), Family.IPV6: (1280, 1430, 1431, 1450, 1451, 1500)}
_TCP = (
    Manner.CONNECTION,
    Manner.HALF_OPEN,
    Manner.MIDSTREAM,
    Manner.OUT_OF_WINDOW,
    Manner.RESET,
    Manner.REFUSED,
    Manner.LATE,
)


@dataclass(frozen=True)
class _Sender:
    kind: str
    name: str
    node: str | None
    first: bool  # of its kind


def probes(made: Assembled) -> list[Probe]:
    listed = _Lister(made)
    found = [
        one
        for family in listed.families
        for one in (*listed.pods(family), *listed.services(family), *listed.elsewhere(family))
    ]
    return list(dict.fromkeys(found))


class _Lister:
    def __init__(self, made: Assembled) -> None:
        self.made = made
        self.wires = made.network.topology.wires
        self.nodes = sorted(made.cluster.nodes)

    @cached_property
    def families(self) -> list[Family]:
        """Those that pods have addresses of."""
        return sorted({family_of(ip(one.ip)) for pod in self._networked for one in pod.status.pod_ips})

    @cached_property
    def _networked(self) -> list[Pod]:
        pods = (pod for _, pod in sorted(self.made.cluster.pods.items()))
        return [pod for pod in pods if pod.spec.node_name and not pod.spec.host_network and pod.status.pod_ips]

    def _addressed(self, family: Family) -> list[tuple[Pod, IPAddress]]:
        found = ((pod, ip(one.ip)) for pod in self._networked for one in pod.status.pod_ips)
        return [(pod, address) for pod, address in found if family_of(address) is family]

    @cached_property
    def _sending(self) -> list[Pod]:
        """Two pods of each node, of different Services as far as the order of names tells."""
        found: dict[str, list[Pod]] = {}
        for pod in self._networked:
            found.setdefault(str(pod.spec.node_name), []).append(pod)
        return [
            pod for _, pods in sorted(found.items()) for pod in {pods[0].key: pods[0], pods[-1].key: pods[-1]}.values()
        ]

    @cached_property
    def _senders(self) -> list[_Sender]:
        pods = [_Sender("pod", self.made.namespace_of(pod), str(pod.spec.node_name), not number)
                for number, pod in enumerate(self._sending)]  # fmt: skip
        nodes = [_Sender("node", f"node/{node}", node, not number) for number, node in enumerate(self.nodes)]
        return [*pods, *nodes, _Sender("outside", EXTERNAL, None, True)]

    def _node_addresses(self, node: str, family: Family) -> list[IPAddress]:
        return [one.ip for one in self.wires[node].interfaces if family_of(one) is family]

    # -- pods ----------------------------------------------------------------------------------------------------------
    def pods(self, family: Family) -> Iterator[Probe]:
        everyone = self._addressed(family)
        thorough: set[str] = set()
        for source in self._sending:
            name, node = self.made.namespace_of(source), str(source.spec.node_name)
            seen: dict[str, int] = {}
            for target, address in everyone:
                path = self._between(name, node, target)
                seen[path] = seen.get(path, 0) + 1
                if seen[path] <= 2:
                    yield from self._pod_to_pod(path, name, target, address, seen[path] == 1)
                if path not in thorough and _tcp_port(target):
                    thorough.add(path)
                    yield from _thorough(path, name, address, _tcp_port(target))
                    yield Probe(path, name, address, Proto.ICMP, manner=Manner.FRAGMENTS)
                    for manner in (Manner.FRAGMENTS, Manner.STREAM, Manner.LATE):
                        yield Probe(path, name, address, Proto.UDP, _UDP_PORT, manner)
                    yield Probe(path, name, address, Proto.ICMP, manner=Manner.LATE)
                    yield Probe(path, name, address, Proto.SCTP, 2905, Manner.CONNECTION)

    def _between(self, name: str, node: str, target: Pod) -> str:
        there = str(target.spec.node_name)
        if self.made.namespace_of(target) == name:
            return "pod to itself"
        if node == there:
            return "pod to pod of the same node"
        if self.wires[node].segment == self.wires[there].segment:
            return "pod to pod of another node"
        return "pod to pod in another segment"

    def _pod_to_pod(self, path: str, name: str, target: Pod, address: IPAddress, first: bool) -> Iterator[Probe]:
        for protocol, port in _ports(target):
            yield Probe(path, name, address, protocol, port, Manner.ANSWERED)
        yield Probe(path, name, address, Proto.ICMP, manner=Manner.ANSWERED)
        if first:
            yield Probe(path, name, address, Proto.UDP, _UDP_PORT, Manner.ANSWERED)
            for ttl in (1, 2, 3, 4, 5):
                yield Probe(path, name, address, Proto.UDP, _UDP_PORT, ttl=ttl)
            yield Probe(path, name, address, Proto.ICMP, ttl=2)
            mtu = min(link.mtu for link in self.made.network.namespace(name).links)
            for size in (mtu - 1, mtu):
                for fixed in _FIXED[family_of(address)]:
                    yield Probe(path, name, address, Proto.UDP, _UDP_PORT, size=size, dont_fragment=fixed)

    # -- Services ------------------------------------------------------------------------------------------------------
    def services(self, family: Family) -> Iterator[Probe]:
        thorough: set[tuple[str, Proto, bool]] = set()
        drawn: set[tuple[str, Proto]] = set()
        for service in self.made.cluster.store.list("Service"):
            if service.spec.type == "ExternalName":
                continue
            for port in service.spec.ports:
                for what, address, number, node in self._targets(service, port, family):
                    for sender in self._senders_to(service):
                        path = self._service_path(sender, service, what, node)
                        probe = self._to_service(path, sender, service, port, address, number)
                        new = sender.first and (probe.path, probe.protocol) not in drawn
                        drawn.add((probe.path, probe.protocol))
                        yield replace(probe, every_draw=new)
                        if (probe.path, probe.protocol, probe.sticky) not in thorough:
                            thorough.add((probe.path, probe.protocol, probe.sticky))
                            yield from self._more(probe)

    def _senders_to(self, service: Service) -> list[_Sender]:
        """Everybody, and one of the Service's own pods: it may be answered by itself."""
        own = next((pod for pod in self._networked if pod.key in self._endpoints(service)), None)
        senders = list(self._senders)
        if own is not None:
            senders.append(_Sender("own pod", self.made.namespace_of(own), str(own.spec.node_name), True))
        return senders

    def _endpoints(self, service: Service) -> dict[tuple[str, str], str]:
        """The ready pods behind a Service, with their nodes."""
        found: dict[tuple[str, str], str] = {}
        for piece in self.made.cluster.slices.get(service.key, ()):
            for endpoint in piece.endpoints:
                pod = next((self.made.cluster.pods_by_ip.get(text) for text in endpoint.addresses), None)
                if endpoint.conditions.ready is not False and pod is not None:
                    found[pod.key] = endpoint.node_name or str(pod.spec.node_name)
        return found

    def _targets(
        self, service: Service, port: ServicePort, family: Family
    ) -> Iterator[tuple[str, IPAddress, int, str | None]]:
        """(what, address, port, the node addressed)"""
        spec = service.spec
        for text in spec.cluster_ips:
            if text not in ("", "None") and family_of(ip(text)) is family:
                yield "ClusterIP", ip(text), port.port, None
        for text in spec.external_ips:
            if family_of(ip(text)) is family:
                yield "external IP", ip(text), port.port, None
        for one in service.status.load_balancer.ingress:
            if one.ip and family_of(ip(one.ip)) is family:
                yield "load balancer", ip(one.ip), port.port, None
        if port.node_port:
            for node in self.nodes:
                for address in self._node_addresses(node, family):
                    yield "NodePort", address, port.node_port, node

    def _service_path(self, sender: _Sender, service: Service, what: str, node: str | None) -> str:
        spec, endpoints = service.spec, self._endpoints(service)
        path = f"{sender.kind} to Service by {what}"
        policy = spec.internal_traffic_policy if what == "ClusterIP" else spec.external_traffic_policy
        if not endpoints:
            return f"{path}, no endpoints"
        if policy == "Local":
            where = node or (sender.node if what == "ClusterIP" else None)
            path += ", Local"
            if where is not None:
                path += ", right node" if where in endpoints.values() else ", wrong node"
        return path

    def _to_service(
        self, path: str, sender: _Sender, service: Service, port: ServicePort, address: IPAddress, number: int
    ) -> Probe:
        spec = service.spec
        sticky = spec.session_affinity == "ClientIP"
        lasting = (spec.session_affinity_config or {}).get("clientIP", {}).get("timeoutSeconds", 10800)
        return Probe(
            path, sender.name, address, PROTOCOLS[port.protocol or "TCP"], number, Manner.ANSWERED, sticky=sticky,
            every_draw=sender.first, timeout=int(lasting) if sticky else 0,
        )  # fmt: skip

    def _more(self, probe: Probe) -> Iterator[Probe]:
        """Once for each path and protocol."""
        path, name, target, port = probe.path, probe.source, probe.target, probe.port
        if probe.sticky:
            short = 0 < probe.timeout <= _LONGEST
            for manner in (Manner.AFFINITY, *((Manner.AFFINITY_TIMEOUT,) if short else ())):
                yield Probe(path, name, target, probe.protocol, port, manner, sticky=True, timeout=probe.timeout)
            return
        if probe.protocol is Proto.TCP:
            yield from _thorough(path, name, target, port)
            if name == EXTERNAL:  # its device takes more than those of pods
                for size in _SIZES[probe.family]:
                    for fixed in _FIXED[probe.family]:
                        yield Probe(path, name, target, Proto.TCP, port, size=size, dont_fragment=fixed)
        elif probe.protocol is Proto.UDP:
            for manner in (Manner.STREAM, Manner.LATE):
                yield Probe(path, name, target, Proto.UDP, port, manner)
            yield Probe(path, name, target, Proto.UDP, port, Manner.FRAGMENTS)
        elif probe.protocol is Proto.SCTP:
            yield Probe(path, name, target, Proto.SCTP, port, Manner.CONNECTION)
            yield Probe(path, name, target, Proto.SCTP, port, Manner.LATE)
        for ttl in (1, 2, 3, 4):
            yield Probe(path, name, target, probe.protocol, port, ttl=ttl)

    # -- nodes, the outside, hostPorts ---------------------------------------------------------------------------------
    def elsewhere(self, family: Family) -> Iterator[Probe]:
        outside = next(one.ip for one in EXTERNAL_ADDRESSES if family_of(one) is family)
        for sender in self._senders:
            yield from self._to_outside(sender, outside)
            for node in self.nodes:
                for address in self._node_addresses(node, family)[:1]:
                    yield Probe(f"{sender.kind} to node", sender.name, address, Proto.ICMP, manner=Manner.ANSWERED)
                    yield Probe(f"{sender.kind} to node", sender.name, address, Proto.UDP, _UDP_PORT, Manner.ANSWERED)
            if sender.kind != "pod":
                yield from self._to_pods(sender, family)
            yield from self._to_host_ports(sender, family)

    def _to_outside(self, sender: _Sender, outside: IPAddress) -> Iterator[Probe]:
        path = f"{sender.kind} to outside"
        for protocol in (Proto.TCP, Proto.UDP, Proto.SCTP):
            yield Probe(path, sender.name, outside, protocol, OUTSIDE_PORT, Manner.ANSWERED)
        yield Probe(path, sender.name, outside, Proto.ICMP, manner=Manner.ANSWERED)
        for ttl in (1, 2, 3):
            yield Probe(path, sender.name, outside, Proto.UDP, OUTSIDE_PORT, ttl=ttl)
            yield Probe(path, sender.name, outside, Proto.ICMP, ttl=ttl)
        if sender.first and sender.kind != "outside":
            yield from _thorough(path, sender.name, outside, OUTSIDE_PORT)
            for manner in (Manner.STREAM, Manner.LATE):
                yield Probe(path, sender.name, outside, Proto.UDP, OUTSIDE_PORT, manner)
            yield Probe(path, sender.name, outside, Proto.UDP, OUTSIDE_PORT, Manner.FRAGMENTS)
            yield Probe(path, sender.name, outside, Proto.ICMP, manner=Manner.LATE)

    def _to_pods(self, sender: _Sender, family: Family) -> Iterator[Probe]:
        seen: dict[str, int] = {}
        for pod, address in self._addressed(family):
            where = "local pod" if pod.spec.node_name == sender.node else "remote pod" if sender.node else "pod"
            path = f"{sender.kind} to {where}"
            seen[path] = seen.get(path, 0) + 1
            if seen[path] > 3:
                continue
            for protocol, port in _ports(pod):
                yield Probe(path, sender.name, address, protocol, port, Manner.ANSWERED)
            yield Probe(path, sender.name, address, Proto.ICMP, manner=Manner.ANSWERED)
            for ttl in (1, 2, 3, 4):
                yield Probe(path, sender.name, address, Proto.UDP, _UDP_PORT, ttl=ttl)
            if seen[path] == 1:
                yield Probe(path, sender.name, address, Proto.UDP, _UDP_PORT, Manner.FRAGMENTS)
                for size in _SIZES[family]:
                    yield Probe(path, sender.name, address, Proto.UDP, _UDP_PORT, size=size, dont_fragment=True)

    def _to_host_ports(self, sender: _Sender, family: Family) -> Iterator[Probe]:
        for pod, _ in self._addressed(family):
            for container in pod.spec.containers:
                for port in container.ports or ():
                    for node in self.nodes if port.host_port else ():
                        for address in self._node_addresses(node, family)[:1]:
                            right = "right" if node == pod.spec.node_name else "wrong"
                            path = f"{sender.kind} to hostPort, {right} node"
                            yield Probe(
                                path,
                                sender.name,
                                address,
                                PROTOCOLS[port.protocol or "TCP"],
                                port.host_port,
                                Manner.ANSWERED,
                            )


def _thorough(path: str, name: str, target: IPAddress, port: int) -> Iterator[Probe]:
    """Whole TCP connections, and broken ones."""
    for manner in _TCP:
        yield Probe(path, name, target, Proto.TCP, port, manner)


def _ports(pod: Pod) -> Iterator[tuple[Proto, int]]:
    for container in pod.spec.containers:
        for port in container.ports or ():
            yield PROTOCOLS[port.protocol or "TCP"], port.container_port


def _tcp_port(pod: Pod) -> int:
    return next((port for protocol, port in _ports(pod) if protocol is Proto.TCP), 0)
