"""Random rulesets, routes, sysctls and packets: the interpreter's story of a router next to the real kernel's.

NETSIM_FUZZ_SECONDS makes it run that long instead of a fixed number of examples, NETSIM_FUZZ_SEED begins elsewhere.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from netsim.interpreter import Disposition, Outcome, State, trace
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace, StaticNetwork
from netsim.packet.address import IPAddress
from netsim.packet.codec import wire_length
from netsim.packet.fragment import with_header
from netsim.packet.icmp import is_error, quoted
from netsim.packet.model import Frame, Icmp, Packet, Tcp, Udp
from tests.differential.fuzz_cases import V4, V6, Plan, Probe, Traffic, router
from tests.differential.fuzz_lab import DEVICES, Heard, Lab, lab

pytestmark = pytest.mark.kernel

EXAMPLES, PACKETS = 90, 36
ERROR_BURST = 4  # net.ipv4.route.error_burst / error_cost, less one
PATIENCE = 0.06  # how long to wait for frames before a difference counts
KNOWN = Path(__file__).parent / "known_disagreements.toml"


@pytest.fixture(scope="module")
def real() -> Iterator[Lab]:
    with lab() as made:
        yield made


def told(probe: Probe, outcome: Outcome) -> list[Heard]:
    """What the interpreter says R emits and delivers to itself."""
    found: list[Heard] = []
    for hop in (*outcome.hops, *outcome.error_hops):
        for device, direction, what in hop.wire:
            if direction == "out" and device in DEVICES and isinstance(what, Frame):
                found.append((device, what.dst, what.packet))
    if outcome.receiver == "R":
        found.append(("local", "", outcome.packet))
    if outcome.icmp is not None and outcome.error_hops and outcome.error_hops[-1].steps:
        last = outcome.error_hops[-1]
        if any(step.kind.value == "deliver" and "delivered to R" in step.text for step in last.steps):
            found.append(("local", "", outcome.icmp.packet))
    return found


def looks(heard: list[Heard]) -> list[tuple[Any, ...]]:
    return sorted((_look(*one) for one in heard), key=repr)


def _look(device: str, mac: str, packet: Packet) -> tuple[Any, ...]:
    packet = with_header(packet)
    body = packet.body
    inside: tuple[Any, ...] = ()
    if isinstance(body, Tcp):
        inside = (body.sport, body.dport, int(body.flags), body.seq, body.ack, body.payload)
    elif isinstance(body, Udp):
        inside = (body.sport, body.dport, body.payload)
    elif isinstance(body, Icmp) and not is_error(packet):
        inside = (body.type, body.code, body.rest, body.payload)
    elif isinstance(body, Icmp):
        inner = quoted(packet)
        inside = (body.type, body.code, body.rest, wire_length(packet))
        if inner is not None:
            inside += (str(inner.src), str(inner.dst), inner.proto, inner.sport, inner.dport, inner.ttl)
    place = (packet.fragment_offset, packet.more_fragments) if packet.is_fragment else ()
    ttl = packet.ttl
    return (device, mac, str(packet.src), str(packet.dst), int(packet.proto), ttl, packet.tos, *inside, *place)


def ports_chosen_freely(probe: Probe, expected: list[Heard], got: list[Heard]) -> bool:
    """The kernel takes a random port where the interpreter takes the next one: the rest must still agree."""

    def blank(heard: list[Heard]) -> list[tuple[Any, ...]]:
        return looks([(device, mac, _portless(packet)) for device, mac, packet in heard])

    def moved(heard: list[Heard]) -> bool:
        return all(
            _source_id(packet) != _source_id(probe.packet) for _, _, packet in heard if not packet.fragment_offset
        )

    return bool(got) and not any(is_error(p) for _, _, p in got) and moved(got) and moved(expected) and (
        blank(expected) == blank(got)
    )  # fmt: skip


def _source_id(packet: Packet) -> int | None:
    packet = with_header(packet)
    return packet.body.rest >> 16 if isinstance(packet.body, Icmp) else packet.sport


def _portless(packet: Packet) -> Packet:
    packet = with_header(packet)
    if isinstance(packet.body, Icmp):
        return replace(packet, body=replace(packet.body, rest=packet.body.rest & 0xFFFF))
    return packet.with_ports(sport=0)


def no_way(outcome: Outcome) -> bool:
    """It ended at ``ip_error``, which sends few errors to one host, and no sysctl of a namespace lifts that."""
    return outcome.disposition is Disposition.UNREACHABLE and outcome.icmp is not None and outcome.icmp.type == 3


class Disagreement(AssertionError):
    """The interpreter and the kernel tell different stories."""


def example(real: Lab, seed: int, plan: Plan, packets: int = PACKETS, bridged_fragments: bool = False) -> int:
    """How many packets were compared; Disagreement at the first difference."""
    rng = Random(f"{seed}/{plan.family}")
    namespace = router(rng, plan)
    real.install(namespace, plan.family)
    network = StaticNetwork({"R": namespace})
    traffic, state, compared = Traffic(rng, plan, bridged_fragments), State(), 0
    refused: dict[IPAddress, int] = {}  # how many errors ip_error was to send to whom
    real.heard()
    while compared < packets:
        for probe in traffic.next():
            state.now += 0.001
            (outcome,) = trace(network, probe.origin(), probe.packet, state=state, only="R")
            assert isinstance(outcome.state, State)
            state = outcome.state
            expected = told(probe, outcome)
            got = send(real, probe, len(expected), looks(expected))
            compared += 1
            refused[probe.packet.src] = refused.get(probe.packet.src, 0) + no_way(outcome)
            if looks(got) != looks(expected):
                if not got and no_way(outcome) and refused[probe.packet.src] > ERROR_BURST:
                    continue
                if ports_chosen_freely(probe, expected, got):
                    return compared
                raise Disagreement(report(seed, compared, namespace, plan, probe, outcome, expected, got))
            traffic.let_out += [(device, packet) for device, _, packet in got if device != "local"]
    return compared


def send(real: Lab, probe: Probe, number: int, wanted: list[tuple[Any, ...]]) -> list[Heard]:
    del number
    real.send(probe.device, probe.origin().src_mac or "", probe.mac, probe.packet)
    got = real.heard()
    end = time.monotonic() + PATIENCE
    while looks(got) != wanted and time.monotonic() < end:
        time.sleep(0.002)
        got += real.heard()
    return got


def report(
    seed: int, number: int, namespace: Namespace, plan: Plan, probe: Probe, outcome: Outcome, expected: list[Heard],
    got: list[Heard],
) -> str:  # fmt: skip
    steps = [f"    {step.hook or ''} {step.kind.value}: {step.text}" for hop in outcome.hops for step in hop.steps]
    steps += [f"    error: {step.kind.value}: {step.text}" for hop in outcome.error_hops for step in hop.steps]
    lines = [
        f"{plan.family.name} seed {seed}, packet {number}",
        *(f"  {line.rstrip()}" for line in print_save(namespace.rulesets[plan.family])),
        *(f"  {rule}" for rule in namespace.rules),
        *(f"  {route}" for route in namespace.routes),
        f"  {dict(namespace.sysctls)}",
        f"  packet {probe.device} to {probe.mac}: {probe.packet}"[:600],
        "  the kernel:",
        *(f"    {str(line)[:300]}" for line in looks(got)),
        f"  the interpreter ({outcome.disposition.value}):",
        *(f"    {str(line)[:300]}" for line in looks(expected)),
        *steps,
    ]
    return "\n".join(lines)


def known() -> list[Any]:
    """The list's entries as test parameters."""
    return [
        pytest.param(
            one["family"], one["seed"], one.get("bridged_fragments", False), id=f"{one['family']}-{one['seed']}"
        )
        for one in tomllib.loads(KNOWN.read_text())["disagreement"]
        if one["reason"]
    ]


