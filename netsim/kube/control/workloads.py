"""The workload controllers: Deployments to ReplicaSets, and all that make pods to pods (Kubernetes 1.33).

Only the first expansion is made here; nothing rolls over time. A workload that already has a pod of its own in the
input is taken as a dump's and left alone; pods without a controller that a selector takes are adopted, that is
counted. Kinds go in the order DaemonSet, Deployment, ReplicaSet, StatefulSet, ReplicationController, Job, and within a
kind by (namespace, name), so that the order of the input never matters.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from netsim.kube import defaults, selectors
from netsim.kube.cluster import Settings
from netsim.kube.control import placement
from netsim.kube.control.names import Generator, fnv1, prefix, safe_encode
from netsim.kube.control.nodes import ordered
from netsim.kube.control.template_hash import HASH_LABEL, template_hash
from netsim.kube.objects import Meta, Node, OwnerReference, Pod, PodSpec, Workload
from netsim.kube.store import Store

Json = dict[str, Any]
_PRIORITIES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
_DAEMON_TOLERATIONS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK_UNAVAILABLE = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def expand(store: Store, settings: Settings, notes: list[str]) -> list[Pod]:
    """Run every controller once; the pods made, in the order they were made."""
    return _Controllers(store, settings, notes).run()


class _Controllers:
    def __init__(self, store: Store, settings: Settings, notes: list[str]) -> None:
        self.store, self.settings, self.notes = store, settings, notes
        self.made: list[Pod] = []
        self.expanded: dict[str, list[int]] = {}
        self.owned: dict[tuple[str, str, str], list[Pod]] = {}
        self.orphans: dict[str, list[Pod]] = {}
        self.below: dict[tuple[str, str, str], list[Workload]] = {}  # ReplicaSets and Jobs by their owner
        self.loose: dict[str, list[Workload]] = {}  # ReplicaSets without one
        self.lost: dict[tuple[str, str], list[Pod]] = {}  # pods whose ReplicaSet is not in the input, by Deployment

    def run(self) -> list[Pod]:
        if not any(self.store.count(kind) for kind in _EXPANDERS):
            return []
        self._index()
        for kind, expander in _EXPANDERS.items():
            for item in sorted(self.store.typed(kind, Workload), key=lambda workload: workload.key):
                before = len(self.made)
                expander(self, item)
                if len(self.made) > before:
                    self.expanded.setdefault(_root(self.store, item), []).append(len(self.made) - before)
        for kind, counts in self.expanded.items():
            self.notes.append(f"{_count(len(counts), kind)} expanded to {_count(sum(counts), 'Pod')}")
        return self.made

    def _index(self) -> None:
        for pod in self.store.typed("Pod", Pod):
            owner = controller_of(pod.metadata)
            if owner is None:
                if not pod.finished and pod.metadata.deletion_timestamp is None:
                    self.orphans.setdefault(pod.namespace, []).append(pod)
            else:
                self.owned.setdefault((pod.namespace, owner.kind, owner.name), []).append(pod)
        for (namespace, kind, name), pods in self.owned.items():
            if kind == "ReplicaSet" and self.store.get("ReplicaSet", namespace, name) is None:
                self.lost.setdefault((namespace, name.rpartition("-")[0]), []).extend(pods)
        for kind in ("ReplicaSet", "Job"):
            for item in self.store.typed(kind, Workload):
                owner = controller_of(item.metadata)
                if owner is not None:
                    self.below.setdefault((item.namespace, owner.name, owner.kind), []).append(item)
                elif kind == "ReplicaSet":
                    self.loose.setdefault(item.namespace, []).append(item)

    # -- what exists ---------------------------------------------------------------------------------------------------
    def has_pods(self, item: Workload) -> bool:
        held = self.owned.get((item.namespace, item.kind, item.name), ())
        return any(_same_owner(controller_of(pod.metadata), item) for pod in held)

    def adopt(self, item: Workload, selector: Mapping[str, Any] | None) -> int:
        """How many pods without a controller the workload takes for its own."""
        orphans = self.orphans.get(item.namespace)
        if not orphans:
            return 0
        taken = [pod for pod in orphans if selectors.matches(selector, pod.metadata.labels)]
        if taken:
            self.orphans[item.namespace] = [pod for pod in orphans if pod not in taken]
        return len(taken)

    # -- pods ----------------------------------------------------------------------------------------------------------
    def template(self, item: Workload) -> Json:
        template: Json = item.spec.get("template") or {}
        return template

    def make(
        self, item: Workload, name: str, labels: Mapping[str, str], change: Mapping[str, Any] | None = None
    ) -> None:
        template = self.template(item)
        metadata = template.get("metadata") or {}
        spec = self._pod_spec(item, template)
        if change:
            spec = msgspec.structs.replace(spec, **change)
        pod = Pod(
            kind="Pod",
            metadata=Meta(
                name=name,
                namespace=item.namespace,
                labels={**(metadata.get("labels") or {}), **labels},
                annotations=dict(metadata.get("annotations") or {}),
                owner_references=[reference(item)],
            ),
            spec=spec,
            source=item.source,
        )
        self.made.append(self.store.put(pod))

    def _pod_spec(self, item: Workload, template: Json) -> PodSpec:
        # Workloads make many pods of one template: convert it once, so that they share one (immutable) spec.
        if getattr(self, "_last", None) is not item:
            body = copy.deepcopy(template.get("spec") or {})
            defaults.pod_spec(body)
            if "priority" not in body and body.get("priorityClassName") in _PRIORITIES:
                body["priority"] = _PRIORITIES[body["priorityClassName"]]
            self._last, self._spec = item, msgspec.convert(body, PodSpec)
        return self._spec

    def generator(self, item: Workload) -> Generator:
        namespace = item.namespace
        return Generator(
            namespace, item.name, item.kind, lambda name: self.store.get("Pod", namespace, name) is not None
        )

    def fill(self, item: Workload, wanted: int, selector: Mapping[str, Any] | None) -> None:
        """``wanted`` interchangeable pods with generated names."""
        if self.has_pods(item):
            return
        names = self.generator(item)
        for _ in range(wanted - self.adopt(item, selector)):
            self.make(item, names.next(prefix(item.name)), {})

    # -- controllers ---------------------------------------------------------------------------------------------------
    def daemon_set(self, item: Workload) -> None:
        if self.has_pods(item):
            return
        spec = self._pod_spec(item, self.template(item))
        tolerations = list(spec.tolerations or ())
        more = (*_DAEMON_TOLERATIONS, *((_NETWORK_UNAVAILABLE,) if spec.host_network else ()))
        tolerations += [{"key": key, "operator": "Exists", "effect": effect} for key, effect in more]
        taken = {pod.spec.node_name for pod in self._adopted(item)}
        labels = {
            "controller-revision-hash": template_hash(
                self.template(item), self.settings.kubernetes_version, item.status.get("collisionCount")
            ),
            "pod-template-generation": str(
                item.metadata.annotations.get("deprecated.daemonset.template.generation")
                or item.metadata.generation
                or 1
            ),
        }
        names = self.generator(item)
        for node in ordered(self.store):
            if node.name in taken or not placement.matches_affinity(spec, node):
                continue
            if placement.untolerated(tolerations, node):
                continue
            affinity = _pinned(spec.affinity, node)
            self.make(item, names.next(prefix(item.name)), labels, {"tolerations": tolerations, "affinity": affinity})

    def _adopted(self, item: Workload) -> Iterable[Pod]:
        before = self.orphans.get(item.namespace, [])
        self.adopt(item, item.spec.get("selector"))
        after = {id(pod) for pod in self.orphans.get(item.namespace, [])}
        return [pod for pod in before if id(pod) not in after]

    def deployment(self, item: Workload) -> None:
        """One ReplicaSet with all the replicas, unless the input already has the Deployment's ReplicaSets or pods."""
        selector = item.spec.get("selector")
        if any(
            _same_owner(controller_of(held.metadata), item) for held in self.below.get((*item.key, "Deployment"), ())
        ):
            return
        if any(selectors.matches(selector, _template_labels(held)) for held in self.loose.get(item.namespace, ())):
            return
        if self._has_pods_of_a_lost_replica_set(item):
            return
        if item.spec.get("paused"):
            self.notes.append(f"Deployment {item.namespace}/{item.name} is paused: no ReplicaSet is made")
            return
        template = copy.deepcopy(self.template(item))
        hashed = template_hash(template, self.settings.kubernetes_version, item.status.get("collisionCount"))
        metadata = template.setdefault("metadata", {})
        labels = metadata["labels"] = {**(metadata.get("labels") or {}), HASH_LABEL: hashed}
        chosen = {**(selector or {})}
        chosen["matchLabels"] = {**(chosen.get("matchLabels") or {}), HASH_LABEL: hashed}
        replicas = _number(item.spec.get("replicas"), 1)
        self.store.put(
            Workload(
                kind="ReplicaSet",
                api_version="apps/v1",
                metadata=Meta(
                    name=f"{item.name}-{hashed}",
                    namespace=item.namespace,
                    labels=labels,
                    annotations={
                        "deployment.kubernetes.io/desired-replicas": str(replicas),
                        "deployment.kubernetes.io/revision": "1",
                    },
                    owner_references=[reference(item)],
                ),
                spec={"replicas": replicas, "selector": chosen, "template": template},
                source=item.source,
            )
        )

    def _has_pods_of_a_lost_replica_set(self, item: Workload) -> bool:
        """A dump may hold Deployments and pods, but not the ReplicaSets between them."""
        pods = self.lost.get(item.key, ())
        return any(selectors.matches(item.spec.get("selector"), pod.metadata.labels) for pod in pods)

    def replica_set(self, item: Workload) -> None:
        self.fill(item, _number(item.spec.get("replicas"), 1), item.spec.get("selector"))

    def replication_controller(self, item: Workload) -> None:
        chosen = item.spec.get("selector")
        self.fill(item, _number(item.spec.get("replicas"), 1), {"matchLabels": chosen} if chosen else None)

    def stateful_set(self, item: Workload) -> None:
        if self.has_pods(item):
            return
        revision = f"{item.name[:223]}-{_stateful_hash(item)}"
        start = _number((item.spec.get("ordinals") or {}).get("start"), 0)
        for ordinal in range(start, start + _number(item.spec.get("replicas"), 1)):
            name = f"{item.name}-{ordinal}"
            if self.store.get("Pod", item.namespace, name) is not None:
                continue
            labels = {
                "apps.kubernetes.io/pod-index": str(ordinal),
                "controller-revision-hash": revision,
                "statefulset.kubernetes.io/pod-name": name,
            }
            self.make(item, name, labels, {"hostname": name, "subdomain": item.spec.get("serviceName") or ""})

    def job(self, item: Workload) -> None:
        ended = {
            condition.get("type")
            for condition in item.status.get("conditions") or ()
            if condition.get("status") == "True"
        }
        if item.spec.get("suspend") or ended & {"Complete", "Failed"} or self.has_pods(item):
            return
        completions = item.spec.get("completions")
        wanted = _number(item.spec.get("parallelism"), 1)
        if completions is not None:
            wanted = min(wanted, _number(completions, 1))
        labels = {
            key: value
            for group in ("batch.kubernetes.io/", "")
            for key, value in ((f"{group}controller-uid", item.metadata.uid), (f"{group}job-name", item.name))
            if value
        }
        names = self.generator(item)
        indexed = item.spec.get("completionMode") == "Indexed"
        for index in range(wanted):
            if indexed:
                place = f"{item.name}-{index}"
                own = {**labels, "batch.kubernetes.io/job-completion-index": str(index)}
                self.make(item, names.next(f"{place}-"), own, {"hostname": place})
            else:
                self.make(item, names.next(prefix(item.name)), labels)

    def cron_job(self, item: Workload) -> None:
        if not any(
            _same_owner(controller_of(job.metadata), item) for job in self.below.get((*item.key, "CronJob"), ())
        ):
            self.notes.append(f"CronJob {item.namespace}/{item.name}: no Job is running, no pods are made")


