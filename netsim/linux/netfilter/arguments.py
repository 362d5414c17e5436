"""Words of an iptables command: tokenising as iptables-restore does, and the options handed to a match or a target.

Quotes and escapes follow ``add_param_to_argv`` and ``xtables_save_string`` of iptables 1.8.9: a backslash escapes only
inside double quotes, and a printed string stays bare only if it is made of letters, digits, ``_`` and ``-``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from netsim.errors import InputError
from netsim.packet.address import Family, IPAddress, ip

_TOKEN = re.compile(r'[^\s"]*"(?:[^"\\]|\\.)*"|[^\s"]+', re.S)  # a closing quote ends the word
_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|([^"]+)', re.S)
_ESCAPE = re.compile(r"\\(.)", re.S)
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_MUST_ESCAPE = re.compile(r"([\"\\'])")


def tokenise(text: str) -> list[str]:
    """The words of one line. InputError if a quote is left open."""
    if '"' not in text:
        return text.split()
    tokens = [_unquote(word) if '"' in word else word for word in _TOKEN.findall(text)]
    if _TOKEN.sub("", text).strip():
        raise InputError("a double quote is not closed")
    return tokens


def _unquote(word: str) -> str:
    return "".join(_ESCAPE.sub(r"\1", quoted) if quoted or not bare else bare for quoted, bare in _PIECE.findall(word))


def quote(value: str) -> str:
    """``value`` as iptables-save prints a free string."""
    if _BARE.match(value):
        return value
    escaped = _MUST_ESCAPE.sub(r"\\\1", value)
    return f'"{escaped}"'


class Option(NamedTuple):
    """One option as given: its canonical name, its values, and whether ``!`` came before it."""

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        return self.values[0]


class Arguments:
    """The options given to one match or target. Readers complain in one voice: ``NAME: --option: text``."""

    __slots__ = ("_options", "family", "owner")

    def __init__(self, owner: str, family: Family, options: Sequence[Option]) -> None:
        self.owner = owner
        self.family = family
        self._options: dict[str, Option] = {}
        for option in options:
            if option.name in self._options:
                self.fail(f"{option.name} is given more than once")
            self._options[option.name] = option

    def fail(self, text: str) -> NoReturn:
        raise InputError(f"{self.owner}: {text}")

    def get(self, name: str) -> Option | None:
        """The option, which may be negated."""
        return self._options.get(name)

    def plain(self, name: str) -> Option | None:
        """The option, which must not be negated."""
        option = self._options.get(name)
        if option is not None and option.negated:
            self.fail(f"{name} cannot be negated")
        return option

    def flag(self, name: str) -> bool:
        return self.plain(name) is not None

    def need(self, name: str) -> Option:
        option = self._options.get(name)
        if option is None:
            self.fail(f"option {name} must be given")
        return option

    def text(self, name: str, default: str | None = None) -> str | None:
        option = self.plain(name)
        return default if option is None else option.value

    def integer(self, name: str, highest: int, lowest: int = 0) -> int | None:
        """The number given with a plain option (decimal, 0x… or 0…), None without it."""
        option = self.plain(name)
        return None if option is None else self.number(option.value, highest, name, lowest)

    def number(self, text: str, highest: int, name: str = "value", lowest: int = 0) -> int:
        value = parse_int(text)
        if value is None or not lowest <= value <= highest:
            self.fail(f'{name}: "{text}" is not a number from {lowest} to {highest}')
        return value

    def range(self, text: str, separator: str = ":", highest: int = 65535, name: str = "range") -> tuple[int, int]:
        """``5``, ``5:9``, ``5:`` and ``:9``."""
        low, mark, high = text.partition(separator)
        if not mark:
            value = self.number(low, highest, name)
            return value, value
        pair = (
            self.number(low, highest, name) if low else 0,
            self.number(high, highest, name) if high else highest,
        )
        if pair[0] > pair[1]:
            self.fail(f'{name}: "{text}" ends before it starts')
        return pair

    def mark(self, text: str, name: str = "mark") -> tuple[int, int]:
        """``VALUE[/MASK]`` of 32 bits each; without a mask, all bits."""
        value, _, mask = text.partition("/")
        return (
            self.number(value, 0xFFFFFFFF, name),
            self.number(mask, 0xFFFFFFFF, name) if mask else 0xFFFFFFFF,
        )

    def address(self, text: str, name: str = "address") -> IPAddress:
        try:
            address = ip(text)
        except ValueError:
            self.fail(f'{name}: "{text}" is not an IP address')
        if address.version != int(self.family):
            self.fail(f'{name}: "{text}" is not an IPv{int(self.family)} address')
        return address


def parse_int(text: str) -> int | None:
    """An unsigned number as C's strtoul with base 0 reads it."""
    try:
        if text.isdecimal():
            return int(text, 8) if len(text) > 1 and text[0] == "0" else int(text)
        return int(text, 16) if text[:2].lower() == "0x" else None
    except ValueError:
        return None


def not_(negated: bool) -> str:
    """The blank before an option, with ``!`` if negated."""
    return " ! " if negated else " "


def ports_text(low: int, high: int, separator: str = ":") -> str:
    return str(low) if low == high else f"{low}{separator}{high}"
