"""The compiled routing tables next to Fib and the interpreter's ingress checks, on random namespaces.

Every world is compiled in many ways at once: with its routes as they are, as runs shared with a second namespace that leaves
other places out, and with tables hashed or read in a row. All of them must say what Fib says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from netsim.compiled import fib, fib_runs
from netsim.compiled import fib_tables as t
from netsim.compiled.addresses import Addresses
from netsim.compiled.fib import FibCompiler
from netsim.compiled.fib_checks import REASONS, martian, select_source, validate_source
from netsim.compiled.fib_kernels import address_type, device_flags, fib_lookup, flow_hash, forwarding, is_local
from netsim.compiled.names import Names
from netsim.compiled.registers import ADDRESS_TYPES, BAIL, FAULT
from netsim.interpreter import scene as interpreter
from netsim.interpreter import validation
from netsim.linux.fib import Fib, FibResult, default_rules
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_LOCAL, TABLE_MAIN, Address, NextHop, Route, RouteType
from netsim.linux.shared import SequenceBuilder, runs_of
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress, interface, ip, network
from netsim.packet.model import Packet, Proto, Udp
from tests.support import routing_worlds as worlds

I = np.int64
PLACES = (None, "lo", "d0", "d1", "d2")
SPECIAL = {
    4: ("0.0.0.0", "255.255.255.255", "127.0.0.1", "127.9.9.9", "224.0.0.5", "8.8.8.8", "10.255.255.255", "169.254.1.1"),
    6: ("::", "::1", "fe80::ff:fe00:10", "fe80::1", "ff02::1", "ff05::5", "2001:db8::1", "::255.255.255.255", "fec0::1"),
}  # fmt: skip
FLAGS = ("rp_filter", "accept_local", "route_localnet", "src_valid_mark")


@st.composite
def sysctls(draw: st.DrawFn) -> dict[str, str]:
    held = {}
    for name in draw(st.lists(st.sampled_from(FLAGS), max_size=4)):
        where = draw(st.sampled_from(("all", "default", "d0", "d1", "lo")))
        held[f"net.ipv4.conf.{where}.{name}"] = draw(st.sampled_from("012" if name == "rp_filter" else "01"))
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        if draw(st.booleans()):
            held[name] = "1"
    if draw(st.integers(0, 9)) == 0:
        held["net.ipv6.conf.d1.disable_ipv6"] = "1"
    return held


@st.composite
def again(draw: st.DrawFn, routes: Sequence[Route]) -> list[Route]:
    """Some of the routes once more, by another device or at another metric: only their order tells them apart."""
    found = []
    for route in draw(st.lists(st.sampled_from(routes), max_size=4)) if routes else ():
        if route.device is not None and draw(st.booleans()):
            found.append(replace(route, device=draw(st.sampled_from(worlds.UPPER))))
        else:
            found.append(replace(route, metric=draw(st.sampled_from((0, 10, 2000)))))
    return found


@st.composite
def namespaces(draw: st.DrawFn) -> Namespace:
    four, six = draw(worlds.worlds(Family.IPV4)), draw(worlds.worlds(Family.IPV6))
    down = draw(st.sets(st.sampled_from(("lo", "d0", "d1", "d2")), max_size=2)) if draw(st.booleans()) else set()
    rules = [
        rule for world in (four, six) for rule in ((*default_rules(world.family), *world.rules) if world.rules else ())
    ]
    routes = (*four.routes, *six.routes)
    return Namespace(
        "ns",
        links=tuple(replace(link, up=link.name not in down) for link in worlds.LINKS),
        addresses=draw(st.permutations((*four.addresses, *six.addresses))),
        routes=tuple(draw(st.permutations((*routes, *draw(again(routes)))))),
        rules=tuple(rules),
        sysctls=draw(sysctls()),
    )


def sharing(routes: Sequence[Route], run: tuple[Route, ...], at: int, without: Sequence[int]) -> Sequence[Route]:
    """``routes`` with a shared run put in at ``at``, between the runs that they have or within their own."""
    made: SequenceBuilder[Route] = SequenceBuilder()
    done = False
    for held in runs_of(routes):
        if not done and at <= len(held):
            made += tuple(held)[:at]
            made.share(run, without)
            made += tuple(held)[at:]
            done = True
        else:
            made.share(held.items, held.without)
            at -= len(held)
    return made.build()


@st.composite
def clusters(draw: st.DrawFn) -> list[Namespace]:
    """A namespace, and others that hold runs in common: mostly of other prefixes than their own, sometimes the same ones;
    now and then one of them has the address of a gateway in them."""
    first = draw(namespaces())
    other = tuple(draw(again(first.routes))) if draw(st.integers(0, 3)) == 0 else ()
    runs = [tuple(run) for run in (draw(namespaces()).routes, other)]
    if draw(st.integers(0, 3)):
        # A gateway whose device nobody named resolves differently in each namespace: its run is never shared.
        runs = [tuple(r for r in run if r.device or not r.gateway) for run in runs]
    runs = [run for run in runs if run]
    gateways = [(r.gateway, r.device) for run in runs for r in run if r.gateway and r.gateway.version == 4 and r.device]
    found = [first]
    for _ in range(draw(st.integers(0, 2))):
        one = draw(st.sampled_from((first, draw(namespaces()))))
        routes: Sequence[Route] = one.routes[: draw(st.integers(0, 4))]
        for run in runs:
            without = draw(st.sets(st.integers(0, len(run) - 1), max_size=3))
            routes = sharing(routes, run, draw(st.integers(0, len(routes))), sorted(without))
        if gateways and draw(st.integers(0, 3)) == 0:
            gateway, device = draw(st.sampled_from(gateways))
            assert device is not None
            one = replace(one, addresses=(Address(device, interface(f"{gateway}/24")), *one.addresses))
        found.append(replace(one, routes=routes))
    return found


class Compiled:
    def __init__(self, held: Sequence[Namespace]) -> None:
        self.held = held
        self.addresses, self.names = Addresses(), Names()
        self.compiler = FibCompiler(self.addresses, self.names)
        for number, namespace in enumerate(held):
            self.compiler.add(number, namespace)
        self.out = np.zeros(t.OUT_SIZE, np.int64)

    def handle(self, address: IPAddress | None) -> np.int64:
        return I(-1 if address is None else self.addresses.handle(address))

    def name(self, device: str | None) -> np.int64:
        return I(self.names.number(device or ""))

    def ask(self, kernel, number: int, family: int, *given: np.int64) -> int:  # type: ignore[no-untyped-def]
        while True:
            code = int(kernel(self.compiler.tables, self.addresses.words, I(number), I(family), *given, self.out))
            if code != -FAULT or self.out[0] != t.FAULT_SIX:
                return code
            self.compiler.fault(*map(int, self.out[:2]))

    def lookup(self, number: int, dst: IPAddress, src: IPAddress | None, iif, oif, mark: int, spread: int) -> int:  # type: ignore[no-untyped-def]
        self.asked = number
        words = self.handle(dst), self.handle(src), self.name(iif), self.name(oif), I(mark), I(spread)
        return self.ask(fib_lookup, number, dst.version, *words)

    def result(self, code: int, family: int) -> FibResult:
        """What a look-up said, as far as tables keep it."""
        assert code >= 0
        device, gateway, mtu, route, onlink = (int(n) for n in self.out[:5])
        held = self.compiler.route_of(self.asked, route) if route >= 0 else None
        assert mtu == (held.mtu or 0 if held is not None else 0)
        return FibResult(
            t.TYPES.get(code),
            held,
            self.addresses.address(gateway, family) if gateway >= 0 else None,
            self.names.name(device) or None,
            onlink=bool(onlink),
        )


def points(held: Namespace, family: Family) -> list[IPAddress]:
    """Addresses in and around everything configured, and the special ones."""
    found = {ip(text) for text in SPECIAL[family]}
    prefixes = [a.interface.network for a in held.addresses] + [r.destination for r in held.routes]
    for prefix in (p for p in prefixes if p.version == family):
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        found |= {type(prefix.network_address)(n) for n in (first, first + 1, last) if n < 1 << family.bits}
    found |= {a.interface.ip for a in held.addresses if a.interface.version == family}
    found |= {
        hop.gateway for r in held.routes for hop in (*r.nexthops, r) if hop.gateway and hop.gateway.version == family
    }
    return sorted(found, key=int)


def asked(held: Namespace, dice: Random, count: int) -> Iterator[tuple[IPAddress, IPAddress | None, int]]:
    """(destination, source, mark) for ``count`` destinations of each family."""
    for family in Family:
        known = points(held, family)
        for dst in dice.sample(known, min(count, len(known))):
            src = dice.choice(known) if dice.randrange(4) else None
            yield dst, src, dice.choice((0, 1, 0x40, 0x140))


@pytest.fixture(params=[(1, 2), (2, 32), (32, 1), (32, 32)], ids="share {0[0]} hash {0[1]}".format)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are shared, and own tables hashed, from these sizes on."""
    monkeypatch.setattr(fib_runs, "SHARED_FROM", request.param[0])
    monkeypatch.setattr(fib, "HASHED_FROM", request.param[1])


