"""Compiled rule walks against the interpreter's: verdicts, marks, rules that matched, rules the kernel evaluates, draws."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.programs import BAIL_FRAGMENT, REASONS
from netsim.linux.ipset import TYPES, Entry, IpSet
from netsim.linux.netfilter import registry
from netsim.linux.netfilter.base import CtState, Hook, HotDrop, Match, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Table
from netsim.linux.netfilter.text import rule as read_rule
from netsim.packet.address import Family, ip, network
from netsim.packet.icmp import icmp_proto
from netsim.packet.model import Icmp, Packet, Raw, Sctp, Tcp, TcpFlag, Udp
from tests.differential.fuzz_cases import random_case
from tests.property.test_netfilter_members import addresses, buffers, tables
from tests.support.compiled_rules import Engine, World, buffer, compare

MATCHES = [m for m in registry.all_matches() if m.name != "set"]
TARGETS = [t for t in registry.all_targets() if t.name not in ("SET", "TCPMSS")]


@settings(max_examples=60, deadline=None)
@given(tables(), st.lists(buffers(Family.IPV4), min_size=8, max_size=8))
def test_chains_that_jump_and_return(table: Table, skbs: list[Any]) -> None:
    engine = Engine()
    for skb in skbs:
        assert compare(engine, table, complete(skb), World(Family.IPV4, Hook.FORWARD, "filter", {}))


def complete(skb: Any) -> Any:
    skb.source_mac = skb.owner = None
    return skb


@st.composite
def rulesets(draw: st.DrawFn, family: Family) -> Table:
    """Any match and target there is, in chains long enough to be indexed and short ones."""
    names = ["FORWARD", "a", "b"]
    matches = [m for m in MATCHES if family in m.families]
    targets = [t for t in TARGETS if family in t.families]
    pool = []
    for _ in range(draw(st.integers(4, 12))):
        kind = draw(st.sampled_from(matches))
        pool.append(draw(kind.strategy(family)))
    aims = [draw(draw(st.sampled_from(targets)).strategy(family)) for _ in range(4)]
    chains = {}
    for place, name in enumerate(names):
        later = names[place + 1 :]
        rules = []
        for _ in range(draw(st.integers(0, 24))):
            held: list[Match] = draw(st.lists(st.sampled_from(pool), max_size=2))
            needed = {m.protocols[0] for m in held if m.protocols}
            if len(needed) > 1:
                held = held[:1]
            protocol = next((m.protocols[0] for m in held if m.protocols), draw(st.sampled_from((None, 6, 17))))
            to = draw(st.one_of(st.none(), addresses(family)))
            length = draw(st.sampled_from((family.bits, family.bits, 8, 0)))
            jump = draw(st.sampled_from([None, None, *later]))
            rules.append(
                Rule(
                    destination=None if to is None else network(f"{to}/{length}"),
                    destination_not=to is not None and draw(st.booleans()),
                    iif=draw(st.sampled_from((None, None, "eth0", "e+", "cali+", "+"))),
                    iif_not=draw(st.booleans()),
                    protocol=protocol,
                    fragment=draw(st.sampled_from((None, None, None, True, False))),
                    matches=tuple(held),
                    jump=jump,
                    goto=jump is not None and draw(st.booleans()),
                    target=None if jump or draw(st.booleans()) else draw(st.sampled_from(aims)),
                )
            )
        chains[name] = Chain(name, tuple(rules), draw(st.sampled_from((Verdict.ACCEPT, Verdict.DROP))))
    return Table("filter", chains)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_match_and_target(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(Family))
    table = data.draw(rulesets(family))
    engine = Engine()
    for serial in range(8):
        skb = complete(data.draw(buffers(family)))
        try:
            compare(engine, table, skb, World(family, Hook.FORWARD, "filter", {}), serial)
        except HotDrop:  # pragma: no cover - the walk turns it into DROP
            raise


class Counter:
    """How many packets were compared, and why some could not be."""

    def __init__(self) -> None:
        self.compared = self.left = 0
        self.reasons: dict[str, int] = {}

    def __call__(self, engine: Engine, *arguments: Any, **more: Any) -> None:
        if compare(engine, *arguments, **more):
            self.compared += 1
        else:
            self.left += 1
            reason = engine.reasons[-1]
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


def some_buffer(rng: Random, packet: Any) -> Any:
    devices = (None, "a0", "b0", "br0", "p1")
    entry = None
    if rng.random() < 0.7:
        tuple_ = SimpleNamespace(src=packet.src, dst=packet.dst, sport=1, dport=2, proto=packet.proto)
        entry = SimpleNamespace(
            status_snat=rng.random() < 0.3, status_dnat=rng.random() < 0.3, mark=rng.choice((0, 1, 2, 0x4000)),
            original=tuple_, reply=tuple_, expected=False, seen_reply=False, assured=False, confirmed=True,
        )  # fmt: skip
    state = CtState.INVALID if entry is None else rng.choice((CtState.NEW, CtState.ESTABLISHED, CtState.RELATED))
    return buffer(
        packet, iif=rng.choice(devices), oif=rng.choice(devices), physin=rng.choice(devices), mark=rng.choice((0, 1, 2, 3)),
        ct=entry, ct_state=state,
    )  # fmt: skip


def test_the_rulesets_that_are_tried_on_the_kernel() -> None:
    """Those of the kernel comparison: each table of each router, each hook, many packets."""
    counter = Counter()
    for seed in range(90):
        rng = Random(seed)
        family = rng.choice((Family.IPV4, Family.IPV6))
        case = random_case(rng, family)
        engine = Engine(seed=seed)
        ruleset = case.router.rulesets.get(family)
        for table in ruleset.tables.values() if ruleset else ():
            for hook in [Hook(name) for name in table.builtin]:
                for serial, probe in enumerate(case.probes):
                    world = World(family, hook, table.name, case.router.ipsets)
                    counter(engine, table, some_buffer(rng, probe.packet), world, serial)
    assert counter.compared > 10_000, counter.reasons
    assert counter.left < counter.compared / 4, counter.reasons


def long_rule(rng: Random, later: list[str], family: Family) -> Rule:
    """A rule of the kinds that long chains are made of; keys are few, so that rules overlap."""
    four = family is Family.IPV4
    words = []
    kind = rng.randrange(12)

    def host(third: int | None = None) -> str:
        third = rng.randrange(3) if third is None else third
        return f"10.0.{third}.{rng.randrange(6)}" if four else f"fd00:{third}::{rng.randrange(6)}"

    full, near, far = (32, 30, 24) if four else (128, 126, 32)
    port = rng.choice((53, 80, 443, 8080, rng.randrange(50, 60)))
    proto = rng.choice(("tcp", "udp"))
    if kind < 4:
        words.append(f"-d {host()}/{full} -p {proto} -m {proto} --dport {port}")
    elif kind == 4:
        words.append(f"-s {host()}/{rng.choice((full, near, far))} -d {host(1)}/{rng.choice((full, near))}")
    elif kind == 5:
        words.append(f"-i cali{rng.randrange(4)}{rng.choice(('', '', '+'))}")
    elif kind == 6:
        low = rng.randrange(40, 9000)
        words.append(f"-p {proto} -m {proto} --{rng.choice('sd')}port {low}:{low + rng.randrange(400)}")
    elif kind == 7:
        words.append(f"-m iprange --src-range {'-'.join(sorted((host(0), host(0))))}")
    elif kind == 8:
        words.append(f"-m mark --mark {rng.randrange(4)}/{rng.choice((1, 3, 0xFFFFFFFF))}")
    elif kind == 9:
        words.append(f"-p tcp -m tcp --tcp-flags SYN,ACK {rng.choice(('SYN', 'ACK', 'NONE'))}")
    elif kind == 10:
        words.append(f"! -s {host()}/{far}")
    if rng.random() < 0.12:
        words.append(f"-m statistic --mode random --probability {rng.choice((0, 0.1, 0.5, 1))}")
    if rng.random() < 0.1:
        mode = rng.choice(("--set", "--rcheck --seconds 10 --reap", "--rcheck --seconds 10", "--update --seconds 10"))
        words.append(f"-m recent --name R{rng.randrange(3)} {mode} {rng.choice(('--rsource', '--rdest'))}")
    aim = rng.randrange(10)
    if later and aim < 3:
        words.append(f"{rng.choice(('-j', '-g'))} {rng.choice(later)}")
    elif aim < 5:
        words.append(f"-j MARK --set-xmark {rng.randrange(4)}/{rng.choice((1, 3))}")
    elif aim < 6:
        how = rng.choice(
            ("--save-mark --nfmask 0x3 --ctmask 0x5", "--restore-mark --nfmask 0x6 --ctmask 0x3", "--set-xmark 0x2/0x3")
        )
        words.append(f"-j CONNMARK {how}")
    elif aim < 9:
        words.append(f"-j {rng.choice(('ACCEPT', 'DROP', 'RETURN', 'REJECT'))}")
    return read_rule(" ".join(words), family)


def long_table(rng: Random, family: Family) -> Table:
    """A few hundred rules in three chains, runs of draws among them."""
    names = ["FORWARD", "one", "two"]
    chains = {}
    for place, name in enumerate(names):
        rules: list[Rule] = []
        while len(rules) < rng.choice((5, 60, 200)):
            if rng.random() < 0.03:
                draws = rng.randint(2, 6)
                aim = rng.choice(("ACCEPT", "DROP", "RETURN", "MARK --set-mark 3"))
                rules += [
                    read_rule(f"-m statistic --mode random --probability {1 / left:.10f} -j {aim}", family)
                    for left in range(draws, 1, -1)
                ]
            rules.append(long_rule(rng, names[place + 1 :], family))
        chains[name] = Chain(name, tuple(rules), Verdict.ACCEPT)
    return Table("filter", chains)


def long_packet(rng: Random, family: Family) -> Packet:
    four = family is Family.IPV4
    src, dst = (
        ip(f"10.0.{rng.randrange(3)}.{rng.randrange(6)}" if four else f"fd00:{rng.randrange(3)}::{rng.randrange(6)}")
        for _ in range(2)
    )
    sport, dport = (rng.choice((53, 80, 443, 8080, rng.randrange(50, 60), rng.randrange(9000))) for _ in range(2))
    kind = rng.randrange(20)
    if kind == 0:
        return Packet(src, dst, icmp_proto(family), Icmp(8 if four else 128, 0))
    if kind == 1:
        return Packet(src, dst, rng.choice((6, 17, 47)), Raw(bytes(16)), fragment_offset=rng.choice((8, 16)))
    if kind == 2:
        return Packet(src, dst, 132, Sctp(sport, dport))
    if kind < 12:
        return Packet(src, dst, 17, Udp(sport, dport))
    return Packet(src, dst, 6, Tcp(sport, dport, rng.choice((TcpFlag.SYN, TcpFlag.ACK, TcpFlag.SYN | TcpFlag.ACK))))


def some_sets(rng: Random, family: Family) -> dict[str, IpSet]:
    """One set of each type and a list of some, with overlapping prefixes and exceptions."""
    four = family is Family.IPV4
    hosts = [f"10.0.{a}.{b}" if four else f"fd00:{a}::{b}" for a in range(3) for b in range(6)]
    lengths = (8, 16, 24, 30, 32) if four else (16, 32, 64, 65, 127, 128)

    def value(kind: str) -> Any:
        host = rng.choice(hosts)
        if kind == "ip":
            return ip(host)
        if kind == "net":
            return network(f"{host}/{rng.choice(lengths)}")
        number = rng.choice((53, 80, 443, 8080, rng.randrange(50, 60)))
        if kind == "port":
            return rng.choice(((6, number), (17, number), (132, number), (1 if four else 58, 8 << 8), (47, 0)))
        return number if kind == "number" else "eth0"

    found = {}
    for kind, dimensions in TYPES.items():
        if kind == "list:set":
            continue
        entries = {}
        for _ in range(rng.choice((0, 1, 4, 20))):
            values = tuple(value(dimension) for dimension in dimensions)
            entries[values] = Entry(values, nomatch="net" in dimensions and rng.random() < 0.2)
        found[kind] = IpSet(kind, kind, family, tuple(entries.values()))
    members = rng.sample([kind for kind in found if kind != "hash:net,iface" or rng.random() < 0.1], 3)
    found["list"] = IpSet("list", "list:set", family, tuple(Entry((name,)) for name in [*members, "gone"]))
    return found


def test_sets() -> None:
    """Every type of set, in rules with other matches before and behind."""
    counter = Counter()
    for seed in range(60):
        rng = Random(2000 + seed)
        family = rng.choice((Family.IPV4, Family.IPV6))
        sets = some_sets(rng, family)
        rules = []
        for _ in range(40):
            name = rng.choice(list(sets))
            sides = ",".join(rng.choice(("src", "dst")) for _ in range(rng.choice((1, 2, 2, 3, 3))))
            words = [f"-m set {rng.choice(('', '! '))}--match-set {name} {sides}"]
            if rng.random() < 0.3:
                words.insert(0, "-m mark --mark 1/1")
            words.append(f"-j MARK --set-xmark {rng.randrange(4)}/3")
            rules.append(read_rule(" ".join(words), family))
        for serial, rule in enumerate(rules):
            table = Table("filter", {"FORWARD": Chain("FORWARD", (rule,), Verdict.ACCEPT)})
            engine = Engine()
            for _ in range(6):
                world = World(family, Hook.FORWARD, "filter", sets)
                packet = long_packet(rng, family)
                counter(engine, table, some_buffer(rng, packet), world, serial)
    assert counter.compared > 12_000, counter.reasons
    unknown = {f"sets of type {kind} are not compiled" for kind in ("hash:net,iface", "list:set")}
    assert set(counter.reasons) <= {REASONS[BAIL_FRAGMENT], *unknown}


def test_long_chains_in_first_match_order() -> None:
    """Overlapping keys of many shapes; what the lists of -m recent hold is carried from packet to packet."""
    counter = Counter()
    for seed in range(60):
        rng = Random(1000 + seed)
        family = rng.choice((Family.IPV4, Family.IPV6))
        table, engine = long_table(rng, family), Engine(seed=seed)
        recents: dict[str, Any] = {}
        for serial in range(150):
            world = World(family, Hook.FORWARD, "filter", {}, now=serial * 0.7)
            world.recents = recents
            skb = some_buffer(rng, long_packet(rng, family))
            skb.iif = rng.choice(("cali0", "cali1", "cali22", "eth0"))
            counter(engine, table, skb, world, serial)
    assert counter.compared > 8_000, counter.reasons
    assert set(counter.reasons) <= {REASONS[BAIL_FRAGMENT]}
