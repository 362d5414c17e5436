"""The capture that comes with netsim: what clients of the bundled cluster see at their interfaces during one second.

``make()`` gives the bytes of ``netsim/data/example.pcap``; a test holds them together (``--update-golden`` rewrites it).
"""

from __future__ import annotations

from netsim.packet.address import Family, ip
from netsim.packet.codec import to_bytes
from netsim.packet.icmp import echo
from netsim.packet.model import Frame, Packet, Proto, Tcp, TcpFlag, Udp
from tests.support.captures import Record, pcap

WEB, OTHER_WEB = "10.244.2.7", "10.244.3.8"
FRONTEND, CHECKOUT, AGENT = "10.244.1.7", "10.244.3.7", "10.244.1.4"
CART, DNS, LEGACY, POSTGRES, STATSD = "10.96.3.7", "10.96.0.10", "10.96.3.99", "10.96.7.1", "10.96.9.1"
_F = TcpFlag
_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_OPTIONS = b"\x02\x04\x05\x82\x04\x02\x01\x03\x03\x07\x01\x01"  # MSS 1410, SACK permitted, window scale 7
_STAMPS = b"\x01\x01\x08\x0a" + bytes(8)


def _tcp(client: str, sport: int, server: str, dport: int, ask: bytes, answer: bytes) -> list[Packet]:
    """A whole connection as its client sees it; ``answer`` empty: nobody is there, and the SYN is sent three times."""
    one, two = 0xFFFFFF00 + sport, 7_000_000
    clock = {"ident": sport}

    def there(flags: TcpFlag, seq: int, ack: int, data: bytes = b"", options: bytes = _STAMPS) -> Packet:
        clock["ident"] += 1
        body = Tcp(sport, dport, flags, seq & 0xFFFFFFFF, ack, 502, options, data)
        return Packet(ip(client), ip(server), Proto.TCP, body, ident=clock["ident"] & 0xFFFF, dont_fragment=True)

    def back(flags: TcpFlag, seq: int, ack: int, data: bytes = b"", options: bytes = _STAMPS) -> Packet:
        body = Tcp(dport, sport, flags, seq, ack & 0xFFFFFFFF, 501, options, data)
        return Packet(ip(server), ip(client), Proto.TCP, body, ttl=62, dont_fragment=True)

    if not answer:
        return [there(_F.SYN, one, 0, options=_OPTIONS)] * 3
    a, b = one + 1 + len(ask), two + 1 + len(answer)
    return [
        there(_F.SYN, one, 0, options=_OPTIONS),
        back(_F.SYN | _F.ACK, two, one + 1, options=_OPTIONS),
        there(_F.ACK, one + 1, two + 1),
        there(_F.ACK | _F.PSH, one + 1, two + 1, ask),
        back(_F.ACK | _F.PSH, two + 1, a, answer),
        there(_F.ACK | _F.FIN, a, b),
        back(_F.ACK | _F.FIN, b, a + 1),
        there(_F.ACK, a + 1, b + 1),
    ]


def _udp(client: str, sport: int, server: str, dport: int, ask: bytes, answer: bytes = b"") -> list[Packet]:
    asked = Packet(ip(client), ip(server), Proto.UDP, Udp(sport, dport, ask), dont_fragment=True)
    answered = Packet(ip(server), ip(client), Proto.UDP, Udp(dport, sport, answer), ttl=62)
    return [asked, answered] if answer else [asked]


def _ping(client: str, server: str, ident: int) -> list[Packet]:
    ask = Packet(ip(client), ip(server), Proto.ICMP, echo(Family.IPV4, ident, 1, bytes(56)), dont_fragment=True)
    answer = Packet(ip(server), ip(client), Proto.ICMP, echo(Family.IPV4, ident, 1, bytes(56), reply=True), ttl=62)
    return [ask, answer]


def packets() -> list[Packet]:
    """Conversations, one after the other."""
    get, ok = b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    found = []
    for number, client in enumerate((WEB, OTHER_WEB, FRONTEND, WEB)):
        found += _udp(client, 41000 + number, DNS, 53, bytes(40), bytes(56))
        found += _tcp(client, 45000 + number, CART, 80, get, ok)
    found += _tcp(WEB, 46000, LEGACY, 80, get, b"")
    found += _tcp(CHECKOUT, 47000, POSTGRES, 5432, bytes(80), bytes(200))
    found += _udp(AGENT, 48000, STATSD, 8125, b"requests:1|c")
    found += _ping(WEB, OTHER_WEB, 7)
    found += _tcp("198.51.100.20", 50000, "192.168.10.11", 30081, get, ok)
    found += _tcp(FRONTEND, 51000, "198.51.100.80", 443, bytes(200), bytes(900))
    found += _udp("10.244.1.99", 52000, DNS, 53, bytes(40))  # a pod that is no more
    return found


def make() -> bytes:
    arp = bytes.fromhex("ffffffffffff020000000001 0806 0001 0800 0604 0001 020000000001 0af40207 000000000000 0af40201")
    frames = [arp, *(to_bytes(Frame(*_MAC, packet)) for packet in packets())]
    start = 1_700_000_000_000_000_000
    return pcap([Record(start + n * 12_345_000, frame, len(frame)) for n, frame in enumerate(frames)])
