"""When trails are recorded: where many first packets have taken the slow path (``netsim.compiled.trails``).

Recording and compiling a trail takes a second or two, as long as the slow path takes for a few hundred thousand packets.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.along import ADDRESSES, COUNT
from netsim.compiled.engine_tables import Columns, Engine, results
from netsim.compiled.journey import TRAIL_WORDS, Scratch
from netsim.compiled.ref import unchanged

if TYPE_CHECKING:
    from netsim.compiled.trails.emit import Trail
    from netsim.compiled.trails.symbols import Op

_WAIT = 100_000  # first packets on the slow path before it is worth the time
_SAMPLES = 24
_TRIES = 8  # packets looked at for each sample
_SHARE = 6  # samples that a trail must be for
_MOST = TRAIL_WORDS - ADDRESSES


class Trailblazer:
    """``waiting``: packets that have taken the slow path since trails were last sought; ``wait``: how many it takes. Of
    ``samples`` packets, ``share`` must have a way in common; there are ``most`` trails."""

    def __init__(self) -> None:
        self.waiting = 0
        self.wait, self.samples, self.share, self.most = _WAIT, _SAMPLES, _SHARE, _MOST
        self.room: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.laid: list[Trail] = []
        self._plans: list[list[Op]] = []
        self._known: Any = None  # the tables that trails remember something of
        self._edits = 0

    def due(self) -> bool:
        return self.waiting >= self.wait and len(self.laid) < self.most

    def forget(self) -> None:
        """The cluster has changed: what trails take for granted may not be so."""
        self.laid, self._plans = [], []
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
        from netsim.compiled.trails.emit import compiled
        from netsim.compiled.trails.merge import merge
        from netsim.compiled.trails.record import record
        from netsim.compiled.trails.symbols import Abort, Recording

        if len(first) < self.samples:
            self.waiting = self.wait // 2  # a batch of answers, say: soon again
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
        for samples in sorted(alike.values(), key=len, reverse=True)[: self.most - len(self.laid)]:
            if len(samples) < self.share:
                break
            try:
                plan = merge(samples, groups)
            except Abort:
                continue
            if plan.ops in self._plans:
                continue  # other packets have left it
            made = compiled(plan, e, b, o)
            self._plans.append(plan.ops)
            self.laid.append(made)
            if 2 * made.room > len(self.room):
                self.room = np.zeros(2 * made.room, np.int64)
        if not self.laid:
            self.wait *= 2

    def lay(self, x: Scratch) -> Scratch:
        """The scratch that knows these trails."""
        x.trails[COUNT] = len(self.laid)
        x.trails[ADDRESSES : ADDRESSES + len(self.laid)] = [trail.address for trail in self.laid]
        return x._replace(room=self.room)
