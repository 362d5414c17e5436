"""A workload on a datapath, stage by stage, each timed: flows are opened and established, then packets go through.

    opening ─▶ replies ─▶ third packets (TCP) or two more seconds of talk (UDP) ─▶ established ─▶ timed batches

Times are CPU seconds of the calling thread, which other work on the machine disturbs least; making the batches is not
counted, checking them is (``Datapath.process`` does it). Simulated time runs on as packets are sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.datapath.batch import Batch, merge
from netsim.datapath.engine import Datapath, Result
from netsim.datapath.traffic import Flows, Numbers, Weights, choose, replies
from netsim.interpreter.origin import LocalOrigin
from netsim.interpreter.outcome import Disposition
from netsim.packet.model import Proto

_ARRIVED = [number for number, end in enumerate(Disposition) if end in (Disposition.DELIVERED, Disposition.LEFT)]
RATE = 4_000_000  # packets a second of simulated time
_STREAM = 2_100_000  # microseconds after which two-way UDP counts as a stream: conntrack waits for two seconds


@dataclass(slots=True)
class Timing:
    """CPU seconds of equal parts of some work, ``count`` packets each."""

    count: int
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Packets a second, of the median part. 0 if nothing was timed."""
        return self.count / median(self.seconds) if self.seconds and median(self.seconds) else 0.0


class Session:
    """Flows of one ``Flows`` in one datapath: which packets come when. Each method returns what came of its last batch."""

    def __init__(self, datapath: Datapath, flows: Flows, payload: int = 64) -> None:
        self.datapath = datapath
        self.flows = flows
        self.payload = payload
        self.now = 0  # microseconds
        self.spent = 0.0  # CPU seconds in the datapath so far
        self._receivers: dict[int, int] = {}

    def send(self, batch: Batch) -> Result:
        """Process one batch; time goes on to its end."""
        start = time.thread_time()
        result = self.datapath.process(batch)
        self.spent += time.thread_time() - start
        if len(batch):
            self.now = int(batch.time[-1]) + 1
        return result

    def origin_of(self, receiver: int) -> int:
        found = self._receivers.get(receiver)
        if found is None:
            name = self.datapath.namespace_name(receiver)
            assert name is not None
            found = self._receivers[receiver] = self.datapath.origin(LocalOrigin(name))
        return found

    def answer(self, batch: Batch, result: Result) -> Result:
        return self.send(replies(batch, result, self.origin_of, start=self.now, rate=RATE))

    def open(self, which: Numbers) -> tuple[Batch, Result]:
        """First packets of flows: a storm."""
        batch = self.flows.opening(which, start=self.now, rate=RATE)
        return batch, self.send(batch)

    def establish(self, which: Numbers, size: int = 65536) -> Result:
        """Open flows, and talk until conntrack calls them established. The result is that of the first packets."""
        parts = []
        for some in _parts(which, size):
            batch, result = self.open(some)
            parts.append(result)
            self.answer(batch, result)
            self.send(self.flows.acknowledging(some, start=self.now, rate=RATE))
        self.keep_alive(which, size)
        return Result(type(parts[0].columns)(*[np.concatenate(held) for held in zip(*[p.columns for p in parts])]))

    def keep_alive(self, which: Numbers, size: int = 65536) -> None:
        """UDP alone: another packet each way, when enough time has gone by for the flow to be a stream."""
        which = which[self.flows.proto[which] == Proto.UDP]
        if len(which):
            self.now += _STREAM
            for some in _parts(which, size):
                batch = self.flows.packets(some, start=self.now, rate=RATE, payload=self.payload)
                self.answer(batch, self.send(batch))

    def packets(self, which: Numbers) -> Batch:
        return self.flows.packets(which, start=self.now, rate=RATE, payload=self.payload)


def _parts(which: Numbers, size: int) -> Iterator[Numbers]:
    for start in range(0, len(which), size):
        yield which[start : start + size]


