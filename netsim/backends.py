"""What a backend is, and where backends are found.

A backend knows one technology. It reads the cluster and writes kernel objects; it never forwards a packet. Two roles:
a *proxy* (kube-proxy in one of its modes) writes Service rules; a *CNI* gives pods their addresses, devices and routes
and nodes their tunnels. Both are found through the entry points group ``netsim.backends``; adding one touches one folder.

    Backend ──configure(cluster)──▶ Plugin ──build_node / build_pod──▶ kernel objects
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, runtime_checkable

from netsim.errors import UsageError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Pod
from netsim.linux.builder import NamespaceBuilder

# Components start in this order on a node, which decides what is inserted above what: the underlay, the kubelet and
# kube-proxy, then the CNI's daemon, then (per pod) the CNI plugins.
GROUP = "netsim.backends"


@dataclass(frozen=True)
class Underlay:
    """What a CNI may know of the network between the nodes: the answers of a route look-up on the node."""

    device: str  # the external interface's name, "eth0"
    mtu: int
    addresses: Mapping[str, tuple[str, ...]]  # node → its addresses on that interface, primary first
    segments: Mapping[str, str]  # node → L2 segment

    def on_link(self, a: str, b: str) -> bool:
        """Can node ``a`` reach node ``b`` without a router?"""
        return self.segments[a] == self.segments[b]


@runtime_checkable
class Plugin(Protocol):
    """A configured backend. All methods are pure: same cluster, same objects."""

    def build_node(self, node: str, builder: NamespaceBuilder) -> None:
        """Write what the component's daemon puts into this node's kernel."""


@runtime_checkable
class RenewablePlugin(Plugin, Protocol):
    """A plug-in that need not be configured anew when Services change."""

    alike: bool  # do nodes that saw the same before see the same now? As in ``netsim.linux.network.Renewal``

    def updated(self, cluster: Cluster, services: Collection[tuple[str, str]]) -> RenewablePlugin:
        """The plug-in for ``cluster``: this one's, with other Services (or EndpointSlices) of these names."""

    def renewed(self, chains: Any, before: Any) -> tuple[Any, Collection[str]]:
        """What mappings of chains that are derived on look-up have become: ``Renewal.chains``."""


@runtime_checkable
class CniPlugin(Plugin, Protocol):
    enforces_policy: bool  # does this CNI enforce NetworkPolicy?

    def allocate(self) -> Mapping[tuple[str, str], Iterable[str]]:
        """Addresses for the cluster's scheduled pods that have none: (namespace, name) → one per family.

        Runs before EndpointSlices exist. hostNetwork pods are not asked for."""

    def build_pod(self, pod: Pod, builder: NamespaceBuilder) -> None:
        """Write the pod's own namespace: ``eth0``, addresses, routes. (Its host end belongs to ``build_node``.)"""


class Backend(Protocol):
    """May have ``modes``: what can follow the colon of ``--cni NAME:MODE``, for commands that try them all."""

    name: str  # "kube-proxy-iptables", "flannel", …
    role: Literal["proxy", "cni"]

    def detect(self, cluster: Cluster) -> str | None:
        """Does the input ask for this backend? Returns the reason ("ConfigMap kube-flannel/kube-flannel-cfg") or None."""

    def configure(self, cluster: Cluster, mode: str | None, underlay: Underlay) -> Plugin:
        """Read the configuration (InputError with its source if bad). ``mode`` is what followed the colon of ``--cni``."""


def discover() -> dict[str, Backend]:
    """Every installed backend by name."""
    found: dict[str, Backend] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        found[entry.name] = entry.load()
    return found


def get(name: str) -> Backend:
    """The backend called ``name``; UsageError listing the known ones."""
    known = {e.name: e for e in entry_points(group=GROUP)}
    if name not in known:
        raise UsageError(f"no backend is called {name!r}; installed are: {', '.join(sorted(known)) or 'none'}")
    backend: Backend = known[name].load()
    return backend
