"""kube-scheduler: one pod at a time, by priority and then by age, onto the best of the nodes that fit (Kubernetes 1.33).

Filters and scores are those of the default profile, except ImageLocality (no node's images are known) and preemption,
which are not modelled. Where upstream picks one of several best nodes by chance, netsim takes the first in node order:
zones in turn, nodes by (creation time, name). Pods of one template share a profile, whose answers about a node stay
valid until something is placed there: ten thousand pods on a thousand nodes is seconds, not minutes.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from netsim.kube.control.affinity import Affinities, PodTerms
from netsim.kube.control.placement import allows_cordon, matches_affinity, tolerations_of, untolerated
from netsim.kube.control.resources import NodeState, Request, port_conflict, ports_of
from netsim.kube.control.scheduler_scores import Scorer
from netsim.kube.control.spread import Spread, default_selector
from netsim.kube.control.topology import Counters
from netsim.kube.objects import Node, Pod, Service
from netsim.kube.store import Store

_ALL_BELOW = 100
_ZONE, _REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"


@dataclass
class Profile:
    """What the pods of one template have in common, and what is known of each node about them."""

    request: Request
    ports: Sequence[tuple[str, str, int]]
    spread: Spread
    terms: PodTerms
    static: dict[str, str] = field(default_factory=dict)  # node → reason, "" if it fits
    scores: dict[str, tuple[int, int]] = field(default_factory=dict)  # node → (its version, resource score)
    preferences: dict[str, tuple[int, int]] = field(default_factory=dict)  # node → (affinity weight, soft taints)


class Scheduler:
    """Places pods on ``nodes``; ``pods`` are those that already have a place."""

    def __init__(self, store: Store, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.order = _by_zone(nodes)
        self.counters = Counters(self.nodes)
        self.affinities = Affinities(store, self.counters)
        self.states = {node.name: NodeState(node) for node in nodes}
        self.scorer = Scorer(self)
        self._store = store
        self._profiles: dict[object, Profile] = {}
        self._static: dict[tuple[int, int, int], dict[str, str]] = {}
        self._start = 0
        self._services: dict[str, list[Service]] = {}
        for service in store.typed("Service", Service):
            self._services.setdefault(service.namespace, []).append(service)
        for pod in store.typed("Pod", Pod):
            if pod.spec.node_name in self.nodes and not pod.finished:
                self._occupy(pod, self.nodes[pod.spec.node_name])

    def place(self, pod: Pod) -> tuple[str, str]:
        """(node, "") or ("", the scheduler's message)."""
        if pod.spec.scheduling_gates:
            return "", "Scheduling is blocked due to non-empty scheduling gates"
        profile = self._profile(pod)
        reasons: Tally[str] = Tally()
        feasible: list[Node] = []
        wanted, seen = self._enough(), 0
        order = self._candidates(pod)
        count = len(order)
        for step in range(count):
            node = order[(self._start + step) % count]
            seen += 1
            reason = self._reason(profile, pod, node)
            if reason:
                reasons[reason] += 1
                continue
            feasible.append(node)
            if len(feasible) >= wanted:
                break
        if order is self.order and count:
            self._start = (self._start + seen) % count
        if not feasible:
            skipped = len(self.order) - count
            if skipped:
                reasons["node(s) didn't satisfy plugin(s) [NodeAffinity]"] += skipped
            return "", _message(len(self.order), reasons)
        best = self.scorer.best(profile, pod, feasible)
        self._occupy(pod, best, profile)
        return best.name, ""

    def _candidates(self, pod: Pod) -> Sequence[Node]:
        """Every node, or those that a DaemonSet's pod names (NodeAffinity's PreFilter)."""
        affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
        terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
        if not terms or not all(term.get("matchFields") for term in terms):
            return self.order
        names = {value for term in terms for field in term["matchFields"] for value in field.get("values") or ()}
        return [self.nodes[name] for name in sorted(names) if name in self.nodes]

    # -- filters -------------------------------------------------------------------------------------------------------
    def _reason(self, profile: Profile, pod: Pod, node: Node) -> str:
        reason = profile.static.get(node.name)
        if reason is None:
            reason = profile.static[node.name] = _static_reason(pod, node)
        if reason:
            return reason
        state = self.states[node.name]
        return (
            (port_conflict(profile.ports, state.ports) if profile.ports else "")
            or state.lacks(profile.request)
            or profile.spread.reason(node, pod)
            or self.affinities.reason(profile.terms, pod, node)
        )

    def _enough(self) -> int:
        """numFeasibleNodesToFind."""
        count = len(self.order)
        if count < _ALL_BELOW:
            return count
        return max(_ALL_BELOW, count * max(5, 50 - count // 125) // 100)

    # -- state ---------------------------------------------------------------------------------------------------------
    def _occupy(self, pod: Pod, node: Node, profile: Profile | None = None) -> None:
        request = profile.request if profile else Request.of(pod.spec)
        self.states[node.name].take(request, ports_of(pod.spec))
        self.counters.place(pod, node)
        self.affinities.place(pod, node)

    def _profile(self, pod: Pod) -> Profile:
        spec, owner = pod.spec, pod.metadata.owner_references[:1]
        # Pods that a controller makes of one template share the objects of its spec, which the store keeps alive.
        key = (pod.namespace, id(spec), tuple(sorted(pod.metadata.labels.items())), owner[0].name if owner else "")
        profile = self._profiles.get(key)
        if profile is None:
            selector = default_selector(self._store, self._services.get(pod.namespace, ()), pod)
            profile = Profile(
                request=Request.of(pod.spec),
                ports=ports_of(pod.spec),
                spread=Spread(pod, self, selector),
                terms=self.affinities.terms(pod),
                static=self._static.setdefault((id(spec.node_selector), id(spec.affinity), id(spec.tolerations)), {}),
            )
            self._profiles[key] = profile
        return profile


def _static_reason(pod: Pod, node: Node) -> str:
    tolerations = tolerations_of(pod.spec)
    if not allows_cordon(tolerations, node):
        return "node(s) were unschedulable"
    taint = untolerated(tolerations, node)
    if taint is not None:
        return f"node(s) had untolerated taint(s) {{{taint.key}: {taint.value}}}"
    if not matches_affinity(pod.spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _message(count: int, reasons: Tally[str]) -> str:
    if not count:
        return "no nodes available to schedule pods"
    told = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
    return f"0/{count} nodes are available: {told}."


def _by_zone(nodes: Iterable[Node]) -> list[Node]:
    """One node of each zone in turn (node_tree)."""
    zones: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        labels = node.metadata.labels
        zones.setdefault((labels.get(_REGION, ""), labels.get(_ZONE, "")), []).append(node)
    queues = [list(reversed(queue)) for queue in zones.values()]
    found: list[Node] = []
    while queues:
        found.extend(queue.pop() for queue in queues)
        queues = [queue for queue in queues if queue]
    return found


def priority_order(pods: Iterable[Pod]) -> list[Pod]:
    """High priority first, then as given (creation order)."""
    return sorted(pods, key=lambda pod: -(pod.spec.priority or 0))
