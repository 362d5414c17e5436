"""``-m comment``: text for readers; always true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, quote
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class Comment(Match):
    """Models ``net/netfilter/xt_comment.c`` (Linux 6.1 and 6.18), which accepts every packet."""

    name: ClassVar[str] = "comment"
    options: ClassVar[dict[str, int]] = {"--comment": 1}

    text: str

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        text = arguments.need("--comment").value
        arguments.plain("--comment")
        if len(text.encode()) > 255:
            arguments.fail("--comment: longer than 255 bytes")
        return cls(text)

    def print(self, family: Family) -> str:
        return f"-m comment --comment {quote(self.text)}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return True

    def lower(self) -> Sequence[Any]:
        return ()

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.builds(cls, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
