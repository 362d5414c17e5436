"""Leases: which node has which subnet, and how others reach it (flannel v0.28, pkg/subnet/kube).

The kube subnet manager reads all of it from Node objects: the subnet is ``spec.podCIDRs``, the rest is in annotations that
each node's flanneld writes. In a dump they are believed; where they are missing, flanneld is taken to have just started.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from netsim.backends import Underlay
from netsim.errors import InputError, Problem
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Node
from netsim.linux.mac import mac_for
from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of
from netsim_backends.cni.pools import pod_cidrs
from netsim_backends.flannel.config import FlannelConfig, SubnetOptions
from netsim_backends.flannel.subnets import SubnetError, allocate, subnet_range

PREFIX = "flannel.alpha.coreos.com/"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_SUFFIX = {Family.IPV4: "", Family.IPV6: "v6"}
# What leases of each backend are marked with: udp and alloc mark theirs with nothing.
TYPE_IN_LEASE = {"vxlan": "vxlan", "host-gw": "host-gw", "ipip": "ipip", "udp": "", "alloc": ""}


@dataclass(frozen=True)
class Lease:
    """One node's. ``local`` is its own public address, ``public`` what its peers are told; ``interface`` what it has."""

    node: str
    subnets: Mapping[Family, IPNetwork]
    interface: Mapping[Family, IPAddress]
    local: Mapping[Family, IPAddress]
    public: Mapping[Family, IPAddress]
    macs: Mapping[Family, str]
    type: str
    provenance: Provenance


def vtep_name(vni: int, family: Family) -> str:
    return f"flannel.{vni}" if family is Family.IPV4 else f"flannel-v6.{vni}"


def read_leases(cluster: Cluster, config: FlannelConfig, underlay: Underlay) -> dict[str, Lease]:
    """Node → lease, by node name. InputError for nodes on which flanneld would not start.

    A node without podCIDR has no lease: its flanneld waits for one, which is noted.
    """
    cidrs = pod_cidrs(cluster) if config.flags.kube_subnet_manager else _from_etcd(cluster, config)
    leases: dict[str, Lease] = {}
    problems: list[Problem] = []
    without: list[str] = []
    for name in sorted(cluster.nodes):
        node = cluster.nodes[name]
        if not cidrs[name]:
            without.append(name)
            continue
        reader = _NodeReader(node, config, underlay)
        lease = reader.read(cidrs[name])
        problems += reader.problems
        if lease is not None:
            leases[name] = lease
    if problems:
        raise InputError(problems)
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        cluster.assumptions.append(
            f'flannel does not run on node {without[0]}{more}: node "{without[0]}" pod cidr not assigned'
        )
    return leases


def _from_etcd(cluster: Cluster, config: FlannelConfig) -> Mapping[str, tuple[IPNetwork, ...]]:
    """Node → subnets that the etcd manager hands out; what etcd holds is not among the input."""
    cluster.assumptions.append("flanneld runs without --kube-subnet-mgr: subnets assumed in the order of node names")
    found: dict[str, tuple[IPNetwork, ...]] = dict.fromkeys(cluster.nodes, ())
    for family, whole in config.networks.items():
        try:
            given = allocate(subnet_range(whole, config.subnets.get(family, SubnetOptions())), cluster.nodes)
        except SubnetError as error:
            raise InputError([Problem(str(error), config.source, config.origin)]) from None
        for node, subnet in given.items():
            found[node] += (subnet,)
    return found


class _NodeReader:
    def __init__(self, node: Node, config: FlannelConfig, underlay: Underlay) -> None:
        self.node = node
        self.config = config
        self.underlay = underlay
        self.problems: list[Problem] = []

    def complain(self, field_: str, text: str) -> None:
        self.problems.append(Problem(text, self.node.source, f'Node "{self.node.name}"', field_))

    def note(self, key: str) -> str | None:
        return self.node.metadata.annotations.get(PREFIX + key)

    def address(self, key: str, family: Family) -> IPAddress | None:
        text = self.note(key)
        if not text:
            return None
        try:
            value = ipaddress.ip_address(text)
        except ValueError:
            value = None
        if value is None or family_of(value) is not family:
            self.complain(f"metadata.annotations[{PREFIX}{key}]", f'invalid public IP address "{text}"')
            return None
        return value

    def read(self, cidrs: tuple[IPNetwork, ...]) -> Lease | None:
        subnets: dict[Family, IPNetwork] = {}
        interface: dict[Family, IPAddress] = {}
        local: dict[Family, IPAddress] = {}
        public: dict[Family, IPAddress] = {}
        macs: dict[Family, str] = {}
        for family, whole in self.config.networks.items():
            subnet = next((c for c in cidrs if family_of(c) is family), None)
            if subnet is None:
                self.complain(
                    "spec.podCIDRs", f'node "{self.node.name}" pod cidr not assigned: none is IPv{int(family)}'
                )
                continue
            if not subnet.subnet_of(whole):  # type: ignore[arg-type]
                text = (
                    f'subnet "{whole}" specified in the flannel net config doesn\'t contain '
                    f'"{subnet}" PodCIDR of the "{self.node.name}" node'
                )
                self.complain("spec.podCIDRs", text)
                continue
            held = self._interface_address(family)
            if held is None:
                self.complain(
                    "status.addresses", f"flannel finds no IPv{int(family)} address on {self.underlay.device}"
                )
                continue
            suffix = _SUFFIX[family]
            subnets[family], interface[family] = subnet, held
            local[family] = self.address(f"node-public-ip{suffix}", family) or held
            overwrite = self.address(f"public-ip{suffix}-overwrite", family)
            told = self.address(f"public-ip{suffix}", family)
            public[family] = overwrite or told or local[family]
            macs[family] = self._mac(family)
        if not subnets:
            return None
        stated = self.note("backend-type")
        expected = TYPE_IN_LEASE[self.config.mode]
        kind = expected if stated is None or self.config.overridden else stated
        told_by = ", ".join(f"{subnets[f]} at {public[f]}" for f in subnets)
        why = Provenance(f"flannel lease of node {self.node.name}: {told_by}", self.node.source)
        return Lease(self.node.name, subnets, interface, local, public, macs, kind, why)

    def _interface_address(self, family: Family) -> IPAddress | None:
        for text in self.underlay.addresses.get(self.node.name, ()):
            value = ipaddress.ip_address(text)
            if family_of(value) is family:
                return value
        return None

    def _mac(self, family: Family) -> str:
        """The VTEP's MAC: the one announced in ``backend-data``, else one of our own (random on a real node)."""
        key = "backend-v6-data" if family is Family.IPV6 else "backend-data"
        own = mac_for(f"node/{self.node.name}", vtep_name(self.config.vni, family))
        text = self.note(key)
        if self.config.mode != "vxlan" or not text or text == "null":
            return own
        try:
            data = json.loads(text)
            mac = data.get("VtepMAC") if isinstance(data, dict) else None
        except ValueError:
            self.complain(f"metadata.annotations[{PREFIX}{key}]", "is no JSON")
            return own
        if mac is None:
            return own
        if not isinstance(mac, str) or not _MAC.fullmatch(mac.lower()):
            self.complain(f"metadata.annotations[{PREFIX}{key}]", f"VtepMAC {mac!r} is no MAC address")
            return own
        return mac.lower()
