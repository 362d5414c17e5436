"""Before anything is timed: the datapath's answers on a sample of flows are those of the interpreter.

Every packet of the sampled flows' conversations is processed alone, and run by the interpreter with the random choices that
the datapath made. Verdict, receiver, the packet as received, and the count of rules must be the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from netsim.bench.workload import RATE, Session
from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath, Result
from netsim.datapath.traffic import Flows, Numbers, replies
from netsim.errors import DisagreementError
from netsim.interpreter.explore import Replay, run_once
from netsim.interpreter.origin import LocalOrigin
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.interpreter.scene import World
from netsim.interpreter.state import State

_DISPOSITIONS = tuple(Disposition)
_INTERPRETED = 2


class _Twins:
    """The datapath, and an interpreter that is told the datapath's draws."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.datapath: Datapath = session.datapath
        self.world = World(self.datapath.network)
        self.state = State()
        self.count = 0

    def send(self, batch: Batch) -> Result:
        assert len(batch) == 1
        serial = self.datapath.serial
        result = self.session.send(batch)
        interpreted = int(result.how[0]) == _INTERPRETED
        draw = random.Random(f"{self.datapath.seed} {serial}") if interpreted else None
        self.state.now = (int(batch.time[0]) // 1000 + 1) / 1000
        name = self.datapath.namespace_name(int(batch.origin[0]))
        assert name is not None
        packet = batch.packet(0)
        outcome, _ = run_once(
            self.world, LocalOrigin(name), packet, self.state, Replay(self.datapath.last_choices(), draw), None
        )
        differences = list(self._differences(result, outcome))
        if differences:
            raise DisagreementError(
                f"datapath and interpreter disagree about {packet}: {'; '.join(differences)}. Please report this"
            )
        self.count += 1
        return result

    def _differences(self, result: Any, outcome: Outcome) -> Iterator[str]:
        packet, addresses = outcome.packet, self.datapath.addresses
        family = packet.src.version
        pairs = {
            "verdict": (_DISPOSITIONS[int(result.verdict[0])], outcome.disposition),
            "receiver": (self.datapath.namespace_name(int(result.receiver[0])), outcome.receiver),
            "source": (addresses.address(int(result.src[0]), family), packet.src),
            "destination": (addresses.address(int(result.dst[0]), family), packet.dst),
            "ports": ((int(result.sport[0]), int(result.dport[0])), (packet.sport, packet.dport)),
            "TTL": (int(result.ttl[0]), packet.ttl),
            "masqueraded": (bool(result.masqueraded[0]), outcome.masqueraded),
            "rules evaluated": (int(result.rules[0]), outcome.rules_evaluated),
        }
        for name, (said, wanted) in pairs.items():
            if said != wanted:
                yield f"{name} {said} against {wanted}"


def verify(datapath: Datapath, flows: Flows, which: Numbers) -> int:
    """How many packets were compared. DisagreementError names the first that differs.

    The datapath must not have seen any other flow with the same addresses; simulated time starts at 0."""
    session = Session(datapath, flows)
    twins = _Twins(session)
    for number in which.tolist():
        one = np.array([number])
        batch = flows.opening(one, start=session.now, rate=RATE)
        _answered(twins, batch)
        session.now += 2_100_000
        for batch in (flows.acknowledging(one, start=session.now), session.packets(one), session.packets(one)):
            if len(batch):
                batch.time[:] = session.now
                _answered(twins, batch)
    return twins.count


def _answered(twins: _Twins, batch: Batch) -> None:
    session = twins.session
    result = twins.send(batch)
    back = replies(batch, result, session.origin_of, start=session.now, rate=RATE)
    if len(back):
        twins.send(back)
