"""``-j MARK``: changes the packet's mark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.linux.netfilter.target import _marks
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Mark(Target):
    """Models revision 2 of ``net/netfilter/xt_mark.c`` (Linux 6.1 and 6.18): mark = (mark & ~mask) ^ value."""

    name: ClassVar[str] = "MARK"
    options: ClassVar[dict[str, int]] = dict.fromkeys(
        ("--set-xmark", "--set-mark", "--or-mark", "--xor-mark", "--and-mark"), 1
    )
    terminates: ClassVar[bool] = False

    value: int
    mask: int = 0xFFFFFFFF

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        found = _marks.read(arguments, tuple(cls.options))
        if found is None:
            arguments.fail("exactly one option must be given")
        return cls(*found)

    def print(self, family: Family) -> str:
        return f"-j MARK --set-xmark {self.value:#x}/{self.mask:#x}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        skb.mark = (skb.mark & ~self.mask) ^ self.value
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("mark", (self.mask, self.value))

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        bits = st.one_of(st.sampled_from((0, 0x4000, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF))
        return st.builds(cls, bits, bits)
