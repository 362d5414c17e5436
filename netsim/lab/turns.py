"""The turns of a conversation, and the packets of each: the same for the kernel and for the interpreter.

A client's turns go from its address to the probe's target. A server's turns answer the last packet that was delivered, as
it was received: behind NAT that is where replies must go. TCP numbers count from each side's initial one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netsim.lab.marks import filled, option
from netsim.lab.probes import Manner, Probe
from netsim.packet.address import Family, IPAddress
from netsim.packet.codec import wire_length
from netsim.packet.fragment import fragment
from netsim.packet.icmp import echo
from netsim.packet.model import Body, Icmp, Packet, Proto, Sctp, Tcp, TcpFlag, Udp

CLIENT_ISN, SERVER_ISN = 0x10000000, 0x20000000
TIMEOUT = 8  # seconds: what conntrack's timeouts are for what will be answered late
LATE = 10.5
PIECE = 600  # the size of fragments, in bytes
_SYN, _ACK, _FIN, _RST = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST
_SYN_OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"  # MSS 1460, window scale 7
_INIT, _INIT_ACK, _SHUTDOWN, _SHUTDOWN_ACK, _COOKIE_ECHO, _COOKIE_ACK, _COMPLETE = 1, 2, 7, 8, 10, 11, 14


@dataclass(frozen=True)
class Turn:
    """``wait``: seconds before it. ``fresh``: the client does so from another port. ``length``: of a TCP payload."""

    server: bool = False
    wait: float = 0.0
    fresh: bool = False
    flags: TcpFlag = _SYN
    seq: int = 0
    ack: int = 0
    length: int = 0
    chunk: int = _INIT


def _client(flags: TcpFlag, seq: int = 0, ack: int = 0, length: int = 0, **more: float) -> Turn:
    return Turn(False, flags=flags, seq=seq, ack=ack, length=length, **more)  # type: ignore[arg-type]


def _server(flags: TcpFlag, seq: int = 0, ack: int = 0, length: int = 0, **more: float) -> Turn:
    return Turn(True, flags=flags, seq=seq, ack=ack, length=length, **more)  # type: ignore[arg-type]


_SHAKE = (_client(_SYN), _server(_SYN | _ACK, 0, 1), _client(_ACK, 1, 1))
_FAR = 10_000_000
_TCP: dict[Manner, tuple[Turn, ...]] = {
    Manner.ONE: (_client(_SYN),),
    Manner.ANSWERED: _SHAKE[:2],
    Manner.CONNECTION: (
        *_SHAKE, _client(_ACK, 1, 1, 100), _server(_ACK, 1, 101), _server(_ACK, 1, 101, 200), _client(_ACK | _FIN, 101, 201),
        _server(_ACK | _FIN, 201, 102), _client(_ACK, 102, 202),
    ),
    Manner.HALF_OPEN: (_client(_SYN), _client(_ACK, 1, 1, 20), _server(_SYN | _ACK, 0, 1)),
    Manner.MIDSTREAM: (_client(_ACK, 500, 500, 20), _server(_ACK, 500, 520)),
    Manner.OUT_OF_WINDOW: (
        *_SHAKE, _client(_ACK, 1 + _FAR, 1, 20), _server(_ACK, 1, 1 + _FAR, 20), _client(_ACK, 1, 1, 20),
    ),
    Manner.RESET: (*_SHAKE, _server(_RST, 1, 0), _client(_ACK, 1, 1, 20)),
    Manner.REFUSED: (_client(_SYN), _server(_RST | _ACK, 0, 1), _client(_SYN)),
    Manner.LATE: (_client(_SYN), _server(_SYN | _ACK, 0, 1, wait=LATE)),
}  # fmt: skip
_SCTP = tuple(
    Turn(server, chunk=chunk)
    for server, chunk in (
        (False, _INIT), (True, _INIT_ACK), (False, _COOKIE_ECHO), (True, _COOKIE_ACK), (False, _SHUTDOWN),
        (True, _SHUTDOWN_ACK), (False, _COMPLETE),
    )
)  # fmt: skip
# What the affinity to an endpoint does to another connection of the same client.
_AGAIN = Turn(fresh=True)


def turns(probe: Probe) -> tuple[Turn, ...]:
    """ValueError where the protocol has no such manner."""
    manner = probe.manner
    if manner is Manner.AFFINITY:
        return (Turn(), _AGAIN, _AGAIN)
    if manner is Manner.AFFINITY_TIMEOUT:
        return (Turn(), _AGAIN, replace(_AGAIN, wait=probe.timeout + 2.0), _AGAIN)
    if probe.protocol is Proto.TCP and manner in _TCP:
        return _TCP[manner]
    if probe.protocol is Proto.SCTP and manner is Manner.CONNECTION:
        return _SCTP
    if manner is Manner.ONE:
        return (Turn(),)
    if manner is Manner.ANSWERED or (manner is Manner.FRAGMENTS and probe.protocol in (Proto.UDP, Proto.ICMP)):
        return (Turn(), Turn(True, chunk=_INIT_ACK))
    if manner is Manner.LATE:
        return (Turn(), Turn(True, chunk=_INIT_ACK, wait=LATE))
    if manner is Manner.STREAM and probe.protocol is Proto.UDP:
        return (Turn(), Turn(True), Turn(wait=3.0), Turn(True))
    raise ValueError(f"{probe.protocol.name} has no manner {manner}")


@dataclass(frozen=True)
class Client:
    """``port`` is an echo's identifier too. ``ident`` is that of its IP packets."""

    address: IPAddress
    port: int
    ident: int = 1


