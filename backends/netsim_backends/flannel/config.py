"""flannel's configuration: ``net-conf.json`` and ``cni-conf.json`` (flannel v0.28, pkg/subnet/config.go, pkg/backend/*).

Found in ConfigMap kube-flannel/kube-flannel-cfg (kube-system in older manifests), in a bare net-conf.json among the inputs,
or in the cluster's settings. Keys are matched without regard to case, as Go's JSON reader does; unknown ones are ignored,
as flannel ignores them, but noted.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from netsim.errors import InputError, Problem, Source, UnsupportedError
from netsim.kube.cluster import Cluster
from netsim.packet.address import Family, IPAddress, IPNetwork, network
from netsim_backends.flannel.daemon import DaemonFlags, read_flags

MODES = ("vxlan", "host-gw", "udp", "ipip", "alloc")
_REFUSED = {
    "wireguard": "flannel's WireGuard backend is not modelled",
    "ipsec": "flannel's IPsec backend is not modelled",
    "extension": "flannel's extension backend runs commands of its own, which cannot be modelled",
}
_FIELDS = (
    "Network", "IPv6Network", "EnableIPv4", "EnableIPv6", "EnableNFTables", "SubnetLen", "IPv6SubnetLen", "SubnetMin",
    "SubnetMax", "IPv6SubnetMin", "IPv6SubnetMax", "Backend",
)  # fmt: skip
_BACKEND_FIELDS: Mapping[str, tuple[str, ...]] = {
    "vxlan": ("VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"),
    "udp": ("Port",),
    "ipip": ("DirectRouting",),
    "host-gw": (),
    "alloc": (),
}
_CONFIG_MAPS = (("kube-flannel", "kube-flannel-cfg"), ("kube-system", "kube-flannel-cfg"))
_KINDS = {str: "string", bool: "bool", int: "int", dict: "object", list: "array"}


@dataclass(frozen=True)
class SubnetOptions:
    """What the etcd subnet manager is told about one family; None is flannel's default."""

    length: int | None = None
    low: IPAddress | None = None
    high: IPAddress | None = None


@dataclass(frozen=True)
class FlannelConfig:
    """``networks``: the cluster CIDR of each enabled family. ``mtu`` None: the external interface's."""

    networks: Mapping[Family, IPNetwork]
    mode: str = "vxlan"
    overridden: bool = False
    vni: int = 1
    port: int = 0
    mtu: int | None = None
    learning: bool = False
    direct_routing: bool = False
    subnets: Mapping[Family, SubnetOptions] = field(default_factory=dict)
    delegate: Mapping[str, Any] = field(default_factory=dict)
    port_map: bool = True
    source: Source | None = None
    origin: str = ""
    flags: DaemonFlags = field(default_factory=DaemonFlags)


@dataclass(frozen=True)
class Document:
    """net-conf.json as found, and where."""

    body: Mapping[str, Any]
    name: str
    source: Source | None = None
    cni: Mapping[str, Any] | None = None


def _json(text: str, name: str, field_: str, source: Source | None) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise InputError([Problem(f"error parsing subnet config: {error}", source, name, field_)]) from None
    if not isinstance(body, dict):
        raise InputError([Problem("error parsing subnet config: not a JSON object", source, name, field_)])
    return body


def find_document(cluster: Cluster) -> Document | None:
    """The configuration the input has, if any."""
    for namespace, name in _CONFIG_MAPS:
        held = cluster.store.get("ConfigMap", namespace, name)
        if held is None:
            continue
        said = f"ConfigMap {namespace}/{name}"
        data = cluster.config_map(namespace, name)
        text = data.get("net-conf.json")
        if text is None:
            raise InputError([Problem("the key net-conf.json is missing", held.source, said, "data")])
        body = _json(text, said, 'data["net-conf.json"]', held.source)
        cni = data.get("cni-conf.json")
        parsed = None if cni is None else _json(cni, said, 'data["cni-conf.json"]', held.source)
        return Document(body, said, held.source, parsed)
    for held in cluster.store.list("FlannelNetConf"):
        return Document(held.body, "net-conf.json", held.source)
    if cluster.settings.network_config:
        return Document(cluster.settings.network_config, "net-conf.json")
    return None


