"""The machine that carries packets through namespaces: a queue of events, the journeys they belong to, and the record.

    arrive ─▶ bridge? ─▶ PREROUTING ─▶ route ─▶ FORWARD ─▶ POSTROUTING ─▶ transmit ─▶ arrive (next namespace)
    ingress    bridge      hooks      ingress    ingress      egress        egress
                                         └─▶ INPUT ─▶ deliver, or decapsulate and start again (tunnels)
    local process ─▶ route ─▶ OUTPUT ─▶ POSTROUTING ─▶ …                    (egress.local_out)

Nothing here forwards: the stack's parts are functions of a Machine and a Flight, in the modules named above.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from netsim.interpreter.outcome import DecidedBy, Disposition, Hop, IcmpError, Step, StepKind
from netsim.interpreter.scene import Scene, World
from netsim.interpreter.state import NamespaceState, State
from netsim.linux.fib import FibResult
from netsim.linux.netfilter.base import Skb
from netsim.packet.address import Family
from netsim.packet.model import Frame, Packet

MAX_HOPS = 64


class Oracle(Protocol):
    def chance(self, probability: float, why: str) -> bool: ...


@dataclass(slots=True)
class Ending:
    """One end of a journey. ``minor``: a flooded copy that reached a host it was not for."""

    disposition: Disposition
    receiver: str | None
    packet: Packet
    decided: DecidedBy
    minor: bool = False


@dataclass(slots=True)
class Journey:
    """One packet's way from its sender, with all its fragments, copies and encapsulations."""

    origin: str  # the namespace (or device) that sent it
    is_error: bool = False
    hops: list[Hop] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    seen: set[object] = field(default_factory=set)
    arrivals: int = 0
    masqueraded: bool = False
    rules: int = 0
    translated: DecidedBy | None = None  # the last rule that set up a destination translation
    waiting: DecidedBy | None = None  # where a fragment is kept for the rest of its datagram
    icmp: IcmpError | None = None
    error: Journey | None = None  # the journey of the ICMP error or reset that this packet caused, the last if several
    errors: list[Journey] = field(default_factory=list)  # all of them, with those that they caused in turn
    cause: Journey | None = None  # of an error: the journey that caused it

    def answered(self, origin: str, record: IcmpError) -> Journey:
        """A new journey for an error or reset that this one causes."""
        root = self.cause or self
        made = Journey(origin=origin, is_error=True, cause=root)
        root.errors.append(made)
        self.icmp, self.error = record, made
        return made

    def ending(self) -> Ending:
        """The end that tells: a failure of any fragment outweighs the rest, a delivery outweighs stray copies."""
        major = [e for e in self.endings if not e.minor] or self.endings
        failed = [e for e in major if e.disposition not in (Disposition.DELIVERED, Disposition.LEFT)]
        return (failed or major)[0]


@dataclass(slots=True)
class Flight:
    """A packet inside one namespace: the sk_buff with what the walk must remember beside it."""

    scene: Scene
    hop: Hop
    journey: Journey
    skb: Skb
    local: bool = False  # made in this namespace
    route: FibResult | None = None
    frame_src: str | None = None
    frame_dst: str | None = None
    nested: int = 0  # how many tunnels it is in here already
    answering: bool = False  # an ICMP error, or the tunnel's packet around it, that no device has queued yet
    bridged: bool = False  # PREROUTING was done by br_netfilter
    attached: bool = (
        False  # an answer to a packet that conntrack knows of, if only as untracked: NOTRACK comes too late
    )
    rerouted: bool = False  # rules at OUTPUT gave it another route than it was made for
    related: bool = False  # ``skb.ct`` is the connection an ICMP error is about
    ignore_df: bool = False  # may be cut to size whatever it says: gathered by conntrack, or a socket's own (IPv6)
    fragment_size: int = 0  # largest fragment it was put together from
    fragment_cuts: tuple[int, ...] = ()  # how many bytes of payload each of them had

    @property
    def packet(self) -> Packet:
        return self.skb.packet

    @packet.setter
    def packet(self, packet: Packet) -> None:
        self.skb.packet = packet

    @property
    def family(self) -> Family:
        return self.skb.packet.family

    def copy(self) -> Flight:
        return replace(self, skb=replace(self.skb))


class Machine:
    """One run: everything it decides by chance is asked of ``oracle``."""

    def __init__(self, world: World, state: State, oracle: Oracle, only: str | None = None) -> None:
        self.world = world
        self.network = world.network
        self.state = state
        self.oracle = oracle
        self.only = only
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    # Events

    def later(self, event: Callable[..., None], *arguments: Any) -> None:
        self._queue.append((event, arguments))

    def run(self) -> None:
        while self._queue:
            event, arguments = self._queue.popleft()
            event(self, *arguments)

    # The record

    def memory(self, flight: Flight) -> NamespaceState:
        return self.state.of(flight.scene.name)

    def hop(self, journey: Journey, scene: Scene, device: str | None, again: bool = False) -> Hop:
        """A new hop, or the last one if another fragment of the same packet comes the same way."""
        if again:
            for hop in reversed(journey.hops):
                if hop.namespace == scene.name and hop.device == device:
                    return hop
        hop = Hop(scene.name, scene.node, device)
        journey.hops.append(hop)
        return hop

    def step(self, flight: Flight, kind: StepKind, text: str, **more: Any) -> Step:
        step = Step(kind, text, **more)
        flight.hop.steps.append(step)
        return step

    def wire(self, flight: Flight, device: str, direction: str, what: Frame | Packet) -> None:
        flight.hop.wire.append((device, direction, what))

    def decided(self, flight: Flight, step: Step) -> DecidedBy:
        return DecidedBy(flight.scene.name, flight.scene.node, step)

    def end(
        self,
        flight: Flight,
        disposition: Disposition,
        step: Step,
        *,
        receiver: str | None = None,
        minor: bool = False,
    ) -> None:
        """The flight ends here because of ``step``, which is in the record already."""
        flight.journey.endings.append(Ending(disposition, receiver, flight.packet, self.decided(flight, step), minor))

    def drop(
        self,
        flight: Flight,
        text: str,
        disposition: Disposition = Disposition.DROPPED,
        *,
        minor: bool = False,
        **more: Any,
    ) -> None:
        step = self.step(flight, StepKind.DROP, text, decisive=not minor, **more)
        self.end(flight, disposition, step, minor=minor)

    def next_ident(self, flight: Flight) -> int:
        memory = self.memory(flight)
        memory.ident = memory.ident % 0xFFFF + 1
        return memory.ident
