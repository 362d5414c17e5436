"""Stories: what happened to a packet, one line an event, in the same words for the kernel and for the interpreter.

    node/n1 eth0 out 02:…:0b>02:…:0c 192.168.10.11>192.168.10.12:8472 UDP ttl 64 [02:…>02:… 10.244.1.2:client>… TCP …]
    pod/shop/cart-1 delivered 10.244.1.2:client>10.244.2.7:8080 TCP ttl 62 size 48 #5f1d0c2e
    pod/shop/web-0 delivered error 11/0 from 10.244.1.1 to 10.244.1.2 ttl 64

The number behind # stands for everything else that the packet says: flags, TOS, options, sequence numbers, payload. Left out
is what is random: identification, the ports that masquerading chose, a tunnel's source port. Bridges and loopback are left
out too: the kernel shows a frame there twice.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from netsim.interpreter.outcome import Disposition, Hop, Outcome, StepKind
from netsim.lab.capture import DELIVERED, Seen
from netsim.lab.marks import mark_of, without
from netsim.linux.link import LinkKind
from netsim.linux.network import Network
from netsim.packet.address import Family
from netsim.packet.codec import wire_length
from netsim.packet.fragment import reassemble, with_header
from netsim.packet.icmp import is_error
from netsim.packet.model import Frame, Icmp, Packet, Proto, Raw, Udp

Story = Counter[str]
_NAMES = {1: "ICMP", 4: "IPIP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_SILENT = (LinkKind.BRIDGE, LinkKind.LOOPBACK)


@dataclass(frozen=True)
class Names:
    """How ports are called. ``own``: of the client, port → name. ``hidden``: the client's side was masqueraded, its port may
    be any. ``reply``: the packet goes to the client. ``servers``: the ports that the other side is reached at. ``tunnels``:
    their connections are told of; not where all connections expire, for flights keep those alive for one another."""

    own: Mapping[int, str] = field(default_factory=dict)
    hidden: bool = False
    reply: bool = False
    servers: frozenset[int] = frozenset()
    tunnels: bool = True

    def client(self, port: int) -> str:
        return "*" if self.hidden else self.own.get(port, str(port))

    def ports(self, source: int, destination: int) -> tuple[str, str]:
        if self.reply:
            return str(source), self.client(destination)
        return self.client(source), str(destination)


def view(what: Frame | Packet, names: Names) -> str:
    if isinstance(what, Frame):
        return f"{what.src}>{what.dst} {view(what.packet, names)}"
    if what.is_fragment:
        what = with_header(what)
    body = what.body
    head = f"{_NAMES.get(what.proto, what.proto)} ttl {what.ttl}"
    if isinstance(body, Packet):
        return f"{what.src}>{what.dst} {head}{_outer(what)} [{view(body, names)}]"
    if isinstance(body, Udp) and not isinstance(body.payload, bytes):
        inner = body.payload if isinstance(body.payload, Packet) else body.payload.frame
        return f"{what.src}>{what.dst}:{body.dport} {head}{_outer(what)} [{view(inner, names)}]"
    if is_error(what):
        return error_view(what)
    rest = zlib.crc32(without(what, mark_of(what)) + bytes((what.tos,)))
    cut = f" fragment {what.fragment_offset}{'+' if what.more_fragments else ''}" if what.is_fragment else ""
    source, destination = _ends(what, names)
    fixed = " DF" if what.dont_fragment and what.src.version == 4 else ""
    return f"{source}>{destination} {head} size {wire_length(what)}{fixed}{cut} #{rest:08x}"


def _outer(packet: Packet) -> str:
    return f"{f' tos {packet.tos:#x}' if packet.tos else ''}{' DF' if packet.dont_fragment else ''}"


def _ends(packet: Packet, names: Names) -> tuple[str, str]:
    found = ports_of(packet)
    if found is None:
        return str(packet.src), str(packet.dst)
    if isinstance(packet.body, Icmp):
        return f"{packet.src} id {names.client(found[0])}", str(packet.dst)
    source, destination = names.ports(*found)
    six = packet.family is Family.IPV6
    return tuple(  # type: ignore[return-value]
        f"[{address}]:{port}" if six else f"{address}:{port}"
        for address, port in ((packet.src, source), (packet.dst, destination))
    )


def ports_of(packet: Packet) -> tuple[int, int] | None:
    """Source and destination port, an echo's identifier for both; None without (a later fragment)."""
    body = packet.body
    if isinstance(body, Icmp):
        return body.rest >> 16, body.rest >> 16
    if isinstance(body, Raw):
        first = (
            packet.proto in (Proto.UDP, Proto.TCP, Proto.SCTP) and not packet.fragment_offset and len(body.data) >= 4
        )
        return (int.from_bytes(body.data[:2], "big"), int.from_bytes(body.data[2:4], "big")) if first else None
    return (packet.sport, packet.dport) if packet.sport is not None and packet.dport is not None else None


