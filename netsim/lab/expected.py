"""What netsim says of a probe: a tree of turns. Each turn has the ways it may go; each way leads to the next turn, in the
state that it left behind. Flights of one probe share its tree, for they differ only in ports and marks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from netsim.interpreter import Disposition, LocalOrigin, Outcome, State, source_for, trace
from netsim.interpreter.counters import RuleKey, matched
from netsim.lab import compare_conntrack
from netsim.lab.marks import mark
from netsim.lab.probes import Manner, Probe
from netsim.lab.stories import Names, Story, Storyteller
from netsim.lab.turns import Client, Turn, packets, turns
from netsim.linux.network import Network
from netsim.packet.codec import wire_length
from netsim.packet.model import Packet

# "No route" errors (ip_error) are limited per router and sender to a burst of 5, then one a second, for the whole machine
# (net.ipv4.route.error_cost): their absence proves nothing, except for the few sent when the allowance is full again.
LIMITED = {(3, 0), (3, 1), (3, 13)}


@dataclass
class Stage:
    """Before turn ``number``: what the kernels remember, what the server received last and where it is.
    ``connection`` counts the client's fresh starts."""

    number: int
    state: State
    heard: Packet | None = None
    server: str | None = None
    hidden: bool = False
    connection: int = 0
    ways: list[Way] | None = None


@dataclass
class Way:
    """One way that a turn may go. ``errors`` is the story of the ICMP errors it causes, ``entries`` the connections
    remembered afterwards; ``after`` is None where the conversation ends."""

    main: Story
    errors: Story
    entries: Story
    names: Names
    outcomes: tuple[Outcome, ...]
    probability: Fraction
    state: State
    after: Stage | None = None
    limited: bool = False
    rules: list[tuple[RuleKey, Packet]] = field(default_factory=list)  # those that matched, in their order
    error_rules: list[tuple[RuleKey, Packet]] = field(default_factory=list)
    unsure: set[RuleKey] = field(default_factory=set)  # that may have matched: ways look the same from outside

    @property
    def receiver(self) -> str | None:
        return self.outcomes[-1].receiver if self.outcomes else None


class Course:
    """A probe's tree. ``ports``: what the client takes, one for each connection it starts."""

    def __init__(
        self, network: Network, teller: Storyteller, tunnels: frozenset[int], probe: Probe, ports: Sequence[int]
    ) -> None:
        self.network, self.teller, self.tunnels, self.probe, self.ports = network, teller, tunnels, probe, ports
        self.turns = turns(probe)
        self.address = source_for(network, probe.source, probe.target) or probe.target
        self.first = Stage(0, State())
        self._marks = [mark(number + 1) for number in range(len(self.turns))]

    def names(self, stage: Stage, ports: Sequence[int]) -> Names:
        """The ports of one flight by name."""
        own = {port: "client" if number == 0 else f"client{number + 1}" for number, port in enumerate(ports)}
        servers = {self.probe.port, stage.heard.dport if stage.heard is not None else None} - {None}
        lasting = self.probe.manner is not Manner.LATE
        return Names(own, stage.hidden, self.turns[stage.number].server, frozenset(servers), lasting)  # type: ignore[arg-type]

    def connection(self, stage: Stage) -> int:
        return stage.connection + self.turns[stage.number].fresh

    def ways(self, stage: Stage) -> list[Way]:
        """Distinguishable ways, the most probable first."""
        if stage.ways is None:
            stage.ways = self._ways(stage)
        return stage.ways

    def _ways(self, stage: Stage) -> list[Way]:
        turn = self.turns[stage.number]
        client = Client(self.address, self.ports[self.connection(stage)])
        origin = LocalOrigin((stage.server or "") if turn.server else self.probe.source)
        state = stage.state.copy()
        state.now += turn.wait
        branches: list[tuple[Fraction, State, tuple[Outcome, ...]]] = [(Fraction(1), state, ())]
        for packet in packets(self.probe, stage.number, self._marks, client, stage.heard):
            branches = [
                (chance * outcome.probability, _after(outcome), (*before, outcome))
                for chance, held, before in branches
                for outcome in trace(self.network, origin, packet, state=held)
            ]
        found: dict[object, Way] = {}
        for chance, held, outcomes in branches:
            way = self._way(stage, turn, held, outcomes, chance)
            key = tuple(tuple(sorted(story.items())) for story in (way.main, way.errors, way.entries))
            same = found.setdefault(key, way)
            if same is not way:
                same.probability += chance
                same.unsure |= _apart(same.rules + same.error_rules, way.rules + way.error_rules)
        return sorted(found.values(), key=lambda way: -way.probability)

    def _way(self, stage: Stage, turn: Turn, state: State, outcomes: tuple[Outcome, ...], chance: Fraction) -> Way:
        hidden = stage.hidden or any(outcome.masqueraded for outcome in outcomes) or _masquerades(state)
        names = replace(self.names(stage, self.ports), hidden=hidden)
        main, errors = self.teller.told(outcomes, names)
        entries = compare_conntrack.told(state, names, self.tunnels)
        way = Way(main, errors, entries, names, outcomes, chance, state)
        way.limited = any(limited(outcome) for outcome in outcomes)
        for outcome in outcomes:
            way.rules += matched(outcome.hops)
            way.error_rules += matched(outcome.error_hops)
        way.after = self._next(stage, turn, state, outcomes[-1], hidden)
        return way

    def _next(self, stage: Stage, turn: Turn, state: State, last: Outcome, hidden: bool) -> Stage | None:
        heard, server = stage.heard, stage.server
        delivered = last.disposition in (Disposition.DELIVERED, Disposition.LEFT)
        if not turn.server and delivered and (server in (None, last.receiver) or turn.fresh):
            heard, server = last.packet, last.receiver
        number = stage.number + 1
        if number == len(self.turns) or (heard is None and not self.turns[number].fresh):
            return None
        return Stage(number, state, heard, server, hidden, self.connection(stage))


def limited(outcome: Outcome) -> bool:
    error = outcome.icmp
    return (
        error is not None
        and error.packet.src.version == 4
        and outcome.disposition is Disposition.UNREACHABLE
        and (error.type, error.code) in LIMITED
    )


def _after(outcome: Outcome) -> State:
    assert outcome.state is not None
    return outcome.state


def _masquerades(state: State) -> bool:
    return any(
        entry.masquerade_device is not None for held in state.namespaces.values() for entry in held.conntrack.entries()
    )


def _apart(one: list[tuple[RuleKey, Packet]], other: list[tuple[RuleKey, Packet]]) -> set[RuleKey]:
    """The rules that do not match equally often in both, or other packets: of two that go two ways, which one goes which is
    not to be seen from outside, but their bytes are counted."""
    first, second = (Counter((key, wire_length(packet)) for key, packet in rules) for rules in (one, other))
    return {key for key, _ in (first - second) + (second - first)}
