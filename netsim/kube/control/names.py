"""Names that controllers make: the API server's safe alphabet, FNV hashes, and generated suffixes without chance.

Upstream (apimachinery, util/rand and names.SimpleNameGenerator; Kubernetes 1.33) draws five random signs. netsim takes
them from a hash of the owner, the kind and a counter, so that the same input always gives the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_PRIME = 16777619
_OFFSET = 2166136261
_MASK = 0xFFFFFFFF
_LONGEST_BASE = 58  # 63 minus the five signs


def fnv1a(data: bytes, state: int = _OFFSET) -> int:
    """FNV-1a, 32 bit; ``state`` continues an earlier hash."""
    for byte in data:
        state = ((state ^ byte) * _PRIME) & _MASK
    return state


def fnv1(data: bytes, state: int = _OFFSET) -> int:
    """FNV-1, 32 bit, which ControllerRevisions of StatefulSets use."""
    for byte in data:
        state = (state * _PRIME & _MASK) ^ byte
    return state


def safe_encode(text: str) -> str:
    """Every sign replaced by one of the alphabet, as rand.SafeEncodeString does with decimal hashes."""
    return "".join(ALPHABET[ord(sign) % len(ALPHABET)] for sign in text)


def prefix(owner: str) -> str:
    """``owner-``, without the dash where the dash would make the name invalid (controller.getPodsPrefix)."""
    return f"{owner}-" if re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", owner) and len(owner) < 253 else owner


def suffix(namespace: str, owner: str, kind: str, counter: int) -> str:
    """Five signs for the ``counter``-th ``kind`` that ``namespace/owner`` makes."""
    number = fnv1a(f"{namespace}/{owner}\0{kind}\0{counter}".encode())
    # FNV's low digits of near inputs are near: spread them, so that names look as unlike as real ones.
    number = (number ^ number >> 15) * 0x2C1B3C6D & _MASK
    number ^= number >> 13
    signs = []
    for _ in range(5):
        number, digit = divmod(number, len(ALPHABET))
        signs.append(ALPHABET[digit])
    return "".join(signs)


class Generator:
    """generateName for one owner: counts up and, on a clash, on to the next counter as the server retries."""

    def __init__(self, namespace: str, owner: str, kind: str, taken: Callable[[str], bool]) -> None:
        self._namespace, self._owner, self._kind, self._taken = namespace, owner, kind, taken
        self._counter = 0

    def next(self, base: str) -> str:
        """A free name that starts with ``base`` (cut so that the whole fits a label)."""
        while True:
            name = base[:_LONGEST_BASE] + suffix(self._namespace, self._owner, self._kind, self._counter)
            self._counter += 1
            if not self._taken(name):
                return name
