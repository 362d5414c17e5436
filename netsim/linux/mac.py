"""MAC addresses where a real system draws random ones: a hash of names, locally administered, always the same."""

from __future__ import annotations

import hashlib


def mac_for(*names: str) -> str:
    """A unicast, locally administered address made from ``names`` (first octet ``x & 0xfe | 0x02``)."""
    digest = bytearray(hashlib.sha256("\0".join(names).encode()).digest()[:6])
    digest[0] = digest[0] & 0xFE | 0x02
    return digest.hex(":")
