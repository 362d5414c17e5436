"""Chains that are alike but for one address and one translation, compiled together.

Each endpoint of each Service has a chain of two rules: hairpin traffic, whose source is the endpoint, is marked, and all is
translated to it. The first of them is compiled as any chain is; the words of the others are its own, with another address
and another row of ``nats``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from netsim.compiled import programs as p
from netsim.compiled import registers as r
from netsim.compiled.lowered import Lowering, Pools, encoded
from netsim.linux.netfilter.base import Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.target.dnat import Dnat

FEW = 16  # chains for which it is not worth the effort
_LEFT_OPEN = ("source", "target", "counters", "provenance")
_frame = attrgetter(*[name for name in Rule.__struct_fields__ if name not in _LEFT_OPEN])


class Filled(NamedTuple):
    """Chains in the order of their rules' numbers, two each, and their addresses."""

    chains: list[Chain]
    addresses: list[int]


def alike(chains: Iterable[Chain], known: Mapping[str, Any]) -> list[list[Chain]]:
    """Chains that differ in the source of their first rule and the translation of their second alone, ``FEW`` or more of
    each kind; none whose name is ``known``."""
    found: defaultdict[Any, list[Chain]] = defaultdict(list)
    for chain in chains:
        rules = chain.rules
        if len(rules) == 2 and type(rules[1].target) is Dnat and chain.name not in known:
            one, other = rules
            if one.source is not None and one.target is None and other.source is None:
                found[_frame(one), _frame(other), one.source.prefixlen, chain.policy].append(chain)
    return [some for some in found.values() if len(some) >= FEW]


def fill(chains: list[Chain], lowering: Lowering, pools: Pools, first: int) -> Filled | None:
    """Words for chains of one kind. ``first``: the number of their first rule. None if they cannot be filled in."""
    marks, translates = map(lowering.rule, chains[0].rules)
    at = [place for place, code in enumerate(marks.codes) if code[:4] == (p.EQUAL, r.SRC, 0, 0)]
    own = encoded(marks.codes)
    if len(at) != 1 or marks.varies or translates.varies or p.HEADER + len(own) + 2 * p.RULE > p.LINE:
        return None
    shared = pools.lists.get(translates.codes)
    if shared is None:
        shared = pools.lists[translates.codes] = pools.code.add(encoded(translates.codes))
    count = len(chains)
    begin = pools.code.aligned(p.LINE)
    addresses = begin + p.LINE * np.arange(count)
    block: Any = np.zeros((count, p.LINE), np.uint32)
    block[:, 0] = 2 | (p.POLICY_DROP if chains[0].policy is Verdict.DROP else 0)
    block[:, 1] = first + 2 * np.arange(count)
    block[:, 2] = addresses + p.HEADER + len(own)
    block[:, p.HEADER : p.HEADER + len(own)] = own
    block[:, p.HEADER + len(encoded(marks.codes[: at[0]])) + 1] = _handles(chains, pools)
    nats = [lowering.translation(chain.rules[1].target) for chain in chains]
    for rule, (one, argument, where) in enumerate(
        ((marks, marks.argument, addresses + p.HEADER), (translates, nats, shared))
    ):
        place = p.HEADER + len(own) + p.RULE * rule
        block[:, place + p.META] = one.pure | len(one.codes) << 8 | one.action << 16
        block[:, place + p.ARGUMENT], block[:, place + p.LIST] = argument, where
    pools.code.add_array(block.ravel())
    return Filled(chains, addresses.tolist())


def _handles(chains: Sequence[Chain], pools: Pools) -> list[int]:
    handle = pools.addresses.handle
    sources: list[Any] = [chain.rules[0].source for chain in chains]
    return [handle(source.network_address) for source in sources]
