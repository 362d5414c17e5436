"""Small clusters for the tests of flannel and the CNI plugins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from netsim.backends import Backend, CniPlugin, Underlay
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import Meta, Node, Object, Pod, Resource, Workload
from netsim.kube.store import Store
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace
from netsim.packet.address import Family

VXLAN = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}


def node(number: int, *cidrs: str, annotations: Mapping[str, str] | None = None, more: Sequence[str] = ()) -> Node:
    """Node n1, n2 … at 192.168.56.1x with the podCIDR 10.244.x.0/24 unless told otherwise."""
    held = list(cidrs) or [f"10.244.{number}.0/24"]
    body = {
        "kind": "Node",
        "metadata": {
            "name": f"n{number}",
            "annotations": {f"flannel.alpha.coreos.com/{k}": v for k, v in (annotations or {}).items()},
        },
        "spec": {"podCIDR": held[0], "podCIDRs": [c for c in held if c]},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in (f"192.168.56.{10 + number}", *more)]},
    }
    return msgspec.convert(body, Node)


def pod(name: str, on: str, *ips: str, ports: Sequence[dict[str, Any]] = (), **spec: Any) -> Pod:
    body = {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "ports": list(ports)}], **spec},
        "status": {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": i} for i in ips]} if ips else {},
    }
    return msgspec.convert(body, Pod)


def net_conf(
    body: Mapping[str, Any], namespace: str = "kube-flannel", cni: Mapping[str, Any] | None = None
) -> Resource:
    data = {"net-conf.json": json.dumps(body)}
    if cni is not None:
        data["cni-conf.json"] = json.dumps(cni)
    meta = Meta(name="kube-flannel-cfg", namespace=namespace)
    return Resource(kind="ConfigMap", metadata=meta, body={"data": data})


def daemon_set(*args: str) -> Workload:
    spec = {"template": {"spec": {"containers": [{"command": ["/opt/bin/flanneld"], "args": list(args)}]}}}
    return Workload(kind="DaemonSet", metadata=Meta(name="kube-flannel-ds", namespace="kube-flannel"), spec=spec)


def cluster(*objects: Object, settings: Settings | None = None) -> Cluster:
    store = Store()
    for item in objects:
        store.put(item)
    return Cluster(store, settings or Settings())


def underlay(held: Cluster, far: Iterable[str] = (), mtu: int = 1500) -> Underlay:
    """All nodes on one segment, but those named ``far`` on another."""
    addresses = {name: tuple(held.node_addresses(name)) for name in held.nodes}
    away = set(far)
    return Underlay("eth0", mtu, addresses, {name: "far" if name in away else "near" for name in held.nodes})


def configured(backend: Backend, held: Cluster, mode: str | None = None, **kind: Any) -> CniPlugin:
    plugin = backend.configure(held, mode, underlay(held, **kind))
    assert isinstance(plugin, CniPlugin)
    return plugin


def node_state(plugin: CniPlugin, name: str) -> Namespace:
    builder = NamespaceBuilder(f"node/{name}", name)
    plugin.build_node(name, builder)
    return builder.build()


def pod_state(plugin: CniPlugin, one: Pod) -> Namespace:
    builder = NamespaceBuilder(f"pod/{one.namespace}/{one.name}", one.spec.node_name)
    plugin.build_pod(one, builder)
    return builder.build()


def saved(state: Namespace, table: str, family: Family = Family.IPV4) -> list[str]:
    """The ``-A`` lines of one table as iptables-save prints them."""
    ruleset = state.rulesets.get(family)
    if ruleset is None or table not in ruleset.tables:
        return []
    text = "".join(print_save(ruleset)).split(f"*{table}\n")[1].split("COMMIT")[0]
    return [line for line in text.splitlines() if line.startswith("-A")]


def shown_routes(state: Namespace) -> list[str]:
    """Routes in the order in which they were added, nearly as ``ip route`` shows them."""
    found = []
    for route in state.routes:
        text = str(route.destination)
        text += f" via {route.gateway}" if route.gateway else ""
        text += f" dev {route.device}" if route.device else ""
        text += f" scope {route.scope}" if route.scope != "global" else ""
        text += f" src {route.source}" if route.source else ""
        found.append(text + (" onlink" if route.onlink else ""))
    return found
