"""Addresses as kube-proxy reads them: leniently, and printed back in canonical form.

Kubernetes keeps accepting IPv4 octets with leading zeros (always decimal, never octal) in fields written long ago, and
takes an IPv4-mapped IPv6 address for the IPv4 one.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from netsim.packet.address import Family, IPAddress, IPNetwork

# What most texts look like, and what needs no second thought.
_CANONICAL_V4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)


def _without_leading_zeros(text: str) -> str:
    return ".".join(str(int(part)) if part.isascii() and part.isdigit() else part for part in text.split("."))


@lru_cache(maxsize=1 << 16)
def parse_ip(text: str) -> IPAddress:
    """The address meant by ``text``; ValueError if none is."""
    address = ipaddress.ip_address(text if ":" in text else _without_leading_zeros(text))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1 << 12)
def parse_cidr(text: str) -> IPNetwork:
    """The network meant by ``text``, which must state a prefix length; host bits are masked off."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise ValueError(f"invalid CIDR address: {text}")
    return ipaddress.ip_network((str(ipaddress.ip_address(_plain(address))), int(length)), strict=False)


def _plain(text: str) -> str:
    return text if ":" in text else _without_leading_zeros(text)


def canonical_ip(text: str) -> str:
    """``text`` as kube-proxy prints it; ValueError if it is no address."""
    return text if _CANONICAL_V4.match(text) else str(parse_ip(text))


def text_family(address: str) -> Family:
    """The family of an address or prefix in canonical text."""
    return Family.IPV6 if ":" in address else Family.IPV4
