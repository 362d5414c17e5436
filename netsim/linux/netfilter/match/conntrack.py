"""``-m conntrack``: the packet's state and its conntrack entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, Option, not_, ports_text
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import CT_BITS, Column, Constraint, Kind, Opaque, ct_bits
from netsim.linux.netfilter.protocols import protocol_number
from netsim.packet.address import Family, IPNetwork, network

_TUPLE = ("--ctproto", "--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst")
_PORTS = ("--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport")
_STATES = tuple(CT_BITS)
_STATUS = ("EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED")


@dataclass(frozen=True, slots=True)
class Conntrack(Match):
    """Models revision 3 of ``net/netfilter/xt_conntrack.c`` (Linux 6.1 and 6.18).

    ``tuples`` holds the options about the entry in printed order: (option, value, negated) with the value a protocol
    number, a prefix, a range of ports or the names of status bits. An entry offers ``original`` and ``reply`` with
    ``src``, ``dst``, ``sport``, ``dport`` and ``proto``, and its status bits as ``expected``, ``seen_reply``, ``assured``
    and ``confirmed``. Without an entry, the state alone decides if it is asked for. ``--ctexpire`` is refused.
    """

    name: ClassVar[str] = "conntrack"
    options: ClassVar[dict[str, int]] = dict.fromkeys(("--ctstate", "--ctdir", "--ctstatus", *_TUPLE, *_PORTS), 1)

    states: tuple[str, ...] = ()
    states_not: bool = False
    tuples: tuple[tuple[str, Any, bool], ...] = ()
    direction: str | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.get("--ctstate")
        words = {word.upper() for word in option.value.split(",")} if option else set()
        if unknown := words - set(_STATES):
            arguments.fail(f'--ctstate: "{min(unknown)}" is not a state')
        tuples = tuple(
            (name, _value(arguments, given), given.negated)
            for name in (*_TUPLE, *_PORTS, "--ctstatus")
            if (given := arguments.get(name)) is not None
        )
        direction = arguments.text("--ctdir")
        if direction not in (None, "ORIGINAL", "REPLY"):
            arguments.fail(f'--ctdir: "{direction}" is neither ORIGINAL nor REPLY')
        if not (option or tuples or direction):
            arguments.fail("at least one option must be given")
        states = tuple([state for state in _STATES if state in words])
        return cls(states, option is not None and option.negated, tuples, direction)

    def print(self, family: Family) -> str:
        text = "-m conntrack"
        if self.states:
            text += f"{not_(self.states_not)}--ctstate {','.join(self.states)}"
        for name, value, negated in self.tuples:
            text += f"{not_(negated)}{name} {_show(value)}"
        return f"{text} --ctdir {self.direction}" if self.direction else text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        if self.states:
            mask = sum([CT_BITS[state] for state in self.states])
            if bool(ct_bits(skb) & mask) == self.states_not:
                return False
        if not (self.tuples or self.direction):
            return True
        entry = skb.ct
        if entry is None:
            return bool(self.states)
        if self.direction and (self.direction == "REPLY") != skb.ct_reply:
            return False
        return all(_fits(entry, name, value) != negated for name, value, negated in self.tuples)

    def lower(self) -> Sequence[Any]:
        parts: list[Any] = []
        if self.states:
            mask = sum(CT_BITS[state] for state in self.states)
            parts.append(Constraint(Column.CT_STATE, Kind.ANY_BIT, mask, self.states_not))
        if self.tuples or self.direction:
            parts.append(Opaque("the conntrack entry's tuples are not packet columns"))
        return parts

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        states = st.sets(st.sampled_from(_STATES), min_size=1).map(lambda s: tuple(n for n in _STATES if n in s))
        prefixes = ("10.0.0.0/8", "10.1.2.3") if family is Family.IPV4 else ("fd00::/64", "fd00::1")
        values: dict[str, Any] = {name: st.sampled_from([network(p) for p in prefixes]) for name in _TUPLE[1:]}
        port = st.integers(0, 65535)
        values |= {
            name: st.one_of(port.map(lambda p: (p, p)), st.tuples(port, port).map(lambda p: (min(p), max(p))))
            for name in _PORTS
        }
        values["--ctstatus"] = st.frozensets(st.sampled_from(_STATUS))
        values["--ctproto"] = st.sampled_from((6, 17, 132))

        def entry(names: set[str]) -> Any:
            return st.tuples(
                *[
                    st.tuples(st.just(n), values[n], st.booleans())
                    for n in (*_TUPLE, *_PORTS, "--ctstatus")
                    if n in names or (n == "--ctproto" and names & set(_PORTS))
                ]
            )

        tuples = st.sets(st.sampled_from((*_TUPLE, *_PORTS, "--ctstatus")), max_size=4).flatmap(entry)
        some = st.builds(cls, states, st.booleans(), tuples, st.sampled_from((None, "ORIGINAL", "REPLY")))
        return st.one_of(st.builds(cls, states, st.booleans()), some)


def _value(arguments: Arguments, option: Option) -> Any:
    text = option.value
    if option.name == "--ctproto":
        try:
            return protocol_number(text)
        except ValueError:
            arguments.fail(f'--ctproto: protocol "{text}" is not known')
    if option.name == "--ctstatus":
        words = {word.upper() for word in text.split(",")}
        if unknown := words - {"NONE", *_STATUS}:
            arguments.fail(f'--ctstatus: "{min(unknown)}" is none of NONE, {", ".join(_STATUS)}')
        return frozenset(words - {"NONE"})
    if option.name in _PORTS:
        return arguments.range(text, name=option.name)
    try:
        prefix = network(text)
    except ValueError:
        arguments.fail(f'{option.name}: "{text}" is not an address or a prefix')
    if prefix.version != int(arguments.family):
        arguments.fail(f'{option.name}: "{text}" is not IPv{int(arguments.family)}')
    return prefix


def _show(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return ports_text(*value)
    if isinstance(value, frozenset):
        return ",".join([word for word in _STATUS if word in value]) or "NONE"
    prefix: IPNetwork = value
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


def _fits(entry: Any, name: str, value: Any) -> bool:
    if name == "--ctproto":
        return bool(entry.original.proto == value)
    if name == "--ctstatus":
        return any(getattr(entry, word.lower()) for word in value)
    side = entry.original if name.startswith("--ctorig") else entry.reply
    end = name[len("--ctorig") :]
    have = getattr(side, {"src": "src", "dst": "dst", "srcport": "sport", "dstport": "dport"}[end])
    if name in _PORTS:
        return have is not None and value[0] <= have <= value[1]
    return have in value
