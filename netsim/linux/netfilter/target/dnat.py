"""``-j DNAT``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Nat, NatKind, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.linux.netfilter.target import _nat
from netsim.packet.address import Family, IPAddress, ip


# A struct like ``Rule``, and for the same reason: each endpoint of each Service has one.
class Dnat(Target, msgspec.Struct, frozen=True, gc=False):
    """Models ``net/netfilter/xt_nat.c`` (Linux 6.1 and 6.18). Ports need a protocol that has them in the same rule."""

    name: ClassVar[str] = "DNAT"
    options: ClassVar[dict[str, int]] = {"--to-destination": 1, **{"--random": 0, "--persistent": 0}}
    tables: ClassVar[tuple[str, ...] | None] = ("nat",)

    low: IPAddress | None = None
    high: IPAddress | None = None
    port_low: int | None = None
    port_high: int | None = None
    random: bool = False
    persistent: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--to-destination")
        text = arguments.text("--to-destination") or ""
        found = _nat.read(arguments, text, "--to-destination")
        return cls(*found, arguments.flag("--random"), arguments.flag("--persistent"))

    def print(self, family: Family) -> str:
        text = f"-j DNAT --to-destination {_nat.show((self.low, self.high, self.port_low, self.port_high))}"
        if self.random:
            text += " --random"
        return f"{text} --persistent" if self.persistent else text

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Nat(
            NatKind.DNAT,
            self.low,
            self.high,
            self.port_low,
            self.port_high,
            random=self.random,
            persistent=self.persistent,
        )

    def lower(self) -> Any:
        return Effect("nat", self)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        addresses = [ip(a) for a in (("10.1.2.3", "10.1.2.9") if family is Family.IPV4 else ("fd00::1", "fd00::9"))]
        pair = st.lists(st.sampled_from(addresses), min_size=2, max_size=2).map(sorted)
        flags = st.tuples(*[st.booleans()] * 2)
        return st.tuples(pair, flags).map(lambda t: cls(t[0][0], t[0][1], None, None, *t[1]))
