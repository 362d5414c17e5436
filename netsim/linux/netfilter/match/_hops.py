"""The hop limit, shared by ``ttl`` (IPv4) and ``hl`` (IPv6): ``net/netfilter/xt_hl.c``."""

from __future__ import annotations

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.lowering import Column, Constraint, Kind

MODES = ("eq", "lt", "gt")


def read(arguments: Arguments, word: str) -> tuple[str, int, bool]:
    """The mode (eq, lt or gt), the number and the negation, which only eq may have."""
    given = [mode for mode in MODES if arguments.get(f"--{word}-{mode}")]
    if len(given) != 1:
        arguments.fail(f"exactly one of --{word}-eq, --{word}-lt and --{word}-gt must be given")
    name = f"--{word}-{given[0]}"
    option = arguments.need(name) if given[0] == "eq" else arguments.plain(name)
    assert option is not None
    return given[0], arguments.number(option.value, 255, name), option.negated


def bounds(mode: str, value: int) -> tuple[int, int]:
    """The numbers that match, both ends included; the first is greater than the second if there are none."""
    return (value, value) if mode == "eq" else (0, value - 1) if mode == "lt" else (value + 1, 255)


def ok(have: int, mode: str, value: int, negated: bool) -> bool:
    low, high = bounds(mode, value)
    return (low <= have <= high) != negated


def constraint(mode: str, value: int, negated: bool) -> tuple[Constraint, ...]:
    return (Constraint(Column.TTL, Kind.RANGES, (bounds(mode, value),), negated),)
