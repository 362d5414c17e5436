"""Connection tracking: tuples, entries, the per-namespace table and the entry's own state machines.

Models ``nf_conntrack_core.c`` and the protocol trackers of Linux 6.x. Netfilter's side of it (which hook calls what) is in
``netsim.interpreter.tracking``; address translation, which writes the reply tuple, in ``netsim.interpreter.nat``.

    packet ──tuple_of──▶ Tuple ──Table.find──▶ (Entry, direction)
                           │ none                    │
                           ▼                         ▼
                    Table.begin (NEW)          Entry.packet(...)  → CtState, or INVALID
                           └───── Table.confirm ─────┘   (INPUT and POSTROUTING, the last hook function)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from netsim.linux.conntrack_sctp import SctpTrack
from netsim.linux.conntrack_tcp import TcpTrack
from netsim.linux.netfilter.base import CtState
from netsim.packet.address import IPAddress
from netsim.packet.model import Icmp, Packet, Proto, Raw, Sctp, Tcp, TcpFlag, Udp

ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
ICMPV6_ERRORS = frozenset({1, 2, 3, 4})

# Requests and their replies; ICMP of any other type starts no connection (nf_conntrack_proto_icmp.c, …_icmpv6.c).
_ICMP_REPLY = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
_ICMPV6_REPLY = {128: 129, 129: 128, 139: 140, 140: 139}
_ICMP_REQUESTS = frozenset({8, 13, 15, 17})
_ICMPV6_REQUESTS = frozenset({128, 139})
_ICMPV6_UNTRACKED = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})

_WITH_HEADER = (Proto.ICMP, Proto.TCP, Proto.UDP, Proto.ICMPV6, Proto.SCTP)

# Seconds, by the last part of net.netfilter.nf_conntrack_NAME.
TIMEOUTS = {
    "udp_timeout": 30,
    "udp_timeout_stream": 120,
    "icmp_timeout": 30,
    "icmpv6_timeout": 30,
    "generic_timeout": 600,
    "tcp_timeout_syn_sent": 120,
    "tcp_timeout_syn_recv": 60,
    "tcp_timeout_established": 432000,
    "tcp_timeout_fin_wait": 120,
    "tcp_timeout_close_wait": 60,
    "tcp_timeout_last_ack": 30,
    "tcp_timeout_time_wait": 120,
    "tcp_timeout_close": 10,
    "sctp_timeout_closed": 10,
    "sctp_timeout_cookie_wait": 3,
    "sctp_timeout_cookie_echoed": 3,
    "sctp_timeout_established": 210,
    "sctp_timeout_shutdown_sent": 3,
    "sctp_timeout_shutdown_recd": 3,
    "sctp_timeout_shutdown_ack_sent": 3,
    "sctp_timeout_heartbeat_sent": 30,
}


class Tuple(NamedTuple):
    """One direction of a connection. For ICMP ``sport`` is the identifier and ``dport`` is type<<8|code."""

    src: IPAddress
    sport: int
    dst: IPAddress
    dport: int
    proto: int

    def inverted(self) -> Tuple:
        """The other direction as it would look without translation."""
        reply = {Proto.ICMP: _ICMP_REPLY, Proto.ICMPV6: _ICMPV6_REPLY}.get(self.proto)  # type: ignore[call-overload]
        if reply is None:
            return Tuple(self.dst, self.dport, self.src, self.sport, self.proto)
        return Tuple(self.dst, self.sport, self.src, reply.get(self.dport >> 8, 0) << 8, self.proto)

    def __str__(self) -> str:
        if self.proto in (Proto.ICMP, Proto.ICMPV6):
            return f"src={self.src} dst={self.dst} type={self.dport >> 8} code={self.dport & 255} id={self.sport}"
        return f"src={self.src} dst={self.dst} sport={self.sport} dport={self.dport}"


def after(now: float, seconds: float) -> float:
    """The time so many seconds later, as the clock itself will read it: 40.091 + 30.0 is more than 70.091."""
    return round(now + seconds, 6)


def is_icmp_error(packet: Packet) -> bool:
    if not isinstance(packet.body, Icmp):
        return False
    return packet.body.type in (ICMP_ERRORS if packet.proto == Proto.ICMP else ICMPV6_ERRORS)


def untracked(packet: Packet) -> bool:
    """Neighbour discovery and multicast listener messages are never tracked (``icmpv6_error``)."""
    return packet.proto == Proto.ICMPV6 and isinstance(packet.body, Icmp) and packet.body.type in _ICMPV6_UNTRACKED


def tuple_of(packet: Packet) -> Tuple | None:
    """The packet's tuple; None if it has none (a non-first fragment, ICMP that is neither request nor reply, a header cut
    short)."""
    body = packet.body
    if packet.fragment_offset:
        return None
    if isinstance(body, Tcp | Udp | Sctp):
        return Tuple(packet.src, body.sport, packet.dst, body.dport, int(packet.proto))
    if isinstance(body, Icmp):
        known = _ICMP_REPLY if packet.proto == Proto.ICMP else _ICMPV6_REPLY
        if body.type not in known:
            return None
        return Tuple(packet.src, body.rest >> 16, packet.dst, body.type << 8 | body.code, int(packet.proto))
    if packet.proto in _WITH_HEADER and isinstance(body, Raw):
        return None  # too short for its header
    return Tuple(packet.src, 0, packet.dst, 0, int(packet.proto))


@dataclass(slots=True)
class Entry:
    """One tracked connection. ``mark`` is the connmark; the ``*_done`` flags say that the nat table has been asked."""

    original: Tuple
    reply: Tuple
    expires: float = 0.0
    mark: int = 0
    zone: int = 0
    status_snat: bool = False
    status_dnat: bool = False
    snat_done: bool = False
    dnat_done: bool = False
    port_drawn: bool = False  # its translated port is one that a kernel picks at random
    seen_reply: bool = False
    assured: bool = False
    confirmed: bool = False
    dying: bool = False  # out of the table, though packets on their way still belong to it
    expected: bool = False
    born: float = 0.0
    packets: int = 0
    sctp: SctpTrack | None = None
    tcp: TcpTrack | None = None
    masquerade_device: str | None = None

    def copy(self) -> Entry:
        return replace(self, tcp=self.tcp.copy() if self.tcp else None, sctp=self.sctp.copy() if self.sctp else None)

    @property
    def state(self) -> str | None:
        """The state of a TCP connection or an SCTP association, by the kernel's name; None for other protocols."""
        return self.tcp.state if self.tcp else self.sctp.state if self.sctp else None

    def __str__(self) -> str:
        name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}.get(self.original.proto, "unknown")
        state = f" {self.state}" if self.state else ""
        unreplied = "" if self.seen_reply else " [UNREPLIED]"
        assured = " [ASSURED]" if self.assured else ""
        return f"{name}{state} {self.original}{unreplied} {self.reply}{assured} mark={self.mark}"


