"""Batches: packets as columns, the form in which they go into the datapath. ``columns`` says what each column means.

What columns cannot hold is kept beside them:

``extra``   packets that must be *interpreted*, by their number in the batch: fragments, ICMP other than requests and
            replies, SCTP, IPv4 options, IPv6 extension headers, tunnels that are decoded, transport headers that are cut
            short, more than 65,535 bytes. Their columns are filled in as far as they go, and are not checked.
``recall``  gives packets whose columns say all that forwarding looks at, but not all there is (payload, IP identification,
            flow label, other TCP options), as they were: should one of them be interpreted after all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.addresses import Addresses
from netsim.datapath.check import flawless, misshapen, nonsense
from netsim.datapath.columns import DTYPES, Holding, Row, packet_of, row_of
from netsim.errors import InputError, Problem
from netsim.packet.model import Packet

Column = npt.NDArray[Any]


def _nothing(number: int) -> Packet | None:
    return None


@dataclass(slots=True, eq=False)
class Batch:
    """Columns of one length, each of its dtype in ``DTYPES``. Slices share memory with what they are slices of."""

    time: Column
    origin: Column
    src: Column
    dst: Column
    sport: Column
    dport: Column
    proto: Column
    flags: Column
    tcp_flags: Column
    ttl: Column
    tos: Column
    length: Column
    seq: Column
    ack: Column
    window: Column
    wscale: Column
    tcp_options: Column
    addresses: Addresses
    extra: dict[int, Packet] = field(default_factory=dict)
    recall: Callable[[int], Packet | None] = _nothing

    @classmethod
    def empty(cls, count: int, addresses: Addresses | None = None) -> Batch:
        """``count`` packets to be filled in: zeros, but for a TTL of 64 and no window scale."""
        made: dict[str, Any] = {name: np.zeros(count, kind) for name, kind in DTYPES.items()}
        made["ttl"][:] = 64
        made["wscale"][:] = -1
        return cls(**made, addresses=Addresses() if addresses is None else addresses)

    @classmethod
    def of_packets(cls, packets: Iterable[tuple[int, int, Packet]], addresses: Addresses) -> Batch:
        """A batch of (time, origin, packet): microseconds, a handle of ``Datapath.origin``, any packet at all."""
        rows: list[tuple[int, ...]] = []
        extra: dict[int, Packet] = {}
        held: dict[int, Packet] = {}
        for number, (time, origin, packet) in enumerate(packets):
            row, holding = row_of(packet, addresses)
            rows.append((time, origin, *row))
            if holding is Holding.LITTLE:
                extra[number] = packet
            elif holding is Holding.ENOUGH:
                held[number] = packet
        told: Iterable[Sequence[int]] = zip(*rows) if rows else [()] * len(DTYPES)
        made: dict[str, Any] = {name: _column(name, values) for name, values in zip(DTYPES, told)}
        return cls(**made, addresses=addresses, extra=extra, recall=held.get if held else _nothing)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, part: slice) -> Batch:
        """A run of packets, numbered from 0 again. ValueError for a step other than 1."""
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"a batch is cut in one piece, not by steps of {step}")
        recall = self.recall
        return Batch(
            **{name: column[start:stop] for name, column in self.columns()},
            addresses=self.addresses,
            extra={number - start: self.extra[number] for number in _within(self.extra, start, stop)},
            recall=recall if recall is _nothing else lambda number: recall(number + start),
        )

    def take(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """A copy of these packets in this order. IndexError if there is no such packet."""
        recall = self.recall
        return Batch(
            **{name: column[numbers] for name, column in self.columns()},
            addresses=self.addresses,
            extra={at: self.extra[n] for at, n in enumerate(numbers.tolist()) if n in self.extra} if self.extra else {},
            recall=recall if recall is _nothing else lambda number: recall(int(numbers[number])),
        )

    def columns(self) -> Iterator[tuple[str, Column]]:
        for name in DTYPES:
            yield name, getattr(self, name)

    def packet(self, number: int) -> Packet:
        """One packet as a value: as it was, where that is known; else with zeros for its payload. IndexError if there is
        no such packet."""
        if not 0 <= number < len(self):
            raise IndexError(f"packet {number} of a batch of {len(self)}")
        kept = self.extra.get(number) or self.recall(number)
        if kept is not None:
            return kept
        return packet_of(Row(*(int(getattr(self, name)[number]) for name in Row._fields)), self.addresses)

    def check(self, origins: int | None = None) -> None:
        """InputError if the datapath cannot take it: every complaint names a column and, where it is about one, a packet.

        ``origins``: how many handles ``Datapath.origin`` has given out (None: any will do)."""
        named = dict(self.columns())
        wrong = list(misshapen(named))
        told = self.extra, self.addresses.interned, origins
        if not wrong and not flawless(named, *told):
            wrong = list(nonsense(named, *told))
        if wrong:
            raise InputError([Problem(text, object="batch") for text in wrong])


def concat(batches: Sequence[Batch]) -> Batch:
    """One batch after the other. ValueError if there is none, or if their handles are of different ``Addresses``."""
    if not batches:
        raise ValueError("nothing to put together")
    addresses = batches[0].addresses
    if any(batch.addresses is not addresses for batch in batches):
        raise ValueError("these batches' address handles mean different things: make them with the same Addresses")
    starts = [0, *np.cumsum([len(batch) for batch in batches]).tolist()]
    recalls = [batch.recall for batch in batches]

    def recall(number: int) -> Packet | None:
        which = bisect_right(starts, number) - 1
        return recalls[which](number - starts[which])

    return Batch(
        **{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in DTYPES},
        addresses=addresses,
        extra={
            start + number: packet for start, batch in zip(starts, batches) for number, packet in batch.extra.items()
        },
        recall=_nothing if all(one is _nothing for one in recalls) else recall,
    )


def merge(batches: Sequence[Batch]) -> Batch:
    """All packets in the order of their times; of equal times, those of the earlier batch first. Errors as ``concat``."""
    whole = concat(batches)
    return whole.take(np.argsort(whole.time, kind="stable"))


def _column(name: str, values: Sequence[int]) -> Column:
    try:
        return np.array(values, DTYPES[name])
    except OverflowError:
        room = np.iinfo(DTYPES[name])
        number = next(number for number, value in enumerate(values) if not room.min <= value <= room.max)
        told = f"packet {number}: {name} is {values[number]}, outside of {room.min} to {room.max}"
        raise InputError([Problem(told, object="batch")]) from None


def _within(numbers: dict[int, Packet], start: int, stop: int) -> list[int]:
    """The keys in a range, by whichever of both is the shorter."""
    if len(numbers) < stop - start:
        return [number for number in numbers if start <= number < stop]
    return [number for number in range(start, stop) if number in numbers]
