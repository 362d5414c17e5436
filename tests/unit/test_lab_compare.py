"""Connections, rule traces and draws as the lab compares them: the parts that need no kernel."""

from __future__ import annotations

import struct
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from netsim.interpreter import Disposition, LocalOrigin, trace
from netsim.interpreter.counters import RuleKey, matched
from netsim.lab import draws, expected, ruletrace
from netsim.lab.compare_conntrack import line, told
from netsim.lab.probes import Probe
from netsim.lab.rule_counters import Account
from netsim.lab.stories import Names
from netsim.linux.conntrack_text import parse_entry
from netsim.packet.address import Family, ip
from netsim.packet.model import Packet, Proto, Tcp, Udp
from tests.support.interpreter_worlds import cluster

TUNNELS = frozenset({8472, 8285})
SYN_SENT = "tcp 6 117 SYN_SENT src=10.244.1.2 dst=10.96.3.7 sport={} dport=80 [UNREPLIED] src=10.244.2.7 dst={} "
SYN_SENT += "sport=8080 dport={} mark=0 use=1"


def spelled(text: str, **names: Any) -> str:
    return line("node/n1", parse_entry(text), Names(**names), TUNNELS)


def test_a_connection_is_spelled_with_the_clients_port_by_name() -> None:
    text = SYN_SENT.format(11111, "10.244.1.2", 11111)
    said = "node/n1 conntrack TCP SYN_SENT 10.244.1.2:client>10.96.3.7:80 [UNREPLIED] "
    said += "reply 10.244.2.7:8080>10.244.1.2:client mark 0"
    assert spelled(text, own={11111: "client"}) == said
    assert spelled(text, own={22222: "client"}) == said.replace(":client", ":11111")


def test_where_it_was_masqueraded_its_port_is_nobodys_business_but_all_else_is() -> None:
    one, other = (SYN_SENT.format(11111, "10.244.1.0", port) for port in (5, 60001))
    assert spelled(one, hidden=True) == spelled(other, hidden=True)
    assert spelled(one) != spelled(other)
    assert spelled(one, hidden=True) != spelled(one.replace("8080", "8081"), hidden=True)
    assert spelled(one, hidden=True) != spelled(one.replace("SYN_SENT", "SYN_RECV"), hidden=True)
    assert spelled(one, hidden=True) != spelled(one.replace(" [UNREPLIED]", ""), hidden=True)
    assert spelled(one, hidden=True) != spelled(one.replace("mark=0", "mark=7"), hidden=True)


def test_a_server_that_speaks_first_is_told_from_a_client() -> None:
    text = "udp 17 29 src=10.244.2.7 dst=10.244.1.2 sport=53 dport={} [UNREPLIED] "
    text += "src=10.244.1.2 dst=10.244.2.7 sport={} dport=53 use=1"
    one, other = (text.format(port, port) for port in (11111, 60001))
    servers = frozenset({53})
    assert "10.244.1.2:client [UNREPLIED]" in spelled(one, own={11111: "client"}, servers=servers)
    assert spelled(one, hidden=True, servers=servers) == spelled(other, hidden=True, servers=servers)
    assert ":53" in spelled(one, hidden=True, servers=servers)


def test_tunnels_are_shared_so_only_their_ends_are_told() -> None:
    text = "udp 17 29 src={} dst={} sport={} dport=8472 [UNREPLIED] src={} dst={} sport=8472 dport={} use=1"
    there = text.format("10.0.0.1", "10.0.0.2", 1, "10.0.0.2", "10.0.0.1", 1)
    back = text.format("10.0.0.2", "10.0.0.1", 2, "10.0.0.1", "10.0.0.2", 2)
    assert spelled(there) == spelled(back) == "node/n1 conntrack UDP tunnel 10.0.0.1 10.0.0.2"
    ipip = "unknown 4 599 src={0} dst={1} [UNREPLIED] src={1} dst={0} mark=0 use=1"
    assert spelled(ipip.format("10.0.0.2", "10.0.0.1")) == "node/n1 conntrack IPIP tunnel 10.0.0.1 10.0.0.2"


def test_the_interpreters_connections_are_spelled_alike_and_expire() -> None:
    packet = Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.TCP, Tcp(11111, 80))
    (outcome,) = trace(cluster("nat -A PREROUTING -j ACCEPT", vxlan=False), LocalOrigin("pod/p12"), packet)
    assert outcome.state is not None
    names = Names({11111: "client"})
    lines = told(outcome.state, names, TUNNELS)
    first = "conntrack TCP SYN_SENT 10.244.1.2:client>10.244.2.2:80 [UNREPLIED] reply 10.244.2.2:80>10.244.1.2:client mark 0"
    assert set(lines) == {f"node/n1 {first}", f"node/n2 {first}"}
    outcome.state.now += 1000
    assert not told(outcome.state, names, TUNNELS)


def test_a_tunnels_first_packet_passes_the_nat_table_as_often_as_there_are_connections() -> None:
    network = cluster("nat -A PREROUTING -j ACCEPT")
    packet = Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.TCP, Tcp(11111, 80))
    (outcome,) = trace(network, LocalOrigin("pod/p12"), packet)
    account = Account(TUNNELS)
    for _ in range(3):  # three flights, which the kernel sent through one tunnel connection
        account.add(matched(outcome.hops))
    key = RuleKey("node/n1", Family.IPV4, "nat", "OUTPUT", 0)
    ways = {(name, str(src), str(dst)): 1 for name in ("node/n1", "node/n2") for src, dst in [outer_ends(outcome)]}
    right = account.counted
    texts = list(account.differences({}, {**right, key: (1, 99)}, ways, (), network))
    assert not [text for text in texts if "OUTPUT policy" in text]
    texts = list(account.differences({}, {**right, key: (3, 99)}, ways, (), network))
    assert [text for text in texts if "nat OUTPUT policy: netsim 1 packets, kernel 3 packets" in text]