class Settings(NamedTuple):
    """The sysctls under net.netfilter that change decisions. ``timeout`` answers for one name of ``TIMEOUTS``."""

    be_liberal: bool = False
    loose: bool = True
    timeout: Callable[[str], float] = lambda name: TIMEOUTS[name]


class Table:
    """The connections of one namespace, found by either tuple."""

    __slots__ = ("_by_tuple",)

    def __init__(self) -> None:
        self._by_tuple: dict[tuple[int, Tuple], Entry] = {}

    def __len__(self) -> int:
        return len(list(self.entries()))

    def entries(self) -> Iterator[Entry]:
        seen: set[int] = set()
        for entry in self._by_tuple.values():
            if id(entry) not in seen:
                seen.add(id(entry))
                yield entry

    def copy(self) -> Table:
        new = Table()
        for entry in self.entries():
            new._insert(entry.copy())
        return new

    def find(self, tuple_: Tuple, now: float, zone: int = 0) -> tuple[Entry, bool] | None:
        """The entry that ``tuple_`` belongs to and whether it is its reply direction; expired entries are gone."""
        entry = self._by_tuple.get((zone, tuple_))
        if entry is None:
            return None
        if entry.expires <= now:
            self.remove(entry)
            return None
        return entry, entry.reply == tuple_  # a flow to itself: the reply tuple was hashed last and is found first

    def taken(self, reply: Tuple, entry: Entry, now: float) -> bool:
        """Is ``reply`` in use by another connection (``nf_conntrack_tuple_taken``)?"""
        found = self.find(reply, now, entry.zone)
        return found is not None and found[0] is not entry

    def same_source(self, original: Tuple, now: float) -> list[Entry]:
        """The source-translated connections from the same address and port, the newest first, as ``nf_nat_bysource`` has
        them for ``find_appropriate_src``."""
        wanted = original.src, original.sport, original.proto
        found = [
            entry
            for entry in self.entries()
            if entry.snat_done
            and entry.expires > now
            and (entry.original.src, entry.original.sport, entry.original.proto) == wanted
        ]
        found.reverse()
        return sorted(found, key=lambda entry: -entry.born)

    def confirm(self, entry: Entry, now: float) -> bool:
        """Put a new connection into the table; False if either of its tuples is taken (a clash)."""
        if entry.confirmed:
            return True
        if self.taken(entry.original, entry, now) or self.taken(entry.reply, entry, now):
            return False
        entry.confirmed = True
        self._insert(entry)
        return True

    def remove(self, entry: Entry) -> None:
        for tuple_ in (entry.original, entry.reply):
            if self._by_tuple.get((entry.zone, tuple_)) is entry:
                del self._by_tuple[entry.zone, tuple_]

    def _insert(self, entry: Entry) -> None:
        self._by_tuple[entry.zone, entry.original] = entry
        self._by_tuple[entry.zone, entry.reply] = entry


