"""Netfilter hooks: which functions run where and in which order, and what a rule may ask of the world.

    hook           priority: function
    PREROUTING     -400 defrag  -300 raw  -200 conntrack  -150 mangle  -100 nat (destination)
    INPUT                                                 -150 mangle     0 filter  50 security  100 nat (source)  confirm
    FORWARD                                               -150 mangle     0 filter  50 security
    OUTPUT         -400 defrag  -300 raw  -200 conntrack  -150 mangle  -100 nat (destination)    0 filter  50 security
    POSTROUTING                                           -150 mangle                     100 nat (source)         confirm

iptables-nft has security at 150, which matters at INPUT. A rule engine contributes hook functions through ``PROVIDERS``;
iptables is one of them and conntrack another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netsim.interpreter import egress, fragments, nat, replies, tracking
from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import Counted, DecidedBy, Disposition, Step, StepKind
from netsim.interpreter.scene import Scene
from netsim.linux.ipset import IpSet
from netsim.linux.link import LinkKind
from netsim.linux.netfilter.base import TABLE_HOOKS, CtState, Hook, Nat, Reject, Skb, Verdict
from netsim.linux.netfilter.rule import Rule
from netsim.linux.netfilter.table import Table
from netsim.linux.netfilter.text import print_rule
from netsim.linux.netfilter.walk import Walk, walk
from netsim.linux.route import RouteType
from netsim.packet.address import Family, IPAddress

LAST = 1 << 31


@dataclass(frozen=True, slots=True)
class HookFunction:
    """``run`` answers whether the packet goes on; if not, it has recorded why (or holds the packet back)."""

    priority: int
    name: str
    run: Callable[[Machine, Flight, Hook], bool]


Provider = Callable[[Scene, Family, Hook], Iterable[HookFunction]]


def run_hooks(machine: Machine, flight: Flight, hook: Hook) -> bool:
    """Pass the packet through every function at ``hook``; False if it goes no further."""
    return all(function.run(machine, flight, hook) for function in _functions(flight.scene, flight.family, hook))


def _functions(scene: Scene, family: Family, hook: Hook) -> tuple[HookFunction, ...]:
    known = scene.hooks.get((family, hook))
    if known is None:
        found = [function for provider in PROVIDERS for function in provider(scene, family, hook)]
        known = scene.hooks[family, hook] = tuple(sorted(found, key=lambda f: f.priority))
    return known


def conntrack_hooks(scene: Scene, family: Family, hook: Hook) -> Iterable[HookFunction]:
    if hook in (Hook.PREROUTING, Hook.OUTPUT) and scene.defragments(family):
        yield HookFunction(-400, "defrag", fragments.gather)
    if not scene.tracks(family):
        return
    if hook in (Hook.PREROUTING, Hook.OUTPUT):
        yield HookFunction(-200, "conntrack", tracking.track)
    elif hook in (Hook.INPUT, Hook.POSTROUTING):
        yield HookFunction(LAST, "confirm", tracking.confirm)


_PRIORITY = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
SECURITY_OF_NFT = 150  # what iptables-nft gives that table


def iptables_hooks(scene: Scene, family: Family, hook: Hook) -> Iterable[HookFunction]:
    ruleset = scene.namespace.rulesets.get(family)
    if ruleset is None:
        return
    for name, table in ruleset.tables.items():
        if hook not in TABLE_HOOKS[name]:
            continue
        if name == "nat":
            priority = 100 if nat.changes_source(hook) else -100
            yield HookFunction(priority, name, lambda m, f, h, table=table: _nat_table(m, f, h, table))  # type: ignore[misc]
        else:
            priority = _PRIORITY[name] if name != "security" or not ruleset.nft else SECURITY_OF_NFT
            yield HookFunction(priority, name, lambda m, f, h, table=table: _table(m, f, h, table))  # type: ignore[misc]


PROVIDERS: list[Provider] = [conntrack_hooks, iptables_hooks]


def _table(machine: Machine, flight: Flight, hook: Hook, table: Table) -> bool:
    before, mark = flight.packet, flight.skb.mark
    ended, step = _walk(machine, flight, hook, table)
    if (
        ended.notrack and flight.skb.ct is None and not flight.attached
    ):  # not what looped back, nor an error about a connection (xt_CT.c)
        flight.skb.ct, flight.skb.ct_state = None, CtState.UNTRACKED
    if ended.action is Verdict.DROP:
        machine.end(flight, Disposition.DROPPED, step)
        return False
    if isinstance(ended.action, Reject):
        machine.end(flight, Disposition.REJECTED, step)
        replies.reject(machine, flight, ended.action.with_)
        return False
    after = flight.packet
    changed = (before.src, before.dst, before.tos, mark) != (after.src, after.dst, after.tos, flight.skb.mark)
    if hook is Hook.OUTPUT and table.name == "mangle" and changed and _heeds_changes(flight, ended):
        return egress.reroute(machine, flight)
    return True


def _heeds_changes(flight: Flight, ended: Walk) -> bool:
    """nf_tables looks for what rules have changed only if they accept (``nf_route_table_hook4``); the tables of
    ``ipt_mangle_out`` do for a queue, too."""
    return ended.action is not Verdict.QUEUE or not flight.scene.namespace.rulesets[flight.family].nft


def _nat_table(machine: Machine, flight: Flight, hook: Hook, table: Table) -> bool:
    if flight.skb.ct is None:
        return True
    if hook is Hook.POSTROUTING and nat.leaves_elsewhere(machine, flight):
        return False
    destination = flight.packet.dst
    if nat.wants_table(flight, hook):
        ended, step = _walk(machine, flight, hook, table)
        if ended.action is Verdict.DROP:
            machine.end(flight, Disposition.DROPPED, step)
            return False
        action = ended.action if isinstance(ended.action, Nat) else None
        if not nat.setup(machine, flight, hook, action):
            return False
        if action is not None and not nat.changes_source(hook) and not flight.journey.is_error:
            flight.journey.translated = DecidedBy(flight.scene.name, flight.scene.node, step)
    if not nat.translate(machine, flight, hook):
        return False
    if hook is Hook.OUTPUT and flight.packet.dst != destination:
        return egress.reroute(machine, flight)
    return True


def _walk(machine: Machine, flight: Flight, hook: Hook, table: Table) -> tuple[Walk, Step]:
    """Walk the table, recording each rule that matched; the step that decided is marked so."""
    family = flight.family
    steps: list[Step] = []
    counted = flight.hop.counted

    def on_step(chain: str, number: int, rule: Rule) -> None:
        counted.append(Counted(table.name, chain, number, flight.packet))
        text = print_rule(chain, rule, family)
        if rule.target is not None and rule.target.name == "TCPMSS":
            flight.fragment_cuts = ()  # skb_ensure_writable has copied the fragments into one
        steps.append(
            Step(
                StepKind.RULE,
                text,
                hook=hook.value,
                table=table.name,
                chain=chain,
                rule=number,
                provenance=rule.provenance,
            )
        )

    environment = RuleEnvironment(machine, flight, hook, table.name)
    mark = flight.skb.mark
    ended = walk(table, hook.value, flight.skb, environment, on_step)
    flight.journey.rules += ended.evaluated
    if ended.policy:
        counted.append(Counted(table.name, hook.value, 0, flight.packet))
    final = ended.action is Verdict.DROP or isinstance(ended.action, Reject | Nat)
    if ended.policy and final:
        text = f":{hook.value} {ended.action.value}" if isinstance(ended.action, Verdict) else ""
        steps.append(Step(StepKind.RULE, text, hook=hook.value, table=table.name, chain=hook.value, decisive=True))
    elif final and steps:
        steps[-1] = replace(steps[-1], decisive=True)
    if mark != flight.skb.mark and steps:
        last = steps[-1]
        steps[-1] = replace(last, before=f"mark {mark:#x}", after=f"mark {flight.skb.mark:#x}")
    flight.hop.steps.extend(steps)
    nothing = Step(StepKind.RULE, f":{hook.value} ACCEPT", hook=hook.value, table=table.name, chain=hook.value)
    return ended, steps[-1] if steps else nothing


class RuleEnvironment:
    """What one rule walk may ask (``netsim.linux.netfilter.base.Environment``)."""

    __slots__ = ("_flight", "_machine", "family", "hook", "now", "rule", "table")

    def __init__(self, machine: Machine, flight: Flight, hook: Hook, table: str) -> None:
        self._machine, self._flight = machine, flight
        self.family, self.hook, self.table, self.now = flight.family, hook, table, machine.state.now
        self.rule = table, hook.value, 0

    def address_type(self, address: IPAddress, device: str | None = None) -> str:
        return self._flight.scene.fib.address_type(address, device)

    def chance(self, probability: float, why: str) -> bool:
        return self._machine.oracle.chance(probability, why)

    def in_set(self, name: str, elements: Sequence[Any]) -> bool:
        sets = self._sets()
        return sets[name].contains(elements, sets)

    def change_set(self, name: str, elements: Sequence[Any], add: bool, timeout: int | None, exist: bool) -> None:
        self._machine.memory(self._flight).ipsets[name] = self._sets()[name].changed(elements, add, timeout)

    def _sets(self) -> Mapping[str, IpSet]:
        """The sets as configured, but for those that rules have changed since."""
        changed = self._machine.memory(self._flight).ipsets
        held = self._flight.scene.namespace.ipsets
        return {**held, **changed} if changed else held

    def recent(self, name: str) -> dict[IPAddress, list[float]]:
        return self._machine.memory(self._flight).recent.setdefault(name, {})

    def count(self, name: str) -> None:
        counters = self._machine.memory(self._flight).counters
        counters[name] = counters.get(name, 0) + 1

    def rate(self, key: object) -> dict[str, float]:
        return self._machine.memory(self._flight).rates.setdefault(key, {})

    def reverse_path_ok(self, skb: Skb, loose: bool, accept_local: bool) -> bool:
        """``rpfilter_lookup_reverse``: a route to the source, of type unicast (or local), by the ingress device."""
        scene, packet = self._flight.scene, skb.packet
        link = scene.link(skb.iif)
        six, to_all = self.family is Family.IPV6, packet.dst.is_multicast or int(packet.dst) == 0xFFFFFFFF
        looped = skb.pkt_type == "loopback" or (link is not None and link.kind is LinkKind.LOOPBACK)
        if looped or (packet.src.is_unspecified and (six or to_all)):
            return True
        plain = not (to_all or packet.dst.is_unspecified)
        near = skb.iif if six and not loose else None
        found = scene.fib.lookup(packet.src, src=packet.dst if plain else None, mark=skb.mark, near=near)
        if found.type is RouteType.LOCAL:
            if six or not accept_local:
                return accept_local
        elif found.type is not RouteType.UNICAST:
            return False
        return loose or skb.iif in {hop.device for hop in found.alternatives} | {found.device}
