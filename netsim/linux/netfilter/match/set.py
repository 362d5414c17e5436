"""``-m set``: ipset membership."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.linux.netfilter.match import _sets
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Set(Match):
    """Models ``net/netfilter/xt_set.c`` revision 4 (Linux 6.1 and 6.18). Membership is the set's business: see
    ``netsim.linux.ipset``. Counter options (``--packets-gt`` and so on) and ``--return-nomatch`` are refused."""

    name: ClassVar[str] = "set"
    options: ClassVar[dict[str, int]] = {"--match-set": 2}

    set_name: str
    sides: tuple[str, ...]
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--match-set")
        name, sides = option.values
        return cls(name, _sets.dimensions(arguments, name, sides), option.negated)

    def print(self, family: Family) -> str:
        return f"-m set{not_(self.negated)}--match-set {self.set_name} {','.join(self.sides)}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return env.in_set(self.set_name, _sets.elements(skb, self.sides)) != self.negated

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.LOOKUP, (self.set_name, self.sides), self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        sides = st.lists(st.sampled_from(("src", "dst")), min_size=1, max_size=3).map(tuple)
        return st.builds(cls, st.sampled_from(("netsim-a", "netsim-b")), sides, st.booleans())
