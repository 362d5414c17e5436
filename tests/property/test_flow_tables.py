"""The tables of flows next to a list that is searched from one end to the other; and what they take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled import flow_records as fl
from netsim.compiled.addresses import Addresses
from netsim.compiled.flow_index import inverted_ports
from netsim.compiled.flows import drop_flow, find, find_any, link_flow, new_flow, same_source
from netsim.compiled.jit import kernel
from netsim.compiled.outer_flows import drop_outer, find_outer
from netsim.compiled.ref import reference
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.datapath.store import FlowStore
from netsim.interpreter.origin import LocalOrigin
from netsim.linux.conntrack import Entry, Tuple
from netsim.linux.network import StaticNetwork
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Udp
from tests.support.topology_clusters import build, node, pod

LIFE, SEEN = 500, 1000  # ms
WIDE = st.integers(0, (1 << 24) - 1)


@pytest.fixture(scope="module", autouse=True)
def _linked() -> None:
    """The units that the kernels below call have been made ready."""
    Datapath(StaticNetwork({}))


@kernel
def _drop(s: Any, flow: int) -> int:
    return drop_flow(s, flow)  # type: ignore[no-any-return]


@kernel
def _same_source(s: Any, ns: int, proto: int, src: int, port: int, ipv6: int, now: int) -> int:
    return same_source(s, ns, proto, src, port, ipv6, now)  # type: ignore[no-any-return]


# -- packed fields -----------------------------------------------------------------------------------------------------
@given(st.lists(WIDE, min_size=8, max_size=8), st.integers(0, 3), WIDE)
def test_numbers_keep_their_neighbours(numbers: list[int], place: int, number: int) -> None:
    records = np.zeros(2, fl.COLD), np.zeros(2, fl.REST)
    for table, some in zip(records, (numbers[:4], numbers[4:])):
        for at, each in enumerate(some):
            fl.set_number(table[0], at, each)
        fl.set_number(table[0], place, number)
        some = [*some[:place], number, *some[place + 1 :]]
        assert [fl.number_at(table[0], at) for at in range(4)] == some
        assert not table[1].tobytes().strip(b"\0")
    assert not records[0][0]["tcp"].tobytes().strip(b"\0")
    assert records[0][0]["born"] == 0


@given(st.integers(0, 31), st.integers(1, 3), st.integers(0, 3), st.integers(0, fl.SETTINGS - 1))
def test_a_status_says_what_was_put_in(bits: int, count: int, nat_at: int, row: int) -> None:
    hot = np.zeros(1, fl.HOT)[0]
    hot["status"] = fl.status_word(bits, count, nat_at, row)
    assert (hot["status"] & 31, fl.count_of(hot), fl.nat_at_of(hot), fl.settings_of(hot)) == (bits, count, nat_at, row)


@given(
    st.integers(1, fl.MOST_ENDS), st.integers(1, fl.MOST_ENDS), st.integers(0, 0xFFFF), st.integers(0, 31), WIDE, WIDE
)
def test_an_outer_entry_says_what_was_put_in(near: int, far: int, port: int, bits: int, owner: int, last: int) -> None:
    entry = np.zeros(1, fl.OUTER)[0]
    entry["key"] = fl.outer_key(near, far, port, bits)
    for held in (0, owner << 1 | 1, 0):
        assert (fl.near_of(entry), fl.far_of(entry), fl.bits_of(entry) & ~fl.OWNED) == (near, far, bits)
        assert int(entry.tobytes()[fl.PORT_AT]) | int(entry.tobytes()[fl.PORT_AT + 1]) << 8 == port
        assert fl.owner_of(entry) == held
        if held:
            fl.keep_time(entry, last)
            assert entry["last"] == last
        else:
            fl.set_owner(entry, owner << 1 | 1)
    fl.set_bits(entry, 0)
    assert (fl.near_of(entry), fl.far_of(entry), fl.bits_of(entry)) == (near, far, 0)


def test_a_million_flows_have_room_in_200_megabytes() -> None:
    """Of the largest kind: translated, through a tunnel, answered."""
    flows = 1_000_000
    state = FlowStore(flows, Addresses()).state
    apart = ("timeouts", "elsewhere", "classes", "profiles", "counts", "ends")  # of all flows together
    assert sum(array.nbytes for name, array in state._asdict().items() if name not in apart) / flows < 198
    assert sum(array.nbytes for array in state) < 200 * flows


# -- flows -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Flow:
    proto: int
    s0: tuple[int, int, int]
    s1: tuple[int, int, int]
    namespaces: tuple[int, ...]
    nat_at: int
    ipv6: int
    alive: bool

    @classmethod
    def draw(cls, dice: Random) -> Flow:
        """From so few addresses and ports that much is the same."""
        proto = dice.choice((1, 6, 17))

        def one() -> tuple[int, int, int]:
            ports = dice.randrange(3) << 16 | (0x800 if proto == 1 else dice.randrange(20))
            return 0xFFFFFF00 + dice.randrange(4), dice.randrange(6), ports

        namespaces = tuple(dice.sample((1, 2, 70_000, 0xFFFFFF), dice.randint(1, 3)))
        nat_at, first = dice.randint(0, len(namespaces)), one()
        last = one() if nat_at < len(namespaces) else first
        return cls(proto, first, last, namespaces, nat_at, dice.randrange(2), dice.random() < 0.8)

    def ways(self) -> list[tuple[int, tuple[int, int, int], int]]:
        """Each namespace with the tuples of both directions there."""
        found = []
        for place, ns in enumerate(self.namespaces):
            found.append((ns, self.s0 if place <= self.nat_at else self.s1, 0))
            found.append((ns, turned(self.proto, self.s1 if place >= self.nat_at else self.s0), 1))
        return found

    def put(self, store: FlowStore) -> int:
        while not (flow := int(new_flow(reference(store.state)))):
            store.grow_flows()
        state = store.state
        hot = state.hot[flow]
        hot["s0_src"], hot["s0_dst"], hot["s0_ports"] = self.s0
        hot["s1_src"], hot["s1_dst"], hot["s1_ports"] = self.s1
        hot["proto"], hot["state"] = self.proto, 3
        hot["status"] = fl.status_word(fl.IPV6 * self.ipv6, len(self.namespaces), self.nat_at, 1)
        hot["last0"], hot["last1"] = SEEN if self.alive else 1, 1
        for place, ns in enumerate(self.namespaces):
            fl.set_namespace(state, flow, place, ns)
        for direction in (0, 1):
            fl.set_outer(state, flow, direction, 0)
        link_flow(reference(state), flow)
        return flow


def turned(proto: int, one: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[1], one[0], int(inverted_ports(proto, one[2]))


def check(store: FlowStore, held: dict[int, Flow], gone: list[Flow]) -> None:
    """Whatever is or was known in some namespace is found there, as one of those that fit; or not at all."""
    s, now = reference(store.state), SEEN + LIFE - 1
    known: dict[tuple[int, int, int, tuple[int, int, int]], set[int]] = {}
    outside: dict[tuple[int, int, tuple[int, int, int]], set[int]] = {}
    sources: set[tuple[int, int, int, int, int]] = set()
    for flow, one in held.items():
        for ns, way, direction in one.ways():
            if one.alive:
                known.setdefault((ns, one.proto, one.ipv6, way), set()).add(flow << 1 | direction)
                if not direction:
                    sources.add((ns, one.proto, one.ipv6, way[0], way[2] >> 16))
        outside.setdefault((one.proto, one.ipv6, one.s0), set()).add(flow << 1)
        outside.setdefault((one.proto, one.ipv6, turned(one.proto, one.s1)), set()).add(flow << 1 | 1)
    for one in [*held.values(), *gone]:
        for ns, way, direction in one.ways():
            found = int(find(s, ns, one.proto, *way, one.ipv6, now))
            assert found in (known.get((ns, one.proto, one.ipv6, way)) or {0})
            if not direction:
                source = ns, one.proto, one.ipv6, way[0], way[2] >> 16
                told = _same_source(s, ns, one.proto, way[0], way[2] >> 16, one.ipv6, now)
                assert bool(told) == (source in sources)
        for way in (one.s0, turned(one.proto, one.s1)):
            found = int(find_any(s, one.proto, *way, one.ipv6))
            assert found in (outside.get((one.proto, one.ipv6, way)) or {0})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 300))
def test_flows_are_found_until_they_are_gone(seed: int, most: int) -> None:
    store, dice = FlowStore(64, Addresses()), Random(seed)
    store.state.timeouts[1, 3] = LIFE
    held: dict[int, Flow] = {}
    gone: list[Flow] = []
    with np.errstate(over="ignore"):
        for step in range(600):
            if held and (len(held) >= most or dice.random() < 0.4):
                flow = dice.choice(list(held))
                gone.append(held.pop(flow))
                _drop(reference(store.state), flow)
            else:
                one = Flow.draw(dice)
                number = one.put(store)
                assert number not in held
                held[number] = one
            if step % 150 == 149:
                check(store, held, gone[-50:])
    assert int(store.state.counts[fl.N_FLOWS]) == len(held)
    assert len(store.state.hot) <= max(66, 4 * most)  # what is gone leaves its room to others


def test_coming_and_going_takes_no_room() -> None:
    """However many flows come and go, no more room is taken, and a search for what is not there ends."""
    store, dice = FlowStore(64, Addresses()), Random(3)
    store.state.timeouts[1, 3] = LIFE
    held: dict[int, Flow] = {}
    with np.errstate(over="ignore"):
        for number in range(3000):
            drawn = replace(Flow.draw(dice), s0=(number, 1, number << 16 | 0x800), s1=(number, 2, number << 16 | 0x800))
            held[drawn.put(store)] = drawn
            if len(held) > 40:
                flow = dice.choice(list(held))
                _drop(reference(store.state), flow)
                del held[flow]
        check(store, held, [])
    assert len(store.state.hot) == 66
    assert np.count_nonzero(store.state.slots == 0) >= len(store.state.slots) // 8


# -- outer entries -----------------------------------------------------------------------------------------------------
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 32))
def test_entries_of_tunnels_are_found_until_they_are_gone(seed: int) -> None:
    """With more ends than there is room for at first, in both versions and by protocols with and without ports."""
    store, dice = FlowStore(64, Addresses()), Random(seed)
    held: dict[tuple[Tuple, int, int], Entry] = {}
    kinds = (17, 8472, True), (17, 8285, False), (4, 0, False)
    store.state.timeouts[2, [fl.UDP, fl.UDP_STREAM, fl.GENERIC]] = 500, 900, 700

    def asked(key: tuple[Tuple, int, int], entry: Entry | None) -> None:
        one, *namespaces = key
        for ns in namespaces:
            s = reference(store.state)
            for direction, way in enumerate((one, one.inverted())):
                found = int(find_outer(s, ns, way.proto, *store.words(way), int(way.src.version == 6), 1400))
                assert (found != 0) == (entry is not None)
                if entry is not None:
                    assert found & 1 == (direction if one != one.inverted() else 0)
                    assert list(store.entries_of_outer(found >> 1)) == [(each, entry) for each in namespaces]

    with np.errstate(over="ignore"):
        for _ in range(700):
            a, b = dice.sample(range(400), 2)
            proto, port, drawn = dice.choice(kinds)
            version = dice.choice(("10.0.{}.{}", "fd00::{}:{}"))
            src, dst = (ip(version.format(n // 250, n % 250)) for n in (a, b))
            one = Tuple(src, dice.randrange(1 << 16) if drawn else port, dst, port, proto)
            key = one, a + 1, b + 0xFFFF00
            if key in held or (one.inverted(), b + 1, a + 0xFFFF00) in held:
                continue
            seen = dice.random() < 0.5
            assured = seen and proto == 17 and dice.random() < 0.5
            life = 0.7 if proto == 4 else 0.9 if assured else 0.5
            entry = Entry(
                one, one.inverted(), (1000 + round(1000 * life)) / 1000, seen_reply=seen, assured=assured, confirmed=True,
                born=dice.randrange(900) / 1000,
            )  # fmt: skip
            store.put_outer(entry, 1000, 2, (a + 1, b + 0xFFFF00))
            held[key] = entry
            if dice.random() < 0.4:
                gone = dice.choice(list(held))
                way = gone[0]
                number = int(
                    find_outer(
                        reference(store.state), gone[1], way.proto, *store.words(way), int(way.src.version == 6), 1400
                    )
                )
                drop_outer(reference(store.state), number >> 1)
                del held[gone]
                asked(gone, None)
        for key, entry in held.items():
            asked(key, entry)
    assert int(store.state.counts[fl.N_OUTERS]) == len(held)
    assert len(store.state.ends) > 256


# -- counts ------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="a minute without the JIT")
def test_a_flow_counts_further_than_its_line_can() -> None:
    made = build(
        node("n0", "192.168.56.10", cidrs=("10.244.0.0/24",)), pod("a", "n0"), pod("b", "n0"), cni="flannel:host-gw"
    )
    datapath = Datapath(made.network)
    a, b = (made.cluster.pods["default", name] for name in "ab")
    handle = datapath.origin(LocalOrigin(made.namespace_of(a)))
    packet = Packet(ip(a.ips[0]), ip(b.ips[0]), Proto.UDP, Udp(1000, 53, payload=bytes(1300)))
    count = 3 * 0xFFFF + 5
    batch = Batch.of_packets([(0, handle, packet)], datapath.addresses).take(np.zeros(count, np.int64))
    result = datapath.process(batch)
    assert int((result.how == 0).sum()) > 0.9999 * count
    entries = [entry for held in datapath.connections().values() for entry in held]
    assert entries
    assert {entry.packets for entry in entries} == {count}
    counted = [rule for rule in datapath.counters().values() if rule[0] >= count]
    assert counted
    assert {volume for _, volume in counted} == {count * int(batch.length[0])}
