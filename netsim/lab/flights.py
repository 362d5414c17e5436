"""Flights: probes in the air. Each is sent turn by turn, its sightings are held against the ways that netsim sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from netsim.interpreter.counters import RuleKey
from netsim.lab import compare_conntrack
from netsim.lab.capture import DELIVERED, Seen
from netsim.lab.compare_conntrack import KernelTables
from netsim.lab.expected import Course, Stage, Way
from netsim.lab.marks import mark
from netsim.lab.stories import Names, Story
from netsim.lab.turns import Client, packets
from netsim.packet.model import Frame, Packet
from netsim.topology.assemble import Assembled

FIRST_PORT, LAST_PORT = 10001, 29999


@dataclass
class Flight:
    """One flight of a probe. ``now`` holds the sightings of the present turn, ``before`` those of earlier ones."""

    course: Course
    marks: list[bytes]
    ports: list[int]
    ident: int
    strict: bool = False  # even an error that the kernel limits must have come
    stage: Stage | None = None
    heard: Packet | None = None
    now: list[Seen] = field(default_factory=list)
    before: list[Seen] = field(default_factory=list)
    strays: list[Seen] = field(default_factory=list)
    taken: list[Way] = field(default_factory=list)
    errors: list[list[tuple[RuleKey, Packet]]] = field(
        default_factory=list
    )  # of each turn, the rules its ICMP error met
    told: list[Story] | None = None  # the kernel's story, turn by turn, if it is to be recorded
    sent: int = 0
    complaint: str = ""

    @property
    def over(self) -> bool:
        return self.stage is None or bool(self.complaint)

    def packets(self) -> tuple[str, list[Packet]]:
        """Who sends what in the present turn."""
        stage, course = self.stage, self.course
        assert stage is not None
        turn = course.turns[stage.number]
        client = Client(course.address, self.ports[course.connection(stage)], self.ident)
        made = packets(course.probe, stage.number, self.marks, client, self.heard)
        sender = (stage.server or "") if turn.server else course.probe.source
        return sender, made

    def receivers(self, made: list[Packet]) -> Iterator[tuple[str, int, int]]:
        """(namespace, protocol, port) wherever the packets may be delivered, so that nobody there answers by himself."""
        stage = self.stage
        assert stage is not None
        own = dict(zip(self.course.ports, self.ports, strict=False))
        for way in self.course.ways(stage):
            last = way.outcomes[-1]
            if last.receiver is not None and last.packet.dport is not None:
                # What is not translated back goes to the port that masquerading chose.
                for port in {own.get(last.packet.dport, last.packet.dport), made[0].dport or 0}:
                    yield last.receiver, int(last.packet.proto), port

    def _names(self, way: Way) -> Names:
        assert self.stage is not None
        return replace(way.names, own=self.course.names(self.stage, self.ports).own)

    def agreeing(self, tables: KernelTables | None = None, *, waiting: bool = False) -> Way | None:
        """The way that the kernel's story is. ``waiting``: an error that may still come is waited for."""
        assert self.stage is not None
        for way in self.course.ways(self.stage):
            main, errors = self.course.teller.seen(self.now, self._names(way))
            if main != way.main:
                continue
            lenient = way.limited and not self.strict and not waiting and errors <= way.errors
            if errors != way.errors and not lenient:
                continue
            if tables is None or self._entries(way, tables) == way.entries:
                return way
        return None

    def _entries(self, way: Way, tables: KernelTables) -> Story:
        mine = tables.of([*self.before, *self.now])
        return compare_conntrack.seen(mine, self._names(way), self.course.tunnels)

    def judge(self, tables: KernelTables) -> Way | None:
        """Hold the turn against netsim's story and go on to the next one; None (and a complaint) if they disagree."""
        assert self.stage is not None
        way = self.agreeing(tables)
        if way is None:
            self.complaint = self._both(tables)
            return None
        self.taken.append(way)
        came = any(one.error for one in self.now) or not way.limited
        self.errors.append(way.error_rules if came else [])
        if self.told is not None:
            main, errors = self.course.teller.seen(self.now, self._names(way))
            self.told.append(main + errors + self._entries(way, tables))
        if not self.course.turns[self.stage.number].server and way.after and way.after.server == way.receiver:
            self.heard = self._delivered(way.receiver) or self.heard
        self.before += self.now
        self.now = []
        self.stage = way.after
        return way

    def _delivered(self, receiver: str | None) -> Packet | None:
        for one in self.now:
            if one.where == DELIVERED and not one.error and one.namespace == receiver:
                assert not isinstance(one.what, Frame)
                return one.what
        return None

    def _both(self, tables: KernelTables) -> str:
        """Both stories side by side: the kernel's, and that of netsim which is nearest."""
        assert self.stage is not None
        ways = self.course.ways(self.stage)
        pairs: list[tuple[Story, Story, Way]] = []
        for way in ways:
            main, errors = self.course.teller.seen(self.now, self._names(way))
            done = main + errors + self._entries(way, tables)
            pairs.append((way.main + way.errors + way.entries, done, way))
        said, done, way = min(pairs, key=lambda pair: ((pair[0] - pair[1]) + (pair[1] - pair[0])).total())
        if self.told is not None:
            self.told.append(done)
        end = " and ".join(dict.fromkeys(outcome.disposition.value for outcome in way.outcomes))
        turns = len(self.course.turns)
        turn = f", turn {self.stage.number + 1} of {turns}" if turns > 1 else ""
        which = f"{len(ways)} ways; the nearest is shown" if len(ways) > 1 else "the only way"
        text = f"{self.course.probe}{turn}  (netsim: {end}, {which})\n"
        for line in dict.fromkeys([*said, *done]):
            sign = "both  " if said[line] == done[line] else "netsim" if said[line] > done[line] else "kernel"
            text += f"    {sign}  {line}\n"
        return text


class Hangar:
    """Makes flights: a mark for every packet, ports that nobody in the cluster has (``taken``)."""

    def __init__(self, taken: frozenset[int], *, recording: bool = False) -> None:
        self._recording = recording
        self._free = [port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in taken]
        self._serial = 100  # smaller ones are the interpreter's
        self._port = 0

    def flight(self, course: Course, *, strict: bool = False) -> Flight:
        marks = [mark(self._serial + number) for number in range(len(course.turns))]
        self._serial += len(marks)
        starts = 1 + sum(turn.fresh for turn in course.turns)
        ports = self.ports(starts)
        told: list[Story] | None = [] if self._recording else None
        return Flight(course, marks, ports, self._serial % 65535 + 1, strict, course.first, told=told)

    def ports(self, count: int) -> list[int]:
        """The next ones, round and round: connections are forgotten between batches."""
        if self._port + count > len(self._free):
            self._port = 0
        found = list(islice(self._free, self._port, self._port + count))
        self._port += count
        return found


def ports_of(made: Assembled) -> frozenset[int]:
    """Every port that something in the cluster has."""
    pods = (p for pod in made.cluster.pods.values() for c in pod.spec.containers for p in c.ports or ())
    found = {number for one in pods for number in (one.container_port, one.host_port) if number}
    for service in made.cluster.services.values():
        found |= {number for port in service.spec.ports for number in (port.port, port.node_port) if number}
    return frozenset(found)
