"""``-j SET``: adds the packet to a set, or takes it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Opaque
from netsim.linux.netfilter.match import _sets
from netsim.packet.address import Family

Change = tuple[str, tuple[str, ...]]  # set, sides


@dataclass(frozen=True, slots=True)
class Set(Target):
    """Models ``net/netfilter/xt_set.c`` (Linux 6.1 and 6.18). ``--map-set`` is refused."""

    name: ClassVar[str] = "SET"
    options: ClassVar[dict[str, int]] = {"--add-set": 2, "--del-set": 2, "--exist": 0, "--timeout": 1}
    terminates: ClassVar[bool] = False

    add: Change | None = None
    remove: Change | None = None
    exist: bool = False
    timeout: int | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        changes: list[Change | None] = []
        for name in ("--add-set", "--del-set"):
            option = arguments.plain(name)
            if option is None:
                changes.append(None)
            else:
                changes.append((option.value, _sets.dimensions(arguments, option.value, option.values[1])))
        if changes == [None, None]:
            arguments.fail("--add-set or --del-set must be given")
        exist, timeout = arguments.flag("--exist"), arguments.integer("--timeout", 0xFFFFFFFE)
        if changes[0] is None and (exist or timeout is not None):
            arguments.fail("--exist and --timeout belong to --add-set")
        return cls(changes[0], changes[1], exist, timeout)

    def print(self, family: Family) -> str:
        text = "-j SET"
        if self.add is not None:
            text += f" --add-set {self.add[0]} {','.join(self.add[1])}"
            text += " --exist" if self.exist else ""
            text += "" if self.timeout is None else f" --timeout {self.timeout}"
        return text if self.remove is None else f"{text} --del-set {self.remove[0]} {','.join(self.remove[1])}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        if self.add is not None:
            env.change_set(self.add[0], _sets.elements(skb, self.add[1]), True, self.timeout, self.exist)
        if self.remove is not None:
            env.change_set(self.remove[0], _sets.elements(skb, self.remove[1]), False, None, False)
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Opaque("SET changes a set")

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        sides = st.lists(st.sampled_from(("src", "dst")), min_size=3, max_size=3).map(tuple)
        change = st.tuples(st.sampled_from(("netsim-a", "netsim-b")), sides)
        timeout = st.one_of(st.none(), st.integers(0, 100000))
        adding = st.builds(cls, change, st.one_of(st.none(), change), st.booleans(), timeout)
        return st.one_of(adding, st.builds(cls, st.none(), change))
