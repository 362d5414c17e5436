"""From a store of objects to a network that packets can be traced through.

    store ─▶ control plane (with the CNI's address management) ─▶ plug-ins ─▶ LazyNetwork

What a component writes above or below another's rules depends on who starts first. Here, as on a node that boots: the
underlay, then the kubelet with kube-proxy (both write on start), then the CNI's daemon, then its plug-ins per pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from netsim.backends import CniPlugin, Plugin
from netsim.errors import UsageError
from netsim.kube import control
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import Pod
from netsim.kube.store import Store
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.packet.address import IPAddress, IPNetwork, host_network, ip
from netsim.topology.choice import Choice, choose
from netsim.topology.underlay import EXTERNAL, OUTSIDE, ROUTER, Topology

_NODE_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}


class LazyNetwork:
    """Derives each namespace when it is first asked for, and keeps it."""

    def __init__(
        self, cluster: Cluster, topology: Topology, proxy: Plugin, cni: CniPlugin, external: IPAddress | None = None
    ) -> None:
        self.cluster = cluster
        self.topology = topology
        self.proxy = proxy
        self.cni = cni
        self._external = external
        self._made: dict[str, Namespace] = {}

    def outside(self, address: IPAddress) -> None:
        """From now on the host outside has this address."""
        self._external = address
        for name in (ROUTER, EXTERNAL):
            self._made.pop(name, None)

    def namespace(self, name: str) -> Namespace:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._make(name)
        return made

    def _make(self, name: str) -> Namespace:
        kind, _, rest = name.partition("/")
        if kind == "node" and rest in self.cluster.nodes:
            return self._node(rest)
        if kind == "pod":
            space, _, pod_name = rest.partition("/")
            pod = self.cluster.pods.get((space, pod_name))
            if pod is not None and pod.spec.node_name in self.cluster.nodes and not pod.spec.host_network:
                return self._pod(pod)
        if name == ROUTER:
            return self.topology.router(self._router_routes(), self._external)
        if name == EXTERNAL:
            return self.topology.external(self._external)
        raise KeyError(name)

    def _node(self, node: str) -> Namespace:
        builder = NamespaceBuilder(f"node/{node}", node)
        link, addresses, routes = self.topology.node_wiring(node)
        builder.links += [Link("lo", LinkKind.LOOPBACK, mtu=65536), link]
        builder.addresses += addresses
        builder.routes += routes
        builder.sysctls.update(_NODE_SYSCTLS)
        self.proxy.build_node(node, builder)
        self.cni.build_node(node, builder)
        return builder.build()

    def _pod(self, pod: Pod) -> Namespace:
        builder = NamespaceBuilder(f"pod/{pod.namespace}/{pod.name}", pod.spec.node_name)
        builder.links.append(Link("lo", LinkKind.LOOPBACK, mtu=65536))
        self.cni.build_pod(pod, builder)
        return builder.build()

    def _router_routes(self) -> Iterator[tuple[IPNetwork, str, str]]:
        """What reaches the cluster through the router: see ``underlay`` for the assumption about load balancers."""
        announced = getattr(self.cni, "underlay_routes", None)
        for prefix, node in announced() if announced else ():
            yield prefix, node, f"pod network of node {node}"
        target = next(self.topology.ready_nodes(), None)
        if target is None:
            return
        seen: set[str] = set()
        for service in sorted(self.cluster.services.values(), key=lambda s: s.key):
            balancers = [i.ip for i in service.status.load_balancer.ingress if i.ip]
            for text in (*balancers, *service.spec.external_ips):
                address = _address(text)
                if text not in seen and address is not None and self.topology.node_at(address) is None:
                    seen.add(text)
                    reason = (
                        f"assumed: {text} of Service {service.namespace}/{service.name} is delivered to node {target}"
                    )
                    yield host_network(address), target, reason

    # -- L2 ----------------------------------------------------------------------------------------------------------
    def on_segment(self, segment: str, address: IPAddress) -> tuple[str, str] | None:
        if segment == OUTSIDE:
            return self._held_by((ROUTER, EXTERNAL), segment, address)
        node = self.topology.node_at(address)
        if node is not None and self.topology.wires[node].segment == segment:
            return f"node/{node}", self.topology.underlay_device
        return self._held_by((ROUTER,), segment, address)

    def _held_by(self, names: tuple[str, ...], segment: str, address: IPAddress) -> tuple[str, str] | None:
        for name in names:
            namespace = self.namespace(name)
            plugged = {link.name for link in namespace.links if link.segment == segment}
            for held in namespace.addresses:
                if held.device in plugged and held.interface.ip == address:
                    return name, held.device
        return None

    @cached_property
    def _macs(self) -> dict[tuple[str, str], tuple[str, str]]:
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for node, wire in self.topology.wires.items():
            link, _, _ = self.topology.node_wiring(node)
            found[wire.segment, str(link.mac)] = (f"node/{node}", link.name)
        for name in (ROUTER, EXTERNAL):
            for link in self.namespace(name).links:
                if link.segment is not None:
                    found[link.segment, str(link.mac)] = (name, link.name)
        return found

    def by_mac(self, segment: str, mac: str) -> tuple[str, str] | None:
        return self._macs.get((segment, mac))

    def segment_mtu(self, segment: str) -> int:
        return self.topology.mtu


def _address(text: str) -> IPAddress | None:
    try:
        return ip(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Assembled:
    """A running cluster with its network. ``cluster.assumptions`` says what was supplied."""

    cluster: Cluster
    network: LazyNetwork
    choice: Choice

    @property
    def proxy(self) -> Plugin:
        return self.network.proxy

    @property
    def cni(self) -> CniPlugin:
        return self.network.cni

    def namespace_of(self, pod: Pod) -> str:
        """The network namespace that a pod's processes see."""
        return f"node/{pod.spec.node_name}" if pod.spec.host_network else f"pod/{pod.namespace}/{pod.name}"

    def place(self, namespace: str, address: IPAddress | None = None, port: int | None = None) -> str:
        """Who is behind a namespace for a reader: on a node, the hostNetwork pod that declares the port, if one does."""
        kind, _, node = namespace.partition("/")
        if kind == "node" and port is not None:
            for pod in sorted(self.cluster.pods_by_node.get(node, ()), key=lambda p: p.key):
                if pod.spec.host_network and _declares(pod, port):
                    return f"pod/{pod.namespace}/{pod.name}"
        return namespace


def _declares(pod: Pod, port: int) -> bool:
    return any(p.container_port == port for c in pod.spec.containers for p in c.ports or ())


def assemble(store: Store, settings: Settings, *, external: IPAddress | None = None) -> Assembled:
    """Run the control plane on ``store`` and wire everything up. ``external`` is the outside host's address.

    InputError, UnsupportedError and UsageError say what cannot be: configuration, data plane, addresses.
    """
    ready: list[tuple[Choice, Topology, CniPlugin]] = []

    def prepare(cluster: Cluster) -> CniPlugin:
        if not ready:
            choice = choose(cluster)
            topology = Topology(cluster)
            plugin = choice.cni.configure(cluster, choice.cni_mode, topology.underlay())
            if not isinstance(plugin, CniPlugin):
                raise UsageError(f"{choice.cni.name} is no CNI plug-in")
            ready.append((choice, topology, plugin))
        return ready[0][2]

    cluster = control.run(store, settings, lambda running: prepare(running).allocate())
    cni = prepare(cluster)
    choice, topology, _ = ready[0]
    proxy = choice.proxy.configure(cluster, None, topology.underlay())
    return Assembled(cluster, LazyNetwork(cluster, topology, proxy, cni, external), choice)
