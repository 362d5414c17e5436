"""One VXLAN packet as a Linux 6.18 kernel with flannel's device sent it, to the byte (outer Ethernet left out)."""

from __future__ import annotations

from netsim.packet.address import ip
from netsim.packet.codec import packet_bytes, parse_packet, parse_vxlan
from netsim.packet.model import Frame, Packet, Proto, Udp, Vxlan

SEEN = bytes.fromhex(
    "4500005ebd3700004011cbefc0a8380bc0a8380c"  # outer IPv4: TTL 64, no DF, an id
    "98d52118004a4016"  # outer UDP: 39125 -> 8472 with a checksum
    "0800000000000100"  # VXLAN: the VNI is valid, and 1
    "0e00000000020e00000000010800"  # inner Ethernet
    "4500002cb28000003f11b0550af401020af40202"  # inner IPv4, TTL 63 after forwarding
    "9c40270f00181979"
    "41414141414141414141414141414141"
)
INNER = Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.UDP, Udp(40000, 9999, b"A" * 16), ttl=63, ident=0xB280)
OUTER = Packet(
    ip("192.168.56.11"),
    ip("192.168.56.12"),
    Proto.UDP,
    Udp(39125, 8472, Vxlan(1, Frame("0e:00:00:00:00:01", "0e:00:00:00:00:02", INNER))),
    ident=0xBD37,
)


def test_the_value_makes_the_bytes() -> None:
    assert packet_bytes(OUTER) == SEEN


def test_the_bytes_make_the_value() -> None:
    outer = parse_packet(SEEN)
    assert isinstance(outer.body, Udp)
    assert isinstance(outer.body.payload, bytes)
    carried = parse_vxlan(outer.body.payload)
    assert carried == Vxlan(1, Frame("0e:00:00:00:00:01", "0e:00:00:00:00:02", INNER))
