"""A capture through a network: each packet sent again by whoever has its source address, at the time it was captured.

A capture shows what happened once, a replay what happens in the network at hand; a Service may well choose another endpoint
than it did then. So the answers of a conversation are not sent by whoever sent them then, but by whoever received the
question now: a packet that is the exact reverse of an earlier one is an *answer*, and goes out from where that one arrived,
with the addresses it arrived with. It is left out when that one did not arrive.

    Capture ─▶ Survey (who is in it: addresses) ─▶ senders: address → origin, or why nobody sends from it
    Capture ─▶ Replay.run ─▶ Part, Part, …   packets sent, in order, with what became of them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch
from netsim.datapath.capture import Capture
from netsim.datapath.captured import Block
from netsim.datapath.columns import IPV6
from netsim.datapath.readdress import readdressed
from netsim.interpreter.origin import LocalOrigin, Origin
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.packet.address import IPAddress
from netsim.packet.model import Packet, Proto

NO_BEGINNING: Final = "answers to what the capture does not have, from a Service's address"
NOT_ARRIVED: Final = "answers to packets that did not arrive"

_ARRIVED: Final = frozenset(
    number for number, end in enumerate(Disposition) if end in (Disposition.DELIVERED, Disposition.LEFT)
)
_REQUESTS: Final = {(Proto.ICMP, 0): 8, (Proto.ICMPV6, 129): 128}  # an echo reply's request
# A connection that was silent for so long may be forgotten (no timeout of conntrack but SCTP's is shorter): where its next
# packet goes is looked at again before it is answered.
_SILENCE: Final = 10_000_000
_SYN, _ACK = 0x02, 0x10


class Received(Protocol):
    """The columns of a datapath's result that a replay looks at, one row a packet. ``verdict`` counts ``Disposition``."""

    verdict: npt.NDArray[np.uint8]
    receiver: npt.NDArray[np.uint32]
    src: npt.NDArray[np.uint32]
    dst: npt.NDArray[np.uint32]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    ttl: npt.NDArray[np.uint8]
    rules: npt.NDArray[np.uint32]
    how: npt.NDArray[np.uint8]


class Engine(Protocol):
    """What a replay needs of a ``Datapath``."""

    addresses: Addresses

    def origin(self, origin: Origin) -> int: ...

    def process(self, batch: Batch) -> Any: ...

    def namespace_name(self, number: int) -> str | None: ...

    def explain(self, number: int) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Survey:
    """What a capture holds, looked at once before it is replayed."""

    packets: int
    first: int  # nanoseconds: the earliest and the latest packet that can be used; 0 and 0 if there is none
    last: int
    sources: frozenset[IPAddress]
    destinations: frozenset[IPAddress]
    oddities: Counter[str]  # packets that cannot be used, by reason
    remarks: Counter[str]


def survey(capture: Capture) -> Survey:
    """Read all of ``capture``. Errors as ``Capture.blocks``."""
    found: dict[str, set[IPAddress]] = {"src": set(), "dst": set()}
    first, last = (1 << 63) - 1, -1
    for block in capture.blocks():
        usable = block.records[block.records["oddity"] == 0]
        if not len(usable):
            continue
        first, last = min(first, int(usable["time"].min())), max(last, int(usable["time"].max()))
        six = (usable["flags"] & IPV6) != 0
        for name, known in found.items():
            halves = usable[name]
            known.update(IPv4Address(int(low)) for low in np.unique(halves[~six, 1]))
            wide = np.unique(halves[six], axis=0)
            known.update(IPv6Address(int(high) << 64 | int(low)) for high, low in wide)
    if last < 0:
        first = last = 0
    sources, destinations = frozenset(found["src"]), frozenset(found["dst"])
    return Survey(capture.packets, first, last, sources, destinations, capture.oddities, capture.remarks)


@dataclass(frozen=True, slots=True)
class Part:
    """Some packets of the capture as they were sent, and what became of them. ``numbers``: theirs in the capture, from 1;
    ``times``: nanoseconds, as captured; ``answers``: which of them were sent by the receiver of another."""

    numbers: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    answers: npt.NDArray[np.bool_]
    batch: Batch
    result: Received


class _Conversation:
    """``arrival``: origin handle, src, dst, sport, dport of an answer; None while unknown; () if the question was lost."""

    __slots__ = ("arrival", "asked", "seen")

    def __init__(self) -> None:
        self.arrival: tuple[int, ...] | None = None
        self.asked = -1  # the packet, by its place in the block, whose fate decides
        self.seen = -_SILENCE


