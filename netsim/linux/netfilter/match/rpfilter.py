"""``-m rpfilter``: would the answer leave where the packet came in?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Opaque
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class RpFilter(Match):
    """Models ``net/ipv4/netfilter/ipt_rpfilter.c`` and ``net/ipv6/netfilter/ip6t_rpfilter.c`` (Linux 6.1 and 6.18).
    ``validmark`` is passed on by the packet's mark, which the environment may use in its look-up."""

    name: ClassVar[str] = "rpfilter"
    options: ClassVar[dict[str, int]] = {"--loose": 0, "--validmark": 0, "--accept-local": 0, "--invert": 0}

    loose: bool = False
    validmark: bool = False
    accept_local: bool = False
    invert: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        return cls(*[arguments.flag(name) for name in cls.options])

    def print(self, family: Family) -> str:
        flags = (self.loose, self.validmark, self.accept_local, self.invert)
        return " ".join(["-m rpfilter", *[name for name, on in zip(self.options, flags, strict=True) if on]])

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        asked = skb if self.validmark else replace(skb, mark=0)
        return env.reverse_path_ok(asked, self.loose, self.accept_local) != self.invert

    def lower(self) -> Sequence[Any]:
        return (Opaque("rpfilter asks the FIB"),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, *[st.booleans()] * 4)
