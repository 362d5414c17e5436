"""The kernel's connections next to the interpreter's, one line an entry.

    node/n1 conntrack TCP SYN_SENT 10.244.1.2:client>10.96.3.7:80 [UNREPLIED] reply 10.244.2.7:8080>10.244.1.2:client mark 0

The kernel's table is read from /proc, or by ``conntrack -L`` where the kernel has no such file. An entry belongs to a flight
if one of the packets seen of it has one of the entry's tuples.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from netsim.errors import PrivilegeError
from netsim.interpreter import State
from netsim.lab.capture import Seen
from netsim.lab.holder import within
from netsim.lab.marks import layers
from netsim.lab.plan import netns
from netsim.lab.stories import Names, Story
from netsim.linux.conntrack import Entry, Tuple, tuple_of
from netsim.linux.conntrack_text import parse_entry
from netsim.packet.model import Proto

_TABLE = Path("/proc/thread-self/net/nf_conntrack")
_NAMES = {1: "ICMP", 4: "IPIP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_CT_DELETE, _REQUEST_ACK, _NETFILTER = 1 << 8 | 2, 5, 12


class KernelTables:
    """What ``read`` found, by namespace and tuple."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._by_tuple: dict[str, dict[Tuple, Entry]] = {}
        self._claimed: set[tuple[str, Tuple]] = set()

    def flush(self) -> None:
        for name in self.names:
            with within(netns(name)):
                _flush()
        self._claimed.clear()

    def read(self) -> None:
        for name in self.names:
            found = self._by_tuple[name] = {}
            with within(netns(name)):
                entries = list(map(parse_entry, _lines()))
            for entry in entries:
                found[entry.original] = found[entry.reply] = entry

    def of(self, sightings: Iterable[Seen]) -> dict[str, list[Entry]]:
        """The entries that the packets seen belong to."""
        found: dict[str, dict[Tuple, Entry]] = {}
        for one in sightings:
            table = self._by_tuple.get(one.namespace)
            if not table:
                continue
            within_tunnels = layers(one.what)
            for packet in within_tunnels[:-1] if one.error else within_tunnels:
                plain = tuple_of(packet)
                for tuple_ in (plain, plain.inverted()) if plain is not None else ():
                    entry = table.get(tuple_)
                    if entry is not None:
                        found.setdefault(one.namespace, {})[entry.original] = entry
                        self._claimed.add((one.namespace, entry.original))
        return {name: list(held.values()) for name, held in found.items()}

    def tunnels(self, ports: frozenset[int]) -> dict[tuple[str, str, str], int]:
        """How many connections of tunnels there are: by namespace, source and destination."""
        found: dict[tuple[str, str, str], int] = {}
        for name, table in self._by_tuple.items():
            for tuple_, entry in table.items():
                if tuple_ == entry.original and tuple_.proto == Proto.UDP and tuple_.dport in ports:
                    key = name, str(tuple_.src), str(tuple_.dst)
                    found[key] = found.get(key, 0) + 1
        return found

    def unclaimed(self) -> Iterator[tuple[str, Entry]]:
        """Entries that no packet seen accounts for."""
        for name, table in self._by_tuple.items():
            for tuple_, entry in table.items():
                if tuple_ == entry.original and (name, tuple_) not in self._claimed:
                    yield name, entry


def _lines() -> list[str]:
    """Lines as ``conntrack -L`` has them, of the namespace this thread is in."""
    if _TABLE.exists():
        return [line.split(None, 2)[2] for line in _TABLE.read_text().splitlines()]
    found = []
    for family in ("ipv4", "ipv6"):
        words = ["conntrack", "-L", "-f", family]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        except FileNotFoundError:
            raise PrivilegeError("conntrack is not installed: apt-get install conntrack") from None
        if done.returncode:
            raise PrivilegeError(f"{' '.join(words)}: {done.stderr.strip()}")
        found += done.stdout.splitlines()
    return found


def _flush() -> None:
    """IPCTNL_MSG_CT_DELETE without a tuple: every entry of this namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, _CT_DELETE, _REQUEST_ACK, 1, 0, 0, 0, 0))
        answer = netlink.recv(4096)
    error = struct.unpack_from("=i", answer, 16)[0]
    if error:
        raise PrivilegeError(f"the kernel's connections cannot be forgotten: error {-error} from ctnetlink")


def told(state: State, names: Names, tunnels: frozenset[int]) -> Story:
    """The interpreter's entries, as lines."""
    lines: Story = Counter()
    for namespace, held in state.namespaces.items():
        for entry in held.conntrack.entries():
            if entry.expires > state.now and (names.tunnels or not _is_tunnel(entry, tunnels)):
                lines[line(namespace, entry, names, tunnels)] = 1
    return lines


def line(namespace: str, entry: Entry, names: Names, tunnels: frozenset[int]) -> str:
    first, reply = entry.original, entry.reply
    head = f"{namespace} conntrack {_NAMES.get(first.proto, first.proto)}"
    if _is_tunnel(entry, tunnels):  # many share it: whose reply it saw is chance
        return f"{head} tunnel {' '.join(sorted((str(first.src), str(first.dst))))}"
    word = str(entry).split()[1]  # the state of TCP or SCTP, if it is one of these
    state = f" {word}" if word.isupper() and "=" not in word else ""
    flags = f"{'' if entry.seen_reply else ' [UNREPLIED]'}{' [ASSURED]' if entry.assured else ''}"
    back = reply.sport, reply.dport
    if first.proto in (Proto.ICMP, Proto.ICMPV6):
        there = names.client(first.sport), str(first.dport)
        back_ports = names.client(back[0]), str(back[1])
    else:  # a server that speaks first, or again when all is forgotten, begins a connection of its own
        by_server = first.sport in names.servers and first.dport not in names.servers
        there = replace(names, reply=by_server).ports(first.sport, first.dport)
        back_ports = replace(names, reply=not by_server).ports(*back)
    ways = [f"{one.src}:{ports[0]}>{one.dst}:{ports[1]}" for one, ports in ((first, there), (reply, back_ports))]
    return f"{head}{state} {ways[0]}{flags} reply {ways[1]} mark {entry.mark}"


def _is_tunnel(entry: Entry, ports: frozenset[int]) -> bool:
    """Of VXLAN or flanneld's UDP by port, or IPIP, which has none."""
    first = entry.original
    return first.proto == Proto.IPIP or (first.proto == Proto.UDP and bool(ports & {first.dport, first.sport}))


def seen(entries: dict[str, list[Entry]], names: Names, tunnels: frozenset[int]) -> Story:
    lines: Story = Counter()
    for namespace, held in entries.items():
        for entry in held:
            if names.tunnels or not _is_tunnel(entry, tunnels):
                lines[line(namespace, entry, names, tunnels)] = 1
    return lines
