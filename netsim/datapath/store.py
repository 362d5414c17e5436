"""The arrays behind flows and counters: their room, and flows as conntrack entries.

A flow record stands for the entries of several namespaces. *Thawing* writes those entries out and forgets the record; that
happens when the interpreter comes across one of them. What the interpreter's tables hold is noted by hash (``elsewhere``),
so that the kernels leave such packets to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netsim.compiled import flow_records as fl
from netsim.compiled.addresses import Addresses
from netsim.compiled.counter_table import copied, counters, larger
from netsim.compiled.flow_index import room_for, tuple_hash
from netsim.compiled.flow_records import (
    FlowState,
    bits_of,
    count_of,
    far_of,
    namespace_of,
    nat_at_of,
    near_of,
    ports_of,
    set_bits,
    set_namespace,
    set_number,
    set_outer,
    settings_of,
    status_word,
)
from netsim.compiled.flows import GONE, add_elsewhere, index_flows, link_flow, new_flow, remove_elsewhere, source_key
from netsim.compiled.memory import aligned, longer
from netsim.compiled.outer_flows import (
    index_outers,
    move_ends,
    new_outer,
    outer_last,
    outer_timeout,
    room_for_ends,
)
from netsim.compiled.ref import reference
from netsim.compiled.tcp_kernel import TCP_TRACK, load
from netsim.compiled.tcp_kernel import store as write_track
from netsim.linux.conntrack import Entry, Tuple
from netsim.linux.conntrack_tcp import STATES
from netsim.packet.model import Proto

_CLASSES, _PROFILES = 4096, 65536
_OF_FLOWS, _OF_OUTERS = 5, 6  # eighths of the indexes that are in use when there is no room for another record
_ECHO: dict[int, int] = {Proto.ICMP: fl.ICMP_ECHO, Proto.ICMPV6: fl.ICMPV6_ECHO}
_FROZEN = (Proto.TCP, Proto.UDP, Proto.ICMP, Proto.ICMPV6)  # whose connections records can hold
MS = 1000  # ticks of the engine's clock in a second


def _power_of_two(least: int) -> int:
    return 1 << max(6, (least - 1).bit_length())


class FlowStore:
    """``capacity``: flows to make room for at once; the tables double when they are full."""

    def __init__(self, capacity: int, addresses: Addresses) -> None:
        self.addresses = addresses
        flows = min(max(capacity, 64) + 2, fl.MOST)
        self.state = FlowState(
            slots=aligned(room_for(2 * flows, _OF_FLOWS), np.uint32, there=True),
            outer_slots=aligned(room_for(2 * flows, _OF_OUTERS), np.uint32, there=True),
            hot=aligned(flows, fl.HOT, there=True),
            cold=aligned(flows, fl.COLD, there=True),
            rest=aligned(flows, fl.REST, there=True),
            outer=aligned(2 * flows, fl.OUTER, there=True),
            ends=_ends(256),
            timeouts=np.zeros((fl.SETTINGS, 16), np.uint32),
            sources=aligned(flows // 2, np.uint32, there=True),
            elsewhere=np.zeros(1024, np.uint64),
            classes=np.zeros(_CLASSES, fl.CLASS),
            profiles=np.zeros(_PROFILES, np.uint32),
            counts=np.zeros(fl.COUNTS, np.int64),
        )
        self.state.counts[fl.N_CLASSES] = 1  # 0 stands for "take the slow path"
        # Packets that have ended before some of a flow's namespaces; it is this flow if it was born then, with this tuple.
        self._missed: dict[int, tuple[int, Tuple, tuple[int, ...]]] = {}
        self._noted: Counter[int] = Counter()  # how many entries of the interpreter have each hash
        self.counters = counters()
        self.groups: list[tuple[tuple[int, int], ...]] = []  # of rules (table, number) that trails count together

    def copy(self) -> FlowStore:
        """The same flows and counters, to go on from apart."""
        new = object.__new__(FlowStore)
        new.addresses = self.addresses
        new._noted = Counter(self._noted)
        new._missed = dict(self._missed)
        new.state = FlowState(*[_aligned_copy(held) for held in self.state])
        new.counters = copied(self.counters)
        new.groups = list(self.groups)
        return new

    # -- room ---------------------------------------------------------------------------------------------------------
    def grow_flows(self) -> None:
        """Room for another flow: twice the records; or a new index, if it is tombs that have filled it. OverflowError past
        what flow numbers can count."""
        state = self.state
        flows = len(state.hot)
        if int(state.counts[fl.HIGH]) + 1 == flows and not state.counts[fl.N_FREE]:
            flows = min(2 * flows, fl.MOST)
            if flows == len(state.hot):
                raise OverflowError(f"more than {fl.MOST} concurrent flows")
            self.state = state._replace(
                slots=aligned(room_for(2 * flows, _OF_FLOWS), np.uint32, there=True),
                hot=longer(state.hot, flows, there=True),
                cold=longer(state.cold, flows, there=True),
                rest=longer(state.rest, flows, there=True),
                sources=aligned(flows // 2, np.uint32, there=True),
            )
        index_flows(reference(self.state))

    def grow_outers(self) -> None:
        """The same for tunnels' entries, and for their ends."""
        state = self.state
        outers = len(state.outer)
        if not room_for_ends(reference(state)):
            if len(state.ends) > fl.MOST_ENDS:
                raise OverflowError(f"more than {fl.MOST_ENDS // 2} ends of tunnels")
            ends = _ends(2 * len(state.ends))
            move_ends(reference(state), ends)
            state.counts[fl.N_ENDS] = np.count_nonzero(ends["proto"]) - 1
            self.state = state._replace(ends=ends)
        elif int(state.counts[fl.OUTER_HIGH]) + 1 == outers and not state.counts[fl.N_OUTER_FREE]:
            outers = min(2 * outers, fl.MOST)
            if outers == len(state.outer):
                raise OverflowError(f"more than {fl.MOST} concurrent tunnel entries")
            self.state = state._replace(
                outer=longer(state.outer, outers, there=True),
                outer_slots=aligned(room_for(outers, _OF_OUTERS), np.uint32, there=True),
            )
        index_outers(reference(self.state))

    def grow_counters(self) -> None:
        self.counters = larger(self.counters)

    # -- what the interpreter holds -----------------------------------------------------------------------------------
    def note(self, entry: Entry) -> None:
        """The interpreter's tables hold ``entry``: packets of its tuples are its business from now on."""
        for digest in self._digests(entry):
            self._noted[digest] += 1
            if self._noted[digest] == 1:
                self._note(digest)

    def forget(self, entry: Entry) -> None:
        """They hold it no more."""
        for digest in self._digests(entry):
            self._noted[digest] -= 1
            if not self._noted[digest]:
                del self._noted[digest]
                remove_elsewhere(reference(self.state), np.uint64(digest))

    def _digests(self, entry: Entry) -> tuple[int, int, int]:
        v6, first = int(entry.original.src.version == 6), entry.original
        one, other = (int(tuple_hash(held.proto, *self.words(held), v6)) for held in (first, entry.reply))
        return one, other, int(source_key(first.proto, self.addresses.handle(first.src), first.sport, v6))

    def _note(self, digest: int) -> None:
        held = self.state.elsewhere
        if 2 * (int(self.state.counts[fl.N_ELSEWHERE]) + 1) > len(held):
            room = max(len(held) // 2, _power_of_two(4 * len(self._noted)))
            self.state = self.state._replace(elsewhere=np.zeros(room, np.uint64))
            self.state.counts[fl.N_ELSEWHERE] = 0
            for value in held[held > GONE]:
                add_elsewhere(reference(self.state), value)
        add_elsewhere(reference(self.state), np.uint64(digest))

    def put_outer(self, entry: Entry, last: int, settings: int, namespaces: tuple[int, int]) -> None:
        """A tunnel's entry, the same in both namespaces, as a record again. ``last``: ms of its last packet."""
        one, v6 = entry.original, int(entry.original.src.version == 6)
        number = 0
        while not number:
            number = int(new_outer(reference(self.state), one.proto, *self.words(one), v6, *namespaces, settings))
            if not number:
                self.grow_outers()
        record = self.state.outer[number]
        set_bits(record, fl.SEEN_REPLY * entry.seen_reply | fl.ASSURED * entry.assured)
        record["born"], record["last"] = round(entry.born * MS), last

    def put_flow(self, held: Sequence[tuple[int, Entry]], settings: int, device: int, now: int) -> bool:
        """One record for these (namespace, entry), in the order in which the connection's first packet made them. False,
        and nothing done, if no record can say the same. ``device``: the number of the one it was masqueraded for, or 0;
        ``now``: ms."""
        entries = [entry for _, entry in held]
        ways = _one_way(entries)
        if ways is None or len(dict(held)) < len(entries):
            return False
        first, (one, other, nat_at) = entries[0], ways
        code = state_of(first)
        last = round(first.expires * MS) - int(self.state.timeouts[settings][code])
        if not 0 < last <= now:
            return False
        track = np.zeros(1, TCP_TRACK)
        if first.tcp is not None:
            write_track(first.tcp, track[0])
            if load(track[0]) != first.tcp:
                return False
        while not (flow := int(new_flow(reference(self.state)))):
            self.grow_flows()
        state = self.state
        hot, cold, middle = state.hot[flow], state.cold[flow], entries[min(nat_at, len(entries) - 1)]
        hot["s0_src"], hot["s0_dst"], hot["s0_ports"] = self.words(one)
        hot["s1_src"], hot["s1_dst"], hot["s1_ports"] = self.words(other)
        hot["proto"], hot["state"] = one.proto, code
        bits = (
            fl.IPV6 * (one.src.version == 6)
            | fl.SNAT * middle.status_snat
            | fl.DNAT * middle.status_dnat
            | fl.SEEN_REPLY * first.seen_reply
            | fl.ASSURED * first.assured
        )
        hot["status"] = status_word(bits, len(held), nat_at, settings)
        for name in ("end0", "end1", "class0", "class1", "packets0", "packets1", "bytes0", "bytes1"):
            hot[name] = 0  # who speaks, and how its packets fare, the next ones will say
        hot["last0"] = hot["last1"] = last
        cold["born"], cold["tcp"] = round(first.born * MS), track[0]
        for place, (number, _) in enumerate(held):
            set_namespace(state, flow, place, number)
        for direction in (0, 1):
            set_outer(state, flow, direction, 0)
        set_number(state.rest[flow], fl.DEVICE, device)
        hot["packets"] = most = max(entry.packets for entry in entries)
        missed = tuple([most - entry.packets for entry in entries])
        self._missed.pop(flow, None)
        if any(missed):
            self._missed[flow] = int(cold["born"]), one, missed
        link_flow(reference(state), flow)
        return True

    # -- flows as entries ---------------------------------------------------------------------------------------------
    def words(self, one: Tuple) -> tuple[int, int, int]:
        """A tuple as records hold it: source, destination, ports."""
        handle = self.addresses.handle
        return handle(one.src), handle(one.dst), one.sport << 16 | one.dport

    def tuple_of(self, record: Any, stage: str, proto: int, version: int) -> Tuple:
        address = self.addresses.address
        ports = int(record[stage + "ports"])
        src, dst = int(record[stage + "src"]), int(record[stage + "dst"])
        return Tuple(address(src, version), ports >> 16, address(dst, version), ports & 0xFFFF, proto)

    def flows(self) -> Iterator[int]:
        used = self.state.hot[: int(self.state.counts[fl.HIGH]) + 1]["proto"] != 0
        yield from np.flatnonzero(used).tolist()

    def outers(self) -> Iterator[int]:
        used = self.state.outer[: int(self.state.counts[fl.OUTER_HIGH]) + 1]["key"] != 0
        yield from np.flatnonzero(used).tolist()

    def namespaces_of(self, flow: int) -> list[int]:
        """Where a flow has entries, in order."""
        return [int(namespace_of(self.state, flow, place)) for place in range(int(count_of(self.state.hot[flow])))]

    def entries_of(self, flow: int) -> Iterator[tuple[int, Entry]]:
        """(namespace, entry) of each place that a flow has an entry in. ``masquerade_device`` is left to the caller."""
        hot, cold = self.state.hot[flow], self.state.cold[flow]
        status, proto = int(hot["status"]), int(hot["proto"])
        version = 6 if status & fl.IPV6 else 4
        first, last = self.tuple_of(hot, "s0_", proto, version), self.tuple_of(hot, "s1_", proto, version)
        life = int(self.state.timeouts[int(settings_of(hot)), int(hot["state"])])
        seen = max(int(hot["last0"]), int(hot["last1"]))
        packets = int(hot["packets"]) + int(hot["packets0"]) + int(hot["packets1"])
        nat_at = int(nat_at_of(hot))
        born, of, missed = self._missed.get(flow, (0, first, ()))
        if (born, of) != (int(cold["born"]), first):
            missed = ()
        for place, ns in enumerate(self.namespaces_of(flow)):
            here = place == nat_at
            yield (
                ns,
                Entry(
                    original=first if place <= nat_at else last,
                    reply=(last if place >= nat_at else first).inverted(),
                    expires=(seen + life) / MS,
                    status_snat=here and bool(status & fl.SNAT),
                    status_dnat=here and bool(status & fl.DNAT),
                    seen_reply=bool(status & fl.SEEN_REPLY),
                    assured=bool(status & fl.ASSURED),
                    confirmed=True,
                    born=int(cold["born"]) / MS,
                    packets=packets - (missed[place] if missed else 0),
                    tcp=load(cold["tcp"]) if proto == Proto.TCP else None,
                ),
            )

    def entries_of_outer(self, number: int) -> Iterator[tuple[int, Entry]]:
        record, ends, flows = self.state.outer[number], self.state.ends, reference(self.state)
        near, far = ends[int(near_of(record))], ends[int(far_of(record))]
        ports, bits, version = int(ports_of(self.state, record)), int(bits_of(record)), 6 if near["ipv6"] else 4
        src, dst = (self.addresses.address(int(end["address"]), version) for end in (near, far))
        one = Tuple(src, ports >> 16, dst, ports & 0xFFFF, int(near["proto"]))
        for ns in dict.fromkeys((int(near["ns"]), int(far["ns"]))):
            yield (
                ns,
                Entry(
                    original=one,
                    reply=one.inverted(),
                    expires=(int(outer_last(flows, number)) + int(outer_timeout(flows, number))) / MS,
                    seen_reply=bool(bits & fl.SEEN_REPLY),
                    assured=bool(bits & fl.ASSURED),
                    confirmed=True,
                    born=int(record["born"]) / MS,
                ),
            )


def _one_way(entries: Sequence[Entry]) -> tuple[Tuple, Tuple, int] | None:
    """The tuple before and the one behind the entry that translates, and its place (how many there are, if none does);
    None if the entries differ in anything else, or hold what records do not."""
    first = entries[0]
    one, other = first.original, entries[-1].reply.inverted()
    translating = [place for place, entry in enumerate(entries) if entry.reply != entry.original.inverted()]
    nat_at = translating[0] if translating else len(entries)
    if len(entries) > 3 or len(translating) > 1 or one.proto not in _FROZEN:
        return None
    if one.proto in (Proto.ICMP, Proto.ICMPV6) and one.sport != other.sport:
        return None  # kernels do not translate an echo's identifier
    if first.mark or first.zone or first.port_drawn or first.expected or first.dying or not first.confirmed:
        return None
    for place, entry in enumerate(entries):
        own = ("snat_done", "dnat_done", "masquerade_device", "status_snat", "status_dnat", "packets")
        like = replace(
            first,
            original=one if place <= nat_at else other,
            reply=(other if place >= nat_at else one).inverted(),
            **{name: getattr(entry, name) for name in own},
        )
        if like != entry or (place != nat_at and (entry.masquerade_device or entry.status_snat or entry.status_dnat)):
            return None
    return one, other, nat_at


def state_of(entry: Entry) -> int:
    """The column of ``timeouts`` that an entry is in."""
    if entry.tcp is not None:
        return STATES.index(entry.tcp.code)
    if entry.original.proto == Proto.UDP:
        return fl.UDP_STREAM if entry.assured else fl.UDP
    return _ECHO.get(entry.original.proto, fl.GENERIC)


def _ends(count: int) -> Any:
    """An empty table of ends; its first row stands for none of them."""
    ends = np.zeros(count, fl.END)
    ends[0]["proto"] = fl.NOBODY
    return ends


def _aligned_copy(array: Any) -> Any:
    return longer(array, len(array)) if array.dtype in (fl.HOT, fl.COLD) else array.copy()
