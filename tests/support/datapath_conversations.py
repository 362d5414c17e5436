"""Conversations drawn at random: handshakes, data, answers, ends, and now and then a packet that does not belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from netsim.interpreter.origin import Origin
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.packet.address import Family, IPAddress
from netsim.packet.icmp import echo, icmp_proto
from netsim.packet.model import Body, Icmp, Packet, Proto, Tcp, TcpFlag, Udp

SYN, ACK, FIN, RST, PSH = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST, TcpFlag.PSH
_ODD_FLAGS = (SYN, SYN | ACK, FIN, FIN | ACK, RST, RST | ACK, ACK, FIN | PSH | TcpFlag.URG, TcpFlag(0))
_FAR = (-200_000, -70_000, -1, 1, 66_000, 200_000, 1 << 31)
_SCALE = b"\x01\x03\x03\x07"
_GOOD = (Disposition.DELIVERED, Disposition.LEFT)

Sender = tuple[Origin, IPAddress]
Target = tuple[IPAddress, int, int]  # address, port, protocol
_LIVE = 12  # conversations at a time


@dataclass
class Talk:
    origin: Origin
    src: IPAddress
    dst: IPAddress
    sport: int
    dport: int
    proto: int
    seq: list[int] = field(default_factory=list)  # the next of the client, the next of the server
    peer: tuple[Origin, Packet] | None = None  # who has received the client's packet, and how it looked there
    greeted: bool = False  # the server's SYN has come back
    closing: bool = False
    tidy: bool = False  # nothing odd is drawn for it

    @property
    def family(self) -> Family:
        return Family(self.src.version)


class Conversations:
    """``next`` draws a packet and where it starts, ``heard`` is told what became of it.

    ``answerer`` tells where answers of an outcome's receiver start (None: nobody answers)."""

    def __init__(
        self,
        rng: Random,
        senders: Sequence[Sender],
        targets: Sequence[Target],
        answerer: Callable[[Outcome], Origin | None],
    ) -> None:
        self.rng, self.answerer = rng, answerer
        self.targets = targets
        self.senders = {family: [one for one in senders if one[1].version == family] for family in (4, 6)}
        self.live: list[Talk] = []
        self.last: tuple[Talk, bool] | None = None

    def next(self) -> tuple[Origin, Packet]:
        rng = self.rng
        if not self.live or rng.random() < 0.18:
            self.live.append(self._begin())
            del self.live[:-_LIVE]
            talk = self.live[-1]
        else:
            talk = rng.choice(self.live[-4:] if rng.random() < 0.6 else self.live)
        back = talk.peer is not None and (rng.random() < 0.45 or (talk.proto == Proto.TCP and not talk.greeted))
        self.last = talk, back
        if back:
            assert talk.peer is not None
            origin, seen = talk.peer
            return origin, self._packet(talk, seen.dst, seen.src, self._body(talk, True, seen))
        return talk.origin, self._packet(talk, talk.src, talk.dst, self._body(talk, False, None))

    def heard(self, outcome: Outcome) -> None:
        assert self.last is not None
        talk, back = self.last
        if outcome.disposition not in _GOOD:
            return
        if back:
            talk.greeted = True
            return
        origin = self.answerer(outcome)
        arrived = outcome.packet
        whole = arrived.proto == talk.proto and isinstance(arrived.body, Tcp | Udp | Icmp)
        if origin is not None and whole:  # neither a fragment nor the packet of a tunnel
            talk.peer = origin, arrived

    # -- one packet ----------------------------------------------------------------------------------------------------
    def _begin(self) -> Talk:
        rng = self.rng
        dst, port, proto = rng.choice(self.targets)
        origin, src = rng.choice(self.senders[dst.version])
        if rng.random() < 0.02:
            src = rng.choice(self.senders[dst.version])[1]  # a forged one
        sport = rng.choice((40000, 40001, 600, 511, 1023, 65535, rng.randint(1, 65535)))
        if self.live and rng.random() < 0.15:  # the same port again: ports must move, records are reused
            other = rng.choice(self.live)
            if other.src.version == dst.version:
                origin, src, sport = other.origin, other.src, other.sport
        if rng.random() < 0.1:
            proto = icmp_proto(Family(dst.version))
        return Talk(origin, src, dst, sport, port, proto, [rng.getrandbits(32), rng.getrandbits(32)],
                    tidy=rng.random() < 0.6)  # fmt: skip

    def _packet(self, talk: Talk, src: IPAddress, dst: IPAddress, body: Body) -> Packet:
        rng = self.rng
        ttl = 64 if talk.tidy or rng.random() < 0.85 else rng.choice((1, 2, 3, 4, 255))
        fixed = talk.family is Family.IPV4 and rng.random() < 0.8
        return Packet(src, dst, talk.proto, body, ttl=ttl, tos=rng.choice((0, 0, 0, 8)), dont_fragment=fixed)

    def _size(self, tidy: bool) -> int:
        rng = self.rng
        return rng.choice((0, 0, 0, 1, 100)) if tidy or rng.random() < 0.9 else rng.randint(1360, 1480)

    def _body(self, talk: Talk, back: bool, seen: Packet | None) -> Body:
        size = self._size(talk.tidy)
        body = None if seen is None else seen.body
        if talk.proto in (Proto.ICMP, Proto.ICMPV6):
            asked = echo(talk.family, talk.sport, 1, bytes(size))
            if not back:
                return asked
            assert isinstance(body, Icmp)
            return Icmp(0 if talk.proto == Proto.ICMP else 129, 0, body.rest, bytes(size))
        sport, dport = talk.sport, talk.dport
        if seen is not None:
            sport, dport = seen.dport or 0, seen.sport or 0
        if talk.proto == Proto.UDP:
            return Udp(sport, dport, bytes(size))
        return self._segment(talk, int(back), sport, dport, size)

    def _segment(self, talk: Talk, side: int, sport: int, dport: int, size: int) -> Tcp:
        rng = self.rng
        mine, other = talk.seq[side], talk.seq[1 - side]
        options = _SCALE if rng.random() < 0.5 else b""
        if not talk.tidy and rng.random() < 0.15:
            seq = (mine + rng.choice(_FAR)) & 0xFFFFFFFF
            ack = (other + rng.choice((0, *_FAR))) & 0xFFFFFFFF
            window = rng.choice((0, 1, 65535))
            return Tcp(sport, dport, rng.choice(_ODD_FLAGS), seq, ack, window, options, bytes(size))
        if not talk.greeted:
            flags = SYN | ACK if side else SYN
            if rng.random() < 0.5:
                talk.seq[side] = mine & 0xFFFFFFFF
            return Tcp(sport, dport, flags, (mine - 1) & 0xFFFFFFFF, other if side else 0, 64240, options)
        flags = ACK | (PSH if size else TcpFlag(0))
        if talk.closing or rng.random() < 0.04:
            flags = rng.choice((FIN | ACK, ACK, FIN | ACK, RST)) if rng.random() < 0.8 else flags
            talk.closing = True
        talk.seq[side] = (mine + size + bool(flags & FIN)) & 0xFFFFFFFF
        if talk.closing and rng.random() < 0.15:  # the same ports anew
            talk.greeted, talk.closing, talk.peer = False, False, None
        return Tcp(sport, dport, flags, mine, other, rng.choice((64240, 502, 65535)), b"", bytes(size))