def error_view(packet: Packet) -> str:
    body = packet.body
    assert isinstance(body, Icmp)
    four = packet.family is Family.IPV4
    mtu = ""
    if (body.type, body.code) == (3, 4) and four:
        mtu = f" mtu {body.rest & 0xFFFF}"
    elif body.type == 2 and not four:
        mtu = f" mtu {body.rest}"
    return f"error {body.type}/{body.code}{mtu} from {packet.src} to {packet.dst} ttl {packet.ttl}"


def _elsewhere(hops: Iterable[Hop]) -> Iterator[str]:
    """An error about a tunnel's packet comes to the tunnel's end, not to whoever sent the packet inside."""
    for hop in hops:
        came = [what for _, where, what in hop.wire if where == "in"]
        if came and any(step.kind is StepKind.DELIVER for step in hop.steps):
            packet = came[-1].packet if isinstance(came[-1], Frame) else came[-1]
            yield f"{hop.namespace} {DELIVERED} {error_view(packet)}"


class Storyteller:
    """Tells stories of one network. ``counts`` says which devices are listened to."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._kinds: dict[str, dict[str, LinkKind]] = {}

    def counts(self, namespace: str, device: str) -> bool:
        kinds = self._kinds.get(namespace)
        if kinds is None:
            kinds = self._kinds[namespace] = {one.name: one.kind for one in self.network.namespace(namespace).links}
        return device in kinds and kinds[device] not in _SILENT

    def told(self, outcomes: Iterable[Outcome], names: Names) -> tuple[Story, Story]:
        """What netsim says of the packets of one turn: the packets' own story, and that of the errors they cause."""
        main: Story = Counter()
        errors: Story = Counter()
        for outcome in outcomes:
            self._wires(main, outcome.hops, names)
            self._wires(errors, outcome.error_hops, names)
            if outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT):
                if not outcome.packet.is_fragment:
                    main[f"{outcome.receiver} {DELIVERED} {view(outcome.packet, names)}"] += 1
            icmp = outcome.icmp
            if icmp is not None and icmp.arrived and icmp.type >= 0:
                errors[f"{outcome.hops[0].namespace} {DELIVERED} {error_view(icmp.packet)}"] += 1
            elif icmp is not None and icmp.type >= 0:
                errors.update(_elsewhere(outcome.error_hops))
        self._whole(main, [hop for outcome in outcomes for hop in outcome.hops], names)
        return main, errors

    def _wires(self, story: Story, hops: Iterable[Hop], names: Names) -> None:
        for hop in hops:
            for device, where, what in hop.wire:
                if self.counts(hop.namespace, device):
                    story[f"{hop.namespace} {device} {where} {view(what, names)}"] += 1

    def _whole(self, story: Story, hops: Iterable[Hop], names: Names) -> None:
        """The host outside takes in fragments; its process gets the whole."""
        outside = [hop for hop in hops if hop.namespace == "external"]
        came = [what for hop in outside for _, where, what in hop.wire if where == "in"]
        pieces = [what.packet if isinstance(what, Frame) else what for what in came]
        if pieces and pieces[0].is_fragment:
            whole = reassemble(pieces)
            if whole is not None:
                story[f"external {DELIVERED} {view(whole, names)}"] += 1

    def seen(self, sightings: Iterable[Seen], names: Names) -> tuple[Story, Story]:
        """What the kernel did, in the same words."""
        main: Story = Counter()
        errors: Story = Counter()
        for one in sightings:
            story = errors if one.error else main
            if one.where == DELIVERED:
                story[f"{one.namespace} {DELIVERED} {view(one.what, names)}"] += 1
            elif self.counts(one.namespace, one.device):
                story[f"{one.namespace} {one.device} {one.where} {view(one.what, names)}"] += 1
        return main, errors
