"""Address handles: 32 bits for an address of either family.

An IPv4 address is its own number. IPv6 addresses are interned: handle ``h`` means ``words[h]`` (high and low 64 bits).
Handles are never given back; a handle of one family means nothing in the other.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import numpy.typing as npt

from netsim.packet.address import IPAddress

_MASK = (1 << 64) - 1


class Addresses:
    """``words``: ``(capacity, 2) uint64``; it is replaced when it grows, so take it afresh for each call of a kernel."""

    def __init__(self) -> None:
        self.words: npt.NDArray[np.uint64] = np.zeros((1024, 2), np.uint64)
        self._handles: dict[int, int] = {}

    @property
    def interned(self) -> int:
        """How many IPv6 addresses have handles."""
        return len(self._handles)

    def handle(self, address: IPAddress) -> int:
        number = int(address)
        if isinstance(address, IPv4Address):
            return number
        found = self._handles.get(number)
        if found is None:
            found = self._handles[number] = len(self._handles)
            if found == len(self.words):
                self.words = np.concatenate((self.words, np.zeros_like(self.words)))
            self.words[found] = number >> 64, number & _MASK
        return found

    def address(self, handle: int, family: int) -> IPAddress:
        """IndexError for an IPv6 handle that was never given out."""
        if family == 4:
            return IPv4Address(handle)
        if handle >= len(self._handles):
            raise IndexError(f"{handle} is no handle of an IPv6 address")
        high, low = (int(word) for word in self.words[handle])
        return IPv6Address(high << 64 | low)
