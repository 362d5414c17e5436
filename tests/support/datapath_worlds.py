"""Random worlds for both engines: routers, drawn as for the comparison with the kernel, and clusters under every network.

Both give packets without end by ``next`` and learn by ``heard`` what has become of each, so that there are answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Protocol

from netsim.interpreter.origin import LocalOrigin, Origin, WireOrigin
from netsim.interpreter.outcome import Outcome
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, Network, StaticNetwork
from netsim.packet.address import Family, ip
from netsim.packet.model import Packet, Proto
from netsim.topology import Assembled, assemble
from tests.differential.fuzz_cases import emitted, random_case
from tests.differential.fuzz_traffic import Traffic
from tests.differential.fuzz_world import BRIDGED, DEVICES, FAR, MACS, PLANS, PORTS
from tests.support.control_clusters import store_of
from tests.support.datapath_conversations import Conversations, Target
from tests.support.interpreter_worlds import mac
from tests.support.topology_clusters import node, pod, service

# Simulated microseconds between packets: mostly few, sometimes past one of conntrack's timeouts (those of ICMP and UDP,
# UDP streams, TCP states, established TCP) and sometimes within a millisecond.
_PAUSES = (1000,) * 60 + (10, 250, 999, 40_000) * 4 + (2_100_000, 9_900_000, 10_100_000)
_LONG_PAUSES = (29_999_000, 30_001_000, 60_000_000, 119_999_000, 120_001_000, 300_000_000, 432_000_000_000)


def pause(rng: Random) -> int:
    """Microseconds until the next packet."""
    return rng.choice(_LONG_PAUSES) if rng.random() < 0.015 else rng.choice(_PAUSES)


class WorldOfPackets(Protocol):
    network: Network
    rng: Random

    def next(self) -> tuple[Origin, Packet]: ...

    def heard(self, outcome: Outcome) -> None: ...


class RouterWorld:
    """One random router ``R`` between hosts outside: part of the packets are drawn for the router's boundaries (the
    traffic of ``fuzz_cases``), part are conversations of its neighbours."""

    def __init__(self, seed: int, family: Family) -> None:
        self.rng = rng = Random(f"{seed}/{family}")
        plan = PLANS[family]
        router = random_case(rng, family, packets=0).router
        self.network: Network = walled(router)
        self.traffic = Traffic(rng, plan, router)
        self._odd = self._oddities()
        senders = [
            (WireOrigin("R", device, FAR[device], _own_mac(device)), ip(plan.hosts[device])) for device in DEVICES
        ]
        held = [*plan.hosts.values(), *plan.far, *plan.own.values(), plan.service]
        targets = [(ip(a), port, proto) for a in held for port in PORTS for proto in (Proto.TCP, Proto.UDP)]
        self.talks = Conversations(rng, senders, targets, self._answerer)
        self._talking = False

    def next(self) -> tuple[Origin, Packet]:
        self._talking = self.rng.random() < 0.6
        return self.talks.next() if self._talking else next(self._odd)

    def heard(self, outcome: Outcome) -> None:
        self.traffic.let_out += [(device, packet) for device, _, packet in emitted(outcome) if device != "local"]
        del self.traffic.let_out[:-40], self.traffic.sent[:-40]
        if self._talking:
            self.talks.heard(outcome)

    def _oddities(self) -> Iterator[tuple[Origin, Packet]]:
        while True:
            for probe in self.traffic.next():
                yield probe.origin(), probe.packet

    def _answerer(self, outcome: Outcome) -> Origin | None:
        if outcome.receiver == "R":
            return LocalOrigin("R")
        out = [device for device, *_ in emitted(outcome) if device != "local"]
        return WireOrigin("R", out[-1], FAR[out[-1]], _own_mac(out[-1])) if out else None


def _own_mac(device: str) -> str:
    """What frames that come in by this device are for."""
    return MACS["br0" if device in BRIDGED else device]


def walled(router: Namespace) -> StaticNetwork:
    """``router`` and, at the far end of all its wires, the host outside."""
    links, far = [], []
    for number, link in enumerate(router.links):
        if link.kind is LinkKind.VETH:
            name = f"x{link.name}"
            far.append(Link(name, LinkKind.VETH, mac(9, number), 65535, peer=("R", link.name)))
            link = replace(link, peer=("external", name))
        links.append(link)
    return StaticNetwork({"R": replace(router, links=tuple(links)), "external": Namespace("external", tuple(far))})


# -- clusters ----------------------------------------------------------------------------------------------------------
NETWORKS = ("flannel:vxlan", "flannel:host-gw", "flannel:udp", "flannel:ipip", "flat", "bridge", "ptp")
CLUSTERS = (*(f"example {cni}" for cni in NETWORKS), "boutique flannel:vxlan", "boutique flannel:host-gw",
            "dual flannel:vxlan", "dual flannel:host-gw")  # fmt: skip
_BOUTIQUE = Path(__file__).parents[1] / "data" / "online-boutique"


def cluster(name: str) -> Assembled:
    """One of ``CLUSTERS``: whose objects, and under which CNI."""
    objects, cni = name.split()
    if objects == "dual":
        return _dual(cni)
    if objects == "boutique":
        return assemble(store(load([str(_BOUTIQUE)])), Settings(cni=cni))
    paths = [str(path) for path in files("netsim.data.example").iterdir() if path.name.endswith(".yaml")]
    return assemble(store(load(paths)), Settings(cni=cni))


def _dual(cni: str) -> Assembled:
    nodes = [
        node(f"n{n}", f"192.168.56.1{n}", f"fd00:1::1{n}", cidrs=(f"10.244.{n}.0/24", f"fd00:10:244:{n}::/64"))
        for n in range(3)
    ]
    pods = [pod(f"{app}{n}", f"n{n}", port=8080) for app in ("a", "b") for n in range(3)]
    services = [
        service(
            "one", "a0", type="NodePort", ipFamilyPolicy="PreferDualStack", ports=[{"port": 80, "targetPort": 8080}]
        ),
        service("two", "b1", type="NodePort", ipFamilyPolicy="PreferDualStack", sessionAffinity="ClientIP"),
        service("local", "b2", type="NodePort", ipFamilyPolicy="PreferDualStack", externalTrafficPolicy="Local"),
    ]
    conf = {"Network": "10.244.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:10:244::/56",
            "Backend": {"Type": cni.partition(":")[2]}}  # fmt: skip
    held = Settings(
        cni="flannel", network_config=conf, pod_cidrs=("10.244.0.0/16", "fd00:10:244::/56"),
        service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"),
    )  # fmt: skip
    return assemble(store_of(*nodes, *pods, *services), held)


class ClusterWorld:
    """Conversations of everybody with everything: pods, nodes and a host outside as senders; Services by all their
    addresses and node ports, pods, nodes and the outside as targets."""

    def __init__(self, name: str, seed: int, made: Assembled | None = None) -> None:
        made = made or _made(name)
        self.rng = Random(f"{name}/{seed}")
        self.network: Network = made.network
        senders = [
            (LocalOrigin(made.namespace_of(one)), ip(held.ip))
            for _, one in sorted(made.cluster.pods.items())
            if one.spec.node_name
            for held in one.status.pod_ips
        ]
        self.pods = len(senders)
        at_nodes = [(name, held.ip) for name, wire in made.network.topology.wires.items() for held in wire.interfaces]
        senders += [(LocalOrigin(f"node/{node}"), address) for node, address in at_nodes]
        outside = [held.interface.ip for held in made.network.namespace("external").addresses if held.device != "lo"]
        senders += [(LocalOrigin("external"), address) for address in outside]
        self.talks = Conversations(self.rng, senders, list(targets_of(made, at_nodes, outside)), _receiver)

    def next(self) -> tuple[Origin, Packet]:
        return self.talks.next()

    def heard(self, outcome: Outcome) -> None:
        self.talks.heard(outcome)


@cache
def _made(name: str) -> Assembled:
    return cluster(name)


def _receiver(outcome: Outcome) -> Origin | None:
    return LocalOrigin(outcome.receiver) if outcome.receiver else None


def targets_of(made: Assembled, at_nodes: list[tuple[str, object]], outside: list[object]) -> Iterator[Target]:
    protos = {"TCP": Proto.TCP, "UDP": Proto.UDP}
    for held in made.cluster.services.values():
        for port in held.spec.ports:
            proto = protos.get(port.protocol or "TCP")
            if proto is None:
                continue
            balancers = [one.ip for one in held.status.load_balancer.ingress if one.ip]
            for text in (*held.spec.cluster_ips, *held.spec.external_ips, *balancers):
                if text not in ("", "None"):
                    yield ip(text), port.port, proto
            if port.node_port:
                for _, address in at_nodes:
                    yield ip(str(address)), port.node_port, proto
    for one in made.cluster.pods.values():
        if one.spec.node_name:
            for address in one.ips:
                yield ip(address), 8080, Proto.TCP
                yield ip(address), 53, Proto.UDP
    for address in outside:
        yield ip(str(address)), 443, Proto.TCP
        yield ip(str(address)), 53, Proto.UDP
