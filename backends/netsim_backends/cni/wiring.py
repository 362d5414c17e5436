"""bridge and ptp: how a pod's veth pair is plugged in (containernetworking/plugins v1.9, plugins/main/{bridge,ptp}).

bridge   pod eth0 10.244.1.2/24 ── veth… ─┬─ cni0 10.244.1.1/24 ── node's routing
         pod eth0 10.244.1.3/24 ── veth… ─┘
ptp      pod eth0 10.244.1.2/24 ── veth… 10.244.1.1/32 ── node's routing (one route per pod)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from netsim.kube.objects import Pod
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link, LinkKind
from netsim.linux.mac import mac_for
from netsim.linux.netfilter.text import rule
from netsim.linux.provenance import Provenance
from netsim.linux.route import Address, Route
from netsim.packet.address import Family, IPAddress, IPInterface, IPNetwork, family_of, host_network, interface, network
from netsim_backends.cni.names import chain_name, comment, container_id, quoted, veth_name
from netsim_backends.cni.pools import interfaces_of
from netsim_backends.cni.ports import map_ports, mappings_of

_DEFAULT: Mapping[Family, IPNetwork] = {Family.IPV4: network("0.0.0.0/0"), Family.IPV6: network("::/0")}
_MULTICAST = {Family.IPV4: "224.0.0.0/4", Family.IPV6: "ff00::/8"}


@dataclass(frozen=True)
class NetConf:
    """A network configuration as the plugins take it. ``routes`` are the pod's, in order, through its gateway."""

    name: str = "cbr0"
    mtu: int = 1500
    bridge: str = "cni0"
    hairpin: bool = False
    default_gateway: bool = True
    ip_masq: bool = False
    port_map: bool = True
    routes: tuple[IPNetwork, ...] = ()

    def pod_routes(self, family: Family) -> Iterator[IPNetwork]:
        yield from (one for one in self.routes if family_of(one) is family)
        if self.default_gateway and _DEFAULT[family] not in self.routes:
            yield _DEFAULT[family]


class Wiring(Protocol):
    """One of the two plugins. ``subnets`` are the node's pod subnets."""

    def node(
        self, node: str, pods: Sequence[Pod], subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder
    ) -> None:
        """The node's end of all its pods, in the order of their start."""

    def pod(self, pod: Pod, subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder) -> None:
        """The pod's own namespace."""


def gateway_of(subnet: IPNetwork) -> IPAddress:
    """host-local's default: the first address of the subnet."""
    return subnet.network_address + 1


def _because(pod: Pod) -> Provenance:
    return Provenance(f"Pod {pod.namespace}/{pod.name}", pod.source)


def _host_end(node: str, pod: Pod, mtu: int, master: str | None, hairpin: bool) -> Link:
    name = veth_name(pod)
    return Link(
        name,
        LinkKind.VETH,
        mac=mac_for(f"node/{node}", name),
        mtu=mtu,
        master=master,
        peer=(f"pod/{pod.namespace}/{pod.name}", "eth0"),
        hairpin=hairpin,
        provenance=_because(pod),
    )


def _pod_end(pod: Pod, mtu: int, why: Provenance) -> Link:
    peer = (f"node/{pod.spec.node_name}", veth_name(pod))
    mac = mac_for(f"pod/{pod.namespace}/{pod.name}", "eth0")
    return Link("eth0", LinkKind.VETH, mac=mac, mtu=mtu, peer=peer, provenance=why)


@lru_cache(maxsize=1 << 13)
def _gateways(subnets: tuple[IPNetwork, ...]) -> Mapping[Family, IPAddress]:
    """A route without a gateway of its own takes the family's first."""
    found: dict[Family, IPAddress] = {}
    for subnet in subnets:
        found.setdefault(family_of(subnet), gateway_of(subnet))
    return found


def _wanted_routes(subnets: Sequence[IPNetwork], conf: NetConf, held: Iterable[IPInterface]) -> tuple[Route, ...]:
    """The configured routes of the families in which the pod has an address: the same ones for all pods of a node."""
    return _routes_of(tuple(subnets), conf, frozenset(family_of(one) for one in held))


@lru_cache(maxsize=1 << 13)
def _routes_of(subnets: tuple[IPNetwork, ...], conf: NetConf, families: frozenset[Family]) -> tuple[Route, ...]:
    return tuple(
        Route(destination, gateway=gateway, device="eth0", protocol="boot")
        for family, gateway in _gateways(subnets).items()
        if family in families
        for destination in conf.pod_routes(family)
    )