def test_interpreter_tells_what_the_kernel_does(real: Lab) -> None:
    seconds = float(os.environ.get("NETSIM_FUZZ_SECONDS", "0"))
    first = int(os.environ.get("NETSIM_FUZZ_SEED", "0"))
    excused = {tuple(one.values) for one in known()}
    end, seed, rulesets, packets, failed = time.monotonic() + seconds, first, 0, 0, []
    while (time.monotonic() < end) if seconds else seed < first + EXAMPLES // 2:
        for plan in (V4, V6):
            if (plan.family.name, seed, False) in excused:
                continue
            rulesets += 1
            try:
                packets += example(real, seed, plan)
            except Disagreement as difference:
                failed.append(str(difference))
        seed += 1
    print(f"{rulesets} rulesets, {packets} packets compared, {len(failed)} disagreements")
    assert not failed, "\n\n".join([*failed[:5], f"{len(failed)} disagreements"])


@pytest.mark.parametrize(("family", "seed", "bridged_fragments"), known())
def test_known_disagreement_is_still_there(real: Lab, family: str, seed: int, bridged_fragments: bool) -> None:
    """One that vanished must be taken off the list."""
    with pytest.raises(Disagreement):
        example(real, seed, V4 if family == "IPV4" else V6, bridged_fragments=bridged_fragments)
