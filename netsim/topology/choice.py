"""Which data plane the cluster runs: what the command line says, else what the input shows, else a stated default."""

from __future__ import annotations

from dataclasses import dataclass

from netsim import backends
from netsim.backends import Backend
from netsim.errors import Problem, UnsupportedError, UsageError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Object

_DEFAULT_PROXY, _DEFAULT_CNI = "kube-proxy-iptables", "flannel"
# Names by which other data planes betray themselves: workload name prefix → what it is.
_OTHERS = {
    "cilium": "Cilium",
    "weave-net": "Weave Net",
    "calico-node": "Calico",
    "canal": "Canal",
    "antrea-agent": "Antrea",
    "kube-router": "kube-router",
    "ovnkube-node": "OVN-Kubernetes",
    "aws-node": "the Amazon VPC CNI",
    "kindnet": "kindnet",
}


_CALICO_KINDS = ("BGPConfiguration", "FelixConfiguration", "IPPool")  # policies alone may be there for others to read
_FLANNEL_MARK = "flannel.alpha.coreos.com/kube-subnet-manager"


@dataclass(frozen=True)
class Choice:
    proxy: Backend
    cni: Backend
    cni_mode: str | None


def choose(cluster: Cluster) -> Choice:
    """The two backends; anything assumed is added to ``cluster.assumptions``."""
    settings = cluster.settings
    known = backends.discover()
    return Choice(_proxy(cluster, known), *_cni(cluster, known, settings.cni))


def _proxy(cluster: Cluster, known: dict[str, Backend]) -> Backend:
    asked = cluster.settings.proxy
    if asked is not None:
        backend = known.get(f"kube-proxy-{asked}") or known.get(asked)
        if backend is None or backend.role != "proxy":
            modes = sorted(n.removeprefix("kube-proxy-") for n, b in known.items() if b.role == "proxy")
            raise UsageError(f"--proxy {asked}: no such proxy mode here; there is: {', '.join(modes)}")
        return backend
    for backend in known.values():
        if backend.role == "proxy" and backend.detect(cluster):
            return backend
    # A configuration for a mode that nobody here knows is refused by the default's own reading of it.
    return backends.get(_DEFAULT_PROXY)


def _cni(cluster: Cluster, known: dict[str, Backend], asked: str | None) -> tuple[Backend, str | None]:
    if asked is not None:
        name, _, mode = asked.partition(":")
        backend = known.get(name)
        if backend is None or backend.role != "cni":
            there = sorted(n for n, b in known.items() if b.role == "cni")
            raise UsageError(f"--cni {asked}: no such network here; there is: {', '.join(there)}")
        return backend, mode or None
    found = next((b for b in known.values() if b.role == "cni" and b.detect(cluster)), None)
    other = _other_network(cluster)
    if other is not None:
        what, sign = other
        beside = f" beside {found.name}" if found is not None else ""
        text = (
            f"this cluster runs {what}{beside}, which is not modelled here; --cni flannel or --cni flat takes another"
        )
        raise UnsupportedError([Problem(text, sign.source, f'{sign.kind} "{sign.name}"')])
    if found is not None:
        return found, None
    if _shows_flannel(cluster):
        return backends.get(_DEFAULT_CNI), None
    cluster.assumptions.append(
        "the input names no network plugin: flannel with vxlan is assumed (--cni chooses another)"
    )
    return backends.get(_DEFAULT_CNI), None


def _other_network(cluster: Cluster) -> tuple[str, Object] | None:
    """What shows that another network plug-in is at work, the first by kind and name."""
    signs: list[tuple[str, Object]] = []
    for item in cluster.store.list("DaemonSet"):
        signs += ((what, item) for what in _named(item.name))
    for pod in cluster.pods.values():  # a dump may have the pods of a DaemonSet and not itself
        for owner in pod.metadata.owner_references:
            if owner.kind == "DaemonSet":
                signs += ((what, pod) for what in _named(owner.name))
    for kind in _CALICO_KINDS:
        signs += (("Calico", item) for item in cluster.store.list(kind))
    return min(signs, key=lambda s: (s[1].kind, s[1].key), default=None)


def _named(name: str) -> list[str]:
    return [what for prefix, what in _OTHERS.items() if name == prefix or name.startswith(f"{prefix}-")]


def _shows_flannel(cluster: Cluster) -> bool:
    """flannel's DaemonSet or its marks on nodes, in an input without its ConfigMap (flannel says itself what it assumes)."""
    if any(item.name.startswith("kube-flannel") for item in cluster.store.list("DaemonSet")):
        return True
    return any(_FLANNEL_MARK in node.metadata.annotations for node in cluster.nodes.values())