SOME = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # worlds are large: shrinking takes minutes
)


@SOME
@given(st.integers(0, 1 << 32), clusters())
def test_lookups_say_what_fib_says(layout: None, seed: int, held: list[Namespace]) -> None:
    compiled, dice = Compiled(held), Random(seed)
    for number, namespace in enumerate(held):
        reference = Fib(namespace)
        for dst, src, mark in asked(namespace, dice, 16):
            for iif, oif in ((None, None), (dice.choice(PLACES), dice.choice(PLACES))):
                spread = dice.randrange(2) if src is not None else 0
                value = interpreter.flow_hash(packet(src or dst, dst), scene(namespace)) if spread else 0
                found = reference.lookup(dst, src=src, iif=iif, oif=oif, mark=mark, flow_hash=value)
                code = compiled.lookup(number, dst, src, iif, oif, mark, spread)
                if code != -BAIL:
                    said = compiled.result(code, dst.version)
                    assert said == shown(found), (dst, src, iif, oif, mark)
                    assert said.route is None or found.route is None or said.route.provenance is found.route.provenance
                else:
                    assert maybe_mapped(dst)


def shown(found: FibResult) -> FibResult:
    """Less what tables do not keep."""
    return replace(found, prefsrc=None, table=0, rule=None, alternatives=())


