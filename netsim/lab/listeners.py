"""The lab's pods: listeners on their container ports that answer with the peer they saw. Run as a process of its own.

Standard input names them as JSON: [{"name": "pod/shop/web-0", "netns": "pod.shop.web-0", "ports": [["TCP", 8080], …]}, …].
One process serves all namespaces: a socket stays in the namespace it was made in.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from contextlib import suppress
from typing import Any

from netsim.lab.holder import within

_SCTP = 132


def _listener(protocol: str, port: int) -> socket.socket | None:
    """On both families. None where the kernel has no SCTP, or someone in this namespace has the port already."""
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    number = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": _SCTP}[protocol]
    try:
        made = socket.socket(socket.AF_INET6, kind, number)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        if protocol != "UDP":
            made.listen(64)
    except OSError:
        return None
    made.setblocking(False)
    return made


def serve(wanted: list[dict[str, Any]]) -> None:
    selector = selectors.DefaultSelector()
    for one in wanted:
        with within(one["netns"]):
            for protocol, port in one["ports"]:
                made = _listener(protocol, port)
                if made is not None:
                    selector.register(made, selectors.EVENT_READ, (one["name"], protocol))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            with suppress(OSError):
                _answer(key.fileobj, *key.data)  # type: ignore[arg-type]


def _said(name: str, protocol: str, peer: Any, local: Any) -> bytes:
    told = {"listener": name, "protocol": protocol, "peer": _plain(peer), "local": _plain(local)}
    return json.dumps(told).encode() + b"\n"


def _plain(address: Any) -> list[Any]:
    return [str(address[0]).removeprefix("::ffff:"), address[1]]


def _answer(listening: socket.socket, name: str, protocol: str) -> None:
    if protocol == "UDP":
        _, peer = listening.recvfrom(65535)
        listening.sendto(_said(name, protocol, peer, listening.getsockname()), peer)
        return
    connection, peer = listening.accept()
    with connection:
        connection.settimeout(1)
        connection.sendall(_said(name, protocol, peer, connection.getsockname()))


if __name__ == "__main__":
    serve(json.load(sys.stdin))
