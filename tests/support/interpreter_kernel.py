"""A hand-built Network made real in network namespaces of its own, and probes sent through it. Tests only."""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from netsim.linux.link import LinkKind
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import StaticNetwork
from netsim.packet.address import Family
from netsim.packet.codec import packet_bytes, parse_packet
from netsim.packet.model import Packet

_serial = count()


def run(*words: str, given: str | None = None) -> None:
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


class KernelNetwork:
    """The namespaces behind a network's names. ``send`` gives what arrived where, as (namespace, packet) pairs."""

    def __init__(self, network: StaticNetwork, prefix: str) -> None:
        self.network = network
        self.names = {name: f"{prefix}-{number}" for number, name in enumerate(network.namespaces)}
        self.lan = f"{prefix}-lan"
        self._sockets: dict[socket.socket, str] = {}
        self._raw: dict[str, socket.socket] = {}

    def build(self) -> None:
        for name in (*self.names.values(), self.lan):
            run("ip", "netns", "add", name)
        self._batch(self.lan, ["link add br0 type bridge", "link set br0 up"])
        for name, space in self.network.namespaces.items():
            for sysctl, value in {"net.ipv6.conf.all.disable_ipv6": "1", **space.sysctls}.items():
                if ".conf." not in sysctl or sysctl.split(".")[3] in ("all", "default"):
                    self._sysctl(name, sysctl, value)
        for name in self.network.namespaces:
            self._links(name)
        for name in self.network.namespaces:
            self._addresses(name)
        for name in self.names:
            for proto in (socket.IPPROTO_UDP, socket.IPPROTO_ICMP):
                self._sockets[self._inside(name, proto)] = name
            self._raw[name] = self._inside(name, socket.IPPROTO_RAW)

    def _batch(self, namespace: str, lines: list[str]) -> None:
        run("ip", "-n", namespace, "-batch", "-", given="\n".join(lines) + "\n")

    def _sysctl(self, name: str, sysctl: str, value: str) -> None:
        run("ip", "netns", "exec", self.names[name], "sysctl", "-qw", f"{sysctl}={value}")

    def _links(self, name: str) -> None:
        space, here = self.network.namespaces[name], self.names[name]
        lines = ["link set lo up"]
        for link in space.links:
            rest = f"address {link.mac} mtu {link.mtu}"
            if link.kind is LinkKind.BRIDGE:
                lines.append(f"link add {link.name} {rest} type bridge")
            elif link.kind is LinkKind.PHYSICAL:
                far = f"{here[-6:]}{link.name}"[-15:]
                lines.append(f"link add {link.name} {rest} type veth peer name {far} netns {self.lan}")
            elif link.kind is LinkKind.VETH and link.peer is not None and name < link.peer[0]:
                far = next(p for p in self.network.namespaces[link.peer[0]].links if p.name == link.peer[1])
                lines.append(
                    f"link add {link.name} {rest} type veth peer name {far.name} address {far.mac} mtu {far.mtu}"
                    f" netns {self.names[link.peer[0]]}"
                )
        self._batch(here, lines)

    def _addresses(self, name: str) -> None:
        space, here = self.network.namespaces[name], self.names[name]
        lines = []
        for link in space.links:
            if link.vxlan is not None:
                options = link.vxlan
                lines.append(
                    f"link add {link.name} address {link.mac} mtu {link.mtu} type vxlan id {options.vni}"
                    f" local {options.local} dev {options.device} dstport {options.port} nolearning"
                )
            if link.master is not None:
                lines.append(f"link set {link.name} master {link.master}")
                lines.append(f"link set {link.name} type bridge_slave hairpin {'on' if link.hairpin else 'off'}")
            lines.append(f"link set {link.name} {'up' if link.up else 'down'}")
            if link.kind is LinkKind.PHYSICAL:
                far = f"{here[-6:]}{link.name}"[-15:]
                self._batch(self.lan, [f"link set {far} master br0", f"link set {far} up"])
        for a in space.addresses:
            broadcast = " brd +" if a.interface.network.prefixlen < 31 else ""
            lines.append(f"addr add {a.interface} dev {a.device}{broadcast}")
        for r in space.routes:
            gateway, onlink = f" via {r.gateway}" if r.gateway else "", " onlink" if r.onlink else ""
            lines.append(f"route add {r.destination}{gateway} dev {r.device}{onlink}")
        lines += [f"neigh add {n.address} lladdr {n.mac} dev {n.device} nud permanent" for n in space.neighbours]
        self._batch(here, lines)
        for entry in space.fdb:
            words = f"fdb append {entry.mac} dev {entry.device} dst {entry.destination} self permanent".split()
            run("bridge", "-n", here, *words)
        for sysctl, value in space.sysctls.items():
            if ".conf." in sysctl and sysctl.split(".")[3] not in ("all", "default"):
                self._sysctl(name, sysctl, value)
        ruleset = space.rulesets.get(Family.IPV4)
        if ruleset is not None:
            text = "\n".join(print_save(ruleset)) + "\n"
            run("ip", "netns", "exec", here, "iptables-restore", given=text)

    def _inside(self, name: str, proto: int) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW, proto)
            made.setblocking(False)
            return made

        return within(self.names[name], make)

    def send(self, name: str, packet: Packet, wait: float = 0.3) -> list[tuple[str, Packet]]:
        with selectors.DefaultSelector() as selector:
            for held, where in self._sockets.items():
                selector.register(held, selectors.EVENT_READ, where)
                with_nothing(held)
            with suppress(PermissionError):  # the sender is told at once that a local hook dropped it
                self._raw[name].sendto(packet_bytes(packet), (str(packet.dst), 0))
            heard: list[tuple[str, Packet]] = []
            end = time.monotonic() + wait
            while (left := end - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    data = key.fileobj.recv(65535)  # type: ignore[union-attr]
                    heard.append((key.data, parse_packet(data)))
        return heard

    def tear_down(self) -> None:
        for held in (*self._sockets, *self._raw.values()):
            held.close()
        for name in (*self.names.values(), self.lan):
            subprocess.run(("ip", "netns", "del", name), capture_output=True, timeout=30, check=False)


def with_nothing(held: socket.socket) -> None:
    """Forget what is left of earlier probes."""
    while True:
        try:
            held.recv(65535)
        except BlockingIOError:
            return


def within(namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Call ``make`` inside a named network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return make()
        finally:
            libc.setns(home, 0)
    finally:
        os.close(there)
        os.close(home)


@contextmanager
def kernel(network: StaticNetwork) -> Iterator[KernelNetwork]:
    real = KernelNetwork(network, f"ni{os.getpid() % 10000}x{next(_serial)}")
    try:
        real.build()
        yield real
    finally:
        real.tear_down()