def packets(probe: Probe, number: int, marks: Sequence[bytes], client: Client, heard: Packet | None) -> list[Packet]:
    """The packets of turn ``number``, whose mark is ``marks[number]``. ``heard``: what the server received last."""
    turn = turns(probe)[number]
    if turn.server:
        assert heard is not None
        src, sport, dst, dport = heard.dst, heard.dport or 0, heard.src, heard.sport or 0
        if isinstance(heard.body, Icmp):
            sport = dport = heard.body.rest >> 16
    else:
        src, sport, dst, dport = client.address, client.port, probe.target, probe.port
    first = number == 0

    def of(filling: int) -> Packet:
        body = _body(probe, turn, marks, number, (sport, dport), filling)
        ttl, fixed = (probe.ttl, probe.dont_fragment) if first else (64, False)
        return Packet(src, dst, probe.ip_protocol, body, ttl, ident=client.ident, dont_fragment=fixed)

    if probe.manner is Manner.FRAGMENTS:
        return fragment(of(2 * PIECE), PIECE)
    least = turn.length if probe.protocol in (Proto.TCP, Proto.SCTP) else 4
    made = of(least)
    return [of(least + probe.size - wire_length(made)) if first and probe.size > wire_length(made) else made]


def _body(probe: Probe, turn: Turn, marks: Sequence[bytes], number: int, ports: tuple[int, int], filling: int) -> Body:
    mark, (sport, dport) = marks[number], ports
    if probe.protocol is Proto.TCP:
        own, other = (SERVER_ISN, CLIENT_ISN) if turn.server else (CLIENT_ISN, SERVER_ISN)
        options = option(mark) + (_SYN_OPTIONS if turn.flags & _SYN else b"")
        ack = other + turn.ack if turn.flags & _ACK else 0
        return Tcp(sport, dport, turn.flags, own + turn.seq, ack, options=options, payload=filled(mark, filling))
    if probe.protocol is Proto.UDP:
        return Udp(sport, dport, filled(mark, filling))
    if probe.protocol is Proto.SCTP:
        # The mark of INIT and of INIT ACK is the tag that the other side must use from then on.
        begins = turn.chunk == _INIT
        tag = 0 if begins else int.from_bytes(marks[0] if turn.server else marks[1], "big")
        return Sctp(sport, dport, tag, _chunk(turn.chunk, mark))
    payload = filled(mark, filling)
    return echo(Family(probe.target.version), sport if not turn.server else dport, payload=payload, reply=turn.server)


def _chunk(kind: int, mark: bytes) -> bytes:
    if kind in (_INIT, _INIT_ACK):
        return struct.pack("!BBH", kind, 0, 20) + mark + struct.pack("!IHHI", 65536, 1, 1, 1)
    return struct.pack("!BBH", kind, 0, 8) + mark


def waits(probe: Probe) -> tuple[float, ...]:
    return tuple(turn.wait for turn in turns(probe))
