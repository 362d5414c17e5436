"""JSON documents through msgspec; a big List is cut into its items first, so a dump is never whole in memory as objects.

Line numbers come from byte offsets: the items of a list follow each other, so each is found right after the last.
A key given twice is refused as the server's strict decoding does. msgspec keeps the last one silently, so its result is
compared with the text by the number of quotation marks, and only a text that differs is read again with Python's json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from netsim.errors import Problem, Source

_SPACE = re.compile(rb"[ \t\r\n]*")
_BYTE = re.compile(r"\(byte (\d+)\)")


class _List(msgspec.Struct, rename="camel"):
    kind: Any = ""
    api_version: Any = ""
    items: list[msgspec.Raw] | None = None


class _Head(msgspec.Struct):
    kind: Any = ""


@dataclass(frozen=True, slots=True)
class Text:
    """One JSON object, not decoded yet. ``list_kind``/``list_version`` are those of the list it came in."""

    data: msgspec.Raw | bytes
    line: int
    list_kind: str = ""
    list_version: str = ""

    def is_secret(self) -> bool:
        """Told from the top-level ``kind`` alone: msgspec passes over all other fields without building them."""
        data = bytes(self.data)
        if b'"Secret"' not in data:
            return False
        try:
            return bool(_head_decoder.decode(data).kind == "Secret")
        except (msgspec.DecodeError, RecursionError):
            return False


class Duplicate(ValueError):
    """``keys``: the keys given twice."""


_head_decoder = msgspec.json.Decoder(_Head)
_list_decoder = msgspec.json.Decoder(_List)
_decoder = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def looks_like_json(data: bytes) -> bool:
    start = _SPACE.match(data)
    at = start.end() if start else 0
    return data[at : at + 1] == b"{"


def read(name: str, data: bytes) -> Iterator[Text | Problem]:
    """Every object of a file of one or more JSON documents; lists are cut into their items."""
    if len(data) >= 1 << 20 and _is_one_document(data):
        yield from _document(name, data, 1)
    else:
        yield from _several(name, data)


def _is_one_document(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _several(name: str, data: bytes) -> Iterator[Text | Problem]:
    """Documents one after the other (``kubectl get`` output concatenated), found with the standard decoder."""
    text = data.decode()
    scanner = json.JSONDecoder()
    at, line = 0, 1
    while True:
        start = at
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        line += text.count("\n", start, at)
        if at >= len(text):
            return
        try:
            _, end = scanner.raw_decode(text, at)
        except json.JSONDecodeError as error:
            yield Problem(f"error converting JSON: {error.msg.lower()}", Source(name, error.lineno))
            return
        except (RecursionError, ValueError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            yield Problem(f"error converting JSON: {reason}", Source(name, line))
            return
        yield from _document(name, text[at:end].encode(), line)
        line += text.count("\n", at, end)
        at = end


def _document(name: str, data: bytes, line: int) -> Iterator[Text | Problem]:
    try:
        top = _list_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        yield Text(data, line)  # its own decoding tells what is wrong
        return
    kind = top.kind if isinstance(top.kind, str) else ""
    if top.items is None or not kind.endswith("List"):
        yield Text(data, line)
        return
    items, top.items = top.items, None
    version = top.api_version if isinstance(top.api_version, str) else ""
    items.reverse()
    at = data.find(b"items")
    counted = 0
    while items:
        item = items.pop()
        raw = bytes(item)
        at = data.find(raw, at)
        line += data.count(b"\n", counted, at)
        counted = at
        at += len(raw)
        yield Text(raw, line, kind, version)


def decode(text: Text) -> Any:
    """The value; raises msgspec.DecodeError, RecursionError, or Duplicate."""
    data = bytes(text.data)
    value = _decoder.decode(data)
    if data.count(b'"') != _encode(value).count(b'"') or b"\\u0022" in data:
        _refuse_duplicates(data)
    return value


def _refuse_duplicates(data: bytes) -> None:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(items)
        if len(seen) != len(items):
            keys = [key for key, _ in items]
            twice.extend(dict.fromkeys(key for key in keys if keys.count(key) > 1))
        return seen

    json.loads(data, object_pairs_hook=pairs)
    if twice:
        raise Duplicate(", ".join(f'duplicate field "{key}"' for key in twice))


def syntax_problem(name: str, text: Text, error: Exception) -> Problem:
    """A decoding error as a Problem, on the line it is at."""
    found = _BYTE.search(str(error))
    data = bytes(text.data)
    line = text.line + (data.count(b"\n", 0, int(found[1])) if found else 0)
    reason = "nested too deeply" if isinstance(error, RecursionError) else _BYTE.sub("", str(error)).strip()
    return Problem(f"error converting JSON: {reason}", Source(name, line))