def read_config(cluster: Cluster, mode: str | None) -> FlannelConfig:
    """The checked configuration; ``mode`` replaces the backend's type. InputError with every problem."""
    flags = read_flags(cluster)
    document = find_document(cluster)
    if document is None:
        cidrs = cluster.settings.pod_cidrs
        chosen = _checked_mode(mode or "vxlan", None, f"--cni flannel:{mode}")
        cluster.assumptions.append(f"flannel: no net-conf.json found; assuming {chosen} with Network {','.join(cidrs)}")
        networks = {Family(n.version): n for n in map(network, cidrs)}
        return FlannelConfig(networks, chosen, mode is not None, flags=flags)
    reader = _Reader(document)
    config = reader.read(mode)
    if reader.problems:
        raise InputError(reader.problems)
    for key in reader.unknown:
        cluster.assumptions.append(f"flannel: {document.name}: unknown field {key} is ignored, as flannel ignores it")
    return replace(config, flags=flags)


def _checked_mode(mode: str, source: Source | None, name: str, field_: str = "") -> str:
    if mode in _REFUSED:
        text = f"{_REFUSED[mode]}; --cni flannel:vxlan or flannel:host-gw takes another backend"
        raise UnsupportedError([Problem(text, source, name, field_)])
    if mode not in MODES:
        raise InputError([Problem(f"unknown backend type: {mode}", source, name, field_)])
    return mode


