"""The rule walk of one table: jumps, gotos, returns and policies, as ``ipt_do_table`` of Linux 6.1 and 6.18 walks them.

Long chains are not walked rule by rule: an index tells which rules can match a packet's exact destination and protocol,
and the rest are only counted, as the kernel would have evaluated them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from netsim.errors import InputError
from netsim.linux.netfilter.base import Action, Environment, HotDrop, Jump, NoTrack, Skb, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Table
from netsim.packet.model import Packet

_INDEX_FROM = 16  # shorter chains are walked plainly
_DEEPEST = 1024  # nested jumps; the kernel refuses loops when rules are loaded

OnStep = Callable[[str, int, Rule], None]


@dataclass(slots=True)
class Walk:
    """How a walk ended, and how many rules the kernel evaluated for it. ``policy``: the built-in chain's own verdict."""

    action: Action
    evaluated: int
    policy: bool = False
    notrack: bool = False


class _Index:
    """Rule numbers of one chain by exact destination; ``rest`` are those any destination may match."""

    __slots__ = ("by_destination", "merged", "rest")

    def __init__(self, chain: Chain) -> None:
        self.by_destination: dict[int, list[int]] = {}
        self.rest: list[int] = []
        self.merged: dict[int, list[int]] = {}
        for number, rule in enumerate(chain.rules):
            prefix = rule.destination
            if prefix is not None and not rule.destination_not and prefix.prefixlen == prefix.max_prefixlen:
                self.by_destination.setdefault(int(prefix.network_address), []).append(number)
            else:
                self.rest.append(number)

    def candidates(self, destination: int) -> list[int]:
        exact = self.by_destination.get(destination)
        if exact is None:
            return self.rest
        found = self.merged.get(destination)
        if found is None:
            found = self.merged[destination] = sorted(exact + self.rest)
        return found


# Chains are compared by value, which is slow for long ones, so the index is kept by identity.
_indices: dict[int, tuple[Chain, _Index]] = {}
_LIMIT = 4096


def _index_of(chain: Chain) -> _Index:
    held = _indices.get(id(chain))
    if held is not None and held[0] is chain:
        return held[1]
    if len(_indices) >= _LIMIT:
        _indices.clear()
    index = _Index(chain)
    _indices[id(chain)] = chain, index
    return index


def header_fits(rule: Rule, packet: Packet, iif: str | None, oif: str | None) -> bool:
    """``ip_packet_match``: the fixed part of a rule. A device that a hook lacks is an empty name."""
    if rule.destination is not None and (packet.dst in rule.destination) == rule.destination_not:
        return False
    if rule.source is not None and (packet.src in rule.source) == rule.source_not:
        return False
    if rule.protocol is not None and (packet.proto == rule.protocol) == rule.protocol_not:
        return False
    if rule.iif is not None and _device(rule.iif, iif) == rule.iif_not:
        return False
    if rule.oif is not None and _device(rule.oif, oif) == rule.oif_not:
        return False
    return rule.fragment is None or (packet.fragment_offset > 0) == rule.fragment


def _device(pattern: str, name: str | None) -> bool:
    have = name or ""
    return have.startswith(pattern[:-1]) if pattern.endswith("+") else have == pattern


def walk(
    table: Table, chain: str, skb: Skb, env: Environment, on_step: OnStep | None = None, *, indexed: bool = True
) -> Walk:
    """Walk ``table`` from the built-in chain ``chain``. ``on_step`` hears of each rule that matched (chain, 1-based
    number, rule). ``indexed`` False walks rule by rule: for tests. The action is a verdict, Reject or Nat."""
    current = table.chains[chain]
    stack: list[tuple[Chain, int]] = []
    at = evaluated = hops = 0
    notrack = False
    while True:
        rules = current.rules
        found = -1
        if indexed and len(rules) >= _INDEX_FROM:
            numbers = _index_of(current).candidates(int(skb.packet.dst))
            places = range(bisect_left(numbers, at), len(numbers))
            upcoming = (numbers[place] for place in places)
        else:
            upcoming = (number for number in range(at, len(rules)))
        packet = skb.packet
        action: Action = Verdict.CONTINUE
        try:
            for number in upcoming:
                rule = rules[number]
                if not header_fits(rule, packet, skb.iif, skb.oif):
                    continue
                if rule.matches:
                    env.rule = table.name, current.name, number + 1
                if all(m.evaluate(skb, env) for m in rule.matches):
                    found = number
                    break
        except HotDrop:
            return Walk(Verdict.DROP, evaluated + number - at + 1, notrack=notrack)
        if found < 0:
            evaluated += len(rules) - at
            action = Verdict.RETURN
        else:
            evaluated += found - at + 1
            rule = rules[found]
            if on_step is not None:
                on_step(current.name, found + 1, rule)
            at = found + 1
            if rule.jump is not None:
                action = Jump(rule.jump, rule.goto)
            elif rule.target is not None:
                action = rule.target.apply(skb, env)
        if action is Verdict.CONTINUE:
            continue
        if isinstance(action, NoTrack):
            notrack = True
            continue
        if isinstance(action, Jump):
            target = table.chains.get(action.chain)
            if target is None:
                raise InputError(f'table {table.name}: chain "{action.chain}" does not exist')
            hops = hops + 1 if action.goto else 0
            if not action.goto:
                stack.append((current, at))
            if len(stack) > _DEEPEST or (hops > _DEEPEST and hops > len(table.chains)):
                raise InputError(f'table {table.name}: chain "{action.chain}" is part of a loop')
            current, at = target, 0
            continue
        if action is Verdict.RETURN:
            if stack:
                current, at = stack.pop()
                continue
            policy = table.chains[chain].policy or Verdict.ACCEPT
            return Walk(policy, evaluated, policy=True, notrack=notrack)
        return Walk(action, evaluated, notrack=notrack)
