"""``-j NFLOG``: a copy for a listener in user space; the packet goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, quote
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class NfLog(Target):
    """Models ``net/netfilter/xt_NFLOG.c`` (Linux 6.1 and 6.18): no effect on the packet. ``--nflog-range``, which never
    worked, is refused."""

    name: ClassVar[str] = "NFLOG"
    options: ClassVar[dict[str, int]] = dict.fromkeys(
        ("--nflog-group", "--nflog-prefix", "--nflog-size", "--nflog-threshold"), 1
    )
    terminates: ClassVar[bool] = False

    group: int = 0
    prefix: str = ""
    size: int | None = None
    threshold: int = 0

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        prefix = arguments.text("--nflog-prefix", "") or ""
        if len(prefix) > 63 or "\n" in prefix:
            arguments.fail("--nflog-prefix: longer than 63 characters, or with a line feed")
        return cls(
            arguments.integer("--nflog-group", 65535) or 0,
            prefix,
            arguments.integer("--nflog-size", 0xFFFFFFFF),
            arguments.integer("--nflog-threshold", 65535) or 0,
        )

    def print(self, family: Family) -> str:
        text = "-j NFLOG"
        if self.prefix:
            text += f" --nflog-prefix {quote(self.prefix)}"
        if self.group:
            text += f" --nflog-group {self.group}"
        if self.size is not None:
            text += f" --nflog-size {self.size}"
        return f"{text} --nflog-threshold {self.threshold}" if self.threshold else text

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("none")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        prefix = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=63)
        number = st.integers(0, 65535)
        return st.builds(cls, number, prefix, st.one_of(st.none(), number), number)