class _Reader:
    """Takes the fields out of one document and collects what is wrong with them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.body = {key.lower(): value for key, value in document.body.items()}
        self.problems: list[Problem] = []
        self.unknown = [key for key in document.body if key.lower() not in {f.lower() for f in _FIELDS}]

    def complain(self, field_: str, text: str) -> None:
        self.problems.append(Problem(text, self.document.source, self.document.name, field_))

    def get(self, body: Mapping[str, Any], key: str, kind: type, default: Any, path: str = "") -> Any:
        value = body.get(key.lower())
        if value is None:
            return default
        if type(value) is not kind:
            self.complain(f"{path}{key}", f"must be of type {_KINDS[kind]}, not {json.dumps(value)}")
            return default
        return value

    def prefix(self, key: str, version: int) -> IPNetwork | None:
        text = self.get(self.body, key, str, None)
        if text is None:
            return None
        try:
            if "/" not in text:
                raise ValueError
            value = network(text)  # host bits are masked off without a word
        except ValueError:
            self.complain(key, f'"{text}" is not an IPv{version} network')
            return None
        if value.version != version:
            self.complain(key, f'"{text}" is not an IPv{version} network')
            return None
        return value

    def address(self, key: str, version: int) -> IPAddress | None:
        text = self.get(self.body, key, str, None)
        if text is None:
            return None
        try:
            value = ipaddress.ip_address(text)
        except ValueError:
            value = None
        if value is None or value.version != version:
            self.complain(key, f'"{text}" is not an IPv{version} address')
            return None
        return value

    def read(self, mode: str | None) -> FlannelConfig:
        name, source = self.document.name, self.document.source
        if self.get(self.body, "EnableNFTables", bool, False):
            text = "flannel's nftables mode is not in this version of netsim; EnableNFTables false uses iptables"
            raise UnsupportedError([Problem(text, source, name, "EnableNFTables")])
        networks: dict[Family, IPNetwork] = {}
        options: dict[Family, SubnetOptions] = {}
        for family, key, prefix, default in (
            (Family.IPV4, "Network", "", True),
            (Family.IPV6, "IPv6Network", "IPv6", False),
        ):
            enabled = self.get(self.body, f"EnableIPv{int(family)}", bool, default)
            found = self.prefix(key, int(family))
            options[family] = SubnetOptions(
                self.get(self.body, f"{prefix}SubnetLen", int, 0) or None,
                self.address(f"{prefix}SubnetMin", int(family)),
                self.address(f"{prefix}SubnetMax", int(family)),
            )
            if enabled and found is None and not any(p.field == key for p in self.problems):
                self.complain(key, f"please define a correct {key} parameter in the flannel config")
            if enabled and found is not None:
                networks[family] = found
        if not networks and not self.problems:
            self.complain("EnableIPv4", "neither IPv4 nor IPv6 is enabled")
        backend, chosen = self._backend(mode)
        port = self._number(backend, "Port", 0, 65535)
        return FlannelConfig(
            networks,
            chosen,
            mode is not None,
            self._number(backend, "VNI", 1, (1 << 24) - 1),
            port,
            self._number(backend, "MTU", 0, 65535) or None,
            self.get(backend, "Learning", bool, False, "Backend."),
            self.get(backend, "DirectRouting", bool, False, "Backend."),
            options,
            *self._delegate(),
            source=source,
            origin=name,
        )

    def _backend(self, mode: str | None) -> tuple[Mapping[str, Any], str]:
        """The backend's own options and its type. Without a Backend flannel takes udp, whatever its documentation says."""
        name, source = self.document.name, self.document.source
        body = {k.lower(): v for k, v in self.get(self.body, "Backend", dict, {}).items()}
        absent = self.body.get("backend") is None
        stated = "udp" if absent else self.get(body, "Type", str, "", "Backend.").lower()
        if mode is not None:
            chosen = _checked_mode(mode, None, f"--cni flannel:{mode}")
        else:
            chosen = _checked_mode(stated, source, name, "Backend.Type")
        if stated == chosen:
            known = {"type", *(f.lower() for f in _BACKEND_FIELDS[chosen])}
            given = self.get(self.body, "Backend", dict, {})
            self.unknown += [f"Backend.{key}" for key in given if key.lower() not in known]
            if self.get(body, "GBP", bool, False, "Backend.") and chosen == "vxlan":
                text = "VXLAN group policy (GBP) is not modelled"
                raise UnsupportedError([Problem(text, source, name, "Backend.GBP")])
            known_options = {k: v for k, v in body.items() if k in known}
            return known_options, chosen
        return {}, chosen  # another backend's options mean nothing to the one asked for

    def _number(self, body: Mapping[str, Any], key: str, default: int, high: int) -> int:
        value: int = self.get(body, key, int, default, "Backend.")
        if not 0 <= value <= high:
            self.complain(f"Backend.{key}", f"{value} is not within 0 to {high}")
            return default
        return value

    def _delegate(self) -> tuple[Mapping[str, Any], bool]:
        """The delegate of cni-conf.json, and whether portmap follows; the standard manifest's without such a file."""
        standard = {"hairpinMode": True, "isDefaultGateway": True}
        conf = self.document.cni
        if conf is None:
            return standard, True
        where = 'data["cni-conf.json"]'
        plugins = conf.get("plugins") or [conf]
        kinds = [p.get("type") for p in plugins if isinstance(p, dict)]
        if "flannel" not in kinds:
            self.complain(where, 'no plugin of type "flannel" in it')
            return standard, True
        for kind in kinds:
            if kind not in ("flannel", "portmap", "loopback"):
                text = f'CNI plugin "{kind}" in the chain is not modelled'
                raise UnsupportedError([Problem(text, self.document.source, self.document.name, where)])
        delegate = plugins[kinds.index("flannel")].get("delegate") or {}
        for key in ("name", "ipam"):
            if key in delegate:
                self.complain(where, f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel")
        if not isinstance(delegate.get("type", "bridge"), str):
            self.complain(where, "'delegate' dictionary, if present, must have (string) 'type' field")
        return {**delegate, "name": conf.get("name") or "cbr0"}, "portmap" in kinds
