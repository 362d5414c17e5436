"""``-j LOG``: a line in the kernel log; the packet goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, quote
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family

_FLAGS = ("--log-tcp-sequence", "--log-tcp-options", "--log-ip-options", "--log-uid", "--log-macdecode")
_LEVELS = ("emerg", "alert", "crit", "error", "warning", "notice", "info", "debug")
_OTHER = {"panic": 0, "err": 3, "warn": 4}


@dataclass(frozen=True, slots=True)
class Log(Target):
    """Models ``net/netfilter/xt_LOG.c`` (Linux 6.1 and 6.18): no effect on the packet. ``flags`` are printed as given."""

    name: ClassVar[str] = "LOG"
    options: ClassVar[dict[str, int]] = {"--log-prefix": 1, "--log-level": 1, **dict.fromkeys(_FLAGS, 0)}
    terminates: ClassVar[bool] = False

    prefix: str = ""
    level: int = 4
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        prefix = arguments.text("--log-prefix", "") or ""
        if len(prefix) > 29 or "\n" in prefix:
            arguments.fail("--log-prefix: longer than 29 characters, or with a line feed")
        text = (arguments.text("--log-level", "4") or "").lower()
        level = _LEVELS.index(text) if text in _LEVELS else _OTHER.get(text)
        if level is None:
            level = arguments.number(text, 7, "--log-level")
        return cls(prefix, level, tuple([flag for flag in _FLAGS if arguments.flag(flag)]))

    def print(self, family: Family) -> str:
        text = "-j LOG"
        if self.prefix:
            text += f" --log-prefix {quote(self.prefix)}"
        if self.level != 4:
            text += f" --log-level {self.level}"
        return " ".join([text, *self.flags])

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("none")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        prefix = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=29)
        flags = st.sets(st.sampled_from(_FLAGS)).map(lambda s: tuple(f for f in _FLAGS if f in s))
        return st.builds(cls, prefix, st.integers(0, 7), flags)
