"""YAML as Kubernetes reads it (sigs.k8s.io/yaml over goyaml.v2), safe against hostile text.

Values are built straight from libyaml's events, never from a node graph: the stack is ours, so nesting is refused at
``MAX_DEPTH`` before anything recurses; aliases are expanded against a budget, so a bomb is refused while it is small;
a key given twice is refused with both lines; every value's line is known. The scalar rules are YAML 1.1 with goyaml's
differences: no base 60, no dates, ``y``/``n`` are booleans, ``1e3`` is a number, ``0o17`` is octal.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
import yaml.cyaml
from yaml.events import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent

from netsim.errors import Problem, Source

MAX_DEPTH = 100
MAX_ALIASED = 100_000  # values that aliases of one document may stand for
_SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?\r?$", re.MULTILINE)
_BLANK = re.compile(r"(?:[ \t]*(?:#.*|%.*)?\r?(?:\n|\Z))*\Z")
_STR = "tag:yaml.org,2002:str"
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """``value`` is JSON data; ``line`` where it starts; ``item_lines`` the lines of a top-level ``items`` list."""

    value: Any
    line: int
    item_lines: tuple[int, ...] = ()


class _Refused(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line, self.text = line, text


def read(name: str, text: str) -> Iterator[Document | Problem]:
    """Every document of a stream; a bad one comes as a Problem and does not hide those after it.

    Documents are cut at ``---`` lines before parsing, as kubectl does.
    """
    for first_line, chunk in _chunks(text):
        try:
            yield from _Builder(chunk, first_line).documents()
        except _Refused as refused:
            yield Problem(refused.text, Source(name, refused.line))
        except yaml.YAMLError as error:
            yield _syntax_problem(name, first_line, error)
        except RecursionError:
            yield Problem(f"nested deeper than {MAX_DEPTH} levels", Source(name, first_line))


def field_lines(text: str) -> dict[tuple[int, Path], int]:
    """(line of the document, path) → line, for every field of a stream; read again only when there is a problem."""
    found: dict[tuple[int, Path], int] = {}
    for first_line, chunk in _chunks(text):
        builder = _Builder(chunk, first_line, positions=[])
        try:
            for document in builder.documents():
                for path, line in builder.positions or ():
                    found[document.line, path] = line
                builder.positions = []
        except (_Refused, yaml.YAMLError):
            continue
    return found


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of the parts between ``---`` lines that hold more than comments."""
    start, line = 0, 1
    for separator in _SEPARATOR.finditer(text):
        part = text[start : separator.start()]
        if not _BLANK.match(part):
            yield line, part
        line += text.count("\n", start, separator.end() + 1)
        start = min(separator.end() + 1, len(text))
    part = text[start:]
    if not _BLANK.match(part):
        yield line, part


