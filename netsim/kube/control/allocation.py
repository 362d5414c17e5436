"""Service addresses and node ports, as the API server's REST storage allocates them (Kubernetes 1.33).

Explicit requests come first, then the rest by (namespace, name) — never by the order of the input. Where upstream
starts its walk at a random place of the dynamic band, netsim starts at a hash of the Service's name, so that adding a
Service does not move the addresses of the others. What a dump states (an object with a uid or a creation time) is
believed even outside the configured ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec

from netsim.errors import InputError, Problem
from netsim.kube.cluster import Settings
from netsim.kube.control.names import fnv1a
from netsim.kube.objects import Service, ServicePort
from netsim.kube.store import Store
from netsim.packet.address import Family, family_of, ip, network

_FAMILY_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
_IPV6_BANDS = 1 << 16


class Full(Exception):
    """No number is left in a pool."""


class Pool:
    """Numbers from ``first`` in two bands: the lower, of ``static`` numbers, is used when the other is full."""

    def __init__(self, first: int, size: int, static: int) -> None:
        self.first, self.size, self.static = first, size, static
        self.used: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.size

    def next(self, seed: str) -> int:
        """The first free number at or behind a place that ``seed`` decides, with wrap inside the band."""
        for low, high in ((self.static, self.size), (0, self.static)):
            for offset in _walk(low, high, fnv1a(seed.encode())):
                if self.first + offset not in self.used:
                    self.used.add(self.first + offset)
                    return self.first + offset
        raise Full


def _walk(low: int, high: int, start: int) -> Iterator[int]:
    length = high - low
    for step in range(length):
        yield low + (start + step) % length


def address_pool(cidr: str) -> Pool:
    """A Service range; the first and (IPv4) last address of the network are never used."""
    range_ = network(cidr)
    total = range_.num_addresses
    size = max(0, total - 2) if range_.version == 4 else total - 1
    banded = min(total, _IPV6_BANDS) if range_.version == 6 else total
    static = 0 if banded <= 16 else min(max(16, banded // 16), 256)
    return Pool(int(range_.network_address) + 1, size, min(static, size))


def port_pool(first: int, last: int) -> Pool:
    size = last - first + 1
    return Pool(first, size, 0 if size <= 16 else min(max(16, size // 32), 128))


def allocate(store: Store, settings: Settings, notes: list[str]) -> None:
    """Give every Service what the API server would have; InputError with everything it would have refused."""
    services = sorted(store.typed("Service", Service), key=lambda service: service.key)
    work = _Allocator(settings)
    drafts = [_Draft(service) for service in services]
    for draft in drafts:
        work.families(draft)
        work.take_requested(draft)
    if work.problems:
        raise InputError(work.problems)
    for draft in drafts:
        work.give(draft)
    if work.problems:
        raise InputError(work.problems)
    for draft in drafts:
        changed = draft.result()
        if changed is not draft.service:
            store.put(changed)
    for count, what in (
        (work.addressed, "ClusterIPs"),
        (work.ported, "nodePorts"),
        (work.checked, "healthCheckNodePorts"),
    ):
        if count:
            notes.append(f"{what} allocated for {count} Service{'s' if count > 1 else ''}")
    for draft in drafts:
        spec = draft.service.spec
        if spec.type == "LoadBalancer" and not draft.service.status.load_balancer.ingress:
            notes.append(f"Service {'/'.join(draft.service.key)}: type LoadBalancer without an address: pending")


class _Draft:
    """A Service on its way: the fields that allocation decides."""

    def __init__(self, service: Service) -> None:
        self.service = service
        spec = service.spec
        self.stored = bool(service.metadata.uid or service.metadata.creation_timestamp)
        self.addresses = list(spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else []))
        self.families = list(spec.ip_families)
        self.policy = spec.ip_family_policy
        self.node_ports = [port.node_port for port in spec.ports]
        self.check_port = spec.health_check_node_port

    @property
    def headless(self) -> bool:
        return self.addresses[:1] == ["None"]

    @property
    def wants_node_ports(self) -> bool:
        return self.service.spec.type in ("NodePort", "LoadBalancer")

    @property
    def gets_node_ports(self) -> bool:
        spec = self.service.spec
        return spec.type == "NodePort" or (
            spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports is not False
        )

    @property
    def wants_check_port(self) -> bool:
        spec = self.service.spec
        return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"

    def problem(self, field: str, text: str) -> Problem:
        return Problem(text, self.service.source, f'Service "{self.service.name}"', field)

    def result(self) -> Service:
        spec = self.service.spec
        changes: dict[str, Any] = {}
        if spec.type != "ExternalName":
            first = self.addresses[0] if self.addresses else ""
            wanted = {
                "cluster_ip": first,
                "cluster_ips": self.addresses,
                "ip_families": self.families,
                "ip_family_policy": self.policy,
                "health_check_node_port": self.check_port,
            }
            changes = {name: value for name, value in wanted.items() if getattr(spec, name) != value}
            if self.node_ports != [port.node_port for port in spec.ports]:
                changes["ports"] = [
                    msgspec.structs.replace(port, node_port=number) for port, number in zip(spec.ports, self.node_ports)
                ]
        if not changes:
            return self.service
        return msgspec.structs.replace(self.service, spec=msgspec.structs.replace(spec, **changes))


class _Allocator:
    def __init__(self, settings: Settings) -> None:
        self.problems: list[Problem] = []
        self.addressed = self.ported = self.checked = 0
        self.ranges = {_FAMILY_NAMES[family_of(network(text))]: text for text in settings.service_cidrs}
        self.pools = {family: address_pool(text) for family, text in self.ranges.items()}
        self.port_range = settings.node_port_range
        self.ports = port_pool(*settings.node_port_range)

    # -- families --------------------------------------------------------------------------------------------------
    def families(self, draft: _Draft) -> None:
        """ipFamilies and ipFamilyPolicy as the server defaults them; addresses given decide first."""
        spec = draft.service.spec
        if spec.type == "ExternalName":
            return
        given = [] if draft.headless else [_family_name(text) for text in draft.addresses]
        selectorless = draft.headless and not spec.selector
        if draft.stored and given and not draft.families:
            draft.families = given
        if draft.policy is None:
            draft.policy = "RequireDualStack" if selectorless else "SingleStack"
            if draft.stored and max(len(given), len(draft.families)) > 1:
                draft.policy = "PreferDualStack"
        if draft.stored and draft.families:
            return
        if draft.policy == "SingleStack" and (len(given) > 1 or len(draft.families) > 1):
            what = "cluster IPs" if len(given) > 1 else "IP families"
            told = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            self._refuse(draft, "spec.ipFamilyPolicy", f'Invalid value: "SingleStack": {told}')
            return
        for index, family in enumerate(draft.families):
            if family not in self.pools and not selectorless:
                told = f'Invalid value: "{family}": not configured on this cluster'
                self._refuse(draft, f"spec.ipFamilies[{index}]", told)
                return
        for index, family in enumerate(given):
            if family not in self.pools:
                told = f"Invalid value: {_go_list(draft.addresses)}: {family} is not configured on this cluster"
                self._refuse(draft, f"spec.clusterIPs[{index}]", told)
                return
        if draft.policy == "RequireDualStack" and len(self.pools) < 2 and not selectorless:
            told = 'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'
            self._refuse(draft, "spec.ipFamilyPolicy", told)
            return
        if not draft.families:
            draft.families = given or [next(iter(self.pools))]
        if draft.policy != "SingleStack" and len(draft.families) == 1:
            other = "IPv6" if draft.families[0] == "IPv4" else "IPv4"
            if other in self.pools or selectorless:
                draft.families.append(other)

    # -- requests --------------------------------------------------------------------------------------------------
    def take_requested(self, draft: _Draft) -> None:
        if draft.service.spec.type == "ExternalName":
            return
        if not draft.headless:
            for text in draft.addresses:
                self._take_address(draft, text)
        if draft.wants_node_ports:
            self._take_node_ports(draft)
        if draft.wants_check_port and draft.check_port:
            told = self._port_fault(draft.check_port, draft.stored)
            if told:
                text = f"failed to allocate requested HealthCheck NodePort {draft.check_port}: {told}"
                self._refuse(draft, "", f"Internal error occurred: {text}")
            self.ports.used.add(draft.check_port)

    def _take_address(self, draft: _Draft, text: str) -> None:
        family = _family_name(text)
        pool = self.pools.get(family)
        if pool is None:
            return  # told by families(), or a dump of a cluster with a family that the settings do not name
        number = int(ip(text))
        told = ""
        if number not in pool and not draft.stored:
            told = (
                f"the provided IP ({text}) is not in the valid range. The range of valid IPs is {self.ranges[family]}"
            )
        elif number in pool.used:
            told = "provided IP is already allocated"
        if told:
            field = f"Invalid value: {_go_list(draft.addresses)}: failed to allocate IP {text}: {told}"
            self._refuse(draft, "spec.clusterIPs", field)
        pool.used.add(number)

    def _take_node_ports(self, draft: _Draft) -> None:
        held: dict[int, int] = {}  # nodePort → the port number that has it in this Service
        for index, port in enumerate(draft.service.spec.ports):
            number = port.node_port
            if not number:
                continue
            if number in held and held[number] == port.port:
                continue  # 53/TCP and 53/UDP share
            told = self._port_fault(number, draft.stored and number not in held)
            if told:
                self._refuse(draft, f"spec.ports[{index}].nodePort", f"Invalid value: {number}: {told}")
            held[number] = port.port
            self.ports.used.add(number)

    def _port_fault(self, number: int, stored: bool) -> str:
        if number not in self.ports and not stored:
            low, high = self.port_range
            return f"provided port is not in the valid range. The range of valid ports is {low}-{high}"
        return "provided port is already allocated" if number in self.ports.used else ""

    # -- the rest --------------------------------------------------------------------------------------------------
    def give(self, draft: _Draft) -> None:
        spec = draft.service.spec
        if spec.type == "ExternalName":
            return
        seed = "/".join(draft.service.key)
        if not draft.headless:
            self._give_addresses(draft, seed)
        try:
            if draft.gets_node_ports and not all(draft.node_ports):
                self._give_node_ports(draft, spec.ports, seed)
                self.ported += 1
            if draft.wants_check_port and not draft.check_port:
                draft.check_port = self.ports.next(f"{seed} health")
                self.checked += 1
        except Full:
            self._refuse(draft, "", "Internal error occurred: failed to allocate a nodePort: range is full")

    def _give_addresses(self, draft: _Draft, seed: str) -> None:
        if draft.stored and draft.addresses:
            return
        have = {_family_name(text): text for text in draft.addresses}
        given = False
        for family in draft.families:
            if family in have:
                continue
            try:
                number = self.pools[family].next(seed)
            except Full:
                told = "Internal error occurred: failed to allocate a serviceIP: range is full"
                self._refuse(draft, "", told)
                return
            have[family] = str(_ADDRESS[family](number))
            given = True
        draft.addresses = [have[family] for family in draft.families]
        self.addressed += given

    def _give_node_ports(self, draft: _Draft, ports: Sequence[ServicePort], seed: str) -> None:
        shared: dict[int, list[tuple[str, int]]] = {}  # port → (protocol, nodePort) that this Service has for it
        for port, number in zip(ports, draft.node_ports):
            if number:
                shared.setdefault(port.port, []).append((port.protocol, number))
        for index, port in enumerate(ports):
            if draft.node_ports[index]:
                continue
            others = shared.setdefault(port.port, [])
            number = next((held for protocol, held in others if protocol != port.protocol), 0)
            if not number:
                number = self.ports.next(f"{seed}:{port.port}")
            others.append((port.protocol, number))
            draft.node_ports[index] = number

    def _refuse(self, draft: _Draft, field: str, text: str) -> None:
        self.problems.append(draft.problem(field, text))


def _family_name(text: str) -> str:
    return _FAMILY_NAMES[family_of(ip(text))]


def _go_list(texts: Sequence[str]) -> str:
    return "[]string{" + ", ".join(f'"{text}"' for text in texts) + "}"


_ADDRESS = {"IPv4": IPv4Address, "IPv6": IPv6Address}
