"""A datapath that is nothing but the interpreter, packet by packet: what a ``Datapath`` must agree with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.addresses import Addresses
from netsim.compiled.names import Names
from netsim.datapath.batch import Batch
from netsim.datapath.columns import row_of
from netsim.interpreter.explore import Replay, run_once
from netsim.interpreter.origin import Origin
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.interpreter.scene import World
from netsim.interpreter.state import State
from netsim.linux.network import Network

_DTYPES = {"verdict": np.uint8, "receiver": np.uint32, "src": np.uint32, "dst": np.uint32, "sport": np.uint16,
           "dport": np.uint16, "ttl": np.uint8, "rules": np.uint32, "how": np.uint8, "flow": np.uint32}  # fmt: skip


@dataclass(frozen=True)
class Result:
    verdict: npt.NDArray[Any]
    receiver: npt.NDArray[Any]
    src: npt.NDArray[Any]
    dst: npt.NDArray[Any]
    sport: npt.NDArray[Any]
    dport: npt.NDArray[Any]
    ttl: npt.NDArray[Any]
    rules: npt.NDArray[Any]
    how: npt.NDArray[Any]
    flow: npt.NDArray[Any]


class InterpreterDatapath:
    def __init__(self, network: Network, *, seed: int = 0, compiled: bool = True, told: object = None) -> None:
        self.addresses = Addresses()
        self.state = State()
        self.outcomes: list[Outcome] = []
        self._world = World(network)
        self._seed = seed
        self._serial = 0
        self._origins: list[Origin] = []
        self._names = Names()

    def origin(self, origin: Origin) -> int:
        self._world.scene(origin.namespace)
        if origin not in self._origins:
            self._origins.append(origin)
        return self._origins.index(origin)

    def namespace_name(self, number: int) -> str | None:
        return self._names.name(number) or None

    def explain(self, number: int) -> Outcome:
        """Of the batch processed last."""
        return self.outcomes[number]

    def statistics(self) -> Mapping[str, int]:
        return {"interpreter": self._serial}

    def remembered(self) -> int:
        return 0

    def process(self, batch: Batch, *, explainable: bool = False) -> Result:
        batch.check(len(self._origins))
        self.outcomes = [self._run(batch, number) for number in range(len(batch))]
        rows = [self._row(outcome) for outcome in self.outcomes]
        told = zip(*rows) if rows else [()] * len(_DTYPES)
        return Result(**{name: np.array(column, kind) for (name, kind), column in zip(_DTYPES.items(), told)})

    def _run(self, batch: Batch, number: int) -> Outcome:
        self.state.now = int(batch.time[number]) / 1e6
        oracle = Replay(draw=random.Random(f"{self._seed} {self._serial}"))
        self._serial += 1
        origin = self._origins[int(batch.origin[number])]
        return run_once(self._world, origin, batch.packet(number), self.state, oracle, None)[0]

    def _row(self, outcome: Outcome) -> tuple[int, ...]:
        row, _ = row_of(outcome.packet, self.addresses)
        verdict = list(Disposition).index(outcome.disposition)
        receiver = self._names.number(outcome.receiver or "")
        rules = outcome.rules_evaluated
        return verdict, receiver, row.src, row.dst, row.sport, row.dport, row.ttl, rules, 2, 0
