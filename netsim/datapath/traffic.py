"""Traffic made up: flows between clients and targets, and the packets that belong to them. Seeded, vectorised.

    sources, targets ──Flows.draw──▶ flows ──┬─ opening        first packets: a new-flow storm
    (who, how popular)                       ├─ acknowledging  the third packet of each handshake
                                             ├─ packets        more of established flows, chosen by popularity
                                             └─ closing        the client's FIN
    what came of a batch ──replies──▶ the receivers' answers

Popularity is an array of shares: ``uniform``, ``zipf`` (a few Services or clients have most of the traffic) or
``elephants`` (a few flows carry most packets). The same generator state gives the same packets.

Segments of a flow repeat the same numbers, as if the first data were sent again and again: they stay inside the TCP window
for ever, so that a batch of any size is of established packets. Receivers number theirs from 0 (``interpreter.answer_to``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch
from netsim.datapath.columns import DONT_FRAGMENT, IPV6
from netsim.interpreter.outcome import Disposition
from netsim.packet.address import IPAddress
from netsim.packet.model import Proto, TcpFlag

Weights = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

# Source ports in the order in which they are given out: ip_local_port_range first, then the rest above 1023.
_PORTS: Final = np.concatenate([np.arange(32768, 61000), np.arange(1024, 32768), np.arange(61000, 65536)]).astype(
    np.uint16
)
_WSCALE = 7
_ECHO: Final[dict[int, int]] = {Proto.ICMP: 8 << 8, Proto.ICMPV6: 128 << 8}
_FIN, _SYN, _PSH, _ACK = (np.uint8(flag) for flag in (TcpFlag.FIN, TcpFlag.SYN, TcpFlag.PSH, TcpFlag.ACK))


class Source(NamedTuple):
    """Who sends: a handle of ``Datapath.origin`` and its address."""

    origin: int
    address: IPAddress


class Target(NamedTuple):
    """Whom to: an address (of a Service, a pod, a node), a port, and TCP, UDP or ICMP (an echo, which has no port)."""

    address: IPAddress
    port: int
    proto: int = Proto.TCP


# -- popularity --------------------------------------------------------------------------------------------------------
def uniform(count: int) -> Weights:
    """All alike. Shares of ``count`` things, summing to 1."""
    return np.full(count, 1 / count)


def zipf(count: int, exponent: float = 1.1) -> Weights:
    """The k-th most popular (the k-th of the list) has a share proportional to k ** -exponent."""
    shares = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    total: Weights = shares / shares.sum()
    return total


def elephants(count: int, few: float = 0.1, volume: float = 0.9) -> Weights:
    """``few`` of them (the first of the list, at least one) carry ``volume`` of all; the mice share what remains.

    ValueError unless both are above 0 and below 1."""
    if not (0 < few < 1 and 0 < volume < 1):
        raise ValueError(
            f"elephants: {few} of the flows cannot carry {volume} of the packets; both lie between 0 and 1"
        )
    large = max(1, round(count * few))
    if large >= count:
        return uniform(count)
    return np.concatenate([np.full(large, volume / large), np.full(count - large, (1 - volume) / (count - large))])


def choose(shares: Weights, count: int, random: np.random.Generator) -> Numbers:
    """``count`` indices drawn with these shares."""
    edges = np.cumsum(shares)
    found: Numbers = np.searchsorted(edges, random.random(count) * edges[-1], side="right")
    return np.minimum(found, len(shares) - 1)


# -- flows -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Flows as columns; ``first`` is the client's first sequence number, and ``flags`` a batch's (IPv6 or not)."""

    origin: npt.NDArray[np.uint32]
    src: npt.NDArray[np.uint32]
    dst: npt.NDArray[np.uint32]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    proto: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    first: npt.NDArray[np.uint32]
    addresses: Addresses

    @classmethod
    def draw(
        cls,
        sources: Sequence[Source],
        targets: Sequence[Target],
        count: int,
        addresses: Addresses,
        random: np.random.Generator,
        *,
        source_shares: Weights | None = None,
        target_shares: Weights | None = None,
    ) -> Flows:
        """``count`` distinct flows: each draws a target and, among the sources of its family, a source.

        ValueError if a family has targets but no source, for a protocol that has no flows here, or for more than 64,512
        flows of one source to one target."""
        by = uniform(len(sources)) if source_shares is None else source_shares
        to = choose(uniform(len(targets)) if target_shares is None else target_shares, count, random)
        six = np.array([target.address.version == 6 for target in targets])
        from_six = np.array([source.address.version == 6 for source in sources])
        who = np.zeros(count, np.int64)
        for family in (False, True):
            wanted, usable = six[to] == family, np.flatnonzero(from_six == family)
            if not wanted.any():
                continue
            if not len(usable):
                raise ValueError(f"no source has an IPv{6 if family else 4} address, but some target does")
            who[wanted] = usable[choose(by[usable], int(wanted.sum()), random)]
        return cls._between(sources, targets, who, to, addresses, random)

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[int, IPAddress, IPAddress, int, int]],
        addresses: Addresses,
        random: np.random.Generator,
    ) -> Flows:
        """One flow for each (origin, source address, destination address, port, protocol). Errors as ``draw``."""
        sources = [Source(origin, src) for origin, src, *_ in pairs]
        targets = [Target(dst, port, proto) for _, _, dst, port, proto in pairs]
        each = {source: number for number, source in enumerate(sources)}
        goals = {target: number for number, target in enumerate(targets)}
        who = np.array([each[source] for source in sources], np.int64)
        to = np.array([goals[target] for target in targets], np.int64)
        return cls._between(sources, targets, who, to, addresses, random)

    @classmethod
    def _between(
        cls,
        sources: Sequence[Source],
        targets: Sequence[Target],
        who: Numbers,
        to: Numbers,
        addresses: Addresses,
        random: np.random.Generator,
    ) -> Flows:
        strange = {int(target.proto) for target in targets} - {Proto.TCP, Proto.UDP, *_ECHO}
        if strange:
            raise ValueError(f"protocol {min(strange)}: flows are of TCP, UDP or ICMP")
        src = np.array([addresses.handle(source.address) for source in sources], np.uint32)
        dst = np.array([addresses.handle(target.address) for target in targets], np.uint32)
        ports = [_ECHO.get(target.proto, target.port) for target in targets]
        return cls(
            origin=np.array([source.origin for source in sources], np.uint32)[who],
            src=src[who],
            dst=dst[to],
            sport=_source_ports(who, to),
            dport=np.array(ports, np.uint16)[to],
            proto=np.array([target.proto for target in targets], np.uint8)[to],
            flags=np.array([IPV6 * (target.address.version == 6) for target in targets], np.uint8)[to],
            first=random.integers(0, 1 << 32, len(who), np.uint32),
            addresses=addresses,
        )

    def __len__(self) -> int:
        return len(self.src)

    def __getitem__(self, part: slice) -> Flows:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        addresses = columns.pop("addresses")
        return Flows(**{name: column[part] for name, column in columns.items()}, addresses=addresses)

    def opening(self, which: Numbers | None = None, *, start: int = 0, rate: int = 1_000_000) -> Batch:
        """First packets: SYN, datagram or echo request. ``which``: indices of flows, each once (default: all, in order).

        ``start``: microseconds; ``rate``: packets a second of simulated time; here and below."""
        which = np.arange(len(self)) if which is None else which
        batch, tcp = self._batch(which, start, rate, payload=0)
        batch.tcp_flags[tcp] = _SYN
        batch.seq[tcp] = self.first[which][tcp]
        batch.wscale[tcp] = _WSCALE
        batch.tcp_options[tcp] = 4
        batch.length[tcp] += np.uint16(4)
        return batch

    def acknowledging(self, which: Numbers | None = None, *, start: int = 0, rate: int = 1_000_000) -> Batch:
        """The third packet of each handshake; nothing of flows that are not TCP."""
        which = np.arange(len(self)) if which is None else which
        which = which[self.proto[which] == Proto.TCP]
        return self._established(which, start, rate, 0, _ACK)

    def packets(self, which: Numbers, *, start: int = 0, rate: int = 1_000_000, payload: int = 64) -> Batch:
        """One packet with ``payload`` bytes for each index, in this order, of flows that are established."""
        return self._established(which, start, rate, payload, _ACK | _PSH)

    def closing(self, which: Numbers | None = None, *, start: int = 0, rate: int = 1_000_000) -> Batch:
        """The client's FIN of each TCP flow, numbered as if no data had gone before it."""
        which = np.arange(len(self)) if which is None else which
        which = which[self.proto[which] == Proto.TCP]
        return self._established(which, start, rate, 0, _ACK | _FIN)

    def _established(self, which: Numbers, start: int, rate: int, payload: int, flags: np.uint8) -> Batch:
        batch, tcp = self._batch(which, start, rate, payload)
        batch.tcp_flags[tcp] = flags
        batch.seq[tcp] = self.first[which][tcp] + np.uint32(1)
        batch.ack[tcp] = 1
        return batch

    def _batch(self, which: Numbers, start: int, rate: int, payload: int) -> tuple[Batch, npt.NDArray[np.bool_]]:
        """What all packets have in common; and which of them are TCP."""
        batch = Batch.empty(len(which), self.addresses)
        batch.time[:] = start + np.arange(len(which)) * 1_000_000 // rate
        for name in ("origin", "src", "dst", "sport", "dport", "proto", "flags"):
            getattr(batch, name)[:] = getattr(self, name)[which]
        tcp = batch.proto == Proto.TCP
        batch.flags[(batch.flags & IPV6) == 0] |= np.uint8(DONT_FRAGMENT)
        batch.length[:] = np.where(batch.flags & IPV6, 40, 20) + np.where(tcp, 20, 8) + payload
        batch.window[tcp] = 64240
        return batch, tcp


