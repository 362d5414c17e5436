"""What a change of manifests changes in reachability, with the policy change that caused each difference.

Workloads are compared by name (``Deployment shop/web``), so a new pod hash is no difference. ``diff(a, a)`` is empty and
``diff(a, b)`` mirrors ``diff(b, a)`` with added and removed exchanged.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.packet.address import Family
from netsim_policies.algebra import NO_PORTS, PortSet
from netsim_policies.evaluate import Decision, decide, exemption
from netsim_policies.explain import ports_json
from netsim_policies.matrix import Cells
from netsim_policies.model import Direction, Policy, World
from netsim_policies.reach import Group, Reachability


@dataclass(frozen=True)
class PolicyChange:
    """``what`` is added, removed or changed."""

    what: str
    policy: Policy

    def __str__(self) -> str:
        where = f" ({self.policy.source})" if self.policy.source else ""
        return f"{self.policy.label} {self.what}{where}"


@dataclass(frozen=True)
class Change:
    """A connection that differs. ``appeared``/``vanished`` name workloads that exist on one side only."""

    source: str
    destination: str
    before: PortSet
    after: PortSet
    causes: tuple[PolicyChange, ...]
    note: str = ""

    @property
    def added(self) -> PortSet:
        return self.after - self.before

    @property
    def removed(self) -> PortSet:
        return self.before - self.after

    @property
    def kind(self) -> str:
        if not self.before:
            return "added"
        return "changed" if self.after else "removed"


@dataclass(frozen=True)
class Diff:
    policies: tuple[PolicyChange, ...]
    workloads_added: tuple[str, ...]
    workloads_removed: tuple[str, ...]
    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)


def diff(before: World, after: World, family: Family = Family.IPV4) -> Diff:
    """Every connection between workloads that exist on both sides whose ports differ; workloads that come or go are
    listed, and their connections count as added or removed."""
    old, new = Reachability(before, family, after.policies), Reachability(after, family, before.policies)
    old_groups, new_groups = _by_name(old.groups), _by_name(new.groups)
    policies = tuple(policy_changes(before, after))
    names = sorted({*old_groups, *new_groups})
    changes: list[Change] = []
    known: dict[Any, tuple[PolicyChange, ...]] = {}  # causes
    for source, destination in _suspects(old, old_groups, new, new_groups, names):
        was = _ports(old, old_groups, source, destination)
        now = _ports(new, new_groups, source, destination)
        if was != now:
            note = _note(source, destination, old_groups, new_groups)
            causes: tuple[PolicyChange, ...] = ()
            if not note:
                ends = [(g[source], g[destination]) for g in (old_groups, new_groups)]
                causes = _causes((old, new), ends, (was - now) | (now - was), policies, known)
            changes.append(Change(source, destination, was, now, causes, note))
    return Diff(
        policies,
        tuple(n for n in names if n not in old_groups),
        tuple(n for n in names if n not in new_groups),
        tuple(changes),
    )


def _suspects(
    old: Reachability, old_groups: dict[str, Group], new: Reachability, new_groups: dict[str, Group], names: list[str]
) -> Iterator[tuple[str, str]]:
    """The pairs of names that may differ, in order. Of thousands of workloads nearly none do: their classes are compared."""
    pairs = len(names) ** 2
    before, after = old.cells(pairs), new.cells(pairs)
    if before is None or after is None:
        yield from itertools.product(names, repeat=2)
        return
    numbers: dict[PortSet, int] = {NO_PORTS: 0}
    was, now = (_Lines(reach, cells, groups, names, numbers) for reach, cells, groups in (
        (old, before, old_groups), (new, after, new_groups)))  # fmt: skip
    place = {name: at for at, name in enumerate(names)}
    exempt: dict[int, set[int]] = {}
    for a, b in itertools.chain(old.exempt(), new.exempt()):
        exempt.setdefault(place[a.name], set()).add(place[b.name])
    for at, source in enumerate(names):
        found = set(np.flatnonzero(was.line(at) != now.line(at)).tolist()) | exempt.get(at, set())
        yield from ((source, names[to]) for to in sorted(found))


class _Lines:
    """What workloads by name reach on each other by their classes; ``numbers`` are given to port sets for both sides."""

    def __init__(
        self, reach: Reachability, cells: Cells, groups: dict[str, Group], names: list[str], numbers: dict[PortSet, int]
    ) -> None:
        self.cells = cells
        self.number = np.array([numbers.setdefault(ports, len(numbers)) for ports in reach.matrix.port_sets], np.int64)
        self.of = np.array([groups[name].number if name in groups else -1 for name in names], np.int64)

    def line(self, at: int) -> npt.NDArray[np.int64]:
        """None to and from a workload that this side does not have."""
        found = np.zeros(len(self.of), np.int64)
        if self.of[at] >= 0:
            found = self.number[self.cells[self.of[at]][self.of]]
            found[self.of < 0] = 0
        return found


def _by_name(groups: Iterable[Group]) -> dict[str, Group]:
    return {g.name: g for g in groups}


def _ports(reach: Reachability, groups: dict[str, Group], source: str, destination: str) -> PortSet:
    a, b = groups.get(source), groups.get(destination)
    if a is None or b is None or (a.kind == b.kind == "external"):
        return NO_PORTS
    return reach.between(a, b)


def _note(source: str, destination: str, old: dict[str, Group], new: dict[str, Group]) -> str:
    for name in (source, destination):
        if name not in old:
            return f"{name} is new"
        if name not in new:
            return f"{name} is gone"
    return ""


def policy_changes(before: World, after: World) -> Iterator[PolicyChange]:
    """Policies by kind, namespace and name; where a policy stands in its file does not count."""
    old = {(p.kind, p.namespace, p.name): p for p in before.policies}
    new = {(p.kind, p.namespace, p.name): p for p in after.policies}
    for key in sorted({*old, *new}):
        if key not in old:
            yield PolicyChange("added", new[key])
        elif key not in new:
            yield PolicyChange("removed", old[key])
        elif replace(old[key], source=None) != replace(new[key], source=None):
            yield PolicyChange("changed", new[key])


def _causes(
    sides: Sequence[Reachability],
    ends: Sequence[tuple[Group, Group]],
    differing: PortSet,
    policies: tuple[PolicyChange, ...],
    known: dict[Any, tuple[PolicyChange, ...]],
) -> tuple[PolicyChange, ...]:
    """Those changed policies that decide about a differing port on either side; ``known`` for pairs of the same classes."""
    pairs = [
        (reach.world.endpoints[a.members[0]], reach.world.endpoints[b.members[-1]])
        for reach, (a, b) in zip(sides, ends, strict=True)
    ]
    exempt = tuple(exemption(a, b, direction) for a, b in pairs for direction in Direction)
    key = tuple((a.number, b.number) for a, b in ends), exempt, differing
    found = known.get(key)
    if found is None:
        deciding: set[tuple[str, str, str]] = set()
        for reach, (a, b) in zip(sides, pairs, strict=True):
            deciding |= _deciding(decide(reach.world, a, b, reach.family), differing)
        chosen = (c for c in policies if (c.policy.kind, c.policy.namespace, c.policy.name) in deciding)
        found = known[key] = tuple(chosen)
    return found


def _deciding(decision: Decision, ports: PortSet) -> set[tuple[str, str, str]]:
    return {
        (policy.kind, policy.namespace, policy.name)
        for direction in Direction
        for verdict in decision.side(direction)
        if verdict.ports & ports
        for policy in verdict.policies
    }


# -- spelling --------------------------------------------------------------------------------------------------------
def to_json(found: Diff) -> dict[str, Any]:
    return {
        "apiVersion": "netsim/v1alpha1",
        "kind": "ReachabilityDiff",
        "policies": [
            {"change": c.what, "kind": c.policy.kind, "namespace": c.policy.namespace or None, "name": c.policy.name,
             "source": str(c.policy.source) if c.policy.source else None}
            for c in found.policies
        ],
        "workloads": {"added": list(found.workloads_added), "removed": list(found.workloads_removed)},
        "changes": [
            {
                "from": c.source,
                "to": c.destination,
                "change": c.kind,
                "added": ports_json(c.added),
                "removed": ports_json(c.removed),
                "because": c.note or [str(cause) for cause in c.causes],
            }
            for c in found.changes
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class Line:
    """Changes of one workload that are alike: to ``others``, or from them."""

    workload: str
    outgoing: bool
    others: tuple[str, ...]
    added: PortSet
    removed: PortSet


def grouped(found: Diff) -> Iterator[tuple[tuple[str, ...], list[Line]]]:
    """(causes, lines): changes with the same causes, gathered at the workloads that most of them have in common."""
    by_cause: dict[tuple[str, ...], list[Change]] = {}
    for change in found.changes:
        causes = (change.note,) if change.note else tuple(map(str, change.causes))
        by_cause.setdefault(causes, []).append(change)
    for causes, changes in by_cause.items():
        lines: list[Line] = []
        while changes:
            counts = Counter(name for c in changes for name in dict.fromkeys((c.source, c.destination)))
            workload = min(counts, key=lambda name: (-counts[name], name != changes[0].source, name))
            mine = [c for c in changes if workload in (c.source, c.destination)]
            changes = [c for c in changes if workload not in (c.source, c.destination)]
            alike: dict[tuple[bool, PortSet, PortSet], list[str]] = {}
            for c in mine:
                outgoing = c.source == workload
                other = c.destination if outgoing else c.source
                alike.setdefault((outgoing, c.added, c.removed), []).append(other)
            for (outgoing, added, removed), others in alike.items():
                lines.append(Line(workload, outgoing, tuple(others), added, removed))
        yield causes, lines


def to_text(found: Diff) -> Iterator[str]:
    for policy in found.policies:
        yield f"policy {policy}"
    for name in found.workloads_added:
        yield f"workload {name} added"
    for name in found.workloads_removed:
        yield f"workload {name} removed"
    for causes, lines in grouped(found):
        yield f"because {'; '.join(causes) or 'the workloads or namespaces themselves changed'}"
        last = ""
        for line in lines:
            if line.workload != last:
                yield f"  {line.workload}"
            last = line.workload
            arrow = "->" if line.outgoing else "<-"
            for sign, ports in (("+", line.added), ("-", line.removed)):
                if ports:
                    yield f"    {sign} {ports} {arrow} {', '.join(line.others)}"
    yield _summary(found)


def _summary(found: Diff) -> str:
    counts = {kind: sum(c.kind == kind for c in found.changes) for kind in ("added", "removed", "changed")}
    if not found.changes:
        return "no connection changes"
    return ", ".join(f"{n} connection{'s' if n != 1 else ''} {kind}" for kind, n in counts.items() if n)


def to_markdown(found: Diff) -> Iterator[str]:
    """A table made for a pull-request comment."""
    yield f"**Reachability:** {_summary(found)}"
    if found.policies:
        yield ""
        yield from (f"- {policy}" for policy in found.policies)
    if found.changes:
        yield ""
        yield "| from | to | opened | closed | because |"
        yield "| --- | --- | --- | --- | --- |"
    for causes, lines in grouped(found):
        for line in lines:
            ends = (line.workload, "<br>".join(line.others))
            cells = [
                *(ends if line.outgoing else reversed(ends)),
                str(line.added) if line.added else "",
                str(line.removed) if line.removed else "",
                "; ".join(causes),
            ]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
