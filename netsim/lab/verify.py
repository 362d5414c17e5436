"""``lab verify``: the same conversations through the kernel and through the interpreter, turn by turn, device by device.

Of every packet are compared: each device it passes with all of its headers there, where it is delivered, the ICMP error that
comes back and its way, the connections that the kernels remember; of every batch of packets: each rule's counters.

    probes ─▶ courses (expected) ─▶ flights ─▶ batches: send, see, compare, next turn ─▶ result
"""

from __future__ import annotations

import platform
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from netsim.errors import NetsimError, PrivilegeError
from netsim.interpreter.counters import Counters
from netsim.lab import draws, probe_list, rule_counters, ruletrace
from netsim.lab.build import names_of
from netsim.lab.capture import Seen, Watch
from netsim.lab.compare_conntrack import KernelTables, line
from netsim.lab.expected import Course, Way
from netsim.lab.flights import Flight, Hangar, ports_of
from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.lab.probes import Manner, Probe
from netsim.lab.result import Result, tools
from netsim.lab.retuned import SHORT, tracking, tunnel_ports
from netsim.lab.retuned import courses as expected_courses
from netsim.lab.rule_counters import Account
from netsim.lab.sinks import Sinks, hush, write
from netsim.lab.stories import Names
from netsim.lab.turns import TIMEOUT, waits
from netsim.linux.network import Network
from netsim.topology.assemble import Assembled

_BATCH = 400
_PATIENCE = 0.6  # seconds without any packet after which nothing more is expected
_GLANCE = 0.03
_CONVINCED = 5  # disagreements that came again: from then on none gets a second try
_FEW = 4  # flights that are looked at whenever something was seen
_REFILL, _ALLOWED = 5.5, 4  # of the kernel's allowance for "no route" errors (see ``expected``)


@dataclass(frozen=True)
class Asked:
    """What a run is to do. ``probes`` None: the cluster's own list. ``rule_trace`` None: where iptables is nft's.
    ``recording``: flights keep the kernel's stories."""

    probes: Sequence[Probe] | None = None
    rule_trace: bool | None = None
    recording: bool = False


def verify(made: Assembled, network: Network, asked: Asked | None = None) -> tuple[Result, list[Flight]]:
    """Inside the lab. PrivilegeError if sockets or tables cannot be had."""
    return _Run(made, network, asked or Asked()).run()


@dataclass
class _Batch:
    flights: list[Flight]
    late: bool = False
    sticky: bool = False
    counting: bool = True  # rules are


