"""Rewriting the packet that an ICMP error quotes, in its bytes: it may be cut short, so it cannot be rebuilt."""

from __future__ import annotations

from dataclasses import replace

from netsim.linux.conntrack import Tuple
from netsim.packet.address import Family
from netsim.packet.model import Icmp, Packet, Proto

_CHECKSUM_AT = {Proto.TCP: 16, Proto.UDP: 6, Proto.UDPLITE: 6, Proto.ICMP: 2, Proto.ICMPV6: 2}


def requote(error: Packet, target: Tuple, source_side: bool) -> bytes | Packet | None:
    """The error's payload with the quoted source (or destination) as in ``target``; None if it is too short."""
    assert isinstance(error.body, Icmp)
    payload = error.body.payload
    if isinstance(payload, Packet):
        if source_side:
            return replace(payload, src=target.src).with_ports(sport=target.sport)
        return replace(payload, dst=target.dst).with_ports(dport=target.dport)
    return _patch(payload, error.family, target, source_side)


def _patch(payload: bytes, family: Family, target: Tuple, source_side: bool) -> bytes | None:
    data = bytearray(payload)
    if len(data) < (20 if family is Family.IPV4 else 40):
        return None
    if family is Family.IPV4:
        header, size, at, proto = (data[0] & 15) * 4, 4, 12, data[9]
    else:
        header, size, at, proto = 40, 16, 8, data[6]
    at += 0 if source_side else size
    address = (target.src if source_side else target.dst).packed
    changes = [(bytes(data[at : at + size]), address)]
    data[at : at + size] = address
    if family is Family.IPV4:
        _fix(data, 10, changes)
    if proto in (Proto.TCP, Proto.UDP, Proto.UDPLITE, Proto.SCTP):
        port = (target.sport if source_side else target.dport).to_bytes(2, "big")
        port_at = header + (0 if source_side else 2)
    elif proto in (Proto.ICMP, Proto.ICMPV6):
        port, port_at = target.sport.to_bytes(2, "big"), header + 4
    else:
        return bytes(data)
    if len(data) < port_at + 2:
        return None
    changed_port = (bytes(data[port_at : port_at + 2]), port)
    data[port_at : port_at + 2] = port
    checksum_at = _CHECKSUM_AT.get(proto)  # type: ignore[call-overload]
    if checksum_at is not None and len(data) >= header + checksum_at + 2:
        zero = proto == Proto.UDP and not any(data[header + 6 : header + 8])
        if not zero:
            pseudo = [] if proto == Proto.ICMP else changes
            _fix(data, header + checksum_at, [*pseudo, changed_port])
    return bytes(data)


def _fix(data: bytearray, at: int, changes: list[tuple[bytes, bytes]]) -> None:
    """Update a checksum for changed words (RFC 1624)."""
    total = ~int.from_bytes(data[at : at + 2], "big") & 0xFFFF
    for before, after in changes:
        for i in range(0, len(before), 2):
            total += ~int.from_bytes(before[i : i + 2], "big") & 0xFFFF
            total += int.from_bytes(after[i : i + 2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
