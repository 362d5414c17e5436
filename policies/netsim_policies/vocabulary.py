"""What a set of policies can ask about an endpoint: the rest of it is invisible to them.

A policy sees a pod through its namespace, the labels that some selector names, its named ports (where some rule names
one), and the blocks that hold its addresses. ``Vocabulary.key`` is that view: equal for two endpoints exactly when no
question can tell them apart. It has two parts, because what a rule asks of labels and what it asks of addresses combine
freely: (what selectors see, which blocks hold the address).

    borders of all blocks   ──┬────────┬──┬─────────┬──
    pieces between them        │   1    │ 2│    1    │       equal print = held by the same blocks, however far apart
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netsim.packet.address import Family, family_of
from netsim_policies.algebra import AddressSet, Range
from netsim_policies.evaluate import requirements
from netsim_policies.model import (
    AddressPeer,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NamedPort,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    Rule,
    Scope,
    Selector,
)

LabelKey = tuple[Any, ...]  # what it is, namespace, visible labels, named ports, prints of several addresses
Key = tuple[LabelKey, int]
Values = dict[str, set[str]]
IN_NO_BLOCK = 0


@dataclass
class Words:
    """The words of some policies: label keys with the values they name, port names, blocks. ``keys``: the keys among
    ``pods`` that are new as such."""

    keys: set[str] = field(default_factory=set)
    pods: Values = field(default_factory=dict)
    nodes: Values = field(default_factory=dict)
    ports: set[str] = field(default_factory=set)
    blocks: set[tuple[Range, ...]] = field(default_factory=set)
    domains: bool = False

    def __bool__(self) -> bool:
        return bool(self.pods or self.nodes or self.ports or self.blocks or self.domains)


class Vocabulary:
    """The words of all policies so far, for addresses of one family. It only grows: a word that no policy uses any more
    keeps endpoints apart that could be one class, and changes no answer."""

    def __init__(self, policies: Iterable[Policy], family: Family) -> None:
        self.family = family
        self.known = Words()
        self.borders: list[int] = []
        self.prints: list[int] = [IN_NO_BLOCK]  # of the piece before each border, and of the last
        self.learn(policies)

    def learn(self, policies: Iterable[Policy]) -> Words:
        """Take in the words of ``policies``; those that were new."""
        new = Words()
        for policy in policies:
            for scope in scopes(policy):
                self._labels(scope.pods, self.known.pods, new.pods)
            for peer in peers(policy):
                if isinstance(peer, NodePeer):
                    self._labels(peer.nodes, self.known.nodes, new.nodes)
                elif isinstance(peer, AddressPeer):
                    new.blocks.add(self.ranges(peer.addresses))
                elif isinstance(peer, DomainPeer) and not self.known.domains:
                    self.known.domains = new.domains = True
            new.ports |= {
                port.name for rule in rules(policy) for port in rule.ports or () if isinstance(port, NamedPort)
            }
        new.keys = new.pods.keys() - self.known.keys
        self.known.keys |= new.keys
        new.ports -= self.known.ports
        new.blocks -= self.known.blocks | {()}
        self.known.ports |= new.ports
        if new.blocks:
            self.known.blocks |= new.blocks
            self._draw_borders()
        return new

    @staticmethod
    def _labels(selector: Selector, known: Values, new: Values) -> None:
        for key, _, values in requirements(selector):
            if key not in known:
                known[key] = set()
                new[key] = set()
            for value in values:
                if value not in known[key]:
                    known[key].add(value)
                    new.setdefault(key, set()).add(value)

    def _draw_borders(self) -> None:
        """A piece's print is the exclusive or of 128-bit digests of the blocks that hold it."""
        changes: dict[int, int] = {}
        for ranges in self.known.blocks:
            mark = int.from_bytes(hashlib.blake2b(repr(ranges).encode(), digest_size=16).digest(), "big")
            for low, high in ranges:
                changes[low] = changes.get(low, 0) ^ mark
                changes[high + 1] = changes.get(high + 1, 0) ^ mark
        self.borders = sorted(changes)
        inside = IN_NO_BLOCK
        self.prints = [inside]
        for border in self.borders:
            inside ^= changes[border]
            self.prints.append(inside)

    def ranges(self, addresses: AddressSet) -> tuple[Range, ...]:
        return addresses.v4 if self.family is Family.IPV4 else addresses.v6

    def print_of(self, value: int) -> int:
        """Equal for addresses that the same blocks hold."""
        return self.prints[bisect_right(self.borders, value)]

    @staticmethod
    def visible(known: Values, labels: Mapping[str, str]) -> tuple[tuple[str, str | None], ...]:
        """The part of ``labels`` that a selector can see; a value that none names is as good as any other (None)."""
        seen = [(key, value if value in known[key] else None) for key, value in labels.items() if key in known]
        if len(seen) > 1:
            seen.sort()  # by key: no two are equal
        return tuple(seen)

    def own(self, endpoint: Endpoint | None) -> list[int]:
        """The addresses of this family that are the endpoint's own: none for the outside."""
        return [int(a) for a in endpoint.addresses if family_of(a) is self.family] if endpoint is not None else []

    def addresses(self, endpoint: Endpoint) -> list[int]:
        """The endpoint's addresses of this family; of a part of the outside its first.

        Raises ValueError when a block cuts through that part: the answer would differ within it.
        """
        if endpoint.outside is None:
            return self.own(endpoint)
        parts = self.ranges(endpoint.outside)
        held: set[int] = set()
        for low, high in parts:
            held.update(self.prints[bisect_right(self.borders, low) : bisect_right(self.borders, high) + 1])
        if len(held) > 1:
            raise ValueError(f"{endpoint.name} is only partly inside some block; split it first")
        return [parts[0][0]] if parts else []

    def address(self, endpoint: Endpoint, mark: int) -> int | None:
        """The endpoint's address that the blocks of this print hold; None if no block does."""
        if mark == IN_NO_BLOCK:
            return None
        return next(value for value in self.addresses(endpoint) if self.print_of(value) == mark)

    def key(self, endpoint: Endpoint) -> Key:
        """(what selectors see, the print of the address). An endpoint with addresses in several sets of blocks carries
        them in the first part, and is in no block by the second."""
        addresses = endpoint.addresses
        if len(addresses) == 1 and endpoint.outside is None:  # nearly all
            (address,) = addresses
            mine = address.version == self.family.value
            held = [self.prints[bisect_right(self.borders, int(address))]] if mine else []
        else:
            held = [self.print_of(value) for value in self.addresses(endpoint)]
        several: tuple[int, ...] = ()
        if len(held) > 1:
            several = tuple(sorted({p for p in held if p != IN_NO_BLOCK}))
            if len(several) < 2:
                held, several = [*several], ()
        mark = held[0] if held and not several else IN_NO_BLOCK
        if endpoint.kind is EndpointKind.POD and not endpoint.host_network:
            names = self.port_names(endpoint) if endpoint.named_ports else ()
            return ("pod", endpoint.namespace, self.visible(self.known.pods, endpoint.labels), names, several), mark
        if endpoint.outside is not None:
            return ("outside", endpoint.name if self.known.domains else "", (), (), ()), mark
        return ("node", endpoint.kind.value, self.visible(self.known.nodes, endpoint.node_labels), (), several), mark

    def port_names(self, endpoint: Endpoint) -> tuple[tuple[tuple[str, str], int], ...]:
        return tuple(sorted((k, v) for k, v in endpoint.named_ports.items() if k[0] in self.known.ports))


def rules(policy: Policy) -> Iterator[Rule]:
    yield from policy.ingress
    yield from policy.egress


def peers(policy: Policy) -> Iterator[Peer]:
    for rule in rules(policy):
        yield from rule.peers or ()


def scopes(policy: Policy) -> Iterator[Scope]:
    yield policy.subject
    for peer in peers(policy):
        if isinstance(peer, PodPeer):
            yield peer.scope
