"""The interpreter's story of a case next to the kernel's: packet by packet, then connection entries and rule counters.

A story is lines of text, one for each packet that R emits or delivers to itself (``look``), so that the kernel's side can be
kept in a file (``Recorded``) and told again where there is no kernel to ask (``Live``).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Protocol

from netsim.interpreter import Outcome, State, trace
from netsim.interpreter.outcome import StepKind
from netsim.linux.conntrack import Entry
from netsim.linux.sysctl import DEFAULTS
from netsim.packet.address import ip
from netsim.packet.codec import parse_vxlan, payload_bytes, wire_length
from netsim.packet.fragment import with_header
from netsim.packet.icmp import is_error, quoted
from netsim.packet.model import Icmp, Packet, Raw, Sctp, Tcp, Udp, Vxlan
from tests.differential.fuzz_cases import TICK, Case, case_to_json, emitted, smaller, unfit
from tests.differential.fuzz_lab import Lab
from tests.differential.fuzz_traffic import Probe
from tests.differential.fuzz_world import VXLAN_PORT

PATIENCE = 1.0  # seconds to wait for frames that are missing
GLANCE = 0.02  # seconds to wait for more when as many came as should, but others: ports that the kernel drew, mostly
QUICK = 0.8  # seconds that a case may take: after one, ip_error may tell a sender again; after two, UDP is a stream
ATTEMPTS = 5  # to be quick


class Disagreement(AssertionError):
    """The interpreter and the kernel tell different stories about ``case``."""

    def __init__(self, case: Case, text: str) -> None:
        super().__init__(text)
        self.case = case


class Kernel(Protocol):
    """What answers for the kernel."""

    def answer(self, probe: Probe, stories: list[list[str]]) -> list[str]:
        """The story of one packet. ``stories`` are those expected: once one is heard there is nothing to wait for."""

    def connections(self) -> list[str]: ...

    def counters(self) -> list[str]: ...


# -- stories -----------------------------------------------------------------------------------------------------------
def story(outcome: Outcome) -> list[str]:
    return sorted(look(*one) for one in emitted(outcome))


def look(device: str, mac: str, packet: Packet) -> str:
    """One emitted packet in a line: all that both sides must agree on."""
    return f"{device} {mac} {describe(packet)}"


def describe(packet: Packet) -> str:
    packet = with_header(packet)
    body = packet.body
    words = [f"{packet.src} > {packet.dst} proto={int(packet.proto)} ttl={packet.ttl} tos={packet.tos:#x}"]
    if packet.is_fragment:
        words.append(f"fragment={packet.fragment_offset}{'+' if packet.more_fragments else ''}")
        words.append(f"length={wire_length(packet)}")
    if packet.src.version == 4:
        words.append(f"df={int(packet.dont_fragment)}")
    if isinstance(body, Tcp):
        words.append(f"sport={body.sport} dport={body.dport} flags={int(body.flags):#x} seq={body.seq} ack={body.ack}")
        words.append(f"window={body.window} options={body.options.hex()} payload={_payload(body.payload)}")
    elif isinstance(body, Udp) and body.dport == VXLAN_PORT and not packet.is_fragment:
        carried = body.payload if isinstance(body.payload, Vxlan) else parse_vxlan(bytes(body.payload))  # type: ignore[arg-type]
        frame = carried.frame
        words.append(f"sport={body.sport} vni={carried.vni} {frame.src} {frame.dst} [{describe(frame.packet)}]")
    elif isinstance(body, Udp):
        words.append(f"sport={body.sport} dport={body.dport} payload={_payload(body.payload)}")
    elif isinstance(body, Sctp):
        words.append(f"sport={body.sport} dport={body.dport} vtag={body.vtag} chunks={body.chunks.hex()}")
    elif isinstance(body, Icmp) and not is_error(packet):
        words.append(f"type={body.type} code={body.code} id={body.rest >> 16} seq={body.rest & 65535}")
        words.append(f"payload={_payload(body.payload)}")
    elif isinstance(body, Icmp):
        words.append(f"type={body.type} code={body.code} rest={body.rest} length={wire_length(packet)}")
        inner = quoted(packet)
        if inner is not None:
            words.append(
                f"[{inner.src} > {inner.dst} proto={int(inner.proto)} ttl={inner.ttl} {inner.sport}>{inner.dport}]"
            )
    return " ".join(words)


def _payload(data: bytes | Packet | Vxlan) -> str:
    held = payload_bytes(data)
    return f"{held[:8].decode('latin-1')!r}x{len(held)}" if held else "-"


# -- connections and counters --------------------------------------------------------------------------------------------
_DRAWN = re.compile(r"(.* (?:dport|id)=)\d+( .*)")  # the last: to whom replies come
_DROPPED = re.compile(r"^ipv[46]\s+\d+\s+|\s(zone|use|secctx)=\S+|\s\[OFFLOAD\]")


def kernel_connections(lines: Iterable[str]) -> list[str]:
    """Lines of /proc/net/nf_conntrack without what runs on by itself: the time left and the use count."""
    found = []
    for line in lines:
        words = _DROPPED.sub("", line).split()
        del words[2:3]  # the seconds left
        found.append(" ".join(_plain(word) for word in words))
    return sorted(found)


def _plain(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={ip(value)}" if equals and key in ("src", "dst") else word


def own_connections(state: State, told: Iterable[str]) -> list[str]:
    """As ``kernel_connections``. A port, or the id of an echo, that the kernel drew and that no packet showed is taken from
    what it ``told``."""
    lines, told = [], list(told)
    for entry in state.of("R").conntrack.entries():
        if entry.expires > state.now:
            line = _entry(entry)
            drawn = _DRAWN.fullmatch(line) if entry.port_drawn else None
            same = [one for one in told if drawn and one.startswith(drawn[1]) and one.endswith(drawn[2])]
            lines.append(same[0] if same and line not in told else line)
    return sorted(lines)


def _entry(entry: Entry) -> str:
    number = entry.original.proto
    name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}.get(number, "unknown")
    words = [f"{name} {number}"]
    words += [entry.state] if entry.state else []
    words.append(str(entry.original))
    words += [] if entry.seen_reply else ["[UNREPLIED]"]
    words.append(str(entry.reply))
    words += ["[ASSURED]"] if entry.assured else []
    return " ".join([*words, f"mark={entry.mark}"])


def count(hits: Counter[tuple[str, str, int]], outcome: Outcome) -> None:
    """Add how often an outcome's packets matched each rule: (table, chain, number)."""
    for hop in (*outcome.hops, *outcome.error_hops):
        for step in hop.steps:
            if step.kind is StepKind.RULE and step.rule is not None and step.table and step.chain:
                hits[step.table, step.chain, step.rule] += 1


