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
