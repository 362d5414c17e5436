"""The scores of kube-scheduler's default plugins, weighted and summed (Kubernetes 1.33).

TaintToleration 3, NodeAffinity 2, PodTopologySpread 2, InterPodAffinity 2, NodeResourcesFit (LeastAllocated) 1,
NodeResourcesBalancedAllocation 1. ImageLocality is left out: which images a node holds is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING

from netsim.kube import selectors
from netsim.kube.control.placement import tolerates, tolerations_of
from netsim.kube.control.resources import NodeState, Request
from netsim.kube.objects import Node, Pod

if TYPE_CHECKING:
    from netsim.kube.control.scheduler import Profile, Scheduler


class Scorer:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def best(self, profile: Profile, pod: Pod, feasible: Sequence[Node]) -> Node:
        """The first in the given order among those with the highest sum."""
        if len(feasible) == 1:
            return feasible[0]
        totals = [self._resources(profile, node) for node in feasible]
        preferences = [self._preference(profile, pod, node) for node in feasible]
        most_weight = max(weight for weight, _ in preferences)
        most_taints = max(taints for _, taints in preferences)
        if most_weight or most_taints:
            for index, (weight, taints) in enumerate(preferences):
                totals[index] += 2 * (100 * weight // most_weight) if most_weight else 0
                totals[index] -= 3 * (100 * taints // most_taints) if most_taints else 0
        if profile.spread.soft:
            for index, score in enumerate(profile.spread.scores(feasible)):
                totals[index] += 2 * score
        for index, score in enumerate(self._scheduler.affinities.scores(profile.terms, pod, feasible)):
            totals[index] += 2 * score
        return feasible[totals.index(max(totals))]

    def _resources(self, profile: Profile, node: Node) -> int:
        state = self._scheduler.states[node.name]
        known = profile.scores.get(node.name)
        if known is not None and known[0] == state.version:
            return known[1]
        score = least_allocated(state, profile.request) + balanced(state, profile.request)
        profile.scores[node.name] = (state.version, score)
        return score

    def _preference(self, profile: Profile, pod: Pod, node: Node) -> tuple[int, int]:
        """(sum of the weights of matching preferred terms, untolerated PreferNoSchedule taints)."""
        known = profile.preferences.get(node.name)
        if known is None:
            affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
            weight = sum(
                term.get("weight", 0)
                for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
                if selectors.matches_node_term(term.get("preference") or {}, node.name, node.metadata.labels)
            )
            soft = [taint for taint in node.spec.taints if taint.effect == "PreferNoSchedule"]
            taints = sum(not tolerates(tolerations_of(pod.spec), taint) for taint in soft)
            known = profile.preferences[node.name] = (weight, taints)
        return known


def least_allocated(state: NodeState, request: Request) -> int:
    """Mean over cpu and memory of what would stay free, in whole percent."""
    scores = []
    for name in ("cpu", "memory"):
        room = state.allocatable.get(name, 0)
        if room:
            asked = state.scored.get(name, 0) + request.scored.get(name, 0)
            scores.append(max(0, room - asked) * 100 // room)
    return sum(scores) // len(scores) if scores else 0


def balanced(state: NodeState, request: Request) -> int:
    """100 where cpu and memory would be used to the same fraction."""
    if not any(request.real.get(name) for name in ("cpu", "memory")):
        return 0
    fractions = []
    for name in ("cpu", "memory"):
        room = state.allocatable.get(name, 0)
        if room:
            asked = state.real.get(name, 0) + request.real.get(name, 0)
            fractions.append(min(1.0, asked / room))
    if not fractions:
        return 0
    if len(fractions) == 2:
        deviation = abs(fractions[0] - fractions[1]) / 2
    else:
        mean = sum(fractions) / len(fractions)
        deviation = sqrt(sum((fraction - mean) ** 2 for fraction in fractions) / len(fractions))
    return int((1 - deviation) * 100)