def kernel_counters(text: str) -> Counter[tuple[str, str, int]]:
    """How often each rule matched, from ``iptables-save -c``."""
    table, found = "", Counter[tuple[str, str, int]]()
    numbers: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:], Counter()
        elif line.startswith("["):
            count, _, rest = line[1:].partition(":")
            chain = rest.partition("-A ")[2].split()[0]
            numbers[chain] += 1
            found[table, chain, numbers[chain]] = int(count)
    return found


def counter_lines(hits: Counter[tuple[str, str, int]]) -> list[str]:
    return sorted(f"{table} {chain} {number}: {count}" for (table, chain, number), count in hits.items() if count)


# -- comparison --------------------------------------------------------------------------------------------------------
Memory = dict[str, list[Outcome]]  # what may come of the next packet, by what the kernel has answered so far


def check(case: Case, kernel: Kernel, memory: Memory | None = None) -> int:
    """How many packets were compared; Disagreement at the first difference. ``memory``: what an earlier run left in it is
    not worked out again, so that nothing comes between one packet and the next.

    A case ends early where the kernel took another port than the generator thought, and an answer to that goes astray."""
    state, hits, way = State(), Counter[tuple[str, str, int]](), ""
    memory = {} if memory is None else memory
    for number, probe in enumerate(case.probes, 1):
        outcomes = memory.get(way) or trace(case.network, probe.origin(), probe.packet, state=state, only="R")
        memory[way] = outcomes
        if any(unfit(case, probe, outcome) for outcome in outcomes):
            case = replace(case, probes=case.probes[: number - 1])
            break
        got = kernel.answer(probe, [story(outcome) for outcome in outcomes])
        told = _told(case, probe, state, outcomes, got)
        if len(told) > 1:
            return (
                number  # which way the kernel's dice fell cannot be seen: what it remembers is not known from here on
            )
        outcome = told[0] if told else None
        if outcome is None:
            raise Disagreement(replace(case, probes=case.probes[:number]), _report(case, number, probe, outcomes, got))
        count(hits, outcome)
        assert isinstance(outcome.state, State)
        state = outcome.state
        state.now = number * TICK
        way += "\n".join((f"packet {number}", *got, ""))
    connections = kernel.connections()
    _same(case, "connections", own_connections(state, connections), connections)
    if case.certain:
        _same(case, "rule counters", counter_lines(hits), kernel.counters())
    return len(case.probes)


