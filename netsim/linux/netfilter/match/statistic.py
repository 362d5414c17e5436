"""``-m statistic``: one packet in so many, at random or counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Statistic(Match):
    """Models ``net/netfilter/xt_statistic.c`` (Linux 6.1 and 6.18). In random mode the kernel compares 31 random bits with
    ``threshold``; in nth mode (``every`` set) it counts packets and matches number ``packet`` of each ``every``."""

    name: ClassVar[str] = "statistic"
    options: ClassVar[dict[str, int]] = {"--mode": 1, "--probability": 1, "--every": 1, "--packet": 1}

    threshold: int = 0
    negated: bool = False
    every: int | None = None
    packet: int = 0

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        mode = arguments.need("--mode").value
        if mode == "random":
            if arguments.get("--every") or arguments.get("--packet"):
                arguments.fail("--every and --packet belong to mode nth")
            option = arguments.need("--probability")
            try:
                probability = float(option.value)
            except ValueError:
                probability = -1.0
            if not 0 <= probability <= 1:
                arguments.fail(f'--probability: "{option.value}" is not a number from 0 to 1')
            return cls(round(probability * 0x80000000), option.negated)
        if mode != "nth":
            arguments.fail(f'--mode: "{mode}" is neither random nor nth')
        if arguments.get("--probability"):
            arguments.fail("--probability belongs to mode random")
        every = arguments.need("--every")
        arguments.need("--packet")
        count = arguments.number(every.value, 0xFFFFFFFF, "--every", 1)
        packet = arguments.integer("--packet", count - 1)
        return cls(0, every.negated, count, packet or 0)

    @property
    def probability(self) -> float:
        """Of a match, negation included."""
        chance = self.threshold / 0x80000000
        return 1 - chance if self.negated else chance

    def print(self, family: Family) -> str:
        if self.every is None:
            return f"-m statistic --mode random{not_(self.negated)}--probability {self.threshold / 0x80000000:.11f}"
        return f"-m statistic --mode nth{not_(self.negated)}--every {self.every} --packet {self.packet}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        if self.every is None:
            if self.probability in (0.0, 1.0):
                return self.probability == 1.0
            return env.chance(self.probability, "statistic")
        # The count starts at every - packet - 1 and matches when it would reach ``every``.
        state = env.rate((self, env.rule))
        count = state.get("count", self.every - self.packet - 1) + 1
        hit = count == self.every
        state["count"] = 0 if hit else count
        return hit != self.negated

    def lower(self) -> Sequence[Any]:
        kind = Kind.RANDOM if self.every is None else Kind.STATEFUL
        return (Constraint(Column.PACKET, kind, self.threshold if self.every is None else self, self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        nth = st.integers(1, 1000).flatmap(
            lambda n: st.builds(cls, st.just(0), st.booleans(), st.just(n), st.integers(0, n - 1))
        )
        return st.one_of(st.builds(cls, st.integers(0, 0x80000000), st.booleans()), nth)
