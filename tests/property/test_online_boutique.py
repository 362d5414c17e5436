"""Online Boutique (12 Deployments, 12 Services, no node and no address named): every Service from every workload."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netsim.interpreter import Disposition, LocalOrigin, trace, trace_reply
from netsim.kube import load
from netsim.kube.cluster import Settings
from netsim.kube.selectors import matches_map
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Tcp
from netsim.topology import Assembled, assemble

DATA = Path(__file__).parents[1] / "data" / "online-boutique"
MODES = ("flannel:vxlan", "flannel:host-gw", "flannel:udp", "flannel:ipip", "bridge", "ptp", "flat")
SAME_NODE_ONLY = ("bridge", "ptp")  # these alone know nothing of other nodes


def build(cni: str) -> Assembled:
    return assemble(load.store(load.load([str(DATA)])), Settings(cni=cni))


@pytest.mark.parametrize("cni", MODES)
def test_every_service_from_every_workload_and_back(cni: str) -> None:
    made = build(cni)
    services, pods = list(made.cluster.services.values()), list(made.cluster.pods.values())
    assert (len(services), len(pods)) == (12, 12)
    crossed = 0
    for client in pods:
        for service in services:
            backends = {made.namespace_of(p): p for p in pods if matches_map(service.spec.selector, p.metadata.labels)}
            port = service.spec.ports[0]
            source = ip(client.ips[0])
            packet = Packet(source, ip(service.spec.cluster_ip), Proto.TCP, Tcp(40000, port.port))
            outcomes = trace(made.network, LocalOrigin(made.namespace_of(client)), packet)
            assert sum(o.probability for o in outcomes) == 1
            assert len(outcomes) == len(backends)
            for outcome in outcomes:
                nodes = {hop.node for hop in outcome.hops if hop.node}
                crossed += len(nodes) > 1
                if cni in SAME_NODE_ONLY and outcome.receiver not in backends:
                    target = next(iter(backends.values()))
                    assert target.spec.node_name != client.spec.node_name
                    assert outcome.disposition is Disposition.UNREACHABLE
                    continue
                assert outcome.disposition is Disposition.DELIVERED, (client.name, service.name)
                assert outcome.receiver is not None
                receiver = backends[outcome.receiver]
                assert str(outcome.packet.dst) == receiver.ips[0]
                assert outcome.packet.dport == port.target_port
                hairpin = receiver.key == client.key
                assert outcome.masqueraded == hairpin, "only a pod that reaches itself is masqueraded"
                assert hairpin or outcome.packet.src == source
                (reply,) = trace_reply(made.network, outcome)
                assert (reply.disposition, reply.receiver) == (Disposition.DELIVERED, made.namespace_of(client))
                assert (reply.packet.src, reply.packet.sport) == (packet.dst, port.port)
                assert (reply.packet.dst, reply.packet.dport) == (source, 40000)
    assert crossed or cni in SAME_NODE_ONLY


def test_what_the_frontend_costs_in_ttl_by_network() -> None:
    """The kernel takes one per node; flanneld in udp mode takes two more; a router between nodes of one segment none."""
    lost = {}
    for cni in ("flannel:vxlan", "flannel:host-gw", "flannel:udp"):
        made = build(cni)
        pods = sorted(made.cluster.pods.values(), key=lambda p: p.name)
        client = pods[0]
        server = next(p for p in pods if p.spec.node_name != client.spec.node_name)
        packet = Packet(ip(client.ips[0]), ip(server.ips[0]), Proto.TCP, Tcp(40000, 8080))
        (outcome,) = trace(made.network, LocalOrigin(made.namespace_of(client)), packet)
        lost[cni] = packet.ttl - outcome.packet.ttl
        short = replace(packet, ttl=lost[cni])
        (dead,) = trace(made.network, LocalOrigin(made.namespace_of(client)), short)
        assert dead.disposition is not Disposition.DELIVERED
    assert lost == {"flannel:vxlan": 2, "flannel:host-gw": 2, "flannel:udp": 4}
