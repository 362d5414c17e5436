"""``-j REDIRECT``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, ports_text
from netsim.linux.netfilter.base import Action, Environment, Nat, NatKind, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Redirect(Target):
    """Models ``net/netfilter/xt_REDIRECT.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "REDIRECT"
    options: ClassVar[dict[str, int]] = {"--to-ports": 1, "--random": 0}
    tables: ClassVar[tuple[str, ...] | None] = ("nat",)

    port_low: int | None = None
    port_high: int | None = None
    random: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        text = arguments.text("--to-ports")
        low, high = (None, None) if text is None else arguments.range(text, "-", name="--to-ports")
        return cls(low, high, arguments.flag("--random"))

    def print(self, family: Family) -> str:
        text = "-j REDIRECT"
        if self.port_low is not None and self.port_high is not None:
            text += f" --to-ports {ports_text(self.port_low, self.port_high, '-')}"
        if self.random:
            text += " --random"
        return text

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Nat(NatKind.REDIRECT, None, None, self.port_low, self.port_high, random=self.random)

    def lower(self) -> Any:
        return Effect("nat", self)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.none(), st.none(), *[st.booleans()] * 1)
