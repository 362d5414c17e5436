"""The chains that all Services share, KUBE-SERVICES above all: put together from what each service port contributes.

    KUBE-SERVICES    [before] · rules of a/b:http · rules of a/c:http · … · [after]

A change of few Services is spliced in: the rules that stay are the same objects, and copying ten thousand references takes
some microseconds. A chain that is made from nothing is a change of all Services.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from netsim.linux.netfilter.rule import Chain, Rule

Key = tuple[str, str]  # a service port's name and protocol


@dataclass(frozen=True, eq=False)
class SharedChain:
    """``keys``: which service port each of ``rules`` belongs to, ascending."""

    name: str
    before: tuple[Rule, ...] = ()
    after: tuple[Rule, ...] = ()
    rules: Sequence[Rule] = ()
    keys: Sequence[Key] = field(default=(), repr=False)

    @cached_property
    def chain(self) -> Chain:
        return Chain(self.name, (*self.before, *self.rules, *self.after))

    def spliced(self, changes: Mapping[Key, tuple[Rule, ...]]) -> SharedChain:
        """With other rules for these service ports. The same object if they are the very rules that it has."""
        rules: list[Rule] = []
        keys: list[Key] = []
        at, changed = 0, False
        for key in sorted(changes):
            fresh = changes[key]
            first = bisect_left(self.keys, key, at)
            last = bisect_right(self.keys, key, first)
            changed |= len(fresh) != last - first or any(a is not b for a, b in zip(fresh, self.rules[first:last]))
            rules += self.rules[at:first]
            rules += fresh
            keys += self.keys[at:first]
            keys += [key] * len(fresh)
            at = last
        if not changed:
            return self
        rules += self.rules[at:]
        keys += self.keys[at:]
        return SharedChain(self.name, self.before, self.after, rules, keys)
