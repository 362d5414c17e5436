"""Field errors in the API server's words (apimachinery, util/validation/field, 1.33).

A Fault is one error of one object: ``field`` is the path the server prints, ``text`` the body after it. ``at`` is where the
value stands in the input when that differs from what the server prints; it only serves to find the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    field: str
    text: str
    at: str = ""


class Go(str):
    """Text printed as it is, without quotes: types with a String method, and %#v of structs."""


def quote(text: str) -> str:
    """Go's strconv.Quote for what can be in JSON text."""
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02x}")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f",
            "\v": "\\v"}  # fmt: skip


def show(value: Any) -> str:
    """A value as field errors print it."""
    if isinstance(value, Go):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return '"null"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return "[]string{" + ", ".join(map(quote, value)) + "}"
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return "map[string]string{" + ", ".join(f"{quote(k)}:{quote(v)}" for k, v in sorted(value.items())) + "}"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Faults:
    """The errors of one object, in the server's order."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, field: str, text: str, at: str = "") -> None:
        self.found.append(Fault(field, text, at))

    def required(self, field: str, detail: str = "") -> None:
        self.add(field, f"Required value: {detail}" if detail else "Required value")

    def invalid(self, field: str, value: Any, detail: str, at: str = "") -> None:
        self.add(field, f"Invalid value: {show(value)}: {detail}", at)

    def unsupported(self, field: str, value: Any, supported: Iterable[str], at: str = "") -> None:
        values = ", ".join(map(quote, supported))
        self.add(field, f"Unsupported value: {show(value)}: supported values: {values}", at)

    def duplicate(self, field: str, value: Any, detail: str = "", at: str = "") -> None:
        self.add(field, f"Duplicate value: {show(value)}" + (f": {detail}" if detail else ""), at)

    def forbidden(self, field: str, detail: str) -> None:
        self.add(field, f"Forbidden: {detail}")

    def too_long(self, field: str, limit: int) -> None:
        self.add(field, f"Too long: may not be more than {limit} bytes")

    def too_many(self, field: str, actual: int, limit: int) -> None:
        self.add(field, f"Too many: {actual}: must have at most {limit} items")

    def all_invalid(self, field: str, value: Any, details: Iterable[str], at: str = "") -> None:
        for detail in details:
            self.invalid(field, value, detail, at)
