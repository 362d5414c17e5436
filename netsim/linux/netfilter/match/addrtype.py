"""``-m addrtype``: what kind of address the FIB says it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind, Opaque
from netsim.packet.address import Family, IPAddress

_TYPES = (
    "UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT",
)  # fmt: skip


_SAME_FOR_BOTH = frozenset({"LOCAL", "ANYCAST", "MULTICAST", "BROADCAST", "UNSPEC"})  # alone, for both families
_LOOKED_UP = frozenset({"LOCAL", "ANYCAST", "PROHIBIT", "UNREACHABLE"})


def _is(env: Environment, address: IPAddress, device: str | None, types: tuple[str, ...]) -> bool:
    """``match_type``: any of the types. ``match_type6``: the class of the address must be *every* class named, whatever the
    routes say, and only the other types are looked up; there every error route counts as UNREACHABLE."""
    if address.version == 4:
        return env.address_type(address, device) in types
    if "MULTICAST" in types and not address.is_multicast:
        return False
    if "UNICAST" in types and (address.is_multicast or address.is_unspecified):
        return False
    if "UNSPEC" in types and not address.is_unspecified:
        return False
    if _LOOKED_UP.isdisjoint(types):
        return True
    found = env.address_type(address, device)
    return ("UNREACHABLE" if found in ("BLACKHOLE", "PROHIBIT") else found) in _LOOKED_UP.intersection(types)


@dataclass(frozen=True, slots=True)
class AddrType(Match):
    """Models ``net/netfilter/xt_addrtype.c`` (Linux 6.1 and 6.18). ``limit`` is ``in`` or ``out``: only that device's
    addresses count. THROW, NAT and XRESOLVE exist in the syntax only and are refused."""

    name: ClassVar[str] = "addrtype"
    options: ClassVar[dict[str, int]] = {
        "--src-type": 1,
        "--dst-type": 1,
        "--limit-iface-in": 0,
        "--limit-iface-out": 0,
    }

    source: tuple[str, ...] = ()
    source_not: bool = False
    destination: tuple[str, ...] = ()
    destination_not: bool = False
    limit: str | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        found: list[Any] = []
        for name in ("--src-type", "--dst-type"):
            option = arguments.get(name)
            words = {word.upper() for word in option.value.split(",")} if option else set()
            if unknown := words - set(_TYPES):
                arguments.fail(f'{name}: "{min(unknown)}" is not a type of address')
            found += [tuple(kind for kind in _TYPES if kind in words), option is not None and option.negated]
        if not (found[0] or found[2]):
            arguments.fail("--src-type or --dst-type must be given")
        into, out = arguments.flag("--limit-iface-in"), arguments.flag("--limit-iface-out")
        if into and out:
            arguments.fail("--limit-iface-in and --limit-iface-out exclude each other")
        return cls(found[0], found[1], found[2], found[3], "in" if into else "out" if out else None)

    def print(self, family: Family) -> str:
        text = "-m addrtype"
        if self.source:
            text += f"{not_(self.source_not)}--src-type {','.join(self.source)}"
        if self.destination:
            text += f"{not_(self.destination_not)}--dst-type {','.join(self.destination)}"
        return f"{text} --limit-iface-{self.limit}" if self.limit else text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        device = skb.iif if self.limit == "in" else skb.oif if self.limit == "out" else None
        packet = skb.packet
        if self.source and _is(env, packet.src, device, self.source) == self.source_not:
            return False
        return not self.destination or _is(env, packet.dst, device, self.destination) != self.destination_not

    def lower(self) -> Sequence[Any]:
        if self.limit:
            return (Opaque("--limit-iface looks addresses up per device"),)
        if not all(
            len(types) == 1 and types[0] in _SAME_FOR_BOTH for types in (self.source, self.destination) if types
        ):
            return (Opaque("IPv4 asks for any of the types, IPv6 for all of them"),)
        parts = []
        if self.source:
            parts.append(Constraint(Column.SRC_TYPE, Kind.ONE_OF, frozenset(self.source), self.source_not))
        if self.destination:
            parts.append(Constraint(Column.DST_TYPE, Kind.ONE_OF, frozenset(self.destination), self.destination_not))
        return parts

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        # xt_addrtype refuses BROADCAST for IPv6, and BLACKHOLE, PROHIBIT and UNREACHABLE together with some kernels
        names = [name for name in _TYPES[1:6] if family is Family.IPV4 or name != "BROADCAST"]
        types = st.sets(st.sampled_from(names)).map(lambda s: tuple(n for n in _TYPES if n in s))
        side = st.tuples(types, st.booleans()).map(lambda t: t if t[0] else ((), False))
        pairs = st.tuples(side, side).filter(lambda p: p[0][0] or p[1][0])
        return pairs.map(lambda p: cls(*p[0], *p[1]))
