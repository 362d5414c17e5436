"""One iptables rule, one chain: values. Reading and printing text is in ``text``, building tables in ``table``."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from netsim.linux.netfilter.base import Match, Target, Verdict
from netsim.linux.provenance import Provenance
from netsim.packet.address import IPNetwork


class Rule(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The fixed header (``-s -d -i -o -p -f``, each with its negation), then matches in order, then the target.

    The kernel tests the header first, whatever the order on the command line. Interface names may end in ``+``.
    ``protocol`` is a number; None is "all". ``target`` None counts and goes on. ``jump`` names a user chain instead
    (``goto``: ``-g``). Counters and provenance do not take part in equality. (A struct, because a cluster has hundreds of
    thousands of them: it is made in a tenth of the time of a dataclass, and the garbage collector passes it over.)
    """

    source: IPNetwork | None = None
    source_not: bool = False
    destination: IPNetwork | None = None
    destination_not: bool = False
    iif: str | None = None
    iif_not: bool = False
    oif: str | None = None
    oif_not: bool = False
    protocol: int | None = None
    protocol_not: bool = False
    fragment: bool | None = None  # -f True, ! -f False
    matches: tuple[Match, ...] = ()
    target: Target | None = None
    jump: str | None = None
    goto: bool = False
    counters: tuple[int, int] | None = None
    provenance: Provenance | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rule):
            return NotImplemented
        return self is other or _meaning(self) == _meaning(other)

    def __ne__(self, other: object) -> bool:  # a struct has one of its own
        return not self == other

    def __hash__(self) -> int:
        return hash(_meaning(self))


_meaning = attrgetter(*[name for name in Rule.__struct_fields__ if name not in ("counters", "provenance")])


class Chain(msgspec.Struct, frozen=True, eq=False, gc=False):
    """``policy`` is set on built-in chains only (ACCEPT or DROP). Counters do not take part in equality."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: Verdict | None = None
    counters: tuple[int, int] = (0, 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Chain):
            return NotImplemented
        return self.name == other.name and self.policy == other.policy and self.rules == other.rules

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.name, self.rules, self.policy))


def same_rules(old: Sequence[Rule], new: Sequence[Rule]) -> bool:
    """Are the rules equal, and there for the same reasons?"""
    return old is new or (old == new and all(a is b or a.provenance == b.provenance for a, b in zip(old, new)))


_STEP = 256


def same_ends(old: Sequence[Rule], new: Sequence[Rule]) -> tuple[int, int]:
    """How many of the first rules, and how many of the last of the others, are the same in both. Quick for long chains most
    of whose rules are the same objects."""
    shorter = min(len(old), len(new))
    head = _same(old, new, shorter)
    return head, _same(old[head:][::-1], new[head:][::-1], shorter - head)


def _same(old: Sequence[Rule], new: Sequence[Rule], most: int) -> int:
    at = 0
    while at < most and old[at : at + _STEP] == new[at : at + _STEP]:
        at += _STEP
    while at < most and old[at] == new[at]:
        at += 1
    return min(at, most)
