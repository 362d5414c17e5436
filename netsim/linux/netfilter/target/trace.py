"""``-j TRACE``: no effect on where a packet goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Trace(Target):
    """Models ``net/netfilter/xt_TRACE.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "TRACE"
    options: ClassVar[dict[str, int]] = {}
    tables: ClassVar[tuple[str, ...] | None] = ("raw",)
    terminates: ClassVar[bool] = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        return cls()

    def print(self, family: Family) -> str:
        return "-j TRACE"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("none")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.just(cls())
