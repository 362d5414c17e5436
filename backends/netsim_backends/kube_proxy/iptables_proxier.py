"""One family's kube-proxy in iptables mode, for all nodes at once: what they share, and what each sees of its own.

Nothing here grows with nodes × Services. A service port looks different from node to node only if a Local policy, a
topology hint or two slices that disagree make it so; all others have one ``ServiceView`` for the whole cluster. Nodes with
equal views share the chains, and a Service's own chains are derived when somebody looks one up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from netsim.kube.cluster import Cluster
from netsim.linux.netfilter.rule import Chain
from netsim.packet.address import Family, IPAddress
from netsim_backends.kube_proxy import names
from netsim_backends.kube_proxy.config import ProxyConfig
from netsim_backends.kube_proxy.endpoints import NO_ENDPOINTS, Endpoint, EndpointSet, Key, categorize, collect
from netsim_backends.kube_proxy.iptables_fixed import (
    DOCUMENT_CHAINS,
    FIREWALL_CHAIN,
    first_lines,
    forward_lines,
    martian_lines,
    node_port_tail,
)
from netsim_backends.kube_proxy.iptables_line import Line
from netsim_backends.kube_proxy.iptables_rules import (
    Dialect,
    ServiceView,
    balancing,
    endpoint_lines,
    external_lines,
    firewall_lines,
    front,
    internal_masquerade,
    own_lines,
)
from netsim_backends.kube_proxy.local_traffic import LocalDetector, NodePortAddresses, NodeView, node_view
from netsim_backends.kube_proxy.service_ports import ServicePort, service_ports

LARGE_CLUSTER_ENDPOINTS = 1000
SAME_NODE_HINTS_SINCE = (1, 34)
_OWN_PREFIXES = (names.SERVICE, names.LOCAL, names.EXTERNAL, names.FIREWALL)


@dataclass(frozen=True)
class Shared:
    """The chains that all Services share, as one group of nodes holds them: (table, chain) → chain."""

    chains: Mapping[tuple[str, str], Chain]


class Proxier:
    def __init__(self, cluster: Cluster, config: ProxyConfig, family: Family, nfacct: bool) -> None:
        self.cluster = cluster
        self.config = config
        self.family = family
        self.nfacct = nfacct
        self.ports: Sequence[ServicePort] = service_ports(cluster.services.values(), family)
        self._same_node_hints = cluster.settings.kubernetes_version >= SAME_NODE_HINTS_SINCE
        loopback = NodePortAddresses.read(config.node_port_addresses, family).covers_loopback
        self.localhost_node_ports = family is Family.IPV4 and config.localhost_node_ports and loopback
        self._views: list[dict[object, ServiceView]] = [{} for _ in self.ports]
        self._groups: dict[object, Shared] = {}
        self._chains: dict[object, Chain] = {}
        self._endpoint_chains: dict[str, Chain] = {}
        self._endpoint_owners: dict[str, tuple[int, Endpoint]] = {}
        self._all_owners_known = False

    @cached_property
    def endpoint_sets(self) -> Sequence[EndpointSet]:
        """The endpoints of each service port, in the order of ``ports``."""
        collected: dict[tuple[str, str], dict[Key, EndpointSet]] = {}
        found = []
        for port in self.ports:
            key = (port.namespace, port.service)
            if key not in collected:
                collected[key] = collect(self.cluster.slices.get(key, ()), self.family)
            found.append(collected[key].get(port.slice_port, NO_ENDPOINTS))
        return found

    @cached_property
    def dialect(self) -> Dialect:
        return Dialect(
            self.family,
            masquerade_all=self.config.masquerade_all,
            localhost_counter=self.localhost_node_ports and self.nfacct,
            endpoint_comments=sum(len(s.endpoints) for s in self.endpoint_sets) <= LARGE_CLUSTER_ENDPOINTS,
        )

    @cached_property
    def node_specific(self) -> Sequence[int]:
        """The service ports that nodes may see differently."""
        return [
            index
            for index, (port, found) in enumerate(zip(self.ports, self.endpoint_sets))
            if port.uses_local_endpoints or found.elsewhere or found.hinted
        ]

    @cached_property
    def ranged(self) -> Sequence[int]:
        """The service ports whose firewall chain depends on whether a node's own address is in their source ranges."""
        return [index for index, port in enumerate(self.ports) if port.load_balancer_ips and port.source_ranges]

    @cached_property
    def common_views(self) -> Sequence[ServiceView | None]:
        """The view of each service port that all nodes have in common; None where they may differ."""
        specific = set(self.node_specific)
        return [None if index in specific else self.view_from(index, "", "") for index in range(len(self.ports))]

    def view_from(self, index: int, node: str, zone: str) -> ServiceView:
        port = self.ports[index]
        choice = categorize(
            self.endpoint_sets[index].seen_from(node),
            node=node,
            zone=zone,
            uses_cluster=port.uses_cluster_endpoints,
            uses_local=port.uses_local_endpoints,
            same_node_hints=self._same_node_hints,
        )
        known = self._views[index]
        view = known.get(choice)
        if view is None:
            view = known[choice] = ServiceView(port, choice)
        return view

    def node(self, node: str, addresses: Iterable[IPAddress] = ()) -> NodeProxier:
        return NodeProxier(self, node_view(self.cluster, self.config, node, self.family, addresses))

    @cached_property
    def by_hash(self) -> Mapping[str, int]:
        return {port.hash: index for index, port in enumerate(self.ports)}

    def endpoint_chain_owner(self, name: str) -> tuple[int, Endpoint] | None:
        """The service port's index and the endpoint that the chain ``name`` stands for.

        Whoever comes from a chain that jumps there finds it noted; only a name out of the blue makes us hash all endpoints.
        """
        owner = self._endpoint_owners.get(name)
        if owner is None and not self._all_owners_known:
            self._all_owners_known = True
            for index in range(len(self.ports)):
                self._note_owners(index)
            owner = self._endpoint_owners.get(name)
        return owner

    def _note_owners(self, index: int) -> None:
        port = self.ports[index]
        for endpoint in self.endpoint_sets[index].endpoints:
            self._endpoint_owners[names.endpoint_chain(port.name, port.protocol, endpoint.name)] = (index, endpoint)

    def endpoint_chain(self, name: str, port: ServicePort, endpoint: Endpoint) -> Chain:
        chain = self._endpoint_chains.get(name)
        if chain is None:
            rules = tuple([line.rule() for line in endpoint_lines(port, self.dialect, endpoint)])
            chain = self._endpoint_chains[name] = Chain(name, rules)
        return chain

    def own_chain(self, view: ServiceView, name: str, detector: LocalDetector | None, node_in_ranges: bool) -> Chain:
        """A service port's EXT, FW, SVC or SVL chain."""
        key = (view, name, detector, node_in_ranges)
        chain = self._chains.get(key)
        if chain is None:
            if not self._all_owners_known:
                self._note_owners(self.by_hash[view.port.hash])
            chain = self._chains[key] = Chain(name, tuple([line.rule() for line in self._own_lines(*key)]))
        return chain

    def _own_lines(
        self, view: ServiceView, name: str, detector: LocalDetector | None, node_in_ranges: bool
    ) -> Iterator[Line]:
        if name == view.external_chain:
            return external_lines(view, self.dialect, detector)
        if name == view.firewall_chain:
            return firewall_lines(view, self.dialect, node_in_ranges)
        return self._policy_lines(view, name, detector)

    def _policy_lines(self, view: ServiceView, name: str, detector: LocalDetector | None) -> Iterator[Line]:
        if name == view.internal_policy_chain:
            yield from internal_masquerade(view, self.dialect, detector)
        endpoints = view.choice.cluster if name == view.cluster_chain else view.choice.local
        yield from balancing(view.port, self.dialect, name, endpoints)

    def shared(self, node: NodeProxier) -> Shared:
        """The chains that all Services share, for the group of nodes that see what ``node`` sees."""
        key = (tuple(node.overrides.values()), node.node.node_port_ips)
        group = self._groups.get(key)
        if group is None:
            rules: dict[tuple[str, str], list[Line]] = {
                (table, chain): [] for table, chains in DOCUMENT_CHAINS for chain in chains
            }
            for line in node.shared_lines():
                rules[line.table, line.chain].append(line)
            group = self._groups[key] = Shared(
                {
                    (table, name): Chain(name, tuple([line.rule() for line in lines]))
                    for (table, name), lines in rules.items()
                }
            )
        return group


