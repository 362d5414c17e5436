"""A dual-stack cluster: both families cross nodes, though both VXLAN devices have one VNI and one port."""

from __future__ import annotations

from io import BytesIO

import pytest

from netsim.interpreter import Disposition, LocalOrigin, trace, trace_reply
from netsim.kube import load
from netsim.kube.cluster import Settings
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Tcp
from netsim.topology import assemble

CLUSTER = b"""
apiVersion: v1
kind: Node
metadata: {name: a}
spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24, "fd00:10:244::/64"]}
status: {addresses: [{type: InternalIP, address: 192.168.1.10}, {type: InternalIP, address: "fd00:1::10"}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.168.1.11}, {type: InternalIP, address: "fd00:1::11"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: a, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: web}}
spec: {nodeName: b, containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
data:
  net-conf.json: |
    {"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "vxlan"}}
"""
SETTINGS = Settings(pod_cidrs=("10.244.0.0/16", "fd00:10:244::/56"), service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"))


@pytest.mark.parametrize("version", [4, 6])
def test_a_service_works_in_both_families(version: int) -> None:
    made = assemble(load.store(load.load(["-"], stdin=BytesIO(CLUSTER))), SETTINGS)
    client, server = made.cluster.pods["default", "client"], made.cluster.pods["default", "server"]
    source, target = (next(ip(a) for a in p.ips if ip(a).version == version) for p in (client, server))
    service = made.cluster.services["default", "web"]
    assert len(service.spec.cluster_ips) == 2
    virtual = next(ip(a) for a in service.spec.cluster_ips if ip(a).version == version)
    packet = Packet(source, virtual, Proto.TCP, Tcp(40000, 80))
    (outcome,) = trace(made.network, LocalOrigin(made.namespace_of(client)), packet)
    assert (outcome.disposition, outcome.receiver) == (Disposition.DELIVERED, made.namespace_of(server))
    assert (outcome.packet.dst, outcome.packet.dport, outcome.packet.src) == (target, 8080, source)
    device = "flannel.1" if version == 4 else "flannel-v6.1"
    assert any(seen == device for hop in outcome.hops for seen, _, _ in hop.wire)
    (reply,) = trace_reply(made.network, outcome)
    assert (reply.disposition, reply.packet.src, reply.packet.sport) == (Disposition.DELIVERED, virtual, 80)
