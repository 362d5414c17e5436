"""``-m multiport``: up to fifteen ports, a range counting as two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_, ports_text
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind, Opaque
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Multiport(Match):
    """Models ``net/netfilter/xt_multiport.c`` (Linux 6.1 and 6.18). ``which`` is sports, dports or ports (either)."""

    name: ClassVar[str] = "multiport"
    options: ClassVar[dict[str, int]] = {"--sports": 1, "--dports": 1, "--ports": 1}
    aliases: ClassVar[dict[str, str]] = {"--source-ports": "--sports", "--destination-ports": "--dports"}
    protocols: ClassVar[tuple[int, ...]] = (6, 17, 33, 132, 136)

    which: str
    ports: tuple[tuple[int, int], ...]
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        given = [option for name in cls.options if (option := arguments.get(name))]
        if len(given) != 1:
            arguments.fail("exactly one of --sports, --dports and --ports must be given")
        words = given[0].value.split(",")
        ports = tuple([arguments.range(word, name=given[0].name) for word in words])
        if sum(1 + (":" in word) for word in words) > 15:
            arguments.fail(f"{given[0].name}: more than 15 ports (a range counts as two)")
        return cls(given[0].name[2:], ports, given[0].negated)

    def print(self, family: Family) -> str:
        ports = ",".join([ports_text(*pair) for pair in self.ports])
        return f"-m multiport{not_(self.negated)}--{self.which} {ports}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        packet = skb.packet
        sport, dport = packet.sport, packet.dport
        if packet.fragment_offset or sport is None or dport is None:
            return False
        found = any(
            (self.which != "dports" and low <= sport <= high) or (self.which != "sports" and low <= dport <= high)
            for low, high in self.ports
        )
        return found != self.negated

    def lower(self) -> Sequence[Any]:
        if self.which == "ports":
            return (Opaque("--ports is a disjunction over two columns"),)
        column = Column.SPORT if self.which == "sports" else Column.DPORT
        return (Constraint(column, Kind.RANGES, self.ports, self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        port = st.integers(0, 65535)
        pair = st.one_of(port.map(lambda p: (p, p)), st.tuples(port, port).map(lambda p: (min(p), max(p))))
        return st.builds(
            cls,
            st.sampled_from(("sports", "dports", "ports")),
            st.lists(pair, min_size=1, max_size=7).map(tuple),
            st.booleans(),
        )
