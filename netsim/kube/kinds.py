"""Which kinds netsim uses, skips, or cannot know; which API versions they come in, and their scope."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """``current`` is today's apiVersion; ``removed`` maps older apiVersions to the release that stopped serving them."""

    name: str
    current: str
    removed: dict[str, str]
    namespaced: bool = True
    stored_as: str = ""  # the store's key when two groups share a kind's name

    @property
    def key(self) -> str:
        return self.stored_as or self.name


def _kinds(
    current: str, names: str, removed: dict[str, str] | None = None, namespaced: bool = True
) -> dict[tuple[str, str], Kind]:
    versions = removed or {}
    group = group_of(current)
    found: dict[tuple[str, str], Kind] = {}
    for name in names.split():
        kind = Kind(name, current, versions, namespaced)
        found[group, name] = kind
        for version in versions:
            found[group_of(version), name] = kind
    return found


def group_of(api_version: str) -> str:
    group, slash, _ = api_version.rpartition("/")
    return group if slash else ""


_NETWORKING, _DISCOVERY = "networking.k8s.io", "discovery.k8s.io"
_OLD_APPS = {"extensions/v1beta1": "1.16", "apps/v1beta2": "1.16"}
_OLD_INGRESS = {"extensions/v1beta1": "1.22", f"{_NETWORKING}/v1beta1": "1.22"}
_OLD_CIDR = {f"{_NETWORKING}/v1alpha1": "1.31", f"{_NETWORKING}/v1beta1": "1.37"}
_OLD_HPA = {"autoscaling/v2beta1": "1.25", "autoscaling/v2beta2": "1.26", "autoscaling/v1": ""}  # v1 is still served
USED: dict[tuple[str, str], Kind] = {
    **_kinds("v1", "Namespace Node", namespaced=False),
    **_kinds("v1", "Pod Service Endpoints ReplicationController ConfigMap"),
    **_kinds("apps/v1", "ReplicaSet DaemonSet", _OLD_APPS),
    **_kinds("apps/v1", "Deployment", {**_OLD_APPS, "apps/v1beta1": "1.16"}),
    **_kinds("apps/v1", "StatefulSet", {"apps/v1beta1": "1.16", "apps/v1beta2": "1.16"}),
    **_kinds("batch/v1", "Job"),
    **_kinds("batch/v1", "CronJob", {"batch/v1beta1": "1.25", "batch/v2alpha1": "1.21"}),
    **_kinds(f"{_DISCOVERY}/v1", "EndpointSlice", {f"{_DISCOVERY}/v1beta1": "1.25"}),
    **_kinds(f"{_NETWORKING}/v1", "Ingress", _OLD_INGRESS),
    **_kinds(f"{_NETWORKING}/v1", "IngressClass", {f"{_NETWORKING}/v1beta1": "1.22"}, namespaced=False),
    **_kinds(f"{_NETWORKING}/v1", "NetworkPolicy", {"extensions/v1beta1": "1.16"}),
    **_kinds(f"{_NETWORKING}/v1", "ServiceCIDR IPAddress", _OLD_CIDR, namespaced=False),
    **_kinds("policy/v1", "PodDisruptionBudget", {"policy/v1beta1": "1.25"}),
    **_kinds("autoscaling/v2", "HorizontalPodAutoscaler", _OLD_HPA),
}

# Groups whose every kind is kept as it is; their own modules read them.
_POLICY_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_CALICO_NAMESPACED = ("NetworkPolicy", "NetworkSet", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy")
_CALICO_SKIPPED = ("ClusterInformation", "LicenseKey")
_GATEWAY = "gateway.networking.k8s.io"

# group/Kind
_SILENT = """
    /Secret /ServiceAccount /Event /PersistentVolume /PersistentVolumeClaim /LimitRange /ResourceQuota /PodTemplate
    /ComponentStatus /Binding apps/ControllerRevision
"""
_SILENT_GROUPS = """
    rbac.authorization.k8s.io storage.k8s.io admissionregistration.k8s.io apiextensions.k8s.io apiregistration.k8s.io
    flowcontrol.apiserver.k8s.io scheduling.k8s.io node.k8s.io coordination.k8s.io events.k8s.io certificates.k8s.io
    authentication.k8s.io authorization.k8s.io metrics.k8s.io resource.k8s.io internal.apiserver.k8s.io
    storagemigration.k8s.io
"""
SKIPPED_SILENTLY = frozenset(_SILENT.split())
SKIPPED_GROUPS = frozenset(_SILENT_GROUPS.split())
WRONG_WITHOUT = {
    "cilium.io": "Cilium's policies are not modelled: answers about the traffic they cover would be WRONG without them",
    "crd.antrea.io": "Antrea's policies are not modelled: answers about the traffic they cover would be WRONG without them",
    "security.istio.io": "service mesh policies are not modelled: they act above the kernel and may refuse more",
    "networking.istio.io": "service mesh routing is not modelled: sidecars may send traffic elsewhere",
}
_BUILT_IN = frozenset({"", "apps", "batch", "extensions", "policy", "autoscaling"})


@dataclass(frozen=True, slots=True)
class Skip:
    """Not for netsim. ``note`` is empty for what never concerns a data plane."""

    note: str = ""


def classify(api_version: str, kind: str) -> Kind | Skip | None:
    """What to do with a kind; None if a server would answer ``no matches for kind``."""
    group = group_of(api_version)
    used = USED.get((group, kind))
    if used:
        return used if api_version == used.current or api_version in used.removed else None
    if f"{group}/{kind}" in SKIPPED_SILENTLY or group in SKIPPED_GROUPS:
        return Skip()
    if kind == "PodSecurityPolicy" and group in ("policy", "extensions"):
        return Skip("PodSecurityPolicy (removed in 1.25) says nothing about packets: skipped")
    if group == "policy.networking.k8s.io" and kind in _POLICY_KINDS:
        return Kind(kind, api_version, {}, namespaced=False)
    if group in _CALICO_GROUPS:
        if kind in _CALICO_SKIPPED:
            return Skip()
        shared = kind == "NetworkPolicy"
        stored = "NetworkPolicy.projectcalico.org" if shared else ""
        return Kind(kind, api_version, {}, kind in _CALICO_NAMESPACED, stored)
    if group == _GATEWAY:
        return Kind(kind, api_version, {}, kind != "GatewayClass")
    if group == "kubeproxy.config.k8s.io":
        return Kind(kind, api_version, {}, False) if kind == "KubeProxyConfiguration" else None
    if group in WRONG_WITHOUT:
        return Skip(f"{kind} ({group}) skipped: {WRONG_WITHOUT[group]}")
    if group in _BUILT_IN or (group.endswith(".k8s.io") and "." not in group[: -len(".k8s.io")]):
        return None
    return Skip(f"{kind} ({api_version}) is a custom resource netsim does not know: skipped")
