"""``lab verify``: the same packets through the kernel and through the interpreter, device by device.

Compared for every packet: each device it passes with its headers there (MAC addresses, addresses, ports, TTL; those of
tunnels too), where it is delivered, and the ICMP error that comes back (type, code, sender, TTL, MTU). Bridges are left
out, for the kernel shows a frame there twice, and so are a tunnel's source port and a masqueraded one, which are
random.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from netsim.errors import PrivilegeError
from netsim.interpreter import Disposition, LocalOrigin, Outcome, source_for, trace
from netsim.interpreter.outcome import StepKind
from netsim.lab.build import names_of
from netsim.lab.capture import DELIVERED, Seen, Watch, carries, error_about, innermost, marked, token
from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.lab.probes import Probe, probes
from netsim.linux.link import LinkKind
from netsim.linux.network import Network
from netsim.packet.codec import wire_length
from netsim.packet.model import Frame, Icmp, Packet, Udp
from netsim.topology.assemble import Assembled

_BATCH = 200
_SURE = 1e-9  # how improbable it may be that a draw which can happen is not seen
_CHI_Z = 4.75  # the normal quantile of one in a million
_MANY = 300  # packets of the probe whose frequencies are tested


# "No route" errors (ip_error) are limited per router and sender to a burst of 5, then one a second, for the whole machine
# (net.ipv4.route.error_cost): their absence proves nothing, except for the few sent when the allowance is full again.
_LIMITED = {(3, 0), (3, 1), (3, 13)}
_REFILL, _ALLOWED = 5.5, 4


@dataclass
class _Flight:
    """One packet that is sent: its mark, the packet, and what was seen of it."""

    probe: Probe
    mark: bytes
    packet: Packet
    strict: bool = False  # even an error that the kernel limits must have come
    seen: list[Seen] = field(default_factory=list)


def verify(made: Assembled, network: Network, *, verbose: bool = False) -> int:
    """Inside the lab. 0 if all agree, 5 if not; PrivilegeError if sockets cannot be had."""
    names = names_of(made)
    wanted = probes(made)
    expected = {probe: trace(network, LocalOrigin(probe.source), _packet(network, probe, 0)) for probe in wanted}
    frequent = next((probe for probe in wanted if len(expected[probe]) > 1 and not probe.sticky), None)
    try:
        watch = Watch(names, _tunnel_ports(network, names))
    except PermissionError as error:
        raise PrivilegeError(f"raw sockets cannot be had: {error.strerror}; run this as root") from None
    _forget_path_mtus(names)
    serial = 0
    plan = [probe for probe in wanted for _ in range(_MANY if probe == frequent else _tries(probe, expected[probe]))]
    for warming in (True, False):  # the first round fills neighbour tables and those of bridges
        flights = []
        for probe in wanted if warming else plan:
            serial += 1
            flights.append(_Flight(probe, token(serial), _packet(network, probe, serial)))
        for start in range(0, len(flights), _BATCH):
            _fly(watch, flights[start : start + _BATCH])
    strict = []
    for probe in _first_unreachable(expected):
        serial += 1
        strict.append(_Flight(probe, token(serial), _packet(network, probe, serial), strict=True))
    if strict:
        time.sleep(_REFILL)
        _fly(watch, strict)
        flights += strict
    return _judge(network, flights, expected, frequent, verbose)


def _forget_path_mtus(names: list[str]) -> None:
    """Each packet meets kernels that have learnt no path MTU from earlier ones. Nodes keep theirs: tunnels may need them."""
    for name in names:
        if not name.startswith("node/"):
            with within(netns(name)):
                Path("/proc/sys/net/ipv4/ip_no_pmtu_disc").write_text("2")


def _tries(probe: Probe, outcomes: list[Outcome]) -> int:
    if len(outcomes) == 1:
        return 1
    rarest = float(min(outcome.probability for outcome in outcomes))
    return math.ceil(math.log(_SURE) / math.log(1 - rarest))


def _limited(outcome: Outcome) -> bool:
    error = outcome.icmp
    return error is not None and outcome.disposition is Disposition.UNREACHABLE and (error.type, error.code) in _LIMITED


def _first_unreachable(expected: dict[Probe, list[Outcome]]) -> Iterator[Probe]:
    """A few probes that end for want of a route, of each sender as the router sees it."""
    used: Counter[str] = Counter()
    for probe, outcomes in expected.items():
        if all(_limited(outcome) for outcome in outcomes):
            senders = {str(outcome.packet.src) for outcome in outcomes}
            if all(used[sender] < _ALLOWED for sender in senders):
                used.update(senders)
                yield probe


def _tunnel_ports(network: Network, names: list[str]) -> frozenset[int]:
    links = [link for name in names for link in network.namespace(name).links]
    return frozenset(option.port for link in links for option in (link.vxlan, link.udp_tunnel) if option is not None)


def _packet(network: Network, probe: Probe, serial: int) -> Packet:
    """The packet of a probe; each has a source port of its own, so that none meets another's connection."""
    source = source_for(network, probe.source, probe.target) or probe.target
    sport = 10000 + serial % 19000

    def of(filling: int) -> Packet:
        body = marked(probe.protocol, sport, probe.port, token(serial), filling)
        ident = serial % 65535 + 1
        return Packet(source, probe.target, probe.protocol, body, probe.ttl, ident=ident, dont_fragment=probe.size > 0)

    smallest = of(0)
    return of(probe.size - wire_length(smallest)) if probe.size else smallest


