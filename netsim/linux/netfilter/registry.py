"""Finds matches and targets by name. Nothing is imported before a rule asks for it.

A member lives in ``match/NAME.py`` or ``target/NAME.py`` (lower case; ``_`` at the end where the name is a Python keyword).
Modules that start with ``_`` are shared parts, not members.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import TypeVar

from netsim.linux.netfilter.base import Match, Target

Member = TypeVar("Member", Match, Target)
_SAME = {"icmpv6": "icmp6"}  # other names iptables knows a match by

# Targets of iptables 1.8.9 that are not modelled. No chain may bear such a name, so a rule that names one is no jump.
UNMODELLED = frozenset((
    "AUDIT", "CLUSTERIP", "CONNSECMARK", "DNPT", "DSCP", "ECN", "HL", "HMARK", "IDLETIMER", "LED", "QUEUE", "RATEEST",
    "SECMARK", "SNPT", "SYNPROXY", "TCPOPTSTRIP", "TEE", "TOS", "TTL", "ULOG",
))  # fmt: skip


@cache
def _modules(kind: str) -> frozenset[str]:
    return frozenset(path.stem for path in (Path(__file__).parent / kind).glob("*.py") if not path.stem.startswith("_"))


def _load(kind: str, stem: str, base: type[Member]) -> type[Member] | None:
    modules = _modules(kind)
    if stem not in modules:
        stem += "_"
        if stem not in modules:
            return None
    module = importlib.import_module(f"netsim.linux.netfilter.{kind}.{stem}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
            return value
    raise TypeError(f"{module.__name__} defines no {base.__name__}")


@cache
def match(name: str) -> type[Match] | None:
    """The match called ``name``; None if there is none."""
    return _load("match", _SAME.get(name, name), Match)


def target(name: str) -> type[Target] | None:
    """The target called ``name``; None if there is none (then it is a chain)."""
    return _targets().get(name) or _find_target(name)


@cache
def _targets() -> dict[str, type[Target]]:
    return {}


def _find_target(name: str) -> type[Target] | None:
    if not name.isupper() or (name.lower() not in _modules("target") and f"{name.lower()}_" not in _modules("target")):
        return None
    found = _load("target", name.lower(), Target)
    if found is None or found.name != name:
        return None
    _targets()[name] = found
    return found


def all_matches() -> list[type[Match]]:
    """Every match, by name. Imports them all: for tests and documentation."""
    return sorted((m for m in map(match, (s.rstrip("_") for s in _modules("match"))) if m), key=lambda m: m.name)


def all_targets() -> list[type[Target]]:
    names = (stem.rstrip("_").upper() for stem in _modules("target"))
    return sorted((t for t in map(target, names) if t), key=lambda t: t.name)
