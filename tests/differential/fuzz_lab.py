"""One router made real in a network namespace, its devices' far ends in another: frames in, everything it emits out.

    outside: xN.a0 xN.b0 xN.p1 xN.p2 (no addresses: one packet socket) ══ veth ══  R: a0, b0, and p1, p2 as ports of br0

What R delivers to itself is heard by raw sockets; the ports in ``PORTS`` have sockets that swallow everything, so that R
never answers a probe by itself. Neighbours and FDB entries are permanent: nothing waits for ARP. Every case gets a namespace
of its own, so that nothing that a kernel remembers (fragments, rate limits, learnt MTUs) goes from one case to the next; the
kernel takes the old ones down in the background, and the packet socket outside is never closed in between: both would cost
more than a case's packets.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from netsim.linux import ipset
from netsim.linux.link import Link, LinkKind
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace
from netsim.linux.route import Route, RoutingRule
from netsim.packet.address import Family
from netsim.packet.codec import mac_bytes, mac_text, packet_bytes, parse_packet
from netsim.packet.model import ETH_IPV4, ETH_IPV6, Icmp, Packet
from tests.differential.fuzz_cases import Case
from tests.differential.fuzz_matches import ACCOUNT
from tests.differential.fuzz_traffic import Probe, carried
from tests.differential.fuzz_world import DEVICES, PORTS, VXLAN_PORT
from tests.support.interpreter_kernel import run, within

_serial = count()
ROUNDS = 3  # how often the queue is waited for: what R sends to itself stands in it again
_NOISE = {130, 131, 132, 133, 134, 135, 136, 137, 143}  # router, neighbour and listener discovery, redirects
_ALL, _IGNORE_OUTGOING, _HEADER_INCLUDED = 3, 23, {4: (socket.IPPROTO_IP, 3), 6: (socket.IPPROTO_IPV6, 36)}

Heard = tuple[str, str, Packet]  # (device, destination MAC, packet); the device of a local delivery is "local"


class Lab:
    """The outside with its far ends; ``install`` makes a router for each case."""

    def __init__(self) -> None:
        self.prefix = f"nf{os.getpid() % 100000}x{next(_serial)}"
        self.outside = f"{self.prefix}o"
        self._router: int | None = None  # R's namespace: a descriptor, for a name costs two processes more
        self._installed = count()
        self._far: dict[str, str] = {}  # names outside, by R's device
        self._devices: dict[str, str] = {}
        self._local: list[tuple[int, int, socket.socket]] = []  # (IP version, protocol, socket)
        self._sinks: list[socket.socket] = []
        run("ip", "netns", "add", self.outside)
        run("ip", "netns", "exec", self.outside, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        run("ip", "-n", self.outside, "link", "set", "lo", "up")
        self._wire = within(self.outside, _wire)
        self._mirror = within(self.outside, _mirror)

    def install(self, case: Case) -> None:
        self._remove_router()
        router, family, near = case.router, case.family, f"x{next(self._installed)}."
        self._router = _new_namespace()
        with _inside(self._router):
            _write_sysctls(router, own=False)
            made = "\n".join((*_links(router, self.outside, near), *_lines(router)))
            run("ip", "-4" if family is Family.IPV4 else "-6", "-batch", "-", given=made + "\n")
            within(self.outside, lambda: [_up(f"{near}{device}") for device in DEVICES])
            run("bridge", "-batch", "-", given="".join(_fdb(router)))
            _write_sysctls(router, own=True)
            self._listen(family)
            _wait_for_carriers([link.name for link in router.links])
            if family is Family.IPV6:
                _wait_for_listener_reports(router)
            _load(case)
        self._far = {device: f"{near}{device}" for device in DEVICES}
        self._devices = {name: device for device, name in self._far.items()}

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
        for proto in (6, 17, 132, 1 if version == 4 else 58):
            raw = socket.socket(kind, socket.SOCK_RAW, proto)
            raw.setblocking(False)
            if version == 6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            self._local.append((version, proto, raw))

    def send(self, probe: Probe) -> None:
        """Send a probe and wait until R is done with it."""
        if probe.device is None:
            with _inside(self._router):
                _send_locally(probe)
        else:
            packet = probe.packet
            ethertype = ETH_IPV4 if packet.family is Family.IPV4 else ETH_IPV6
            frame = mac_bytes(probe.mac) + mac_bytes(probe.source_mac) + ethertype.to_bytes(2, "big")
            with suppress(OSError):  # ENOBUFS: larger than R's device takes in
                self._wire.sendto(frame + packet_bytes(packet), (self._far[probe.device], ethertype))
        for _ in range(ROUNDS):
            self._mirror.send(b"?")
            self._mirror.recv(1)

    def heard(self) -> list[Heard]:
        """What came since the last call."""
        found: list[Heard] = []
        while True:
            try:
                data, address = self._wire.recvfrom(65535)
            except BlockingIOError:
                break
            device = self._devices.get(address[0])
            if device is not None and data[12:14] in (b"\x08\x00", b"\x86\xdd"):
                packet = parse_packet(data[14:])
                if not _noise(carried(packet) or packet):
                    found.append((device, mac_text(data[:6]), packet))
        for version, proto, raw in self._local:
            found.extend(one for one in _local(version, proto, raw) if one[2].dport != VXLAN_PORT)  # vx0 takes it
        return found

    def counters(self, case: Case) -> str:
        """``iptables-save -c``."""
        with _inside(self._router):
            words = (f"{_tables(case)}-save", "-c")
            return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout

    def connections(self) -> list[str]:
        """Conntrack's entries as /proc/net/nf_conntrack shows them."""
        with _inside(self._router), open("/proc/thread-self/net/nf_conntrack") as file:
            return file.read().splitlines()

    def _remove_router(self) -> None:
        for held in (*(raw for _, _, raw in self._local), *self._sinks):
            held.close()
        self._local, self._sinks, self._far, self._devices = [], [], {}, {}
        if self._router is not None:
            os.close(self._router)  # the last that holds it: the kernel takes the namespace down by itself
        self._router = None

    def tear_down(self) -> None:
        self._wire.close()
        self._mirror.close()
        self._remove_router()
        subprocess.run(("ip", "netns", "del", self.outside), capture_output=True, timeout=30, check=False)


