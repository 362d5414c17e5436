"""When trails are recorded: where many first packets have taken the slow path (``netsim.compiled.trails``).

Recording and compiling a trail takes a second or two, as long as the slow path takes for a few hundred thousand packets.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.along import ADDRESSES, COUNT, try_out
from netsim.compiled.engine_tables import Columns, Engine, Results, results
from netsim.compiled.journey import TRAIL_BLOCK, TRAIL_WORDS, Scratch
from netsim.compiled.ref import reference, unchanged

if TYPE_CHECKING:
    from netsim.compiled.trails.emit import Trail
    from netsim.compiled.trails.symbols import Op, Recording

_WAIT = 100_000  # first packets on the slow path before it is worth the time
_SAMPLES = 24
GLANCE = 512  # packets of a batch that are looked at before all are
_TRIES = 8  # packets looked at for each sample
_SHARE = 6  # samples that a trail must be for
_MOST = TRAIL_WORDS - ADDRESSES
_LESSONS = 3  # times that a trail is laid again for packets that have left it though they are of its kind
_TRIED = 1 << 14  # packets that it is tried with
_ASKED = 24  # of those that have left it


class Trailblazer:
    """``waiting``: packets that have taken the slow path since trails were last sought, once there are trails only those
    that no flow knew; ``wait``: how many it takes. Of ``samples`` packets, ``share`` must have a way in common; there are
    ``most`` trails."""

    def __init__(self) -> None:
        self.waiting = 0
        self.wait, self.samples, self.share, self.most = _WAIT, _SAMPLES, _SHARE, _MOST
        self.room: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.laid: list[Trail] = []
        self._known: Any = None  # the tables that trails remember something of
        self._edits = 0

    def due(self) -> bool:
        return self.waiting >= self.wait and len(self.laid) < self.most

    def forget(self) -> None:
        """The cluster has changed: what trails take for granted may not be so."""
        self.laid = []
        self.waiting = 0

    def look_again(self, e: Engine, edits: int) -> None:
        """Before packets are processed: what trails remember of tables that have been replaced or edited is no use, and
        where it has become much, it gets more room. ``edits``: see ``World.edits``."""
        known = e.w, e.f, e.p, e.words, e.origins
        moved = edits != self._edits or not unchanged(self._known, known)
        self._known, self._edits = known, edits
        for trail in self.laid:
            if moved:
                trail.memo.clear()
            trail.memo.grow()

    def seek(
        self,
        e: Engine,
        b: Columns,
        first: npt.NDArray[np.int64],
        serial: int,
        seed: int,
        groups: list[tuple[tuple[int, int], ...]],
    ) -> None:
        """Record some of a batch's packets that no flow knows (``first``), and compile what several of them have in common.
        ``groups`` of rules that their trails count together are added to."""
        from netsim.compiled.trails.record import record
        from netsim.compiled.trails.symbols import Abort

        if len(first) < self.samples:
            return
        self.waiting = 0
        alike: defaultdict[Any, list[Recording]] = defaultdict(list)
        o = results(len(b.src))
        found = 0
        for at in first[:: -(-len(first) // (_TRIES * self.samples))].tolist():
            if found == self.samples:
                break
            try:
                recorded = record(e, b, o, at, serial + at, seed)
            except Abort:
                continue  # a fact is still missing, as most are in a cluster that nobody has walked; or it is no trail's
            alike[tuple(recorded.ops)].append(recorded)
            found += 1
        for kind, samples in sorted(alike.items(), key=lambda one: -len(one[1]))[: self.most - len(self.laid)]:
            if len(samples) < self.share:
                break
            sampled = _Samples(e, b, o, serial, seed, first, kind, samples)
            try:
                self._blaze(sampled, groups)
            except Abort:
                continue
        if not self.laid:
            self.wait *= 2

    def _blaze(self, sampled: _Samples, groups: list[tuple[tuple[int, int], ...]]) -> None:
        """Abort if it cannot be a trail."""
        from netsim.compiled.trails.emit import compiled
        from netsim.compiled.trails.merge import merge

        plan = merge(sampled.samples, groups)
        if any(plan.ops == trail.plan.ops for trail in self.laid):
            return  # other packets have left it
        made = compiled(plan, sampled.e, sampled.b, sampled.o)
        for _ in range(_LESSONS):
            if not sampled.learn(made):
                break
            made = compiled(merge(sampled.samples, groups), sampled.e, sampled.b, sampled.o)
        self.laid.append(made)
        if 2 * made.room > len(self.room):
            self.room = np.zeros(2 * made.room, np.int64)

    def lay(self, x: Scratch) -> Scratch:
        """The scratch that knows these trails."""
        x.trails[COUNT] = len(self.laid)
        x.trails[ADDRESSES : ADDRESSES + len(self.laid)] = [trail.address for trail in self.laid]
        return x._replace(room=self.room)


@dataclass
class _Samples:
    """Recordings of one kind of packets of a batch, whose ``first`` ones (numbers) no flow knows."""

    e: Engine
    b: Columns
    o: Results
    serial: int
    seed: int
    first: npt.NDArray[np.int64]
    kind: tuple[Op, ...]
    samples: list[Recording]

    def learn(self, trail: Trail) -> bool:
        """Try the trail with the batch. What all samples had in common, and some other packets of their kind have not, makes
        those leave it: they become samples too. False if there are none."""
        from netsim.compiled.trails.record import record
        from netsim.compiled.trails.symbols import Abort

        goes = np.zeros(min(len(self.b.src), _TRIED), np.uint8)
        goes[self.first[self.first < len(goes)]] = 1
        goes[::TRAIL_BLOCK] = 0
        left = goes.copy()
        tables = reference(self.e), reference(self.b), reference(self.o)
        room, takes = np.zeros(trail.room, np.int64), np.zeros(TRAIL_BLOCK, np.uint8)
        try_out(trail.address, *tables, room, takes, goes, self.serial, self.seed)
        found = 0
        numbers = np.flatnonzero(left != goes)
        for at in numbers[:: -(-len(numbers) // _ASKED) or 1].tolist():
            with suppress(Abort):
                recorded = record(self.e, self.b, self.o, at, self.serial + at, self.seed)
                if tuple(recorded.ops) == self.kind:
                    self.samples.append(recorded)
                    found += 1
        return found > 0
