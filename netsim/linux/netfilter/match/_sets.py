"""Set names and dimensions, shared by the ``set`` match and the ``SET`` target (``net/netfilter/xt_set.c``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Skb


def dimensions(arguments: Arguments, name: str, text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if not 1 <= len(words) <= 6 or any(word not in ("src", "dst") for word in words):
        arguments.fail(f'"{text}" is not a list of up to six src and dst')
    if not 0 < len(name) < 32:
        arguments.fail(f'"{name}" is not the name of a set')
    return words


def elements(skb: Skb, sides: Sequence[str]) -> list[Any]:
    """For each dimension what the packet offers: every kind of value, the set takes the one of its type.

    A dict ``{"ip": address, "port": (protocol, number) or None, "iface": device, "physdev": bridge port}``. ICMP offers
    type << 8 | code as its number (``ip_set_get_ip_port``); non-first fragments and other protocols have none.
    """
    from netsim.packet.model import Icmp

    packet = skb.packet
    found = []
    for side in sides:
        source = side == "src"
        number = packet.sport if source else packet.dport
        if isinstance(packet.body, Icmp):
            number = packet.body.type << 8 | packet.body.code
        if packet.fragment_offset:
            number = None
        found.append(
            {
                "ip": packet.src if source else packet.dst,
                "port": None if number is None else (int(packet.proto), number),
                "iface": skb.iif if source else skb.oif,
                "physdev": skb.physin if source else skb.physout,
            }
        )
    return found
