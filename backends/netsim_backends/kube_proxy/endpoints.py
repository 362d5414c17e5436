"""The endpoints of a service port, and which of them a node may use (kubernetes pkg/proxy/topology.go, 1.33 to 1.35).

All proxy modes share this. Endpoints come from EndpointSlices alone; whether their pods run is not kube-proxy's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from netsim.errors import InputError, Problem, Source
from netsim.kube.objects import EndpointSlice
from netsim.packet.address import Family, endpoint
from netsim_backends.kube_proxy.addresses import canonical_ip

Key = tuple[str, str]  # port name, protocol in lower case
_NO_HINTS: frozenset[str] = frozenset()


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One address and port behind a service port. ``name`` is ``ip:port``, ``node`` "" when the slice states none."""

    name: str
    ip: str
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: frozenset[str] = _NO_HINTS
    node_hints: frozenset[str] = _NO_HINTS
    source: Source | None = None

    @property
    def draining(self) -> bool:
        """On its way out but still answering: used when nothing better is left."""
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """A service port's endpoints, sorted by ``ip:port`` as text, which is the order of all rules made from them.

    If several slices list one ``ip:port``, the first slice by name is believed, except on a node of which a later one says
    that the endpoint runs there: ``elsewhere`` has those, by (node, ``ip:port``).
    """

    endpoints: tuple[Endpoint, ...] = ()
    elsewhere: Mapping[tuple[str, str], Endpoint] = field(default_factory=dict)

    def seen_from(self, node: str) -> tuple[Endpoint, ...]:
        if not self.elsewhere:
            return self.endpoints
        return tuple(self.elsewhere.get((node, e.name), e) for e in self.endpoints)

    @property
    def hinted(self) -> bool:
        return any(e.zone_hints or e.node_hints for e in (*self.endpoints, *self.elsewhere.values()))


NO_ENDPOINTS = EndpointSet()


def _hint_names(hints: Mapping[str, Any], key: str) -> frozenset[str]:
    entries = hints.get(key)
    return frozenset(entry.get("name", "") for entry in entries) if entries else _NO_HINTS


def collect(slices: Iterable[EndpointSlice], family: Family) -> dict[Key, EndpointSet]:
    """All endpoints of one Service in ``family``, by the (name, protocol) that connects them to a service port."""
    wanted = "IPv4" if family is Family.IPV4 else "IPv6"
    first: dict[Key, dict[str, Endpoint]] = {}
    elsewhere: dict[Key, dict[tuple[str, str], Endpoint]] = {}
    for item in sorted((s for s in slices if s.address_type == wanted), key=lambda s: s.name):
        keys = [((p.name or "", (p.protocol or "TCP").lower()), p.port) for p in item.ports or () if p.port is not None]
        ports = [(key, port, first.setdefault(key, {})) for key, port in keys]
        for index, entry in enumerate(item.endpoints):
            if not entry.addresses:
                continue
            try:
                ip = canonical_ip(entry.addresses[0])
            except ValueError:
                raise InputError([_bad_address(item, index, entry.addresses[0])]) from None
            state, node, zones, nodes = entry.conditions, entry.node_name or "", _NO_HINTS, _NO_HINTS
            if entry.hints:
                zones, nodes = _hint_names(entry.hints, "forZones"), _hint_names(entry.hints, "forNodes")
            ready, serving, terminating = (
                state.ready is not False,
                state.serving is not False,
                state.terminating is True,
            )
            for key, port, found in ports:
                name = endpoint(ip, port)
                made = Endpoint(name, ip, port, node, ready, serving, terminating, zones, nodes, item.source)
                if found.setdefault(name, made) is not made and node:
                    elsewhere.setdefault(key, {})[node, name] = made
    return {
        key: EndpointSet(tuple(found[name] for name in sorted(found)), elsewhere.get(key, {}))
        for key, found in first.items()
        if found
    }


def _bad_address(item: EndpointSlice, index: int, text: str) -> Problem:
    return Problem(
        f"Invalid value: {text!r}: must be a valid IP address",
        source=item.source,
        object=f'EndpointSlice "{item.namespace}/{item.name}"',
        field=f"endpoints[{index}].addresses[0]",
    )


class Choice(NamedTuple):
    """What one node makes of a service port's endpoints.

    ``cluster`` serves Cluster-policy traffic, ``local`` Local-policy traffic, ``reachable`` is the union. ``any`` tells
    whether some endpoint exists in the cluster at all: with none, traffic is rejected; with none *here*, dropped.
    """

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    reachable: tuple[Endpoint, ...]
    any: bool


def categorize(
    endpoints: Sequence[Endpoint],
    *,
    node: str,
    zone: str,
    uses_cluster: bool,
    uses_local: bool,
    same_node_hints: bool = True,
) -> Choice:
    """Choose endpoints for ``node`` in ``zone``. ``same_node_hints``: ``hints.forNodes`` count (on from 1.34)."""
    cluster: tuple[Endpoint, ...] = ()
    topology = False
    if uses_cluster:
        ready = tuple(e for e in endpoints if e.ready)
        cluster = ready
        if same_node_hints and _all_hinted([e.node_hints for e in ready], node):
            cluster, topology = tuple(e for e in ready if node in e.node_hints), True
        elif _all_hinted([e.zone_hints for e in ready], zone):
            cluster, topology = tuple(e for e in ready if zone in e.zone_hints), True
        if not cluster:
            cluster = tuple(e for e in endpoints if e.draining)
    if not uses_local:
        return Choice(cluster, (), cluster, bool(cluster))

    exists = any(e.ready or e.draining for e in endpoints)
    here = [e for e in endpoints if e.node and e.node == node]
    local = tuple(e for e in here if e.ready)
    fallback = not local
    if fallback:
        local = tuple(e for e in here if e.draining)
    if not uses_cluster:
        return Choice((), local, local, exists)
    if not topology and not fallback:
        return Choice(cluster, local, cluster, exists)
    union = {e.name: e for e in (*cluster, *local)}
    return Choice(cluster, local, tuple(union[name] for name in sorted(union)), exists)


def _all_hinted(hints: Sequence[frozenset[str]], name: str) -> bool:
    """Hints count only if every endpoint has one, and one of them is for us."""
    return bool(name) and bool(hints) and all(hints) and any(name in hint for hint in hints)
