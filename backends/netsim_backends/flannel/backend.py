"""flannel as a backend: ``--cni flannel[:vxlan|host-gw|udp|ipip|alloc]``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from netsim.backends import Underlay
from netsim.errors import InputError, Problem, UnsupportedError
from netsim.kube.cluster import Cluster
from netsim.packet.address import Family
from netsim_backends.cni.wiring import Bridge, NetConf, PointToPoint, Wiring
from netsim_backends.flannel.config import MODES, FlannelConfig, find_document, read_config
from netsim_backends.flannel.datapath import pod_mtu
from netsim_backends.flannel.lease import TYPE_IN_LEASE, Lease, read_leases
from netsim_backends.flannel.plugin import FlannelPlugin

_WIRINGS: Mapping[str, Wiring] = {"bridge": Bridge(), "ptp": PointToPoint()}


class FlannelBackend:
    name = "flannel"
    role: Literal["proxy", "cni"] = "cni"
    modes = tuple(mode for mode in MODES if mode != "alloc")  # those that carry packets between nodes

    def detect(self, cluster: Cluster) -> str | None:
        document = find_document(cluster)
        return None if document is None else document.name

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> FlannelPlugin:
        config = read_config(cluster, mode)
        leases = read_leases(cluster, config, underlay)
        wiring, conf = _delegate(config, underlay)
        plugin = FlannelPlugin(cluster, config, underlay, leases, wiring, conf)
        _check(plugin, leases)
        return plugin


def _delegate(config: FlannelConfig, underlay: Underlay) -> tuple[Wiring, NetConf]:
    """What flannel's CNI plugin hands on: the user's delegate, completed from subnet.env."""
    given: Mapping[str, Any] = config.delegate or {"hairpinMode": True, "isDefaultGateway": True}
    kind = given.get("type", "bridge")
    wiring = _WIRINGS.get(kind)
    where = (config.source, config.origin, 'data["cni-conf.json"]')
    if wiring is None:
        raise UnsupportedError([Problem(f'delegate type "{kind}" is not modelled, only bridge and ptp are', *where)])
    known: dict[str, type] = {
        "hairpinMode": bool, "isDefaultGateway": bool, "isGateway": bool, "ipMasq": bool, "mtu": int, "bridge": str,
        "type": str, "name": str, "forceAddress": bool,
    }  # fmt: skip
    for key, value in given.items():
        if key not in known:
            raise UnsupportedError([Problem(f"delegate.{key} is not modelled", *where)])
        if type(value) is not known[key]:
            raise InputError([Problem(f"delegate.{key} must be of type {known[key].__name__}", *where)])
    if not given.get("isGateway", True) and not given.get("isDefaultGateway", False):
        raise UnsupportedError([Problem("a bridge that is no gateway (isGateway false) is not modelled", *where)])
    return wiring, NetConf(
        name=given.get("name", "cbr0"),
        mtu=given.get("mtu") or pod_mtu(config, underlay.mtu),
        bridge=given.get("bridge", "cni0"),
        hairpin=given.get("hairpinMode", False),
        default_gateway=given.get("isDefaultGateway", False),
        ip_masq=given.get("ipMasq", not config.flags.masquerade),  # somebody has to, but not both
        port_map=config.port_map,
        routes=tuple(config.networks.values()),
    )


def _check(plugin: FlannelPlugin, leases: Mapping[str, Lease]) -> None:
    """What flanneld would log on its nodes, said once for the cluster."""
    config, cluster = plugin.config, plugin.cluster
    mode = config.mode
    if mode == "host-gw":
        for name, lease in leases.items():
            for family in lease.subnets:
                if lease.local[family] != lease.interface[family]:
                    text = (
                        "your PublicIP differs from interface IP, meaning that probably you're on a NAT, "
                        "which is not supported by host-gw backend"
                    )
                    raise InputError([Problem(text, cluster.nodes[name].source, f'Node "{name}"')])
    if mode in ("ipip", "udp") and Family.IPV6 in config.networks:
        cluster.assumptions.append(f"flannel's {mode} backend carries IPv4 alone: no IPv6 routes between nodes")
    if mode != "udp":
        expected = TYPE_IN_LEASE[mode]
        others = [lease for lease in leases.values() if lease.type != expected]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            cluster.assumptions.append(
                f"flannel ignores the lease of node {others[0].node}{more}: its backend type is "
                f'"{others[0].type}", not "{expected}"'
            )
    if mode == "host-gw" and len(segments := Counter(plugin.underlay.segments.get(n, "") for n in leases)) > 1:
        cluster.assumptions.append(
            f"flannel host-gw: nodes are on {len(segments)} segments; routes to nodes of other segments are refused by the "
            "kernel (Nexthop has invalid gateway) and packets for their pods follow the default route"
        )


BACKEND = FlannelBackend()
