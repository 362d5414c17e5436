"""``-m pkttype``: unicast, broadcast or multicast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Hook, Match, Skb
from netsim.linux.netfilter.lowering import Opaque
from netsim.packet.address import Family

_TYPES = {"unicast": "unicast", "host": "unicast", "broadcast": "broadcast", "bcast": "broadcast"} | dict.fromkeys(
    ("multicast", "mcast"), "multicast"
)


@dataclass(frozen=True, slots=True)
class PktType(Match):
    """Models ``net/netfilter/xt_pkttype.c`` (Linux 6.1 and 6.18).

    The kernel goes by the Ethernet destination. Where that is not known, the IP destination tells, from which a sender on
    the segment makes it. A packet of this machine's own counts as unicast at OUTPUT and POSTROUTING: no header has been
    made yet.
    """

    name: ClassVar[str] = "pkttype"
    options: ClassVar[dict[str, int]] = {"--pkt-type": 1}

    type: str
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--pkt-type")
        kind = _TYPES.get(option.value.lower())
        if kind is None:
            arguments.fail(f'--pkt-type: "{option.value}" is none of unicast, broadcast and multicast')
        return cls(kind, option.negated)

    def print(self, family: Family) -> str:
        return f"-m pkttype{not_(self.negated)}--pkt-type {self.type}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        destination = skb.packet.dst
        kind = skb.pkt_type or "unicast"
        if kind == "loopback":
            kind = "multicast" if destination.is_multicast else "broadcast"
        if skb.pkt_type is None and env.hook not in (Hook.OUTPUT, Hook.POSTROUTING):
            if destination.is_multicast:
                kind = "multicast"
            elif destination.version == 4 and env.address_type(destination) == "BROADCAST":
                kind = "broadcast"
        return (kind == self.type) != self.negated

    def lower(self) -> Sequence[Any]:
        return (Opaque("pkttype depends on the hook"),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.sampled_from(sorted(set(_TYPES.values()))), st.booleans())