_libc = ctypes.CDLL(None, use_errno=True)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


@contextmanager
def _inside(namespace: int | None) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if namespace is None or _libc.setns(namespace, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _libc.setns(home, _NEW_NETWORK)
        os.close(home)


def _new_namespace() -> int:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(_NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    finally:
        _libc.setns(home, _NEW_NETWORK)
        os.close(home)


_UP, _RUNNING = 0x1, 0x40  # IFF_UP, IFF_RUNNING


def _flags(control: socket.socket, device: str) -> int:
    asked = struct.pack("16sH14x", device.encode(), 0)
    (flags,) = struct.unpack_from("H", fcntl.ioctl(control, 0x8913, asked), 16)  # SIOCGIFFLAGS
    return int(flags)


def _up(device: str) -> None:
    """``ip link set DEVICE up``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = _flags(control, device) | _UP
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", device.encode(), flags))  # SIOCSIFFLAGS


def _wait_for_carriers(devices: list[str]) -> None:
    """The first end of a veth pair to go up has a queue, and is a port in forwarding state, only when a kernel thread
    (linkwatch) has seen the other end, and the bridge only when it has seen that; what comes before is lost."""
    end = time.monotonic() + 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        while not all(_flags(control, device) & _RUNNING for device in devices):
            if time.monotonic() > end:
                raise RuntimeError(f"not all of {', '.join(devices)} have a carrier")
            time.sleep(0.001)
    for device in devices:
        _up(device)  # for its lock: the thread holds it until it is done with the device


def _wait_for_listener_reports(router: Namespace) -> None:
    """When a device goes up, IPv6 joins a multicast group for each of its addresses, tells so at once, once more when a
    random part of an interval is over (``igmp6_join_group``), and hears itself, all by kernel threads that a busy machine
    keeps waiting: no rule must count that, nor a tunnel carry it. An interval of nothing has both reports out by now; in
    one as long as can be, some of the many thousands of a long run would come in the middle of a case."""
    end = time.monotonic() + 10
    wanted = _groups(router)
    while not (wanted <= _reported() and _all_heard()):
        if time.monotonic() > end:
            raise RuntimeError(f"IPv6 of {router.name} is not up: {sorted(wanted - _reported())}")
        time.sleep(0.001)


def _groups(router: Namespace) -> set[tuple[str, str, int]]:
    """(device, group, users) of what IPv6 must have joined: of each address the solicited-node group; where it forwards,
    that of each prefix's anycast address and all routers'."""
    users: Counter[tuple[str, int]] = Counter()
    forwards = router.sysctls.get("net.ipv6.conf.all.forwarding") == "1"
    for link in router.links:
        if link.mac is None:
            continue
        own = [int.from_bytes(mac_bytes(link.mac)[3:], "big")]
        own += [int(one.interface) & 0xFFFFFF for one in router.addresses if one.device == link.name]
        for suffix in own:
            users[link.name, _SOLICITED | suffix] += 1
        if forwards:
            users[link.name, _SOLICITED] += len(own)
            users[link.name, _ALL_ROUTERS] += 1
    return {(device, f"{group:032x}", count) for (device, group), count in users.items()}


_ALL_ROUTERS, _SOLICITED = 0xFF02 << 112 | 2, 0xFF02 << 112 | 0x1FF000000
_SPEAKS, _SPOKE = (
    1,
    2,
)  # MAF_TIMER_RUNNING, MAF_LAST_REPORTER: between the first report and the second; behind the first


def _reported() -> set[tuple[str, str, int]]:
    with open("/proc/thread-self/net/igmp6") as file:
        lines = [line.split() for line in file]
    done = _SPEAKS | _SPOKE
    return {
        (device, group, int(users)) for _, device, group, users, flags, _ in lines if int(flags, 16) & done == _SPOKE
    }


def _all_heard() -> bool:
    with open("/proc/thread-self/net/snmp6") as file:
        held = dict(line.split() for line in file)
    return held["Ip6InDelivers"] == held["Ip6OutRequests"]


def _load(case: Case) -> None:
    """ipsets, counters and rules, by the real tools from the text that ``render`` prints."""
    router, family = case.router, case.family
    if router.ipsets:
        run("ipset", "restore", given="".join(ipset.print_save(router.ipsets)))
    if family in router.rulesets:
        text = "".join(print_save(router.rulesets[family]))
        if " --nfacct-name" in text:
            _add_counter(ACCOUNT)
        run(f"{_tables(case)}-restore", given=text)


def _tables(case: Case) -> str:
    return f"{'iptables' if case.family is Family.IPV4 else 'ip6tables'}-{case.engine}"


def _wire() -> socket.socket:
    """One socket for the far ends of all routers: closing one costs more than a case."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.setsockopt(263, _IGNORE_OUTGOING, 1)  # SOL_PACKET
    made.setblocking(False)
    return made


def _mirror() -> socket.socket:
    """A socket that sends to itself. What it hears has stood in its processor's queue of received packets
    (``softnet_data``) behind all that was there before, frames from veth devices among them: where a softirq had too much
    to do, that waits for a kernel thread (ksoftirqd)."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(10)
    made.bind(("127.0.0.1", 0))
    made.connect(made.getsockname())
    return made


def _send_locally(probe: Probe) -> None:
    """From a raw socket bound to the packet's source. A hook that drops it says so at once."""
    packet, version = probe.packet, probe.packet.src.version
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(*_HEADER_INCLUDED[version], 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.setsockopt(socket.SOL_SOCKET, 36, probe.mark)  # SO_MARK
        raw.bind((str(packet.src), 0))
        with suppress(OSError):
            raw.sendto(packet_bytes(packet), (str(packet.dst), 0))


def _add_counter(name: str) -> None:
    """``nfacct add NAME``: NFNL_MSG_ACCT_NEW (subsystem 7)."""
    value = name.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(value), 1) + value + bytes(-len(value) % 4)
    body = struct.pack("BBH", 0, 0, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(struct.pack("IHHII", 16 + len(body), 7 << 8, 0x405, 1, 0) + body)
        (error,) = struct.unpack_from("i", netlink.recv(4096), 16)
    if error:
        raise RuntimeError(f"nfacct: {os.strerror(-error)}")


def _local(version: int, proto: int, raw: socket.socket) -> Iterator[Heard]:
    while True:
        try:
            data, ancillary, _, address = raw.recvmsg(65535, 256)
        except BlockingIOError:
            return
        if version == 6:
            held = {kind: value for _, kind, value in ancillary}
            limit = struct.unpack("i", held[socket.IPV6_HOPLIMIT])[0]
            tos = struct.unpack("i", held[socket.IPV6_TCLASS])[0]
            source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
            header = struct.pack("!IHBB", 6 << 28 | tos << 20, len(data), proto, limit)
            data = header + source + held[socket.IPV6_PKTINFO][:16] + data
        packet = parse_packet(data)
        if not _noise(packet):
            yield "local", "", packet


def _noise(packet: Packet) -> bool:
    """What the kernel says by itself: multicast listener reports (behind a hop-by-hop header), neighbour discovery."""
    return packet.proto == 0 or (packet.proto == 58 and isinstance(packet.body, Icmp) and packet.body.type in _NOISE)


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
        # nothing of the kernel's own reaches the rules once they are there
        "net.ipv6.conf.default.force_mld_version": "1",
        "net.ipv6.conf.default.mldv1_unsolicited_report_interval": "1",
        "net.ipv6.conf.default.router_solicitations": "0",
    }
    for name, value in {**always, **router.sysctls}.items():
        is_own = ".conf." in name and name.split(".")[3] not in ("all", "default")
        if is_own == own:
            with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
                file.write(value or "\n")


def _links(router: Namespace, outside: str, near: str) -> Iterator[str]:
    yield "link set lo up"
    for link in router.links:
        if link.kind is LinkKind.BRIDGE:
            yield f"link add {link.name} address {link.mac} mtu {link.mtu} type bridge mcast_snooping 0"
    for link in router.links:
        if link.kind is LinkKind.VETH:
            peer = f"peer name {near}{link.name} mtu 1500 netns {outside}"
            yield f"link add {link.name} address {link.mac} mtu {link.mtu} type veth {peer}"
        elif link.vxlan is not None:
            yield _vxlan(link)
    for link in router.links:
        if link.kind is LinkKind.BRIDGE:
            yield f"link set {link.name} mtu {link.mtu - 1}"  # an MTU that was set does not follow the ports'
            yield f"link set {link.name} mtu {link.mtu}"
        if link.master is not None:
            yield f"link set {link.name} master {link.master}"
            yield f"link set {link.name} type bridge_slave hairpin {'on' if link.hairpin else 'off'} learning off"
        if link.kind is not LinkKind.LOOPBACK:
            yield f"link set {link.name} up"


def _vxlan(link: Link) -> str:
    held = link.vxlan
    assert held is not None
    return (
        f"link add {link.name} address {link.mac} mtu {link.mtu} type vxlan id {held.vni} local {held.local}"
        f" dev {held.device} dstport {held.port} nolearning"
    )


def _fdb(router: Namespace) -> Iterator[str]:
    for entry in router.fdb:
        if entry.destination is not None:
            yield f"fdb append {entry.mac} dev {entry.device} dst {entry.destination} self permanent\n"
        else:
            yield f"fdb replace {entry.mac} dev {entry.device} master static\n"


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
    return (
        words
        + (f" mtu lock {route.mtu}" if route.mtu else "")
        + (f" metric {route.metric}" if route.metric else "")
        + (f" src {route.source}" if route.source else "")
    )


def _rule(rule: RoutingRule) -> str:
    words = f"rule add {'not ' if rule.invert else ''}priority {rule.priority}"
    words += f" from {rule.source}" if rule.source else ""
    words += f" to {rule.destination}" if rule.destination else ""
    words += f" iif {rule.iif}" if rule.iif else ""
    words += f" fwmark {rule.mark:#x}/{rule.mask:#x}" if rule.mark is not None else ""
    return words + (f" lookup {rule.table}" if rule.action == "lookup" else f" {rule.action}")


@contextmanager
def lab(processor: int = 0) -> Iterator[Lab]:
    """On one processor, whose queue of received packets is thus the only one that a frame stands in on its way."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[processor % len(allowed)]})
    made = Lab()
    try:
        yield made
    finally:
        made.tear_down()
        os.sched_setaffinity(0, allowed)
