"""``-j DROP``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Drop(Target):
    """The standard verdict DROP of ``net/ipv4/netfilter/ip_tables.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "DROP"
    tables: ClassVar[tuple[str, ...] | None] = ("raw", "mangle", "filter", "security")  # iptables refuses it in nat

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        return cls()

    def print(self, family: Family) -> str:
        return "-j DROP"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.DROP

    def lower(self) -> Any:
        return Effect("verdict", Verdict.DROP)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.just(cls())
