"""One family's kube-proxy in iptables mode, for all nodes at once: what they share of the Services as they are now.

Nothing here grows with nodes × Services. A service port looks different from node to node only if a Local policy, a
topology hint or two slices that disagree make it so; all others have one ``ServiceView`` for the whole cluster. Nodes with
equal views share the chains, and a Service's own chains are derived when somebody looks one up.

A proxier is a value: when Services change, ``updated`` gives another one, which takes over whatever they do not touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from netsim.kube.cluster import Cluster
from netsim.linux.netfilter.rule import Rule
from netsim.packet.address import Family
from netsim_backends.kube_proxy import names
from netsim_backends.kube_proxy.config import ProxyConfig
from netsim_backends.kube_proxy.endpoints import NO_ENDPOINTS, EndpointSet, collect
from netsim_backends.kube_proxy.iptables_fixed import DOCUMENT_CHAINS, first_lines, forward_lines, node_port_tail
from netsim_backends.kube_proxy.iptables_port import PortRules, Where
from netsim_backends.kube_proxy.iptables_rules import Dialect, ServiceView
from netsim_backends.kube_proxy.iptables_shared import Key, SharedChain
from netsim_backends.kube_proxy.local_traffic import NodePortAddresses, NodeView
from netsim_backends.kube_proxy.service_ports import ServicePort, service_ports

LARGE_CLUSTER_ENDPOINTS = 1000
SAME_NODE_HINTS_SINCE = (1, 34)

Service = tuple[str, str]  # namespace, name
K = TypeVar("K")
V = TypeVar("V")


class Proxier:
    """``ports``: the rules of each service port, in no order. ``specific``: those that nodes may see
    differently; ``ranged``: those whose firewall chain depends on the node's address; ``changed``: those that are not as in
    the generation before, gone ones included."""

    def __init__(self, cluster: Cluster, config: ProxyConfig, family: Family, nfacct: bool) -> None:
        self.config = config
        self.family = family
        self.nfacct = nfacct
        self.same_node_hints = cluster.settings.kubernetes_version >= SAME_NODE_HINTS_SINCE
        loopback = NodePortAddresses.read(config.node_port_addresses, family).covers_loopback
        self.localhost_node_ports = family is Family.IPV4 and config.localhost_node_ports and loopback
        self.ports: dict[Key, PortRules] = {}
        self.specific: dict[Key, PortRules] = {}
        self.ranged: dict[Key, PortRules] = {}
        self.changed: Set[Key] = set()
        self.endpoints = 0  # in all
        self.dialect = self._dialect()
        self._of_service: dict[Service, tuple[Key, ...]] = {}
        self._shared: dict[object, Mapping[Where, SharedChain]] = {}
        self._without_services: dict[object, Mapping[Where, SharedChain]] = {}
        # Whose chains they are follows from their names alone: what is noted once holds for all generations.
        self._owners: dict[str, Key] = {}
        self._all_noted = False
        self._take(cluster, cluster.services)

    def updated(self, cluster: Cluster, services: Iterable[Service]) -> Proxier:
        """The proxier of ``cluster``, in which only these Services (or their slices) differ. This one itself if nothing
        that matters does. InputError as for a new one."""
        new = object.__new__(Proxier)
        new.__dict__.update(self.__dict__)
        new._shared = {}
        return new if new._take(cluster, services) else self

    # -- what service ports there are --------------------------------------------------------------------------------------
    def _take(self, cluster: Cluster, services: Iterable[Service]) -> bool:
        """Read these Services anew; ``changed`` says which service ports are other ones now. False if none are."""
        read = {service: cluster.services.get(service) for service in services}
        found: dict[Key, tuple[ServicePort, EndpointSet]] = {}
        of_service: dict[Service, tuple[Key, ...]] = {}
        slices = {}
        for port in service_ports([held for held in read.values() if held is not None], self.family):
            service = port.namespace, port.service
            if service not in slices:
                slices[service] = collect(cluster.slices.get(service, ()), self.family)
            found[port.key] = port, slices[service].get(port.slice_port, NO_ENDPOINTS)
            of_service[service] = (*of_service.get(service, ()), port.key)
        gone = {key for service in read for key in self._of_service.get(service, ()) if key not in found}
        before = [self.ports[key] for service in read for key in self._of_service.get(service, ())]
        self.endpoints += sum(len(one.endpoints) for _, one in found.values())
        self.endpoints -= sum(len(one.found.endpoints) for one in before)
        self._of_service = _replaced(self._of_service, read, of_service)
        dialect = self._dialect()
        if dialect != self.dialect:
            self.dialect = dialect
            found = {key: (one.port, one.found) for key, one in self.ports.items() if key not in gone} | found
        changed: dict[Key, PortRules] = {}
        for key, (port, endpoints) in found.items():
            made = PortRules(port, endpoints, dialect, self.same_node_hints)
            old = self.ports.get(key)
            if old is None or made.take_over(old) is not old:
                changed[key] = made
        self.changed = gone | changed.keys()
        if not self.changed:
            return False
        self.ports = _replaced(self.ports, gone, changed)
        specific = {key: one for key, one in changed.items() if one.node_specific}
        self.specific = _replaced(self.specific, self.changed, specific)
        ranged = {key: one for key, one in changed.items() if one.ranged}
        self.ranged = _replaced(self.ranged, self.changed, ranged)
        for key, one in changed.items():
            self._owners[one.port.hash] = key
            if self._all_noted:
                self.note(one)
        return True

    def _dialect(self) -> Dialect:
        return Dialect(
            self.family,
            masquerade_all=self.config.masquerade_all,
            localhost_counter=self.localhost_node_ports and self.nfacct,
            endpoint_comments=self.endpoints <= LARGE_CLUSTER_ENDPOINTS,
        )

    # -- whose chain is it? ------------------------------------------------------------------------------------------------
    def owner(self, chain: str) -> Key | None:
        """The service port that a chain of this name would belong to.

        Whoever comes from a chain that jumps to an endpoint's finds it noted; only a name out of the blue makes us hash all
        endpoints.
        """
        if not chain.startswith(names.ENDPOINT):
            return self._owners.get(chain.rpartition("-")[2])
        owner = self._owners.get(chain)
        if owner is None and not self._all_noted:
            self.note_all()
            owner = self._owners.get(chain)
        return owner

    def note(self, one: PortRules) -> None:
        """Remember whose endpoint chains these are."""
        self._owners.update(dict.fromkeys(one.owners, one.port.key))

    def note_all(self) -> None:
        if not self._all_noted:
            self._all_noted = True
            for one in self.ports.values():
                self.note(one)

    # -- what groups of nodes share ----------------------------------------------------------------------------------------
    def shared(self, views: Mapping[Key, ServiceView], node: NodeView) -> Mapping[Where, SharedChain]:
        """The chains that all Services share, for the nodes that see ``views`` of ``specific``."""
        group = tuple(views.values()), node.node_port_ips
        found = self._shared.get(group)
        if found is None:
            rules = {key: one.front(one.common or views[key]) for key, one in self.ports.items()}
            found = self._shared[group] = _spliced(self._bare(node), rules)
        return found

    def splice(self, views: Mapping[Key, ServiceView], node: NodeView, before: Mapping[Where, SharedChain]) -> None:
        """Make what ``shared`` gives from that of the generation before."""
        group = tuple(views.values()), node.node_port_ips
        if group not in self._shared:
            held = {key: self.ports.get(key) for key in self.changed}
            rules = {key: {} if one is None else one.front(one.common or views[key]) for key, one in held.items()}
            self._shared[group] = _spliced(before, rules)

    def _bare(self, node: NodeView) -> Mapping[Where, SharedChain]:
        """The same without a single Service: one for all groups and generations, so that chains to which no Service adds a
        rule are the same objects in all."""
        found = self._without_services.get(node.node_port_ips)
        if found is None:
            found = self._without_services[node.node_port_ips] = self._fixed(node)
        return found

    def _fixed(self, node: NodeView) -> Mapping[Where, SharedChain]:
        before = first_lines(self.config, self.family)
        after = [
            *node_port_tail(node.node_port_ips, self.localhost_node_ports, self.family),
            *forward_lines(self.config, self.family, self.nfacct),
        ]
        fixed: list[dict[Where, list[Rule]]] = []
        for lines in (before, after):
            by_chain: dict[Where, list[Rule]] = {}
            for line in lines:
                by_chain.setdefault((line.table, line.chain), []).append(line.rule())
            fixed.append(by_chain)
        heads, tails = fixed
        return {
            (table, name): SharedChain(name, tuple(heads.get((table, name), ())), tuple(tails.get((table, name), ())))
            for table, chains in DOCUMENT_CHAINS
            for name in chains
        }


def _spliced(
    chains: Mapping[Where, SharedChain], rules: Mapping[Key, Mapping[Where, tuple[Rule, ...]]]
) -> Mapping[Where, SharedChain]:
    return {
        where: chain.spliced({key: held.get(where, ()) for key, held in rules.items() if chain.keys or where in held})
        for where, chain in chains.items()
    }


def _replaced(held: dict[K, V], gone: Iterable[K], fresh: Mapping[K, V]) -> dict[K, V]:
    """Without what is gone, with what is fresh; ``held`` itself if that changes nothing."""
    gone = [key for key in gone if key in held and key not in fresh]
    if not gone and all(held.get(key) == value for key, value in fresh.items()):
        return held
    made = held.copy()  # much quicker than to put the items into another dict one by one
    made.update(fresh)
    for key in gone:
        del made[key]
    return made
