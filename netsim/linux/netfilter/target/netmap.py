"""``-j NETMAP``: the network part of an address changes, the rest stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Nat, NatKind, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family, IPNetwork, network


@dataclass(frozen=True, slots=True)
class Netmap(Target):
    """Models ``net/netfilter/xt_NETMAP.c`` (Linux 6.1 and 6.18). The answer names the first and last address of the
    network; the translation keeps the bits in which they differ. Masks that are no prefix are refused."""

    name: ClassVar[str] = "NETMAP"
    options: ClassVar[dict[str, int]] = {"--to": 1}
    tables: ClassVar[tuple[str, ...] | None] = ("nat",)

    to: IPNetwork

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--to")
        text = arguments.text("--to") or ""
        try:
            prefix = network(text)
        except ValueError:
            arguments.fail(f'--to: "{text}" is not a network')
        if prefix.version != int(arguments.family):
            arguments.fail(f'--to: "{text}" is not IPv{int(arguments.family)}')
        return cls(prefix)

    def print(self, family: Family) -> str:
        return f"-j NETMAP --to {self.to}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Nat(NatKind.NETMAP, self.to.network_address, self.to.broadcast_address)

    def lower(self) -> Any:
        return Effect("nat", self)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        prefixes = ("10.0.0.0/24", "10.0.0.5/32") if family is Family.IPV4 else ("fd00::/64", "fd00::5/128")
        return st.sampled_from([cls(network(prefix)) for prefix in prefixes])