class _Run:
    def __init__(self, made: Assembled, network: Network, asked: Asked) -> None:
        self.made, self.network, self.asked = made, network, asked
        self.names = names_of(made)
        self.tunnels = tunnel_ports(network, self.names)
        self.wanted = list(asked.probes) if asked.probes is not None else probe_list.probes(made)
        self.hangar = Hangar(ports_of(made), recording=asked.recording)
        self.result = Result(kernel=f"Linux {platform.release()}", tools=tools())
        self.flights: list[Flight] = []
        self.sinks = Sinks()
        self.by_mark: dict[bytes, tuple[Flight, int]] = {}
        self.tracking = tracking(network, self.names)
        self.tables = KernelTables(self.tracking)
        self.ruled = rule_counters.places(network, self.names)
        self.counters: Counters = {}
        self.confirmed = 0

    def run(self) -> tuple[Result, list[Flight]]:
        began = time.monotonic()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a dozen sockets a namespace, and one a flight
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            self.watch = Watch(self.names, self.tunnels)
        except PermissionError as error:
            raise PrivilegeError(f"raw sockets cannot be had: {error.strerror}; run this as root") from None
        hush(self.names)
        courses = expected_courses(self.network, self.names, self.wanted, self.hangar.ports(4))
        self._warm(courses)
        self.counters = rule_counters.read(self.ruled)
        frequent = draws.frequent(courses)
        if not _forget_sources(self.tracking):
            courses = [course for course in courses if not course.probe.sticky]
            self.result.skipped.append(
                "session affinity: only the machine's root may empty the kernel's lists of sources"
            )
        for batch in self._scheduled(courses, frequent):
            self._fly(batch)
        self._fly_strict(courses)
        if self.asked.rule_trace is not False:
            if ruletrace.usable(self.result.tools.get("iptables", "")):
                self._trace_rules(courses)
            elif self.asked.rule_trace:
                raise PrivilegeError("--rule-trace needs an iptables that keeps its rules in nf_tables")
            else:
                self.result.skipped.append("rule paths: this iptables does not keep its rules in nf_tables")
        self._draws(courses, frequent)
        self.sinks.close()
        self.result.seconds = time.monotonic() - began
        return self.result, self.flights

    def _warm(self, courses: Sequence[Course]) -> None:
        """Fill neighbour tables and those of bridges, both ways."""
        first = {(one.probe.source, one.probe.target): one for one in courses if one.probe.ttl == 64}
        for course in first.values():
            flight = self.hangar.flight(course)
            sender, made = flight.packets()
            self.sinks.open(flight.receivers(made))
            for packet in made:
                self.watch.send(sender, packet)
            self.watch.drain()
        for _ in self.watch.collect(1.0):
            pass
        self.sinks.close()

    # -- batches -------------------------------------------------------------------------------------------------------
    def _scheduled(self, courses: Sequence[Course], frequent: Sequence[Course]) -> list[_Batch]:
        """Flights that may share the air: with the same waits, and where kernels remember a source, one of each."""
        plain: dict[tuple[object, ...], list[Flight]] = defaultdict(list)
        sticky: dict[tuple[float, ...], list[list[Flight]]] = defaultdict(list)
        for course in courses:
            probe = course.probe
            for _ in range(draws.tries(course, course in frequent)):
                flight = self.hangar.flight(course)
                if probe.sticky:
                    self._pack(sticky[waits(probe)], flight)
                else:
                    slow = any(way.limited or way.unsure for way in course.ways(course.first))
                    plain[any(waits(probe)), waits(probe), slow].append(flight)
        batches = [
            _Batch(held[start : start + _BATCH], late=held[0].course.probe.manner is Manner.LATE)
            for _, held in sorted(plain.items(), key=lambda item: item[0])
            for start in range(0, len(held), _BATCH)
        ]
        return batches + [_Batch(held, sticky=True) for packs in sticky.values() for held in packs]

    def _pack(self, packs: list[list[Flight]], flight: Flight) -> None:
        """Into the first batch without a flight from the same node: masqueraded, all its pods are one source."""

        def place(one: Flight) -> str:
            source = one.course.probe.source
            return self.network.namespace(source).node or source

        for pack in packs:
            if all(place(other) != place(flight) for other in pack):
                pack.append(flight)
                return
        packs.append([flight])

    def _fly(self, batch: _Batch) -> None:
        complaints = self._flown(batch)
        if complaints and self.confirmed < _CONVINCED:
            complaints = self._anew(batch, complaints)
        self.result.disagreements += complaints

    def _anew(self, batch: _Batch, first: list[str]) -> list[str]:
        """A second try: a machine that is too busy lets timeouts pass that should not, but hardly twice and for one alone.
        Flights that disagreed go one by one, then all others as before, for none of their counters have been compared."""
        before = [(flight, flight.complaint) for flight in batch.flights]
        wrong = [flight for flight, complaint in before if complaint]
        found = []
        for flight in wrong:
            if self.confirmed >= _CONVINCED or self._flown(self._like(batch, [flight])):
                self.confirmed += 1
                found.append(flight.complaint)
            else:
                self._forgive(flight, [flight.complaint])
        others = [flight for flight, complaint in before if not complaint]
        if found or not others:
            return found
        complaints = self._flown(self._like(batch, others))
        self.confirmed += len(complaints)
        if not wrong and not complaints:
            self.result.once += first
        return complaints

    def _like(self, batch: _Batch, flights: Iterable[Flight]) -> _Batch:
        return replace(batch, flights=[self.hangar.flight(one.course, strict=one.strict) for one in flights])

    def _forgive(self, flight: Flight, complaints: list[str]) -> None:
        self.result.once += complaints
        flight.complaint, flight.told = "", None

    def _flown(self, batch: _Batch) -> list[str]:
        """Fly, and hold each turn against netsim's; what disagrees."""
        self.tables.flush()
        self.watch.chatter.clear()
        if batch.sticky:
            _forget_sources(self.tracking)
        account = Account(self.tunnels)
        timeouts = self._short_timeouts() if batch.late else _nothing()
        while turning := [flight for flight in batch.flights if not flight.over]:
            with timeouts:  # of the first turn alone: what a late reply makes is there when the tables are read
                self._turn(turning, account)
            timeouts = _nothing()
        return self._finish(batch, account)

    def _turn(self, flights: list[Flight], account: Account) -> None:
        stages = [(flight, flight.stage.number) for flight in flights if flight.stage is not None]
        wait = max(flight.course.turns[number].wait for flight, number in stages)
        if wait:
            time.sleep(wait)
            self.tables.read()  # a dump removes what has expired, and in Linux 6.1 passes over other entries meanwhile
        made = [(flight, *flight.packets()) for flight in flights]
        self.sinks.open([one for flight, _, sent in made for one in flight.receivers(sent)])
        for flight, number in stages:
            self.by_mark[flight.marks[number]] = flight, number
        for flight, sender, sent in made:
            flight.sent += len(sent)
            for packet in sent:
                self.watch.send(sender, packet)
            self._assign(one for found in self.watch.collect(0.0) for one in found)
        self._collect(flights)
        self.tables.read()
        for flight in flights:
            way = flight.judge(self.tables)
            if way is not None:
                account.add(way.rules)
                account.unsure |= way.unsure
                account.add(flight.errors[-1])
                self._account(way)

    def _collect(self, flights: list[Flight]) -> None:
        """Until every flight's story is as expected, or nothing has been seen for a while."""
        pending, last = flights, time.monotonic()
        while True:
            for found in self.watch.collect(_GLANCE):
                last = time.monotonic()
                self._assign(found)
                if len(flights) <= _FEW and all(flight.agreeing(waiting=True) for flight in flights):
                    return
            pending = [flight for flight in pending if flight.agreeing(waiting=True) is None]
            if not pending or time.monotonic() > last + _PATIENCE:
                return

    def _assign(self, found: Iterable[Seen]) -> None:
        for one in found:
            flight, number = self.by_mark.get(one.mark, (None, 0))
            if flight is not None:
                present = flight.stage is not None and flight.stage.number == number
                (flight.now if present else flight.strays).append(one)

    def _account(self, way: Way) -> None:
        self.result.count("conntrack entries", len(way.entries))
        self.result.count("sightings", (way.main + way.errors).total())

    def _finish(self, batch: _Batch, account: Account) -> list[str]:
        if lost := self.watch.lost():
            raise NetsimError(
                f"the kernel had no room for {lost} frames to be seen: this machine is too busy to compare"
            )
        after = rule_counters.read(self.ruled) if batch.counting else {}
        complaints = [flight.complaint for flight in batch.flights if flight.complaint]
        for flight in batch.flights:
            if flight.strays and not flight.complaint:
                flight.complaint = f"{flight.course.probe}: seen after its story had ended\n"
                flight.complaint += "".join(f"    kernel  {one}\n" for one in _stray_lines(flight))
                complaints.append(flight.complaint)
        if not complaints:  # where flights disagree, so do their counters and connections
            if batch.counting:
                complaints += [f"counters  {text}\n" for text in self._counter_differences(after, account, batch)]
            complaints += [
                f"a connection that no packet accounts for: {line(name, entry, Names(), self.tunnels)}\n"
                for name, entry in self.tables.unclaimed()
            ]
        self.counters = after
        for flight in batch.flights:
            flight.before.clear()
        self.flights += batch.flights
        self.by_mark.clear()
        self.sinks.close()
        return complaints

    def _counter_differences(self, after: Counters, account: Account, batch: _Batch) -> Iterator[str]:
        self.result.count("rule counters", len(after))
        tunnels = None if batch.late else self.tables.tunnels(self.tunnels)
        return account.differences(self.counters, after, tunnels, self.watch.chatter, self.network)

    @contextmanager
    def _short_timeouts(self) -> Iterator[None]:
        held: dict[tuple[str, str], str] = {}
        keys = [(name, key.removeprefix("net.").replace(".", "/", 1)) for name in self.tracking for key in SHORT]
        for name, key in keys:
            with within(netns(name)):
                held[name, key] = Path("/proc/sys/net", key).read_text()
                write(key, str(TIMEOUT))
        try:
            yield
        finally:
            for (name, key), value in held.items():
                with within(netns(name)):
                    write(key, value)

    def _fly_strict(self, courses: Sequence[Course]) -> None:
        """A few of those that end for want of a route, when the kernel's allowance for telling so is full."""
        strict = [self.hangar.flight(course, strict=True) for course in _first_unreachable(courses)]
        if strict:
            time.sleep(_REFILL)
            self._fly(_Batch(strict))

    def _trace_rules(self, courses: Sequence[Course]) -> None:
        """An answered packet and a whole connection of each path, one after the other, the kernel telling its rules."""
        plain = {Manner.ANSWERED, Manner.CONNECTION, Manner.AFFINITY}
        sample = {
            (one.probe.path, one.probe.protocol, one.probe.manner, one.probe.family): one
            for one in courses
            if one.probe.manner in plain
        }
        with ruletrace.listening(self.tracking) as listener:
            for course in sample.values():
                flight, complaints = self._traced(course, listener)
                if complaints and not self._traced(course, listener)[1]:
                    self._forgive(flight, complaints)
                    complaints = []
                self.result.disagreements += complaints

    def _traced(self, course: Course, listener: ruletrace.Listener) -> tuple[Flight, list[str]]:
        _forget_sources(self.tracking)
        flight = self.hangar.flight(course)
        complaints = self._flown(_Batch([flight], counting=False))
        heard = listener.heard()
        if not complaints:
            self.result.count("rules traced", sum(map(len, heard.values())))
            complaints = ruletrace.differences(flight, heard)
        return flight, complaints

    # -- all flights ---------------------------------------------------------------------------------------------------
    def _draws(self, courses: Sequence[Course], frequent: Sequence[Course]) -> None:
        """Was every outcome seen, and as often as it should be?"""
        of_course: dict[int, list[Flight]] = defaultdict(list)
        for flight in self.flights:
            of_course[id(flight.course)].append(flight)
        for course in courses:
            probe, flights = course.probe, of_course[id(course)]
            tally = self.result.tally(probe)
            tally.probes += 1
            tally.packets += sum(flight.sent for flight in flights)
            wrong = any(flight.complaint for flight in flights)
            tally.disagreements += wrong
            if wrong:
                continue
            ways = course.ways(course.first)
            taken = Counter(id(flight.taken[0]) for flight in flights if flight.taken)
            if probe.every_draw and not probe.sticky and len(taken) != len(ways):
                text = f"{probe}: {len(ways) - len(taken)} of the outcomes that netsim says can happen never did\n"
                self.result.disagreements.append(text)
                tally.disagreements += 1
            elif course in frequent:
                text, fits = draws.frequencies(probe, ways, [taken[id(way)] for way in ways])
                (self.result.agreements if fits else self.result.disagreements).append(text)
            else:
                self.result.agreements.append(str(probe))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _stray_lines(flight: Flight) -> Iterator[str]:
    for story in flight.course.teller.seen(flight.strays, Names(hidden=True)):
        yield from story


def _forget_sources(names: Iterable[str]) -> bool:
    """Empty the lists of ``-m recent``. False if this user may not: they belong to the machine's root."""
    for name in names:
        with within(netns(name)):
            for held in Path("/proc/thread-self/net/xt_recent").glob("*"):
                try:
                    held.write_text("/\n")
                except PermissionError:
                    return False
    return True


def _first_unreachable(courses: Sequence[Course]) -> Iterator[Course]:
    """Of each sender as the router sees it."""
    used: Counter[str] = Counter()
    for course in courses:
        ways = course.ways(course.first)
        if all(way.limited for way in ways) and len(course.turns) == 1:
            senders = {str(outcome.packet.src) for way in ways for outcome in way.outcomes}
            if all(used[sender] < _ALLOWED for sender in senders):
                used.update(senders)
                yield course