def _fly(watch: Watch, flights: list[_Flight]) -> None:
    for flight in flights:
        watch.send(flight.probe.source, flight.packet)
    by_mark = {flight.mark: flight for flight in flights}
    for seen in watch.collect(0.4):
        for mark in _marks(innermost(seen.what)):
            if mark in by_mark and (carries(innermost(seen.what), mark) or error_about(seen, mark)):
                by_mark[mark].seen.append(seen)


def _marks(packet: Packet) -> Iterator[bytes]:
    """Every four bytes that might be a mark."""
    from netsim.packet.codec import body_bytes

    data = body_bytes(packet)
    at = data.find(b"\x6e")
    while at >= 0:
        yield data[at : at + 4]
        at = data.find(b"\x6e", at + 1)


# -- comparing -----------------------------------------------------------------------------------------------------------


def _judge(
    network: Network,
    flights: list[_Flight],
    expected: dict[Probe, list[Outcome]],
    frequent: Probe | None,
    verbose: bool,
) -> int:
    counted: dict[Probe, Counter[int]] = defaultdict(Counter)
    bad: dict[Probe, _Flight] = {}
    for flight in flights:
        agreeing = _agreeing(network, flight, expected[flight.probe])
        if agreeing is None:
            bad.setdefault(flight.probe, flight)
        else:
            counted[flight.probe][agreeing] += 1
    complaints: list[str] = []
    for probe, outcomes in expected.items():
        if probe in bad:
            complaints.append(_both_stories(network, bad[probe], outcomes))
        elif not probe.sticky and len(counted[probe]) != len(_distinct(network, outcomes)):
            never = len(_distinct(network, outcomes)) - len(counted[probe])
            complaints.append(f"{probe}: {never} of the outcomes that netsim says can happen never did\n")
        elif verbose:
            sys.stdout.write(f"agree     {probe}\n")
    if frequent is not None and frequent not in bad:
        complaints += _frequencies(network, frequent, expected[frequent], counted[frequent])
    for complaint in complaints:
        sys.stdout.write(f"DISAGREE  {complaint}")
    paths = Counter(probe.path for probe in expected)
    for path, number in sorted(paths.items()):
        wrong = sum(probe.path == path for probe in bad)
        sys.stdout.write(f"{path:<42} {number:>4} probes{f', {wrong} disagree' if wrong else ''}\n")
    sightings = sum(len(flight.seen) for flight in flights)
    sys.stdout.write(
        f"{len(flights)} packets of {len(expected)} probes compared, seen {sightings} times on devices and at delivery: "
        f"{f'{len(complaints)} disagreements' if complaints else 'all agree'}\n"
    )
    return 5 if complaints else 0


def _agreeing(network: Network, flight: _Flight, outcomes: list[Outcome]) -> int | None:
    """The number of the outcome that the kernel's story is."""
    for number, outcome in enumerate(_distinct(network, outcomes)):
        said, done = _story(network, outcome), _observed(network, flight, outcome.masqueraded, outcome.disposition)
        if said == done:
            return number
        if _limited(outcome) and not flight.strict and outcome.icmp is not None:
            if said - Counter([_error_view(flight.probe.source, outcome.icmp.packet)]) == done:
                return number
    return None


def _distinct(network: Network, outcomes: list[Outcome]) -> list[Outcome]:
    """Outcomes that can be told apart from outside."""
    return list({tuple(sorted(_story(network, one).elements())): one for one in outcomes}.values())


Story = Counter[str]


def _story(network: Network, outcome: Outcome) -> Story:
    """What netsim says, one line an event."""
    lines: Story = Counter()
    for hop in outcome.hops:
        for device, where, what in hop.wire:
            if _counts(network, hop.namespace, device):
                lines[f"{hop.namespace} {device} {where} {_view(what, outcome.masqueraded)}"] += 1
    if outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT):
        lines[f"{outcome.receiver} {DELIVERED} {_view(outcome.packet, outcome.masqueraded)}"] += 1
    if outcome.icmp is not None and (told := _told(outcome)) is not None:
        lines[_error_view(told, outcome.icmp.packet)] += 1
    return lines


