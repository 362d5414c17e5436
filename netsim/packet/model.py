"""Packets as values: what a header says, without its bytes (see ``codec`` for those).

A ``Packet`` is one IP packet of either family. Its ``body`` is the transport header with its payload; payload is bytes,
or (inside an ICMP error or a tunnel) another value of this module, so that an encapsulated packet stays readable.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from netsim.packet.address import Family, IPAddress, family_of


class Proto(enum.IntEnum):
    """IP protocol numbers that have a name here; any other number is carried as a plain int."""

    ICMP = 1
    IPIP = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    ICMPV6 = 58
    SCTP = 132
    UDPLITE = 136


class TcpFlag(enum.IntFlag):
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@dataclass(frozen=True, slots=True)
class Tcp:
    sport: int
    dport: int
    flags: TcpFlag = TcpFlag.SYN
    seq: int = 0
    ack: int = 0
    window: int = 64240
    options: bytes = b""  # already padded to a multiple of four
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Udp:
    """``checksum`` False means the wire field is 0 (allowed over IPv4; Weave's fast datapath does it)."""

    sport: int
    dport: int
    payload: bytes | Vxlan | Packet = b""
    checksum: bool = True


@dataclass(frozen=True, slots=True)
class Sctp:
    sport: int
    dport: int
    vtag: int = 0
    chunks: bytes = b"\x01\x00\x00\x14" + bytes(16)  # an INIT chunk


@dataclass(frozen=True, slots=True)
class Icmp:
    """ICMP and ICMPv6 alike. ``rest`` is the second header word: id<<16|seq for echo, the next-hop MTU for
    fragmentation-needed (low half) and packet-too-big (all of it). ``payload`` of an error is the quoted packet."""

    type: int
    code: int = 0
    rest: int = 0
    payload: bytes | Packet = b""


@dataclass(frozen=True, slots=True)
class Raw:
    """Any other protocol, or a non-first fragment: bytes nobody looks into."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Vxlan:
    vni: int
    frame: Frame


Body = Tcp | Udp | Sctp | Icmp | Raw


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet. ``proto`` is a number (``Proto`` where it has a name). IPIP carries a ``Packet`` in ``body``.

    IPv4: ``ident``, ``dont_fragment``, ``more_fragments``, ``fragment_offset`` (bytes, a multiple of 8) as on the wire.
    IPv6: the same fields describe the fragment extension header, present when the offset or ``more_fragments`` is set;
    ``dont_fragment`` is always effectively true for routers.
    ``options``: IPv4 header options as on the wire, padded to a multiple of four; nobody looks into them.
    """

    src: IPAddress
    dst: IPAddress
    proto: int
    body: Body | Packet
    ttl: int = 64
    tos: int = 0
    ident: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    flow_label: int = 0
    options: bytes = b""

    @property
    def family(self) -> Family:
        return family_of(self.src)

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.fragment_offset > 0

    @property
    def sport(self) -> int | None:
        """Source port, or None for protocols without ports and for non-first fragments."""
        return self.body.sport if isinstance(self.body, Tcp | Udp | Sctp) else None

    @property
    def dport(self) -> int | None:
        return self.body.dport if isinstance(self.body, Tcp | Udp | Sctp) else None

    def with_ports(self, sport: int | None = None, dport: int | None = None) -> Packet:
        """A copy with other ports; unchanged for protocols without ports."""
        if not isinstance(self.body, Tcp | Udp | Sctp):
            return self
        body = replace(
            self.body,
            sport=self.body.sport if sport is None else sport,
            dport=self.body.dport if dport is None else dport,
        )
        return replace(self, body=body)


ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame around an IP packet; MAC addresses are lower-case colon text."""

    src: str
    dst: str
    packet: Packet
    ethertype: int = field(default=ETH_IPV4)
