"""Places by name: what people call a pod, a Service, a node or an address, resolved to who sends from or listens there.

A name that matches nothing suggests the nearest; an ambiguous one lists the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from netsim.cli.words import EXTERNAL, Words, read
from netsim.errors import UsageError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import WORKLOAD_KINDS, Pod, Service, ServicePort, Workload
from netsim.kube.selectors import matches
from netsim.linux.network import Network
from netsim.packet.address import IPAddress, IPNetwork, ip
from netsim.packet.address import network as prefix_of
from netsim.topology.assemble import LazyNetwork
from netsim.topology.underlay import EXTERNAL_ADDRESSES

_SHORT = {
    "Pod": "pod",
    "Node": "node",
    "Service": "svc",
    "Deployment": "deploy",
    "StatefulSet": "sts",
    "DaemonSet": "ds",
    "ReplicaSet": "rs",
    "ReplicationController": "rc",
    "Job": "job",
    "CronJob": "cronjob",
}


@dataclass(frozen=True)
class Place:
    """``name`` can be pasted back. ``namespace`` is where its processes run: None for what cannot send (a Service).
    ``port`` and ``protocol`` are what the name said; ``offers`` the ports it is known to listen on."""

    name: str
    namespace: str | None
    addresses: tuple[IPAddress, ...]
    port: int | None = None
    protocol: str | None = None
    offers: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


class Places:
    """Resolves names in one cluster. Without ``cluster`` (kernel dumps) only addresses, nodes and "external" exist.

    ``namespace`` is kubectl's ``-n``; ``external`` the addresses of the host outside (``--from-ip``).
    """

    def __init__(
        self,
        cluster: Cluster | None,
        network: Network,
        namespace: str = "default",
        external: tuple[IPAddress, ...] = (),
    ) -> None:
        self.cluster = cluster
        self.network = network
        self.namespace = namespace
        self.external = external or tuple(one.ip for one in EXTERNAL_ADDRESSES)

    def source(self, text: str) -> Place:
        """The place to send from."""
        words = read(text)
        place = self._resolve(words, None)
        if place.namespace is None:
            what = "a Service only receives" if words.kind == "Service" else "nobody sends from this address"
            raise UsageError(f"{text}: {what}; name the pod, node or address that sends")
        if words.port is not None:
            raise UsageError(f"{text}: the source has no port here; --sport sets it")
        return place

    def destination(self, text: str, sender: Place | None = None) -> Place:
        """The place to send to; DNS names are looked up as ``sender`` would."""
        return self._resolve(read(text), sender)

    def is_service(self, address: IPAddress) -> bool:
        """Is it an address that only kube-proxy answers for: of a Service, and of no pod or node?"""
        return str(address) in self._service_addresses and self._owner(address).namespace is None

    def _resolve(self, words: Words, sender: Place | None) -> Place:
        if words.kind == "address":
            assert words.address is not None
            return self._numbered(words, self._owner(words.address))
        if words.kind == EXTERNAL:
            return self._numbered(words, Place(EXTERNAL, EXTERNAL, self.external))
        if self.cluster is None:
            if words.kind == "Node":
                return self._numbered(words, self._dumped_node(words))
            raise UsageError(f"{words.text}: with --node-rules there are only addresses, node/NAME and external")
        if words.kind == "Node":
            return self._numbered(words, self._node(words))
        if words.kind == "Service":
            return self._service(words)
        if words.kind == "Pod":
            return self._pod(words)
        if words.kind == "":
            if (words.namespace or self.namespace, words.name) in self.cluster.pods:
                return self._pod(words)
            return self._dns(words, sender)
        if words.kind == "dns":
            return self._dns(words, sender)
        return self._workload(words)

    # -- addresses and nodes -------------------------------------------------------------------------------------------
    def _owner(self, address: IPAddress) -> Place:
        """The pod or node that has this address; nobody if it is a Service's or an unused one of the cluster's own; else
        a host outside."""
        if self.cluster is not None:
            if pod := self.cluster.pods_by_ip.get(str(address)):
                return replace(self.pod_place(pod), name=str(address), addresses=(address,))
            for node in self.cluster.nodes:
                if str(address) in _all_node_addresses(self.cluster, node):
                    return Place(str(address), f"node/{node}", (address,))
            if any(address in prefix for prefix in self._inside) or str(address) in self._service_addresses:
                return Place(str(address), None, (address,))
        for name, held in getattr(self.network, "namespaces", {}).items():  # a dumped node
            if any(one.interface.ip == address for one in held.addresses):
                return Place(str(address), name, (address,))
        return Place(str(address), EXTERNAL, (address,))

    @cached_property
    def _inside(self) -> list[IPNetwork]:
        """The prefixes of nodes, pods and Services: an address of these is never one of the world outside."""
        assert self.cluster is not None
        settings = self.cluster.settings
        own = (text for node in self.cluster.nodes.values() for text in node.spec.pod_cidrs)
        stated = map(prefix_of, (*settings.pod_cidrs, *settings.service_cidrs, *own))
        wires = self.network.topology.wires.values() if isinstance(self.network, LazyNetwork) else ()
        segments = (one.network for wire in wires for one in wire.interfaces)
        return list(dict.fromkeys((*stated, *segments)))

    @cached_property
    def _service_addresses(self) -> set[str]:
        assert self.cluster is not None
        return {
            text
            for service in self.cluster.services.values()
            for text in (
                *service.spec.cluster_ips,
                *service.spec.external_ips,
                *(ingress.ip for ingress in service.status.load_balancer.ingress),
            )
        }

    def _node(self, words: Words) -> Place:
        assert self.cluster is not None
        if words.name not in self.cluster.nodes:
            raise UsageError(missing(words.text, f"node/{words.name}", [f"node/{n}" for n in self.cluster.nodes]))
        addresses = self.cluster.node_addresses(words.name)
        if not addresses:
            raise UsageError(f"{words.text}: the node has no InternalIP")
        return Place(f"node/{words.name}", f"node/{words.name}", tuple(map(ip, addresses)))

    def _dumped_node(self, words: Words) -> Place:
        try:
            held = self.network.namespace(f"node/{words.name}")
        except KeyError:
            raise UsageError(f"{words.text}: the dump is of another node") from None
        own = [a.interface.ip for a in held.addresses if a.scope == "global" and not a.interface.ip.is_loopback]
        return Place(f"node/{words.name}", f"node/{words.name}", tuple(own))

    # -- pods ----------------------------------------------------------------------------------------------------------
    def pod_place(self, pod: Pod) -> Place:
        name = f"pod/{pod.namespace}/{pod.name}"
        if not pod.spec.node_name or not pod.ips:
            raise UsageError(
                f"{name} has no {'address' if pod.spec.node_name else 'node'} yet: nothing can be sent to it"
            )
        where = f"node/{pod.spec.node_name}" if pod.spec.host_network else name
        offers = tuple((p.container_port, p.protocol) for c in pod.spec.containers for p in c.ports or ())
        return Place(name, where, tuple(map(ip, pod.ips)), offers=offers)

    def _pod(self, words: Words) -> Place:
        assert self.cluster is not None
        namespace = words.namespace or self.namespace
        pod = self.cluster.pods.get((namespace, words.name))
        if pod is None:
            names = [f"pod/{ns}/{name}" for ns, name in self.cluster.pods]
            raise UsageError(missing(words.text, f"pod/{namespace}/{words.name}", names))
        return self._pod_port(words, pod)

    def _pod_port(self, words: Words, pod: Pod) -> Place:
        place = self.pod_place(pod)
        if words.port is None or words.port.isdecimal():
            return self._numbered(words, place)
        named = [(p.container_port, p.protocol, p.name) for c in pod.spec.containers for p in c.ports or () if p.name]
        for number, protocol, name in named:
            if name == words.port:
                return replace(place, name=f"{place.name}:{name}", port=number, protocol=protocol)
        listed = ", ".join(name for _, _, name in named) or "none"
        raise UsageError(f"{words.text}: {place.name} has no port called {words.port!r}; its named ports are: {listed}")

    def _workload(self, words: Words) -> Place:
        assert self.cluster is not None
        namespace = words.namespace or self.namespace
        workload: Workload | None = self.cluster.store.get(words.kind, namespace, words.name)
        if workload is None:
            names = [
                f"{_SHORT[kind]}/{item.namespace}/{item.name}"
                for kind in WORKLOAD_KINDS
                for item in self.cluster.store.list(kind)
            ]
            raise UsageError(missing(words.text, f"{_SHORT[words.kind]}/{namespace}/{words.name}", names))
        pods = self._pods_of(workload)
        ready = [pod for pod in pods if pod.ready and pod.ips and pod.metadata.deletion_timestamp is None]
        if not ready:
            found = f"none of its {len(pods)} pods is ready" if pods else "it has no pods"
            raise UsageError(f"{words.text}: {found}")
        return self._pod_port(words, ready[0])

    def _pods_of(self, workload: Workload) -> list[Pod]:
        """Its pods by name. A ReplicationController's selector is a plain map."""
        assert self.cluster is not None
        selector = workload.spec.get("selector") or {}
        if workload.kind == "ReplicationController":
            selector = {"matchLabels": selector}
        pods = [
            pod
            for (namespace, _), pod in self.cluster.pods.items()
            if namespace == workload.namespace and matches(selector, pod.metadata.labels)
        ]
        return sorted(pods, key=lambda pod: pod.name)

    # -- Services and DNS ----------------------------------------------------------------------------------------------
    def _service(self, words: Words) -> Place:
        assert self.cluster is not None
        namespace = words.namespace or self.namespace
        service = self.cluster.services.get((namespace, words.name))
        if service is None:
            names = [f"svc/{ns}/{name}" for ns, name in self.cluster.services]
            raise UsageError(missing(words.text, f"svc/{namespace}/{words.name}", names))
        return self.service_place(service, words)

    def service_place(self, service: Service, words: Words, trail: tuple[str, ...] = ()) -> Place:
        """ClusterIPs of a Service; a headless one's first endpoint; what an ExternalName points at."""
        name = f"svc/{service.namespace}/{service.name}"
        if service.spec.type == "ExternalName":
            return self._external_name(service, words, trail)
        port = self._service_port(service, words)
        if service.spec.cluster_ip == "None":
            return self._headless(service, words, port)
        addresses = tuple(ip(text) for text in service.spec.cluster_ips or [service.spec.cluster_ip] if text)
        if not addresses:
            raise UsageError(f"{words.text}: {name} has no ClusterIP")
        if port is None:
            return self._numbered(words, Place(name, None, addresses))
        shown = port.name or str(port.port)
        return Place(f"{name}:{shown}", None, addresses, port.port, port.protocol)

    def _service_port(self, service: Service, words: Words) -> ServicePort | None:
        """The port that was named; the only one if none was; None for a number that the Service does not have."""
        ports = service.spec.ports
        listed = ", ".join(f"{p.port}/{p.protocol}" + (f" ({p.name})" if p.name else "") for p in ports) or "none"
        if words.port is None:
            if len(ports) == 1 or (ports and len({p.port for p in ports}) == 1):
                return ports[0]
            if not ports:
                return None
            raise UsageError(f"{words.text}: which port? svc/{service.namespace}/{service.name} has: {listed}")
        if words.port.isdecimal():
            return next((p for p in ports if p.port == int(words.port or 0)), None)
        for port in ports:
            if port.name == words.port:
                return port
        raise UsageError(
            f"{words.text}: svc/{service.namespace}/{service.name} has no port called {words.port!r}; it has: {listed}"
        )

    def _headless(self, service: Service, words: Words, port: ServicePort | None) -> Place:
        """DNS answers with every ready endpoint; a client takes one: here the first by address."""
        assert self.cluster is not None
        found: list[tuple[IPAddress, int | None]] = []
        for piece in self.cluster.slices.get(service.key, ()):
            number = next((p.port for p in piece.ports or () if port and (p.name or "") == port.name), None)
            for endpoint in piece.endpoints:
                if endpoint.conditions.ready is not False or service.spec.publish_not_ready_addresses:
                    found.extend((ip(text), number) for text in endpoint.addresses)
        name = f"svc/{service.namespace}/{service.name}"
        if not found:
            raise UsageError(f"{words.text}: {name} is headless and has no ready endpoints: DNS has no answer")
        found.sort(key=lambda item: (item[0].version, int(item[0])))
        address, number = found[0]
        owner = self._owner(address)
        note = f"{name} is headless: DNS answers {len(found)} address{'es' * (len(found) > 1)}, this is the first"
        chosen = int(words.port) if words.port and words.port.isdecimal() else number
        shown = f":{words.port}" if words.port else ""
        return replace(
            owner,
            name=f"{name}{shown}",
            port=chosen,
            protocol=port.protocol if port else None,
            notes=(note,),
        )

    def _external_name(self, service: Service, words: Words, trail: tuple[str, ...]) -> Place:
        target = service.spec.external_name.rstrip(".")
        name = f"svc/{service.namespace}/{service.name}"
        if name in trail:
            raise UsageError(f"{words.text}: ExternalName Services point at each other: {' -> '.join((*trail, name))}")
        assert self.cluster is not None
        from netsim.cli.dns import lookup

        inside = lookup(self.cluster, target, ())
        if isinstance(inside, Service):
            return self.service_place(inside, words, (*trail, name))
        port = self._service_port(service, words) if service.spec.ports else None
        number = int(words.port) if words.port and words.port.isdecimal() else port.port if port else None
        note = f"{name} is an ExternalName: {target} is outside the cluster, traced as {self.external[0]}"
        return Place(name, EXTERNAL, self.external, number, port.protocol if port else None, notes=(note,))

    def _dns(self, words: Words, sender: Place | None) -> Place:
        assert self.cluster is not None
        from netsim.cli.dns import lookup, search_path

        found = lookup(self.cluster, words.name, search_path(self.cluster, sender, self.namespace))
        if isinstance(found, Service):
            return self.service_place(found, words)
        if isinstance(found, Pod):
            return replace(self._pod_port(words, found), name=words.text)
        names = [f"pod/{ns}/{name}" for ns, name in self.cluster.pods]
        names += [f"svc/{ns}/{name}" for ns, name in self.cluster.services]
        names += [f"{name}.{ns}.svc.{self.cluster.settings.cluster_domain}" for ns, name in self.cluster.services]
        here = [name for name in names if name.split("/")[-1] == words.name]
        if here:
            raise UsageError(f"{words.text} could be: {', '.join(sorted(here))}; write it out or give -n")
        raise UsageError(
            missing(words.text, words.name, names, "no pod here and no name that the cluster would resolve")
        )

    def _numbered(self, words: Words, place: Place) -> Place:
        """``place`` with the port of the name, which must be a number."""
        if words.port is None:
            return place
        if not words.port.isdecimal():
            raise UsageError(f"{words.text}: {place.name} has no named ports; give a number")
        number = int(words.port)
        if place.namespace is None or words.kind in ("address", EXTERNAL):
            shown = f"[{place.name}]" if ":" in place.name else place.name
        else:
            shown = place.name
        return replace(place, name=f"{shown}:{number}", port=number)


def _all_node_addresses(cluster: Cluster, node: str) -> list[str]:
    return [a.address for a in cluster.nodes[node].status.addresses if a.type in ("InternalIP", "ExternalIP")]


def missing(text: str, wanted: str, names: Iterable[str], complaint: str = "is not in the input") -> str:
    """The complaint with the nearest names: by the whole name, then by the last part alone."""
    import difflib

    known = sorted(set(names))
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.75)
    near.sort(key=lambda name: (-difflib.SequenceMatcher(None, name, wanted).ratio(), name))
    if not near:
        last = wanted.rpartition("/")[2]
        near = [name for name in known if name.rpartition("/")[2] == last][:3]
    told = f"{text}: {complaint}"
    return f"{told}; did you mean {' or '.join(near)}?" if near else told
