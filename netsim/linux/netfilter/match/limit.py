"""``-m limit``: a token bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family

_UNITS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))


@dataclass(frozen=True, slots=True)
class Limit(Match):
    """Models ``net/netfilter/xt_limit.c`` (Linux 6.1 and 6.18). ``period`` is what the kernel stores: ten thousandths of
    a second a packet. Credit is exact here; the kernel's counts in jiffies. Rules written alike share a bucket."""

    name: ClassVar[str] = "limit"
    options: ClassVar[dict[str, int]] = {"--limit": 1, "--limit-burst": 1}

    period: int = 12000000
    burst: int = 5

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        text = arguments.text("--limit", "3/hour") or ""
        count, slash, unit = text.partition("/")
        known = [seconds for name, seconds in _UNITS if name.startswith(unit.lower())] if unit or not slash else []
        number = arguments.number(count, 0xFFFFFFFF, "--limit", 1)
        seconds = known[0] if slash and known else 1
        if (slash and not known) or not (period := 10000 * seconds // number):
            arguments.fail(f'--limit: "{text}" is not a rate such as 5/min (at most 10000/sec)')
        return cls(period, arguments.integer("--limit-burst", 10000) or 5)

    def print(self, family: Family) -> str:
        text = f"-m limit --limit {rate_text(self.period)}"
        return text if self.burst == 5 else f"{text} --limit-burst {self.burst}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        state = env.rate(self)
        full = float(self.period * self.burst)
        credit = min(full, state.get("credit", full) + (env.now - state.get("at", env.now)) * 10000)
        state["at"] = env.now
        allowed = credit >= self.period
        state["credit"] = credit - self.period if allowed else credit
        return allowed

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.STATEFUL, self),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        units = st.sampled_from([seconds for _, seconds in _UNITS[:3]])
        rates = st.tuples(st.integers(1, 100), units).map(lambda t: 10000 * t[1] // t[0])
        return st.builds(cls, rates.filter(lambda p: p < 10000 * 3600), st.integers(1, 50))


def rate_text(period: int) -> str:
    """``print_rate`` of libxt_limit.c: from days down to seconds, for as long as the rate stays about whole."""
    best = 3
    for index in (2, 1, 0):
        unit = _UNITS[index][1] * 10000
        if period > unit or unit // period < unit % period:
            break
        best = index
    name, seconds = _UNITS[best]
    return f"{seconds * 10000 // period}/{name[:3] if name in ('second', 'minute') else name}"
