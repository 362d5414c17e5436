"""``-m icmp``: type and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind, Opaque
from netsim.packet.address import Family
from netsim.packet.model import Icmp as Header

_NAMES: dict[str, tuple[int, int | None]] = {
    "echo-reply": (0, None),
    "pong": (0, None),
    "destination-unreachable": (3, None),
    "network-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "source-route-failed": (3, 5),
    "communication-prohibited": (3, 13),
    "source-quench": (4, None),
    "redirect": (5, None),
    "echo-request": (8, None),
    "ping": (8, None),
    "router-advertisement": (9, None),
    "router-solicitation": (10, None),
    "time-exceeded": (11, None),
    "ttl-exceeded": (11, None),
    "parameter-problem": (12, None),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
    "any": (255, None),
}


@dataclass(frozen=True, slots=True)
class Icmp(Match):
    """Models icmp_match of ``net/ipv4/netfilter/ip_tables.c`` (Linux 6.1) and ``net/netfilter/xt_tcpudp.c`` (6.18).

    ``code`` None is any code. Type 255 is any type. A non-first fragment never matches."""

    name: ClassVar[str] = "icmp"
    families: ClassVar[tuple[Family, ...]] = (Family.IPV4,)
    options: ClassVar[dict[str, int]] = {"--icmp-type": 1}
    protocols: ClassVar[tuple[int, ...]] = (1,)

    type: int
    code: int | None = None
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--icmp-type")
        named = _NAMES.get(option.value.lower())
        if named is not None:
            return cls(*named, option.negated)
        kind, slash, code = option.value.partition("/")
        return cls(
            arguments.number(kind, 255, "--icmp-type"),
            arguments.number(code, 255, "--icmp-type") if slash else None,
            option.negated,
        )

    def print(self, family: Family) -> str:
        if self.type == 255:
            return f"-m icmp{not_(self.negated)}--icmp-type any"
        code = "" if self.code is None else f"/{self.code}"
        return f"-m icmp{not_(self.negated)}--icmp-type {self.type}{code}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        body = skb.packet.body
        if skb.packet.fragment_offset or not isinstance(body, Header):
            return False
        if self.type == 255:
            return not self.negated
        return (body.type == self.type and self.code in (None, body.code)) != self.negated

    def lower(self) -> Sequence[Any]:
        if self.type == 255:
            return (Constraint(Column.ICMP_TYPE, Kind.RANGES, ((0, 255),), self.negated),)
        if self.code is None:
            return (Constraint(Column.ICMP_TYPE, Kind.EQUAL, self.type, self.negated),)
        if self.negated:
            return (Opaque("not this type and code is a disjunction over two columns"),)
        return (
            Constraint(Column.ICMP_TYPE, Kind.EQUAL, self.type),
            Constraint(Column.ICMP_CODE, Kind.EQUAL, self.code),
        )

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        code = st.one_of(st.none(), st.integers(0, 255))
        return st.builds(cls, st.integers(0, 254), code, st.booleans())
