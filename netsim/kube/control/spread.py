"""PodTopologySpread: the filter of DoNotSchedule and the score of ScheduleAnyway constraints (Kubernetes 1.33).

A pod that states no constraints, but belongs to a Service or a controller, gets the built-in soft ones: hostname with
skew 3 and zone with skew 5. Namespaces do not cross: only pods of the same namespace count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING, Any

from netsim.kube import selectors
from netsim.kube.control.placement import matches_affinity, tolerations_of, untolerated
from netsim.kube.control.topology import Counter
from netsim.kube.objects import Node, Pod, Service
from netsim.kube.store import Store

if TYPE_CHECKING:
    from netsim.kube.control.scheduler import Scheduler

HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
Json = Mapping[str, Any]


@dataclass
class Constraint:
    key: str
    skew: int
    least_domains: int
    counter: Counter
    counts_itself: bool
    eligible: frozenset[str] | None  # names of the nodes that count; None: every node
    values: frozenset[str]  # the domains
    seen: int = -1  # counter.total when ``least`` and ``counts`` were worked out
    least: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def refresh(self, nodes: Mapping[str, Node]) -> None:
        if self.seen == self.counter.total:
            return
        self.seen = self.counter.total
        if self.eligible is None:
            self.counts = self.counter.domains(self.key, nodes)
        else:
            self.counts = self.counter.domains_of(self.key, nodes, self.eligible)
        few = len(self.values) < self.least_domains
        self.least = 0 if few else min((self.counts.get(value, 0) for value in self.values), default=0)


class Spread:
    """The constraints of one pod (or of all pods of its template)."""

    def __init__(self, pod: Pod, scheduler: Scheduler, default: Json | None) -> None:
        self._nodes = scheduler.nodes
        stated: Sequence[Json] = pod.spec.topology_spread_constraints or ()
        hard = [item for item in stated if item.get("whenUnsatisfiable") == "DoNotSchedule"]
        soft = [item for item in stated if item.get("whenUnsatisfiable") == "ScheduleAnyway"]
        self.built_in = not stated and default is not None
        if self.built_in:
            soft = [
                {"topologyKey": HOSTNAME, "maxSkew": 3, "labelSelector": default},
                {"topologyKey": ZONE, "maxSkew": 5, "labelSelector": default},
            ]
        self.hard = self._constraints(pod, scheduler, hard, True)
        self.soft = self._constraints(pod, scheduler, soft, not self.built_in)

    def _constraints(self, pod: Pod, scheduler: Scheduler, items: Iterable[Json], demand: bool) -> list[Constraint]:
        items = list(items)
        keys = [item["topologyKey"] for item in items]
        found = []
        for item in items:
            selector = _with_label_keys(item.get("labelSelector"), item.get("matchLabelKeys") or (), pod)
            counter = scheduler.counters.get(frozenset([pod.namespace]), selector)
            honor = item.get("nodeAffinityPolicy", "Honor") == "Honor"
            taints = item.get("nodeTaintsPolicy", "Ignore") == "Honor"
            names, values = [], set()
            for node in scheduler.nodes.values():
                if demand and any(key not in node.metadata.labels for key in keys):
                    continue
                if honor and not matches_affinity(pod.spec, node):
                    continue
                if taints and untolerated(tolerations_of(pod.spec), node):
                    continue
                names.append(node.name)
                if item["topologyKey"] in node.metadata.labels:
                    values.add(node.metadata.labels[item["topologyKey"]])
            found.append(
                Constraint(
                    key=item["topologyKey"],
                    skew=int(item.get("maxSkew", 1)),
                    least_domains=int(item.get("minDomains") or 1),
                    counter=counter,
                    counts_itself=selectors.matches(selector, pod.metadata.labels),
                    eligible=None if len(names) == len(scheduler.nodes) else frozenset(names),
                    values=frozenset(values),
                )
            )
        return found

    def reason(self, node: Node, pod: Pod) -> str:
        for constraint in self.hard:
            value = node.metadata.labels.get(constraint.key)
            if value is None:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            constraint.refresh(self._nodes)
            count = constraint.counts.get(value, 0) + constraint.counts_itself
            if count - constraint.least > constraint.skew:
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def scores(self, feasible: Sequence[Node]) -> list[int]:
        """Normalised 0 to 100, for each node."""
        if not self.soft:
            return [0] * len(feasible)
        ignored = set()
        if not self.built_in:
            keys = [constraint.key for constraint in self.soft]
            ignored = {node.name for node in feasible if any(key not in node.metadata.labels for key in keys)}
        raw = [0.0] * len(feasible)
        considered = len(feasible) - len(ignored)
        for constraint in self.soft:
            constraint.refresh(self._nodes)
            key, counts = constraint.key, constraint.counts
            values = [node.metadata.labels.get(key) for node in feasible]
            domains = considered if key == HOSTNAME else len({value for value in values if value is not None})
            weight, base = log(domains + 2), constraint.skew - 1
            for index, value in enumerate(values):
                if value is not None:
                    raw[index] += counts.get(value, 0) * weight + base
        whole = [int(score + 0.5) for score in raw]
        kept = [score for score, node in zip(whole, feasible) if node.name not in ignored]
        high, low = max(kept, default=0), min(kept, default=0)
        return [
            0 if node.name in ignored else 100 if high == 0 else 100 * (high + low - score) // high
            for score, node in zip(whole, feasible)
        ]


def _with_label_keys(selector: Json | None, keys: Iterable[str], pod: Pod) -> Json | None:
    """matchLabelKeys: the pod's own values are demanded as well."""
    more = {key: pod.metadata.labels[key] for key in keys if key in pod.metadata.labels}
    if not more or selector is None:
        return selector
    return {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **more}}


def default_selector(store: Store, services: Iterable[Service], pod: Pod) -> Json | None:
    """All that the pod's Services and its controller select by, together (helper.DefaultSelector); None if nothing does."""
    labels: dict[str, str] = {}
    expressions: list[Any] = []
    for service in services:
        if selectors.matches_map(service.spec.selector, pod.metadata.labels):
            labels.update(service.spec.selector or {})
    for owner in pod.metadata.owner_references:
        if owner.controller and owner.kind in ("ReplicaSet", "StatefulSet", "ReplicationController"):
            held = store.get(owner.kind, pod.namespace, owner.name)
            chosen = (held.spec.get("selector") if held is not None else None) or {}
            if owner.kind == "ReplicationController":
                labels.update(chosen)
            else:
                labels.update(chosen.get("matchLabels") or {})
                expressions.extend(chosen.get("matchExpressions") or ())
    if not labels and not expressions:
        return None
    return {"matchLabels": labels, "matchExpressions": expressions}
