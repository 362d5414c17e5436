"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): the fields that decide about packets, checked.

All proxy modes share this. It comes from the cluster's settings (a bare document, or what the loader found), else from
ConfigMap kube-system/kube-proxy, whose ``config.conf`` is the document as text. Defaults are those of upstream's
v1alpha1 defaults; values are refused where kube-proxy itself would refuse to start (1.28 to 1.35).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netsim.errors import InputError, Problem, Source
from netsim.kube.cluster import Cluster
from netsim.packet.address import IPNetwork
from netsim_backends.kube_proxy.addresses import parse_cidr, parse_ip

MODES = ("iptables", "ipvs", "nftables")
LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
PRIMARY = "primary"

_DURATION = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

# The whole vocabulary of the document; a name outside it is a mistake that kube-proxy only logs.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "iptables": ("masqueradeBit", "masqueradeAll", "localhostNodePorts", "syncPeriod", "minSyncPeriod"),
    "ipvs": (
        "syncPeriod", "minSyncPeriod", "scheduler", "excludeCIDRs", "strictARP", "tcpTimeout", "tcpFinTimeout",
        "udpTimeout",
    ),
    "nftables": ("masqueradeBit", "masqueradeAll", "syncPeriod", "minSyncPeriod"),
    "conntrack": (
        "maxPerCore", "min", "tcpEstablishedTimeout", "tcpCloseWaitTimeout", "tcpBeLiberal", "udpTimeout",
        "udpStreamTimeout",
    ),
    "detectLocal": ("bridgeInterface", "interfaceNamePrefix"),
}  # fmt: skip
_OTHER_FIELDS = frozenset(
    (
        "apiVersion", "kind", "metadata", "featureGates", "clientConnection", "logging", "hostnameOverride", "bindAddress",
        "healthzBindAddress", "metricsBindAddress", "bindAddressHardFail", "enableProfiling", "oomScoreAdj", "portRange",
        "showHiddenMetricsForVersion", "mode", "winkernel", "detectLocalMode", "clusterCIDR", "nodePortAddresses",
        "configSyncPeriod", "windowsRunAsService",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Conntrack:
    """None or 0 leaves the kernel's value alone; times in seconds."""

    max_per_core: int = 32768
    min: int = 131072
    tcp_established: float = 86400
    tcp_close_wait: float = 3600
    tcp_be_liberal: bool = False
    udp: float = 0
    udp_stream: float = 0


@dataclass(frozen=True)
class ProxyConfig:
    """``cluster_cidrs`` empty means that nothing tells local traffic by ClusterCIDR. ``origin`` is named in errors."""

    mode: str = "iptables"
    cluster_cidrs: tuple[IPNetwork, ...] = ()
    detect_local_mode: str = "ClusterCIDR"
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    node_port_addresses: tuple[str, ...] = ()
    hostname_override: str = ""
    bind_address: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    localhost_node_ports: bool = True
    conntrack: Conntrack = Conntrack()
    ipvs: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None

    @property
    def mark(self) -> int:
        return 1 << self.masquerade_bit


@dataclass(frozen=True)
class Document:
    """The configuration as found: JSON, and where it stood."""

    body: Mapping[str, Any]
    name: str
    source: Source | None = None


def find_document(cluster: Cluster) -> Document | None:
    """The cluster's KubeProxyConfiguration; None if the input has none. InputError if it is no readable document."""
    held = cluster.store.get("ConfigMap", "kube-system", "kube-proxy")
    source = held.source if held is not None else None
    if cluster.settings.proxy_config:
        return Document(cluster.settings.proxy_config, "KubeProxyConfiguration", source)
    if held is None:
        return None
    name = "ConfigMap kube-system/kube-proxy"
    text = cluster.config_map("kube-system", "kube-proxy").get("config.conf")
    if text is None:
        raise InputError([Problem("the key config.conf is missing", source, name, "data")])
    from netsim.kube import yaml_reader  # only where a ConfigMap has to be read

    field, found = 'data["config.conf"]', list(yaml_reader.read("config.conf", text))
    problems = [p for p in found if isinstance(p, Problem)]
    if problems:
        raise InputError([Problem(f"{p.source}: {p.text}", source, name, field) for p in problems])
    bodies = [d.value for d in found if isinstance(d, yaml_reader.Document)]
    if len(bodies) != 1 or not isinstance(bodies[0], dict):
        raise InputError([Problem("not a KubeProxyConfiguration", source, name, field)])
    return Document(bodies[0], name, source)


def read_config(cluster: Cluster) -> ProxyConfig:
    """The checked configuration; InputError with every problem of it. Notes what was assumed on the cluster."""
    document = find_document(cluster)
    if document is None:
        _note(
            cluster, f"kube-proxy: no configuration found; assuming clusterCIDR {','.join(cluster.settings.pod_cidrs)}"
        )
        return ProxyConfig(cluster_cidrs=tuple(parse_cidr(c) for c in cluster.settings.pod_cidrs))
    reader = _Reader(document)
    config = reader.read()
    if reader.problems:
        raise InputError(reader.problems)
    for path in reader.unknown:
        _note(cluster, f"kube-proxy: {document.name}: unknown field {path} is ignored, as kube-proxy ignores it")
    return config


def _note(cluster: Cluster, text: str) -> None:
    if text not in cluster.assumptions:
        cluster.assumptions.append(text)


class _Reader:
    """Takes fields out of a document one by one and collects what is wrong with them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.body = document.body
        self.problems: list[Problem] = []
        self.unknown: list[str] = []

    def complain(self, path: str, text: str) -> None:
        self.problems.append(Problem(text, self.document.source, self.document.name, path))

    def invalid(self, path: str, value: object, text: str) -> None:
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        self.complain(path, f"Invalid value: {shown}: {text}")

    def get(self, path: str, kind: type, default: Any) -> Any:
        """The value at ``path`` (one dot at most); ``default`` for absent and null."""
        section, dot, key = path.rpartition(".")
        held: Any = self.body.get(section) if dot else self.body
        value = held.get(key) if isinstance(held, Mapping) else None
        if value is None:
            return default
        if type(value) is not kind:
            names = {str: "string", bool: "bool", int: "int", list: "list"}
            self.invalid(path, value, f"must be a {names[kind]}")
            return default
        return value

    def integer(self, path: str, default: int, low: int = 0, high: int | None = None) -> int:
        value: int = self.get(path, int, default)
        if value < low or (high is not None and value > high):
            wanted = f"within the range [{low}, {high}]" if high is not None else f"greater than or equal to {low}"
            self.invalid(path, value, f"must be {wanted}")
        return value

    def duration(self, path: str, default: float, positive: bool = False) -> float:
        """Seconds from Go's ``1h2m3.5s``."""
        text: str = self.get(path, str, "")
        if not text:
            return default
        if text.lstrip("+-") == "0":
            seconds = 0.0
        else:
            parts = _DURATION.findall(text)
            if "".join(parts) != text or any(p[0] in "+-" for p in parts[1:]):
                self.invalid(path, text, "must be a duration such as 30s or 1h30m")
                return default
            unit = re.compile(r"[^\d.+-]+")
            size = sum(abs(float(unit.sub("", p))) * _UNITS[unit.findall(p)[0]] for p in parts)
            seconds = -size if text[0] == "-" else size
        if seconds < 0 or (positive and seconds == 0):
            self.invalid(path, text, "must be greater than 0" if positive else "must be greater than or equal to 0")
        return seconds

    def one_of(self, path: str, allowed: tuple[str, ...], blank: str) -> str:
        value: str = self.get(path, str, "")
        if value and value not in allowed:
            self.invalid(path, value, f"must be {','.join(allowed)} or blank (blank means {blank})")
        return value if value in allowed else allowed[0]

    def read(self) -> ProxyConfig:
        self._vocabulary()
        mode = self.one_of("mode", MODES, "iptables")
        local = self.one_of("detectLocalMode", LOCAL_MODES, "ClusterCIDR")
        bridge: str = self.get("detectLocal.bridgeInterface", str, "")
        prefix: str = self.get("detectLocal.interfaceNamePrefix", str, "")
        if local == "BridgeInterface" and not bridge:
            self.invalid("detectLocal.bridgeInterface", bridge, "must not be empty")
        if local == "InterfaceNamePrefix" and not prefix:
            self.invalid("detectLocal.interfaceNamePrefix", prefix, "must not be empty")
        for path, name, longest in (("bridgeInterface", bridge, 15), ("interfaceNamePrefix", prefix, 14)):
            if len(name) > longest or any(c.isspace() or c == "/" for c in name):
                self.invalid(f"detectLocal.{path}", name, "must be a Linux interface name")
        section = "nftables" if mode == "nftables" else "iptables"
        for name in ("iptables", "ipvs", "nftables"):
            every = self.duration(f"{name}.syncPeriod", 30, positive=True)
            least = self.duration(f"{name}.minSyncPeriod", 1)
            if least > every > 0:
                self.invalid(
                    f"{name}.syncPeriod", f"{every:g}s", f"must be greater than or equal to {name}.minSyncPeriod"
                )
        for name in ("tcpTimeout", "tcpFinTimeout", "udpTimeout"):
            self.duration(f"ipvs.{name}", 0)
        bits = {name: self.integer(f"{name}.masqueradeBit", 14, 0, 31) for name in ("iptables", "nftables")}
        everything = {name: self.get(f"{name}.masqueradeAll", bool, False) for name in ("iptables", "nftables")}
        ipvs = self.body.get("ipvs")
        return ProxyConfig(
            mode=mode,
            cluster_cidrs=self._cluster_cidrs(),
            detect_local_mode=local,
            bridge_interface=bridge,
            interface_name_prefix=prefix,
            node_port_addresses=self._node_port_addresses(),
            hostname_override=self.get("hostnameOverride", str, "").strip().lower(),
            bind_address=self._bind_address(),
            masquerade_all=everything[section],
            masquerade_bit=bits[section],
            localhost_node_ports=self.get("iptables.localhostNodePorts", bool, True),
            conntrack=Conntrack(
                max_per_core=self.integer("conntrack.maxPerCore", 32768),
                min=self.integer("conntrack.min", 131072),
                tcp_established=self.duration("conntrack.tcpEstablishedTimeout", 86400),
                tcp_close_wait=self.duration("conntrack.tcpCloseWaitTimeout", 3600),
                tcp_be_liberal=self.get("conntrack.tcpBeLiberal", bool, False),
                udp=self.duration("conntrack.udpTimeout", 0),
                udp_stream=self.duration("conntrack.udpStreamTimeout", 0),
            ),
            ipvs=dict(ipvs) if isinstance(ipvs, Mapping) else {},
            source=self.document.source,
        )

    def _vocabulary(self) -> None:
        version = self.get("apiVersion", str, "")
        if version not in ("", "kubeproxy.config.k8s.io/v1alpha1"):
            self.invalid("apiVersion", version, "must be kubeproxy.config.k8s.io/v1alpha1")
        if self.get("kind", str, "KubeProxyConfiguration") != "KubeProxyConfiguration":
            self.invalid("kind", self.body["kind"], "must be KubeProxyConfiguration")
        for key, value in self.body.items():
            if key not in _SECTIONS:
                if key not in _OTHER_FIELDS:
                    self.unknown.append(str(key))
            elif isinstance(value, Mapping):
                self.unknown.extend(f"{key}.{name}" for name in value if name not in _SECTIONS[key])
            elif value is not None:
                self.invalid(key, value, "must be an object")

    def _cluster_cidrs(self) -> tuple[IPNetwork, ...]:
        text: str = self.get("clusterCIDR", str, "")
        if not text:
            return ()
        cidrs = self._each("clusterCIDR", text.split(","), parse_cidr, "must be a valid CIDR block")
        if len(cidrs) > 2 or len({c.version for c in cidrs}) != len(cidrs):
            self.invalid("clusterCIDR", text, "only one CIDR allowed or a valid DualStack CIDR")
        return cidrs

    def _node_port_addresses(self) -> tuple[str, ...]:
        texts: list[Any] = self.get("nodePortAddresses", list, [])
        if texts == [PRIMARY]:
            return (PRIMARY,)
        cidrs: list[str] = []
        for index, text in enumerate(texts):
            path = f"nodePortAddresses[{index}]"
            if text == PRIMARY:
                self.invalid(path, text, "can't use both 'primary' and CIDRs")
                continue
            cidrs += [str(c) for c in self._each(path, [str(text)], parse_cidr, "must be a valid CIDR")]
        return tuple(cidrs)

    def _bind_address(self) -> str:
        text: str = self.get("bindAddress", str, "")
        if not text:
            return ""
        try:
            address = parse_ip(text)
        except ValueError:
            self.invalid("bindAddress", text, "must be a valid IP address")
            return ""
        return "" if address.is_unspecified else str(address)

    def _each(
        self, path: str, texts: list[str], parse: Callable[[str], IPNetwork], wanted: str
    ) -> tuple[IPNetwork, ...]:
        found = []
        for text in texts:
            try:
                found.append(parse(text.strip()))
            except ValueError:
                self.invalid(path, text, wanted)
        return tuple(found)
