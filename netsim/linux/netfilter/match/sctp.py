"""``-m sctp``: ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column
from netsim.linux.netfilter.match import _ports
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Sctp(Match):
    """Models ``net/netfilter/xt_sctp.c`` (Linux 6.1 and 6.18). Never matches a non-first fragment.

    ``--chunk-types`` is not modelled and is refused.
    """

    name: ClassVar[str] = "sctp"
    options: ClassVar[dict[str, int]] = _ports.OPTIONS
    aliases: ClassVar[dict[str, str]] = _ports.ALIASES
    protocols: ClassVar[tuple[int, ...]] = (132,)

    sport: _ports.Ports = _ports.EVERY
    sport_not: bool = False
    dport: _ports.Ports = _ports.EVERY
    dport_not: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        return cls(*_ports.read(arguments, "--sport"), *_ports.read(arguments, "--dport"))

    def print(self, family: Family) -> str:
        sport = _ports.show("--sport", self.sport, self.sport_not)
        return f"-m sctp{sport}{_ports.show('--dport', self.dport, self.dport_not)}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        packet = skb.packet
        if packet.fragment_offset:
            return False
        return _ports.ok(packet.sport, self.sport, self.sport_not) and _ports.ok(
            packet.dport, self.dport, self.dport_not
        )

    def lower(self) -> Sequence[Any]:
        return _ports.constraint(Column.SPORT, self.sport, self.sport_not) + _ports.constraint(
            Column.DPORT, self.dport, self.dport_not
        )

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.tuples(_ports.strategy(), _ports.strategy()).map(lambda pair: cls(*pair[0], *pair[1]))
