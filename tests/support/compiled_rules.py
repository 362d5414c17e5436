"""Compiled walks beside the interpreter's: the same table, packet and world; the interpreter follows the draws."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from netsim.compiled import registers as r
from netsim.compiled.addresses import Addresses
from netsim.compiled.names import Names
from netsim.compiled.programs import NEEDS_TYPES, scratch
from netsim.compiled.recent_table import RecentTable, commit
from netsim.compiled.rule_compiler import RuleCompiler
from netsim.compiled.walk import walk as compiled_walk
from netsim.linux.ipset import IpSet
from netsim.linux.netfilter.base import Action, CtState, Hook, Nat, Reject, Verdict
from netsim.linux.netfilter.lowering import Column, columns_of
from netsim.linux.netfilter.table import Table
from netsim.linux.netfilter.walk import walk
from netsim.packet.address import Family, IPAddress
from netsim.packet.model import Packet

NAMED = (Column.IIF, Column.OIF, Column.PHYSIN, Column.PHYSOUT)
CODES = {r.ACCEPT: Verdict.ACCEPT, r.DROP: Verdict.DROP}


class World:
    """The environment of one walk. Questions are answered as a compiled walk's draws say."""

    def __init__(self, family: Family, hook: Hook, table: str, sets: Mapping[str, IpSet], now: float = 0.0) -> None:
        self.family, self.hook, self.table, self.now = family, hook, table, now
        self.sets = sets
        self.recents: dict[str, dict[IPAddress, list[float]]] = {}
        self.rates: dict[object, dict[str, float]] = {}
        self.answers: list[bool] = []

    def address_type(self, address: IPAddress, device: str | None = None) -> str:
        if address.is_multicast:
            return "MULTICAST"
        if self.family is Family.IPV4 and int(address) & 255 == 255:
            return "BROADCAST"
        return "LOCAL" if int(address) % 2 else "UNICAST"

    def chance(self, probability: float, why: str) -> bool:
        assert 0 < probability < 1
        return self.answers.pop(0)

    def in_set(self, name: str, elements: Sequence[Any]) -> bool:
        return self.sets[name].contains(elements, self.sets)

    def recent(self, name: str) -> dict[IPAddress, list[float]]:
        return self.recents.setdefault(name, {})

    def count(self, name: str) -> None:
        pass

    def rate(self, key: object) -> dict[str, float]:
        return self.rates.setdefault(key, {})

    def reverse_path_ok(self, skb: Any, loose: bool, accept_local: bool) -> bool:
        return True


def buffer(packet: Packet, **more: Any) -> Any:
    """What rules look at. A namespace, because an Skb's connection is any object."""
    given = {
        "iif": None, "oif": None, "physin": None, "physout": None, "mark": 0, "ct": None, "ct_state": CtState.INVALID,
        "ct_reply": False, "ipvs": None, "source_mac": None, "owner": None,
    }  # fmt: skip
    return SimpleNamespace(packet=packet, **{**given, **more})


@dataclass(frozen=True)
class Answer:
    """All that a walk says. ``hits``: (chain, number of the rule)."""

    action: Action
    policy: bool
    evaluated: int
    hits: tuple[tuple[str, int], ...]
    mark: int
    ct_mark: int | None
    notrack: bool


