"""``-m hl``: the hop limit of IPv6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.match import _hops
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Hl(Match):
    """Models the IPv6 half of ``net/netfilter/xt_hl.c`` (Linux 6.1 and 6.18). ``mode`` is eq, lt or gt."""

    name: ClassVar[str] = "hl"
    options: ClassVar[dict[str, int]] = {"--hl-eq": 1, "--hl-lt": 1, "--hl-gt": 1}
    aliases: ClassVar[dict[str, str]] = {"--hl": "--hl-eq"}
    families: ClassVar[tuple[Family, ...]] = (Family.IPV6,)

    mode: str
    value: int
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        return cls(*_hops.read(arguments, "hl"))

    def print(self, family: Family) -> str:
        return f"-m hl{not_(self.negated)}--hl-{self.mode} {self.value}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return _hops.ok(skb.packet.ttl, self.mode, self.value, self.negated)

    def lower(self) -> Sequence[Any]:
        return _hops.constraint(self.mode, self.value, self.negated)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        value = st.one_of(st.sampled_from((0, 1, 63, 64, 255)), st.integers(0, 255))
        equal = st.builds(cls, st.just("eq"), value, st.booleans())
        return st.one_of(equal, st.builds(cls, st.sampled_from(("lt", "gt")), value))
