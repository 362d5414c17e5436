"""``-j CT``: pass without a conntrack entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, NoTrack, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Ct(Target):
    """Models the notrack part of ``net/netfilter/xt_CT.c`` (Linux 6.1 and 6.18); zones, helpers and timeouts are refused."""

    name: ClassVar[str] = "CT"
    options: ClassVar[dict[str, int]] = {"--notrack": 0}
    tables: ClassVar[tuple[str, ...] | None] = ("raw",)
    terminates: ClassVar[bool] = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        if not arguments.flag("--notrack"):
            arguments.fail("only --notrack is modelled")
        return cls()

    def print(self, family: Family) -> str:
        return "-j CT --notrack"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return NoTrack()

    def lower(self) -> Any:
        return Effect("notrack")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.just(cls())