@dataclass
class Engine:
    """One compiler with its state, for any number of tables."""

    addresses: Addresses = field(default_factory=Addresses)
    names: Names = field(default_factory=Names)
    recent: RecentTable = field(default_factory=RecentTable)
    seed: int = 7
    reasons: list[str] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    faults: int = 0
    types: int = 0  # how often a walk asked what addresses are
    namespace: str = "somewhere"

    def __post_init__(self) -> None:
        self.compiler = RuleCompiler(self.addresses, self.names)
        self.scratch = scratch()

    def registers(self, skb: Any, world: Any, serial: int, types: bool) -> Any:
        found = np.zeros(r.SIZE, np.uint32)
        for number, (column, value) in enumerate(columns_of(skb, world).items()):
            if value is None:
                continue
            if column in NAMED:
                value = self.names.number(value)
            elif column in (Column.SRC_TYPE, Column.DST_TYPE):
                value = r.ADDRESS_TYPES[value] if types else 0
            elif column is Column.SRC:
                value = self.addresses.handle(skb.packet.src)
            elif column is Column.DST:
                value = self.addresses.handle(skb.packet.dst)
            found[number] = value
            found[r.HAS] |= np.uint32(1 << number)
        found[r.FAMILY], found[r.NAMESPACE] = int(world.family), self.names.number(self.namespace)
        found[r.SERIAL], found[r.FRAGMENT] = serial, skb.packet.fragment_offset
        return found

    def walk(self, scope: Hashable, table: Table, skb: Any, world: Any, serial: int) -> Answer | None:
        """None if the walk is left to the interpreter; ``reasons`` then has why."""
        compiler = self.compiler
        number = compiler.table(scope, table, world.family, world.sets)
        entry, types = compiler.entry(number, world.hook), False
        for _ in range(1000):
            R = self.registers(skb, world, serial, types)
            answer = int(
                compiled_walk(
                    compiler.programs, self.scratch, self.recent.recent, self.addresses.words, number, entry, R,
                    np.uint64(self.seed), world.now,
                )
            )  # fmt: skip
            if answer != r.FAULT:
                break
            self.faults += 1
            types = types or int(R[r.FAULT_B]) == NEEDS_TYPES
            self.types += int(R[r.FAULT_B]) == NEEDS_TYPES
            compiler.fault(int(R[r.FAULT_A]), int(R[r.FAULT_B]))
        code, argument = answer & 255, answer >> 8
        self.draws = [int(draw) for draw in self.scratch.draws[: R[r.DRAWS]]]
        assert code != r.FAULT, "what a fault asks for is there when the packet comes again"
        if code == r.BAIL:
            self.reasons.append(compiler.reason(argument))
            return None
        while not commit(self.recent.recent, self.scratch.planned, R):
            self.recent.grow()
        action: Action
        if code == r.NAT:
            action = compiler.nat(argument)
        elif code == r.REJECT:
            action = Reject(compiler.reject_with(argument))
        else:
            action = CODES[code]
        return Answer(
            action,
            bool(R[r.BY_POLICY]),
            int(R[r.EVALUATED]),
            tuple([compiler.rule_of(int(gid))[:2] for gid in self.scratch.hits[: R[r.HITS]]]),
            int(R[r.MARK]),
            None if skb.ct is None else int(R[r.CT_MARK]),
            bool(R[r.NOTRACK]),
        )


def answers(draws: Sequence[int]) -> list[bool]:
    """The questions that compiled draws stand for."""
    return [yes for draw in draws for yes in (*[False] * (draw >> 1), *[True] * (draw & 1))]


def interpreted(table: Table, skb: Any, world: World) -> Answer:
    """The interpreter's walk, on a copy of the packet's buffer."""
    copy = SimpleNamespace(**vars(skb))
    if skb.ct is not None:
        copy.ct = SimpleNamespace(**vars(skb.ct))
    hits: list[tuple[str, int]] = []
    ended = walk(table, world.hook.value, copy, world, lambda chain, number, _: hits.append((chain, number)))
    assert isinstance(ended.action, Verdict | Nat | Reject)
    return Answer(
        ended.action,
        ended.policy,
        ended.evaluated,
        tuple(hits),
        copy.mark,
        None if skb.ct is None else copy.ct.mark,
        ended.notrack,
    )


def compare(
    engine: Engine, table: Table, skb: Any, world: World, serial: int = 0, scope: Hashable = "here"
) -> Answer | None:
    """Do both walk ``table`` alike? AssertionError if not; None if the compiled walk leaves the packet to the other."""
    found = engine.walk(scope, table, skb, world, serial)
    if found is not None:
        world.answers = answers(engine.draws)
        wanted = interpreted(table, skb, world)
        assert not world.answers, "the compiled walk drew more often"
        assert found == wanted
    return found
