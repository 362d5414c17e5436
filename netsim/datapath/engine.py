"""``Datapath``: batches of packets through a network, exactly as the interpreter would take them one by one.

batch ─▶ process (kernels) ─┬─ fast path, slow path ─────────────────────────────▶ columns of the result
                            ├─ FAULT: a fact is missing ─▶ Supply ─▶ the same packet again
                            └─ BAIL: the tables cannot say ─▶ the interpreter, in the joined state
"""

from __future__ import annotations

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from netsim.compiled import journey as jn
from netsim.compiled.addresses import Addresses
from netsim.compiled.along import PASSED
from netsim.compiled.commit_kernels import fold
from netsim.compiled.counter_table import clear, counted, ungroup
from netsim.compiled.engine_kernels import DONE, STOPPED_FAULT, process
from netsim.compiled.engine_tables import INTERPRETED, OTHER_ORIGINS, Columns, Engine, Results, results
from netsim.compiled.fast_kernels import BLOCK, look_up
from netsim.compiled.fib import FibCompiler
from netsim.compiled.flow_records import N_FLOWS, N_OUTERS
from netsim.compiled.link import link
from netsim.compiled.names import Names
from netsim.compiled.recent_table import RecentTable
from netsim.compiled.ref import reference, unchanged
from netsim.compiled.registers import DRAWS
from netsim.compiled.rule_compiler import Change, RuleCompiler
from netsim.compiled.screen_kernel import first_stranger
from netsim.compiled.told_table import ToldTable
from netsim.compiled.vectors import WIDE
from netsim.compiled.world import TABLES, World
from netsim.datapath.batch import Batch
from netsim.datapath.check import plain
from netsim.datapath.exchange import Exchange
from netsim.datapath.joined import JoinedState
from netsim.datapath.renewal import close_ways, forgotten_lists, renewal_between
from netsim.datapath.store import MS, FlowStore
from netsim.datapath.supply import Supply
from netsim.datapath.trailblazer import GLANCE, Trailblazer
from netsim.errors import InputError, Problem, UsageError
from netsim.interpreter.explore import Replay, run_once
from netsim.interpreter.origin import LocalOrigin, Origin
from netsim.interpreter.outcome import Disposition, Outcome, StepKind
from netsim.linux.conntrack import Entry
from netsim.linux.network import Network