class NodeProxier:
    """What one node's kube-proxy writes: as a restore document, and as chains on demand."""

    def __init__(self, proxier: Proxier, node: NodeView) -> None:
        self.proxier = proxier
        self.node = node
        self.overrides: dict[int, ServiceView] = {
            index: proxier.view_from(index, node.name, node.zone) for index in proxier.node_specific
        }

    def view(self, index: int) -> ServiceView:
        return self.proxier.common_views[index] or self.overrides[index]

    def views(self) -> Iterator[ServiceView]:
        for index, view in enumerate(self.proxier.common_views):
            yield view or self.overrides[index]

    def in_ranges(self, view: ServiceView) -> bool:
        return any(self.node.primary in network for network in view.port.source_ranges)

    @cached_property
    def sees(self) -> Hashable:
        """All that this node's chains depend on: nodes for which it is equal get every chain as the same object."""
        proxier, node = self.proxier, self.node
        inside = tuple([self.in_ranges(self.view(index)) for index in proxier.ranged])
        return proxier, tuple(self.overrides.values()), node.node_port_ips, node.detector, inside

    def own_chain_names(self) -> Iterator[str]:
        """The nat chains of the service ports, in the document's order."""
        seen: set[str] = set()
        for view in self.views():
            yield from view.own_chains()
            for endpoint in view.choice.reachable:
                name = names.endpoint_chain(view.port.name, view.port.protocol, endpoint.name)
                if name not in seen:
                    seen.add(name)
                    yield name

    def own_chain(self, name: str) -> Chain | None:
        """The nat chain ``name`` of some service port; None if this node has no such chain."""
        proxier = self.proxier
        if name.startswith(names.ENDPOINT):
            owner = proxier.endpoint_chain_owner(name)
            if owner is None:
                return None
            view = self.view(owner[0])
            if owner[1].name not in view.endpoint_names:
                return None
            return proxier.endpoint_chain(name, view.port, owner[1])
        prefix, _, digest = name.rpartition("-")
        index = proxier.by_hash.get(digest)
        if index is None or prefix + "-" not in _OWN_PREFIXES:
            return None
        view = self.view(index)
        if name not in view.own_chains():
            return None
        return proxier.own_chain(view, name, self.node.detector, self.in_ranges(view))

    def shared_lines(self) -> Iterator[Line]:
        """All rules outside the service ports' own chains and KUBE-FIREWALL, chain by chain in the document's order."""
        proxier = self.proxier
        yield from first_lines(proxier.config, proxier.family)
        for view in self.views():
            yield from front(view, proxier.dialect)
        yield from self._tail()
        yield from forward_lines(proxier.config, proxier.family, proxier.nfacct)

    def _tail(self) -> Iterator[Line]:
        return node_port_tail(self.node.node_port_ips, self.proxier.localhost_node_ports, self.proxier.family)

    def document(self) -> Iterator[str]:
        """The text fed to ``iptables-restore --noflush --counters`` by a full sync on an empty node."""
        proxier, dialect = self.proxier, self.proxier.dialect
        chains = dict(DOCUMENT_CHAINS)
        yield "*filter"
        yield from (f":{name} - [0:0]" for name in chains["filter"])
        if proxier.localhost_node_ports:
            yield f":{FIREWALL_CHAIN} - [0:0]"
            yield from (line.text for line in martian_lines(proxier.family))
        for view in self.views():
            yield from (line.text for line in front(view, dialect) if line.table == "filter")
        yield from (line.text for line in forward_lines(proxier.config, proxier.family, proxier.nfacct))
        yield "COMMIT"
        yield "*nat"
        yield from (f":{name} - [0:0]" for name in chains["nat"])
        yield from (f":{name} - [0:0]" for name in self.own_chain_names())
        yield from (line.text for line in first_lines(proxier.config, proxier.family))
        for view in self.views():
            yield from (line.text for line in front(view, dialect) if line.table == "nat")
            for line in own_lines(view, dialect, self.node.detector, self.in_ranges(view)):
                yield line.text
        yield from (line.text for line in self._tail())
        yield "COMMIT"


class LazyChains(Mapping[str, Chain]):
    """One table's kube-proxy chains on one node, derived on first look-up."""

    def __init__(self, table: str, node: NodeProxier) -> None:
        self._table = table
        self._node = node
        self._fixed = frozenset(dict(DOCUMENT_CHAINS)[table])

    @property
    def scope(self) -> Hashable:
        """Mappings whose scopes are equal hold the same chain objects under the same names."""
        return self._table, self._node.sees

    def __getitem__(self, name: str) -> Chain:
        if name in self._fixed:
            return self._node.proxier.shared(self._node).chains[self._table, name]
        chain = self._node.own_chain(name) if self._table == "nat" and name.startswith("KUBE-") else None
        if chain is None:
            raise KeyError(name)
        return chain

    def __contains__(self, name: object) -> bool:
        if name in self._fixed:
            return True
        return self._table == "nat" and isinstance(name, str) and self._node.own_chain(name) is not None

    def __iter__(self) -> Iterator[str]:
        yield from dict(DOCUMENT_CHAINS)[self._table]
        if self._table == "nat":
            yield from self._node.own_chain_names()

    def __len__(self) -> int:
        return sum(1 for _ in self)
