"""``-m nfacct``: counts, and is always true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class NfAcct(Match):
    """Models ``net/netfilter/xt_nfacct.c`` (Linux 6.1 and 6.18). Quotas (which make it false) are not modelled."""

    name: ClassVar[str] = "nfacct"
    options: ClassVar[dict[str, int]] = {"--nfacct-name": 1}

    counter: str

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--nfacct-name")
        counter = arguments.text("--nfacct-name") or ""
        if not 0 < len(counter) < 32:
            arguments.fail("--nfacct-name: not 1 to 31 characters")
        return cls(counter)

    def print(self, family: Family) -> str:
        return f"-m nfacct --nfacct-name  {self.counter}"  # two blanks: so iptables prints it

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        env.count(self.counter)
        return True

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.STATEFUL, self),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.text("abcxyz_09", min_size=1, max_size=31))
