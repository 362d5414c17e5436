"""Counts of pods by topology domain, kept up to date as pods are placed: what spreading and pod affinity ask for.

A ``Counter`` belongs to one (namespaces, selector) and counts its pods per node; domains are sums over nodes. Counters
are found from a placed pod through one label that they demand, so that placing a pod does not test every counter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netsim.kube import selectors
from netsim.kube.objects import Node, Pod

Json = Mapping[str, Any]


class Counter:
    """Pods that a selector takes, per value of each topology key asked for."""

    def __init__(self, namespaces: frozenset[str] | None, selector: Json | None) -> None:
        self.namespaces, self.selector = namespaces, selector
        self.total = 0
        self._domains: dict[str, dict[str, int]] = {}
        self._by_node: dict[str, int] = {}

    def takes(self, pod: Pod) -> bool:
        return (self.namespaces is None or pod.namespace in self.namespaces) and selectors.matches(
            self.selector, pod.metadata.labels
        )

    def add(self, node: Node, amount: int = 1) -> None:
        self.total += amount
        self._by_node[node.name] = self._by_node.get(node.name, 0) + amount
        for key, domains in self._domains.items():
            value = node.metadata.labels.get(key)
            if value is not None:
                domains[value] = domains.get(value, 0) + amount

    def domains(self, key: str, nodes: Mapping[str, Node]) -> dict[str, int]:
        """Value of the topology key → pods, over all nodes."""
        held = self._domains.get(key)
        if held is None:
            held = self._domains[key] = {}
            for name, amount in self._by_node.items():
                value = nodes[name].metadata.labels.get(key)
                if value is not None:
                    held[value] = held.get(value, 0) + amount
        return held

    def domains_of(self, key: str, nodes: Mapping[str, Node], eligible: frozenset[str]) -> dict[str, int]:
        """The same over some of the nodes."""
        held: dict[str, int] = {}
        for name, amount in self._by_node.items():
            value = nodes[name].metadata.labels.get(key)
            if value is not None and name in eligible:
                held[value] = held.get(value, 0) + amount
        return held


class Counters:
    """Every counter in use, and the placed pods that a new one starts from."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._all: dict[str, Counter] = {}
        self._by_label: dict[tuple[str, str] | None, list[Counter]] = {}
        self._placed: dict[str, list[tuple[Pod, Node]]] = {}

    def get(self, namespaces: frozenset[str] | None, selector: Json | None) -> Counter:
        key = json.dumps([sorted(namespaces) if namespaces is not None else None, selector], sort_keys=True)
        counter = self._all.get(key)
        if counter is None:
            counter = self._all[key] = Counter(namespaces, selector)
            demanded = min(((selector or {}).get("matchLabels") or {}).items(), default=None)
            self._by_label.setdefault(demanded, []).append(counter)
            for namespace in self._placed if namespaces is None else sorted(namespaces):
                for pod, node in self._placed.get(namespace, ()):
                    if counter.takes(pod):
                        counter.add(node)
        return counter

    def place(self, pod: Pod, node: Node) -> None:
        self._placed.setdefault(pod.namespace, []).append((pod, node))
        for label in (None, *pod.metadata.labels.items()):
            for counter in self._by_label.get(label, ()):
                if counter.takes(pod):
                    counter.add(node)
