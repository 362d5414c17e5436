"""Colour for terminals, and text that cannot talk to one.

Colour never carries meaning alone: every coloured word says the same without it. Whatever comes from an input passes
``clean`` before it is written, so an object's name cannot move the cursor or set the title of somebody's terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    r"""``text`` with control characters and bidirectional overrides spelt out (``\x1b``)."""
    return _CONTROL.sub(lambda found: _spelt(found[0]), text)


def _spelt(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def wants_colour(choice: str, environment: Mapping[str, str], terminal: bool) -> bool:
    """``--color``, then NO_COLOR, CLICOLOR_FORCE and FORCE_COLOR, then whether it is a terminal that can."""
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    for forced in ("CLICOLOR_FORCE", "FORCE_COLOR"):
        if environment.get(forced, "0") not in ("", "0"):
            return True
    return terminal and environment.get("TERM", "dumb") != "dumb"


class Style:
    """Paints when ``on``, and hands text through when not."""

    def __init__(self, on: bool = False) -> None:
        self.on = on

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and text else text

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        return self._paint("2", text)

    def good(self, text: str) -> str:
        return self._paint("1;32", text)

    def bad(self, text: str) -> str:
        return self._paint("1;31", text)

    def change(self, text: str) -> str:
        return self._paint("36", text)
