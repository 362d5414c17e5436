"""What a trace says: outcomes, hops and typed steps. Closed sets: match on them exhaustively."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from netsim.linux.provenance import Provenance
from netsim.packet.address import IPAddress
from netsim.packet.model import Frame, Packet

if TYPE_CHECKING:
    from netsim.interpreter.state import State


class Disposition(enum.StrEnum):
    """How a packet ended. The first two are successes."""

    DELIVERED = "DELIVERED"  # handed to a process (or answered by the kernel itself) in ``receiver``
    LEFT = "LEFT"  # left the modelled world: to a host outside the cluster, or off the one node being emulated
    DROPPED = "DROPPED"  # discarded without a word
    REJECTED = "REJECTED"  # a rule refused it with an ICMP error or a TCP reset
    UNREACHABLE = "UNREACHABLE"  # routing, neighbours, TTL or MTU ended it (with an ICMP error unless suppressed)
    LOOPED = "LOOPED"  # it came round to where it had been


class StepKind(enum.StrEnum):
    RULE = "rule"
    ROUTE = "route"
    NAT = "nat"
    CONNTRACK = "conntrack"
    ENCAP = "encap"
    DECAP = "decap"
    BRIDGE = "bridge"
    NEIGHBOUR = "neighbour"
    FRAGMENT = "fragment"
    DROP = "drop"
    DELIVER = "deliver"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened. ``text`` is the kernel's own spelling (the rule as iptables-save prints it, the route as
    ``ip route`` does). ``rule`` is the 1-based number in its chain. ``before``/``after`` show a change of the packet
    (``10.96.3.7:80`` → ``10.244.2.7:8080``). ``decisive``: this step settled the packet's fate or translation (summary
    verbosity shows only these)."""

    kind: StepKind
    text: str
    hook: str | None = None
    table: str | None = None
    chain: str | None = None
    rule: int | None = None
    before: str | None = None
    after: str | None = None
    decisive: bool = False
    provenance: Provenance | None = None


class Counted(NamedTuple):
    """A rule that matched ``packet``, or with ``rule`` 0 the policy of a built-in chain that decided about it: what the
    kernel's counters add to. The packet is as it was there, put together again if it came in fragments."""

    table: str
    chain: str
    rule: int
    packet: Packet


@dataclass(slots=True)
class Hop:
    """The packet's stay in one namespace, from the device it came in by (None: sent by a local process).

    ``received`` and ``sent`` are the frames on the wire: (device, frame or bare packet) pairs, in order.
    """

    namespace: str
    node: str | None
    device: str | None
    steps: list[Step] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list, kw_only=True)  # in the order of the walk
    wire: list[tuple[str, str, Frame | Packet]] = field(default_factory=list)  # (device, "in"|"out", what passed it)
    delivered: list[Packet] = field(default_factory=list)  # what local processes get here


@dataclass(frozen=True, slots=True)
class IcmpError:
    """The ICMP error (or TCP reset: ``type`` -1) that the sender gets. ``arrived``: it reached the original sender."""

    type: int
    code: int
    name: str
    origin: IPAddress
    packet: Packet
    arrived: bool = True
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class DecidedBy:
    """The rule, route or check that settled the outcome."""

    namespace: str
    node: str | None
    step: Step


@dataclass(frozen=True, slots=True)
class Outcome:
    """One distinguishable end of a packet. ``packet`` is it as received, or as it was when it died."""

    probability: Fraction
    disposition: Disposition
    receiver: str | None  # namespace name; None unless DELIVERED or LEFT
    packet: Packet
    masqueraded: bool
    icmp: IcmpError | None
    decided_by: DecidedBy | None
    rules_evaluated: int
    hops: tuple[Hop, ...]
    choices: tuple[str, ...] = ()  # what each random draw on the way chose, in order
    sent: Packet | None = None  # the packet as its sender made it
    error_hops: tuple[Hop, ...] = ()  # the way of the ICMP error or reset back to the sender
    state: State | None = field(default=None, compare=False, repr=False)  # what the kernels remember afterwards
