"""Each match and target: complete, prints what it parses, means what its lowering says; walks with and without index."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.errors import InputError
from netsim.linux.netfilter import lowering, registry
from netsim.linux.netfilter.base import CtState, Hook, HotDrop, Match, Target, Verdict
from netsim.linux.netfilter.lowering import Kind, Opaque, columns_of, holds
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Table
from netsim.linux.netfilter.text import parse_rule, print_rule
from netsim.linux.netfilter.text import rule as read_rule
from netsim.linux.netfilter.walk import walk
from netsim.packet.address import Family, IPAddress, ip, network
from netsim.packet.icmp import icmp_proto
from netsim.packet.model import Icmp, Packet, Proto, Raw, Sctp, Tcp, TcpFlag, Udp

MATCHES = registry.all_matches()
TARGETS = registry.all_targets()
families = st.sampled_from(Family)


class World:
    """The environment that rules see: everything but the addresses' types is empty."""

    hook, table, now = Hook.FORWARD, "filter", 0.0

    def __init__(self, family: Family) -> None:
        self.family = family

    def address_type(self, address: IPAddress, device: str | None = None) -> str:
        if address.is_multicast:
            return "MULTICAST"
        if self.family is Family.IPV4 and int(address) & 255 == 255:
            return "BROADCAST"
        return "LOCAL" if int(address) % 2 else "UNICAST"

    def chance(self, probability: float, why: str) -> bool:
        raise AssertionError("a deterministic match draws nothing")

    def in_set(self, name: str, elements: Sequence[Any]) -> bool:
        return False

    def recent(self, name: str) -> dict[IPAddress, list[float]]:
        return {}

    def count(self, name: str) -> None:
        pass

    def rate(self, key: object) -> dict[str, float]:
        return {}

    def reverse_path_ok(self, skb: Any, loose: bool, accept_local: bool) -> bool:
        return True


def addresses(family: Family) -> st.SearchStrategy[IPAddress]:
    texts4 = ("10.0.0.1", "10.96.0.10", "10.255.255.255", "192.168.0.1", "127.0.0.1", "203.0.113.9", "224.0.0.1")
    texts6 = ("fd00::1", "fd00::a", "2001:db8::1", "::1", "fdff::ffff", "ff02::1")
    return st.sampled_from([ip(t) for t in (texts4 if family is Family.IPV4 else texts6)])


@st.composite
def packets(draw: st.DrawFn, family: Family) -> Packet:
    port = st.sampled_from((0, 1, 53, 79, 80, 81, 443, 8080, 32768, 65535))
    kind = draw(st.sampled_from(("tcp", "udp", "sctp", "icmp", "later", "other")))
    flags = TcpFlag(draw(st.integers(0, 255)))
    body: Any = {
        "tcp": lambda: Tcp(draw(port), draw(port), flags),
        "udp": lambda: Udp(draw(port), draw(port), bytes(draw(st.integers(0, 50)))),
        "sctp": lambda: Sctp(draw(port), draw(port)),
        "icmp": lambda: Icmp(draw(st.sampled_from((0, 3, 8, 11, 128, 135))), draw(st.integers(0, 4))),
        "later": lambda: Raw(bytes(16)),
        "other": lambda: Raw(bytes(8)),
    }[kind]()
    proto = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": int(icmp_proto(family)), "later": 6, "other": 47}[kind]
    offset = 24 if kind == "later" else 0
    src, dst = draw(addresses(family)), draw(addresses(family))
    return Packet(src, dst, proto, body, ttl=draw(st.sampled_from((1, 2, 63, 64, 255))), fragment_offset=offset)


@st.composite
def buffers(draw: st.DrawFn, family: Family) -> SimpleNamespace:
    entry = draw(st.sampled_from((None, (False, False), (True, False), (False, True))))
    packet = draw(packets(family))
    state = (
        CtState.INVALID if entry is None else draw(st.sampled_from((CtState.NEW, CtState.ESTABLISHED, CtState.RELATED)))
    )
    found = None
    if entry is not None:
        tuple_ = SimpleNamespace(src=packet.src, dst=packet.dst, sport=1, dport=2, proto=packet.proto)
        found = SimpleNamespace(
            status_snat=entry[0], status_dnat=entry[1], mark=draw(st.sampled_from((0, 1, 0x4000, 0xFFFFFFFF))),
            original=tuple_, reply=tuple_, expected=False, seen_reply=False, assured=False, confirmed=True,
        )  # fmt: skip
    device = st.sampled_from((None, "eth0", "cni0", "cali1"))
    return SimpleNamespace(
        packet=packet, iif=draw(device), oif=draw(device), physin=draw(device), physout=draw(device),
        mark=draw(st.sampled_from((0, 1, 2, 0x4000, 0xFFFFFFFF))), ct=found, ct_state=state,
        ct_reply=draw(st.booleans()), ipvs=None,
    )  # fmt: skip


@pytest.mark.parametrize("member", [*MATCHES, *TARGETS], ids=lambda m: m.__name__)
def test_a_member_is_complete(member: type[Match] | type[Target]) -> None:
    base = Match if issubclass(member, Match) else Target
    verb = "evaluate" if base is Match else "apply"
    for part in ("parse", "print", verb, "lower", "strategy"):
        assert getattr(member, part) is not getattr(base, part), f"{member.__name__} has no {part} of its own"
    assert member.name
    assert "Linux" in (member.__doc__ or "") or "xt_" in (member.__doc__ or ""), "the docstring names the kernel source"
    assert (registry.match if base is Match else registry.target)(member.name) is member


