"""``-m iprange``: ranges of addresses that need not be prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family, IPAddress, ip

Range = tuple[IPAddress, IPAddress]


@dataclass(frozen=True, slots=True)
class IpRange(Match):
    """Models ``net/netfilter/xt_iprange.c`` (Linux 6.1 and 6.18). A range that ends before it starts is legal: no
    address is in it."""

    name: ClassVar[str] = "iprange"
    options: ClassVar[dict[str, int]] = {"--src-range": 1, "--dst-range": 1}

    source: Range | None = None
    source_not: bool = False
    destination: Range | None = None
    destination_not: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        source, source_not = _read(arguments, "--src-range")
        destination, destination_not = _read(arguments, "--dst-range")
        if source is None and destination is None:
            arguments.fail("--src-range or --dst-range must be given")
        return cls(source, source_not, destination, destination_not)

    def print(self, family: Family) -> str:
        text = "-m iprange"
        if self.source is not None:
            text += f"{not_(self.source_not)}--src-range {self.source[0]}-{self.source[1]}"
        if self.destination is not None:
            text += f"{not_(self.destination_not)}--dst-range {self.destination[0]}-{self.destination[1]}"
        return text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        packet = skb.packet
        return _ok(packet.src, self.source, self.source_not) and _ok(packet.dst, self.destination, self.destination_not)

    def lower(self) -> Sequence[Any]:
        sides = (
            (Column.SRC, self.source, self.source_not),
            (Column.DST, self.destination, self.destination_not),
        )
        return [
            Constraint(column, Kind.RANGES, ((int(found[0]), int(found[1])),), negated)
            for column, found, negated in sides
            if found is not None
        ]

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        first = ip("10.0.0.0" if family is Family.IPV4 else "fd00::")
        address = st.integers(0, 9).map(lambda step: first + step)
        side = st.one_of(st.just((None, False)), st.tuples(st.tuples(address, address), st.booleans()))
        pairs = st.tuples(side, side).filter(lambda pair: pair[0][0] or pair[1][0])
        return pairs.map(lambda pair: cls(pair[0][0], pair[0][1], pair[1][0], pair[1][1]))


def _read(arguments: Arguments, name: str) -> tuple[Range | None, bool]:
    option = arguments.get(name)
    if option is None:
        return None, False
    low, dash, high = option.value.partition("-")
    first = arguments.address(low, name)
    return (first, arguments.address(high, name) if dash else first), option.negated


def _ok(address: IPAddress, found: Range | None, negated: bool) -> bool:
    return found is None or (int(found[0]) <= int(address) <= int(found[1])) != negated
