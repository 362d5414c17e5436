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
from netsim.datapath.conversations import ARRIVED, LOST, Conversations
from netsim.datapath.readdress import readdressed
from netsim.interpreter.origin import LocalOrigin, Origin
from netsim.interpreter.outcome import Disposition
from netsim.packet.address import IPAddress
from netsim.packet.model import Packet

NO_BEGINNING: Final = "answers to what the capture does not have, from a Service's address"
NOT_ARRIVED: Final = "answers to packets that did not arrive"

_ARRIVED: Final = [number for number, end in enumerate(Disposition) if end in (Disposition.DELIVERED, Disposition.LEFT)]


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


_REMEMBERED = 50_000  # connections: with more, a copy before each part would cost more than it tells


class Engine(Protocol):
    """What a replay needs of a ``Datapath``."""

    addresses: Addresses

    def origin(self, origin: Origin) -> int: ...

    def process(self, batch: Batch, *, explainable: bool = False) -> Any: ...

    def remembered(self) -> int: ...

    def namespace_name(self, number: int) -> str | None: ...


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
    ``times``: nanoseconds, as captured; ``answers``: which of them were sent by the receiver of another; ``explained``:
    the engine can explain them until it goes on."""

    numbers: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    answers: npt.NDArray[np.bool_]
    batch: Batch
    result: Received
    explained: bool = False


class Replay:
    """``senders``: for every source address of the capture the origin of what it sends, or in words why nobody sends it.

    ``left_out`` counts by reason the usable packets that were not sent, ``late`` those captured before their predecessor
    (sent at its time); complete when ``run`` has come to its end. While ``explainable``, which whoever takes the parts
    may change, and as long as there is little to remember, the engine can explain the packets of the latest part."""

    def __init__(self, engine: Engine, senders: Mapping[IPAddress, Origin | str]) -> None:
        self.engine = engine
        self.left_out: Counter[str] = Counter()
        self.late = 0
        self.explainable = True
        self._senders = senders
        self._receivers: dict[int, int] = {}
        self._conversations = Conversations()
        self._reasons: list[str] = []
        self._start: int | None = None
        self._now = 0

    def run(self, capture: Capture, size: int = 65536) -> Iterator[Part]:
        for block in capture.blocks(size):
            places = np.flatnonzero(block.records["oddity"] == 0)
            if len(places):
                yield from self._block(block, places)

    def _block(self, block: Block, places: npt.NDArray[np.int64]) -> Iterator[Part]:
        """Answers can be made only when what became of their questions is known: the block is cut before each answer to a
        question that is not processed yet."""
        times = block.records["time"][places]
        made = block.batch(places, self._clock(times), np.zeros(len(places), np.uint32), self.engine.addresses)
        batch = _readdressing(made)
        senders = self._senders_of(batch)
        batch.origin[:] = np.maximum(senders, 0)
        whole = np.ones(len(batch), bool)
        for number, packet in batch.extra.items():
            whole[number] = packet.sport is not None and not packet.is_fragment
        talks, answers, asks = self._conversations.sort(batch, whole, senders >= 0)
        start = 0
        for stop in [*_cuts(talks, answers, asks), len(batch)]:
            rows = self._sent(batch, np.arange(start, stop), talks, answers, senders)
            start = stop
            if not len(rows):
                continue
            sent = batch.take(rows)
            explained = self.explainable and self.engine.remembered() < _REMEMBERED
            result = self.engine.process(sent, explainable=explained)
            self._learn(talks[rows], asks[rows], result)
            yield Part(block.first + places[rows], times[rows], answers[rows], sent, result, explained)

    def _sent(
        self,
        batch: Batch,
        rows: npt.NDArray[np.int64],
        talks: npt.NDArray[np.int64],
        answers: npt.NDArray[np.bool_],
        senders: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Those of ``rows`` that somebody sends, answers redirected; the others are counted."""
        replying = rows[answers[rows]]
        lost = self._conversations.table["fate"][talks[replying]] != ARRIVED
        if lost.any():
            self.left_out[NOT_ARRIVED] += int(lost.sum())
        replying = replying[~lost]
        self._conversations.redirect(batch, replying, talks[replying])
        for number in replying.tolist() if batch.extra else ():
            if number in batch.extra:
                batch.extra[number] = readdressed(batch.extra[number], batch, number, batch.addresses)
        asking = rows[~answers[rows]]
        silent = senders[asking] < 0
        for reason, count in zip(*np.unique(senders[asking[silent]], return_counts=True)):
            self.left_out[self._reasons[-1 - int(reason)]] += int(count)
        return np.sort(np.concatenate([replying, asking[~silent]]))

    def _clock(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Microseconds since the first packet, never running backwards."""
        if self._start is None:
            self._start = int(times[0])
        wanted = (times - self._start) // 1000
        made: npt.NDArray[np.int64] = np.maximum.accumulate(np.maximum(wanted, self._now))
        self.late += int(np.count_nonzero(made != wanted))
        self._now = int(made[-1])
        return made

    def _senders_of(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Per packet: the handle of its origin; or a negative number: nobody sends it, for the reason of that number."""
        which = batch.src.astype(np.int64) << 1 | (batch.flags & IPV6)
        known, back = np.unique(which, return_inverse=True)
        found = []
        for one in known.tolist():
            sender = self._senders[self.engine.addresses.address(one >> 1, 6 if one & 1 else 4)]
            if not isinstance(sender, str):
                found.append(self.engine.origin(sender))
                continue
            if sender not in self._reasons:
                self._reasons.append(sender)
            found.append(-1 - self._reasons.index(sender))
        handles: npt.NDArray[np.int64] = np.array(found, np.int64)[back.reshape(-1)]
        return handles

    def _learn(self, talks: npt.NDArray[np.int64], asks: npt.NDArray[np.bool_], result: Received) -> None:
        places = np.flatnonzero(asks)
        arrived = np.isin(result.verdict[places], _ARRIVED)
        origins = [self._origin_at(one) if fine else 0 for one, fine in zip(result.receiver[places].tolist(), arrived)]
        fates = np.where(arrived, ARRIVED, LOST)
        self._conversations.learn(talks[places], fates, np.array(origins, np.uint32), result, places)

    def _origin_at(self, receiver: int) -> int:
        found = self._receivers.get(receiver)
        if found is None:
            name = self.engine.namespace_name(receiver)
            assert name is not None
            found = self._receivers[receiver] = self.engine.origin(LocalOrigin(name))
        return found


def _cuts(talks: npt.NDArray[np.int64], answers: npt.NDArray[np.bool_], asks: npt.NDArray[np.bool_]) -> list[int]:
    """Where to cut a block, so that every question lies before the cut and its answers behind it."""
    asked: dict[int, int] = {}
    cuts = [0]
    concerned = np.isin(talks, talks[asks]) & (answers | asks)
    rows = np.flatnonzero(concerned)
    for row, talk, ask in zip(rows.tolist(), talks[rows].tolist(), asks[rows].tolist()):
        if ask:
            asked[talk] = row
        elif asked.get(talk, -1) >= cuts[-1]:
            cuts.append(row)
    return cuts[1:]


def _readdressing(batch: Batch) -> Batch:
    """``batch``, whose ``recall`` knows of addresses and ports that were changed since."""
    read = batch.recall

    def recall(number: int) -> Packet | None:
        packet = read(number)
        return None if packet is None else readdressed(packet, batch, number, batch.addresses)

    batch.recall = recall
    return batch
