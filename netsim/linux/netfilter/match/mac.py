"""``-m mac``: the Ethernet address a packet came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.errors import UnsupportedError
from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Opaque
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Mac(Match):
    """Models ``net/netfilter/xt_mac.c`` (Linux 6.1 and 6.18): without an Ethernet header it is false, negated or not."""

    name: ClassVar[str] = "mac"
    options: ClassVar[dict[str, int]] = {"--mac-source": 1}

    address: str
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--mac-source")
        try:
            octets = [int(word, 16) for word in option.value.split(":") if len(word) == 2]
        except ValueError:
            octets = []
        if len(octets) != 6 or len(option.value) != 17:
            arguments.fail(f'--mac-source: "{option.value}" is not an Ethernet address')
        return cls(bytes(octets).hex(":"), option.negated)

    def print(self, family: Family) -> str:
        return f"-m mac{not_(self.negated)}--mac-source {self.address}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        if skb.source_mac is None and skb.iif is not None:
            raise UnsupportedError(f'{self.print(env.family)}: the Ethernet source at "{skb.iif}" is not known here')
        return bool(skb.source_mac) and (skb.source_mac == self.address) != self.negated

    def lower(self) -> Sequence[Any]:
        return (Opaque("mac looks at the Ethernet header"),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":")), st.booleans())
