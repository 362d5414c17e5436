"""A connection that the interpreter had to look at goes back to the tables, and has lost nothing there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.compiled.engine_tables import FAST, INTERPRETED
from netsim.interpreter.origin import LocalOrigin
from netsim.linux.conntrack import Entry
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Tcp, TcpFlag, Udp
from tests.support.datapath_twins import Twins
from tests.support.interpreter_worlds import cluster

# What pods ask for: translated on the way, and not; through the tunnel, and not; masqueraded.
RULES = """
nat -A PREROUTING -d 10.96.0.1 -j DNAT --to-destination 10.244.2.2
nat -A PREROUTING -d 10.96.0.2 -j DNAT --to-destination 10.244.1.3
"""
TARGETS = {"10.96.0.1": "p22", "10.96.0.2": "p13", "10.244.2.3": "p23", "10.244.1.3": "p13", "192.168.56.100": ""}
ACK, SYN = TcpFlag.ACK, TcpFlag.SYN


@dataclass
class Talk:
    """One client's conversation with one target: what it sends next, and how that was decided."""

    twins: Twins
    target: str
    proto: Proto
    port: int
    now: int = 0
    how: list[int] = field(default_factory=list)
    heard: Packet | None = None  # by the server, as it saw it last
    sent: int = 0

    def send(self, forth: bool, ttl: int, pause: int = 1) -> None:
        packet, origin = (self._question(ttl), "p12") if forth else self._answer(ttl)
        if packet is None:
            return
        self.now += 1000 * pause
        before = dict(self.twins.datapath.paths)
        assert self.twins.send(self.now, LocalOrigin(f"pod/{origin}"), packet) == []
        after = self.twins.datapath.paths
        names = ("fast", "slow", "interpreter")
        self.how += [number for number, name in enumerate(names) if after[name] != before.get(name, 0)]
        assert self.twins.last is not None
        if forth and self.twins.last.receiver:
            self.heard = self.twins.last.packet

    def _question(self, ttl: int) -> Packet:
        body = (
            Udp(self.port, 53) if self.proto is Proto.UDP else Tcp(self.port, 80, SYN if not self.sent else ACK, seq=7)
        )
        self.sent += 1
        return Packet(ip("10.244.1.2"), ip(self.target), self.proto, body, ttl=ttl)

    def _answer(self, ttl: int) -> tuple[Packet | None, str]:
        pod, heard = TARGETS[self.target], self.heard
        if not pod or heard is None:
            return None, ""
        assert heard.sport is not None
        assert heard.dport is not None
        body = (
            Udp(heard.dport, heard.sport)
            if self.proto is Proto.UDP
            else Tcp(heard.dport, heard.sport, SYN | ACK, seq=100, ack=8)
        )
        return Packet(heard.dst, heard.src, self.proto, body, ttl=ttl), pod


def _counts(held: Mapping[str, list[Entry]]) -> set[tuple[str, str, int]]:
    """Packets by connection, but for those of the tunnel, whose entries count none."""
    return {(name, str(e), e.packets) for name, entries in held.items() for e in entries if e.original.dport != 8472}


steps = st.tuples(st.booleans(), st.sampled_from((64, 64, 64, 1, 2, 3)), st.sampled_from((1, 700, 2_500, 31_000)))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TARGETS)), st.sampled_from((Proto.UDP, Proto.TCP)), st.lists(steps, min_size=4, max_size=14)
)
def test_nothing_is_lost_on_the_way_there_and_back(
    target: str, proto: Proto, taken: list[tuple[bool, int, int]]
) -> None:
    talk = Talk(Twins(cluster(RULES), 3), target, proto, 4000)
    for forth, ttl, pause in taken:
        talk.send(forth, ttl, pause)
        assert talk.twins.states() == []
    datapath, state = talk.twins.datapath, talk.twins.state
    mine = datapath.connections()
    wanted = {
        name: [e for e in held.conntrack.entries() if e.expires > state.now] for name, held in state.namespaces.items()
    }
    assert _counts(mine) == _counts(wanted)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(TARGETS)), st.integers(1, 3))