def maybe_mapped(address: IPAddress) -> bool:
    return address.version == 6 and int(address) >> 32 == 0xFFFF


def packet(src: IPAddress, dst: IPAddress) -> Packet:
    return Packet(src, dst, Proto.UDP, Udp(1, 2))


def scene(namespace: Namespace) -> interpreter.Scene:
    return interpreter.Scene(namespace)


HOSTS = ("10.1.0.2", "10.1.0.3", "10.1.0.1", "10.1.0.0", "10.1.0.255", "10.1.7.9", "127.0.0.1", "127.0.0.3")


@st.composite
def pods(draw: st.DrawFn) -> list[Namespace]:
    """Namespaces like a node's pods, some of them with an address that clashes with what they have in common."""
    usually = st.sampled_from(range(8))  # 0: now and then, something else
    routes: list[Route] = []
    for _ in range(draw(st.integers(0, 3))):
        gateway = draw(st.sampled_from(("10.1.0.1", "10.1.0.3", None)))
        prefix = draw(st.sampled_from(("0.0.0.0/0", "10.1.0.0/16", "10.1.0.3/32", "10.9.0.0/16")))
        device = "d0" if draw(usually) else draw(st.sampled_from(("d1", None) if gateway else ("d1", "lo")))
        table = TABLE_MAIN if draw(usually) else TABLE_LOCAL
        hop = ip(gateway) if gateway else None
        more = () if draw(usually) else (NextHop(hop, "d0", 2), NextHop(ip("10.1.0.2"), "d1"))
        routes.append(
            Route(network(prefix), None if more else hop, None if more else device, table=table, nexthops=more)
        )
    links = tuple(replace(link, up=bool(draw(usually))) for link in worlds.LINKS)
    device = "d0" if draw(usually) else draw(st.sampled_from(("d1", "lo", "gone")))
    scope = "global" if draw(usually) else draw(st.sampled_from(("link", "host")))
    length = 24 if draw(usually) else draw(st.sampled_from((16, 32, 31, 8)))
    bare, common = draw(st.booleans()), draw(sysctls())
    found = []
    for text in draw(st.lists(st.sampled_from(HOSTS), min_size=3, max_size=8)):
        address = Address(device, interface(f"{text}/{length}"), scope, noprefixroute=bare)
        addresses = (address,) if draw(usually) else (address, Address("d0", interface("fd00::2/64")))
        own = tuple(replace(route, source=address.interface.ip) for route in routes)
        one = Namespace("pod", links, addresses, own, sysctls=common if draw(usually) else draw(sysctls()))
        changes: dict[str, Any] = {
            "links": links[:-1],
            "routes": own[1:],
            "addresses": (replace(address, scope="link"),),
        }
        field = draw(st.sampled_from(sorted(changes)))
        found.append(one if draw(usually) else replace(one, **{field: changes[field]}))
    return found


