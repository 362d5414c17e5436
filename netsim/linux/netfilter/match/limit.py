"""``-m limit``: a token bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.linux.netfilter.match import _rates
from netsim.packet.address import Family

_SCALE = 10000  # XT_LIMIT_SCALE


@dataclass(frozen=True, slots=True)
class Limit(Match):
    """Models ``net/netfilter/xt_limit.c`` (Linux 6.1 and 6.18). ``period`` is what the kernel stores: ten thousandths of
    a second a packet. Credit is exact here; the kernel's counts in jiffies. Every rule has a bucket of its own."""

    name: ClassVar[str] = "limit"
    options: ClassVar[dict[str, int]] = {"--limit": 1, "--limit-burst": 1}

    period: int = 12000000
    burst: int = 5

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        period, _ = _rates.read(arguments, arguments.text("--limit", "3/hour") or "", "--limit", _SCALE)
        return cls(period, arguments.integer("--limit-burst", 10000) or 5)

    def print(self, family: Family) -> str:
        text = f"-m limit --limit {_rates.show(self.period, _SCALE)[0]}"
        return text if self.burst == 5 else f"{text} --limit-burst {self.burst}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return _rates.take(env.rate((self, env.rule)), env.now, self.period, self.burst, _SCALE)

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.STATEFUL, self),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        units = st.sampled_from((1, 60, 3600))
        rates = st.tuples(st.integers(1, 100), units).map(lambda t: 10000 * t[1] // t[0])
        return st.builds(cls, rates.filter(lambda p: p < 10000 * 3600), st.integers(1, 50))
