"""IPv6 source address selection: RFC 6724 as ``ipv6_get_saddr_eval`` applies it (Linux 6.1)."""

from __future__ import annotations

from collections.abc import Iterable

from netsim.linux.route import Address
from netsim.packet.address import IPAddress, network

LINK_SCOPE, SITE_SCOPE, GLOBAL_SCOPE = 2, 5, 14
# ip6addrlbl_init_table, the most specific first
LABELS = tuple(
    (network(prefix), label)
    for prefix, label in (
        ("::1/128", 0),
        ("::ffff:0:0/96", 4),
        ("::/96", 3),
        ("2001::/32", 6),
        ("2001:10::/28", 7),
        ("2002::/16", 2),
        ("3ffe::/16", 12),
        ("fec0::/10", 11),
        ("fc00::/7", 5),
    )
)


def select_source6(device: str, dst: IPAddress, candidates: Iterable[tuple[str, Address]]) -> IPAddress | None:
    """The best of ``candidates`` (device, address), the first of equals; None if there is none.

    A link-local or multicast destination takes an address of the device itself."""
    near = dst.is_multicast or scope_of(dst) == LINK_SCOPE
    best: tuple[tuple[int, ...], IPAddress] | None = None
    for name, address in candidates:
        held = address.interface.ip
        if held.version != 6 or (near and name != device):
            continue
        score = _score(held, address.interface.network.prefixlen, dst, name == device)
        if best is None or score > best[0]:
            best = score, held
    return best[1] if best is not None else None


def _score(held: IPAddress, length: int, dst: IPAddress, outgoing: bool) -> tuple[int, ...]:
    """Larger is better: same address, fitting scope, outgoing device, same label, longest common prefix."""
    scope = scope_of(held)
    fitting = -scope if scope >= scope_of(dst) else scope - 128
    common = min(128 - (int(held) ^ int(dst)).bit_length(), length)
    return int(held == dst), fitting, int(outgoing), int(label(held) == label(dst)), common


def scope_of(address: IPAddress) -> int:
    if address.is_multicast:
        return int(address) >> 112 & 15
    if address.is_link_local or address.is_loopback:
        return LINK_SCOPE
    return SITE_SCOPE if int(address) >> 118 == 0xFEC0 >> 6 else GLOBAL_SCOPE


def label(address: IPAddress) -> int:
    return next((label for prefix, label in LABELS if address in prefix), 1)