@settings(SOME, max_examples=300)
@given(st.integers(0, 1 << 32), pods())
def test_namespaces_that_differ_in_their_address(seed: int, held: list[Namespace]) -> None:
    compiled, dice = Compiled(held), Random(seed)
    for number, namespace in enumerate(held):
        reference, at = Fib(namespace), scene(namespace)
        known = [*map(ip, HOSTS), *points(namespace, Family.IPV4)]
        for dst in known:
            src, device = dice.choice(known), dice.choice(namespace.links).name
            for iif, oif in ((None, None), (None, device), (device, None)):
                found = reference.lookup(dst, src=src, iif=iif, oif=oif)
                code = compiled.lookup(number, dst, src, iif, oif, 0, 0)
                assert compiled.result(code, 4) == shown(found), (dst, src, iif, oif)
            kind = compiled.ask(address_type, number, 4, compiled.handle(dst))
            assert kind == ADDRESS_TYPES[reference.address_type(dst)]
            near = compiled.ask(select_source, number, 4, compiled.name(device), compiled.handle(dst))
            chosen = compiled.addresses.address(near, 4) if near >= 0 else None
            assert chosen == reference.select_source(device, dst)
            ends = compiled.handle(src), compiled.handle(dst), compiled.name(device)
            reason = compiled.ask(martian, number, 4, *ends)
            assert told(reason, validation.martian(at, src, dst, device), src, dst, device)
            reason = compiled.ask(validate_source, number, 4, *ends, compiled.name(None), I(0))
            assert told(reason, validation.validate_source(at, src, dst, device, oif=None, mark=0), src, dst, device)


def test_pods_of_a_node_share_their_rows() -> None:
    routes = (Route(network("0.0.0.0/0"), ip("10.1.0.1"), "d0"),)
    held = [
        Namespace(f"pod/p/{n}", worlds.LINKS, (Address("d0", interface(f"10.1.0.{n}/24")),), routes)
        for n in range(2, 250)
    ]
    compiled = Compiled(held)
    assert np.count_nonzero(compiled.compiler.tables.route["hops"]) < 10


