"""Random packets for a router: new ones aimed at boundaries, answers to what it let out, and earlier ones again.

Sizes around every MTU of the world, TTLs about to end, TCP segments in and out of their windows, fragments in any order,
short of one or with one twice, ICMP errors about packets that passed, frames for other hosts, datagrams for the tunnel,
and packets that a process of the router sends itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from netsim.interpreter import LocalOrigin, Origin, WireOrigin
from netsim.linux.network import Namespace
from netsim.packet.address import IPAddress, ip
from netsim.packet.codec import PacketError, packet_bytes, parse_vxlan, wire_length
from netsim.packet.fragment import fragment
from netsim.packet.icmp import echo, icmp_error, icmp_proto, is_error
from netsim.packet.model import (
    BROADCAST_MAC,
    ETH_IPV4,
    ETH_IPV6,
    Body,
    Frame,
    Icmp,
    Packet,
    Proto,
    Raw,
    Sctp,
    Tcp,
    TcpFlag,
    Udp,
    Vxlan,
)
from tests.differential.fuzz_world import BRIDGED, FAR, MACS, PORTS, VNI, VXLAN_PORT, Plan, bridged_host

Emitted = tuple[str, Packet]  # what R has sent by which device
_MSS = b"\x02\x04\x05\xb4"
_SCALE = b"\x01\x03\x03\x07"
_ORIGINAL_TAG, _REPLY_TAG = 78, 77  # the verification tags of an association's two directions
_INIT = b"\x01\x00\x00\x14" + _REPLY_TAG.to_bytes(4, "big") + bytes(12)
_INIT_ACK = b"\x02\x00\x00\x14" + _ORIGINAL_TAG.to_bytes(4, "big") + bytes(12)
_COOKIE_ECHO, _COOKIE_ACK = b"\x0a\x00\x00\x08abcd", b"\x0b\x00\x00\x04"
_DATA, _SHUTDOWN, _ABORT = b"\x00\x03\x00\x14" + bytes(16), b"\x07\x00\x00\x08" + bytes(4), b"\x06\x00\x00\x04"


@dataclass(frozen=True)
class Probe:
    """``packet`` arrives by ``device`` in a frame for ``mac``; without a device, a process of R sends it, with ``mark``."""

    device: str | None
    mac: str
    packet: Packet
    mark: int = 0

    @property
    def source_mac(self) -> str:
        return FAR[self.device] if self.device is not None else ""

    def origin(self) -> Origin:
        if self.device is None:
            return LocalOrigin("R", self.mark)
        return WireOrigin("R", self.device, self.source_mac, self.mac)


class Traffic:
    """``next`` draws; ``let_out`` and ``sent`` are what it draws answers and repetitions from."""

    def __init__(self, rng: Random, plan: Plan, router: Namespace) -> None:
        self.rng, self.plan, self.serial = rng, plan, 0
        self.let_out: list[Emitted] = []
        self.sent: list[Probe] = []
        tunnel = next((link for link in router.links if link.name == "vx0"), None)
        self.tunnel = None if tunnel is None else "bridged" if tunnel.master else "routed"

    @property
    def four(self) -> bool:
        return self.plan.width == 32

    def next(self) -> list[Probe]:
        """One packet, or the fragments of one."""
        self.serial += 1
        kind = self.rng.random()
        if kind < 0.3 and self.let_out:
            device, seen = self.rng.choice(self.let_out)
            answered = self._answer_by(device, seen)
            if answered is not None:
                return [answered]
        if kind < 0.45 and self.sent:
            return [self._again(self.rng.choice(self.sent))]
        probe = self._local() if kind > 0.93 else self._tunnelled() if kind > 0.83 and self.tunnel else self._fresh()
        self.sent.append(probe)
        if probe.device is not None and wire_length(probe.packet) > 1200 and not probe.packet.dont_fragment:
            if self.rng.random() < 0.5 and not isinstance(probe.packet.body, Udp):
                return self._pieces(probe)
            if self.rng.random() < 0.5:
                return self._pieces(probe)
        return [probe]

    # New packets

    def _fresh(self) -> Probe:
        rng, plan = self.rng, self.plan
        device = rng.choice(("a0", "a0", "a0", "b0", "p1", "p2"))
        src = plan.hosts[device] if rng.random() < 0.8 else rng.choice(plan.odd_sources)
        pool = [held for other, held in plan.hosts.items() if other != device or rng.random() < 0.1]
        pool += [bridged_host(plan)] if self.tunnel == "bridged" else []
        roll = rng.random()
        target = (
            rng.choice(pool) if roll < 0.4
            else rng.choice(list(plan.own.values())) if roll < 0.55
            else plan.service if roll < 0.7
            else rng.choice(plan.far) if roll < 0.85
            else rng.choice(plan.odd_targets)
        )  # fmt: skip
        size = rng.choice((8, 8, 8, 8, 8, 8, 0, 1202, 1252, 1276, 1352, 1400))
        return self._to(device, self._packet(ip(src), ip(target), size))

    def _local(self) -> Probe:
        """What a raw socket bound to one of R's addresses sends."""
        rng, plan = self.rng, self.plan
        src = rng.choice([plan.own["a0"], plan.own["b0"], plan.own["br0"]])
        odd = [one for one in plan.odd_targets if one.startswith(("10.66", "255", "fd00:66", "fd00:3", "172.", "2001"))]
        known = [*plan.hosts.values(), plan.service, *plan.far, plan.own["b0"], plan.own["br0"]]
        target = rng.choice([*known, *odd])
        packet = replace(self._packet(ip(src), ip(target), rng.choice((8, 8, 600))), dont_fragment=False)
        return Probe(None, "", packet, rng.choice((0, 0, 0, 1, 2, 3)))

    def _tunnelled(self) -> Probe:
        """A datagram for R's VTEP: now and then with another VNI, or with a frame that is for somebody else."""
        rng, plan = self.rng, self.plan
        src = plan.hosts["vx0"] if self.tunnel == "routed" else bridged_host(plan)
        dst = rng.choice(
            [plan.hosts["a0"], plan.hosts["p1"], plan.own["br0"], plan.own["a0"], plan.service, plan.far[0]]
        )
        inner = self._packet(ip(src), ip(dst), rng.choice((8, 8, 8, 1202, 1300)))
        own = MACS["vx0" if self.tunnel == "routed" else "br0"]
        mac = rng.choice((own, own, own, own, FAR["p1"], FAR["a0"]))
        return self._wrapped(inner, mac, rng.choice((VNI, VNI, VNI, VNI, 8)))

    def _wrapped(self, inner: Packet, mac: str, vni: int = VNI) -> Probe:
        plan = self.plan
        frame = Frame(FAR["vx0"], mac, inner, ETH_IPV4 if self.four else ETH_IPV6)
        outer = Udp(40000 + self.serial % 8, VXLAN_PORT, Vxlan(vni, frame))
        src, dst = ip(plan.hosts["b0"]), ip(plan.own["b0"])
        return Probe("b0", MACS["b0"], Packet(src, dst, Proto.UDP, outer, ident=self._ident()))

    def _to(self, device: str, packet: Packet) -> Probe:
        target = MACS["br0" if device in BRIDGED else device]
        roll = self.rng.random()
        if device in BRIDGED and roll < 0.5:
            other = "p2" if device == "p1" else "p1"
            if str(packet.dst) == self.plan.hosts[other] or self.rng.random() < 0.1:
                target = FAR[other]
            elif self.tunnel == "bridged" and str(packet.dst) == bridged_host(self.plan):
                target = FAR["vx0"]
        elif roll > 0.97:
            target = self.rng.choice((BROADCAST_MAC, "02:00:00:00:09:09"))
        return Probe(device, target, packet)

    def _ident(self) -> int:
        return self.serial if self.four else 0

    def _packet(self, src: IPAddress, dst: IPAddress, size: int) -> Packet:
        rng = self.rng
        payload = (f"{self.serial:08d}".encode() * (size // 8 + 1))[:size]
        proto: int = rng.choice((6, 6, 6, 17, 17, 17, 132, 1, 1))
        proto = icmp_proto(self.plan.family) if proto == 1 else proto
        ttl = rng.choice((64, 64, 64, 64, 64, 64, 1, 2))
        df = self.four and rng.random() < 0.4
        tos = rng.choice((0, 0, 0, 0, 0x10, 0x02, 0xB8))
        body = self._body(proto, payload)
        return Packet(src, dst, proto, body, ttl=ttl, tos=tos, ident=self._ident(), dont_fragment=df)

    def _body(self, proto: int, payload: bytes) -> Body:
        rng = self.rng
        sport, dport = rng.choice(PORTS), rng.choice(PORTS)
        if proto == Proto.TCP:
            flags = rng.choice((TcpFlag.SYN, TcpFlag.SYN, TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST, TcpFlag.SYN | TcpFlag.ACK,
                                TcpFlag.FIN, TcpFlag.FIN | TcpFlag.ACK))  # fmt: skip
            options = rng.choice((b"", b"", _MSS, _MSS + _SCALE))
            return Tcp(sport, dport, flags, 1000, 5000, options=options, payload=payload)
        if proto == Proto.UDP:
            return Udp(sport, dport, payload)
        if proto == Proto.SCTP:
            chunk = rng.choice((_INIT, _INIT, _INIT, _DATA, _ABORT, _SHUTDOWN, _COOKIE_ECHO))
            return Sctp(sport, dport, 0 if chunk is _INIT else _ORIGINAL_TAG, chunk)
        return echo(self.plan.family, rng.randint(1, 4), self.serial & 0xFFFF, payload)

    def _pieces(self, probe: Probe) -> list[Probe]:
        """The fragments of a packet: in order or not, all of them or not, one perhaps twice."""
        packet = probe.packet if self.four else replace(probe.packet, ident=self.serial)
        size = (
            self.rng.choice((800, 800, 1280)) if self.four else 1280
        )  # what IPv6 has in smaller pieces depends on drivers
        pieces = [replace(piece, body=_raw(piece)) for piece in fragment(packet, size)]
        if len(pieces) < 2:
            return [probe]
        roll = self.rng.random()
        if roll < 0.2:
            pieces.reverse()
        elif roll < 0.35:
            pieces.insert(self.rng.randint(1, len(pieces)), self.rng.choice(pieces))
        elif roll < 0.42:
            pieces.pop(self.rng.randrange(len(pieces)))
        return [replace(probe, packet=piece) for piece in pieces]

    # Answers and repetitions

    def _again(self, earlier: Probe) -> Probe:
        if not isinstance(earlier.packet.body, Tcp):
            return earlier
        flags = self.rng.choice((TcpFlag.ACK, TcpFlag.ACK | TcpFlag.FIN, TcpFlag.RST, TcpFlag.SYN))
        far = (0, 0, 0, -200_000, 200_000, -66_000, 64_240)
        seq, ack = (1001 + self.rng.choice(far)) & 0xFFFFFFFF, (5001 + self.rng.choice(far)) & 0xFFFFFFFF
        body = replace(earlier.packet.body, flags=flags, seq=seq, ack=ack)
        return replace(earlier, packet=replace(earlier.packet, body=body))

    def _answer_by(self, device: str, seen: Packet) -> Probe | None:
        inner = carried(seen)
        if inner is None:
            packet = self._answer(seen)
            return None if packet is None else self._to(device, packet)
        packet = self._answer(inner)
        own = MACS["vx0" if self.tunnel == "routed" else "br0"]
        return None if packet is None else self._wrapped(packet, own)

    def _answer(self, seen: Packet) -> Packet | None:
        body, rng = seen.body, self.rng
        if seen.is_fragment or is_error(seen):
            return None
        if rng.random() < 0.25:
            kind = rng.choice(((3, 3), (11, 0), (3, 1), (3, 4)) if self.four else ((1, 4), (3, 0), (1, 0), (2, 0)))
            sender = seen.dst if rng.random() < 0.7 else ip(self.plan.far[1])
            if isinstance(body, Icmp) and body.type not in (8, 128):
                return None
            return icmp_error(seen, *kind, sender, mtu=1300 if kind in ((3, 4), (2, 0)) else 0)
        back = replace(seen, src=seen.dst, dst=seen.src, ttl=64, ident=self._ident())
        if isinstance(body, Tcp):
            flags = TcpFlag.ACK | (TcpFlag.SYN if body.flags & TcpFlag.SYN else rng.choice((TcpFlag(0), TcpFlag.FIN)))
            if rng.random() < 0.1:
                flags = TcpFlag.RST | TcpFlag.ACK
            acknowledged = body.seq + len(body.payload) + bool(body.flags & TcpFlag.SYN)
            acknowledged = (acknowledged + rng.choice((0, 0, 0, 0, 1, 100_000))) & 0xFFFFFFFF
            return replace(back, body=Tcp(body.dport, body.sport, flags, 5000, acknowledged))
        if isinstance(body, Udp):
            return replace(back, body=Udp(body.dport, body.sport, b"answer!!"))
        if isinstance(body, Sctp):
            chunk = {1: _INIT_ACK, 10: _COOKIE_ACK, 2: _COOKIE_ECHO}.get(body.chunks[0], _DATA)
            tag = _ORIGINAL_TAG if body.vtag == _REPLY_TAG else _REPLY_TAG
            return replace(back, body=Sctp(body.dport, body.sport, tag, chunk))
        if isinstance(body, Icmp) and body.type in (8, 128):
            return replace(back, body=replace(body, type=0 if body.type == 8 else 129))
        return None


def _raw(piece: Packet) -> Raw:
    return Raw(packet_bytes(piece)[20 + len(piece.options) if piece.src.version == 4 else 48 :])


def carried(packet: Packet) -> Packet | None:
    """The packet in a VXLAN datagram."""
    body = packet.body
    if not isinstance(body, Udp) or body.dport != VXLAN_PORT or packet.is_fragment:
        return None
    if isinstance(body.payload, Vxlan):
        return body.payload.frame.packet
    try:
        return parse_vxlan(body.payload).frame.packet if isinstance(body.payload, bytes) else None
    except PacketError:
        return None
