"""``-m physdev``: bridge ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind, Opaque
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class PhysDev(Match):
    """Models ``net/netfilter/xt_physdev.c`` (Linux 6.1 and 6.18): a packet that does not cross a bridge has no ports.

    Each of ``is_in``, ``is_out``, ``is_bridged`` is None (not asked), True, or False (negated)."""

    name: ClassVar[str] = "physdev"
    options: ClassVar[dict[str, int]] = {
        "--physdev-in": 1, "--physdev-out": 1, "--physdev-is-in": 0, "--physdev-is-out": 0, "--physdev-is-bridged": 0,
    }  # fmt: skip

    into: str | None = None
    into_not: bool = False
    out: str | None = None
    out_not: bool = False
    is_in: bool | None = None
    is_out: bool | None = None
    is_bridged: bool | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        into, out = arguments.get("--physdev-in"), arguments.get("--physdev-out")
        asked = [arguments.get(f"--physdev-is-{what}") for what in ("in", "out", "bridged")]
        if not any((into, out, *asked)):
            arguments.fail("at least one option must be given")
        return cls(
            into.value if into else None,
            into is not None and into.negated,
            out.value if out else None,
            out is not None and out.negated,
            *[None if option is None else not option.negated for option in asked],
        )

    def print(self, family: Family) -> str:
        text = "-m physdev"
        if self.is_in is not None:
            text += f"{not_(not self.is_in)}--physdev-is-in"
        if self.into is not None:
            text += f"{not_(self.into_not)}--physdev-in {self.into}"
        if self.is_out is not None:
            text += f"{not_(not self.is_out)}--physdev-is-out"
        if self.out is not None:
            text += f"{not_(self.out_not)}--physdev-out {self.out}"
        if self.is_bridged is not None:
            text += f"{not_(not self.is_bridged)}--physdev-is-bridged"
        return text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        asked = ((self.is_in, skb.physin), (self.is_out, skb.physout))
        if any(wanted is not None and wanted != bool(device) for wanted, device in asked):
            return False
        if self.is_bridged is not None and self.is_bridged != (bool(skb.physin) and bool(skb.physout)):
            return False
        return _fits(self.into, self.into_not, skb.physin) and _fits(self.out, self.out_not, skb.physout)

    def lower(self) -> Sequence[Any]:
        parts: list[Any] = []
        if self.is_bridged is False:
            return (Opaque("not bridged is a disjunction over two columns"),)
        for column, wanted in ((Column.PHYSIN, self.is_in), (Column.PHYSOUT, self.is_out)):
            if wanted is not None or self.is_bridged:
                parts.append(Constraint(column, Kind.EQUAL, "", wanted is not False))
            if wanted is False and self.is_bridged:
                parts.append(Constraint(column, Kind.EQUAL, "", True))
        for column, name, negated in (
            (Column.PHYSIN, self.into, self.into_not),
            (Column.PHYSOUT, self.out, self.out_not),
        ):
            if name is not None:
                prefix = name.endswith("+")
                kind = Kind.PREFIX if prefix else Kind.EQUAL
                parts.append(Constraint(column, kind, name[:-1] if prefix else name, negated))
        return parts

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        device = st.one_of(
            st.just((None, False)), st.tuples(st.sampled_from(("eth0", "veth+", "cali1")), st.booleans())
        )
        ask = st.sampled_from((None, True, False))
        # --physdev-out and -is-out are legal only where bridged packets alone pass, so -is-bridged goes with them here
        into = st.tuples(device, ask).map(lambda t: cls(t[0][0], t[0][1], None, False, t[1]))
        both = st.tuples(device, device, ask, ask).map(lambda t: cls(t[0][0], t[0][1], t[1][0], t[1][1], *t[2:], True))
        return st.one_of(into.filter(lambda m: m.into is not None or m.is_in is not None), both)


def _fits(name: str | None, negated: bool, device: str | None) -> bool:
    if name is None:
        return True
    have = device or ""
    return (have.startswith(name[:-1]) if name.endswith("+") else have == name) != negated
