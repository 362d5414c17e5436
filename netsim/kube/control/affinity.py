"""InterPodAffinity: required and preferred terms, both ways round (Kubernetes 1.33).

A placed pod's required anti-affinity keeps later pods away, and its affinity terms attract them; so terms of placed
pods are held by what they select, with a count for each topology domain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netsim.kube import selectors
from netsim.kube.control.topology import Counter, Counters
from netsim.kube.objects import Namespace, Node, Pod
from netsim.kube.store import Store

Json = Mapping[str, Any]
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass
class Term:
    key: str
    counter: Counter
    weight: int = 0

    def matches(self, pod: Pod) -> bool:
        return self.counter.takes(pod)


@dataclass
class Held:
    """A term that placed pods carry: how many of them in each domain."""

    term: Term
    kind: str  # "anti" (required), "weight"
    domains: dict[str, int] = field(default_factory=dict)


@dataclass
class PodTerms:
    affinity: Sequence[Term] = ()
    anti: Sequence[Term] = ()
    preferred: Sequence[Term] = ()
    itself: bool = False  # the pod matches all its own required affinity terms
    repelled: list[Held] = field(default_factory=list)  # held terms that concern the pod
    attracted: list[Held] = field(default_factory=list)
    known: int = 0  # how many held terms have been looked at


class Affinities:
    def __init__(self, store: Store, counters: Counters) -> None:
        self._counters = counters
        self._namespaces = {item.name: item.metadata.labels for item in store.typed("Namespace", Namespace)}
        self._held: dict[str, Held] = {}
        self._list: list[Held] = []

    def terms(self, pod: Pod) -> PodTerms:
        affinity = pod.spec.affinity or {}
        near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        own = PodTerms(
            affinity=[self._term(item, pod) for item in near.get(_REQUIRED) or ()],
            anti=[self._term(item, pod) for item in far.get(_REQUIRED) or ()],
            preferred=[
                *(
                    self._term(item.get("podAffinityTerm") or {}, pod, item.get("weight", 0))
                    for item in near.get(_PREFERRED) or ()
                ),
                *(
                    self._term(item.get("podAffinityTerm") or {}, pod, -item.get("weight", 0))
                    for item in far.get(_PREFERRED) or ()
                ),
            ],
        )
        own.itself = all(term.matches(pod) for term in own.affinity)
        return own

    def _term(self, item: Json, pod: Pod, weight: int = 0) -> Term:
        selector = item.get("labelSelector")
        if selector is not None:
            expressions = list(selector.get("matchExpressions") or ())
            for name, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
                for key in item.get(name) or ():
                    if key in pod.metadata.labels:
                        expressions.append({"key": key, "operator": operator, "values": [pod.metadata.labels[key]]})
            if expressions:
                selector = {**selector, "matchExpressions": expressions}
        return Term(item.get("topologyKey", ""), self._counters.get(self._scope(item, pod), selector), weight)

    def _scope(self, item: Json, pod: Pod) -> frozenset[str] | None:
        named, chosen = item.get("namespaces") or (), item.get("namespaceSelector")
        if chosen is None:
            return frozenset(named or [pod.namespace])
        if not chosen.get("matchLabels") and not chosen.get("matchExpressions"):
            return None
        return frozenset(named) | {
            name for name, labels in self._namespaces.items() if selectors.matches(chosen, labels)
        }

    # -- filter --------------------------------------------------------------------------------------------------------
    def reason(self, own: PodTerms, pod: Pod, node: Node) -> str:
        self._look(own, pod)
        labels = node.metadata.labels
        if own.affinity and not self._near(own, labels):
            return "node(s) didn't match pod affinity rules"
        for term in own.anti:
            value = labels.get(term.key)
            if value is not None and term.counter.domains(term.key, self._counters.nodes).get(value, 0):
                return "node(s) didn't match pod anti-affinity rules"
        for held in own.repelled:
            value = labels.get(held.term.key)
            if value is not None and held.domains.get(value, 0):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
        return ""

    def _near(self, own: PodTerms, labels: Mapping[str, str]) -> bool:
        values = [labels.get(term.key) for term in own.affinity]
        if None in values:
            return False
        nodes = self._counters.nodes
        if all(term.counter.domains(term.key, nodes).get(value or "", 0) for term, value in zip(own.affinity, values)):
            return True
        # The first pod of a group that wants its own company may start anywhere.
        return own.itself and not any(term.counter.total for term in own.affinity)

    def _look(self, own: PodTerms, pod: Pod) -> None:
        """Take in the held terms that are new since the last time."""
        while own.known < len(self._list):
            held = self._list[own.known]
            own.known += 1
            if held.term.matches(pod):
                (own.repelled if held.kind == "anti" else own.attracted).append(held)

    # -- score ---------------------------------------------------------------------------------------------------------
    def scores(self, own: PodTerms, pod: Pod, feasible: Sequence[Node]) -> list[int]:
        self._look(own, pod)
        if not own.preferred and not own.attracted:
            return [0] * len(feasible)
        nodes = self._counters.nodes
        sources = [
            *((term.key, term.counter.domains(term.key, nodes), term.weight) for term in own.preferred),
            *((held.term.key, held.domains, held.term.weight) for held in own.attracted),
        ]
        raw = [
            sum(weight * domains.get(node.metadata.labels.get(key, ""), 0) for key, domains, weight in sources)
            for node in feasible
        ]
        low, high = min(raw), max(raw)
        return [100 * (score - low) // (high - low) if high > low else 0 for score in raw]

    # -- state ---------------------------------------------------------------------------------------------------------
    def place(self, pod: Pod, node: Node) -> None:
        if not pod.spec.affinity:
            return
        own = self.terms(pod)
        required = (Term(term.key, term.counter, 1) for term in own.affinity)
        for kind, terms in (("anti", own.anti), ("weight", (*required, *own.preferred))):
            self._hold(kind, terms, node)

    def _hold(self, kind: str, terms: Iterable[Term], node: Node) -> None:
        for term in terms:
            value = node.metadata.labels.get(term.key)
            if value is None:
                continue
            key = json.dumps([kind, term.key, id(term.counter), term.weight])
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = Held(term, kind)
                self._list.append(held)
            held.domains[value] = held.domains.get(value, 0) + 1
