"""May a pod be on a node at all? Taints and tolerations, node selectors and node affinity (Kubernetes 1.33).

What the scheduler's plugins NodeUnschedulable, TaintToleration and NodeAffinity share with the DaemonSet controller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netsim.kube import selectors
from netsim.kube.objects import Node, PodSpec, Taint

UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
# The DefaultTolerationSeconds admission plugin adds these to every pod.
_ADMITTED = tuple(
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute"}
    for name in ("not-ready", "unreachable")
)


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Taint) -> bool:
    return any(_one_tolerates(toleration, taint) for toleration in tolerations)


def _one_tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.effect:
        return False
    key = toleration.get("key") or ""
    if key and key != taint.key:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return operator == "Equal" and (toleration.get("value") or "") == taint.value


def tolerations_of(spec: PodSpec) -> Sequence[Mapping[str, Any]]:
    return (*(spec.tolerations or ()), *_ADMITTED)


def untolerated(tolerations: Sequence[Mapping[str, Any]], node: Node) -> Taint | None:
    """The first taint that keeps a pod away."""
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return taint
    return None


def allows_cordon(tolerations: Sequence[Mapping[str, Any]], node: Node) -> bool:
    return not node.spec.unschedulable or tolerates(tolerations, UNSCHEDULABLE)


def matches_affinity(spec: PodSpec, node: Node) -> bool:
    """nodeSelector and required node affinity."""
    labels = node.metadata.labels
    if not selectors.matches_node_labels(spec.node_selector, labels):
        return False
    affinity = (spec.affinity or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return selectors.matches_node_selector(required, node.name, labels)
