"""``-j NFQUEUE``: to a program in user space, which decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect, Opaque
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class NfQueue(Target):
    """Models revision 3 of ``net/netfilter/xt_NFQUEUE.c`` and ``nf_queue`` (Linux 6.1 and 6.18). Nobody listens: the
    packet is dropped or, with ``bypass``, goes on behind this table."""

    name: ClassVar[str] = "NFQUEUE"
    options: ClassVar[dict[str, int]] = {
        "--queue-num": 1, "--queue-balance": 1, "--queue-bypass": 0, "--queue-cpu-fanout": 0,
    }  # fmt: skip

    first: int = 0
    last: int = 0
    bypass: bool = False
    fanout: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        balance, number = arguments.text("--queue-balance"), arguments.integer("--queue-num", 65535)
        fanout = arguments.flag("--queue-cpu-fanout")
        if balance is not None and number is not None:
            arguments.fail("--queue-num and --queue-balance exclude each other")
        if fanout and balance is None:
            arguments.fail("--queue-cpu-fanout needs --queue-balance")
        first = last = number or 0
        if balance is not None:
            first, last = arguments.range(balance, name="--queue-balance")
            if first == last:
                arguments.fail(f'--queue-balance: "{balance}" is not a range of queues')
        return cls(first, last, arguments.flag("--queue-bypass"), fanout)

    def print(self, family: Family) -> str:
        if self.first == self.last:
            text = f"-j NFQUEUE --queue-num {self.first}"
        else:
            text = f"-j NFQUEUE --queue-balance {self.first}:{self.last}"
        text += " --queue-bypass" if self.bypass else ""
        return f"{text} --queue-cpu-fanout" if self.fanout else text

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.QUEUE if self.bypass else Verdict.DROP

    def lower(self) -> Any:
        return Opaque("NFQUEUE is passed by") if self.bypass else Effect("verdict", Verdict.DROP)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        number = st.integers(0, 65535)
        one = number.flatmap(lambda n: st.builds(cls, st.just(n), st.just(n), st.booleans()))
        pair = st.tuples(number, number).filter(lambda p: p[0] < p[1])
        return st.one_of(one, st.tuples(pair, st.booleans(), st.booleans()).map(lambda t: cls(*t[0], *t[1:])))