def _told(case: Case, probe: Probe, state: State, outcomes: list[Outcome], got: list[str]) -> list[Outcome]:
    """The outcomes that the kernel's story tells. Where the kernel took a port at random, the search for a free one is
    started there, and must then end there; a packet and the tunnel's around it may each take one."""
    found = [outcome for outcome in outcomes if story(outcome) == got]
    if found:
        return found
    seen = sorted({int(found) for line in got for found in re.findall(r"(?:sport|dport|id)=(\d+)", line)})
    for ports in (*product(seen), *product(seen, repeat=2)):
        begun = state.copy()
        begun.of("R").first_ports = list(ports)
        for outcome in trace(case.network, probe.origin(), probe.packet, state=begun, only="R"):
            if story(outcome) == got:
                assert isinstance(outcome.state, State)
                outcome.state.of("R").first_ports = []
                return [outcome]
    return []


def _same(case: Case, what: str, expected: list[str], got: list[str]) -> None:
    if expected == got:
        return
    kernel, interpreter = Counter(got), Counter(expected)
    lines = [f"{what} differ", *(f"  the kernel only:      {line}" for line in (kernel - interpreter).elements())]
    lines += [f"  the interpreter only: {line}" for line in (interpreter - kernel).elements()]
    raise Disagreement(case, "\n".join([*lines, *_scene(case), *_probes(case)]))


def _report(case: Case, number: int, probe: Probe, outcomes: list[Outcome], got: list[str]) -> str:
    lines = [
        f"packet {number} of {len(case.probes)}",
        *_scene(case),
        *_probes(replace(case, probes=case.probes[: number - 1])),
        f"  the packet: {_probe(probe)}",
        "  the kernel:",
        *(f"    {line}" for line in got),
    ]
    for outcome in outcomes[:3]:
        lines.append(f"  the interpreter ({outcome.disposition.value}):")
        lines += [f"    {line}" for line in story(outcome)]
        for hops, word in ((outcome.hops, ""), (outcome.error_hops, "error: ")):
            lines += [f"      {word}{s.hook or ''} {s.kind.value}: {s.text}" for hop in hops for s in hop.steps]
    return "\n".join(lines)


