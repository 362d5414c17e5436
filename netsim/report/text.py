"""A trace as text, in the three verbosities of ovn-trace: one line an outcome, one block a hop, or every step.

Rules stand verbatim, as iptables-save prints them, so that they can be searched for on the node; what follows ``#`` is
the Kubernetes object behind the rule and the line of the file that it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from netsim.interpreter.outcome import Disposition, Hop, Outcome, Step, StepKind
from netsim.packet.describe import describe, destination_text, tuple_text
from netsim.report.style import Style, clean
from netsim.report.traced import Traced

VERBOSITIES = ("minimal", "summary", "detailed")
_SUMMARY_KINDS = (StepKind.NAT, StepKind.ENCAP, StepKind.DECAP, StepKind.FRAGMENT, StepKind.DROP, StepKind.DELIVER)
_MOST_NAMED = 4
_AS_GOOD_AS = Fraction(1, 10**8)


def lines(traced: Traced, verbosity: str = "detailed", style: Style | None = None) -> Iterator[str]:
    """The report line by line."""
    report = _Report(traced, style or Style())
    yield from report.minimal() if verbosity == "minimal" else report.full(summary=verbosity == "summary")


def probability_text(value: Fraction) -> str:
    """``1/3`` where a reader would write it so (kernels draw from 2^31 numbers, which no third divides), else per cent."""
    near = value.limit_denominator(100)
    if abs(near - value) < _AS_GOOD_AS:
        return str(near)
    return f"{float(value):.3%}"


def why(step: Step) -> str:
    """``Service shop/cart:http (cart.yaml:12)``, or nothing."""
    if step.provenance is None:
        return ""
    source = f" ({step.provenance.source})" if step.provenance.source else ""
    return clean(f"{step.provenance.because}{source}")


def reason(outcome: Outcome) -> str:
    """What decided, and where: ``Service shop/cart:http (cart.yaml:12) [node/n1 nat/KUBE-SEP-… rule 1]``; or nothing."""
    decided = outcome.decided_by
    if decided is None:
        return ""
    step = decided.step
    place = clean(decided.namespace)
    if step.chain and step.rule:
        place = f"{place} {step.table}/{clean(step.chain)} rule {step.rule}"
    return f"{why(step) or clean(step.text)} [{place}]"


class _Report:
    def __init__(self, traced: Traced, style: Style) -> None:
        self.traced = traced
        self.style = style

    # -- one line an outcome -------------------------------------------------------------------------------------------
    def minimal(self) -> Iterator[str]:
        for group in self._folded(with_path=True):
            share = sum((o.probability for _, o in group), Fraction(0))
            first = group[0][1]
            path = ", ".join(_path(first))
            line = f"{probability_text(share):>6}  {self._verdict(first)}{self._ends(group)}"
            line += f"  via {clean(path)}" if path else ""
            line += "  source masqueraded" if first.masqueraded else ""
            if first.disposition not in (Disposition.DELIVERED, Disposition.LEFT):
                line += f"  {self.style.dim('# ' + reason(first))}"
            yield line
            for reply in self.traced.replies.get(group[0][0], ()):
                yield f"{'reply':>6}  {self._verdict(reply)} {self._end(reply)}  via {clean(', '.join(_path(reply)))}"

    # -- one block a hop -----------------------------------------------------------------------------------------------
    def full(self, summary: bool) -> Iterator[str]:
        traced = self.traced
        title = f"{clean(traced.origin)} -> {clean(traced.target)}"
        yield f"{self.style.bold(title)}  {describe(traced.packet)}"
        groups = self._folded(with_path=True) if summary else [[item] for item in enumerate(traced.outcomes)]
        for group in groups:
            number, outcome = group[0]
            yield ""
            if len(traced.outcomes) > 1 or outcome.probability != 1:
                yield self.style.bold(self._heading(group))
            yield from self._hops(outcome, summary)
            yield self._sentence(outcome) if len(group) == 1 else self._shared_sentence(group)
            for reply in traced.replies.get(number, ()):
                yield ""
                yield self.style.bold(f"reply  {describe(reply.sent or reply.packet)}")
                yield from self._hops(reply, summary)
                yield self._sentence(reply)

    def _heading(self, group: Sequence[tuple[int, Outcome]]) -> str:
        total = len(self.traced.outcomes)
        share = probability_text(sum((o.probability for _, o in group), Fraction(0)))
        if len(group) == 1:
            return f"outcome {group[0][0] + 1} of {total}, probability {share}"
        shares = {probability_text(outcome.probability) for _, outcome in group}
        each = f" ({shares.pop()} each)" if len(shares) == 1 else ""
        return f"{len(group)} of {total} outcomes alike but for the endpoint, probability {share}{each}; one of them:"

    def _hops(self, outcome: Outcome, summary: bool) -> Iterator[str]:
        for hop in outcome.hops:
            yield self._hop_title(hop)
            yield from self._steps(hop, summary)

    def _hop_title(self, hop: Hop) -> str:
        node = f" on {hop.node}" if hop.node and hop.namespace != f"node/{hop.node}" else ""
        left = next((device for device, way, _ in reversed(hop.wire) if way == "out"), None)
        devices = f"{hop.device or 'local process'} -> {left}" if left else hop.device or ""
        return f"{self.style.bold(clean(hop.namespace))}{clean(node)}  {clean(devices)}".rstrip()

    def _steps(self, hop: Hop, summary: bool) -> Iterator[str]:
        where: tuple[str | None, str | None] | None = None
        told = ""
        for step in hop.steps:
            if summary and not step.decisive and step.kind not in _SUMMARY_KINDS:
                continue
            if step.kind is StepKind.RULE and not summary:
                here = (step.table, step.hook)
                if here != where:
                    yield f"  {step.table}/{step.hook}"
                    where, told = here, ""
                line = f"    {self._rule(step)}"
            else:
                where = None
                line = f"  {self._plain(step)}"
            because = why(step)
            if because and because != told:
                line += "  " + self.style.dim(f"# {because}")
            told = because or told
            yield line

    def _rule(self, step: Step) -> str:
        number = "policy" if step.rule is None else f"rule {step.rule}"
        line = f"{number:<8} {clean(step.text)}"
        return line + self._changed(step)

    def _plain(self, step: Step) -> str:
        named = f"{step.table} {step.chain} rule {step.rule}: " if step.chain and step.rule else ""
        text = f"{step.kind.value:<10} {clean(named)}{clean(step.text)}"
        if step.kind is StepKind.DROP:
            text = self.style.bad(text)
        return text + self._changed(step)

    def _changed(self, step: Step) -> str:
        if step.before is None and step.after is None:
            return ""
        change = f"{step.before or ''} -> {step.after or ''}"
        return "" if change in step.text else "  " + self.style.change(clean(change))

    # -- the last line -------------------------------------------------------------------------------------------------
    def _verdict(self, outcome: Outcome) -> str:
        paint = self.style.good if outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT) else self.style.bad
        return paint(outcome.disposition.value)

    def _end(self, outcome: Outcome) -> str:
        receiver = self.traced.receiver(outcome)
        packet = outcome.packet
        if receiver is None:
            return f"on the way to {destination_text(packet)}"
        if outcome.disposition is Disposition.LEFT:
            return f"as {tuple_text(packet)}"
        if receiver.endswith(f":{packet.dport}") or packet.dport is None:
            return f"to {clean(receiver)}"
        return f"to {clean(receiver)}:{packet.dport}"

    def _sentence(self, outcome: Outcome) -> str:
        nats = sum(step.kind is StepKind.NAT and bool(step.before) for hop in outcome.hops for step in hop.steps)
        hops = len(outcome.hops)
        parts = [f"{hops} hop{'s' * (hops != 1)}"]
        if nats:
            parts.append(f"{nats} translation{'s' * (nats != 1)}")
        if outcome.masqueraded:
            parts.append("source masqueraded")
        parts.append(f"{outcome.rules_evaluated} rule{'s' * (outcome.rules_evaluated != 1)} evaluated")
        line = f"{self._verdict(outcome)} {self._end(outcome)}, {', '.join(parts)}."
        if outcome.icmp is not None:
            error = outcome.icmp
            fate = "The sender gets" if error.arrived else "The sender never gets"
            mtu = f", MTU {error.mtu}" if error.mtu is not None else ""
            line += f"  {fate} {clean(error.name)} from {error.origin}{mtu}."
        because = reason(outcome)
        return f"{line}  Decided by {because}." if because else line

    def _shared_sentence(self, group: Sequence[tuple[int, Outcome]]) -> str:
        return f"{self._verdict(group[0][1])}{self._ends(group)}."

    def _ends(self, group: Sequence[tuple[int, Outcome]]) -> str:
        ends = list(dict.fromkeys(self._end(outcome) for _, outcome in group))
        if len(ends) == 1:
            return f" {ends[0]}"
        first, *rest = ends
        names = [first, *(end.removeprefix("to ").removeprefix("on the way to ") for end in rest)]
        shown = ", ".join(names[:_MOST_NAMED])
        return f" {shown}" + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")

    def _folded(self, with_path: bool) -> list[list[tuple[int, Outcome]]]:
        """Outcomes that differ in nothing but their endpoint, together; in order of their first."""
        groups: dict[object, list[tuple[int, Outcome]]] = {}
        for number, outcome in enumerate(self.traced.outcomes):
            icmp = outcome.icmp
            key = (
                outcome.disposition,
                outcome.masqueraded,
                (icmp.name, str(icmp.origin), icmp.arrived) if icmp else None,
                tuple(_path(outcome)) if with_path else None,
                outcome.packet.dport,
                # two failures are alike only if the same thing decided them; a reply belongs to its own outcome
                reason(outcome) if self.traced.receiver(outcome) is None else None,
                number if number in self.traced.replies else None,
            )
            groups.setdefault(key, []).append((number, outcome))
        return list(groups.values())


def _path(outcome: Outcome) -> list[str]:
    """The nodes (and routers) it passed, each named once a visit."""
    found: list[str] = []
    for hop in outcome.hops:
        name = hop.node or hop.namespace
        if not found or found[-1] != name:
            found.append(name)
    return found


__all__ = ["VERBOSITIES", "lines", "probability_text", "reason", "why"]
