"""``-m state``: the older spelling of ``-m conntrack --ctstate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import CT_BITS, Column, Constraint, Kind
from netsim.packet.address import Family

_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED")


@dataclass(frozen=True, slots=True)
class State(Match):
    """Models revision 1 of the ``state`` alias in ``net/netfilter/xt_conntrack.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "state"
    options: ClassVar[dict[str, int]] = {"--state": 1}

    states: tuple[str, ...]
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        option = arguments.need("--state")
        words = {word.upper() for word in option.value.split(",")}
        if unknown := words - set(_STATES):
            arguments.fail(f'--state: "{min(unknown)}" is not a state')
        return cls(tuple(state for state in _STATES if state in words), option.negated)

    def print(self, family: Family) -> str:
        return f"-m state{not_(self.negated)}--state {','.join(self.states)}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        return (skb.ct_state in self.states) != self.negated

    def lower(self) -> Sequence[Any]:
        mask = sum(CT_BITS[state] for state in self.states)
        return (Constraint(Column.CT_STATE, Kind.ANY_BIT, mask, self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        states = st.sets(st.sampled_from(_STATES), min_size=1).map(lambda s: tuple(n for n in _STATES if n in s))
        return st.builds(cls, states, st.booleans())
