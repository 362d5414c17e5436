"""Sending in a lab, and seeing where packets pass: on every device, and at every delivery. Both families."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from netsim.errors import InputError
from netsim.lab.holder import within
from netsim.lab.marks import layers, mark_of, quoted_mark
from netsim.lab.plan import netns
from netsim.lab.ring import Ring
from netsim.packet.address import Family
from netsim.packet.codec import packet_bytes, parse_frame, parse_packet, parse_vxlan
from netsim.packet.icmp import is_error
from netsim.packet.model import Frame, Icmp, Packet, Proto, Udp

DELIVERED = "delivered"
_OUTGOING, _RCVBUFFORCE = 4, 33
_FRAMED = (1, 772)  # hardware types with an Ethernet header: Ethernet and loopback
_PASSING, _ENDING = 4096, 512  # frames that are kept: where packets pass, and where they end
_ROOM = 16 << 20
_LISTENED = {
    socket.AF_INET: (Proto.ICMP, Proto.TCP, Proto.UDP, Proto.SCTP),
    socket.AF_INET6: (Proto.ICMPV6, Proto.TCP, Proto.UDP, Proto.SCTP),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet of ours, or an ICMP error about one. ``where`` is "in" or "out" of ``device``, or ``DELIVERED``; ``what`` has
    its tunnels opened; ``mark`` names the packet it is, or (``error``) is about."""

    namespace: str
    device: str
    where: str
    what: Frame | Packet
    mark: bytes
    error: bool


def opened(packet: Packet, tunnels: frozenset[int]) -> Packet:
    """A tunnel's packet with the inner one as a value, as the interpreter has it."""
    body = packet.body
    if isinstance(body, Udp) and body.dport in tunnels and isinstance(body.payload, bytes):
        with suppress(InputError):
            if body.payload[:1] == b"\x45":  # flanneld's udp has no header of its own
                return replace(packet, body=replace(body, payload=parse_packet(body.payload)))
            return replace(packet, body=replace(body, payload=parse_vxlan(body.payload)))
    return packet


class Watch:
    """Sockets in every namespace. They stay in theirs, so this process may be anywhere."""

    def __init__(self, names: Iterable[str], tunnels: frozenset[int]) -> None:
        self.tunnels = tunnels
        self._selector = selectors.DefaultSelector()
        self.chatter: set[str] = set()  # namespaces where IPv6 looked for neighbours, which its rules count too
        self._rings: list[tuple[str, Ring]] = []
        self._devices: dict[str, dict[int, str]] = {}
        self._senders: dict[tuple[str, Family], socket.socket] = {}
        for name in names:
            with within(netns(name)):
                self._rings.append((name, Ring(_PASSING if name.startswith(("node/", "router/")) else _ENDING)))
                self._devices[name] = dict(socket.if_nameindex())
                self._selector.register(self._rings[-1][1], selectors.EVENT_READ, name)
                for family, protocols in _LISTENED.items():
                    for protocol in protocols:
                        self._add(socket.socket(family, socket.SOCK_RAW, protocol), name)
                    number = Family.IPV4 if family == socket.AF_INET else Family.IPV6
                    self._senders[name, number] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def _add(self, made: socket.socket, name: str) -> None:
        try:
            made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
        except PermissionError:  # in a user namespace: as much as everybody may have
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ, name)

    def send(self, name: str, packet: Packet) -> None:
        with suppress(OSError):  # the sender is told at once of what ends in its own kernel; what was seen is compared
            self._senders[name, packet.family].sendto(packet_bytes(packet), (str(packet.dst), 0))

    def collect(self, quiet: float) -> Iterator[list[Seen]]:
        """What passes, as it comes; ends when nothing has passed for ``quiet`` seconds."""
        while ready := self._selector.select(quiet):
            yield [one for key, _ in ready for one in self._read(key.fileobj, key.data)]

    def _read(self, source: Any, name: str) -> Iterator[Seen]:
        return self._passed(name, source) if isinstance(source, Ring) else self._drained(source, name)

    def drain(self) -> None:
        """Forget what has not been collected."""
        end = time.monotonic() + 2
        for _ in self.collect(0.0):
            if time.monotonic() > end:
                return

    def _drained(self, raw: Any, name: str) -> Iterator[Seen]:
        with suppress(BlockingIOError):
            while True:
                if raw.family == socket.AF_INET6:
                    data, ancillary, _, address = raw.recvmsg(65535, 256)
                    data = _with_header(data, ancillary, address, raw.proto)
                else:
                    data = raw.recv(65535)
                with suppress(InputError):
                    found = _seen(name, "", DELIVERED, parse_packet(data))
                    if found is not None:
                        yield found

    def _passed(self, name: str, ring: Ring) -> Iterator[Seen]:
        for data, index, kind, hardware in ring.read():
            device, where = self._devices[name].get(index, ""), "out" if kind == _OUTGOING else "in"
            with suppress(InputError):
                if hardware not in _FRAMED:
                    found = _seen(name, device, where, opened(parse_packet(data), self.tunnels))
                else:
                    frame = parse_frame(data)
                    if _is_chatter(frame.packet):
                        self.chatter.add(name)
                    found = _seen(name, device, where, replace(frame, packet=opened(frame.packet, self.tunnels)))
                if found is not None:
                    yield found

    def lost(self) -> int:
        """Frames that could not be kept since this was last asked."""
        return sum(ring.lost() for _, ring in self._rings)


def _seen(name: str, device: str, where: str, what: Frame | Packet) -> Seen | None:
    inner = layers(what)[-1]
    error = is_error(inner)
    found = quoted_mark(inner) if error else mark_of(inner)
    return None if found is None else Seen(name, device, where, what, found, error)


def _is_chatter(packet: Packet) -> bool:
    """Neighbour discovery, redirects, and what listeners report (behind a hop-by-hop header: protocol 0)."""
    body = packet.body
    return packet.src.version == 6 and (packet.proto == 0 or (isinstance(body, Icmp) and 130 <= body.type <= 143))


def _with_header(data: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[Any, ...], proto: int) -> bytes:
    """An IPv6 raw socket gives the payload alone, and the rest of the header beside it."""
    held = {kind: value for _, kind, value in ancillary}
    limit, traffic = (struct.unpack("i", held[kind])[0] for kind in (socket.IPV6_HOPLIMIT, socket.IPV6_TCLASS))
    source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
    header = struct.pack("!IHBB", 6 << 28 | traffic << 20, len(data), proto, limit)
    return header + source + held[socket.IPV6_PKTINFO][:16] + data