_DISPOSITIONS = tuple(Disposition)
_SEGMENT = 1 << 16  # packets that several threads look up at once: their columns and candidates stay in the cache


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a batch, packet by packet: the columns of ``netsim.compiled.engine_tables.Results``."""

    columns: Results

    def __getattr__(self, name: str) -> Any:
        return getattr(self.columns, name)


class Datapath:
    """A network with its memory: connections, affinities, counters, the clock. Not for use by several threads at once.

    ``seed`` decides every random choice, by the packet's number since the start: how a run is split into batches changes
    nothing. ``capacity`` flows have room at once; the tables grow past that. ``compiled`` False runs every packet through
    the interpreter: the slow twin, for comparison. ``threads`` share the looking up of flows; how many there are changes
    nothing in a result. ``told`` hears the name of each part of the engine as it is made ready:
    the first time on a machine that takes a while.
    """

    def __init__(
        self,
        network: Network,
        *,
        seed: int = 0,
        capacity: int = 4096,
        compiled: bool = True,
        threads: int = 1,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.network = network
        self.seed = seed
        self.compiled = compiled
        self.threads = threads
        self._before: tuple[Datapath, Batch] | None = None
        self.exchange = Exchange(self)
        self.addresses = Addresses()
        self.names = Names()
        self.world = World(self.addresses, self.names)
        self.fib = FibCompiler(self.addresses, self.names)
        self.rules = RuleCompiler(self.addresses, self.names)
        self.recent = RecentTable()
        self.told = ToldTable()
        self.supply = Supply(network, self.addresses, self.names, self.world, self.fib, self.rules)
        self.store = FlowStore(capacity, self.addresses)
        self.state = JoinedState(self)
        self.serial = 0
        self.clock = 0  # microseconds: when the last packet was sent
        self.reasons: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.interpreted_hits: Counter[tuple[str, int, str, str, int]] = Counter()  # by namespace, IP version, table …
        self.interpreted_bytes: Counter[tuple[str, int, str, str, int]] = Counter()
        self._origins: list[Origin] = []
        self._origin_numbers: dict[Origin, int] = {}
        self._origin_rows = np.zeros((4, 4), np.int64)
        self._given = np.zeros(64, np.bool_)  # namespaces that have been given out as origins
        self._settings = 0
        self._held: tuple[Engine, Any] | None = None  # the tables as they last were, and a reference to them
        self.trails = Trailblazer()
        self._scratch = jn.scratch()
        self._x = reference(self._scratch)
        self._hashes = np.zeros(2 * int(BLOCK), np.uint64)
        self._candidates = np.zeros(WIDE, np.uint32)
        if compiled:
            link(*self.kernel_arguments(), told, help_with=(sys.executable, "-m", "netsim.datapath.fill_cache"))
        self._scratch.seed[0] = seed & (1 << 64) - 1

    def kernel_arguments(self) -> tuple[Engine, jn.Scratch, Columns, Results]:
        """What kernels are called with, of the types that they are compiled for (an empty batch)."""
        return self._tables(), self._scratch, self._columns(Batch.empty(0, self.addresses)), results(0)

    # -- where packets start ------------------------------------------------------------------------------------------
    def origin(self, origin: Origin) -> int:
        """The handle of a start point, for the batch's ``origin`` column. UsageError if there is no such place."""
        found = self._origin_numbers.get(origin)
        if found is not None:
            return found
        try:
            number = self.supply.add(origin.namespace)
        except KeyError:
            raise UsageError(f"there is no namespace {origin.namespace}") from None
        if isinstance(origin, LocalOrigin) and origin.mark == 0:
            found = number
            if number >= len(self._given):
                self._given = np.append(self._given, np.zeros(number + 1, np.bool_))
            self._given[number] = True
        else:
            found = OTHER_ORIGINS + len(self._origins)
            if len(self._origins) == len(self._origin_rows):
                self._origin_rows = np.concatenate((self._origin_rows, np.zeros_like(self._origin_rows)))
            self._origin_rows[len(self._origins)] = self._origin_row(number, origin)
            self._origins.append(origin)
        self._origin_numbers[origin] = found
        return found

    def _origin_row(self, number: int, origin: Origin) -> tuple[int, int, int, int]:
        if isinstance(origin, LocalOrigin):
            return number, 0, origin.mark, 0
        device = self.world.device_number(origin.namespace, origin.device)
        if not device:
            raise UsageError(f"{origin.namespace} has no device {origin.device}")
        mac = self.world.device(device)[1].mac
        return number, device, 0, 0 if mac is None else self.names.number(origin.dst_mac or mac)

    def _origin_of(self, handle: int) -> Origin:
        if handle >= OTHER_ORIGINS:
            return self._origins[handle - OTHER_ORIGINS]
        return LocalOrigin(self.world.name(handle))

    def namespace_name(self, number: int) -> str | None:
        return self.world.name(number) if number else None

    # -- generations --------------------------------------------------------------------------------------------------
    def update(self, network: Network) -> None:
        """Go on in another network, between two batches: the next generation of this one (``Assembled.after``), or any with
        the same places, whose namespaces are then compared one by one.

        Connections, affinities, the clock and the counters of rules that stay go on. What is decided packet by packet is
        decided by the new rules from the next packet on; translations that are settled stay settled. Rules in chains that
        have been written anew count from 0, as ``iptables-restore`` leaves them. UsageError if a namespace that has been
        visited is gone; the packets of earlier batches cannot be explained any more."""
        if network is self.network:
            return
        renewal = renewal_between(self.network, network, self.world.all_visited)
        for known in filter(self.world.visited, renewal.namespaces):  # before anything has changed
            try:
                network.namespace(known)
            except KeyError:
                raise UsageError(f"the network has no namespace {known} any more") from None
        self._before = None
        self._leave_trails()
        renewed = self.supply.renew(network, renewal)
        self.network = network
        if renewal.namespaces:  # their devices have other numbers now
            for place, one in enumerate(self._origins):
                self._origin_rows[place] = self._origin_row(self.supply.add(one.namespace), one)
        changes = [*renewed.everywhere, *[one for _, some in renewed.tables.values() for one in some]]
        replaced = {(int(one.family), one.table, one.old.name) for one in changes if one.old is not None}
        close_ways(self.store.state, self.rules, replaced, everything=bool(renewal.namespaces))
        self._leave_changed_sets(self.state.namespaces)
        self._forget(renewed.everywhere, None)
        for (name, _, _), (_, some) in renewed.tables.items():
            self._forget(some, str(name))

    def _forget(self, changes: Sequence[Change], namespace: str | None) -> None:
        """Counters of rules and lists of ``-m recent`` that are no more, in one namespace or (None) in all."""
        gone = {(int(one.family), one.table, one.old.name) for one in changes if one.old is not None}
        for counts in (self.interpreted_hits, self.interpreted_bytes):
            for key in [key for key in counts if key[1:4] in gone and namespace in (None, key[0])]:
                del counts[key]
        where = None if namespace is None else self.world.number(namespace)
        if where is not None:  # elsewhere the compiler has given them back
            numbers = [self.rules.rules_of(one.old, one.family) for one in changes if one.old]
            self.store.counters = ungroup(self.store.counters, where, self.store.groups)
            clear(self.store.counters, where, numbers)
        lists = forgotten_lists(changes)
        self.recent.forget([self.rules.recent_list(name, family) for family, name in lists], where)
        for name, held in self.state.namespaces.items():
            if namespace in (None, name):
                for _, lost in lists:
                    held.recent.pop(lost, None)

    # -- batches ------------------------------------------------------------------------------------------------------
    def process(self, batch: Batch, *, explainable: bool = False) -> Result:
        """Take every packet of ``batch`` through the network, in order. InputError if the batch is malformed.

        ``explainable`` keeps a copy of all that is remembered now, so that ``explain`` can tell of this batch's packets."""
        batch.check()
        self._check_origins(batch)
        self._check_clock(batch)
        self._before = (self._fork(), batch) if explainable else None
        made = results(len(batch))
        columns, into = reference(self._columns(batch)), reference(made)
        candidates = self._room_for(len(batch))
        threaded = int(self.threads > 1)
        alone = [*sorted(batch.extra), len(batch)]  # packets of which columns say too little, and a last one
        if self.trails.due():
            self._seek_trails(batch, columns, candidates)
        at = end = place = 0
        before = int(self._scratch.trails[PASSED])
        with np.errstate(over="ignore"):
            while at < len(batch):
                if not self.compiled or at == alone[place]:
                    self._interpret(batch, made, at, jn.REASONS[jn.R_KIND] if self.compiled else "asked for", ())
                    self._scratch.r[DRAWS] = 0  # no kernel has drawn anything for it
                    place += at == alone[place]
                    at += 1
                    continue
                engine = self.engine()
                if at >= end:
                    end = min(at + _SEGMENT, len(batch))
                    if threaded:
                        self._look_up(columns, candidates, at, end)
                stop = min(end, alone[place])
                at = int(
                    process(engine, self._x, columns, into, self._hashes, candidates, at, stop, self.serial, threaded)
                )
                why = int(self._scratch.why[0])
                if why == DONE:
                    continue
                if why == STOPPED_FAULT:
                    self._answer()
                else:
                    reason = jn.REASONS[int(self._scratch.j[jn.REASON])]
                    self._interpret(batch, made, at, reason, self.last_choices())
                    at += 1
        self.serial += len(batch)
        if len(batch):
            self.clock = int(batch.time[-1])
            self.state.now = _seconds(self.clock)
        others, interpreted = int(np.count_nonzero(made.how)), int(np.count_nonzero(made.how == INTERPRETED))
        slow = int(self._scratch.trails[PASSED] - before) if self.trails.laid else others - interpreted
        self.trails.waiting += slow
        self.paths.update({"fast": len(batch) - others, "slow": others - interpreted, "interpreter": interpreted})
        return Result(made)

    def _room_for(self, packets: int) -> Any:
        """``candidates`` of ``engine_kernels.process``: batch after batch the same memory, whose pages are there already."""
        if len(self._candidates) < packets + WIDE:
            self._candidates = np.zeros(packets + WIDE, np.uint32)
        return self._candidates

    def _seek_trails(self, batch: Batch, columns: Any, candidates: Any) -> None:
        """Where first packets go by the thousand, find the trails that they could take. Whether this is such a batch, or one
        of answers, its beginning tells."""
        flows, glance = reference(self.store.state), min(GLANCE, len(batch))
        look_up(flows, columns, self._hashes, candidates, 0, glance)
        if np.count_nonzero(candidates[:glance] == 0) < min(self.trails.samples, glance):
            return
        look_up(flows, columns, self._hashes, candidates, 0, len(batch))
        unknown = candidates[: len(batch)] == 0
        unknown[list(batch.extra)] = False
        first = np.flatnonzero(unknown)
        self.trails.seek(
            self._tables(), self._columns(batch), first, self.serial, int(self._scratch.seed[0]), self.store.groups
        )
        self._lay_trails()

    def _leave_trails(self) -> None:
        """What they take for granted may not be so any more."""
        self.trails.forget()
        self._lay_trails()

    def _lay_trails(self) -> None:
        self._scratch = self.trails.lay(self._scratch)
        self._x = reference(self._scratch)

    def _look_up(self, columns: Any, candidates: Any, start: int, stop: int) -> None:
        """Candidates for a segment of the batch, by all threads: a kernel lets go of the interpreter lock."""
        flows = reference(self.store.state)
        cuts = [start + (stop - start) * part // self.threads for part in range(self.threads + 1)]
        with ThreadPoolExecutor(self.threads) as pool:
            list(
                pool.map(
                    lambda ends: look_up(flows, columns, np.zeros(int(BLOCK), np.uint64), candidates, *ends),
                    pairwise(cuts),
                )
            )

    def _fork(self) -> Datapath:
        """A datapath on the same tables that remembers the same and goes on apart."""
        new = copy.copy(self)
        new.exchange = Exchange(new)
        new.store = self.store.copy()
        new.told = self.told.copy()
        new.state = self.state.copy_for(new)
        new.recent = RecentTable(len(self.recent.recent.slots))
        new.recent.recent = type(self.recent.recent)(*[held.copy() for held in self.recent.recent])
        new.trails = Trailblazer()
        new._hashes, new._candidates = np.zeros_like(self._hashes), np.zeros(WIDE, np.uint32)
        new._scratch = jn.scratch()
        new._scratch.seed[:] = self._scratch.seed
        new._x = reference(new._scratch)
        for name in ("reasons", "paths", "interpreted_hits", "interpreted_bytes"):
            setattr(new, name, Counter(getattr(self, name)))
        new._before = None
        return new

    def explain(self, number: int) -> Outcome:
        """What the interpreter says of packet ``number`` of the last batch, replayed from the state before it, with the same
        draws. UsageError if that batch was not processed as ``explainable``; IndexError if it has no such packet."""
        if self._before is None:
            raise UsageError("only packets of a batch that was processed with explainable=True can be explained")
        start, batch = self._before
        if not 0 <= number < len(batch):
            raise IndexError(f"packet {number} of a batch of {len(batch)}")
        before = start._fork()
        before.process(batch[:number])
        after = before._fork()
        one = batch[number : number + 1]
        after.process(one)
        return before._run(one, 0, before._draws(after.last_choices() if self.compiled else ()))

    def remembered(self) -> int:
        """Connections and tunnel entries that the tables hold, living or not yet cleared away."""
        counts = self.store.state.counts
        return int(counts[N_FLOWS] + counts[N_OUTERS])

    def _draws(self, answered: tuple[bool, ...], at: int = 0) -> Replay:
        """How chance answers the interpreter about the packet ``at`` places on: as it has ``answered`` the kernels, which
        may have come to give up because of that, then anew."""
        return Replay(answered, random.Random(f"{self.seed} {self.serial + at}"))

    def _check_origins(self, batch: Batch) -> None:
        if batch.addresses is not self.addresses:
            raise InputError(
                [Problem("its addresses are not Datapath.addresses: handles mean nothing here", object="batch")]
            )
        number = int(
            first_stranger(plain(batch.origin), self._given, OTHER_ORIGINS, OTHER_ORIGINS + len(self._origins))
        )
        if number < len(batch):
            text = f"packet {number}: origin {batch.origin[number]} was not given out; ask Datapath.origin for one"
            raise InputError([Problem(text, object="batch")])

    def _check_clock(self, batch: Batch) -> None:
        if len(batch) and int(batch.time[0]) < self.clock:
            told = f"packet 0: column time is {batch.time[0]}, but the clock shows {self.clock} since the last batch"
            raise InputError([Problem(f"{told}; time goes on from batch to batch", object="batch")])

    def _columns(self, batch: Batch) -> Columns:
        return Columns(*[plain(getattr(batch, name)) for name in Columns._fields])

    def engine(self) -> Any:
        """The tables as kernels take them, now; what trails remember of earlier ones is forgotten."""
        tables = self._tables()
        self.trails.look_again(tables, self.world.edits)
        if self._held is None or not unchanged(self._held[0], tables):
            self._held = tables, reference(tables)
        return self._held[1]

    def _tables(self) -> Engine:
        while self._settings < len(self.world.settings):
            seconds = self.world.settings[self._settings][0]
            row = self.store.state.timeouts[self._settings]
            row[: len(seconds)] = [min(int(value * MS), 0xFFFFFFFF) for value in seconds]
            self._settings += 1
        return Engine(
            self.world.tables,
            self.fib.tables,
            self.rules.programs,
            self.store.state,
            self.addresses.words,
            self.recent.recent,
            self.told.rows,
            self.store.counters,
            self._origin_rows,
        )

    def _answer(self) -> None:
        j = self._scratch.j
        kind, number, value = (int(j[place]) for place in (jn.FAULT_KIND, jn.FAULT_NUMBER, jn.FAULT_VALUE))
        if kind != jn.FAULT_ROOM:
            self.supply.answer(kind, number, value)
        elif number == 0:
            self.store.grow_flows()
        elif number == 1:
            self.store.grow_outers()
        elif number == 2:
            self.store.grow_counters()
        else:
            self.recent.grow()

    # -- the interpreter's share --------------------------------------------------------------------------------------
    def _interpret(self, batch: Batch, made: Results, at: int, reason: str, answered: tuple[bool, ...]) -> None:
        outcome = self._run(batch, at, self._draws(answered, at))
        self.reasons[reason] += 1
        self._count(outcome, int(batch.length[at]))
        self._write(outcome, made, at)

    def _run(self, batch: Batch, at: int, oracle: Replay) -> Outcome:
        self.state.now = _seconds(batch.time[at])
        self._lend_recent()
        origin = self._origin_of(int(batch.origin[at]))
        self.exchange.arrived.clear()
        outcome, _ = run_once(self.supply.scenes, origin, batch.packet(at), self.state, oracle, None)
        self.exchange.freeze(outcome)
        self._take_recent()
        passed = {hop.namespace for hop in (*outcome.hops, *outcome.error_hops)}
        self._leave_changed_sets(passed)
        for name in passed:
            if name in self.state.namespaces and self.state.namespaces[name].path_mtu:
                self.world.seal(self.world.number(name))
        return outcome

    def _leave_changed_sets(self, namespaces: Iterable[str]) -> None:
        """Where rules have changed a set, tables do not know any more what is in it, nor ways what it said."""
        for name in namespaces:
            held = self.state.namespaces.get(name)
            if held is not None and held.ipsets and self.rules.leave_sets(name):
                close_ways(self.store.state, self.rules, (), everything=True)
                self._leave_trails()

    def _write(self, outcome: Outcome, made: Results, at: int) -> None:
        packet = outcome.packet
        made.verdict[at] = _DISPOSITIONS.index(outcome.disposition)
        made.how[at] = INTERPRETED
        made.masqueraded[at] = outcome.masqueraded
        made.ttl[at] = packet.ttl
        made.receiver[at] = self.world.number(outcome.receiver) if outcome.receiver else 0
        made.src[at], made.dst[at] = self.addresses.handle(packet.src), self.addresses.handle(packet.dst)
        one = _ports(packet)
        made.sport[at], made.dport[at] = one
        made.rules[at] = outcome.rules_evaluated
        made.flow[at] = made.decided[at] = made.decided_ns[at] = 0

    def _count(self, outcome: Outcome, length: int) -> None:
        for hop in (*outcome.hops, *outcome.error_hops):
            for step in hop.steps:
                if step.kind is StepKind.RULE and step.rule is not None:
                    key = hop.namespace, outcome.packet.src.version, str(step.table), str(step.chain), step.rule
                    self.interpreted_hits[key] += 1
                    self.interpreted_bytes[key] += length

    def _lend_recent(self) -> None:
        """The interpreter sees the lists of ``-m recent`` as they are now. Tables keep an address's last stamp; where no
        kernel has added one, the interpreter still has those before it."""
        if not int(self.recent.recent.count[0]):
            return
        lists = self.recent.lists(self.rules.recent_name, self.addresses.address)
        for number in lists:
            self.state.of(self.world.name(number))
        for name, held in self.state.namespaces.items():
            now = lists.get(self.world.number(name), {})
            for text, seen in now.items():
                before = held.recent.get(text, {})
                for address, stamps in seen.items():
                    if before.get(address, [])[-1:] == stamps:
                        seen[address] = before[address]
            held.recent = now

    def _take_recent(self) -> None:
        """The lists as the interpreter leaves them; what it has removed is gone."""
        self.recent.clear()
        for name, held in self.state.namespaces.items():
            if held.recent:
                self.recent.load(self.world.number(name), held.recent, self.rules.recent_list, self.addresses.handle)

    def last_choices(self) -> tuple[bool, ...]:
        """What kernels drew for the last packet that did not take the fast path, question by question, as the interpreter
        would ask them."""
        drawn = self._scratch.rules.draws[: int(self._scratch.r[DRAWS])].tolist()
        return tuple([answer for one in drawn for answer in (*[False] * (one >> 1), *[True] * (one & 1))])

    def counters(self) -> Mapping[tuple[str, str, str, int], tuple[int, int]]:
        """Packets and bytes by (namespace, table, chain, rule number): those of rules that matched, as ``iptables -c`` has
        them. Bytes are those of the packet as it was sent."""
        engine = self.engine()
        for flow in self.store.flows():
            fold(engine, flow, 0)
            fold(engine, flow, 1)
        found: dict[tuple[str, str, str, int], tuple[int, int]] = {}
        for key, count in self.interpreted_hits.items():
            _add(found, (key[0], *key[2:]), count, self.interpreted_bytes[key])
        for namespace, table, rule, packets, volume in counted(self.store.counters, self.store.groups):
            try:
                chain, number, _ = self.rules.rule_of(rule)
            except KeyError:
                continue  # an update has replaced the chain
            _add(found, (self.world.name(namespace), TABLES[table % 5], chain, number), packets, volume)
        return found

    def connections(self) -> Mapping[str, list[Entry]]:
        """Every living conntrack entry by namespace, as ``conntrack -L`` would list them there."""
        return self.exchange.connections()


def _add(found: dict[tuple[str, str, str, int], tuple[int, int]], rule: tuple[str, str, str, int], *more: int) -> None:
    before = found.get(rule, (0, 0))
    found[rule] = before[0] + more[0], before[1] + more[1]


def _seconds(time: Any) -> float:
    """The interpreter's clock at a packet's time: the engine's ticks, which begin at 1."""
    return (int(time) // 1000 + 1) / MS


def _ports(packet: Any) -> tuple[int, int]:
    from netsim.packet.model import Icmp

    if isinstance(packet.body, Icmp):
        return packet.body.rest >> 16, packet.body.type << 8 | packet.body.code
    return packet.sport or 0, packet.dport or 0
