"""Sockets that take in everything and say nothing, so that a kernel never answers a probe by itself.

Whoever a packet is delivered to, its kernel would answer for want of a listener (TCP reset, port unreachable) or because of
one (SYN/ACK). The lab speaks for both ends itself; a socket filter that keeps zero bytes makes the kernel keep quiet.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.linux.conntrack import TIMEOUTS
from netsim.packet.model import Proto

Wanted = tuple[str, int, int]  # namespace, protocol, port

_ATTACH_FILTER = 26
_PATIENT = "3600"  # seconds
_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0), 8)  # BPF: return 0
# There once the kernel's SCTP is loaded. Before, nobody answers; a socket would load it, for the whole machine.
_SPEAKS_SCTP = Path("/proc/thread-self/net/sctp")
_KINDS = {Proto.TCP: socket.SOCK_STREAM, Proto.UDP: socket.SOCK_DGRAM, Proto.SCTP: socket.SOCK_STREAM}


class Sinks:
    """Open between ``open`` and ``close``; what is there already or cannot be had is passed over."""

    def __init__(self) -> None:
        self._held: dict[Wanted, socket.socket] = {}

    def open(self, wanted: Iterable[Wanted]) -> None:
        by_namespace: dict[str, list[Wanted]] = {}
        for one in sorted(set(wanted) - self._held.keys()):
            if one[1] in _KINDS:
                by_namespace.setdefault(one[0], []).append(one)
        for name, held in by_namespace.items():
            with within(netns(name)):
                quiet = () if _SPEAKS_SCTP.exists() else (Proto.SCTP,)
                for one in held:
                    if one[1] not in quiet:
                        with suppress(OSError):
                            self._held[one] = _sink(Proto(one[1]), one[2])

    def close(self) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()


def _sink(protocol: Proto, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, _KINDS[protocol], protocol)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(_NOTHING)))
        made.bind(("::", port))
        if protocol is not Proto.UDP:
            made.listen(8)
    except OSError:
        made.close()
        raise
    return made


def hush(names: Iterable[str]) -> None:
    """Nobody answers pings, learns path MTUs, limits errors, sends redirects or looks neighbours up again and again; no
    connection expires between two turns because the machine is slow."""
    values = {
        "ipv4/icmp_echo_ignore_all": "1",
        "ipv4/icmp_ratemask": "0",
        "ipv4/ip_no_pmtu_disc": "2",  # what flanneld's socket was made with before stays
        "ipv6/icmp/echo_ignore_all": "1",
        "ipv6/icmp/ratemask": "\n",
        "ipv6/route/mtu_expires": "0",
        "netfilter/nf_conntrack_log_invalid": "0",
        **{f"netfilter/nf_conntrack_{name}": _PATIENT for name in TIMEOUTS if name != "generic_timeout"},
    }
    for name in names:
        with within(netns(name)):
            for key, value in values.items():
                write(key, value)
            for family in ("ipv4", "ipv6"):
                for device in Path(f"/proc/sys/net/{family}/neigh").glob("*"):
                    write(f"{family}/neigh/{device.name}/base_reachable_time_ms", "3600000")
            for device in Path("/proc/sys/net/ipv4/conf").glob("*"):
                write(f"ipv4/conf/{device.name}/send_redirects", "0")


def write(key: str, value: str) -> bool:
    """A sysctl under net/; False if this kernel has it not."""
    try:
        Path("/proc/sys/net", key).write_text(value)
    except OSError:
        return False
    return True
