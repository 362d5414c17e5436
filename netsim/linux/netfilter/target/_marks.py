"""Mark arithmetic as typed, shared by MARK and CONNMARK: everything becomes (xor value, clear mask)."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.linux.netfilter.arguments import Arguments

_ALL = 0xFFFFFFFF


def read(arguments: Arguments, names: Sequence[str]) -> tuple[int, int] | None:
    """The one option of ``names`` that was given; None if there was none."""
    given = [option for name in names if (option := arguments.plain(name))]
    if not given:
        return None
    if len(given) > 1:
        arguments.fail(f"{given[0].name} and {given[1].name} exclude each other")
    name, text = given[0].name, given[0].value
    if name == "--set-xmark":
        return arguments.mark(text, name)
    if name == "--set-mark":
        value, mask = arguments.mark(text, name)
        return value, mask | value
    bits = arguments.number(text, _ALL, name)
    if name == "--or-mark":
        return bits, bits
    if name == "--xor-mark":
        return bits, 0
    return 0, bits ^ _ALL
