"""Changes to the Services of a running cluster, drawn at random: objects of its store come, change and go."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from msgspec.structs import replace

from netsim.kube.cluster import Cluster
from netsim.kube.objects import EndpointSlice, Service
from netsim.kube.store import Event, Store
from netsim.topology.assemble import Assembled, LazyNetwork


class Changes:
    """``draw`` changes the store and gives the events that a watch of it tells."""

    def __init__(self, made: Assembled, seed: object) -> None:
        self.rng = Random(f"changes {seed}")
        self.store: Store = made.cluster.store
        self.addresses = [ip for pod in made.cluster.pods.values() if not pod.spec.host_network for ip in pod.ips]
        self.gone: list[Service | EndpointSlice] = []
        self.clones = 0

    def draw(self) -> list[Event]:
        events: list[Event] = []
        stop = self.store.watch(events.append)
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            change = self.rng.choice(
                (self._endpoints, self._endpoints, self._service, self._delete, self._restore, self._clone)
            )
            change()
        stop()
        return events

    def _endpoints(self) -> None:
        rng = self.rng
        slices = [
            one for one in self.store.typed("EndpointSlice", EndpointSlice) if one.address_type in ("IPv4", "IPv6")
        ]
        if not slices:
            return
        one = rng.choice(slices)
        held = list(one.endpoints)
        what = rng.choice(("remove", "add", "ready", "empty", "move"))
        if what == "remove" and held:
            del held[rng.randrange(len(held))]
        elif what == "ready" and held:
            at = rng.randrange(len(held))
            state = held[at].conditions
            held[at] = replace(held[at], conditions=replace(state, ready=not state.ready, serving=rng.random() < 0.5))
        elif what == "empty":
            held = []
        elif what == "move" and held:
            rng.shuffle(held)
        elif held or what == "add":
            known = [e for s in slices for e in s.endpoints if s.address_type == one.address_type]
            fresh = rng.choice(known) if known else None
            if fresh is not None and fresh.addresses[0] not in [e.addresses[0] for e in held]:
                held.append(fresh)
        self.store.put(replace(one, endpoints=held))

    def _service(self) -> None:
        rng = self.rng
        services = list(self.store.typed("Service", Service))
        one = rng.choice(services)
        spec = one.spec
        what = rng.choice(("affinity", "external", "internal", "port", "addresses"))
        if what == "affinity":
            spec = replace(spec, session_affinity="None" if spec.session_affinity == "ClientIP" else "ClientIP")
        elif what == "external" and spec.type in ("NodePort", "LoadBalancer"):
            policy = "Cluster" if spec.external_traffic_policy == "Local" else "Local"
            spec = replace(spec, external_traffic_policy=policy)
        elif what == "internal":
            policy = "Cluster" if spec.internal_traffic_policy == "Local" else "Local"
            spec = replace(spec, internal_traffic_policy=policy)
        elif what == "port":
            spec = replace(spec, ports=[replace(port, port=rng.choice((80, 81, 8080))) for port in spec.ports[:1]])
        elif what == "addresses":
            spec = replace(spec, external_ips=[] if spec.external_ips else ["198.51.100.77"])
        self.store.put(replace(one, spec=spec))

    def _delete(self) -> None:
        kind = self.rng.choice(("Service", "EndpointSlice"))
        held = list(self.store.list(kind))
        if held:
            one = self.rng.choice(held)
            self.store.delete(kind, one.namespace, one.name)
            self.gone.append(one)

    def _restore(self) -> None:
        if self.gone:
            self.store.put(self.gone.pop(self.rng.randrange(len(self.gone))))

    def _clone(self) -> None:
        """A Service of another name and address, with the endpoints of one that there is."""
        slices = list(self.store.typed("EndpointSlice", EndpointSlice))
        services = [one for one in self.store.typed("Service", Service) if one.spec.cluster_ip not in ("", "None")]
        if not slices or not services:
            return
        model = self.rng.choice(services)
        self.clones += 1
        name = f"clone-{self.clones}"
        address = f"10.96.200.{self.clones % 250 + 1}"
        ports = [replace(port, node_port=0) for port in model.spec.ports]
        spec = replace(
            model.spec, cluster_ip=address, cluster_ips=[address], ports=ports, type="ClusterIP", external_ips=[],
            health_check_node_port=0, external_traffic_policy="",
        )  # fmt: skip
        self.store.put(replace(model, metadata=replace(model.metadata, name=name), spec=spec))
        for one in slices:
            if one.namespace == model.namespace and one.metadata.labels.get("kubernetes.io/service-name") == model.name:
                labels = {**one.metadata.labels, "kubernetes.io/service-name": name}
                self.store.put(
                    replace(one, metadata=replace(one.metadata, name=f"{name}-{one.name}"[:63], labels=labels))
                )


def anew(made: Assembled) -> LazyNetwork:
    """The network of the objects in the store as they are now, with nothing taken over from any before."""
    cluster = Cluster(made.cluster.store, made.cluster.settings)
    proxy = made.choice.proxy.configure(cluster, None, made.network.topology.underlay())
    return LazyNetwork(cluster, made.network.topology, proxy, made.cni)


def places(made: Assembled) -> Iterator[str]:
    """Every namespace of the cluster but those of pods."""
    yield from (f"node/{name}" for name in made.cluster.nodes)
    yield from ("router/underlay", "external")
