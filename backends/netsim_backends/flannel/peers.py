"""What a node gets of the other nodes' leases: made once for all nodes that see them alike.

Every node has a route (with vxlan also a neighbour and a forwarding entry) for each of its peers: the same objects on all
nodes but for its own, which it leaves out. Where it matters who is on-link (host-gw, DirectRouting), each segment's nodes
have runs of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from netsim.linux.builder import NamespaceBuilder
from netsim.linux.route import FdbEntry, Neighbour, Route
from netsim.linux.shared import Run, SharedSequence
from netsim.packet.address import Family, IPAddress, IPNetwork
from netsim_backends.flannel.config import FlannelConfig
from netsim_backends.flannel.lease import Lease, vtep_name

IPIP_DEVICE = "flannel.ipip"


@dataclass(frozen=True)
class Runs:
    """``places``: node → its places in ``routes`` and in ``neighbours`` and ``fdb``, one or none."""

    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...]
    fdb: tuple[FdbEntry, ...]
    places: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def write(self, node: str, builder: NamespaceBuilder) -> None:
        """Everything but the node's own."""
        route, tunnel = self.places.get(node, ((), ()))
        builder.routes.share(self.routes, route)
        builder.neighbours.share(self.neighbours, tunnel)
        builder.fdb.share(self.fdb, tunnel)


class Peers:
    """``leases`` are those that nodes see; ``device`` is everybody's external interface; ``segment_at`` tells on whose L2
    segment an address is (None: nobody has it, packets go to the router)."""

    def __init__(
        self,
        config: FlannelConfig,
        leases: Sequence[Lease],
        device: str,
        segment_at: Callable[[IPAddress], str | None],
    ) -> None:
        self.config = config
        self.device = device
        self._leases = leases
        self._segment_at = segment_at
        self.runs = cache(self._runs)
        self._of = cache(self._leases_of)
        self._table = cache(self._lease_table)

    def write(self, node: str, segment: str, family: Family, builder: NamespaceBuilder) -> None:
        """Into the namespace of a node on ``segment``."""
        self.runs(family, self._group(node, segment, family)).write(node, builder)

    def table(self, node: str, family: Family) -> Sequence[tuple[IPNetwork, IPAddress]]:
        """flanneld's lease table on ``node``, for udp: (subnet, public address)."""
        table, places = self._table(family)
        return SharedSequence([Run(table, places.get(node, ()))])

    def _group(self, node: str, segment: str, family: Family) -> str | None:
        """The segment, where one changes anything: with nobody else on it a node's peers are all behind the router."""
        config = self.config
        if config.mode != "host-gw" and not config.direct_routing:
            return None
        near = self._of(family)[1].get(segment, ())
        return segment if any(lease.node != node for lease in near) else None

    def _leases_of(self, family: Family) -> tuple[Sequence[Lease], Mapping[str, Sequence[Lease]]]:
        """All of a family, and those of them on each segment."""
        held = [lease for lease in self._leases if family in lease.subnets]
        near: dict[str, list[Lease]] = {}
        for lease in held:
            segment = self._segment_at(lease.public[family])
            if segment is not None:
                near.setdefault(segment, []).append(lease)
        return held, near

    def _lease_table(
        self, family: Family
    ) -> tuple[tuple[tuple[IPNetwork, IPAddress], ...], Mapping[str, tuple[int, ...]]]:
        held = self._of(family)[0]
        table = tuple((lease.subnets[family], lease.public[family]) for lease in held)
        return table, {lease.node: (place,) for place, lease in enumerate(held)}

    def _runs(self, family: Family, segment: str | None) -> Runs:
        """As the nodes of ``segment`` see their peers; None: as one sees them that is alone on its segment."""
        held, near = self._of(family)
        on_link = near.get(segment, ()) if segment is not None else ()
        if self.config.mode == "host-gw":
            # The kernel refuses a gateway that is not on-link; flanneld logs that and goes on without the route.
            return _collect((lease.node, self._direct(lease, family), None) for lease in on_link)
        direct = {lease.node for lease in on_link}
        write = self._vxlan if self.config.mode == "vxlan" else self._ipip
        return _collect((lease.node, *write(lease, family, lease.node in direct)) for lease in held)

    def _direct(self, peer: Lease, family: Family) -> Route:
        return _route(peer, family, peer.public[family], self.device)

    def _vxlan(self, peer: Lease, family: Family, direct: bool) -> tuple[Route, tuple[Neighbour, FdbEntry] | None]:
        if direct:
            return self._direct(peer, family), None
        device, why = vtep_name(self.config.vni, family), peer.provenance
        vtep, mac = peer.subnets[family].network_address, peer.macs[family]
        tunnel = (
            Neighbour(vtep, device, mac, provenance=why),
            FdbEntry(mac, device, peer.public[family], provenance=why),
        )
        return _route(peer, family, vtep, device, onlink=True), tunnel

    def _ipip(self, peer: Lease, family: Family, direct: bool) -> tuple[Route, None]:
        device = self.device if direct else IPIP_DEVICE
        return _route(peer, family, peer.public[family], device, onlink=True), None


def _route(peer: Lease, family: Family, gateway: IPAddress, device: str, onlink: bool = False) -> Route:
    return Route(
        peer.subnets[family],
        gateway=gateway,
        device=device,
        protocol="boot",
        onlink=onlink,
        provenance=peer.provenance,
    )


def _collect(made: Iterable[tuple[str, Route, tuple[Neighbour, FdbEntry] | None]]) -> Runs:
    routes: list[Route] = []
    neighbours: list[Neighbour] = []
    fdb: list[FdbEntry] = []
    places: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for node, route, tunnel in made:
        places[node] = (len(routes),), (len(fdb),) if tunnel is not None else ()
        routes.append(route)
        if tunnel is not None:
            neighbours.append(tunnel[0])
            fdb.append(tunnel[1])
    return Runs(tuple(routes), tuple(neighbours), tuple(fdb), places)
