"""What the policy commands share: a world of endpoints from the input, and places as endpoints of it.

Policies answer by labels and addresses alone, so no data plane is chosen here: pods of manifests get addresses from their
node's pod CIDR in name order, and everything works the same whatever the cluster's network plugin is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netsim.cli import enforcement
from netsim.errors import InputError, UsageError

if TYPE_CHECKING:
    from netsim.cli.places import Place
    from netsim.cli.words import Words
    from netsim.kube.cluster import Cluster
    from netsim.kube.objects import Service
    from netsim.packet.address import Family
    from netsim_policies.algebra import PortSet
    from netsim_policies.model import Endpoint, World

PROTOCOLS = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True)
class Target:
    """One endpoint that a place stands for; ``port`` and ``protocol`` as policy sees them (behind a Service: the pod's)."""

    endpoint: Endpoint
    port: int | None = None
    protocol: str | None = None
    service: str | None = None  # NAMESPACE/NAME of the Service it was reached through


class Question:
    """A cluster's world, and the places in it."""

    def __init__(
        self, cluster: Cluster, namespace: str, external: str | None = None, policies_apply: bool = True
    ) -> None:
        from netsim.cli.places import Places
        from netsim.linux.network import StaticNetwork
        from netsim.packet.address import ip
        from netsim_policies.world import world

        self.cluster = cluster
        self.world: World = world(cluster.store, policies_apply)
        outside = (ip(external),) if external else ()
        self.places = Places(cluster, StaticNetwork({}), namespace, outside)
        self._by_name = {(e.kind.value, e.name): e for e in self.world.endpoints}

    def source(self, text: str) -> Target:
        return self._target(self.places.source(_plain(text)))

    def destinations(self, text: str, sender: str | None = None) -> list[Target]:
        """A Service stands for its ready endpoints, with the ports behind it; anything else for itself."""
        from netsim.cli.words import read as read_words

        words = read_words(_plain(text))
        place = self.places.destination(_plain(text), self.places.source(_plain(sender)) if sender else None)
        service = self._service(words, place)
        if service is not None:
            targets = list(self._behind(service, place))
            if not targets:
                raise UsageError(f"{text}: the Service has no ready endpoints")
            return targets
        if place.namespace is None:
            raise UsageError(f"{text}: nobody in the cluster has this address")
        port = place.port if words.port is not None or place.port is not None else None
        return [self._target(place, port)]

    def _service(self, words: Words, place: Place) -> Service | None:
        """The Service that a place is: by name, or by one of its addresses."""
        if words.kind == "Service":
            named = self.cluster.services.get((words.namespace or self.places.namespace, words.name))
            if named is not None and named.spec.type != "ExternalName":
                return named
        if place.namespace is not None:
            return None
        from netsim.packet.address import ip

        for service in self.cluster.services.values():
            status = (ingress.ip for ingress in service.status.load_balancer.ingress)
            held = (*service.spec.cluster_ips, *service.spec.external_ips, *status)
            if any(a not in ("", "None") and ip(a) in place.addresses for a in held):
                return service
        return None

    def _behind(self, service: Service, place: Place) -> Iterator[Target]:
        """Every ready endpoint; of a headless Service too, since a client may be given any."""
        from netsim.packet.address import ip

        headless = service.spec.cluster_ip == "None"
        names = {p.name for p in service.spec.ports if headless or place.port in (None, p.port)}
        for item in self.cluster.slices.get(service.key, ()):
            for port in item.ports or ():
                if (port.name or "") not in names or (headless and place.port not in (None, port.port)):
                    continue
                for endpoint in item.endpoints:
                    if endpoint.conditions.ready is not False:
                        owner = self.places._owner(ip(endpoint.addresses[0]))
                        name = f"{service.namespace}/{service.name}"
                        yield replace(self._target(owner, port.port, port.protocol), service=name)

    def _target(self, place: Place, port: int | None = None, protocol: str | None = None) -> Target:
        from netsim_policies.world import outside

        kind, _, name = (place.namespace or "").partition("/")
        shown = place.name.split(":")[0].removeprefix("pod/")
        found = self._by_name.get(("pod", shown)) if kind == "node" else self._by_name.get((kind, name))
        endpoint = found or self._by_name.get((kind, name)) or outside(str(place.addresses[0]))
        return Target(endpoint, port or place.port, protocol or place.protocol)


def _plain(text: str) -> str:
    """``ip:ADDRESS`` of expectation files is an address."""
    return text.removeprefix("ip:")


def options(parser: Any) -> None:
    parser.add_argument("--from-ip", metavar="ADDRESS", help="the address of `external`")
    parser.add_argument("--family", type=int, choices=(4, 6), default=4, help="which IP version (4)")
    enforcement.options(parser)


def question(given: Any) -> Question:
    """The input of ``-f``/``--context`` as a question; notes are said on stderr."""
    cluster = running(given, given.filename)
    return Question(cluster, given.namespace or "default", getattr(given, "from_ip", None), applied(given, cluster))


def applied(given: Any, cluster: Cluster) -> bool:
    """``--enforcement``: do the policies of ``cluster`` count?"""
    from netsim.cli import inputs

    return enforcement.applies(cluster, given.enforcement, inputs.talk(given).note)


def running(given: Any, paths: list[str]) -> Cluster:
    """The control plane's result for ``paths``, with addresses from the nodes' pod CIDRs."""
    from netsim.cli import inputs
    from netsim.kube import control
    from netsim.kube.load import load, store

    speaker = inputs.talk(given)
    stdin = None
    if getattr(given, "context", None):
        from io import BytesIO

        from netsim.cli.live import fetch

        if paths:
            raise UsageError("--context and -f are two clusters: give one of them")
        paths, stdin = ["-"], BytesIO(fetch(given.context))
    if not paths:
        raise UsageError("no input: -f FILE names a manifest, a dump or a directory, -f @example the bundled cluster")
    loaded = load(paths, recursive=given.recursive, lenient=given.lenient, namespace=given.namespace, stdin=stdin)
    for problem in loaded.refused:
        speaker.note(f"left out: {problem}")
    for note in loaded.notes:
        speaker.note(note)
    if not loaded.objects:
        raise InputError(f"there is no Kubernetes object in {', '.join(paths)}")
    cluster = control.run(store(loaded), inputs.settings(given), addresses)
    for assumption in cluster.assumptions:
        speaker.note(assumption)
    return cluster


def addresses(cluster: Cluster) -> Mapping[tuple[str, str], list[str]]:
    """Free addresses of each node's pod CIDRs, in name order, from the second host on (the first is the gateway's)."""
    from ipaddress import ip_network

    taken = set(cluster.pods_by_ip)
    found: dict[tuple[str, str], list[str]] = {}
    for node in cluster.nodes.values():
        pods = sorted(cluster.pods_by_node.get(node.name, ()), key=lambda p: p.key)
        waiting = [p for p in pods if not p.ips and not p.spec.host_network]
        for cidr in node.spec.pod_cidrs:
            prefix = ip_network(cidr)
            free = (str(prefix[i]) for i in range(2, min(prefix.num_addresses, 1 << 20)))
            for pod in waiting:
                address = next((a for a in free if a not in taken), None)
                if address is None:
                    raise InputError(f"node {node.name}: no address left in {cidr}")
                found.setdefault(pod.key, []).append(address)
    return found


def family(given: Any) -> Family:
    from netsim.packet.address import Family

    return Family(given.family)


def asked_ports(given: Any) -> PortSet | None:
    """``--port`` and ``--protocol`` as a set; None when neither was given."""
    from netsim_policies.algebra import NO_PORTS, PortSet

    protocol = (given.protocol or "tcp").upper()
    if given.port is None:
        return PortSet.of(protocol) if given.protocol else None
    found = NO_PORTS
    for part in str(given.port).split(","):
        low, _, high = part.partition("-")
        if not low.isdecimal() or (high and not high.isdecimal()):
            raise UsageError(f"--port {given.port}: a port is a number or a range such as 8000-8010")
        if not 1 <= int(low) <= int(high or low) <= 65535:
            raise UsageError(f"--port {given.port}: ports go from 1 to 65535, the lower one first")
        found |= PortSet(**{protocol.lower(): ((int(low), int(high or low)),)})
    return found


def port_options(parser: Any) -> None:
    parser.add_argument("--port", metavar="PORT", help="a port, a list or a range: 80, 80,443, 8000-8010")
    parser.add_argument("--protocol", type=str.lower, choices=("tcp", "udp", "sctp"), help="(tcp)")
