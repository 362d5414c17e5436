"""``-m ipvs``: is the packet one that IPVS handles, and of which connection?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Opaque
from netsim.linux.netfilter.protocols import protocol_number
from netsim.packet.address import Family, IPNetwork, network

_METHODS = ("GATE", "IPIP", "MASQ")
Asked = tuple[str, Any, bool]  # option, value, negated


@dataclass(frozen=True, slots=True)
class Ipvs(Match):
    """Models ``net/netfilter/xt_ipvs.c`` (Linux 6.1 and 6.18). ``asked`` holds the options in printed order; empty, only
    the packet's IPVS property counts and ``negated`` turns it round. ``Skb.ipvs`` is the IPVS connection with ``vaddr``,
    ``vport`` and ``method`` (one of GATE, IPIP, MASQ), or None. ``--vportctl`` is refused.
    """

    name: ClassVar[str] = "ipvs"
    options: ClassVar[dict[str, int]] = {
        "--ipvs": 0, "--vproto": 1, "--vaddr": 1, "--vport": 1, "--vdir": 1, "--vmethod": 1,
    }  # fmt: skip

    negated: bool = False
    asked: tuple[Asked, ...] = ()

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        asked = [
            (name, _value(arguments, name, option.value), option.negated)
            for name in tuple(cls.options)[1:]
            if (option := arguments.get(name))
        ]
        arguments.plain("--vdir")
        given = arguments.get("--ipvs")
        if given is None and not asked:
            arguments.fail("at least one option must be given")
        if given is not None and given.negated and asked:
            arguments.fail("! --ipvs excludes every other option")
        return cls(given is not None and given.negated, tuple(asked))

    def print(self, family: Family) -> str:
        if not self.asked:
            return f"-m ipvs{not_(self.negated)}--ipvs"
        return "-m ipvs" + "".join([f"{not_(negated)}{name} {_show(value)}" for name, value, negated in self.asked])

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        if not self.asked:
            return (skb.ipvs is not None) != self.negated
        return skb.ipvs is not None and all(_fits(skb, name, value) != negated for name, value, negated in self.asked)

    def lower(self) -> Sequence[Any]:
        return (Opaque("ipvs asks for the IPVS connection"),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        prefixes = ("10.96.0.1/32", "10.96.0.0/16") if family is Family.IPV4 else ("fd00::1/128", "fd00::/64")
        values = {
            "--vproto": st.sampled_from((6, 17, 132)),
            "--vaddr": st.sampled_from([network(prefix) for prefix in prefixes]),
            "--vport": st.integers(0, 65535),
            "--vdir": st.sampled_from(("ORIGINAL", "REPLY")),
            "--vmethod": st.sampled_from(_METHODS),
        }

        def fill(names: set[str]) -> Any:
            used = [name for name in values if name in names]
            negations = {name: st.just(False) if name == "--vdir" else st.booleans() for name in used}
            return st.tuples(*[st.tuples(st.just(name), values[name], negations[name]) for name in used])

        some = st.sets(st.sampled_from(list(values)), min_size=1).flatmap(fill).map(lambda asked: cls(False, asked))
        return st.one_of(st.builds(cls, st.booleans()), some)


def _value(arguments: Arguments, name: str, text: str) -> Any:
    if name == "--vport":
        return arguments.number(text, 65535, name)
    if name == "--vdir":
        if text.upper() not in ("ORIGINAL", "REPLY"):
            arguments.fail(f'--vdir: "{text}" is neither ORIGINAL nor REPLY')
        return text.upper()
    if name == "--vmethod":
        if text.upper() not in _METHODS:
            arguments.fail(f'--vmethod: "{text}" is none of {", ".join(_METHODS)}')
        return text.upper()
    try:
        if name == "--vproto":
            return protocol_number(text)
        prefix = network(text)
    except ValueError:
        arguments.fail(f'{name}: "{text}" is not known')
    if prefix.version != int(arguments.family):
        arguments.fail(f'{name}: "{text}" is not IPv{int(arguments.family)}')
    return prefix


def _show(value: Any) -> str:
    if isinstance(value, int | str):
        return str(value)
    prefix: IPNetwork = value
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


def _fits(skb: Skb, name: str, value: Any) -> bool:
    match name:
        case "--vproto":
            return bool(skb.packet.proto == value)
        case "--vaddr":
            return skb.ipvs.vaddr in value
        case "--vport":
            return bool(skb.ipvs.vport == value)
        case "--vdir":
            return skb.ct is not None and skb.ct_reply == (value == "REPLY")
        case _:
            return bool(skb.ipvs.method == value)
