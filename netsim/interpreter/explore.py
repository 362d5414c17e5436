"""Following every branch: the stack is run again for each combination of random choices, depth first.

A run is deterministic but for what it asks of its oracle. An oracle replays a prefix of choices and then takes the first
side of every new question, noting the other one; the explorer comes back for those. Probabilities are exact fractions:
the kernel compares 31 random bits with a fixed-point threshold, which a float holds exactly.
"""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

from netsim.errors import UsageError
from netsim.interpreter import egress, ingress
from netsim.interpreter.machine import Ending, Flight, Journey, Machine
from netsim.interpreter.origin import LocalOrigin, Origin
from netsim.interpreter.outcome import Disposition, IcmpError, Outcome
from netsim.interpreter.scene import World
from netsim.interpreter.state import State
from netsim.linux.netfilter.base import ROOT, Skb
from netsim.linux.network import Network
from netsim.packet.address import Family
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Frame, Packet

LIMIT = 10_000


class Replay:
    """Answers by the given choices, then by ``draw``, or True; ``taken`` records every real choice."""

    def __init__(self, choices: tuple[bool, ...] = (), draw: random.Random | None = None) -> None:
        self._choices = choices
        self._draw = draw
        self.taken: list[bool] = []
        self.words: list[str] = []
        self.probability = Fraction(1)

    def chance(self, probability: float, why: str) -> bool:
        exact = Fraction(probability)
        if exact <= 0 or exact >= 1:
            return exact >= 1
        if len(self.taken) < len(self._choices):
            choice = self._choices[len(self.taken)]
        elif self._draw is not None:
            choice = Fraction(self._draw.getrandbits(31), 1 << 31) < exact
        else:
            choice = True
        self.taken.append(choice)
        self.probability *= exact if choice else 1 - exact
        if choice:
            self.words.append(why)
        return choice


def explore(
    network: Network,
    origin: Origin,
    packet: Packet,
    *,
    state: State | None = None,
    follow: str | int = "all",
    limit: int = LIMIT,
    only: str | None = None,
) -> list[tuple[Outcome, State]]:
    """Every outcome, most probable first, with the state it leaves behind. The given ``state`` is not changed."""
    world = _world_of(network)
    start = state if state is not None else State()
    if follow != "all":
        oracle = Replay(draw=random.Random(int(follow)))
        return [run_once(world, origin, packet, start.copy(), oracle, only)]
    found: dict[object, tuple[Outcome, State]] = {}
    waiting: list[tuple[bool, ...]] = [()]
    runs = 0
    while waiting:
        prefix = waiting.pop()
        runs += 1
        if runs > limit:
            raise UsageError(f"the packet has more than {limit} possible ways: follow one of them with a seed")
        oracle = Replay(prefix)
        outcome, after = run_once(world, origin, packet, start.copy(), oracle, only)
        for place in range(len(oracle.taken) - 1, len(prefix) - 1, -1):
            waiting.append((*oracle.taken[:place], False))
        key = _looks(outcome)
        same = found.get(key)
        if same is None:
            found[key] = (outcome, after)
        else:
            found[key] = (replace(same[0], probability=same[0].probability + outcome.probability), same[1])
    return sorted(found.values(), key=lambda pair: -pair[0].probability)


_latest: list[World] = []


def _world_of(network: Network) -> World:
    """The network with its FIBs and indexes; those of the last one are kept, as packets tend to come in a row."""
    if not _latest or _latest[0].network is not network:
        _latest[:] = [World(network)]
    return _latest[0]


def _looks(outcome: Outcome) -> object:
    """What tells outcomes apart: the end, the packet, the way, and who decided."""
    decided = outcome.decided_by
    return (
        outcome.disposition,
        outcome.receiver,
        outcome.packet,
        outcome.masqueraded,
        outcome.icmp,
        (decided.namespace, decided.step.text) if decided else None,
        tuple((hop.namespace, hop.device, *(passed[:2] for passed in hop.wire)) for hop in outcome.hops),
    )


def run_once(
    world: World, origin: Origin, packet: Packet, state: State, oracle: Replay, only: str | None
) -> tuple[Outcome, State]:
    """One run of the stack, which changes ``state``: what becomes of the packet if chance answers as ``oracle`` does."""
    machine = Machine(world, state, oracle, only)
    journey = Journey(origin=origin.namespace)
    sent = packet
    if isinstance(origin, LocalOrigin):
        scene = world.scene(origin.namespace)
        if packet.src.is_unspecified:
            source = scene.fib.lookup(packet.dst, mark=origin.mark).prefsrc
            sent = replace(packet, src=source) if source is not None else packet
        hop, skb = machine.hop(journey, scene, None), Skb(sent, mark=origin.mark, owner=ROOT)
        flight = Flight(scene, hop, journey, skb, local=True, ignore_df=sent.family is Family.IPV6)
        machine.later(egress.local_out, flight)
    else:
        mac = world.scene(origin.namespace).links[origin.device].mac
        what: Frame | Packet = packet
        if mac is not None:
            ethertype = ETH_IPV4 if packet.family is Family.IPV4 else ETH_IPV6
            what = Frame(origin.src_mac or "02:00:00:00:00:01", origin.dst_mac or mac, packet, ethertype)
        machine.later(ingress.arrive, journey, origin.namespace, origin.device, what)
    machine.run()
    return _outcome(journey, sent, origin, oracle), state


def _outcome(journey: Journey, sent: Packet, origin: Origin, oracle: Replay) -> Outcome:
    if not journey.endings:  # fragments of a datagram whose others are yet to come: the state holds them
        assert journey.waiting is not None
        journey.endings.append(Ending(Disposition.DROPPED, None, sent, journey.waiting))
    ending = journey.ending()
    decided = ending.decided
    if ending.disposition in (Disposition.DELIVERED, Disposition.LEFT) and journey.translated is not None:
        decided = journey.translated
    return Outcome(
        probability=oracle.probability,
        disposition=ending.disposition,
        receiver=ending.receiver,
        packet=ending.packet,
        masqueraded=journey.masqueraded,
        icmp=_answer(journey, origin),
        decided_by=decided,
        rules_evaluated=journey.rules,
        hops=tuple(journey.hops),
        choices=tuple(oracle.words),
        sent=sent,
        error_hops=tuple(hop for error in journey.errors for hop in error.hops),
    )


def _answer(journey: Journey, origin: Origin) -> IcmpError | None:
    """The error that was sent, and whether it came back to where the packet was from."""
    if journey.icmp is None or journey.error is None:
        return None
    if not journey.error.endings:
        return journey.icmp
    end = journey.error.ending()
    came = end.disposition is Disposition.LEFT or end.disposition is Disposition.DELIVERED
    if isinstance(origin, LocalOrigin):
        came = came and end.receiver == origin.namespace
    return replace(journey.icmp, arrived=came, packet=end.packet if came else journey.icmp.packet)