def _told(outcome: Outcome) -> str | None:
    """Who gets the error: the sender, or the node whose tunnel's packet it is about; None if it is lost."""
    last = outcome.error_hops[-1] if outcome.error_hops else None
    delivered = last is not None and bool(last.steps) and last.steps[-1].kind is StepKind.DELIVER
    return last.namespace if last is not None and delivered else None


def _observed(network: Network, flight: _Flight, hides: bool, disposition: Disposition) -> Story:
    """What the kernel did, in the same words."""
    lines: Story = Counter()
    for seen in flight.seen:
        if error_about(seen, flight.mark):
            assert isinstance(seen.what, Packet)
            closed = _error_type(seen.what) == (3, 3) and disposition in (Disposition.DELIVERED, Disposition.LEFT)
            if not closed:  # that nobody listens is no business of the network's
                lines[_error_view(seen.namespace, seen.what)] += 1
        elif seen.where == DELIVERED:
            lines[f"{seen.namespace} {DELIVERED} {_view(seen.what, hides)}"] += 1
        elif _counts(network, seen.namespace, seen.device):
            lines[f"{seen.namespace} {seen.device} {seen.where} {_view(seen.what, hides)}"] += 1
    return lines


def _counts(network: Network, namespace: str, device: str) -> bool:
    kinds = {link.name: link.kind for link in network.namespace(namespace).links}
    return kinds.get(device) not in (LinkKind.BRIDGE, LinkKind.LOOPBACK, None)


def _view(what: Frame | Packet, hides: bool) -> str:
    if isinstance(what, Frame):
        return f"{what.src}>{what.dst} {_view(what.packet, hides)}"
    body = what.body
    if isinstance(body, Udp) and not isinstance(body.payload, bytes):
        inner = body.payload if isinstance(body.payload, Packet) else body.payload.frame
        return f"{what.src}>{what.dst}:{body.dport} ttl {what.ttl} [{_view(inner, hides)}]"
    if isinstance(body, Icmp):
        return f"{what.src}>{what.dst} icmp {body.type}/{body.code} ttl {what.ttl} size {wire_length(what)}"
    sport = "*" if hides or what.sport is None else "="
    return f"{what.src}:{sport}>{what.dst}:{what.dport} {what.proto} ttl {what.ttl} size {wire_length(what)}"


def _error_type(packet: Packet) -> tuple[int, int]:
    assert isinstance(packet.body, Icmp)
    return packet.body.type, packet.body.code


def _error_view(where: str, packet: Packet) -> str:
    assert isinstance(packet.body, Icmp)
    mtu = f" mtu {packet.body.rest & 0xFFFF}" if _error_type(packet) == (3, 4) else ""
    kind = f"error {packet.body.type}/{packet.body.code}{mtu}"
    return f"{where} {DELIVERED} {kind} from {packet.src} to {packet.dst} ttl {packet.ttl}"


def _both_stories(network: Network, flight: _Flight, outcomes: list[Outcome]) -> str:
    """The kernel's story, and that of netsim which is nearest."""
    stories = [
        (_story(network, one), _observed(network, flight, one.masqueraded, one.disposition), one) for one in outcomes
    ]
    said, done, outcome = min(stories, key=lambda s: sum(((s[0] - s[1]) + (s[1] - s[0])).values()))
    text = f"{flight.probe}  (netsim: {outcome.disposition.value}, {len(outcomes)} outcomes; the nearest is shown)\n"
    for line in dict.fromkeys([*said, *done]):
        sign = "both  " if said[line] == done[line] else "netsim" if said[line] > done[line] else "kernel"
        text += f"    {sign}  {line}\n"
    return text


def _frequencies(network: Network, probe: Probe, outcomes: list[Outcome], counted: Counter[int]) -> Iterator[str]:
    """Pearson's chi-square of one Service's draws, against its quantile of one in a million (Wilson and Hilferty)."""
    distinct = _distinct(network, outcomes)
    total = sum(counted.values())
    weights: Counter[int] = Counter()
    shares = [0.0] * len(distinct)
    keys = [_story(network, one) for one in distinct]
    for outcome in outcomes:
        shares[keys.index(_story(network, outcome))] += float(outcome.probability)
    weights.update(counted)
    found = sum((weights[n] - total * share) ** 2 / (total * share) for n, share in enumerate(shares))
    freedom = len(distinct) - 1
    if freedom < 1:
        return
    bound = freedom * (1 - 2 / (9 * freedom) + _CHI_Z * math.sqrt(2 / (9 * freedom))) ** 3
    text = f"frequencies of {probe}: chi-square {found:.1f} over {total} packets, bound {bound:.1f}\n"
    if found > bound:
        yield text
    else:
        sys.stdout.write(f"agree     {text}")