@SOME
@given(st.integers(0, 1 << 32), clusters())
def test_what_an_address_is(layout: None, seed: int, held: list[Namespace]) -> None:
    compiled, dice = Compiled(held), Random(seed)
    for number, namespace in enumerate(held):
        reference = Fib(namespace)
        for address, _, _ in asked(namespace, dice, 40):
            kind = compiled.ask(address_type, number, address.version, compiled.handle(address))
            local = compiled.ask(is_local, number, address.version, compiled.handle(address))
            if kind == -BAIL:
                assert maybe_mapped(address) or reference.address_type(address) == "THROW"
                assert local == -BAIL
            else:
                assert kind == ADDRESS_TYPES[reference.address_type(address)], address
                assert local == reference.is_local(address)


@SOME
@given(st.integers(0, 1 << 32), clusters())
def test_ingress_checks(layout: None, seed: int, held: list[Namespace]) -> None:
    compiled, dice = Compiled(held), Random(seed)
    for number, namespace in enumerate(held):
        at = scene(namespace)
        for dst, src, mark in asked(namespace, dice, 20):
            if src is None:
                continue
            iif = dice.choice(PLACES[1:])
            oif = dice.choice(PLACES)
            ends = compiled.handle(src), compiled.handle(dst), compiled.name(iif)
            reason = compiled.ask(martian, number, src.version, *ends)
            if reason == -BAIL:
                assert maybe_mapped(src) or maybe_mapped(dst)
            else:
                assert told(reason, validation.martian(at, src, dst, iif), src, dst, iif)
            reason = compiled.ask(validate_source, number, src.version, *ends, compiled.name(oif), I(mark))
            assert told(reason, validation.validate_source(at, src, dst, iif, oif=oif, mark=mark), src, dst, iif)


def told(reason: int, text: str | None, src: IPAddress, dst: IPAddress, iif: str) -> bool:
    """Is the reason that of the text? What the tables do not tell is left open."""
    if not reason or text is None:
        return reason == 0 and text is None
    pattern = re.escape(REASONS[reason].replace("{src}", str(src)).replace("{dst}", str(dst)).replace("{iif}", iif))
    return re.fullmatch(re.sub(r"\\{\w+\\}", r"\\S+", pattern), text) is not None


@SOME
@given(st.integers(0, 1 << 32), clusters())
def test_source_addresses(layout: None, seed: int, held: list[Namespace]) -> None:
    compiled, dice = Compiled(held), Random(seed)
    for number, namespace in enumerate(held):
        reference = Fib(namespace)
        for near, _, _ in asked(namespace, dice, 30):
            device = dice.choice(("lo", "d0", "d1", "d2", "gone"))
            found = compiled.ask(select_source, number, near.version, compiled.name(device), compiled.handle(near))
            if found == -BAIL:
                assert maybe_mapped(near)
            else:
                chosen = compiled.addresses.address(found, near.version) if found >= 0 else None
                assert chosen == reference.select_source(device, near), (device, near)


@given(namespaces(), namespaces())
@settings(max_examples=50, deadline=None)
def test_devices_and_replacing_a_namespace(old: Namespace, new: Namespace) -> None:
    compiled = Compiled([new, replace(old, links=(*old.links, Link("extra", LinkKind.DUMMY)))])
    compiled.compiler.add(1, new)
    sysctls = Sysctls(new.sysctls)
    for number in (0, 1):
        for family in Family:
            F = compiled.compiler.tables
            assert forwarding(F, I(number), I(family)) == sysctls.forwarding(family)
        for device in (*PLACES[1:], "extra", "gone"):
            flags = int(device_flags(F, I(number), compiled.name(device)))
            link = next((link for link in new.links if link.name == device), None)
            if link is None:
                assert flags == 0
                continue
            assert bool(flags & t.UP) == link.up
            assert bool(flags & t.LOOPBACK) == (device == "lo")
            assert flags >> t.RP_SHIFT & t.RP_MASK == sysctls.device("rp_filter", device)
            named = (
                (t.ACCEPT_LOCAL, "accept_local"),
                (t.ROUTE_LOCALNET, "route_localnet"),
                (t.SRC_VALID_MARK, "src_valid_mark"),
            )
            for bit, name in named:
                assert bool(flags & bit) == bool(sysctls.device(name, device))


