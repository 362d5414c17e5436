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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import xor
from typing import Any

from netsim.packet.address import Family, family_of
from netsim_policies.algebra import AddressSet, Range
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
    requirements,
)

Word = tuple[str, ...]  # (key, value) that some selector names; (key,) where one asks for the key alone
Names = tuple[tuple[tuple[str, str], int], ...]  # named ports: ((name, protocol), number)
Prints = tuple[int, ...]
LabelKey = tuple[Any, ...]  # what it is, namespace, visible words, named ports, prints of several addresses
IN_NO_BLOCK = 0


@dataclass
class Words:
    """The words of some policies: of selectors of pods and of nodes, port names, blocks with the mark of each."""

    pods: set[Word] = field(default_factory=set)
    nodes: set[Word] = field(default_factory=set)
    ports: set[str] = field(default_factory=set)
    blocks: dict[tuple[Range, ...], int] = field(default_factory=dict)
    domains: bool = False


class Vocabulary:
    """The words of all policies so far, for addresses of one family. It only grows: a word that no policy uses any more
    keeps endpoints apart that could be one class, and changes no answer."""

    def __init__(self, policies: Iterable[Policy], family: Family) -> None:
        self.family = family
        self.known = Words()
        self.borders: list[int] = []
        self.prints: list[int] = [IN_NO_BLOCK]  # of the piece before each border, and of the last
        self._changes: dict[int, int] = {}  # by border: the marks of the blocks that begin or end there
        self.learn(policies)

    def learn(self, policies: Iterable[Policy]) -> Words:
        """Take in the words of ``policies``; those that were new."""
        said = Words()
        blocks: set[tuple[Range, ...]] = set()
        for policy in policies:
            for scope in scopes(policy):
                said.pods.update(words(scope.pods))
            for peer in peers(policy):
                if isinstance(peer, NodePeer):
                    said.nodes.update(words(peer.nodes))
                elif isinstance(peer, AddressPeer):
                    blocks.add(self.ranges(peer.addresses))
                elif isinstance(peer, DomainPeer):
                    said.domains = True
            said.ports.update(port.name for r in rules(policy) for port in r.ports or () if isinstance(port, NamedPort))
        known = self.known
        new = Words(
            said.pods - known.pods,
            said.nodes - known.nodes,
            said.ports - known.ports,
            {ranges: _mark(ranges) for ranges in blocks if ranges and ranges not in known.blocks},
            said.domains and not known.domains,
        )
        known.pods |= new.pods
        known.nodes |= new.nodes
        known.ports |= new.ports
        known.domains |= new.domains
        if new.blocks:
            known.blocks |= new.blocks
            self._draw_borders(new.blocks)
        return new

    def _draw_borders(self, blocks: Mapping[tuple[Range, ...], int]) -> None:
        """A piece's print is the exclusive or of the marks of the blocks that hold it."""
        changes = self._changes
        for ranges, mark in blocks.items():
            for low, high in ranges:
                changes[low] = changes.get(low, 0) ^ mark
                changes[high + 1] = changes.get(high + 1, 0) ^ mark
        self.borders = sorted(changes)
        self.prints = [*accumulate((changes[border] for border in self.borders), xor, initial=IN_NO_BLOCK)]

    def ranges(self, addresses: AddressSet) -> tuple[Range, ...]:
        return addresses.v4 if self.family is Family.IPV4 else addresses.v6

    def print_of(self, value: int) -> int:
        """Equal for addresses that the same blocks hold."""
        return self.prints[bisect_right(self.borders, value)]

    @staticmethod
    def visible(known: set[Word], labels: Mapping[str, str]) -> tuple[Word, ...]:
        """The words of selectors that hold for ``labels``."""
        seen: list[Word] = [pair for pair in labels.items() if pair in known]
        seen += [(key,) for key in labels if (key,) in known]
        if len(seen) > 1:
            seen.sort()
        return tuple(seen)

    def own(self, endpoint: Endpoint) -> list[int]:
        """The addresses of this family that are the endpoint's own: none for the outside."""
        return [int(a) for a in endpoint.addresses if family_of(a) is self.family]

    def addresses(self, endpoint: Endpoint) -> list[int]:
        """The endpoint's addresses of this family; of a part of the outside its first.

        Raises ValueError when a block cuts through that part: the answer would differ within it.
        """
        if endpoint.outside is None:
            if len(endpoint.addresses) == 1:  # nearly all
                (address,) = endpoint.addresses
                return [int(address)] if address.version == self.family.value else []
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

    def marks(self, addresses: Sequence[int]) -> tuple[int, Prints]:
        """The print of an endpoint's address, and nothing; or, where its addresses are in several sets of blocks, no block,
        and the prints of these sets."""
        if len(addresses) == 1:
            return self.prints[bisect_right(self.borders, addresses[0])], ()
        held = {self.print_of(value) for value in addresses} - {IN_NO_BLOCK}
        if len(held) > 1:
            return IN_NO_BLOCK, tuple(sorted(held))
        return next(iter(held), IN_NO_BLOCK), ()

    def key(self, endpoint: Endpoint, several: Prints) -> LabelKey:
        """What selectors see of an endpoint; with the prints of its addresses, if it has several."""
        if endpoint.kind is EndpointKind.POD and not endpoint.host_network:
            names = self.port_names(endpoint) if endpoint.named_ports else ()
            return "pod", endpoint.namespace, self.visible(self.known.pods, endpoint.labels), names, several
        if endpoint.outside is not None:
            return "outside", endpoint.name if self.known.domains else "", (), (), ()
        return "node", endpoint.kind.value, self.visible(self.known.nodes, endpoint.node_labels), (), several

    def port_names(self, endpoint: Endpoint) -> Names:
        return tuple(sorted((k, v) for k, v in endpoint.named_ports.items() if k[0] in self.known.ports))


def words(selector: Selector) -> Iterator[Word]:
    for key, operator, values in requirements(selector):
        if operator in ("In", "NotIn"):
            for value in values:
                yield key, value
        else:
            yield (key,)


def _mark(ranges: tuple[Range, ...]) -> int:
    """128 bits that stand for a block."""
    return int.from_bytes(hashlib.blake2b(repr(ranges).encode(), digest_size=16).digest(), "big")


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