def _syntax_problem(name: str, first_line: int, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    line = first_line + (mark.line if mark else 0)
    return Problem(f"error converting YAML to JSON: yaml: {text}", Source(name, line))


def _event_source(text: str) -> Callable[[], Any]:
    parser: Any = yaml.cyaml.CParser(text)  # type: ignore[attr-defined]
    next_event: Callable[[], Any] = parser.get_event
    return next_event


class _Builder:
    """One chunk's events turned into JSON data."""

    def __init__(self, text: str, first_line: int, positions: list[tuple[Path, int]] | None = None) -> None:
        self.next = _event_source(text)
        self.offset = first_line
        self.positions = positions
        self.anchors: dict[str, tuple[Any, int, int]] = {}  # value, how many values, how deep
        self.aliased = 0

    def documents(self) -> Iterator[Document]:
        while True:
            event = self.next()
            kind = event.__class__
            if kind is yaml.StreamEndEvent:
                return
            if kind is yaml.DocumentStartEvent:
                self.anchors.clear()
                self.aliased = 0
                first = self.next()
                item_lines: list[int] = []
                value = self._value(first, 0, (), item_lines)
                yield Document(value, first.start_mark.line + self.offset, tuple(item_lines))

    def _value(self, event: Any, depth: int, path: Path, item_lines: list[int] | None = None) -> Any:
        kind = event.__class__
        if kind is ScalarEvent:
            tag = event.tag
            if tag is None:
                value = resolve(event.value) if event.implicit[0] else event.value
            else:
                value = self._tagged(event, tag)
            if event.anchor is not None:
                self.anchors[event.anchor] = (value, 1, 0)
            return value
        if kind is AliasEvent:
            return self._alias(event, depth)
        if depth >= MAX_DEPTH:
            raise _Refused(event.start_mark.line + self.offset, f"nested deeper than {MAX_DEPTH} levels")
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        if kind is MappingStartEvent:
            value = self._mapping(event, depth, path, item_lines)
        else:
            value = self._sequence(depth, path, item_lines if path == ("items",) else None)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, *_extent(value))
        return value

    def _sequence(self, depth: int, path: Path, item_lines: list[int] | None) -> list[Any]:
        result: list[Any] = []
        read, value_of, positions = self.next, self._value, self.positions
        while True:
            event = read()
            if event.__class__ is SequenceEndEvent:
                return result
            if item_lines is not None:
                item_lines.append(event.start_mark.line + self.offset)
            below = path
            if positions is not None:
                below = (*path, len(result))
                self.positions.append((below, event.start_mark.line + self.offset))  # type: ignore[union-attr]
            elif item_lines is not None:
                below = (0,)
            result.append(value_of(event, depth + 1, below))

    def _mapping(self, start: Any, depth: int, path: Path, item_lines: list[int] | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[dict[str, Any]] = []
        read, value_of, positions, offset = self.next, self._value, self.positions, self.offset
        while True:
            event = read()
            if event.__class__ is MappingEndEvent:
                break
            line = event.start_mark.line + offset
            if event.__class__ is ScalarEvent:
                plain = event.implicit[0] and event.tag is None
                key = event.value
                if plain and key in _SPECIAL_KEYS:
                    if key == "<<":
                        merged.extend(self._merge(read(), depth, line))
                        continue
                    key = _key_text(resolve(key))
                elif plain and key[:1] in _NUMERIC_START:
                    key = _key_text(resolve(key))
            else:
                found = value_of(event, depth + 1, path)
                if isinstance(found, (dict, list)):
                    raise _Refused(line, "error converting YAML to JSON: a map or list cannot be a key")
                key = _key_text(found)
            if key in lines:
                raise _Refused(
                    line,
                    f'error converting YAML to JSON: yaml: key "{key}" already set in map '
                    f"(line {lines[key]} and line {line})",
                )
            lines[key] = line
            below: Path = path
            if positions is not None:
                below = (*path, key)
                self.positions.append((below, line))  # type: ignore[union-attr]
            elif item_lines is not None:
                below = (key,)
            event = read()
            if event.__class__ is ScalarEvent and event.tag is None and event.anchor is None:  # nearly always
                result[key] = resolve(event.value) if event.implicit[0] else event.value
            else:
                result[key] = value_of(event, depth + 1, below, item_lines if depth == 0 else None)
        for other in merged:
            for key, value in other.items():
                result.setdefault(key, value)
        return result

    def _merge(self, event: Any, depth: int, line: int) -> list[dict[str, Any]]:
        value = self._value(event, depth + 1, ("<<",))
        maps = value if isinstance(value, list) else [value]
        if not all(isinstance(item, dict) for item in maps):
            raise _Refused(line, "error converting YAML to JSON: yaml: map merge requires map or sequence of maps")
        return maps

    def _alias(self, event: Any, depth: int) -> Any:
        line = event.start_mark.line + self.offset
        if event.anchor not in self.anchors:
            raise _Refused(line, f"error converting YAML to JSON: yaml: unknown anchor '{event.anchor}' referenced")
        value, size, height = self.anchors[event.anchor]
        self.aliased += size
        if depth + height > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")
        if self.aliased > MAX_ALIASED:
            raise _Refused(line, "error converting YAML to JSON: yaml: document contains excessive aliasing")
        return _copy(value)

    def _tagged(self, event: Any, tag: str) -> Any:
        text, line = event.value, event.start_mark.line + self.offset
        if tag in (_STR, "!"):
            return text
        if tag == "tag:yaml.org,2002:binary":
            try:
                return base64.b64decode(text, validate=False).decode("utf-8", "replace")
            except (binascii.Error, ValueError):
                raise _Refused(
                    line, "error converting YAML to JSON: yaml: !!binary value contains invalid base64 data"
                ) from None
        value = resolve(text)
        if tag == "tag:yaml.org,2002:float" and type(value) is int:
            return float(value)
        wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(tag.rpartition(":")[2])
        if not tag.startswith("tag:yaml.org,2002:") or wanted is None:
            raise _Refused(line, f"error converting YAML to JSON: yaml: the tag {tag} has no meaning in Kubernetes")
        if type(value) is not wanted:
            raise _Refused(
                line, f"error converting YAML to JSON: yaml: cannot decode `{text}` as a !!{tag.rpartition(':')[2]}"
            )
        return value


def _extent(value: Any) -> tuple[int, int]:
    """(how many values, how many levels)."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        return 1, 0
    extents = [_extent(item) for item in inner]
    return 1 + sum(size for size, _ in extents), 1 + max((height for _, height in extents), default=0)


def _copy(value: Any) -> Any:
    """Aliases are copied, so that defaulting one object cannot change another."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


# -- scalars -----------------------------------------------------------------------------------------------------------
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **{w: True for word in ("y", "yes", "true", "on") for w in (word, word.capitalize(), word.upper())},
    **{w: False for word in ("n", "no", "false", "off") for w in (word, word.capitalize(), word.upper())},
}
_SPECIAL_KEYS = frozenset(_WORDS) | {"<<"}
_NUMERIC_START = frozenset("0123456789+-.")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INTEGER = re.compile(r"([-+]?)(?:0x([0-9a-fA-F]+)|0b([01]+)|0o([0-7]+)|(0[0-7]*)|([1-9][0-9]*))", re.ASCII)
_NOT_JSON = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", ".nan", ".NaN", ".NAN"}


def resolve(text: str) -> Any:
    """The JSON value of a plain scalar.

    Infinities stay text: JSON has no word for them, and no field of the API takes them.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START or len(text) > 4000:
        return text
    digits = text.replace("_", "")
    match = _INTEGER.fullmatch(digits)
    if match:
        sign, hexadecimal, binary, octal, old_octal, decimal = match.groups()
        number = (
            int(hexadecimal, 16)
            if hexadecimal
            else int(binary, 2)
            if binary
            else int(octal or old_octal, 8)
            if octal or old_octal
            else int(decimal)
        )
        number = -number if sign == "-" else number
        # goyaml falls back to a float past 64 bits
        return number if -(1 << 63) <= number < 1 << 64 else float(number) if number.bit_length() < 1024 else text
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            return text
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return text


def _key_text(value: Any) -> str:
    """A key as JSON text: sigs.k8s.io/yaml turns numbers and booleans into their text."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