@given(st.sampled_from(Family), st.data())
def test_flow_hash(family: Family, data: st.DataObject) -> None:
    src, dst = data.draw(st.ip_addresses(v=family)), data.draw(st.ip_addresses(v=family))
    addresses = Addresses()
    handles = I(addresses.handle(src)), I(addresses.handle(dst))
    value = flow_hash(addresses.words, I(family), *handles)
    assert value == interpreter.flow_hash(packet(src, dst), scene(Namespace("ns")))


def test_ports_in_the_flow_hash_are_for_the_interpreter() -> None:
    hops = NextHop(ip("10.0.0.1"), "d0"), NextHop(ip("10.0.1.1"), "d1")
    route = Route(network("0.0.0.0/0"), nexthops=hops)
    held = Namespace("ns", worlds.LINKS, routes=(route,), sysctls={"net.ipv4.fib_multipath_hash_policy": "1"})
    compiled = Compiled([held])
    assert compiled.lookup(0, ip("8.8.8.8"), ip("10.0.0.9"), None, None, 0, 1) == -BAIL
    assert compiled.lookup(0, ip("8.8.8.8"), ip("10.0.0.9"), None, None, 0, 0) == t.UNICAST
    assert compiled.lookup(0, ip("8.8.8.8"), ip("10.0.0.9"), None, "d1", 0, 0) == t.UNICAST


def test_an_unknown_namespace_is_a_fault() -> None:
    compiled = Compiled([])
    for number in (0, 70, 1 << 20):
        assert compiled.lookup(number, ip("8.8.8.8"), None, None, None, 0, 0) == -FAULT
        assert list(compiled.out[:2]) == [t.FAULT_NAMESPACE, number]


def test_what_is_not_configured_for_ipv6_waits() -> None:
    compiled = Compiled([Namespace("ns", worlds.LINKS, addresses=(Address("d0", interface("10.0.0.1/24")),))])
    near = ip("fe80::ff:fe00:99")
    assert compiled.lookup(0, ip("10.0.0.2"), None, None, None, 0, 0) == t.UNICAST
    assert not np.count_nonzero(compiled.compiler.tables.candidate["handle"])
    assert compiled.lookup(0, near, None, None, "d1", 0, 0) == t.UNICAST
    assert compiled.compiler.tables.candidate["length"].tolist()[:5] == [128, 64, 64, 64, 0]
    with pytest.raises(KeyError, match="namespace 7 has not been added"):
        compiled.compiler.fault(t.FAULT_SIX, 7)


def test_a_shared_run_is_compiled_once() -> None:
    run = tuple(Route(network(f"10.1.{n}.0/24"), device="d0", scope="link") for n in range(200))
    held = [Namespace(f"n{n}", worlds.LINKS, routes=sharing((), run, 0, [n])) for n in range(150)]
    compiled = Compiled(held)
    rows = compiled.compiler.tables.route["type"]
    assert int(np.count_nonzero(rows)) < 200 + 150 * 30
    for n in range(150):
        assert compiled.lookup(n, ip(f"10.1.{n}.9"), None, None, None, 0, 0) == t.NO_ROUTE
        assert compiled.lookup(n, ip(f"10.1.{n + 1}.9"), None, None, None, 0, 0) == t.UNICAST


def test_the_label_of_a_source_counts_before_its_prefix() -> None:
    """RFC 6724, rule 6 before rule 8: the Teredo address has more bits in common, the other one the label."""
    held = [Address("d0", interface(text)) for text in ("2001:0:1::1/64", "2600::1/64")]
    namespace = Namespace("ns", worlds.LINKS, tuple(held))
    for addresses in (held, held[::-1]):
        compiled = Compiled([replace(namespace, addresses=tuple(addresses))])
        near = ip("2001:db8::1")
        found = compiled.ask(select_source, 0, 6, compiled.name("d0"), compiled.handle(near))
        assert compiled.addresses.address(found, 6) == ip("2600::1") == Fib(compiled.held[0]).select_source("d0", near)