def outer_ends(outcome: Any) -> tuple[object, object]:
    outer = next(packet for key, packet in matched(outcome.hops) if key.chain == "OUTPUT")
    return outer.src, outer.dst


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def traced(kind: int, chain: bytes, handle: int | None, table: bytes = b"nat") -> bytes:
    body = attribute(1, table + b"\0") + attribute(2, chain + b"\0") + attribute(4, struct.pack("!I", kind))
    if handle is not None:
        body += attribute(3, struct.pack("!Q", handle))
    length = 20 + len(body)
    return struct.pack("=IHHII", length, 10 << 8 | 17, 0, 0, 0) + struct.pack("=BBH", 2, 0, 0) + body


class Fed:
    """A socket that gives what it was fed."""

    def __init__(self, *data: bytes) -> None:
        self.data = list(data)

    def recv(self, _: int) -> bytes:
        if not self.data:
            raise BlockingIOError
        return self.data.pop(0)


def test_the_kernels_trace_is_read_rule_by_rule() -> None:
    numbers = {(Family.IPV4, "nat", "PREROUTING", 7): 1, (Family.IPV4, "nat", "KUBE-SVC-X", 9): 3}
    told_by = Fed(
        traced(3, b"PREROUTING", 7) + traced(3, b"KUBE-SVC-X", 9),
        traced(3, b"KUBE-SVC-X", None),  # the end of the chain
        traced(2, b"KUBE-SVC-X", 9),  # a return
        traced(1, b"PREROUTING", None),
        traced(3, b"incoming", 2, table=b"netsim-trace"),
    )
    ear = ruletrace._Ear("node/n1", told_by, numbers)  # type: ignore[arg-type]
    places = [(key.chain, key.rule) for key in ruletrace._told(ear)]
    assert places == [("PREROUTING", 1), ("KUBE-SVC-X", 3), ("PREROUTING", 0)]


def test_reject_tells_of_its_answer_before_itself() -> None:
    first, last, answer = (
        RuleKey("node/n1", Family.IPV4, "filter", chain, 1) for chain in ("FORWARD", "KUBE-X", "OUTPUT")
    )
    packet: Any = None
    for disposition, order in (
        (Disposition.REJECTED, [first, answer, last]),
        (Disposition.UNREACHABLE, [first, last, answer]),
    ):
        way: Any = SimpleNamespace(
            rules=[(first, packet), (last, packet)], outcomes=[SimpleNamespace(disposition=disposition)]
        )
        assert list(ruletrace._told_order(way, [(answer, packet)])) == order
        back = RuleKey("node/n1", Family.IPV4, "filter", "INPUT", 0)  # to a process of the same node
        assert list(ruletrace._told_order(way, [(answer, packet), (back, packet)])) == [*order, back]


def test_where_reject_stands_among_the_rules_of_its_answer_is_chance_only_where_that_comes_back() -> None:
    out, reject, back, elsewhere = (
        RuleKey(name, Family.IPV4, "filter", chain, 1)
        for name, chain in (("node/n1", "OUTPUT"), ("node/n1", "KUBE-X"), ("node/n1", "INPUT"), ("node/n2", "INPUT"))
    )
    packet: Any = None

    def differ(kernel: list[RuleKey], errors: list[RuleKey]) -> bool:
        way: Any = SimpleNamespace(
            rules=[(reject, packet)], outcomes=[SimpleNamespace(disposition=Disposition.REJECTED)], unsure=set()
        )
        course = SimpleNamespace(probe=Probe("p", "node/n1", ip("10.0.0.1"), Proto.TCP, 80))
        flight: Any = SimpleNamespace(course=course, taken=[way], errors=[[(key, packet) for key in errors]])
        return bool(ruletrace.differences(flight, {"node/n1": kernel}))

    assert not differ([out, reject, back], [out, back])
    assert not differ([out, back, reject], [out, back])
    assert differ([out, back], [out, back])
    assert differ([back, out, reject], [out, back])
    assert not differ([out, reject], [out, elsewhere])
    assert differ([reject, out], [out, elsewhere])


@pytest.mark.parametrize(
    ("counted", "fits"), [((150, 150), True), ((170, 130), True), ((250, 50), False), ((300, 0), False)]
)
def test_frequencies_have_a_bound(counted: tuple[int, int], fits: bool) -> None:
    ways: Any = [SimpleNamespace(probability=Fraction(1, 2))] * 2
    probe = Probe("p", "pod/a/b", ip("10.0.0.1"), Proto.TCP, 80)
    assert draws.frequencies(probe, ways, counted)[1] is fits


def test_of_ways_that_look_alike_the_bytes_must_be_alike_too() -> None:
    first, second = (RuleKey("node/n1", Family.IPV6, "mangle", chain, 0) for chain in ("OUTPUT", "POSTROUTING"))
    short, long = (
        Packet(src=ip("fd00::1"), dst=ip("fd00::2"), proto=Proto.UDP, body=Udp(1, 2, bytes(size))) for size in (0, 40)
    )
    one = [(first, short), (second, short), (second, long)]
    assert not expected._apart(one, [(second, long), (second, short), (first, short)])
    assert expected._apart(one, [(first, long), (second, short), (second, long)]) == {first}
    assert expected._apart(one, [(second, short), (second, long)]) == {first}
