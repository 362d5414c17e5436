"""A packet with other addresses and ports: as it left a translation, or as another sends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netsim.compiled.addresses import Addresses
from netsim.packet.model import Icmp, Packet


def readdressed(packet: Packet, columns: Any, number: int, addresses: Addresses, ttl: int | None = None) -> Packet:
    """``packet`` with the src, dst, sport and dport (of ICMP: identifier, type and code) of row ``number`` of ``columns``, a
    batch or a result, and ``ttl`` if given. What has no ports keeps having none, nor does a later fragment get any."""
    family = packet.src.version
    src, dst = (addresses.address(int(getattr(columns, name)[number]), family) for name in ("src", "dst"))
    sport, dport = int(columns.sport[number]), int(columns.dport[number])
    moved = replace(packet, src=src, dst=dst, ttl=packet.ttl if ttl is None else ttl)
    body = packet.body
    if isinstance(body, Icmp):
        return replace(
            moved, body=replace(body, type=dport >> 8, code=dport & 255, rest=sport << 16 | body.rest & 0xFFFF)
        )
    return moved.with_ports(sport, dport)
