"""Random routers as whole networks, for both engines: the cases of the comparison with the kernel, with a host outside
at the far end of every wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from netsim.interpreter.origin import Origin
from netsim.interpreter.outcome import Outcome
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, StaticNetwork
from netsim.packet.address import Family
from netsim.packet.model import Frame, Packet
from tests.differential import fuzz_cases
from tests.support.interpreter_worlds import mac

# Simulated microseconds between packets: mostly few, sometimes past one of conntrack's timeouts (those of ICMP and UDP,
# UDP streams, TCP states, established TCP) and sometimes within a millisecond.
_PAUSES = (1000,) * 40 + (10, 250, 999, 40_000) * 4 + (2_100_000, 9_900_000, 10_100_000, 29_999_000, 30_001_000)
_LONG_PAUSES = (60_000_000, 119_999_000, 120_001_000, 300_000_000, 432_000_000_000)


def pause(rng: Random) -> int:
    """Microseconds until the next packet."""
    return rng.choice(_LONG_PAUSES) if rng.random() < 0.01 else rng.choice(_PAUSES)


@dataclass
class RouterWorld:
    """One random router ``R``; ``probes`` draws its packets along what has come of those before (``heard``)."""

    seed: int
    family: Family

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed}/{self.family}")
        plan = fuzz_cases.V4 if self.family is Family.IPV4 else fuzz_cases.V6
        self.router = fuzz_cases.router(self.rng, plan)
        self.network = walled(self.router)
        self.traffic = fuzz_cases.Traffic(self.rng, plan, bridged_fragments=True)

    def probes(self) -> Iterator[tuple[Origin, Packet]]:
        """Packets without end."""
        while True:
            for probe in self.traffic.next():
                yield probe.origin(), probe.packet

    def heard(self, outcome: Outcome) -> None:
        for hop in (*outcome.hops, *outcome.error_hops):
            for device, direction, what in hop.wire:
                if hop.namespace == "R" and direction == "out" and device != "br0" and isinstance(what, Frame):
                    self.traffic.let_out.append((device, what.packet))
        del self.traffic.let_out[:-40], self.traffic.sent[:-40]


def walled(router: Namespace) -> StaticNetwork:
    """``router`` and, at the far end of all its wires, the host outside."""
    links = []
    far = []
    for number, link in enumerate(router.links):
        if link.kind is LinkKind.VETH:
            name = f"x{link.name}"
            far.append(Link(name, LinkKind.VETH, mac(9, number), 65535, peer=("R", link.name)))
            link = replace(link, peer=("external", name))
        links.append(link)
    return StaticNetwork({"R": replace(router, links=tuple(links)), "external": Namespace("external", tuple(far))})
