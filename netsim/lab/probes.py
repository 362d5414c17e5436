"""Probes as values: who sends what to whom, and how the two go on from there.

A probe is a conversation of one or more turns. Its first packet has the ``ttl``, ``size`` and ``dont_fragment`` given here;
``Manner`` says what follows (``turns`` spells it out). Each is sent so often that every draw on its way is seen.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from netsim.packet.address import Family, IPAddress, family_of
from netsim.packet.model import Proto

PROTOCOLS = {"TCP": Proto.TCP, "UDP": Proto.UDP, "SCTP": Proto.SCTP, "ICMP": Proto.ICMP}


class Manner(enum.StrEnum):
    """The name is what ``lab verify --probes`` calls it."""

    ONE = "one"  # one packet, nobody answers
    ANSWERED = "answered"  # a packet and its answer
    CONNECTION = "connection"  # TCP from SYN to the last ACK, SCTP from INIT to SHUTDOWN COMPLETE
    HALF_OPEN = "half-open"  # data before the SYN was answered
    MIDSTREAM = "midstream"  # data of a connection that nobody saw begin
    OUT_OF_WINDOW = "out-of-window"  # sequence and acknowledgement numbers far off
    RESET = "reset"  # the server resets, the client goes on
    REFUSED = "refused"  # the server answers the SYN with a reset, the client tries again
    LATE = "late"  # the answer comes when conntrack has forgotten the question
    STREAM = "stream"  # UDP that goes on for more than two seconds
    FRAGMENTS = "fragments"  # datagram and answer come in pieces
    AFFINITY = "affinity"  # several connections of one client
    AFFINITY_TIMEOUT = "affinity-timeout"  # and one more when the affinity has run out


@dataclass(frozen=True)
class Probe:
    """``path`` and ``aspect`` are the classes that it belongs to. ``size``: of the IP packet in bytes, 0 for the smallest.
    ``sticky``: the kernel remembers its choice by source address. ``every_draw``: sent until each outcome was seen.
    ``count``: sent so often, 0 to leave it to verify. ``timeout``: of the session affinity, in seconds."""

    path: str
    source: str
    target: IPAddress
    protocol: Proto
    port: int = 0
    manner: Manner = Manner.ONE
    ttl: int = 64
    size: int = 0
    dont_fragment: bool = False
    sticky: bool = False
    every_draw: bool = False
    count: int = 0
    timeout: int = 0

    @property
    def family(self) -> Family:
        return family_of(self.target)

    @property
    def ip_protocol(self) -> Proto:
        return Proto.ICMPV6 if self.protocol is Proto.ICMP and self.family is Family.IPV6 else self.protocol

    @property
    def aspect(self) -> str:
        """What is looked at on this path."""
        if self.manner in _LABELS:
            return _LABELS[self.manner]
        if self.ttl != 64:
            return "TTL expiry"
        if self.size:
            return (
                f"sizes around the MTU, {'with' if self.dont_fragment or self.family is Family.IPV6 else 'without'} DF"
            )
        return "ICMP echo" if self.protocol is Proto.ICMP else self.protocol.name

    def __str__(self) -> str:
        where = f"[{self.target}]" if self.family is Family.IPV6 and self.port else str(self.target)
        port = f":{self.port}" if self.port else ""
        more = f" {self.manner}" if self.manner is not Manner.ONE else ""
        more += f" ttl {self.ttl}" if self.ttl != 64 else ""
        more += f" size {self.size}" if self.size else ""
        more += " DF" if self.dont_fragment else ""
        return f"{self.path}: {self.source} -> {where}{port} {self.protocol.name}{more}"


_LABELS = {
    Manner.FRAGMENTS: "fragments",
    Manner.CONNECTION: "whole connections",
    Manner.HALF_OPEN: "half-open TCP",
    Manner.MIDSTREAM: "TCP in midstream",
    Manner.OUT_OF_WINDOW: "out-of-window TCP",
    Manner.RESET: "TCP reset",
    Manner.REFUSED: "TCP refused",
    Manner.LATE: "replies after conntrack expiry",
    Manner.STREAM: "UDP streams",
    Manner.AFFINITY: "session affinity",
    Manner.AFFINITY_TIMEOUT: "session affinity over time",
}
