"""The real kernel beside the emulator: one node's rules for 10, 100 and 1,000 Services, timed in the lab's namespaces.

A pod sends UDP through the node's rules to a pod beside it. A datagram from a new port is a *first packet*: the kernel walks
KUBE-SERVICES for it, on average half of it. The same again is *established*: conntrack knows it. Over veth pairs the whole
path runs within the system call that sends, so the sender's CPU time is the time of the path, sockets and all.
"""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from netsim.interpreter.api import trace
from netsim.interpreter.origin import LocalOrigin
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.lab import build, holder, state
from netsim.lab.plan import netns
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Udp
from netsim.topology.assemble import Assembled, assemble

SERVICES = (10, 100, 1000)
_PORTS = 40000
_ROUNDS, _FLOWS = 9, 400  # of first packets; each is sent twice more
_TRACED = 60  # Services of which the rules are counted


@dataclass(frozen=True, slots=True)
class Point:
    """``rules``: evaluated per first packet as netsim counts them, on average; seconds per packet, median of rounds."""

    services: int
    rules: float
    new: float
    established: float


def compare(told: Callable[[str], None], counts: Sequence[int] = SERVICES) -> list[Point]:
    """PrivilegeError if this machine does not let us make namespaces. Every lab is taken down again."""
    return [_measure(count, told) for count in counts]


def _measure(count: int, told: Callable[[str], None]) -> Point:
    told(f"{count:,} Services")
    made = _cluster(count)
    network, _ = build.for_lab(made)
    fronts = [service.spec.cluster_ip for _, service in sorted(made.cluster.services.items())]
    client, server = (f"pod/bench/{name}" for name in ("client", "server"))
    some = random.Random(count).sample(fronts, min(count, _TRACED))
    src = ip(made.cluster.pods["bench", "client"].ips[0])
    rules = mean(
        trace(network, LocalOrigin(client), Packet(src, ip(dst), Proto.UDP, Udp(_PORTS, 53)))[0].rules_evaluated
        for dst in some
    )
    lab = build.up(made, network, state.check_id(f"bench-{os.getpid()}"))
    try:
        held = lab.holder()
        assert held is not None
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as results:
            try:
                holder.in_lab(held, lambda: _time(netns(client), netns(server), fronts, writing))
            finally:
                os.close(writing)
            new, established = json.loads(results.read())
    finally:
        state.down(lab)
    return Point(count, rules, new, established)


def _time(client: str, server: str, fronts: list[str], writing: int) -> int:
    """In the lab: seconds of a first packet and of an established one, as JSON into ``writing``."""
    dice = random.Random(len(fronts))
    with ExitStack() as opened:
        with holder.within(server):
            sink = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.bind(("0.0.0.0", 5353))  # reads nothing: what it has no room for is dropped
        times: list[tuple[float, float]] = []
        port = _PORTS
        for _ in range(_ROUNDS + 1):
            with holder.within(client):  # few Services: the same ones from several ports
                senders = [
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(max(1, _FLOWS // len(fronts)))
                ]
            for sender in senders:
                opened.enter_context(sender).bind(("0.0.0.0", port))
                port += 1
            chosen = dice.sample(fronts, min(len(fronts), _FLOWS))
            first = _send(senders, chosen)
            times.append((first, mean(_send(senders, chosen) for _ in range(2))))
    new, established = (median(one[at] for one in times[1:]) for at in (0, 1))  # the first round fills caches
    os.write(writing, json.dumps((new, established)).encode())
    return 0


def _send(senders: Sequence[socket.socket], fronts: Sequence[str]) -> float:
    """CPU seconds of one datagram, when each sender sends one to each."""
    start = time.process_time()
    for sender in senders:
        for front in fronts:
            sender.sendto(b"netsim", (front, 53))
    return (time.process_time() - start) / len(senders) / len(fronts)


# -- the cluster -------------------------------------------------------------------------------------------------------
def _cluster(services: int) -> Assembled:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cluster.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(_objects(services))}))
        return assemble(store(load([str(path)])), Settings(cni="flannel:vxlan", proxy="iptables"))


def _objects(services: int) -> Iterator[dict[str, Any]]:
    def named(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "namespace": "bench", **more}

    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
    yield {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.244.0.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    }
    for number, name in enumerate(("client", "server")):
        address = f"10.244.0.{number + 2}"
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": named(name),
            "spec": {"nodeName": "n", "containers": [{"name": name, "image": name}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
    for number in range(services):
        name, address = f"s{number}", f"10.96.{1 + number // 250}.{1 + number % 250}"
        port = {"name": "dns", "protocol": "UDP", "port": 53}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named(name),
            "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{**port, "targetPort": 5353}]},
        }
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": named(f"{name}-1", labels={"kubernetes.io/service-name": name}),
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.3"], "conditions": {"ready": True}, "nodeName": "n"}],
            "ports": [{**port, "port": 5353}],
        }
