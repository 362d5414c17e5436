"""From paths to documents' text: files, directories, standard input, gzip, and the encodings people really have.

``-`` is standard input, ``@example`` the example that comes with netsim. A directory gives its ``.json``, ``.yaml`` and
``.yml`` files in name order, as ``kubectl -f`` does (subdirectories with ``recursive``); a file named outright is read
whatever its name.
"""

from __future__ import annotations

import codecs
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from netsim.errors import InputError, Problem, Source

EXAMPLE = "@example"
MAX_BYTES = 4 << 30  # of one file, after decompression
_EXTENSIONS = (".json", ".yaml", ".yml", ".json.gz", ".yaml.gz", ".yml.gz")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class File:
    """One input: the name the user knows it by and its bytes, UTF-8 without a byte order mark."""

    name: str
    data: bytes


def read(paths: Sequence[str], *, recursive: bool = False, stdin: BinaryIO | None = None) -> Iterator[File | Problem]:
    """Every input of ``paths`` in order, one file in memory at a time; what cannot be read comes as a Problem."""
    for path in paths:
        if path == "-":
            yield _decoded("-", _guarded(lambda: (stdin or sys.stdin.buffer).read(MAX_BYTES + 1)))
        elif path == EXAMPLE:
            yield from _example()
        elif os.path.isdir(path):
            found = False
            for name in _directory(path, recursive):
                found = True
                yield _file(name)
            if not found:
                yield Problem(
                    "no .yaml, .yml or .json file here"
                    + ("" if recursive else "; --recursive looks in subdirectories"),
                    Source(path),
                )
        else:
            yield _file(path)


def _directory(path: str, recursive: bool) -> Iterator[str]:
    """Names below ``path``; links are followed to files but never to directories, so a loop cannot trap the walk."""
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(subfolders) if recursive else []
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(_EXTENSIONS))


def _example() -> Iterator[File | Problem]:
    from importlib.resources import files

    folder = files("netsim") / "data" / "example"
    if not folder.is_dir():
        raise InputError("this installation of netsim lacks its example (netsim/data/example)")
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(_EXTENSIONS):
            yield File(f"{EXAMPLE}/{item.name}", item.read_bytes())


def _file(path: str) -> File | Problem:
    def content() -> bytes:
        with Path(path).open("rb") as handle:
            return handle.read(MAX_BYTES + 1)

    return _decoded(path, _guarded(content))


def _guarded(content: object) -> bytes | str:
    """The bytes, or the reason why there are none."""
    try:
        data: bytes = content()  # type: ignore[operator]
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except MemoryError:
        return "too large to be held in memory"
    return data if len(data) <= MAX_BYTES else f"larger than {MAX_BYTES >> 30} GiB"


def _decoded(name: str, data: bytes | str) -> File | Problem:
    if isinstance(data, str):
        return Problem(f"cannot be read: {data}", Source(name))
    if data[:2] == b"\x1f\x8b":
        unpacked = _gunzip(data)
        if isinstance(unpacked, str):
            return Problem(f"cannot be decompressed: {unpacked}", Source(name))
        data = unpacked
    if data[:2] in _UTF16:
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError:
            return Problem("is not valid UTF-16", Source(name))
    elif data[:3] == codecs.BOM_UTF8:
        data = data[3:]
    problem = _suspicious(data)
    return Problem(problem[0], Source(name, problem[1])) if problem else File(name, data)


def _gunzip(data: bytes) -> bytes | str:
    """All members of a gzip stream, refusing to inflate past the size limit."""
    parts: list[bytes] = []
    size = 0
    while data:
        inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(data, MAX_BYTES - size + 1)
        except zlib.error as error:
            return str(error)
        size += len(part)
        if size > MAX_BYTES:
            return f"larger than {MAX_BYTES >> 30} GiB when decompressed"
        if not inflater.eof:
            return "the gzip stream is truncated"
        parts.append(part)
        data = inflater.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _suspicious(data: bytes) -> tuple[str, int] | None:
    """Bytes that no YAML or JSON text holds: a clear word about them beats the parser's."""
    where = data.find(b"\0")
    if where >= 0:
        return "holds a NUL byte: this is not a YAML or JSON text", data.count(b"\n", 0, where) + 1
    try:
        if not data.isascii():
            codecs.decode(data, "utf-8", "strict")
    except UnicodeDecodeError as error:
        return f"is not valid UTF-8: {error.reason} (byte {error.start})", data.count(b"\n", 0, error.start) + 1
    return None
