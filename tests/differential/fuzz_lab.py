"""One router made real in a network namespace, its devices' far ends in another: frames in, everything it emits out.

    outside: xa0 xb0 xp1 xp2 (no addresses: packet sockets only)  ══ veth ══  R: a0, b0, and p1, p2 as ports of br0

What R delivers to itself is heard by raw sockets; the ports in ``PORTS`` have sockets that swallow everything, so that R
never answers a probe by itself. Neighbours and FDB entries are permanent: nothing waits for ARP.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from netsim.linux.link import LinkKind
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace
from netsim.linux.route import Route, RoutingRule
from netsim.packet.address import Family
from netsim.packet.codec import mac_bytes, mac_text, packet_bytes, parse_packet
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Packet
from tests.support.interpreter_kernel import run, within

PORTS = (53, 80, 443, 8080, 9000, 9001, 9002, 9003)
DEVICES = ("a0", "b0", "p1", "p2")
_serial = count()
_NOISE = {130, 131, 132, 133, 134, 135, 136, 137, 143}  # router, neighbour and listener discovery, redirects
_ALL, _OUTGOING = 3, 4  # ETH_P_ALL, PACKET_OUTGOING

Heard = tuple[str, str, Packet]  # (device, destination MAC, packet); the device of a local delivery is "local"


class Lab:
    """The outside with its far ends; ``install`` makes the router anew for each example."""

    def __init__(self) -> None:
        prefix = f"nf{os.getpid() % 100000}x{next(_serial)}"
        self.outside, self.router = f"{prefix}o", f"{prefix}r"
        self._wires: dict[str, socket.socket] = {}
        self._local: list[tuple[int, int, socket.socket]] = []  # (IP version, protocol, socket)
        self._sinks: list[socket.socket] = []
        run("ip", "netns", "add", self.outside)
        run("ip", "netns", "exec", self.outside, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    def install(self, router: Namespace, family: Family) -> None:
        self._remove_router()
        run("ip", "netns", "add", self.router)
        within(self.router, lambda: _write_sysctls(router, own=False))
        version = "-4" if family is Family.IPV4 else "-6"
        run("ip", "-n", self.router, "-batch", "-", given="\n".join(_links(router, self.outside)) + "\n")
        run("ip", "-n", self.outside, "-batch", "-", given="".join(f"link set x{device} up\n" for device in DEVICES))
        run("ip", version, "-n", self.router, "-batch", "-", given="\n".join(_lines(router)) + "\n")
        for entry in router.fdb:
            run("bridge", "-n", self.router, *f"fdb replace {entry.mac} dev {entry.device} master static".split())
        within(self.router, lambda: _write_sysctls(router, own=True))
        if family in router.rulesets:
            program = "iptables-restore" if family is Family.IPV4 else "ip6tables-restore"
            text = "\n".join(print_save(router.rulesets[family])) + "\n"
            run("ip", "netns", "exec", self.router, program, given=text)
        for device in DEVICES:
            self._wires[device] = within(self.outside, lambda device=device: _wire(f"x{device}"))
        within(self.router, lambda: self._listen(family))  # type: ignore[arg-type]

    def _listen(self, family: Family) -> None:
        version = 4 if family is Family.IPV4 else 6
        kind = socket.AF_INET if version == 4 else socket.AF_INET6
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0), 8)  # BPF: return 0
        program = struct.pack("HL", 1, ctypes.addressof(nothing))
        for port in PORTS:
            for stream in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sink = socket.socket(kind, stream)
                sink.bind(("", port))
                sink.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
                if stream == socket.SOCK_STREAM:
                    sink.listen(8)
                self._sinks.append(sink)
        for proto in (6, 17, 1 if version == 4 else 58):
            raw = socket.socket(kind, socket.SOCK_RAW, proto)
            raw.setblocking(False)
            if version == 6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            self._local.append((version, proto, raw))

    def send(self, device: str, source_mac: str, target_mac: str, packet: Packet) -> None:
        ethertype = ETH_IPV4 if packet.family is Family.IPV4 else ETH_IPV6
        frame = mac_bytes(target_mac) + mac_bytes(source_mac) + ethertype.to_bytes(2, "big") + packet_bytes(packet)
        with suppress(OSError):  # ENOBUFS: larger than R's device takes in
            self._wires[device].send(frame)

    def heard(self) -> list[Heard]:
        """What came since the last call."""
        found: list[Heard] = []
        for device, wire in self._wires.items():
            for data in _received(wire):
                if data[12:14] in (b"\x08\x00", b"\x86\xdd"):
                    packet = parse_packet(data[14:])
                    if not (packet.proto == 58 and data[54] in _NOISE) and packet.proto != 0:
                        found.append((device, mac_text(data[:6]), packet))
        for version, proto, raw in self._local:
            found.extend(_local(version, proto, raw))
        return found

    def _remove_router(self) -> None:
        for held in (*self._wires.values(), *(raw for _, _, raw in self._local), *self._sinks):
            held.close()
        self._wires, self._local, self._sinks = {}, [], []
        subprocess.run(("ip", "netns", "del", self.router), capture_output=True, timeout=30, check=False)
        for device in DEVICES:  # the kernel takes a dead namespace's devices away in its own time
            words = ("ip", "-n", self.outside, "link", "del", f"x{device}")
            subprocess.run(words, capture_output=True, timeout=30, check=False)

    def tear_down(self) -> None:
        self._remove_router()
        subprocess.run(("ip", "netns", "del", self.outside), capture_output=True, timeout=30, check=False)


def _wire(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    made.bind((device, _ALL))
    made.setblocking(False)
    return made


def _received(wire: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            data, address = wire.recvfrom(65535)
        except BlockingIOError:
            return
        if address[2] != _OUTGOING:
            yield data


def _local(version: int, proto: int, raw: socket.socket) -> Iterator[Heard]:
    while True:
        try:
            data, ancillary, _, address = raw.recvmsg(65535, 256)
        except BlockingIOError:
            return
        if version == 6:
            held = {kind: value for _, kind, value in ancillary}
            limit = struct.unpack("i", held[socket.IPV6_HOPLIMIT])[0]
            source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
            header = struct.pack("!IHBB", 6 << 28, len(data), proto, limit)
            data = header + source + held[socket.IPV6_PKTINFO][:16] + data
            if proto == 58 and data[40] in _NOISE:
                continue
        yield "local", "", parse_packet(data)


def _write_sysctls(router: Namespace, own: bool) -> None:
    """Those of ``all`` and ``default`` come before the devices are made, those of a device after."""
    always = {
        "net.ipv4.icmp_echo_ignore_all": "1",
        "net.ipv6.icmp.echo_ignore_all": "1",
        "net.ipv4.icmp_ratemask": "0",
        "net.ipv4.icmp_ratelimit": "0",
        "net.ipv6.icmp.ratelimit": "0",
        "net.ipv6.icmp.ratemask": "",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.default.send_redirects": "0",
        "net.ipv4.conf.default.rp_filter": "0",
        "net.ipv6.conf.default.accept_dad": "0",
    }
    for name, value in {**always, **router.sysctls}.items():
        is_own = ".conf." in name and name.split(".")[3] not in ("all", "default")
        if is_own == own:
            with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
                file.write(value or "\n")


def _links(router: Namespace, outside: str) -> Iterator[str]:
    yield "link set lo up"
    for link in router.links:
        if link.kind is LinkKind.BRIDGE:
            yield f"link add {link.name} address {link.mac} mtu {link.mtu} type bridge mcast_snooping 0"
    for link in router.links:
        if link.kind is LinkKind.VETH:
            peer = f"peer name x{link.name} mtu 1500 netns {outside}"
            yield f"link add {link.name} address {link.mac} mtu {link.mtu} type veth {peer}"
            if link.master is not None:
                yield f"link set {link.name} master {link.master}"
                yield f"link set {link.name} type bridge_slave hairpin {'on' if link.hairpin else 'off'}"
    for link in router.links:
        if link.kind is not LinkKind.LOOPBACK:
            yield f"link set {link.name} up"


def _lines(router: Namespace) -> Iterator[str]:
    for address in router.addresses:
        more = " brd +" if address.interface.version == 4 else " nodad"
        yield f"addr add {address.interface} dev {address.device}{more}"
    yield from (_route(route) for route in router.routes)
    yield from (_rule(rule) for rule in router.rules if rule.priority not in (0, 32766, 32767))
    for held in router.neighbours:
        yield f"neigh replace {held.address} lladdr {held.mac} dev {held.device} nud permanent"


def _route(route: Route) -> str:
    words = f"route add {route.type.value} {route.destination} table {route.table}"
    words += f" via {route.gateway}" if route.gateway else ""
    words += f" dev {route.device}" if route.device else ""
    return words + (f" mtu lock {route.mtu}" if route.mtu else "") + (f" metric {route.metric}" if route.metric else "")


def _rule(rule: RoutingRule) -> str:
    words = f"rule add priority {rule.priority}"
    words += f" from {rule.source}" if rule.source else ""
    words += f" to {rule.destination}" if rule.destination else ""
    words += f" iif {rule.iif}" if rule.iif else ""
    words += f" fwmark {rule.mark:#x}/{rule.mask:#x}" if rule.mark is not None else ""
    return words + (f" lookup {rule.table}" if rule.action == "lookup" else f" {rule.action}")


@contextmanager
def lab() -> Iterator[Lab]:
    """On one processor: a frame's whole way through R is done when ``send`` returns, nearly always."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    made = Lab()
    try:
        yield made
    finally:
        made.tear_down()
        os.sched_setaffinity(0, allowed)
