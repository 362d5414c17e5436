"""Expectation files: reading them, holding them against a cluster, and reporting.

"allow" holds when every endpoint that the destination stands for may be reached on the port; "deny" when none may. With
``via``, "allow" also wants the way itself: every outcome of the traced packet passes the nodes and devices named, in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim.cli.policy_input import PROTOCOLS, Question
from netsim.errors import InputError, Problem, Source, UsageError
from netsim.packet.address import Family

if TYPE_CHECKING:
    from netsim.cli.ways import Ways

_KEYS = {"name", "from", "to", "protocol", "port", "expect", "because", "via"}


@dataclass(frozen=True)
class Expectation:
    name: str
    source: str
    destination: str
    protocol: str
    port: int | str | None
    expect: str
    because: str
    place: Source
    via: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    expectation: Expectation
    actual: str  # allow, deny, or mixed
    decided_by: tuple[str, ...]
    explanation: tuple[str, ...]
    other_ways: tuple[str, ...] = ()  # that packets take, which ``via`` did not expect

    @property
    def holds(self) -> bool:
        return self.actual == self.expectation.expect and not self.other_ways

    def to_json(self) -> dict[str, Any]:
        e = self.expectation
        return {
            "name": e.name,
            "from": e.source,
            "to": e.destination,
            "protocol": e.protocol,
            "port": e.port,
            "expect": e.expect,
            "actual": self.actual,
            "holds": self.holds,
            "via": list(e.via) or None,
            "otherWays": list(self.other_ways) or None,
            "decided_by": list(self.decided_by),
            "because": e.because or None,
            "source": str(e.place),
        }

    def lines(self) -> Iterator[str]:
        e = self.expectation
        told = f"{'ok  ' if self.holds else 'FAIL'} {e.name}: {e.source} -> {e.destination}"
        port = f" {e.protocol}:{e.port}" if e.port else f" {e.protocol}"
        by = ", but goes another way" if self.other_ways else ""
        yield f"{told}{port} expected {e.expect}, is {self.actual}{by}"
        if not self.holds:
            if e.because:
                yield f"     meant: {e.because} ({e.place})"
            for way in self.other_ways:
                yield f"     expected by {', '.join(e.via)}; a packet goes by {way}"
            yield from (f"     {line}" for line in self.explanation)


def read(path: str) -> list[Expectation]:
    """InputError lists every problem of the file."""
    from netsim.kube.yaml_reader import field_lines
    from netsim.kube.yaml_reader import read as documents

    text, shown = _text(path)
    problems: list[Problem] = []
    found: list[Expectation] = []
    lines = None
    for document in documents(shown, text):
        if isinstance(document, Problem):
            problems.append(document)
            continue
        value = document.value
        items = value.get("expectations") if isinstance(value, dict) else None
        if not isinstance(items, list):
            complaint = "an expectation file is {expectations: [{from, to, expect, …}]}"
            problems.append(Problem(complaint, Source(shown, document.line)))
            continue
        lines = lines or field_lines(text)
        for index, item in enumerate(items):
            line = lines.get((document.line, ("expectations", index)), document.line)
            one = _one(item, index, Source(shown, line), problems)
            if one is not None:
                found.append(one)
    if problems:
        raise InputError(problems)
    if not found:
        raise InputError([Problem("there is no expectation in this file", Source(shown))])
    return found


def _text(path: str) -> tuple[str, str]:
    if path == "-":
        return sys.stdin.read(), "-"
    if path == "@expectations":  # what the bundled example's policies are meant to do
        from importlib.resources import files

        return files("netsim").joinpath("data", "expectations.yaml").read_text(encoding="utf-8"), path
    try:
        return Path(path).read_text(encoding="utf-8"), path
    except OSError as error:
        raise InputError([Problem(f"cannot be read: {error.strerror}", Source(path))]) from None
    except UnicodeDecodeError:
        raise InputError([Problem("is not UTF-8 text", Source(path))]) from None


def _one(item: Any, index: int, place: Source, problems: list[Problem]) -> Expectation | None:
    field = f"expectations[{index}]"
    before = len(problems)
    if not isinstance(item, dict):
        problems.append(Problem("an expectation is an object with from, to and expect", place, field=field))
        return None
    for key in item:
        if key not in _KEYS:
            problems.append(
                Problem(f"unknown field; there are {', '.join(sorted(_KEYS))}", place, field=f"{field}.{key}")
            )
    for key in ("from", "to", "expect"):
        if not isinstance(item.get(key), str):
            problems.append(Problem("Required value: a text", place, field=f"{field}.{key}"))
    expect = str(item.get("expect") or "")
    if expect and expect not in ("allow", "deny"):
        text = f'Unsupported value: "{expect}": supported values: "allow", "deny"'
        problems.append(Problem(text, place, field=f"{field}.expect"))
    protocol = str(item.get("protocol") or "TCP").upper()
    if protocol not in PROTOCOLS:
        text = f'Unsupported value: "{protocol}": supported values: "SCTP", "TCP", "UDP"'
        problems.append(Problem(text, place, field=f"{field}.protocol"))
    port = item.get("port")
    number = isinstance(port, int) and not isinstance(port, bool)
    if port is not None and not isinstance(port, str) and not (number and 1 <= port <= 65535):
        text = f"Invalid value: {port}: must be between 1 and 65535, inclusive, or a port's name"
        problems.append(Problem(text, place, field=f"{field}.port"))
    via = item.get("via")
    if via is not None and not (isinstance(via, list) and via and all(isinstance(one, str) and one for one in via)):
        problems.append(Problem("Invalid value: a list of nodes or devices, in order", place, field=f"{field}.via"))
    elif via is not None and expect == "deny":
        text = "goes with expect: allow; a packet that policy refuses has no way to compare"
        problems.append(Problem(text, place, field=f"{field}.via"))
    if len(problems) > before:
        return None
    name = str(item.get("name") or f"{item['from']} to {item['to']}")
    return Expectation(
        name, item["from"], item["to"], protocol, port, expect, str(item.get("because") or ""), place, tuple(via or ())
    )


def evaluate(
    asked: Question, expectations: Sequence[Expectation], family: Family, ways: Callable[[], Ways] | None = None
) -> list[Result]:
    """Unknown places are listed all at once, as InputError with their expectation's line. ``ways`` makes the network that
    ``via`` is asked of, which needs a data plane; it is called only when some expectation has it."""
    network = ways() if ways is not None and any(e.via for e in expectations) else None
    problems: list[Problem] = []
    results: list[Result] = []
    for expectation in expectations:
        try:
            result = _judge(asked, expectation, family)
            if network is not None and expectation.via:
                result = replace(result, other_ways=network.others(expectation, family))
            results.append(result)
        except UsageError as error:
            problems.append(Problem(str(error), expectation.place, expectation.name))
    if problems:
        raise InputError(problems)
    return results


def _judge(asked: Question, expectation: Expectation, family: Family) -> Result:
    from netsim_policies.algebra import PortSet
    from netsim_policies.explain import because, explain, to_text

    source = asked.source(expectation.source).endpoint
    text = expectation.destination
    if isinstance(expectation.port, str) and text.startswith("svc/"):
        text = f"{text}:{expectation.port}"
    answers: list[bool] = []
    decided: list[str] = []
    told: list[str] = []
    for target in asked.destinations(text, expectation.source):
        port = target.port
        if isinstance(expectation.port, int) and not text.startswith("svc/"):
            port = expectation.port
        elif isinstance(expectation.port, int):
            port = _behind(asked, text, expectation.port) or target.port
        elif isinstance(expectation.port, str) and port is None:
            port = target.endpoint.named_ports.get((expectation.port, expectation.protocol))
            if port is None:
                raise UsageError(f"{text}: {target.endpoint.name} has no port called {expectation.port!r}")
        wanted = PortSet.single(expectation.protocol, port) if port else PortSet.of(expectation.protocol)
        found = explain(asked.world, source, target.endpoint, family)
        answers.append(wanted <= found.decision.allowed)
        for side in found.sides:
            decided += [because(v) for v in side.verdicts if v.ports & wanted and (v.allowed == answers[-1])]
        if answers[-1] != (expectation.expect == "allow"):  # what disproves it
            told += list(to_text(found))
    actual = "allow" if all(answers) else "mixed" if any(answers) else "deny"
    return Result(expectation, actual, tuple(dict.fromkeys(decided)), tuple(told))


def _behind(asked: Question, text: str, port: int) -> int | None:
    """The pods' port behind a Service's port number."""
    targets = asked.destinations(f"{text}:{port}" if ":" not in text else text)
    return targets[0].port if targets else None


def junit(results: Sequence[Result]) -> str:
    """One test case per expectation."""
    from xml.sax.saxutils import escape, quoteattr

    from netsim.report.style import clean

    failed = sum(not r.holds for r in results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="netsim check" tests="{len(results)}" failures="{failed}" errors="0" skipped="0">',
    ]
    for result in results:
        name = quoteattr(clean(result.expectation.name))  # XML has no place for control characters
        if result.holds:
            lines.append(f'  <testcase classname="netsim.check" name={name}/>')
            continue
        message = quoteattr(f"expected {result.expectation.expect}, is {result.actual}")
        body = escape("\n".join(map(clean, result.lines())))
        lines.append(f'  <testcase classname="netsim.check" name={name}>')
        lines.append(f"    <failure message={message}>{body}</failure>")
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>", ""])
