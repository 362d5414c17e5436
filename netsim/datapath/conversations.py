"""Who asks and who answers: the conversations of a capture, and where each question arrived.

A conversation begins with the first packet of a tuple that somebody sends; whatever goes the other way is an answer to it.
Tables are arrays by the conversation's number, so that a block of packets is dealt with at once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from netsim.datapath.batch import Batch
from netsim.datapath.columns import IPV6
from netsim.packet.model import Proto, TcpFlag

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

UNKNOWN, ARRIVED, LOST = 0, 1, 2

# A connection that was silent for so long (microseconds) may be forgotten, since no timeout of conntrack but SCTP's is
# shorter: where its next packet goes is looked at again before anybody answers it.
_SILENCE: Final = 10_000_000
_REQUESTS: Final = ((Proto.ICMP, 8, 0), (Proto.ICMPV6, 128, 129))  # protocol, request, reply

_CONVERSATION = np.dtype(
    [
        ("flipped", np.bool_),  # the questions' tuple is the greater one of the two
        ("fate", np.uint8),
        ("seen", np.int64),  # when its last packet was sent
        ("origin", np.uint32),  # who answers, and with which addresses and ports
        ("src", np.uint32),
        ("dst", np.uint32),
        ("sport", np.uint16),
        ("dport", np.uint16),
    ]
)


class Conversations:
    def __init__(self) -> None:
        self.table: npt.NDArray[Any] = np.zeros(1024, _CONVERSATION)
        self._numbers: dict[tuple[int, int], int] = {}

    def sort(self, batch: Batch, whole: Mask, sendable: Mask) -> tuple[Numbers, Mask, Mask]:
        """Of each packet: its conversation (-1: none), whether it answers, and whether its fate settles who answers.

        ``whole``: it has a tuple; ``sendable``: somebody has its source address. Only sendable packets begin anything."""
        one, other, flipped = _tuples(batch)
        rows = np.flatnonzero(whole)
        known, which = _distinct(one[rows], other[rows])
        first = np.full(len(known), len(batch), np.int64)  # the packet that may begin it
        np.minimum.at(first, which[sendable[rows]], rows[sendable[rows]])
        names = list(map(tuple, known.tolist()))
        numbers = np.array([self._numbers.get(name, -1) for name in names], np.int64)
        first[numbers >= 0] = -1  # it began in an earlier block
        for place in np.flatnonzero((first >= 0) & (first < len(batch))).tolist():
            numbers[place] = self._begin(names[place], bool(flipped[first[place]]))
        part = rows >= first[which]  # what comes before has nobody to send it, and nobody whom it answers
        rows, which = rows[part], which[part]
        talks = np.full(len(batch), -1, np.int64)
        talks[rows] = numbers[which]
        answers = np.zeros(len(batch), bool)
        answers[rows] = flipped[rows] != self.table["flipped"][talks[rows]]
        return talks, answers, self._asks(batch, talks, rows, sendable & ~answers)

    def _begin(self, name: tuple[int, int], flipped: bool) -> int:
        number = self._numbers[name] = len(self._numbers)
        if number == len(self.table):
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
        self.table[number]["flipped"] = flipped
        return number

    def _asks(self, batch: Batch, talks: Numbers, rows: Numbers, sent: Mask) -> Mask:
        """Questions that may go another way than those before: the first, a SYN, one after a silence."""
        order = rows[np.argsort(talks[rows], kind="stable")]
        before = np.full(len(batch), -1, np.int64)
        same = talks[order][1:] == talks[order][:-1]
        before[order[1:][same]] = order[:-1][same]
        held, last, time = self.table[talks[rows]], before[rows], batch.time
        fresh = (last < 0) & (held["fate"] == UNKNOWN)
        begins = (batch.tcp_flags[rows] & (TcpFlag.SYN | TcpFlag.ACK)) == TcpFlag.SYN
        silence = time[rows] - np.where(last >= 0, time[last], held["seen"])
        asks = np.zeros(len(batch), bool)
        asks[rows] = sent[rows] & (fresh | begins | (silence >= _SILENCE))
        self.table["seen"][talks[rows]] = time[rows]
        return asks

    def learn(self, numbers: Numbers, fates: Any, origins: Any, result: Any, places: Numbers) -> None:
        """What became of questions: their conversations, ARRIVED or LOST, who answers, and the rows of ``result``."""
        table = self.table
        table["fate"][numbers] = fates
        table["origin"][numbers] = origins
        for mine, theirs in (("src", "dst"), ("dst", "src"), ("sport", "dport"), ("dport", "sport")):
            table[mine][numbers] = getattr(result, theirs)[places]

    def redirect(self, batch: Batch, rows: Numbers, numbers: Numbers) -> None:
        """Make packets answers to what arrived. ICMP keeps its identifier in ``sport`` both ways, and type and code."""
        held = self.table[numbers]
        for name in ("origin", "src", "dst"):
            getattr(batch, name)[rows] = held[name]
        icmp = np.isin(batch.proto[rows], (Proto.ICMP, Proto.ICMPV6))
        batch.sport[rows] = np.where(icmp, held["dport"], held["sport"])
        batch.dport[rows] = np.where(icmp, batch.dport[rows], held["dport"])


def _distinct(one: Words, other: Words) -> tuple[Words, Numbers]:
    """The different pairs, ``(n, 2)``, and which of them each is. Sorting 64-bit mixtures is much faster than sorting pairs;
    should two pairs have the same mixture, the pairs are sorted after all."""
    mixed = (one ^ other * np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xC2B2AE3D27D4EB4F)
    _, index, which = np.unique(mixed, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    if (one[index][which] == one).all() and (other[index][which] == other).all():
        return np.stack([one[index], other[index]], axis=1), which
    known, which = np.unique(np.stack([one, other], axis=1), axis=0, return_inverse=True)
    return known, which.reshape(-1)


def _tuples(batch: Batch) -> tuple[Words, Words, Mask]:
    """Each packet's tuple in two words, the same for both directions, and whether it had to be turned round for that.

    Of ICMP the request's tuple is the one; a message that is neither request nor reply has a tuple of its own."""
    src, dst = batch.src.astype(np.uint64), batch.dst.astype(np.uint64)
    sport, dport = batch.sport.astype(np.uint64), batch.dport.astype(np.uint64)
    wide, half, byte = np.uint64(32), np.uint64(16), np.uint64(8)
    turned: Mask = (src << wide | dst > dst << wide | src) | ((src == dst) & (sport > dport))
    icmp = np.isin(batch.proto, (Proto.ICMP, Proto.ICMPV6))
    turned &= ~icmp
    asked = dport.copy()
    for proto, request, reply in _REQUESTS:
        pinged = (batch.proto == proto) & (dport >> byte == reply)
        turned |= pinged
        asked[pinged] = request << 8
    kind = batch.proto.astype(np.uint64) << byte | (batch.flags & IPV6).astype(np.uint64)
    one: Words = np.where(turned, dst << wide | src, src << wide | dst)
    swapped = turned & ~icmp
    ports: Words = np.where(swapped, dport << half | sport, sport << half | asked)
    other = ports << half | kind
    return one, other, turned
