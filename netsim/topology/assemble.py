"""From a store of objects to a network that packets can be traced through.

    store ─▶ control plane (with the CNI's address management) ─▶ plug-ins ─▶ LazyNetwork

What a component writes above or below another's rules depends on who starts first. Here, as on a node that boots: the
underlay, then the kubelet and kube-proxy (a static set of rules, written as soon as the API server answers), then the CNI's
daemon, then its plug-ins per pod, which cannot run before that daemon has left its configuration. So flannel's appended
jump comes behind kube-proxy's, and portmap, which inserts, comes before both.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from netsim.backends import CniPlugin, Plugin, RenewablePlugin
from netsim.errors import UsageError
from netsim.kube import control
from netsim.kube.cluster import SERVICE_NAME, Cluster, Settings
from netsim.kube.objects import EndpointSlice, Pod
from netsim.kube.store import Event, Store
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.link import Link
from netsim.linux.network import Namespace, Renewal
from netsim.packet.address import IPAddress, IPInterface
from netsim.topology import outside
from netsim.topology.balancers import Balancers, reaches_outside
from netsim.topology.choice import Choice, choose
from netsim.topology.underlay import EXTERNAL, OUTSIDE, ROUTER, WAN, Topology, loopback

# What every node of a working cluster has set, by kubeadm's preflight checks or the distribution. All else, rp_filter
# among it, is at the kernel's default (which systemd raises to 2 on many: that changes nothing where there is one uplink).
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
        self.balancers = Balancers(cluster, topology)
        self.proxy = proxy
        self.cni = cni
        self.renewal: Renewal | None = None
        self._made: dict[str, Namespace] = {}
        self._pods: dict[str, Namespace] = {}  # all generations hold the same ones
        self._stations: dict[str, Mapping[str, tuple[str, str]]] = {}
        self._external: tuple[IPAddress, ...] = ()
        if external is not None:
            self.outside(external)

    def outside(self, *addresses: IPAddress) -> None:
        """From now on the host outside has these addresses. UsageError if something in the cluster has one of them."""
        for address in addresses:
            owner = self._owner(address)
            if owner is not None:
                raise UsageError(f"{address} cannot be outside: it is an address of {owner}")
        self._external = addresses
        self.__dict__.pop("_outside", None)
        for name in (ROUTER, EXTERNAL):
            self._made.pop(name, None)

    def _owner(self, address: IPAddress) -> str | None:
        node = self.topology.node_at(address) or self.balancers.translated.get(address, (None,))[0]
        if node is not None:
            return f"node {node}"
        pod = self.cluster.pods_by_ip.get(str(address))
        if pod is not None:
            return f"pod {pod.namespace}/{pod.name}"
        service = self.balancers.services.get(address)
        return None if service is None else f"Service {service.namespace}/{service.name}"

    @cached_property
    def _outside(self) -> list[IPInterface]:
        return outside.external_addresses(self.topology, self.balancers, self._external)

    # -- namespaces ---------------------------------------------------------------------------------------------------
    def namespace(self, name: str) -> Namespace:
        held = self._pods if name.startswith("pod/") else self._made
        made = held.get(name)
        if made is None:
            made = held[name] = self._make(name)
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
            announced = outside.announced_by(self.cni, self.topology)
            return outside.router(self.topology, self.balancers, announced, self._outside)
        if name == EXTERNAL:
            return outside.external(self._outside)
        raise KeyError(name)

    def _node(self, node: str) -> Namespace:
        builder = NamespaceBuilder(f"node/{node}", node)
        link, addresses, routes = self.topology.node_wiring(node)
        builder.links += [loopback(), link]
        builder.addresses += addresses
        builder.routes += routes
        builder.sysctls.update(_NODE_SYSCTLS)
        self.proxy.build_node(node, builder)
        self.cni.build_node(node, builder)
        return builder.build()

    def _pod(self, pod: Pod) -> Namespace:
        builder = NamespaceBuilder(f"pod/{pod.namespace}/{pod.name}", pod.spec.node_name)
        builder.links.append(loopback())
        self.cni.build_pod(pod, builder)
        return builder.build()

    # -- generations --------------------------------------------------------------------------------------------------
    def after(self, cluster: Cluster, services: Collection[tuple[str, str]]) -> LazyNetwork:
        """The network of ``cluster``, in which Services of these names, or their EndpointSlices, differ. UsageError if the
        proxy plug-in cannot take changes over."""
        if not isinstance(self.proxy, RenewablePlugin):
            raise UsageError("this mode of kube-proxy cannot take over changed Services: assemble the cluster anew")
        proxy = self.proxy.updated(cluster, services)
        new = copy.copy(self)
        new.cluster, new.proxy, new._made = cluster, proxy, {}
        beyond: tuple[str, ...] = ()
        if any(reaches_outside(held.services.get(key)) for held in (self.cluster, cluster) for key in services):
            new.balancers = Balancers(cluster, self.topology)
            new._stations = {}
            new.__dict__.pop("_outside", None)
            beyond = tuple([name for name in (ROUTER, EXTERNAL) if self.namespace(name) != new.namespace(name)])
        for name in (ROUTER, EXTERNAL):
            if name in self._made and name not in beyond:
                new._made[name] = self._made[name]
        new.renewal = Renewal(weakref.ref(self), beyond, proxy.renewed, proxy.alike)
        return new

    # -- L2 -----------------------------------------------------------------------------------------------------------
    def on_segment(self, segment: str, address: IPAddress) -> tuple[str, str] | None:
        node = self.topology.node_at(address)
        if node is not None and self.topology.wires[node].segment == segment:
            return f"node/{node}", self.topology.underlay_device
        for name in (ROUTER, EXTERNAL) if segment == OUTSIDE else (ROUTER,):
            device = self._device_with(name, segment, address)
            if device is not None:
                return name, device
        delivery = self.balancers.deliveries.get(address)
        if delivery is not None and self.topology.wires[delivery.node].segment == segment:
            return f"node/{delivery.node}", self.topology.underlay_device
        if outside.answered_by_router(self.topology, self.balancers, segment, address, self._outside):
            return ROUTER, next(device for name, device in self._by_mac(segment).values() if name == ROUTER)
        return None

    def _device_with(self, name: str, segment: str, address: IPAddress) -> str | None:
        if name == ROUTER and segment != OUTSIDE:
            # Asked for at every hop: no need to walk over the addresses of all segments.
            own = self.topology.subnets.get(segment, {}).values()
            held = any(one.ip == address for one in own)
            return next((d for n, d in self._by_mac(segment).values() if n == ROUTER), None) if held else None
        device = WAN if name == ROUTER else self.topology.underlay_device
        found = any(a.device == device and a.interface.ip == address for a in self.namespace(name).addresses)
        return device if found else None

    def by_mac(self, segment: str, mac: str) -> tuple[str, str] | None:
        return self._by_mac(segment).get(mac)

    def _by_mac(self, segment: str) -> Mapping[str, tuple[str, str]]:
        """MAC address → (namespace, device) on one segment."""
        found = self._stations.get(segment)
        if found is None:
            links: list[tuple[str, Link]] = [
                (f"node/{node}", self.topology.node_link(node)) for node in self.topology.nodes_on.get(segment, ())
            ]
            for name in (ROUTER, EXTERNAL) if segment == OUTSIDE else (ROUTER,):
                links += [(name, link) for link in self.namespace(name).links if link.segment == segment]
            found = {str(link.mac): (name, link.name) for name, link in links}
            self._stations[segment] = found
        return found

    def segment_mtu(self, segment: str) -> int:
        return self.topology.mtu


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

    def after(self, events: Iterable[Event]) -> Assembled:
        """The cluster after events of its store that concern Services and EndpointSlices, as a watch tells them. What they
        do not touch goes on as it is; ``Datapath.update`` takes the network over. UsageError for events of another kind."""
        events = tuple(events)
        cluster = self.cluster.after(events)
        services = {key for event in events for key in _services_of(event, self.cluster)}
        return Assembled(cluster, self.network.after(cluster, services), self.choice)

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


def _services_of(event: Event, before: Cluster) -> Iterator[tuple[str, str]]:
    """The Services that an event is about: a slice may have been another one's."""
    changed = event.object
    if not isinstance(changed, EndpointSlice):
        yield changed.key
        return
    service = changed.metadata.labels.get(SERVICE_NAME)
    if service:
        yield changed.namespace, service
    if not service or all(one.name != changed.name for one in before.slices.get((changed.namespace, service), ())):
        for key, held in before.slices.items():
            if key[0] == changed.namespace and any(one.name == changed.name for one in held):
                yield key


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
    network = LazyNetwork(cluster, topology, proxy, cni, external)
    cluster.assumptions += network.balancers.notes()
    return Assembled(cluster, network, choice)
