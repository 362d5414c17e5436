"""What one node's kube-proxy writes: as a restore document, and as chains on demand."""

from __future__ import annotations

from collections.abc import Hashable, ItemsView, Iterator, Mapping
from functools import cached_property

from netsim.linux.netfilter.rule import Chain, Rule, same_rules
from netsim_backends.kube_proxy import names
from netsim_backends.kube_proxy.iptables_fixed import (
    DOCUMENT_CHAINS,
    FIREWALL_CHAIN,
    first_lines,
    forward_lines,
    martian_lines,
    node_port_tail,
)
from netsim_backends.kube_proxy.iptables_port import PortRules, Where
from netsim_backends.kube_proxy.iptables_proxier import Proxier
from netsim_backends.kube_proxy.iptables_rules import ServiceView, front, own_lines
from netsim_backends.kube_proxy.iptables_shared import Key
from netsim_backends.kube_proxy.local_traffic import NodeView


class NodeProxier:
    """``views``: what this node sees of the service ports that nodes may see differently."""

    def __init__(self, proxier: Proxier, node: NodeView, views: Mapping[Key, ServiceView] | None = None) -> None:
        self.proxier = proxier
        self.node = node
        if views is None:
            views = {key: one.seen_from(node.name, node.zone) for key, one in proxier.specific.items()}
        self.views = views

    def view(self, key: Key) -> ServiceView:
        return self.proxier.ports[key].common or self.views[key]

    def all_views(self) -> Iterator[tuple[PortRules, ServiceView]]:
        """In the order of the document."""
        for key, one in sorted(self.proxier.ports.items()):
            yield one, one.common or self.views[key]

    def in_ranges(self, one: PortRules) -> bool:
        return any(self.node.primary in network for network in one.port.source_ranges)

    @cached_property
    def sees(self) -> Hashable:
        """All that this node's chains depend on: nodes for which it is equal get every chain as the same object."""
        node = self.node
        inside = tuple([self.in_ranges(one) for one in self.proxier.ranged.values()])
        return self.proxier, tuple(self.views.values()), node.node_port_ips, node.detector, inside

    # -- chains ----------------------------------------------------------------------------------------------------------
    def shared_chain(self, table: str, name: str) -> Chain:
        """One of ``DOCUMENT_CHAINS``."""
        return self.proxier.shared(self.views, self.node)[table, name].chain

    def own_chain(self, name: str) -> Chain | None:
        """The nat chain ``name`` of some service port; None if this node has no such chain."""
        key = self.proxier.owner(name)
        one = None if key is None else self.proxier.ports.get(key)
        if key is None or one is None:
            return None
        view = self.view(key)
        if name.startswith(names.ENDPOINT):
            return one.endpoint_chain(name, view)
        chain = one.own_chain(name, view, self.node.detector, self.in_ranges(one))
        if chain is not None:
            self.proxier.note(one)
        return chain

    def own_chains(self) -> dict[str, Chain]:
        """All of them, quicker than by their names, in no order."""
        found: dict[str, Chain] = {}
        for key, one in self.proxier.ports.items():
            view = one.common or self.views[key]
            inside = self.in_ranges(one)
            for name in view.own_chains():
                chain = one.own_chain(name, view, self.node.detector, inside)
                assert chain is not None
                found[name] = chain
            for chain in one.endpoint_chains(view):
                found[chain.name] = chain
        self.proxier.note_all()
        return found

    def own_chain_names(self) -> Iterator[str]:
        """The nat chains of the service ports, in the document's order."""
        seen: set[str] = set()
        for one, view in self.all_views():
            yield from view.own_chains()
            for name in self._endpoint_chains(one, view):
                if name not in seen:
                    seen.add(name)
                    yield name

    def _endpoint_chains(self, one: PortRules, view: ServiceView) -> Iterator[str]:
        name, protocol = one.port.key
        for endpoint in view.choice.reachable:
            yield names.endpoint_chain(name, protocol, endpoint.name)

    # -- generations -----------------------------------------------------------------------------------------------------
    def updated(self, proxier: Proxier, node: NodeView) -> NodeProxier:
        """``node``, which sees what this one sees, in the next generation."""
        views = {}
        for key, one in proxier.specific.items():
            known = None if key in proxier.changed else self.views.get(key)
            views[key] = known or one.seen_from(node.name, node.zone)
        new = NodeProxier(proxier, node, views)
        before = self.proxier.shared(self.views, self.node)
        for key in proxier.changed:
            if key in self.proxier.ports and key in proxier.ports:
                self._hand_over(key, new)
        proxier.splice(views, node, before)
        return new

    def _hand_over(self, key: Key, new: NodeProxier) -> None:
        """Let the rules of a service port that come out the same be the same objects."""
        mine, its = self.proxier.ports[key], new.proxier.ports[key]
        my_view, its_view = self.view(key), new.view(key)
        its.keep_front(its_view, _kept(mine.front(my_view), its.front(its_view)))
        for name in set(my_view.own_chains()) & set(its_view.own_chains()):
            held = mine.own_chain(name, my_view, self.node.detector, self.in_ranges(mine))
            made = its.own_chain(name, its_view, new.node.detector, new.in_ranges(its))
            if held is not None and made is not None and same_rules(held.rules, made.rules):
                its.keep(its_view, new.node.detector, new.in_ranges(its), held)

    def differing(self, new: NodeProxier) -> dict[str, set[str]]:
        """The names, by table, that mean other chains to ``new``, the same node in the next generation."""
        before, after = self.proxier.shared(self.views, self.node), new.proxier.shared(new.views, new.node)
        found: dict[str, set[str]] = {table: set() for table, _ in DOCUMENT_CHAINS}
        for (table, name), chain in after.items():
            old = before[table, name]
            if chain is not old and not same_rules(old.chain.rules, chain.chain.rules):
                found[table].add(name)
        for key in new.proxier.changed:
            for name in self._names_of(key) | new._names_of(key):
                if not self._alike(new, key, name):
                    found["nat"].add(name)
        return found

    def _alike(self, new: NodeProxier, key: Key, name: str) -> bool:
        """Does the name of a service port's own chain mean the same to ``new``? No endpoint's chain is derived for that."""
        old_one, new_one = self.proxier.ports.get(key), new.proxier.ports.get(key)
        if old_one is None or new_one is None or name not in self._names_of(key) & new._names_of(key):
            return False
        if name.startswith(names.ENDPOINT):
            return old_one.same_endpoint_chain(new_one, name)
        return self.own_chain(name) is new.own_chain(name)

    def _names_of(self, key: Key) -> set[str]:
        one = self.proxier.ports.get(key)
        if one is None:
            return set()
        view = self.view(key)
        return {*view.own_chains(), *self._endpoint_chains(one, view)}

    # -- text ------------------------------------------------------------------------------------------------------------
    def document(self) -> Iterator[str]:
        """The text fed to ``iptables-restore --noflush --counters`` by a full sync on an empty node."""
        proxier, dialect = self.proxier, self.proxier.dialect
        config, family = proxier.config, proxier.family
        chains = dict(DOCUMENT_CHAINS)
        yield "*filter"
        yield from (f":{name} - [0:0]" for name in chains["filter"])
        if proxier.localhost_node_ports:
            yield f":{FIREWALL_CHAIN} - [0:0]"
            yield from (line.text for line in martian_lines(family))
        for _, view in self.all_views():
            yield from (line.text for line in front(view, dialect) if line.table == "filter")
        yield from (line.text for line in forward_lines(config, family, proxier.nfacct))
        yield "COMMIT"
        yield "*nat"
        yield from (f":{name} - [0:0]" for name in chains["nat"])
        yield from (f":{name} - [0:0]" for name in self.own_chain_names())
        yield from (line.text for line in first_lines(config, family))
        for one, view in self.all_views():
            yield from (line.text for line in front(view, dialect) if line.table == "nat")
            for line in own_lines(view, dialect, self.node.detector, self.in_ranges(one)):
                yield line.text
        tail = node_port_tail(self.node.node_port_ips, proxier.localhost_node_ports, family)
        yield from (line.text for line in tail)
        yield "COMMIT"


