"""Addresses, prefixes and families: the standard library's ``ipaddress`` values, parsed once and shared.

The model is family-neutral: code handles ``IPAddress`` and asks ``family_of`` only where the kernel itself differs.
"""

from __future__ import annotations

import enum
import ipaddress
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from socket import AF_INET, inet_pton

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface


class Family(enum.IntEnum):
    """An address family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        return 32 if self is Family.IPV4 else 128


@lru_cache(maxsize=1 << 18)
def ip(text: str) -> IPAddress:
    """The address written as ``text``; ValueError if it is none. Leading zeros mean nothing, as to the API server, which
    takes 010.0.0.1 for 10.0.0.1 in the fields that are older than its strict ones (``ParseIPSloppy``)."""
    try:
        return IPv4Address(int.from_bytes(inet_pton(AF_INET, text), "big"))  # what most are, in a tenth of the time
    except (OSError, ValueError):
        parts = text.split(".")
        if len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts):
            return IPv4Address(".".join(str(int(part)) for part in parts))
        return ipaddress.ip_address(text)


@lru_cache(maxsize=1 << 18)
def network(text: str) -> IPNetwork:
    """The prefix written as ``text`` (a bare address is a host prefix); host bits are masked off, as the kernel does."""
    if "/" not in text and ":" not in text:
        with suppress(ValueError):
            return host_network(ip(text))
    return ipaddress.ip_network(text, strict=False)


@lru_cache(maxsize=1 << 16)
def interface(text: str) -> IPInterface:
    """An address with its prefix length, such as ``10.244.1.1/24``."""
    return ipaddress.ip_interface(text)


def family_of(value: IPAddress | IPNetwork | IPInterface) -> Family:
    return Family.IPV4 if value.version == 4 else Family.IPV6


def host_network(address: IPAddress) -> IPNetwork:
    """``address`` as a /32 or /128."""
    return IPv4Network((int(address), 32)) if address.version == 4 else IPv6Network((int(address), 128))


def endpoint(address: IPAddress | str, port: int) -> str:
    """``10.0.0.1:80`` or ``[fd00::1]:80``."""
    text = str(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