_EXPANDERS = {
    "DaemonSet": _Controllers.daemon_set,
    "Deployment": _Controllers.deployment,
    "ReplicaSet": _Controllers.replica_set,
    "StatefulSet": _Controllers.stateful_set,
    "ReplicationController": _Controllers.replication_controller,
    "CronJob": _Controllers.cron_job,
    "Job": _Controllers.job,
}


def controller_of(metadata: Meta) -> OwnerReference | None:
    for owner in metadata.owner_references:
        if owner.controller:
            return owner
    return None


def reference(item: Workload) -> OwnerReference:
    return OwnerReference(kind=item.kind, name=item.name, uid=item.metadata.uid, controller=True)


def _same_owner(owner: OwnerReference | None, item: Workload) -> bool:
    if owner is None or (owner.kind, owner.name) != (item.kind, item.name):
        return False
    return not owner.uid or not item.metadata.uid or owner.uid == item.metadata.uid


def _root(store: Store, item: Workload) -> str:
    """The kind to name in a note: a Deployment's ReplicaSet is not the reader's."""
    owner = controller_of(item.metadata)
    return owner.kind if owner is not None and owner.kind == "Deployment" else item.kind


def _template_labels(item: Workload) -> Mapping[str, str]:
    labels: Mapping[str, str] = ((item.spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    return labels


def _pinned(affinity: Json | None, node: Node) -> Json:
    """Node affinity that holds on one node only, as the DaemonSet controller writes it."""
    field = {"key": "metadata.name", "operator": "In", "values": [node.name]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    own = dict((affinity or {}).get("nodeAffinity") or {})
    own[required] = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {**(affinity or {}), "nodeAffinity": own}


def _stateful_hash(item: Workload) -> str:
    """FNV-1 of the revision's JSON; its bytes follow apps/v1's encoding as closely as the decoded object allows."""
    template = {**(item.spec.get("template") or {}), "$patch": "replace"}
    text = json.dumps({"spec": {"template": template}}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    state = fnv1(text.encode())
    collisions = item.status.get("collisionCount")
    if collisions is not None:
        state = fnv1(str(collisions).encode(), state)
    return safe_encode(str(state))


def _number(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