def _source_ports(who: Numbers, to: Numbers) -> npt.NDArray[np.uint16]:
    """A port for each flow: different for all flows of a source as long as there are ports, and always for its flows to
    one target."""
    order = np.lexsort((to, who))
    ranks = np.empty(len(who), np.int64)
    ranks[order] = _places(who[order])
    pairs = np.empty(len(who), np.int64)
    pairs[order] = _places(who[order] * (int(to.max(initial=0)) + 1) + to[order])
    if len(who) and int(pairs.max()) >= len(_PORTS):
        raise ValueError(f"more than {len(_PORTS):,} flows of one source to one target: no ports are left; add sources")
    return _PORTS[ranks % len(_PORTS)]


def _places(keys: Numbers) -> Numbers:
    """The place of each element in its run of equal ones."""
    count = np.arange(len(keys))
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    begins: Numbers = np.maximum.accumulate(np.where(new, count, 0))
    return count - begins


# -- replies -----------------------------------------------------------------------------------------------------------
class Received(Protocol):
    """What replies need of a ``Result``: one row for each packet, as it was received."""

    verdict: npt.NDArray[np.uint8]
    receiver: npt.NDArray[np.uint32]
    src: npt.NDArray[np.uint32]
    dst: npt.NDArray[np.uint32]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]


