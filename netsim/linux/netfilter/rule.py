"""One iptables rule, one chain: values. Reading and printing text is in ``text``, building tables in ``table``."""

from __future__ import annotations

from dataclasses import dataclass, field

from netsim.linux.netfilter.base import Match, Target, Verdict
from netsim.linux.provenance import Provenance
from netsim.packet.address import IPNetwork


@dataclass(frozen=True, slots=True)
class Rule:
    """The fixed header (``-s -d -i -o -p -f``, each with its negation), then matches in order, then the target.

    The kernel tests the header first, whatever the order on the command line. Interface names may end in ``+``.
    ``protocol`` is a number; None is "all". ``target`` None counts and goes on. ``jump`` names a user chain instead
    (``goto``: ``-g``). Counters and provenance do not take part in equality.
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
    counters: tuple[int, int] | None = field(default=None, compare=False)
    provenance: Provenance | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """``policy`` is set on built-in chains only (ACCEPT or DROP)."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: Verdict | None = None
    counters: tuple[int, int] = field(default=(0, 0), compare=False)