def _scene(case: Case) -> list[str]:
    """The case's configuration, without what is always there."""
    text = case_to_json(case)
    lines = [f"  {case.family.name}, iptables-{case.engine}"]
    lines += [f"  {line}" for line in text["iptables"] if not line.startswith(":") or line.split()[1] == "DROP"]
    lines += [f"  {link}" for link in text["links"] if link["mtu"] not in (1500, 65536) or "hairpin" in link]
    lines += [f"  rule {line}" for line in text["rules"] if line.partition(":")[0] not in ("0", "32766", "32767")]
    lines += [f"  route {line}" for line in text["routes"]] + [f"  {line}" for line in text["sets"]]
    changed = [f"{key}={value}" for key, value in text["sysctls"].items() if value != DEFAULTS.get(key, ("0",))[0]]
    return [*lines, f"  {' '.join(changed)}"]


def _probes(case: Case) -> list[str]:
    return [f"  sent: {_probe(probe)}" for probe in case.probes]


def _probe(probe: Probe) -> str:
    packet = probe.packet
    body = packet.body
    if packet.is_fragment and isinstance(body, Raw):
        packet = with_header(packet)
    place = f"{probe.device} {probe.mac}" if probe.device else f"from a process, mark {probe.mark}"
    try:
        return f"{place} {describe(packet)} ident={packet.ident}"
    except Exception:
        return f"{place} {packet}"[:300]


# -- the two kernels -----------------------------------------------------------------------------------------------------
@dataclass
class Live:
    """The kernel itself, and a record of what it says."""

    lab: Lab
    case: Case
    answers: list[list[str]] = field(default_factory=list)
    begun: float = 0.0
    took: float = 0.0  # seconds from the first packet to the last

    def __post_init__(self) -> None:
        self.lab.install(self.case)
        self.lab.heard()

    def answer(self, probe: Probe, stories: list[list[str]]) -> list[str]:
        now = time.monotonic()
        self.begun = self.begun or now
        self.took = now - self.begun
        self.lab.send(probe)
        got = sorted(look(*one) for one in self.lab.heard())
        enough = {len(story) for story in stories}
        while got not in stories and time.monotonic() < now + (GLANCE if len(got) in enough else PATIENCE):
            time.sleep(0.002)
            got = sorted([*got, *(look(*one) for one in self.lab.heard())])
        self.answers.append(got)
        return got

    def connections(self) -> list[str]:
        return kernel_connections(self.lab.connections())

    def counters(self) -> list[str]:
        return counter_lines(kernel_counters(self.lab.counters(self.case)))


@dataclass
class Recorded:
    """What a kernel said once."""

    told: Iterator[list[str]]
    entries: list[str]
    counts: list[str]

    def answer(self, probe: Probe, stories: list[list[str]]) -> list[str]:
        return next(self.told)

    def connections(self) -> list[str]:
        return self.entries

    def counters(self) -> list[str]:
        return self.counts


def compare(lab: Lab, case: Case) -> int:
    """How many packets of ``case`` were compared with the kernel; Disagreement at the first difference."""
    return len(ask(lab, case).answers)


def ask(lab: Lab, case: Case) -> Live:
    """Make ``case`` real and compare. A packet takes a millisecond of the interpreter's clock, whatever it takes of the
    kernel's: a difference counts only where the kernel's timers had no time to matter, else the case is sent again."""
    memory: Memory = {}
    for attempt in range(1, ATTEMPTS + 1):
        kernel = Live(lab, case)
        try:
            check(case, kernel, memory)
            return kernel
        except Disagreement as difference:
            if kernel.took < QUICK:
                raise
            if attempt == ATTEMPTS:
                difference.add_note(f"(never sent in less than {QUICK} s, the last time in {kernel.took:.1f} s)")
                raise
    raise AssertionError


def shrink(lab: Lab, difference: Disagreement, seconds: float = 30.0) -> Disagreement:
    """The smallest case found in ``seconds`` that still disagrees."""
    end = time.monotonic() + seconds
    found = True
    while found and time.monotonic() < end:
        found = False
        for less in smaller(difference.case):
            if time.monotonic() > end:
                break
            try:
                compare(lab, less)
            except Disagreement as same:
                difference, found = same, True
                break
            except RuntimeError:
                continue  # such a case cannot be made
    return difference
