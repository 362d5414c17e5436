"""Sending marked packets in a lab, and seeing where they pass: on every device, and at every delivery."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from netsim.errors import InputError
from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.packet.codec import packet_bytes, parse_frame, parse_packet, parse_vxlan
from netsim.packet.icmp import echo, is_error
from netsim.packet.model import Body, Frame, Icmp, Packet, Proto, Sctp, Tcp, TcpFlag, Udp, Vxlan

DELIVERED = "delivered"
_ALL, _OUTGOING, _ETHER = 3, 4, 1
_LISTENED = (Proto.ICMP, Proto.TCP, Proto.UDP, Proto.SCTP)


def token(serial: int) -> bytes:
    """Four bytes that mark packet number ``serial``; TCP's answers carry the next number, hence the steps of 16."""
    return struct.pack("!I", 0x6E000000 | serial << 4)


def marked(protocol: Proto, sport: int, dport: int, mark: bytes, filling: int) -> Body:
    """A packet's body that carries ``mark`` where NAT leaves it alone, with ``filling`` more bytes."""
    if protocol is Proto.TCP:
        return Tcp(sport, dport, seq=int.from_bytes(mark, "big"), payload=bytes(filling))
    if protocol is Proto.UDP:
        return Udp(sport, dport, mark + bytes(filling))
    if protocol is Proto.SCTP:
        return Sctp(sport, dport, chunks=struct.pack("!BBH", 1, 0, 20) + mark + struct.pack("!IHHI", 65536, 1, 1, 1))
    from netsim.packet.address import Family

    return echo(Family.IPV4, sport, payload=mark + bytes(filling))


def carries(packet: Packet, mark: bytes) -> bool:
    """Is this the marked packet itself, not an answer to it?"""
    body = packet.body
    if isinstance(body, Tcp):
        return body.seq == int.from_bytes(mark, "big") and body.flags == TcpFlag.SYN
    if isinstance(body, Udp):
        return isinstance(body.payload, bytes) and body.payload.startswith(mark)
    if isinstance(body, Sctp):
        return body.chunks[:1] == b"\x01" and body.chunks[4:8] == mark
    return (
        isinstance(body, Icmp) and body.type == 8 and isinstance(body.payload, bytes) and body.payload.startswith(mark)
    )


@dataclass(frozen=True)
class Seen:
    """``where`` is a device, with "in" or "out", or ``DELIVERED``. ``what`` has its tunnels opened."""

    namespace: str
    device: str
    where: str
    what: Frame | Packet


def opened(packet: Packet, tunnels: frozenset[int]) -> Packet:
    """A tunnel's packet with the inner one as a value, as the interpreter has it."""
    body = packet.body
    if isinstance(body, Udp) and body.dport in tunnels and isinstance(body.payload, bytes):
        with suppress(InputError):
            if body.payload[:1] == b"\x45":  # flanneld's udp has no header of its own
                return replace(packet, body=replace(body, payload=parse_packet(body.payload)))
            return replace(packet, body=replace(body, payload=parse_vxlan(body.payload)))
    return packet


def innermost(what: Frame | Packet) -> Packet:
    packet = what.packet if isinstance(what, Frame) else what
    while True:
        body = packet.body
        if isinstance(body, Packet):
            packet = body
        elif isinstance(body, Udp) and isinstance(body.payload, Packet):
            packet = body.payload
        elif isinstance(body, Udp) and isinstance(body.payload, Vxlan):
            packet = body.payload.frame.packet
        else:
            return packet


class Watch:
    """Sockets in every namespace. They stay in theirs, so this process may be anywhere."""

    def __init__(self, names: Iterable[str], tunnels: frozenset[int]) -> None:
        self.tunnels = tunnels
        self._selector = selectors.DefaultSelector()
        self._senders: dict[str, socket.socket] = {}
        for name in names:
            with within(netns(name)):
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
                self._add(wire, name, True)
                for protocol in _LISTENED:
                    self._add(socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol), name, False)
                self._senders[name] = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def _add(self, made: socket.socket, name: str, wire: bool) -> None:
        try:
            made.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        except PermissionError:  # in a user namespace: as much as everybody may have
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ, (name, wire))

    def send(self, name: str, packet: Packet) -> None:
        with suppress(OSError):  # the sender is told at once of what ends in its own kernel; what was seen is compared
            self._senders[name].sendto(packet_bytes(packet), (str(packet.dst), 0))

    def collect(self, quiet: float, most: float = 10.0) -> list[Seen]:
        """All that passes until nothing has passed for ``quiet`` seconds."""
        found: list[Seen] = []
        end = time.monotonic() + most
        while time.monotonic() < end:
            ready = self._selector.select(quiet)
            if not ready:
                break
            for key, _ in ready:
                with suppress(BlockingIOError):
                    while True:
                        data, address = key.fileobj.recvfrom(65535)  # type: ignore[union-attr]
                        with suppress(InputError):
                            found.append(self._seen(key.data[0], key.data[1], data, address))
        return found

    def _seen(self, name: str, wire: bool, data: bytes, address: tuple[object, ...]) -> Seen:
        if not wire:
            return Seen(name, "", DELIVERED, parse_packet(data))
        device, _, kind, hardware = address[:4]
        where = "out" if kind == _OUTGOING else "in"
        if hardware != _ETHER:
            return Seen(name, str(device), where, opened(parse_packet(data), self.tunnels))
        frame = parse_frame(data)
        return Seen(name, str(device), where, replace(frame, packet=opened(frame.packet, self.tunnels)))


def error_about(seen: Seen, mark: bytes) -> bool:
    """Was an ICMP error about the marked packet delivered here?"""
    if seen.where != DELIVERED or not isinstance(seen.what, Packet) or not is_error(seen.what):
        return False
    body = seen.what.body
    return isinstance(body, Icmp) and isinstance(body.payload, bytes) and mark in body.payload