@dataclass(frozen=True, slots=True)
class Rates:
    """Packets a CPU second of one thread; ``mixed`` has one new flow in ten packets. ``first``: what came of the first
    packets of the flows that were established, the distribution of rules and endpoints is taken from it."""

    established: Timing
    new: Timing
    mixed: Timing
    first: Result
    paths: dict[str, int]
    flows: int


def measure(
    datapath: Datapath,
    flows: Flows,
    kept: int,
    packets: int,
    *,
    seed: int = 0,
    shares: Weights | None = None,
    size: int = 65536,
) -> Rates:
    """The first ``kept`` of ``flows`` are established; ``packets`` go through them. The others are new ones: half of them
    a storm (after a first fifth that is not timed: facts that are asked for once are supplied there), half among
    established packets. ``shares``: how packets choose among the established flows (those whose first packet arrived)."""
    random = np.random.default_rng(seed)
    session = Session(datapath, flows)
    first = session.establish(np.arange(kept), size)
    live = np.flatnonzero(np.isin(first.verdict, _ARRIVED))  # nobody goes on talking to who does not answer
    weights = None if shares is None else shares[live]
    established = Timing(size)
    for number in range(max(1, packets // size) + 1) if len(live) else ():  # the first is not timed
        batch = session.packets(_choose(weights, live, size, random))
        spent = session.spent
        session.send(batch)
        if number:
            established.seconds.append(session.spent - spent)
    storm = np.arange(kept, len(flows))
    warm, timed, rest = np.split(storm, [len(storm) // 5, len(storm) * 3 // 5])
    session.open(warm)
    chunk = max(1, len(timed) // 8)
    new = Timing(chunk)
    for some in _parts(timed, chunk):
        spent = session.spent
        session.open(some)
        if len(some) == chunk:
            new.seconds.append(session.spent - spent)
    chunk = max(1, len(rest) // 8)
    mixed = Timing(chunk * 10)
    for some in _parts(rest, chunk) if len(live) else ():
        if len(some) < chunk:
            break
        old = session.packets(_choose(weights, live, 9 * chunk, random))
        batch = merge([old, flows.opening(some, start=session.now, rate=RATE // 9)])
        spent = session.spent
        session.send(batch)
        mixed.seconds.append(session.spent - spent)
    return Rates(established, new, mixed, first, dict(datapath.paths), kept)


def _choose(weights: Weights | None, live: Numbers, count: int, random: np.random.Generator) -> Numbers:
    return live[random.integers(0, len(live), count) if weights is None else choose(weights, count, random)]


# -- how evenly --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Evenness:
    """How endpoints share the flows of their Services. ``chi_square`` is the sum over all Services that drew more than one
    endpoint, with ``freedom`` degrees of freedom: about equal when the choice is even. ``largest``: of all endpoints the
    largest multiple of its fair share."""

    chi_square: float
    freedom: int
    largest: float


def evenness(asked: Sequence[npt.NDArray[Any]], got: Sequence[npt.NDArray[Any]], endpoints: Any) -> Evenness:
    """``asked``, ``got``: columns that say which Service a flow went to, and which endpoint it got; ``endpoints``: how many
    endpoints a row of ``asked`` can get (0: no Service)."""
    keys, back = np.unique(np.stack([c.astype(np.int64) for c in asked], axis=1), axis=0, return_inverse=True)
    back = back.reshape(-1)
    ends = np.unique(np.stack([back, *[c.astype(np.int64) for c in got]], axis=1), axis=0, return_counts=True)
    chi, freedom, largest = 0.0, 0, 0.0
    totals = np.bincount(back, minlength=len(keys))
    for number, key in enumerate(keys.tolist()):
        possible = endpoints(tuple(key))
        total = int(totals[number])
        if possible < 2 or total < 5 * possible:  # too few for the statistic to say anything
            continue
        counts = ends[1][ends[0][:, 0] == number]
        fair = total / possible
        chi += float(((counts - fair) ** 2).sum() / fair) + (possible - len(counts)) * fair
        freedom += possible - 1
        largest = max(largest, float(counts.max()) / fair)
    return Evenness(chi, freedom, largest)
