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


def _kinds(current: str, names: str, *, namespaced: bool = True, **removed: str) -> dict[tuple[str, str], Kind]:
    versions = {
        f"{group_version.replace('__', '/').replace('_', '.')}": release for group_version, release in removed.items()
    }
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


_OLD_APPS = {"extensions__v1beta1": "1.16", "apps__v1beta2": "1.16"}
USED: dict[tuple[str, str], Kind] = {
    **_kinds("v1", "Namespace Node", namespaced=False),
    **_kinds("v1", "Pod Service Endpoints ReplicationController ConfigMap"),
    **_kinds("apps/v1", "ReplicaSet DaemonSet", **_OLD_APPS),
    **_kinds("apps/v1", "Deployment", **_OLD_APPS, apps__v1beta1="1.16"),
    **_kinds("apps/v1", "StatefulSet", apps__v1beta1="1.16", apps__v1beta2="1.16"),
    **_kinds("batch/v1", "Job"),
    **_kinds("batch/v1", "CronJob", batch__v1beta1="1.25", batch__v2alpha1="1.21"),
    **_kinds("discovery.k8s.io/v1", "EndpointSlice", discovery_k8s_io__v1beta1="1.25"),
    **_kinds("networking.k8s.io/v1", "Ingress", extensions__v1beta1="1.22", networking_k8s_io__v1beta1="1.22"),
    **_kinds("networking.k8s.io/v1", "IngressClass", namespaced=False, networking_k8s_io__v1beta1="1.22"),
    **_kinds("networking.k8s.io/v1", "NetworkPolicy", extensions__v1beta1="1.16"),
    **_kinds(
        "networking.k8s.io/v1",
        "ServiceCIDR IPAddress",
        namespaced=False,
        networking_k8s_io__v1alpha1="1.31",
        networking_k8s_io__v1beta1="1.37",
    ),
    **_kinds("policy/v1", "PodDisruptionBudget", policy__v1beta1="1.25"),
    **_kinds(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        autoscaling__v2beta1="1.25",
        autoscaling__v2beta2="1.26",
        autoscaling__v1="",
    ),
}

# Groups whose every kind is kept as it is; their own modules read them.
_POLICY_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_CALICO_NAMESPACED = ("NetworkPolicy", "NetworkSet", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy")
_CALICO_SKIPPED = ("ClusterInformation", "LicenseKey")
_GATEWAY = "gateway.networking.k8s.io"

SKIPPED_SILENTLY = frozenset(
    [
        "/Secret",
        "/ServiceAccount",
        "/Event",
        "/PersistentVolume",
        "/PersistentVolumeClaim",
        "/LimitRange",
        "/ResourceQuota",
        "/PodTemplate",
        "/ComponentStatus",
        "/Binding",
        "events.k8s.io/Event",
        "coordination.k8s.io/Lease",
        "coordination.k8s.io/LeaseCandidate",
        "apps/ControllerRevision",
        "scheduling.k8s.io/PriorityClass",
        "node.k8s.io/RuntimeClass",
        "extensions/PodSecurityPolicy",
        "certificates.k8s.io/CertificateSigningRequest",
        "apiregistration.k8s.io/APIService",
    ]
) - {"extensions/PodSecurityPolicy"}
SKIPPED_GROUPS = frozenset(
    [
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "scheduling.k8s.io",
        "node.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
        "certificates.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "metrics.k8s.io",
        "resource.k8s.io",
        "internal.apiserver.k8s.io",
        "storagemigration.k8s.io",
    ]
)
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
