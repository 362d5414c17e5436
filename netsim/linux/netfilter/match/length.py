"""``-m length``: the length of the packet from its IP header on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_, ports_text
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family
from netsim.packet.codec import wire_length


@dataclass(frozen=True, slots=True)
class Length(Match):
    """Models ``net/netfilter/xt_length.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "length"
    options: ClassVar[dict[str, int]] = {"--length": 1}

    low: int
    high: int
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--length")
        low, high = arguments.range(option.value, name="--length")
        return cls(low, high, option.negated)

    def print(self, family: Family) -> str:
        return f"-m length{not_(self.negated)}--length {ports_text(self.low, self.high)}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return (self.low <= wire_length(skb.packet) <= self.high) != self.negated

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.LENGTH, Kind.RANGES, ((self.low, self.high),), self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        length = st.one_of(st.integers(0, 200), st.integers(0, 65535))
        return st.tuples(length, length, st.booleans()).map(lambda t: cls(min(t[:2]), max(t[:2]), t[2]))
