"""A datapath goes on in the next generation of its network: the tables learn what has changed, the memory stays.

What a packet of a known flow may take for granted is a *way* (``FlowState.classes``): the rules that such packets match are
written down with it. A chain can only be entered by a rule that matched, so the ways that lead through a replaced chain are
those with a rule that jumps there. They are closed: the next packet of such a flow walks the rules that there are now. Its
connection, and with it the translation that was settled on its first packet, goes on, as it would in the kernel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from netsim.compiled.flow_records import N_CLASSES, N_PROFILES, FlowState
from netsim.compiled.rule_compiler import Change, RuleCompiler
from netsim.compiled.world import TABLES
from netsim.linux.netfilter.match.recent import Recent
from netsim.linux.netfilter.rule import Rule, same_ends
from netsim.linux.network import Namespace, Network, Renewal
from netsim.packet.address import Family


def renewal_between(before: Network, after: Network, names: Callable[[], Iterable[str]]) -> Renewal:
    """What ``after`` says of itself if it is the next generation of ``before``; else what comparing all namespaces of these
    names, value by value, shows."""
    said: Renewal | None = getattr(after, "renewal", None)
    if said is not None and said.before() is before:
        return said
    differing = [name for name in names() if _find(before, name) != _find(after, name)]
    return Renewal(weakref.ref(before), differing, lambda chains, _: (chains, ()), alike=True)


def _find(network: Network, name: str) -> Namespace | None:
    try:
        return network.namespace(name)
    except KeyError:
        return None


# -- ways ----------------------------------------------------------------------------------------------------------------
def close_ways(
    state: FlowState, rules: RuleCompiler, replaced: Collection[tuple[int, str, str]], everything: bool
) -> None:
    """No packet takes a way through one of these chains (family, table, name) any more; or any way at all."""
    classes = state.classes[1 : int(state.counts[N_CLASSES])]
    items = state.profiles[: int(state.counts[N_PROFILES])] & np.uint32(0x3FFFFFFF)  # table << 26 | rule
    through = np.zeros(len(items) + 1, np.int64)  # how many of the items before this one lead into a replaced chain
    for item in np.unique(items).tolist():
        if _leads_into(rules, item, replaced):
            through[1:] += items == item
    sums = np.cumsum(through)
    first = classes["profile"].astype(np.int64)
    closed = sums[first + classes["hits"]] > sums[first]
    # A way that lets no packet pass, however short, is one that nobody takes.
    classes["longest"][closed | everything] = 0


def _leads_into(rules: RuleCompiler, item: int, replaced: Collection[tuple[int, str, str]]) -> bool:
    version, table = divmod(item >> 26, len(TABLES))
    try:
        jump = rules.rule_of(item & 0x03FFFFFF)[2].jump
    except KeyError:
        return False  # replaced by an earlier update, and its ways are closed
    return jump is not None and (6 if version else 4, TABLES[table], jump) in replaced


# -- session affinity ----------------------------------------------------------------------------------------------------
def forgotten_lists(changes: Iterable[Change]) -> set[tuple[Family, str]]:
    """Lists of ``-m recent`` that the replaced chains were the last to name: the kernel drops a list with its last rule."""
    gone: set[tuple[Family, str]] = set()
    kept: set[tuple[Family, str]] = set()
    for family, _, old, new in changes:
        before, after = () if old is None else old.rules, () if new is None else new.rules
        head, tail = same_ends(before, after)
        gone |= {(family, name) for name in _lists(before[head : len(before) - tail])}
        kept |= {(family, name) for name in _lists(after[head : len(after) - tail])}
    return gone - kept


def _lists(rules: Iterable[Rule]) -> Iterator[str]:
    for rule in rules:
        for match in rule.matches:
            if isinstance(match, Recent):
                yield match.list_name