_SUCCESS: Final = [number for number, end in enumerate(Disposition) if end in (Disposition.DELIVERED, Disposition.LEFT)]
_ANSWERS: Final = {Proto.ICMP: (8, 0), Proto.ICMPV6: (128, 129)}


def replies(
    batch: Batch, received: Received, origin_of: Callable[[int], int], *, start: int = 0, rate: int = 1_000_000
) -> Batch:
    """The receivers' answers, in order: SYN/ACK, ACK or FIN/ACK, the same datagram back, an echo reply (as
    ``interpreter.answer_to`` of one packet).

    ``origin_of``: the handle of ``Datapath.origin`` for a receiver's number. Nothing is answered to packets that were not
    delivered, to echo replies, to other protocols, and to packets in ``extra``."""
    proto, kind = batch.proto, batch.dport >> 8
    tcp, asks = proto == Proto.TCP, np.zeros(len(batch), bool)
    for number, (request, _) in _ANSWERS.items():
        asks |= (proto == number) & (kind == request)
    answered = np.isin(received.verdict, _SUCCESS) & (tcp | (proto == Proto.UDP) | asks)
    answered[list(batch.extra)] = False
    which = np.flatnonzero(answered)
    sent, made = batch.take(which), Batch.empty(len(which), batch.addresses)
    made.time[:] = start + np.arange(len(which)) * 1_000_000 // rate
    receivers, back = np.unique(received.receiver[which], return_inverse=True)
    handles: npt.NDArray[Any] = np.array([origin_of(int(number)) for number in receivers], np.uint32)
    made.origin[:] = handles[back]
    made.src[:], made.dst[:] = received.dst[which], received.src[which]
    made.proto[:], made.flags[:], made.length[:] = sent.proto, sent.flags, sent.length
    icmp, tcp = asks[which], tcp[which]
    made.sport[:] = np.where(icmp, received.sport[which], received.dport[which])
    made.dport[:] = np.where(icmp, received.dport[which], received.sport[which])
    for number, (_, answer) in _ANSWERS.items():
        made.dport[made.proto == number] = answer << 8
    header = np.where(sent.flags & IPV6, 40, 20) + 20
    said = sent.length - header - sent.tcp_options + ((sent.tcp_flags & _SYN) != 0) + ((sent.tcp_flags & _FIN) != 0)
    made.length[tcp] = header[tcp]
    made.tcp_flags[tcp] = (_ACK | sent.tcp_flags & (_SYN | _FIN))[tcp]
    made.seq[tcp] = sent.ack[tcp]
    made.ack[tcp] = (sent.seq + said)[tcp] & 0xFFFFFFFF
    made.window[tcp] = 64240
    return made
