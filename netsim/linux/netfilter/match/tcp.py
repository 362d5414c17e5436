"""``-m tcp``: ports, flags and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, HotDrop, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind, Opaque
from netsim.linux.netfilter.match import _ports
from netsim.packet.address import Family
from netsim.packet.model import Tcp as Header

_NAMES = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32}


def _flags(arguments: Arguments, text: str) -> int:
    if text in ("ALL", "NONE"):
        return 63 if text == "ALL" else 0
    value = 0
    for name in text.split(","):
        if name.upper() not in _NAMES:
            arguments.fail(f'--tcp-flags: "{name}" is not a flag')
        value |= _NAMES[name.upper()]
    return value


def _show(flags: int) -> str:
    return ",".join([name for name, bit in _NAMES.items() if flags & bit]) or "NONE"


def _has_option(data: bytes, wanted: int) -> bool:
    at = 0
    while at < len(data):
        if data[at] == wanted:
            return True
        at += 1 if data[at] < 2 else (data[at + 1] if at + 1 < len(data) else 0) or 1
    return False


@dataclass(frozen=True, slots=True)
class Tcp(Match):
    """Models ``net/netfilter/xt_tcpudp.c`` (Linux 6.1 and 6.18). Non-first fragments never match; one at offset 8, which
    could overwrite the flags, is dropped on the spot."""

    name: ClassVar[str] = "tcp"
    options: ClassVar[dict[str, int]] = {**_ports.OPTIONS, "--tcp-flags": 2, "--syn": 0, "--tcp-option": 1}
    aliases: ClassVar[dict[str, str]] = _ports.ALIASES
    protocols: ClassVar[tuple[int, ...]] = (6,)

    sport: _ports.Ports = _ports.EVERY
    sport_not: bool = False
    dport: _ports.Ports = _ports.EVERY
    dport_not: bool = False
    flags_mask: int = 0
    flags: int = 0
    flags_not: bool = False
    option: int | None = None
    option_not: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        mask = flags = 0
        flags_not = False
        given = arguments.get("--tcp-flags")
        syn = arguments.get("--syn")
        if given is not None and syn is not None:
            arguments.fail("--syn and --tcp-flags exclude each other")
        if given is not None:
            mask, flags, flags_not = *(_flags(arguments, text) for text in given.values), given.negated
        elif syn is not None:
            mask, flags, flags_not = 0x17, 0x02, syn.negated
        option = arguments.get("--tcp-option")
        return cls(
            *_ports.read(arguments, "--sport"),
            *_ports.read(arguments, "--dport"),
            mask,
            flags,
            flags_not,
            None if option is None else arguments.number(option.value, 255, "--tcp-option", 1),
            option is not None and option.negated,
        )

    def print(self, family: Family) -> str:
        text = f"-m tcp{_ports.show('--sport', self.sport, self.sport_not)}"
        text += _ports.show("--dport", self.dport, self.dport_not)
        if self.option is not None:
            text += f"{not_(self.option_not)}--tcp-option {self.option}"
        if self.flags_mask or self.flags_not:
            text += f"{not_(self.flags_not)}--tcp-flags {_show(self.flags_mask)} {_show(self.flags)}"
        return text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        packet = skb.packet
        if packet.fragment_offset:
            if packet.fragment_offset == 8:
                raise HotDrop
            return False
        body = packet.body
        if not isinstance(body, Header):
            return False
        if not (
            _ports.ok(body.sport, self.sport, self.sport_not) and _ports.ok(body.dport, self.dport, self.dport_not)
        ):
            return False
        if (self.flags_mask or self.flags_not) and (
            (int(body.flags) & self.flags_mask) == self.flags
        ) == self.flags_not:
            return False
        return self.option is None or _has_option(body.options, self.option) != self.option_not

    def lower(self) -> Sequence[Any]:
        parts: list[Any] = [
            *_ports.constraint(Column.SPORT, self.sport, self.sport_not),
            *_ports.constraint(Column.DPORT, self.dport, self.dport_not),
            Constraint(Column.TCP_FLAGS, Kind.MASKED, (self.flags, self.flags_mask), self.flags_not),
        ]
        return parts if self.option is None else [*parts, Opaque("--tcp-option looks into TCP options")]

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        flags = st.one_of(
            st.just((0, 0, False)),
            st.tuples(st.integers(1, 63), st.integers(0, 63), st.booleans()).map(lambda f: (f[0], f[0] & f[1], f[2])),
        )
        option = st.one_of(st.just((None, False)), st.tuples(st.integers(1, 255), st.booleans()))
        parts = st.tuples(_ports.strategy(), _ports.strategy(), flags, option)
        return parts.map(lambda drawn: cls(*chain.from_iterable(drawn)))
