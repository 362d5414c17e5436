"""The compiled datapath and the interpreter side by side, packet by packet, with the same draws."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath
from netsim.interpreter.explore import Replay, run_once
from netsim.interpreter.origin import Origin
from netsim.interpreter.outcome import Disposition, Outcome, StepKind
from netsim.interpreter.scene import World
from netsim.interpreter.state import State
from netsim.linux.conntrack import Entry
from netsim.linux.network import Network
from netsim.packet.model import Icmp, Packet

DISPOSITIONS = tuple(Disposition)


@dataclass
class Twins:
    """``datapath`` takes packets as it likes; ``state`` belongs to a plain interpreter that is told the same draws."""

    network: Network
    seed: int = 0
    datapath: Datapath = field(init=False)
    world: World = field(init=False)
    state: State = field(default_factory=State)
    hits: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    last: Outcome | None = None

    def __post_init__(self) -> None:
        self.datapath = Datapath(self.network, seed=self.seed)
        self.world = World(self.network)

    def send(self, time: int, origin: Origin, packet: Packet) -> list[str]:
        """What the two tell differently about one packet; ``time`` in microseconds."""
        datapath = self.datapath
        handle = datapath.origin(origin)
        serial = datapath.serial
        batch = Batch.of_packets([(time, handle, packet)], datapath.addresses)
        result = datapath.process(batch)
        interpreted = int(result.how[0]) == 2
        choices = () if interpreted else datapath.last_choices()
        draw = random.Random(f"{self.seed} {serial}") if interpreted else None
        self.state.now = (time // 1000 + 1) / 1000
        outcome, _ = run_once(self.world, origin, batch.packet(0), self.state, Replay(choices, draw), None)
        self.last = outcome
        for hop in (*outcome.hops, *outcome.error_hops):
            for step in hop.steps:
                if step.kind is StepKind.RULE and step.rule is not None:
                    self.hits[hop.namespace, str(step.table), str(step.chain), step.rule] += 1
        return list(self._differences(result, outcome))

    def _differences(self, result: Any, outcome: Outcome) -> Any:
        packet, datapath = outcome.packet, self.datapath
        family = packet.src.version
        ports = (packet.sport or 0, packet.dport or 0)
        if isinstance(packet.body, Icmp):
            ports = (packet.body.rest >> 16, packet.body.type << 8 | packet.body.code)
        pairs = {
            "verdict": (DISPOSITIONS[int(result.verdict[0])], outcome.disposition),
            "receiver": (datapath.namespace_name(int(result.receiver[0])), outcome.receiver),
            "src": (datapath.addresses.address(int(result.src[0]), family), packet.src),
            "dst": (datapath.addresses.address(int(result.dst[0]), family), packet.dst),
            "ports": ((int(result.sport[0]), int(result.dport[0])), ports),
            "ttl": (int(result.ttl[0]), packet.ttl),
            "masqueraded": (bool(result.masqueraded[0]), outcome.masqueraded),
            "rules": (int(result.rules[0]), outcome.rules_evaluated),
        }
        for name, (said, wanted) in pairs.items():
            if said != wanted:
                yield f"{name}: compiled {said}, interpreter {wanted}"

    def states(self) -> list[str]:
        """Conntrack entries and rule counters that differ."""
        found = []
        mine = {name: sorted(map(_row, held)) for name, held in self.datapath.connections().items()}
        now = self.state.now
        for name, held in self.state.namespaces.items():
            wanted = sorted(_row(entry) for entry in held.conntrack.entries() if entry.expires > now)
            for row in set(wanted) ^ set(mine.get(name, [])):
                found.append(f"{name}: {'interpreter' if row in wanted else 'compiled'} alone has {row}")
        counted = {key: packets for key, (packets, _) in self.datapath.counters().items()}
        for key in set(counted) | set(self.hits):
            if counted.get(key, 0) != self.hits[key]:
                found.append(f"{key}: compiled counted {counted.get(key, 0)}, interpreter {self.hits[key]}")
        return found


def _row(entry: Entry) -> tuple[Any, ...]:
    status = (entry.status_snat, entry.status_dnat, entry.seen_reply, entry.assured)
    return (str(entry), round(entry.expires, 3), status)
