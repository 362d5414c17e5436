"""``-j TCPMSS``: the largest segment a SYN announces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect, Opaque
from netsim.packet.address import Family
from netsim.packet.model import Tcp


@dataclass(frozen=True, slots=True)
class TcpMss(Target):
    """Models ``net/netfilter/xt_TCPMSS.c`` (Linux 6.1 and 6.18). A number is set where the packet announces a larger one
    or, in a segment without data, none (then at most 536, or 1220 for IPv6). ``mss`` None clamps to the path MTU: that
    leaves the packet alone here, because no emulated connection sends a segment too long for its path.
    """

    name: ClassVar[str] = "TCPMSS"
    options: ClassVar[dict[str, int]] = {"--set-mss": 1, "--clamp-mss-to-pmtu": 0}
    terminates: ClassVar[bool] = False

    mss: int | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        mss = arguments.integer("--set-mss", 65535 - 40)
        if (mss is None) != arguments.flag("--clamp-mss-to-pmtu"):
            arguments.fail("exactly one of --set-mss and --clamp-mss-to-pmtu must be given")
        return cls(mss)

    def print(self, family: Family) -> str:
        return "-j TCPMSS --clamp-mss-to-pmtu" if self.mss is None else f"-j TCPMSS --set-mss {self.mss}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        body = skb.packet.body
        if self.mss is not None and isinstance(body, Tcp) and not skb.packet.fragment_offset:
            options = _announce(body, self.mss, 536 if skb.packet.family is Family.IPV4 else 1220)
            if options != body.options:
                skb.packet = replace(skb.packet, body=replace(body, options=options))
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("none") if self.mss is None else Opaque("TCPMSS changes TCP options")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.one_of(st.none(), st.integers(0, 65495)))


def _announce(segment: Tcp, mss: int, most: int) -> bytes:
    options = segment.options
    at = 0
    while at + 4 <= len(options):
        if options[at] == 2 and options[at + 1] == 4:
            if int.from_bytes(options[at + 2 : at + 4], "big") <= mss:
                return options
            return options[: at + 2] + mss.to_bytes(2, "big") + options[at + 4 :]
        at += 1 if options[at] < 2 else max(options[at + 1], 1)
    if segment.payload or len(options) >= 40:
        return options
    return bytes((2, 4)) + min(mss, most).to_bytes(2, "big") + options
