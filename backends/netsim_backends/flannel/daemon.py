"""What flanneld is told on its command line: the arguments of the flannel DaemonSet, where the input has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netsim.errors import Problem, Source, UnsupportedError
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Workload

# Flags about where flanneld itself looks things up and what it logs: no packet is decided by them.
_HARMLESS = frozenset(
    (
        "alsologtostderr", "logtostderr", "log_dir", "v", "vmodule", "version", "healthz-ip", "healthz-port",
        "kubeconfig-file", "kube-api-url", "net-config-path", "subnet-file", "iptables-resync", "etcd-endpoints",
        "etcd-prefix", "etcd-keyfile", "etcd-certfile", "etcd-cafile", "etcd-username", "etcd-password",
        "subnet-lease-renew-margin", "charon-executable-path", "charon-viciuri-path", "set-node-network-unavailable",
    )
)  # fmt: skip
_INTERFACE = ("iface", "iface-regex", "iface-can-reach")


@dataclass(frozen=True)
class DaemonFlags:
    """Those of the standard manifest, unless the DaemonSet says otherwise."""

    kube_subnet_manager: bool = True
    masquerade: bool = True
    random_fully: bool = True
    forward_rules: bool = True
    source: Source | None = None


def read_flags(cluster: Cluster) -> DaemonFlags:
    """UnsupportedError for flags that would change packets in a way not modelled."""
    found = next(_daemon_sets(cluster), None)
    if found is None:
        return DaemonFlags()
    item, words = found
    given = dict(_flags(words))
    said = f'DaemonSet "{item.name}"'
    for name in given:
        if name in _INTERFACE:
            cluster.assumptions.append(f"flannel: --{name} is not looked at: nodes have one external interface here")
        elif name not in _HARMLESS and name not in (
            "kube-subnet-mgr",
            "ip-masq",
            "ip-masq-fully-random-disable",
            "iptables-forward-rules",
        ):
            text = f"flanneld's flag --{name} is not modelled"
            raise UnsupportedError([Problem(text, item.source, said, "spec.template.spec.containers.args")])
    return DaemonFlags(
        kube_subnet_manager=given.get("kube-subnet-mgr", False),
        masquerade=given.get("ip-masq", False),
        random_fully=not given.get("ip-masq-fully-random-disable", False),
        forward_rules=given.get("iptables-forward-rules", True),
        source=item.source,
    )


def _daemon_sets(cluster: Cluster) -> Iterator[tuple[Workload, list[str]]]:
    """flannel's DaemonSets, by name, with the words that follow ``flanneld``."""
    for item in sorted(cluster.store.typed("DaemonSet", Workload), key=lambda d: d.key):
        template = (item.spec.get("template") or {}).get("spec") or {}
        for container in template.get("containers") or ():
            words = [*(container.get("command") or ()), *(container.get("args") or ())]
            if words and str(words[0]).rpartition("/")[2] == "flanneld":
                yield item, [str(word) for word in words[1:]]


def _flags(words: list[str]) -> Iterator[tuple[str, bool]]:
    """Go's flags: one dash or two, ``=false`` switches off. Values of flags that are no switches do not matter here."""
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            yield name, not equals or value.lower() in ("1", "t", "true")
