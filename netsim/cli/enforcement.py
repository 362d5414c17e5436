"""Does the cluster's network enforce policies? What its policies say and what happens are two answers when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsim.kube.cluster import Cluster

KINDS = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_ENFORCES_NONE = {"flannel", "flat", "ptp", "bridge"}
_ENFORCING = ("calico", "canal", "cilium", "weave", "antrea", "kube-router", "ovnkube", "kindnet", "aws-node", "romana")


def plugin(cluster: Cluster) -> tuple[str, bool] | None:
    """The network plugin that the command line or the input names, and whether it enforces policies."""
    if cluster.settings.cni is not None:
        name = cluster.settings.cni.partition(":")[0]
        return name, name not in _ENFORCES_NONE
    for daemon in cluster.store.list("DaemonSet"):
        if daemon.name.startswith(_ENFORCING):
            return daemon.name, True
    from netsim import backends

    found = next((b for b in backends.discover().values() if b.role == "cni" and b.detect(cluster)), None)
    if found is None and any("flannel" in daemon.name for daemon in cluster.store.list("DaemonSet")):
        return "flannel", False
    return None if found is None else (found.name, found.name not in _ENFORCES_NONE)


def policies_count(cluster: Cluster) -> int:
    return sum(cluster.store.count(kind) for kind in KINDS)


def options(parser: Any) -> None:
    parser.add_argument(
        "--enforcement",
        choices=("api", "cni"),
        default="api",
        help="api: what the policies say (default); cni: what happens, where the network plugin enforces none",
    )


def applies(cluster: Cluster, mode: str, note: Any) -> bool:
    """Are the cluster's policies to be applied in this mode? What the reader has to know goes to ``note``."""
    count, held = policies_count(cluster), plugin(cluster)
    if not count or (held is not None and held[1]):
        return True
    policies = "policy" if count == 1 else "policies"
    if mode == "api":
        if held is not None:
            say = "says" if count == 1 else "say"
            told = f"this is what the {count} {policies} {say}; --enforcement cni tells what happens"
            note(f"{held[0]} enforces no policy: {told}")
        return True
    name = held[0] if held is not None else "flannel (assumed: nothing in the input names a network plugin; --cni does)"
    note(no_effect(name, count))
    return False


def no_effect(name: str, count: int) -> str:
    """What is said where policies are not enforced."""
    policies = "policy of the input has" if count == 1 else "policies of the input have"
    return f"{name} enforces no policy: the {count} {policies} no effect"
