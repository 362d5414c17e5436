"""Rates and token buckets, shared by ``limit`` and ``hashlimit`` (``xt_limit.c``, ``xt_hashlimit.c`` and their libxt).

A rate is kept as a period: ``scale`` parts of a second a packet.
"""

from __future__ import annotations

from netsim.linux.netfilter.arguments import Arguments

_UNITS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))
_SHORT = {"second": "sec", "minute": "min"}


def read(arguments: Arguments, text: str, name: str, scale: int) -> tuple[int, int]:
    """The period of ``5``, ``5/min`` …, and the seconds of its unit."""
    count, slash, unit = text.partition("/")
    known = [seconds for word, seconds in _UNITS if slash and unit and word.startswith(unit.lower())]
    number = arguments.number(count, 0xFFFFFFFF, name, 1)
    seconds = known[0] if known else 1
    period = scale * seconds // number
    if (slash and not known) or not period:
        arguments.fail(f'{name}: "{text}" is not a rate such as 5/min (at most {scale}/sec)')
    return period, seconds


def show(period: int, scale: int) -> tuple[str, int]:
    """``print_rate``: from days down to seconds, for as long as the rate stays about whole; and the unit's seconds."""
    best = 3
    for index in (2, 1, 0):
        unit = _UNITS[index][1] * scale
        if period > unit or unit // period < unit % period:
            break
        best = index
    word, seconds = _UNITS[best]
    return f"{seconds * scale // period}/{_SHORT.get(word, word)}", seconds


def take(state: dict[str, float], now: float, period: int, burst: int, scale: int) -> bool:
    """One packet's worth from a bucket that starts full: is it allowed?"""
    full = float(period * burst)
    credit = min(full, state.get("credit", full) + (now - state.get("at", now)) * scale)
    state["at"] = now
    allowed = credit >= period
    state["credit"] = credit - period if allowed else credit
    return allowed