class Bridge:
    """A Linux bridge per node, made when its first pod starts; pods of one node reach each other on layer 2."""

    def node(
        self, node: str, pods: Sequence[Pod], subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder
    ) -> None:
        if not pods:
            return
        why = Provenance(f"CNI plugin bridge, network {conf.name}")
        mac = mac_for(f"node/{node}", conf.bridge)
        builder.links.append(Link(conf.bridge, LinkKind.BRIDGE, mac=mac, mtu=conf.mtu, provenance=why))
        for subnet in subnets:
            address = interface(f"{gateway_of(subnet)}/{subnet.prefixlen}")
            builder.addresses.append(Address(conf.bridge, address, provenance=why))
        builder.sysctls["net.ipv4.ip_forward"] = "1"
        for pod in pods:
            builder.links.append(_host_end(node, pod, conf.mtu, conf.bridge, conf.hairpin))
            if conf.ip_masq:
                masquerade(builder, conf.name, pod, interfaces_of(pod, subnets))
            if conf.port_map and mappings_of(pod):
                map_ports(builder, conf.name, pod, interfaces_of(pod, subnets), conf.bridge)

    def pod(self, pod: Pod, subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder) -> None:
        why = _because(pod)
        builder.links.append(_pod_end(pod, conf.mtu, why))
        held = interfaces_of(pod, subnets)
        builder.addresses += [Address("eth0", one, provenance=why) for one in held]
        builder.routes += _wanted_routes(subnets, conf, held)


class PointToPoint:
    """No bridge: each pod is a host route of its node, so that pods of one node, too, talk through its routing."""

    def node(
        self, node: str, pods: Sequence[Pod], subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder
    ) -> None:
        gateways = _gateways(tuple(subnets))
        for pod in pods:
            why = _because(pod)
            link = _host_end(node, pod, conf.mtu, None, False)
            builder.links.append(link)
            held = interfaces_of(pod, subnets)
            for one in held:
                gateway = gateways.get(family_of(one))
                if gateway is not None:
                    own = interface(f"{gateway}/{gateway.max_prefixlen}")
                    builder.addresses.append(Address(link.name, own, provenance=why))
                route = Route(host_network(one.ip), device=link.name, scope="host", protocol="boot", provenance=why)
                builder.routes.append(route)
            builder.sysctls["net.ipv4.ip_forward"] = "1"
            if conf.ip_masq:
                masquerade(builder, conf.name, pod, held)
            if conf.port_map:
                map_ports(builder, conf.name, pod, held, link.name)

    def pod(self, pod: Pod, subnets: Sequence[IPNetwork], conf: NetConf, builder: NamespaceBuilder) -> None:
        why = _because(pod)
        builder.links.append(_pod_end(pod, conf.mtu, why))
        held = interfaces_of(pod, subnets)
        gateways = _gateways(tuple(subnets))
        for one in held:
            # The plugin deletes the connected route: even the own subnet is reached through the gateway.
            builder.addresses.append(Address("eth0", one, noprefixroute=True, provenance=why))
            gateway = gateways.get(family_of(one))
            if gateway is None:
                continue
            builder.routes.append(
                Route(host_network(gateway), device="eth0", scope="link", source=one.ip, protocol="boot")
            )
            if one.network.prefixlen < one.max_prefixlen:
                builder.routes.append(
                    Route(one.network, gateway=gateway, device="eth0", source=one.ip, protocol="boot")
                )
        builder.routes += _wanted_routes(subnets, conf, held)


def masquerade(builder: NamespaceBuilder, name: str, pod: Pod, addresses: Iterable[IPInterface]) -> None:
    """``ipMasq`` (plugins/pkg/ip SetupIPMasqForNetworks): everything that leaves the pod's subnet leaves as the node."""
    container = container_id(pod)
    chain = chain_name(name, container)
    said = f"-m comment --comment {quoted(comment(name, container))}"
    because, source = f"ipMasq for Pod {pod.namespace}/{pod.name}", pod.source
    for one in addresses:
        family = family_of(one)
        tables = builder.tables(family)
        tables.ensure("nat", chain, rule(f"-d {one.network} {said} -j ACCEPT", family, because, source))
        outside = f"! -d {_MULTICAST[family]} {said} -j MASQUERADE"
        tables.ensure("nat", chain, rule(outside, family, because, source))
        tables.ensure("nat", "POSTROUTING", rule(f"-s {one.ip} {said} -j {chain}", family, because, source))