def spec(member: Any, family: Family) -> Rule:
    """A rule that may hold the member: with the protocol that it needs."""
    wanted = getattr(member, "protocols", ()) or ()
    protocol = wanted[0] if wanted else int(Proto.TCP)
    if isinstance(member, Match):
        return Rule(protocol=protocol, matches=(member,))
    return Rule(protocol=protocol, target=member)


@pytest.mark.parametrize("member", [*MATCHES, *TARGETS], ids=lambda m: m.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_printed_is_parsed_back(member: Any, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(member.families))
    rule = spec(data.draw(member.strategy(family)), family)
    printed = print_rule("CHAIN", rule, family)
    assert parse_rule(printed, family) == ("CHAIN", rule), printed
    assert print_rule("CHAIN", parse_rule(printed, family)[1], family) == printed


def settled(constraints: Sequence[Any]) -> bool:
    return not any(isinstance(c, Opaque) or c.kind in (Kind.LOOKUP, Kind.RANDOM, Kind.STATEFUL) for c in constraints)


@pytest.mark.parametrize("member", MATCHES, ids=lambda m: m.__name__)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_lowering_means_the_same(member: type[Match], data: st.DataObject) -> None:
    """Deterministic matches only; the others lower to something that says so. The protocol has been matched before."""
    family = data.draw(st.sampled_from(member.families))
    match = data.draw(member.strategy(family))
    constraints = match.lower()
    assert constraints is not None
    if not settled(constraints):
        return
    skb = data.draw(buffers(family))
    if match.protocols and skb.packet.proto not in match.protocols:
        return
    env: Any = World(family)
    try:
        found = match.evaluate(skb, env)
    except HotDrop:
        return
    assert found == holds(constraints, columns_of(skb, env))


@pytest.mark.parametrize(
    "text",
    [
        "-p tcp -m tcp --dport 80",
        "-p udp -m udp --sport 1024:65535",
        "-m mark --mark 0x4000/0x4000",
        "-p tcp -m multiport --dports 80,443",
        "-m iprange --src-range 10.0.0.1-10.0.0.9",
        "-m conntrack --ctstate NEW",
        "-m addrtype --dst-type LOCAL",
    ],
)
def test_what_rulesets_are_full_of_lowers_to_columns(text: str) -> None:
    (match,) = read_rule(f"{text} -j ACCEPT", Family.IPV4).matches
    assert settled(match.lower())


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Chains that jump, go to and return; many exact destinations, so that the index has something to do."""
    names = ["FORWARD", "a", "b", "c"]
    chains = {}
    for place, name in enumerate(names):
        later = names[place + 1 :]  # no loops
        rules = []
        for _ in range(draw(st.integers(0, 25))):
            target = draw(st.sampled_from(("ACCEPT", "DROP", "RETURN", "MARK", "jump", "goto", "none")))
            exact = draw(st.one_of(st.none(), addresses(Family.IPV4)))
            rules.append(
                Rule(
                    destination=None if exact is None else network(f"{exact}/{draw(st.sampled_from((32, 32, 32, 8)))}"),
                    destination_not=exact is not None and draw(st.integers(0, 5)) == 0,
                    protocol=draw(st.sampled_from((None, 6, 17))),
                    target=read_rule(f"-j {target}", Family.IPV4).target if target in ("ACCEPT", "DROP", "RETURN")
                    else read_rule("-j MARK --set-xmark 0x1/0x1", Family.IPV4).target if target == "MARK" else None,
                    jump=draw(st.sampled_from(later)) if later and target in ("jump", "goto") else None,
                    goto=target == "goto" and bool(later),
                )
            )  # fmt: skip
        chains[name] = Chain(name, tuple(rules), Verdict.ACCEPT if place == 0 else None)
    return Table("filter", chains)


@settings(max_examples=200, deadline=None)
@given(tables(), st.data())
def test_the_index_changes_nothing(table: Table, data: st.DataObject) -> None:
    skb = data.draw(buffers(Family.IPV4))
    env: Any = World(Family.IPV4)
    told: list[list[tuple[str, int]]] = [[], []]
    results = [
        walk(
            table,
            "FORWARD",
            skb,
            env,
            lambda chain, number, _, at=at: told[at].append((chain, number)),
            indexed=bool(at),
        )
        for at in (0, 1)
    ]
    assert results[0] == results[1], "the verdict and the count of rules the kernel evaluates"
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-m nonsense -j ACCEPT", "nonsense"),
        ("-p tcp -m tcp --dport 99999 -j ACCEPT", "99999"),
        ("-s 10.0.0.0/33 -j ACCEPT", "10.0.0.0/33"),
        ("-m mark --mark x -j ACCEPT", "x"),
        ("-p tcp --sport", "--sport"),
        ("-m conntrack --ctstate OLD -j ACCEPT", "OLD"),
        ("-j DNAT", "DNAT"),
    ],
)
def test_a_bad_rule_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        read_rule(text, Family.IPV4)
    assert complaint in str(caught.value)


def test_the_vocabulary_is_closed() -> None:
    assert {c.value for c in lowering.Column} >= {"src", "dst", "sport", "dport", "proto", "mark", "ct_state"}
