"""Every exception netsim raises on purpose.

    NetsimError                      exit code (see netsim.cli)
    ├── UsageError                    2   the command line asks for something that makes no sense
    ├── InputError                    3   the input cannot be used; carries every Problem found
    ├── UnsupportedError              3   the input is fine but asks for something netsim does not model
    ├── PrivilegeError                4   a privilege or a kernel feature is missing
    └── DisagreementError             5   model and kernel disagree

A message is a sentence that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Where an object came from: ``file`` as the user named it (``-`` is standard input), 1-based ``line``."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint about an input: ``file:line: field: text``.

    ``object`` names the object as kubectl would (``Service "x"``), ``field`` is the API path (``spec.ports[0].port``);
    either may be empty. ``text`` is the API server's wording where the API server would complain.
    """

    text: str
    source: Source | None = None
    object: str = ""
    field: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        named = f"{self.object}: " if self.object else ""
        path = f"{self.field}: " if self.field else ""
        return f"{where}{named}{path}{self.text}"


class NetsimError(Exception):
    """Base of all errors; ``exit_code`` is what the command line returns."""

    exit_code = 70


class UsageError(NetsimError):
    exit_code = 2


class InputError(NetsimError):
    """The input cannot be used. ``problems`` holds every complaint, in input order."""

    exit_code = 3

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems: Sequence[Problem] = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UnsupportedError(InputError):
    """Something netsim knows of but does not model (WireGuard, IPsec …): refused, never ignored."""


class PrivilegeError(NetsimError):
    exit_code = 4


class DisagreementError(NetsimError):
    exit_code = 5