def test_local_routes_in_a_shared_run() -> None:
    run = tuple(
        Route(network(f"10.1.0.{n}/32"), device="d0", type=RouteType.LOCAL, table=TABLE_LOCAL) for n in range(40)
    )
    compiled = Compiled([Namespace("ns", worlds.LINKS, routes=sharing((), run, 0, [3]))])
    for n, kind in ((2, "LOCAL"), (3, "UNICAST")):
        address = ip(f"10.1.0.{n}")
        found = compiled.ask(address_type, 0, 4, compiled.handle(address))
        assert found == ADDRESS_TYPES[kind] == ADDRESS_TYPES[Fib(compiled.held[0]).address_type(address)]


def through(device: str, metric: int = 0, gateway: str | None = None) -> tuple[Route, ...]:
    near = ip(gateway) if gateway is not None else None
    return tuple(Route(network(f"10.1.{n}.0/24"), near, device, metric=metric) for n in range(40))


def test_a_shared_gateway_may_be_an_own_address() -> None:
    run = through("d0", gateway="10.0.0.1")
    own = [Address("d0", interface(f"10.0.0.{n}/24")) for n in (1, 2)]
    held = [Namespace(f"n{n}", worlds.LINKS, (address,), sharing((), run, 0, [])) for n, address in enumerate(own)]
    compiled = Compiled(held)
    for number, gateway in ((0, None), (1, "10.0.0.1")):
        found = compiled.result(compiled.lookup(number, ip("10.1.7.7"), None, None, None, 0, 0), 4)
        assert str(found.gateway) == str(gateway)
        assert found == shown(Fib(held[number]).lookup(ip("10.1.7.7")))


def test_whoever_comes_first_writes_a_shared_gateway_for_all() -> None:
    """As flannel does it: a node leaves out the route by way of itself, and shares the run with the others."""
    run = tuple(Route(network(f"10.1.{n}.0/24"), ip(f"10.1.{n}.0"), "d0", onlink=True) for n in range(40))
    own = [Address("d0", interface(f"10.1.{n}.0/32")) for n in (7, 8)]
    held = [Namespace(f"n{n}", worlds.LINKS, (own[at],), sharing((), run, 0, [n])) for at, n in enumerate((7, 8))]
    compiled = Compiled(held)
    for number, subnet in ((0, 8), (1, 7), (1, 9)):
        found = compiled.result(compiled.lookup(number, ip(f"10.1.{subnet}.7"), None, None, None, 0, 0), 4)
        assert str(found.gateway) == f"10.1.{subnet}.0"
        assert found == shown(Fib(held[number]).lookup(ip(f"10.1.{subnet}.7")))


@pytest.mark.parametrize(
    "routes",
    [
        sharing(sharing((), through("d0", 10), 0, []), through("d1"), 40, []),
        sharing(sharing((), through("d0"), 0, []), through("d1", 10), 0, []),
        sharing(through("d2")[:3], through("d0"), 1, [2]),
        sharing(through("d2", 10)[:3], through("d0"), 0, [1]),
    ],
    ids=["two runs", "two runs turned", "own between", "own behind"],
)
def test_order_between_runs(routes: Sequence[Route]) -> None:
    held = Namespace("ns", worlds.LINKS, routes=routes)
    compiled = Compiled([held, replace(held, links=tuple(replace(link, up=link.name != "d0") for link in held.links))])
    for number in (0, 1):
        reference = Fib(compiled.held[number])
        for n in range(4):
            dst = ip(f"10.1.{n}.1")
            code = compiled.lookup(number, dst, None, None, None, 0, 0)
            assert compiled.result(code, 4) == shown(reference.lookup(dst))


def test_a_number_that_no_route_has() -> None:
    with pytest.raises(IndexError, match="is no route's number"):
        Compiled([]).compiler.route_of(0, 0)
