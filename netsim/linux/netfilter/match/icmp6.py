"""``-m icmp6``: type and code."""

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
    "destination-unreachable": (1, None),
    "no-route": (1, 0),
    "communication-prohibited": (1, 1),
    "beyond-scope": (1, 2),
    "address-unreachable": (1, 3),
    "port-unreachable": (1, 4),
    "failed-policy": (1, 5),
    "reject-route": (1, 6),
    "packet-too-big": (2, None),
    "time-exceeded": (3, None),
    "ttl-exceeded": (3, None),
    "parameter-problem": (4, None),
    "echo-request": (128, None),
    "ping": (128, None),
    "echo-reply": (129, None),
    "pong": (129, None),
    "router-solicitation": (133, None),
    "router-advertisement": (134, None),
    "neighbour-solicitation": (135, None),
    "neighbor-solicitation": (135, None),
    "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None),
    "redirect": (137, None),
}


@dataclass(frozen=True, slots=True)
class Icmp6(Match):
    """Models icmp6_match of ``net/ipv6/netfilter/ip6_tables.c`` (Linux 6.1) and ``net/netfilter/xt_tcpudp.c`` (6.18).

    ``code`` None is any code. A non-first fragment never matches."""

    name: ClassVar[str] = "icmp6"
    families: ClassVar[tuple[Family, ...]] = (Family.IPV6,)
    options: ClassVar[dict[str, int]] = {"--icmpv6-type": 1}
    protocols: ClassVar[tuple[int, ...]] = (58,)

    type: int
    code: int | None = None
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--icmpv6-type")
        named = _NAMES.get(option.value.lower())
        if named is not None:
            return cls(*named, option.negated)
        kind, slash, code = option.value.partition("/")
        return cls(
            arguments.number(kind, 255, "--icmpv6-type"),
            arguments.number(code, 255, "--icmpv6-type") if slash else None,
            option.negated,
        )

    def print(self, family: Family) -> str:
        code = "" if self.code is None else f"/{self.code}"
        return f"-m icmp6{not_(self.negated)}--icmpv6-type {self.type}{code}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        body = skb.packet.body
        if skb.packet.fragment_offset or not isinstance(body, Header):
            return False
        return (body.type == self.type and self.code in (None, body.code)) != self.negated

    def lower(self) -> Sequence[Any]:
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
