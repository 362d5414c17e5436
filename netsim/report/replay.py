"""What came of a replay: counted while it runs, told as text or JSON.

Failures are grouped by who wanted to reach what; the first packet of each of the first groups is explained, with the rule or
route that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from netsim.datapath.columns import IPV6
from netsim.datapath.replay import Engine, Part, Replay, Survey
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.packet.address import endpoint
from netsim.packet.describe import proto_text
from netsim.packet.model import Proto
from netsim.report.json import API_VERSION
from netsim.report.style import Style, clean
from netsim.report.text import reason

_DISPOSITIONS: Final = tuple(Disposition)
_SUCCESS: Final = (Disposition.DELIVERED, Disposition.LEFT)
_HOW: Final = ("fast", "slow", "interpreter")
_EXPLAINED = 20  # groups of failures of which one packet is looked into
_KEPT = 10_000  # groups; further packets are counted together
_SHOWN = 10  # lines of any list in the text


@dataclass(slots=True)
class Failure:
    """Packets that had the same sender and target and did not arrive. ``first`` is the number of the first one."""

    verdict: Disposition
    src: str
    dst: str
    port: int | None
    proto: str
    first: int
    count: int = 0
    because: str = ""


@dataclass(slots=True)
class Summary:
    """``naming``: a place's name from a receiver's namespace, its address and port. ``explain``: what the interpreter says
    of one packet of the batch processed last (``Datapath.explain``); without it failures are counted, not explained."""

    path: str
    survey: Survey
    replay: Replay
    seed: int
    naming: Callable[[str, Any, int | None], str] = lambda namespace, address, port: namespace
    explain: Callable[[int], Outcome] | None = None
    sent: int = 0
    answers: int = 0
    verdicts: Counter[Disposition] = field(default_factory=Counter)
    receivers: Counter[str] = field(default_factory=Counter)
    how: Counter[str] = field(default_factory=Counter)
    rules: Counter[int] = field(default_factory=Counter)
    failures: dict[tuple[int, ...], Failure] = field(default_factory=dict)
    unlisted: int = 0
    _names: dict[tuple[int, ...], str] = field(default_factory=dict)

    def add(self, part: Part, engine: Engine) -> None:
        """Count what came of ``part``, which the engine processed last."""
        batch, result = part.batch, part.result
        self.sent += len(batch)
        self.answers += int(np.count_nonzero(part.answers))
        for number, count in enumerate(np.bincount(result.verdict, minlength=len(_DISPOSITIONS)).tolist()):
            self.verdicts[_DISPOSITIONS[number]] += count
        for number, count in enumerate(np.bincount(result.how, minlength=3).tolist()):
            self.how[_HOW[number]] += count
        known, counts = np.unique(result.rules, return_counts=True)
        self.rules.update(dict(zip(known.tolist(), counts.tolist())))
        arrived = np.isin(result.verdict, [_DISPOSITIONS.index(end) for end in _SUCCESS])
        self._receive(part, arrived, engine)
        for number in np.flatnonzero(~arrived).tolist():
            self._fail(part, number, engine)

    def _receive(self, part: Part, arrived: Any, engine: Engine) -> None:
        result, batch = part.result, part.batch
        columns = (result.receiver, result.dst, result.dport, batch.proto, batch.flags & IPV6)
        rows = np.stack([column[arrived].astype(np.int64) for column in columns], axis=1)
        for row, count in zip(*(found.tolist() for found in np.unique(rows, axis=0, return_counts=True))):
            key = tuple(row)
            name = self._names.get(key)
            if name is None:
                receiver, dst, port, proto, six = key
                address = engine.addresses.address(dst, 6 if six else 4)
                number = port if proto in (Proto.TCP, Proto.UDP, Proto.SCTP) else None
                name = self._names[key] = self.naming(engine.namespace_name(receiver) or "", address, number)
            self.receivers[name] += count

    def _fail(self, part: Part, number: int, engine: Engine) -> None:
        batch = part.batch
        row = tuple(int(column[number]) for column in (batch.src, batch.dst, batch.dport, batch.proto, batch.flags))
        key = (int(part.result.verdict[number]), *row[:4], row[4] & IPV6)
        failure = self.failures.get(key)
        if failure is None:
            if len(self.failures) == _KEPT:
                self.unlisted += 1
                return
            failure = self.failures[key] = self._failure(key, part, number, engine)
        failure.count += 1

    def _failure(self, key: tuple[int, ...], part: Part, number: int, engine: Engine) -> Failure:
        verdict, src, dst, dport, proto, six = key
        from_, to = (str(engine.addresses.address(handle, 6 if six else 4)) for handle in (src, dst))
        port = dport if proto in (Proto.TCP, Proto.UDP, Proto.SCTP) else None
        found = Failure(_DISPOSITIONS[verdict], from_, to, port, proto_text(proto), int(part.numbers[number]))
        if len(self.failures) >= _EXPLAINED:
            self.replay.explainable = False
        elif self.explain is not None and part.explained:
            found.because = reason(self.explain(number))
        return found

    # -- told ----------------------------------------------------------------------------------------------------------
    def rule_quantile(self, share: float) -> int:
        """So many rules or fewer were evaluated for this share of the packets."""
        wanted, seen = share * self.rules.total(), 0
        for rules in sorted(self.rules):
            seen += self.rules[rules]
            if seen >= wanted:
                return rules
        return 0

    def worst(self) -> list[Failure]:
        return sorted(self.failures.values(), key=lambda failure: (-failure.count, failure.first))

    def document(self) -> dict[str, Any]:
        """``kind: Replay``, version ``netsim/v1alpha1``."""
        survey = self.survey
        return {
            "apiVersion": API_VERSION,
            "kind": "Replay",
            "capture": {
                "file": self.path,
                "packets": survey.packets,
                "seconds": round((survey.last - survey.first) / 1e9, 9),
                "remarks": dict(survey.remarks),
            },
            "seed": self.seed,
            "sent": self.sent,
            "answers": self.answers,
            "late": self.replay.late,
            "left_out": dict(survey.oddities + self.replay.left_out),
            "verdicts": {verdict.value: self.verdicts[verdict] for verdict in _DISPOSITIONS},
            "receivers": dict(self.receivers.most_common()),
            "rules_evaluated": {
                "median": self.rule_quantile(0.5),
                "p99": self.rule_quantile(0.99),
                "max": max(self.rules, default=0),
                "total": sum(rules * count for rules, count in self.rules.items()),
            },
            "how": {how: self.how[how] for how in _HOW},
            "failures": [
                {
                    "verdict": failure.verdict.value,
                    "from": failure.src,
                    "to": failure.dst,
                    "dport": failure.port,
                    "proto": failure.proto,
                    "packets": failure.count,
                    "first_packet": failure.first,
                    "because": failure.because or None,
                }
                for failure in self.worst()
            ],
            "unlisted_failures": self.unlisted,
        }

    def lines(self, style: Style | None = None) -> Iterator[str]:
        style, survey = style or Style(), self.survey
        seconds = (survey.last - survey.first) / 1e9
        yield f"capture   {clean(self.path)}: {_packets(survey.packets)} in {seconds:,.6f} s"
        answered = f", {self.answers:,} of them answers by whoever received the question" if self.answers else ""
        yield f"sent      {_packets(self.sent)}{answered}"
        yield from _listed("left out", survey.oddities + self.replay.left_out)
        late = Counter({"captured before the packet ahead of them (sent at its time)": self.replay.late})
        yield from _listed("of these", survey.remarks + late)
        ends = [f"{self._painted(end, style)} {self.verdicts[end]:,}" for end in _DISPOSITIONS if self.verdicts[end]]
        yield f"outcomes  {', '.join(ends) or 'none'}"
        yield from _listed("received", self.receivers)
        if self.sent:
            half, most = self.rule_quantile(0.5), self.rule_quantile(0.99)
            yield f"rules     evaluated per packet: median {half:,}, 99% at most {most:,}, most {max(self.rules):,}"
            yield f"run by    {', '.join(f'{how} {self.how[how]:,}' for how in _HOW if self.how[how])}"
        failures = self.worst()
        if failures:
            yield ""
            yield style.bold("did not arrive")
        for failure in failures[:_SHOWN]:
            to = failure.dst if failure.port is None else endpoint(failure.dst, failure.port)
            line = f"{failure.count:>9,}  {style.bad(failure.verdict.value)}  {failure.src} -> {to} {failure.proto}"
            because = f": {failure.because}" if failure.because else ""
            yield f"{line}, first packet {failure.first:,}{because}"
        if len(failures) > _SHOWN:
            rest = failures[_SHOWN:]
            yield f"{sum(one.count for one in rest):>9,}  of {len(rest):,} more such pairs (-o json lists them)"
        if self.unlisted:
            yield f"{self.unlisted:>9,}  of pairs beyond the first {_KEPT:,}, which are not told apart"

    def _painted(self, verdict: Disposition, style: Style) -> str:
        return style.good(verdict.value) if verdict in _SUCCESS else style.bad(verdict.value)


def _packets(count: int) -> str:
    return f"{count:,} packet{'s' * (count != 1)}"


def _listed(title: str, counts: Counter[str]) -> Iterator[str]:
    """``title``, then the largest counts, one a line."""
    shown = counts.most_common(_SHOWN)
    for number, (words, count) in enumerate(shown):
        yield f"{title if number == 0 else '':<9} {count:,}  {clean(words)}"
    if len(counts) > len(shown):
        rest = counts.total() - sum(count for _, count in shown)
        yield f"{'':<9} {rest:,}  ({len(counts) - len(shown):,} others; -o json lists them)"
