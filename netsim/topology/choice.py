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
    return known[_DEFAULT_PROXY]


def _cni(cluster: Cluster, known: dict[str, Backend], asked: str | None) -> tuple[Backend, str | None]:
    if asked is not None:
        name, _, mode = asked.partition(":")
        backend = known.get(name)
        if backend is None or backend.role != "cni":
            there = sorted(n for n, b in known.items() if b.role == "cni")
            raise UsageError(f"--cni {asked}: no such network here; there is: {', '.join(there)}")
        return backend, mode or None
    for backend in known.values():
        if backend.role == "cni" and backend.detect(cluster):
            return backend, None
    other = _other_network(cluster)
    if other is not None:
        found, what = other
        text = f"this cluster runs {what}, which this version does not model; --cni flannel or --cni flat takes another"
        raise UnsupportedError([Problem(text, found.source, f'{found.kind} "{found.name}"')])
    cluster.assumptions.append(
        "the input names no network plugin: flannel with vxlan is assumed (--cni chooses another)"
    )
    return known[_DEFAULT_CNI], None


def _other_network(cluster: Cluster) -> tuple[Object, str] | None:
    """A DaemonSet that installs a network plugin without a backend here."""
    for item in sorted(cluster.store.list("DaemonSet"), key=lambda d: str(d.key)):
        for prefix, what in _OTHERS.items():
            if item.name == prefix or item.name.startswith(f"{prefix}-"):
                return item, what
    return None