def test_what_comes_after_an_error_takes_the_fast_path_again(target: str, ttl: int) -> None:
    """A packet that dies on the way is the interpreter's; those before and behind it are not."""
    talk = Talk(Twins(cluster(RULES), 3), target, Proto.UDP, 4000)
    for forth, given_ttl in [(True, 64), (False, 64), (True, 64), (True, ttl), *[(True, 64)] * 4]:
        talk.send(forth, given_ttl, 700)
    assert INTERPRETED not in talk.how[:2]
    assert INTERPRETED not in talk.how[-2:]
    assert talk.how[-1] == FAST
    assert talk.twins.states() == []


def test_a_packet_to_itself_is_a_reply_from_the_second_on() -> None:
    twins = Twins(cluster(), 3)
    for number in range(4):
        packet = Packet(ip("192.168.56.11"), ip("192.168.56.11"), Proto.UDP, Udp(9003, 9003))
        assert twins.send(1_000_000 * number, LocalOrigin("node/n1"), packet) == []
        assert twins.states() == []


REMEMBERING = """
filter -A FORWARD -p udp --dport 1 -m recent --name L --set
filter -A FORWARD -p udp --dport 2 -m recent --name L --remove
filter -A FORWARD -p udp --dport 3 -m recent --name L --rcheck -j DROP
filter -A FORWARD -p udp --dport 4 -m recent --name L --update --seconds 2
filter -A FORWARD -p udp --dport 5 -m recent --name M --set
filter -A FORWARD -p udp --dport 6 -m recent --name M --rcheck --hitcount 3 -j DROP
"""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(("p12", "p13")), st.sampled_from((1, 900))), max_size=30))
def test_lists_of_recent_are_the_same_for_kernels_and_interpreter(taken: list[tuple[int, str, int]]) -> None:
    twins, now = Twins(cluster(REMEMBERING), 3), 0
    for number, (port, pod, pause) in enumerate(taken):
        now += 1000 * pause
        packet = Packet(ip(f"10.244.1.{pod[2]}"), ip("10.244.2.2"), Proto.UDP, Udp(5000 + number, port))
        assert twins.send(now, LocalOrigin(f"pod/{pod}"), packet) == []
        assert twins.states() == []


VARYING = (
    "-p udp -m length --length 40:60",
    "-m ttl --ttl-lt 60",
    "-p tcp --tcp-flags PSH PSH",
    "-p tcp --tcp-flags SYN,RST SYN",
    "-m recent --name L --rcheck --seconds 3",
    "-m recent --name L --set",
)
parts = st.tuples(
    st.sampled_from((b"", b"1234567890" * 3)), st.sampled_from((64, 60)), st.booleans(), st.sampled_from((1, 2_500))
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(VARYING), min_size=1, max_size=3, unique=True),
    st.sampled_from((Proto.UDP, Proto.TCP)),
    st.lists(parts, min_size=4, max_size=12),
)
def test_rules_that_tell_packets_of_a_flow_apart_are_asked_for_each(
    rules: list[str], proto: Proto, sent: list[tuple[bytes, int, bool, int]]
) -> None:
    twins, now, seq = Twins(cluster("\n".join(f"filter -A FORWARD {rule}" for rule in rules)), 3), 0, 8
    client, server = ("p12", "10.244.1.2", 4000), ("p23", "10.244.2.3", 80)

    def send(one: tuple[str, str, int], other: tuple[str, str, int], body: Udp | Tcp, ttl: int, pause: int) -> None:
        nonlocal now
        now += 1000 * pause
        packet = Packet(ip(one[1]), ip(other[1]), proto, body, ttl=ttl)
        assert twins.send(now, LocalOrigin(f"pod/{one[0]}"), packet) == []

    if proto is Proto.TCP:
        send(client, server, Tcp(4000, 80, SYN, seq=7), 64, 1)
        send(server, client, Tcp(80, 4000, SYN | ACK, seq=100, ack=8), 64, 1)
    else:
        send(client, server, Udp(4000, 80), 64, 1)
        send(server, client, Udp(80, 4000), 64, 2_500)
    for payload, ttl, pushed, pause in sent:
        flags = ACK | TcpFlag.PSH if pushed else ACK
        body = Udp(4000, 80, payload) if proto is Proto.UDP else Tcp(4000, 80, flags, seq=seq, ack=101, payload=payload)
        seq += len(payload)
        send(client, server, body, ttl, pause)
    assert twins.states() == []