class Replay:
    """``senders``: for every source address of the capture the origin of what it sends, or in words why nobody sends it.

    ``left_out`` counts by reason the usable packets that were not sent, ``late`` those captured before their predecessor
    (sent at its time); complete when ``run`` has come to its end."""

    def __init__(self, engine: Engine, senders: Mapping[IPAddress, Origin | str]) -> None:
        self.engine = engine
        self.left_out: Counter[str] = Counter()
        self.late = 0
        self._senders = senders
        self._handles: dict[tuple[int, int], int | str] = {}
        self._receivers: dict[int, int] = {}
        self._conversations: dict[tuple[int, int, int, int], _Conversation] = {}
        self._start: int | None = None
        self._now = 0

    def run(self, capture: Capture, size: int = 65536) -> Iterator[Part]:
        for block in capture.blocks(size):
            places = np.flatnonzero(block.records["oddity"] == 0)
            if len(places):
                yield from self._block(block, places)

    def _block(self, block: Block, places: npt.NDArray[np.int64]) -> Iterator[Part]:
        times = block.records["time"][places]
        made = block.batch(places, self._clock(times), np.zeros(len(places), np.uint32), self.engine.addresses)
        batch = _readdressing(made)
        senders = self._senders_of(batch)
        keys, answers_to = _keys(batch)
        answers = np.zeros(len(batch), bool)
        asked: list[_Conversation] = []
        chosen: list[int] = []

        def flush() -> Part:
            numbers = np.array(chosen, np.int64)
            sent = batch.take(numbers)
            result = self.engine.process(sent)
            self._learn(asked, chosen, result)
            chosen.clear()
            asked.clear()
            return Part(block.first + places[numbers], times[numbers], answers[numbers], sent, result)

        moments, flags = batch.time.tolist(), batch.tcp_flags.tolist()
        for number, (sender, key, back) in enumerate(zip(senders, keys, answers_to)):
            whole = number not in batch.extra or _has_ports(batch.extra[number])
            question = self._conversations.get(back) if whole else None
            if question is not None:
                if question.arrival is None:
                    yield flush()
                if not question.arrival:
                    self.left_out[NOT_ARRIVED] += 1
                    continue
                _redirect(batch, number, question.arrival)
                answers[number] = True
                question.seen = moments[number]
            elif isinstance(sender, str):
                self.left_out[sender] += 1
                continue
            else:
                batch.origin[number] = sender
                if whole:
                    self._ask(key, number, moments[number], flags[number], asked)
            chosen.append(number)
        if chosen:
            yield flush()

    def _clock(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Microseconds since the first packet, never running backwards."""
        if self._start is None:
            self._start = int(times[0])
        wanted = (times - self._start) // 1000
        made: npt.NDArray[np.int64] = np.maximum.accumulate(np.maximum(wanted, self._now))
        self.late += int(np.count_nonzero(made != wanted))
        self._now = int(made[-1])
        return made

    def _senders_of(self, batch: Batch) -> list[int | str]:
        """Per packet: the handle of its origin, or why nobody sends it."""
        which = batch.src.astype(np.int64) << 1 | (batch.flags & IPV6)
        known, back = np.unique(which, return_inverse=True)
        found: list[int | str] = []
        for one in known.tolist():
            address = self.engine.addresses.address(one >> 1, 6 if one & 1 else 4)
            sender = self._senders[address]
            found.append(sender if isinstance(sender, str) else self.engine.origin(sender))
        return [found[place] for place in back.tolist()]

    def _ask(
        self, key: tuple[int, int, int, int], number: int, moment: int, flags: int, asked: list[_Conversation]
    ) -> None:
        """A packet of somebody's own accord: its fate decides who answers, if that is not known already."""
        talk = self._conversations.get(key)
        if talk is None:
            talk = self._conversations[key] = _Conversation()
        if talk.arrival is None or flags & (_SYN | _ACK) == _SYN or moment - talk.seen >= _SILENCE:
            if talk.asked < 0:
                asked.append(talk)
            talk.arrival, talk.asked = None, number
        talk.seen = moment

    def _learn(self, asked: list[_Conversation], chosen: list[int], result: Received) -> None:
        if not asked:
            return
        at = {number: place for place, number in enumerate(chosen)}
        for talk in asked:
            place, talk.asked = at[talk.asked], -1
            if int(result.verdict[place]) not in _ARRIVED:
                talk.arrival = ()
                continue
            origin = self._origin_at(int(result.receiver[place]))
            src, dst, sport, dport = (int(getattr(result, name)[place]) for name in ("src", "dst", "sport", "dport"))
            talk.arrival = (origin, dst, src, dport, sport)

    def _origin_at(self, receiver: int) -> int:
        found = self._receivers.get(receiver)
        if found is None:
            name = self.engine.namespace_name(receiver)
            assert name is not None
            found = self._receivers[receiver] = self.engine.origin(LocalOrigin(name))
        return found


def _redirect(batch: Batch, number: int, arrival: tuple[int, ...]) -> None:
    """Make one packet an answer to what arrived so. ICMP keeps its identifier in ``sport`` both ways."""
    origin, src, dst, sport, dport = arrival
    batch.origin[number], batch.src[number], batch.dst[number] = origin, src, dst
    if int(batch.proto[number]) in (Proto.ICMP, Proto.ICMPV6):
        batch.sport[number] = dport
    else:
        batch.sport[number], batch.dport[number] = sport, dport
    if number in batch.extra:
        batch.extra[number] = readdressed(batch.extra[number], batch, number, batch.addresses)


def _has_ports(packet: Packet) -> bool:
    """SCTP: interpreted, but a conversation all the same."""
    return packet.sport is not None and not packet.is_fragment


def _keys(batch: Batch) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]:
    """Of each packet: its tuple, and the tuple that it would be an answer to."""
    sport, dport = batch.sport.astype(np.int64), batch.dport.astype(np.int64)
    kind = batch.proto.astype(np.int64) << 1 | (batch.flags & IPV6)
    ports, back = sport << 16 | dport, dport << 16 | sport
    for (proto, reply), request in _REQUESTS.items():
        pinged = batch.proto == proto
        back = np.where(pinged, np.where(dport >> 8 == reply, sport << 16 | request << 8, -1), back)
    src, dst, kinds = batch.src.tolist(), batch.dst.tolist(), kind.tolist()
    return list(zip(src, dst, ports.tolist(), kinds)), list(zip(dst, src, back.tolist(), kinds))


def _readdressing(batch: Batch) -> Batch:
    """``batch``, whose ``recall`` knows of addresses and ports that were changed since."""
    read = batch.recall

    def recall(number: int) -> Packet | None:
        packet = read(number)
        return None if packet is None else readdressed(packet, batch, number, batch.addresses)

    batch.recall = recall
    return batch