def _kept(
    old: Mapping[Where, tuple[Rule, ...]], new: Mapping[Where, tuple[Rule, ...]]
) -> Mapping[Where, tuple[Rule, ...]]:
    return {
        where: old[where] if where in old and same_rules(old[where], rules) else rules for where, rules in new.items()
    }


class LazyChains(Mapping[str, Chain]):
    """One table's kube-proxy chains on one node, derived on first look-up."""

    def __init__(self, table: str, node: NodeProxier) -> None:
        self.table = table
        self.node = node
        self._fixed = frozenset(dict(DOCUMENT_CHAINS)[table])

    @property
    def scope(self) -> Hashable:
        """Mappings whose scopes are equal hold the same chain objects under the same names."""
        return self.table, self.node.sees

    def __getitem__(self, name: str) -> Chain:
        if name in self._fixed:
            return self.node.shared_chain(self.table, name)
        chain = self.node.own_chain(name) if self.table == "nat" and name.startswith("KUBE-") else None
        if chain is None:
            raise KeyError(name)
        return chain

    def __contains__(self, name: object) -> bool:
        if name in self._fixed:
            return True
        return self.table == "nat" and isinstance(name, str) and self.node.own_chain(name) is not None

    def items(self) -> ItemsView[str, Chain]:
        return _Items(self)

    def __iter__(self) -> Iterator[str]:
        yield from dict(DOCUMENT_CHAINS)[self.table]
        if self.table == "nat":
            yield from self.node.own_chain_names()

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Items(ItemsView[str, Chain]):
    """What walks over all chains need not look each one up by its name."""

    _mapping: LazyChains

    def __iter__(self) -> Iterator[tuple[str, Chain]]:
        chains = self._mapping
        for name in dict(DOCUMENT_CHAINS)[chains.table]:
            yield name, chains[name]
        if chains.table == "nat":
            yield from chains.node.own_chains().items()
