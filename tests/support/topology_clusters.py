"""Small clusters for the tests of the topology, and packets through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netsim.interpreter import LocalOrigin, trace
from netsim.interpreter.outcome import Outcome
from netsim.kube.cluster import Settings
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Tcp
from netsim.topology import Assembled, assemble
from tests.support.control_clusters import store_of

Body = dict[str, Any]


def node(
    name: str,
    *internal: str,
    external: str = "",
    ready: bool = True,
    cidrs: tuple[str, ...] = (),
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Body:
    stated = [{"type": "InternalIP", "address": text} for text in internal]
    if external:
        stated.append({"type": "ExternalIP", "address": external})
    spec: Body = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    return {
        "kind": "Node",
        "metadata": {"name": name, "annotations": dict(annotations or {}), "labels": dict(labels or {})},
        "spec": spec,
        "status": {"addresses": stated, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def pod(name: str, on: str, *, port: int = 80, **spec: Any) -> Body:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": port, "protocol": "TCP"}]}
    meta = {"name": name, "labels": {"app": name}}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": on, "containers": [container], **spec}}


def service(name: str, app: str, *ingress: str, **spec: Any) -> Body:
    """A Service of type LoadBalancer on port 80; ``ingress`` are the balancer's addresses."""
    port = {"port": 80, "protocol": "TCP", "targetPort": 80}
    return {
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": app}, "ports": [port], **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": text} for text in ingress]}},
    }


def build(*bodies: Body, cni: str | None = "flannel", **settings: Any) -> Assembled:
    return assemble(store_of(*bodies), Settings(cni=cni, **settings))


def send(made: Assembled, origin: str, source: str, destination: str, port: int = 80) -> Outcome:
    """The one outcome of a TCP SYN."""
    packet = Packet(ip(source), ip(destination), Proto.TCP, Tcp(40000, port))
    (outcome,) = trace(made.network, LocalOrigin(origin), packet)
    return outcome


def address_of(made: Assembled, name: str) -> str:
    return made.cluster.pods["default", name].ips[0]
