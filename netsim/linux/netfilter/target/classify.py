"""``-j CLASSIFY``: the traffic class; no effect on where a packet goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Classify(Target):
    """Models ``net/netfilter/xt_CLASSIFY.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "CLASSIFY"
    options: ClassVar[dict[str, int]] = {"--set-class": 1}
    terminates: ClassVar[bool] = False

    major: int
    minor: int

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--set-class")
        text = arguments.text("--set-class") or ""
        try:
            major, minor = [int(word, 16) for word in text.split(":")]
        except ValueError:
            major = minor = -1
        if not (0 <= major <= 0xFFFF and 0 <= minor <= 0xFFFF):
            arguments.fail(f'--set-class: "{text}" is not MAJOR:MINOR, both hexadecimal')
        return cls(major, minor)

    def print(self, family: Family) -> str:
        return f"-j CLASSIFY --set-class {self.major:04x}:{self.minor:04x}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("none")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
