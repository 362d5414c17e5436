"""A trace as a capture: what passed each device, byte for byte, with the rule that decided there as packet comment.

One interface a device (``node/n1/eth0``); Wireshark shows the comments as ``frame.comment`` and can filter on them. The
clock is the trace's own: one microsecond from passage to passage, so the same trace is the same file.
"""

from __future__ import annotations

from typing import BinaryIO

from netsim.interpreter.outcome import Hop, Outcome
from netsim.packet.codec import to_bytes
from netsim.packet.model import Frame
from netsim.packet.pcapng import LINK_ETHERNET, LINK_RAW, PcapngWriter
from netsim.report.files import whole_file
from netsim.report.traced import Traced

_TICK_NS = 1000


def write_file(traced: Traced, path: str) -> int:
    """Write ``path`` whole or not at all; returns the number of packets in it."""
    with whole_file(path) as file:
        return write(traced, file)


def write(traced: Traced, file: BinaryIO) -> int:
    """All outcomes, one after the other, each followed by its reply."""
    capture = _Capture(PcapngWriter(file))
    for number, outcome in enumerate(traced.outcomes):
        label = f"outcome {number + 1} of {len(traced.outcomes)}"
        capture.outcome(outcome, label)
        for reply in traced.replies.get(number, ()):
            capture.outcome(reply, f"{label}, reply")
    return capture.packets


class _Capture:
    def __init__(self, writer: PcapngWriter) -> None:
        self.writer = writer
        self.interfaces: dict[tuple[str, int], int] = {}
        self.packets = 0

    def outcome(self, outcome: Outcome, label: str) -> None:
        for hop in outcome.hops:
            for device, direction, what in hop.wire:
                link = LINK_ETHERNET if isinstance(what, Frame) else LINK_RAW
                interface = self._interface(f"{hop.namespace}/{device}", link)
                comment = _comment(hop, outcome, label, direction)
                self.writer.packet(interface, to_bytes(what), self.packets * _TICK_NS, comment)
                self.packets += 1

    def _interface(self, name: str, link: int) -> int:
        key = (name, link)
        if key not in self.interfaces:
            self.interfaces[key] = self.writer.add_interface(name, link)
        return self.interfaces[key]


def _comment(hop: Hop, outcome: Outcome, label: str, direction: str) -> str:
    """Where it is in the trace; on its way out also what this namespace decided."""
    lines = [f"{label}, {direction}"]
    last = hop is outcome.hops[-1]
    if direction == "out" or last:
        for step in hop.steps:
            if step.decisive:
                why = f"  # {step.provenance.because}" if step.provenance else ""
                lines.append(f"{step.table}: {step.text}{why}" if step.table else f"{step.text}{why}")
    if last:
        lines.append(outcome.disposition.value)
    return "\n".join(lines)