def begin(packet: Packet, tuple_: Tuple, now: float, settings: Settings, zone: int = 0) -> Entry | None:
    """A new, unconfirmed entry; None if such a packet cannot start a connection (then it is INVALID)."""
    body = packet.body
    entry = Entry(tuple_, tuple_.inverted(), born=now, zone=zone)
    if isinstance(body, Tcp):
        entry.tcp = TcpTrack.begin(body, settings.loose)
        return entry if entry.tcp else None
    if isinstance(body, Icmp):
        requests = _ICMP_REQUESTS if packet.proto == Proto.ICMP else _ICMPV6_REQUESTS
        return entry if body.type in requests else None
    if isinstance(body, Sctp):
        entry.sctp = SctpTrack.begin(body)
        return entry if entry.sctp else None
    return entry


def update(entry: Entry, packet: Packet, reply: bool, now: float, settings: Settings) -> CtState | None:
    """Advance the entry by one packet: its state for rules, INVALID, or None if the entry must be made anew
    (a SYN that reopens a closed connection: ``nf_ct_kill`` and again)."""
    entry.packets += 1
    body = packet.body
    if isinstance(body, Tcp) and entry.tcp is not None:
        before = entry.tcp.state
        verdict = entry.tcp.advance(body, reply, settings.be_liberal, entry.seen_reply, entry.assured)
        if verdict == "again":
            return None
        if verdict == "invalid":
            return CtState.INVALID
        timeout = f"tcp_timeout_{entry.tcp.timeout}"
        if verdict == "ok" and entry.seen_reply:
            answered = before in ("SYN_RECV", "ESTABLISHED") and entry.tcp.state == "ESTABLISHED"
            entry.assured = entry.assured or answered
        elif verdict == "ok" and body.flags & TcpFlag.RST:
            entry.dying = True  # a reset before any answer: there never was a connection
    elif isinstance(body, Sctp) and entry.sctp is not None:
        before = entry.sctp.state
        verdict = entry.sctp.advance(body, reply)
        if verdict == "invalid":
            return CtState.INVALID
        timeout = f"sctp_timeout_{entry.sctp.timeout}"
        if entry.sctp.state == "ESTABLISHED" and before != "ESTABLISHED":
            entry.assured = True
    elif isinstance(body, Udp):
        # The longer timeout and ASSURED need traffic both ways that goes on for more than two seconds.
        stream = (entry.seen_reply or reply) and now > after(entry.born, 2)
        entry.assured = entry.assured or stream
        timeout = "udp_timeout_stream" if stream else "udp_timeout"
    elif packet.proto in (Proto.ICMP, Proto.ICMPV6):
        timeout = "icmp_timeout" if packet.proto == Proto.ICMP else "icmpv6_timeout"
    else:
        timeout = "generic_timeout"
    entry.expires = after(now, settings.timeout(timeout))
    if reply:
        entry.seen_reply = True
        return CtState.ESTABLISHED
    return CtState.ESTABLISHED if entry.seen_reply else CtState.RELATED if entry.expected else CtState.NEW
