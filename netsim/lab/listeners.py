"""The lab's pods: listeners on their container ports that answer with the peer they saw. Run as a process of its own.

Standard input names them as JSON: [{"name": "pod/shop/web-0", "netns": "pod.shop.web-0", "ports": [["TCP", 8080], …]}, …].
One process serves all namespaces: a socket stays in the namespace it was made in. Each listens on both families, where the
kernel has both. What cannot be had is said on standard error, which is the lab's ``listeners.log``.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from netsim.lab.holder import within

_SCTP = 132
_KINDS = {
    "TCP": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "UDP": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "SCTP": (socket.SOCK_STREAM, _SCTP),
}
_IP_PKTINFO = 8
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


def has_sctp() -> bool:
    """Does this kernel speak SCTP itself?"""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP):
        return True
    return False


def _open(family: socket.AddressFamily, kind: int, protocol: int) -> socket.socket:
    """Not yet bound. An IPv6 socket takes IPv4 too, and both tell to which address a datagram was sent."""
    made = socket.socket(family, kind, protocol)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if kind != socket.SOCK_RAW:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    return made


def _family() -> socket.AddressFamily:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
        return socket.AF_INET6
    return socket.AF_INET


def _listener(protocol: str, port: int) -> socket.socket:
    kind, number = _KINDS[protocol]
    family = _family()
    made = _open(family, kind, number)
    made.bind((_ANY[family], port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


# -- answering ---------------------------------------------------------------------------------------------------------
def _report(name: str, protocol: str, peer: tuple[str, int], local: tuple[str, int]) -> bytes:
    told = {"listener": name, "protocol": protocol, "peer": list(peer), "local": list(local)}
    return json.dumps(told).encode() + b"\n"


def _plain(address: Any) -> tuple[str, int]:
    return str(address[0]).removeprefix("::ffff:").partition("%")[0], address[1]


def _accept(listening: socket.socket, name: str, protocol: str) -> None:
    connection, peer = listening.accept()
    with connection:
        connection.settimeout(1)
        connection.sendall(_report(name, protocol, _plain(peer), _plain(connection.getsockname())))


def _datagram(listening: socket.socket) -> tuple[bytes, Any, str, list[tuple[int, int, bytes]]]:
    """What came, from whom, to which address, and the control message that has an answer sent from that address."""
    data, control, _, peer = listening.recvmsg(65535, 64)
    for level, kind, value in control:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            own = value[:16] + struct.pack("i", 0)
            return data, peer, socket.inet_ntop(socket.AF_INET6, value[:16]), [(level, kind, own)]
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            own = struct.pack("i", 0) + value[8:12] + bytes(4)
            return data, peer, socket.inet_ntop(socket.AF_INET, value[8:12]), [(level, kind, own)]
    raise OSError("no address to answer from")


def _udp(listening: socket.socket, name: str) -> None:
    _, peer, local, control = _datagram(listening)
    port = listening.getsockname()[1]
    listening.sendmsg([_report(name, "UDP", _plain(peer), _plain((local, port)))], control, 0, peer)


def _raw(listening: socket.socket, names: dict[int, str]) -> None:
    """SCTP of all ports of one namespace, for a kernel that has none."""
    from netsim.lab import raw_sctp  # and with it the codec: few labs need them

    data, peer, local, control = _datagram(listening)
    if listening.family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    ports = raw_sctp.ports(data)
    if ports is None or ports[1] not in names:
        return
    source = _plain((peer[0], ports[0]))
    said = raw_sctp.answer(data, _report(names[ports[1]], "SCTP", source, (local, ports[1])))
    if said is not None:
        listening.sendmsg([said], control, 0, peer)


# -- serving -----------------------------------------------------------------------------------------------------------
def _opened(one: dict[str, Any], kernel_sctp: bool) -> Iterator[tuple[socket.socket, Callable[[], None]]]:
    """The sockets of one pod with what to do when each is readable. Raw SCTP is the namespace's, see ``serve``."""
    for protocol, port in one["ports"]:
        if protocol == "SCTP" and not kernel_sctp:
            continue
        try:
            made = _listener(protocol, port)
        except OSError as error:
            print(f"{one['name']}: {protocol} {port}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
            continue
        yield (
            made,
            partial(_udp, made, one["name"]) if protocol == "UDP" else partial(_accept, made, one["name"], protocol),
        )


def _raw_sockets(names: dict[int, str]) -> Iterator[tuple[socket.socket, Callable[[], None]]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            made = _open(family, socket.SOCK_RAW, _SCTP)
            yield made, partial(_raw, made, names)


def serve(wanted: list[dict[str, Any]]) -> None:
    selector = selectors.DefaultSelector()
    kernel_sctp = has_sctp()
    raw: dict[str, dict[int, str]] = {}
    for one in wanted:
        with within(one["netns"]):
            for made, act in _opened(one, kernel_sctp):
                selector.register(made, selectors.EVENT_READ, act)
        for protocol, port in one["ports"]:
            if protocol == "SCTP" and not kernel_sctp:
                raw.setdefault(one["netns"], {}).setdefault(port, one["name"])
    for netns, names in raw.items():
        with within(netns):
            for made, act in _raw_sockets(names):
                selector.register(made, selectors.EVENT_READ, act)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            with suppress(OSError):
                key.data()


if __name__ == "__main__":
    serve(json.load(sys.stdin))
