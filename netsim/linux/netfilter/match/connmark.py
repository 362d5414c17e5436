"""``-m connmark``: the conntrack entry's mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class ConnMark(Match):
    """Models ``net/netfilter/xt_connmark.c`` (Linux 6.1 and 6.18); a packet without an entry never matches."""

    name: ClassVar[str] = "connmark"
    options: ClassVar[dict[str, int]] = {"--mark": 1}

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--mark")
        return cls(*arguments.mark(option.value, "--mark"), option.negated)

    def print(self, family: Family) -> str:
        mask = "" if self.mask == 0xFFFFFFFF else f"/{self.mask:#x}"
        return f"-m connmark{not_(self.negated)}--mark {self.value:#x}{mask}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return skb.ct is not None and (skb.ct.mark & self.mask == self.value) != self.negated

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.CT_MARK, Kind.MASKED, (self.value, self.mask), self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        bits = st.one_of(st.sampled_from((0, 1, 0x4000, 0xFFFF0000, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF))
        return st.builds(cls, bits, bits, st.booleans())
