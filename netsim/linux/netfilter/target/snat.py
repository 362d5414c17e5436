"""``-j SNAT``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Nat, NatKind, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.linux.netfilter.target import _nat
from netsim.packet.address import Family, IPAddress, ip


@dataclass(frozen=True, slots=True)
class Snat(Target):
    """Models ``net/netfilter/xt_nat.c`` (Linux 6.1 and 6.18). Ports need a protocol that has them in the same rule."""

    name: ClassVar[str] = "SNAT"
    options: ClassVar[dict[str, int]] = {"--to-source": 1, **_nat.FLAGS}
    tables: ClassVar[tuple[str, ...] | None] = ("nat",)

    low: IPAddress | None = None
    high: IPAddress | None = None
    port_low: int | None = None
    port_high: int | None = None
    random: bool = False
    persistent: bool = False
    fully_random: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--to-source")
        text = arguments.text("--to-source") or ""
        found = _nat.read(arguments, text, "--to-source")
        return cls(*found, arguments.flag("--random"), arguments.flag("--persistent"), arguments.flag("--random-fully"))

    def print(self, family: Family) -> str:
        text = f"-j SNAT --to-source {_nat.show((self.low, self.high, self.port_low, self.port_high))}"
        if self.random:
            text += " --random"
        if self.fully_random:
            text += " --random-fully"
        return f"{text} --persistent" if self.persistent else text

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Nat(
            NatKind.SNAT,
            self.low,
            self.high,
            self.port_low,
            self.port_high,
            random=self.random,
            fully_random=self.fully_random,
            persistent=self.persistent,
        )

    def lower(self) -> Any:
        return Effect("nat", self)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        addresses = [ip(a) for a in (("10.1.2.3", "10.1.2.9") if family is Family.IPV4 else ("fd00::1", "fd00::9"))]
        pair = st.lists(st.sampled_from(addresses), min_size=2, max_size=2).map(sorted)
        flags = st.tuples(*[st.booleans()] * 3)
        return st.tuples(pair, flags).map(lambda t: cls(t[0][0], t[0][1], None, None, *t[1]))
