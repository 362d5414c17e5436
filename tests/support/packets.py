"""Hypothesis strategies of packets whose payloads are bytes: what the wire can hold."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from netsim.packet.address import Family, IPAddress
from netsim.packet.model import Body, Frame, Icmp, Packet, Proto, Raw, Sctp, Tcp, TcpFlag, Udp, Vxlan

ports = st.integers(0, 0xFFFF)
words = st.integers(0, 0xFFFFFFFF)
payloads = st.binary(max_size=60)
macs = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
# Numbers that no codec of ours reads, IPv6 extension headers among them
OTHER_PROTOCOLS = (0, 2, 43, 47, 50, 51, 59, 60, 89, 136, 255)


def addresses(family: Family) -> st.SearchStrategy[IPAddress]:
    if family is Family.IPV4:
        return st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
    return st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


def bodies(family: Family, depth: int = 1) -> st.SearchStrategy[tuple[int, Body | Packet]]:
    """(protocol, body) pairs."""
    icmp = Proto.ICMP if family is Family.IPV4 else Proto.ICMPV6
    flags = st.integers(0, 0xFF).map(TcpFlag)
    options = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
    summed = st.booleans() if family is Family.IPV4 else st.just(True)
    kinds: list[st.SearchStrategy[tuple[int, Body | Packet]]] = [
        st.builds(Tcp, ports, ports, flags, words, words, ports, options, payloads).map(lambda b: (Proto.TCP, b)),
        st.builds(Udp, ports, ports, payloads, summed).map(lambda b: (Proto.UDP, b)),
        st.builds(Sctp, ports, ports, words, payloads).map(lambda b: (Proto.SCTP, b)),
        st.builds(Icmp, st.integers(0, 255), st.integers(0, 255), words, payloads).map(lambda b: (icmp, b)),
        st.tuples(st.sampled_from(OTHER_PROTOCOLS), st.builds(Raw, payloads)),
    ]
    if depth and family is Family.IPV4:
        kinds.append(packets(Family.IPV4, depth - 1).map(lambda p: (Proto.IPIP, p)))
    return st.one_of(kinds)


@st.composite
def packets(draw: st.DrawFn, family: Family, depth: int = 1) -> Packet:
    proto, body = draw(bodies(family, depth))
    four = family is Family.IPV4
    return Packet(
        draw(addresses(family)),
        draw(addresses(family)),
        proto,
        body,
        ttl=draw(st.integers(0, 255)),
        tos=draw(st.integers(0, 255)),
        ident=draw(st.integers(0, 0xFFFF)) if four else 0,
        dont_fragment=draw(st.booleans()) if four else False,
        flow_label=0 if four else draw(st.integers(0, 0xFFFFF)),
        options=draw(st.sampled_from((b"", b"", b"\x94\x04\x00\x00", b"\x01" * 40))) if four else b"",
    )


families = st.sampled_from(list(Family))
any_packets = families.flatmap(packets)


@st.composite
def vxlan_packets(draw: st.DrawFn) -> Packet:
    inner = draw(any_packets)
    frame = Frame(draw(macs), draw(macs), inner, 0x0800 if inner.family is Family.IPV4 else 0x86DD)
    body = Udp(draw(ports), 8472, Vxlan(draw(st.integers(0, 2**24 - 1)), frame))
    family = draw(families)
    return Packet(draw(addresses(family)), draw(addresses(family)), Proto.UDP, body)
