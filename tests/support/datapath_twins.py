"""The compiled datapath and the interpreter side by side, packet by packet, with the same draws."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netsim.compiled.engine_tables import SLOW
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.interpreter.explore import Replay, run_once
from netsim.interpreter.origin import Origin
from netsim.interpreter.outcome import Disposition, Outcome, StepKind
from netsim.interpreter.scene import World
from netsim.interpreter.state import State
from netsim.linux.conntrack import Entry
from netsim.linux.network import Network
from netsim.packet.model import Icmp, Packet
from tests.support.datapath_worlds import WorldOfPackets, pause

DISPOSITIONS = tuple(Disposition)


@dataclass
class Tally:
    """What has been compared, and by which path the compiled datapath took it."""

    packets: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.packets += other.packets
        self.paths.update(other.paths)
        self.reasons.update(other.reasons)
        self.failures += other.failures

    def share(self, *paths: str) -> float:
        return sum(self.paths[path] for path in paths) / max(1, self.packets)

    def __str__(self) -> str:
        lines = [f"{self.packets} pairs compared, {len(self.failures)} differ"]
        lines += [f"  {count:8} {path}" for path, count in self.paths.most_common()]
        lines += [f"  {count:8} interpreted: {reason}" for reason, count in self.reasons.most_common()]
        return "\n".join(lines)


def compare(world: WorldOfPackets, packets: int, seed: int = 0, name: str = "") -> Tally:
    """Take ``packets`` of a world through both engines; conntrack, counters and affinities are compared now and then. The
    first difference ends it, as what comes after it follows from it."""
    twins, now, told = Twins(world.network, seed), 0, Tally()
    for number in range(packets):
        now += pause(world.rng)
        origin, packet = world.next()
        found = twins.send(now, origin, packet)
        told.packets += 1
        if not found and (number % 25 == 24 or number == packets - 1):
            found = twins.states()
        if found:
            lines = "\n    ".join(found[:8])
            told.failures.append(f"{name}, packet {number} at {now} us from {origin}: {packet!s:.500}\n    {lines}")
            break
        assert twins.last is not None
        world.heard(twins.last)
    told.paths.update(twins.datapath.paths)
    told.reasons.update(twins.datapath.reasons)
    return told


@dataclass
class Twins:
    """``datapath`` takes packets as it likes; ``state`` belongs to a plain interpreter that is told the same draws."""

    network: Network
    seed: int = 0
    datapath: Datapath = field(init=False)
    world: World = field(init=False)
    state: State = field(default_factory=State)
    hits: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    volume: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    last: Outcome | None = None

    def __post_init__(self) -> None:
        self.datapath = Datapath(self.network, seed=self.seed)
        self.world = World(self.network)

    def send(self, time: int, origin: Origin, packet: Packet) -> list[str]:
        """What the two tell differently about one packet; ``time`` in microseconds."""
        datapath = self.datapath
        handle = datapath.origin(origin)
        serial = datapath.serial
        batch = Batch.of_packets([(time, handle, packet)], datapath.addresses)
        result = datapath.process(batch)
        interpreted = int(result.how[0]) == 2
        draw = random.Random(f"{self.seed} {serial}") if interpreted else None
        self.state.now = (time // 1000 + 1) / 1000
        outcome, _ = run_once(
            self.world, origin, batch.packet(0), self.state, Replay(datapath.last_choices(), draw), None
        )
        self.last = outcome
        for hop in (*outcome.hops, *outcome.error_hops):
            for step in hop.steps:
                if step.kind is StepKind.RULE and step.rule is not None:
                    rule = hop.namespace, str(step.table), str(step.chain), step.rule
                    self.hits[rule] += 1
                    self.volume[rule] += int(batch.length[0])
        return list(self._differences(result, outcome))

    def _differences(self, result: Any, outcome: Outcome) -> Any:
        packet, datapath = outcome.packet, self.datapath
        family = packet.src.version
        ports = (packet.sport or 0, packet.dport or 0)
        if isinstance(packet.body, Icmp):
            ports = (packet.body.rest >> 16, packet.body.type << 8 | packet.body.code)
        pairs = {
            "verdict": (DISPOSITIONS[int(result.verdict[0])], outcome.disposition),
            "receiver": (datapath.namespace_name(int(result.receiver[0])), outcome.receiver),
            "src": (datapath.addresses.address(int(result.src[0]), family), packet.src),
            "dst": (datapath.addresses.address(int(result.dst[0]), family), packet.dst),
            "ports": ((int(result.sport[0]), int(result.dport[0])), ports),
            "ttl": (int(result.ttl[0]), packet.ttl),
            "masqueraded": (bool(result.masqueraded[0]), outcome.masqueraded),
            "rules": (int(result.rules[0]), outcome.rules_evaluated),
        }
        if int(result.how[0]) == SLOW:
            pairs["decided by"] = (self._decided(result), _deciding_rule(outcome))
        for name, (said, wanted) in pairs.items():
            if said != wanted:
                yield f"{name}: compiled {said}, interpreter {wanted}"

    def _decided(self, result: Any) -> tuple[str | None, str, int] | None:
        """(namespace, chain, number) of the rule that settled it, as the columns tell."""
        number = int(result.decided[0])
        if number == 0:
            return None
        chain, place, _ = self.datapath.rules.rule_of(number - 1)
        return self.datapath.namespace_name(int(result.decided_ns[0])), chain, place

    def states(self) -> list[str]:
        """Conntrack entries, rule counters and lists of ``-m recent`` that differ."""
        found = []
        mine = {name: sorted(map(_row, held)) for name, held in self.datapath.connections().items()}
        now = self.state.now
        for name, held in self.state.namespaces.items():
            wanted = sorted(_row(entry) for entry in held.conntrack.entries() if entry.expires > now)
            for row in set(wanted) ^ set(mine.get(name, [])):
                found.append(f"{name}: {'interpreter' if row in wanted else 'compiled'} alone has {row}")
        counted = self.datapath.counters()
        for key in set(counted) | set(self.hits):
            said, wanted_count = counted.get(key, (0, 0)), (self.hits[key], self.volume[key])
            if said != wanted_count:
                found.append(f"{key}: compiled counted {said} (packets, bytes), interpreter {wanted_count}")
        remembered = _affinities({name: held.recent for name, held in self.state.namespaces.items()})
        lists = self.datapath.recent.lists(self.datapath.rules.recent_name, self.datapath.addresses.address)
        known = _affinities({self.datapath.world.name(number): held for number, held in lists.items()})
        # Tables keep what ``--reap`` takes off the interpreter's lists: it answers as if it were gone.
        found += [f"{one}: the tables do not remember it" for one in sorted(remembered - known, key=str)]
        return found


def _row(entry: Entry) -> tuple[Any, ...]:
    status = (entry.status_snat, entry.status_dnat, entry.seen_reply, entry.assured)
    return (str(entry), round(entry.expires, 3), status, str(entry.tcp))


def _deciding_rule(outcome: Outcome) -> tuple[str, str, int] | None:
    decided = outcome.decided_by
    if decided is None or decided.step.rule is None:
        return None
    return decided.namespace, str(decided.step.chain), decided.step.rule


def _affinities(held: Mapping[str, Mapping[str, Mapping[Any, list[float]]]]) -> set[tuple[Any, ...]]:
    return {
        (name, of, address, round(stamps[-1], 3))
        for name, lists in held.items()
        for of, seen in lists.items()
        for address, stamps in seen.items()
        if stamps
    }
