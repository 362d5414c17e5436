"""flanneld's udp data plane, for the lab: a process between a TUN device and a UDP socket. IPv4 only, as there.

The UDP payload is the bare inner packet. Either way costs one TTL; a packet whose TTL is used up is discarded without a
word. A destination without a lease is answered with net-unreachable (TTL 8, from the TUN's address); not for ICMP and
later fragments. Run as a process of its own, with one JSON object per node on standard input (see ``wanted``).
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

from netsim.lab.holder import within
from netsim.linux.network import Namespace
from netsim.packet.codec import checksum

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def wanted(netns: str, namespace: Namespace) -> list[dict[str, Any]]:
    """What ``serve`` is to be given for one node."""
    return [
        {
            "netns": netns,
            "device": link.name,
            "mtu": link.mtu,
            "local": str(link.udp_tunnel.local),
            "port": link.udp_tunnel.port,
            "tun": str(link.udp_tunnel.tun_address),
            "peers": [[str(subnet), str(peer)] for subnet, peer in link.udp_tunnel.peers],
        }
        for link in namespace.links
        if link.udp_tunnel is not None
    ]


class Forwarder:
    def __init__(self, told: dict[str, Any]) -> None:
        self.mtu, self.port = told["mtu"], told["port"]
        self.address = ipaddress.ip_address(told["tun"]).packed
        self.peers = [(ipaddress.ip_network(subnet), peer) for subnet, peer in told["peers"]]
        with within(told["netns"]):
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self.tun, _TUNSETIFF, struct.pack("16sH22x", told["device"].encode(), _IFF_TUN | _IFF_NO_PI))
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((told["local"], self.port))
        self.socket.setblocking(False)

    def from_tun(self) -> None:
        packet = os.read(self.tun, 65535)
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        destination = ipaddress.ip_address(packet[16:20])
        peer = next((peer for subnet, peer in self.peers if destination in subnet), None)
        if peer is None:
            message = unreachable(packet, self.address)
            if message is not None:
                os.write(self.tun, message)
        elif (carried := one_less(packet)) is not None:
            self.socket.sendto(carried, (peer, self.port))

    def from_network(self) -> None:
        packet = self.socket.recv(self.mtu)  # what is longer is cut, as flanneld's buffer does
        if len(packet) >= 20 and (carried := one_less(packet)) is not None:
            os.write(self.tun, carried)


def one_less(packet: bytes) -> bytes | None:
    """The packet with one TTL less; None when that is the end of it."""
    if packet[8] <= 1:
        return None
    header = bytearray(packet[: (packet[0] & 15) * 4])
    header[8] -= 1
    header[10:12] = bytes(2)
    header[10:12] = struct.pack("!H", checksum(bytes(header)))
    return bytes(header) + packet[len(header) :]


def unreachable(packet: bytes, source: bytes) -> bytes | None:
    """Net-unreachable about ``packet``; None if that may not be answered."""
    length = (packet[0] & 15) * 4
    if packet[9] == 1 or struct.unpack("!H", packet[6:8])[0] & 0x1FFF:
        return None
    body = struct.pack("!BBHI", 3, 0, 0, 0) + packet[: length + 8]
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 8, 1, 0) + source + packet[12:16]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def serve(told: list[dict[str, Any]]) -> None:
    selector = selectors.DefaultSelector()
    for one in told:
        made = Forwarder(one)
        selector.register(made.tun, selectors.EVENT_READ, made.from_tun)
        selector.register(made.socket, selectors.EVENT_READ, made.from_network)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            with suppress(OSError):
                key.data()


if __name__ == "__main__":
    serve(json.load(sys.stdin))
