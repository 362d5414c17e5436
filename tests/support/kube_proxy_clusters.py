"""Small clusters for the kube-proxy tests: plain builders, and hypothesis strategies of random ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from netsim.backends import Underlay
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.objects import EndpointSlice, Node, Object, Service
from netsim.kube.store import Store

UNDERLAY = Underlay("eth0", 1500, {}, {})


def node(name: str, *addresses: str, pod_cidrs: Sequence[str] = (), labels: dict[str, str] | None = None) -> Node:
    return msgspec.convert(
        {
            "kind": "Node",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"podCIDR": pod_cidrs[0] if pod_cidrs else "", "podCIDRs": list(pod_cidrs)},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
        },
        Node,
    )


def service(name: str, spec: dict[str, Any], vips: Iterable[str] = (), **metadata: Any) -> Service:
    namespace, _, short = name.rpartition("/")
    body = {
        "kind": "Service",
        "metadata": {"name": short, "namespace": namespace or "default", **metadata},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": [{"ip": v} for v in vips]}},
    }
    return msgspec.convert(body, Service)


def port(number: int, name: str = "", protocol: str = "TCP", node_port: int = 0) -> dict[str, Any]:
    return {"name": name, "protocol": protocol, "port": number, "nodePort": node_port}


def endpoint(
    address: str, node: str | None = None, hints: dict[str, Any] | None = None, **state: bool
) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": state, "hints": hints}


def endpoint_slice(
    name: str, endpoints: Sequence[dict[str, Any]], ports: Sequence[dict[str, Any]], suffix: str = "1"
) -> EndpointSlice:
    namespace, _, short = name.rpartition("/")
    six = any(":" in e["addresses"][0] for e in endpoints)
    body = {
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{short}-{suffix}",
            "namespace": namespace or "default",
            "labels": {"kubernetes.io/service-name": short},
        },
        "addressType": "IPv6" if six else "IPv4",
        "endpoints": list(endpoints),
        "ports": list(ports),
    }
    return msgspec.convert(body, EndpointSlice)


def cluster(
    *objects: Object, config: dict[str, Any] | None = None, version: tuple[int, int] = (1, 34), **settings: Any
) -> Cluster:
    """``config`` None: no configuration at all. clusterCIDR is 10.244.0.0/16,fd00:244::/56 unless it says otherwise."""
    store = Store()
    for obj in objects:
        store.put(obj)
    document = {} if config is None else {"mode": "", "clusterCIDR": "10.244.0.0/16,fd00:244::/56", **config}
    return Cluster(store, Settings(proxy_config=document, kubernetes_version=version, **settings))


def demo() -> Cluster:
    """A load balancer with policy Local, affinity and a source range next to a Service without endpoints."""
    return cluster(
        node("worker-1", "172.18.0.3"),
        node("worker-2", "172.18.0.4"),
        service(
            "demo/web",
            {
                "type": "LoadBalancer",
                "clusterIP": "10.96.10.10",
                "ports": [port(80, "http", node_port=30080)],
                "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 31234,
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
                "loadBalancerSourceRanges": ["203.0.113.0/24"],
            },
            vips=["198.51.100.7"],
        ),
        service("demo/empty", {"clusterIP": "10.96.10.11", "ports": [port(53, protocol="UDP")]}),
        endpoint_slice(
            "demo/web",
            [
                endpoint("10.244.2.7", "worker-2"),
                endpoint("10.244.1.5", "worker-1"),
                endpoint("10.244.2.6", "worker-2"),
            ],
            [{"name": "http", "protocol": "TCP", "port": 8080}],
        ),
        config={},
    )


# -- random clusters ---------------------------------------------------------------------------------------------------
NODES = ("worker-1", "worker-2", "worker-3")
_label = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
_names = st.builds("{}/{}".format, st.sampled_from(["default", "shop", "kube-system"]), _label)
_pods4 = st.builds("10.244.{}.{}".format, st.integers(1, 3), st.integers(1, 12))
_pods6 = st.builds("fd00:244:0:{:x}::{:x}".format, st.integers(1, 3), st.integers(1, 18))
_ranges = st.sampled_from(
    [
        "203.0.113.0/24",
        "172.18.0.0/16",
        "0.0.0.0/0",
        "198.51.100.128/25",
        "2001:db8::/32",
        "fd00:18::/64",
        "::/0",
        "10.0.0.1/8",
    ]
)
_flag = st.sampled_from([None, None, True, False])


@st.composite
def _endpoints(draw: st.DrawFn, pods: st.SearchStrategy[str]) -> dict[str, Any]:
    hints: dict[str, Any] | None = None
    if draw(st.integers(0, 3)) == 0:
        hints = {"forZones": [{"name": draw(st.sampled_from(["a", "b"]))}]}
        if draw(st.booleans()):
            hints["forNodes"] = [{"name": draw(st.sampled_from(NODES))}]
    state = {key: draw(_flag) for key in ("ready", "serving", "terminating")}
    return {
        "addresses": [draw(pods)],
        "nodeName": draw(st.sampled_from([None, *NODES])),
        "conditions": state,
        "hints": hints,
    }


@st.composite
def _service_objects(draw: st.DrawFn, index: int, name: str) -> list[Object]:
    count = draw(st.integers(1, 3))
    ports = [
        port(
            draw(st.integers(1, 65535)),
            f"p{i}" if count > 1 or draw(st.booleans()) else "",
            draw(st.sampled_from(["TCP", "UDP", "SCTP"])),
            draw(st.sampled_from([0, 30000 + 10 * index + i])),
        )
        for i in range(count)
    ]
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    spec: dict[str, Any] = {
        "type": kind,
        "ports": ports,
        "clusterIPs": [f"10.96.0.{index + 1}", f"fd00:96::{index + 1:x}"][:: draw(st.sampled_from([1, -1]))],
        "externalIPs": draw(
            st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8:1::1"]), unique=True, max_size=2)
        ),
        "externalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "internalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "healthCheckNodePort": draw(st.sampled_from([0, 32000 + index])),
        "sessionAffinity": draw(st.sampled_from(["None", "ClientIP"])),
        "loadBalancerSourceRanges": draw(st.lists(_ranges, unique=True, max_size=2)),
    }
    vips = [f"198.51.100.{index + 1}", f"2001:db8:2::{index + 1:x}"] if kind == "LoadBalancer" else []
    made: list[Object] = [service(name, spec, draw(st.sampled_from([[], vips])))]
    slice_ports = [{"name": p["name"], "protocol": p["protocol"], "port": 8000 + i} for i, p in enumerate(ports)]
    for suffix, pods in (("4a", _pods4), ("4b", _pods4), ("6", _pods6)):
        entries = draw(st.lists(_endpoints(pods), max_size=5))
        if entries:
            made.append(endpoint_slice(name, entries, slice_ports, suffix))
    return made


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        **draw(
            st.sampled_from(
                [
                    {},
                    {"clusterCIDR": ""},
                    {"detectLocalMode": "NodeCIDR"},
                    {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}},
                    {"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "veth"}},
                ]
            )
        ),
        "nodePortAddresses": draw(st.sampled_from([[], ["primary"], ["172.18.0.0/16"], ["127.0.0.0/8", "::1/128"]])),
        "iptables": {
            "masqueradeAll": draw(st.booleans()),
            "masqueradeBit": draw(st.integers(0, 31)),
            "localhostNodePorts": draw(st.booleans()),
        },
        "conntrack": {"tcpBeLiberal": draw(st.booleans())},
    }


@st.composite
def objects(draw: st.DrawFn) -> list[Object]:
    """Three dual-stack nodes, up to five Services and their slices."""
    made: list[Object] = [
        node(
            name,
            f"172.18.0.{i}",
            f"fd00:18::{i}",
            pod_cidrs=(f"10.244.{i}.0/24", f"fd00:244:0:{i}::/64"),
            labels=draw(
                st.sampled_from([{}, {"topology.kubernetes.io/zone": "a"}, {"topology.kubernetes.io/zone": "b"}])
            ),
        )
        for i, name in enumerate(NODES, 1)
    ]
    for index, name in enumerate(draw(st.lists(_names, unique=True, max_size=5))):
        made += draw(_service_objects(index, name))
    return made


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    return cluster(*draw(objects()), config=draw(configs()))
