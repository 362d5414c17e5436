"""Reading the JSON of iproute2 (``ip -j -d link``, ``ip -j addr``, ``ip -j route|rule|neigh``, ``bridge -j fdb``).

``link_objects`` is the way back for devices: ``read_links`` of it gives the devices of ``ns`` again, but for what iproute2
cannot tell: a veth peer in another namespace, the L2 segment, and flanneld's leases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from netsim.errors import InputError, Problem, Source, UnsupportedError
from netsim.linux import iproute_parse as parse
from netsim.linux.link import Link, LinkKind, TunnelOptions, VxlanOptions
from netsim.linux.link_text import link_flags, link_type, operstate, queue_length, queueing
from netsim.linux.network import Namespace
from netsim.linux.route import Address, FdbEntry, Neighbour, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPAddress, interface

T = TypeVar("T")
Object = Mapping[str, Any]

_KINDS = {"veth": LinkKind.VETH, "bridge": LinkKind.BRIDGE, "vxlan": LinkKind.VXLAN, "ipip": LinkKind.IPIP,
          "tun": LinkKind.TUN, "dummy": LinkKind.DUMMY}  # fmt: skip
_RULE_UNKNOWN = ("tos", "ipproto", "sport", "dport", "sport_start", "dport_start", "uid_start", "tun_id",
                 "suppress_prefixlen", "suppress_ifgroup", "l3mdev", "goto", "nop", "nat", "flow")  # fmt: skip
_LIKE_PHYSICAL = {"", "bond", "team", "vlan", "macvlan", "macvtap", "ipvlan"}


# -- documents ---------------------------------------------------------------------------------------------------------
def read_json(text: str, read: Callable[[Object], T | None], file: str = "-") -> list[T]:
    """Every object of a JSON array through ``read`` (None: nothing to keep); all problems are told, each with its line."""
    found: list[T] = []
    problems: list[Problem] = []
    for line, value in _elements(text, file):
        try:
            if not isinstance(value, dict):
                raise InputError("an object is expected here")
            entry = read(value) if value else None  # iproute2 prints {} for what it filtered out
        except InputError as error:
            problems += (Problem(p.text, p.source or Source(file, line), p.object, p.field) for p in error.problems)
        else:
            if entry is not None:
                found.append(entry)
    if problems:
        raise InputError(problems)
    return found


def _elements(text: str, file: str) -> list[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    found: list[tuple[int, Any]] = []
    try:
        at = _skip(text, 0)
        if text[at : at + 1] != "[":
            raise json.JSONDecodeError("a JSON array is expected", text, at)
        at = _skip(text, at + 1)
        while text[at : at + 1] != "]":
            value, end = decoder.raw_decode(text, at)
            found.append((text.count("\n", 0, at) + 1, value))
            at = _skip(text, end)
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("a comma or ] is expected", text, at)
        if _skip(text, at + 1) != len(text):
            raise json.JSONDecodeError("there is more behind the array", text, at + 1)
    except json.JSONDecodeError as error:
        raise InputError([Problem(f"not JSON: {error.msg}", Source(file, error.lineno))]) from None
    except RecursionError:
        raise InputError([Problem("not JSON of iproute2: nested too deep", Source(file, 1))]) from None
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _text(value: Object, key: str, default: str | None = None) -> str:
    found = value.get(key, default)
    if not isinstance(found, str):
        raise InputError([Problem("is missing" if found is None else "is no text", field=key)])
    return found


def _number(value: Object, key: str, default: int = 0, highest: int = 0xFFFFFFFF) -> int:
    found = value.get(key, default)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= highest:
        raise InputError([Problem(f"{json.dumps(found)} is not a number from 0 to {highest}", field=key)])
    return found


def _object(value: Object, key: str) -> Object:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise InputError([Problem("is no object", field=key)])
    return found


def _list(value: Object, key: str) -> Sequence[Any]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise InputError([Problem("is no array", field=key)])
    return found


def _address(value: Object, *keys: str) -> IPAddress | None:
    for key in keys:
        if key in value and value[key] not in ("any", "0.0.0.0", "::"):
            return parse.address(_text(value, key), key)
    return None


def _refuse(value: Object, what: str, keys: Sequence[str]) -> None:
    for key in keys:
        if key in value:
            raise UnsupportedError(f'"{key}" of {what} is not modelled')


# -- devices -----------------------------------------------------------------------------------------------------------
def read_links(text: str, namespace: str, file: str = "-") -> list[Link]:
    """``ip -j -d link``. A veth whose peer is named is joined to it in ``namespace``; bonds, VLANs and the like are taken
    as the physical device that they appear to be, and their lower devices stay alone."""
    links = read_json(text, lambda value: read_link(value, namespace), file)
    bridges = {link.name for link in links if link.kind is LinkKind.BRIDGE}
    lost = [link for link in links if link.master is not None and link.master not in bridges]
    if lost:
        raise InputError(
            [Problem(f"{k.name}: its master {k.master} is not among the devices", Source(file)) for k in lost]
        )
    return links


def read_link(value: Object, namespace: str) -> Link:
    name = _text(value, "ifname")
    flags = _list(value, "flags")
    info = _object(value, "linkinfo")
    data = _object(info, "info_data")
    kind = _kind(name, value, info)
    up = "UP" in flags and ("LOWER_UP" in flags or value.get("operstate") not in ("DOWN", "LOWERLAYERDOWN"))
    peer = value.get("link") if kind is LinkKind.VETH and "link_netnsid" not in value else None
    slave = info.get("info_slave_kind")
    if slave == "vrf":
        raise UnsupportedError(f"{name}: VRFs are not modelled")
    has_mac = kind not in (LinkKind.LOOPBACK, LinkKind.IPIP, LinkKind.TUN) and value.get("link_type") != "none"
    return Link(
        name,
        kind,
        mac=_text(value, "address").lower() if has_mac else None,
        mtu=_number(value, "mtu", 1500),
        up=up,
        master=_text(value, "master") if "master" in value and slave in (None, "bridge") else None,
        peer=(namespace, peer) if isinstance(peer, str) else None,
        hairpin=bool(_object(info, "info_slave_data").get("hairpin", False)),
        noarp="NOARP" in flags and kind not in (LinkKind.TUN, LinkKind.IPIP),
        vxlan=_vxlan(data) if kind is LinkKind.VXLAN else None,
        tunnel=_tunnel(data) if kind is LinkKind.IPIP else None,
    )


def _kind(name: str, value: Object, info: Object) -> LinkKind:
    if value.get("link_type") == "loopback":
        return LinkKind.LOOPBACK
    kind = info.get("info_kind", "")
    if kind in _KINDS:
        return _KINDS[kind]
    if kind not in _LIKE_PHYSICAL and "UP" in _list(value, "flags"):
        raise UnsupportedError(f"{name}: devices of kind {kind} are not modelled")
    return LinkKind.PHYSICAL


def _vxlan(data: Object) -> VxlanOptions:
    if data.get("external"):
        raise UnsupportedError("a VXLAN device without a VNI of its own (external) is not modelled")
    _refuse(data, "a VXLAN device", ("group", "group6", "remote", "remote6", "gbp", "gpe"))
    return VxlanOptions(
        _number(data, "id", highest=0xFFFFFF),
        _address(data, "local", "local6"),
        _text(data, "link") if "link" in data else None,
        _number(data, "port", 8472, 0xFFFF),
        data.get("learning") is not False,
        data.get("udp_csum") is not False,
    )


def _tunnel(data: Object) -> TunnelOptions:
    return TunnelOptions(
        _address(data, "local"), _address(data, "remote"), _number(data, "ttl", 0, 255), bool(data.get("pmtudisc"))
    )


def link_objects(namespace: Namespace) -> list[dict[str, Any]]:
    """The devices as ``ip -j -d link`` would list them, as far as a value holds it."""
    return [_link_object(index, link, namespace.name) for index, link in enumerate(namespace.links, 1)]


def _link_object(index: int, link: Link, namespace: str) -> dict[str, Any]:
    value: dict[str, Any] = {"ifindex": index}
    if link.peer is not None:
        value |= {"link": link.peer[1]} if link.peer[0] == namespace else {"link_index": 2, "link_netnsid": 0}
    value |= {"ifname": link.name, "flags": link_flags(link), "mtu": link.mtu, "qdisc": queueing(link)}
    if link.master is not None:
        value["master"] = link.master
    value |= {"operstate": operstate(link), "linkmode": "DEFAULT", "group": "default", "txqlen": queue_length(link)}
    value["link_type"] = link_type(link)
    if link.mac is not None:
        value |= {"address": link.mac, "broadcast": "ff:ff:ff:ff:ff:ff"}
    info: dict[str, Any] = {}
    if link.kind not in (LinkKind.LOOPBACK, LinkKind.PHYSICAL):
        info["info_kind"] = str(link.kind)
    if link.vxlan is not None:
        info["info_data"] = _vxlan_object(link.vxlan)
    if link.tunnel is not None:
        tunnel = link.tunnel
        info["info_data"] = {"proto": "ipip", "remote": str(tunnel.remote or "any"), "local": str(tunnel.local or "any"),
                             "ttl": tunnel.ttl, "pmtudisc": tunnel.pmtudisc}  # fmt: skip
    if link.master is not None:
        info |= {"info_slave_kind": "bridge", "info_slave_data": {"hairpin": link.hairpin}}
    return value | {"linkinfo": info} if info else value


def _vxlan_object(options: VxlanOptions) -> dict[str, Any]:
    value: dict[str, Any] = {"id": options.vni}
    if options.local is not None:
        value["local" if options.local.version == 4 else "local6"] = str(options.local)
    if options.device is not None:
        value["link"] = options.device
    return value | {"port": options.port, "learning": options.learning, "udp_csum": options.udp_checksum}


# -- addresses, routes, rules --------------------------------------------------------------------------------------------
def read_addresses(text: str, file: str = "-") -> list[Address]:
    """``ip -j addr``, oldest first: IPv6 addresses are listed the newest first."""
    found: list[Address] = []
    for held in read_json(text, _addresses, file):
        found += [a for a in held if a.interface.version == 4]
        found += [a for a in reversed(held) if a.interface.version == 6]
    return found


def _addresses(value: Object) -> list[Address]:
    device = _text(value, "ifname") if value.get("addr_info") else ""
    return [_read_address(info, device) for info in _list(value, "addr_info") if info]


def _read_address(info: Any, device: str) -> Address:
    if not isinstance(info, dict):
        raise InputError([Problem("an object is expected here", field="addr_info")])
    if "address" in info:
        raise UnsupportedError(f"{device}: point-to-point addresses (peer) are not modelled")
    text = f"{_text(info, 'local')}/{_number(info, 'prefixlen', 128, 128)}"
    try:
        held = interface(text)
    except ValueError:
        raise InputError([Problem(f'"{text}" is not an address with its prefix length', field="local")]) from None
    return Address(device, held, _text(info, "scope", "global"), bool(info.get("noprefixroute")))


def read_routes(text: str, family: Family, file: str = "-") -> list[Route]:
    """``ip -j route show table all`` (``ip -6 -j …``): routes of the other family, which some releases mix in, are left."""
    return read_json(text, lambda value: read_route(value, family), file)


def read_route(value: Object, family: Family) -> Route | None:
    _refuse(value, "a route", ("from", "tos", "encap", "nhid", "iif"))
    kind = _text(value, "type", "unicast")
    if kind not in tuple(RouteType):
        raise UnsupportedError(f"routes of type {kind} are not modelled")
    dst = _text(value, "dst")
    if dst == "default":
        if ("pref" in value) != (family is Family.IPV6):
            return None  # the preference is shown for every IPv6 route
    elif parse.prefix_family(dst) is not family:
        return None
    flags = _list(value, "flags")
    if "dead" in flags:
        return None  # its device is down: the kernel passes over it
    mtus = [metrics["mtu"] for metrics in _list(value, "metrics") if isinstance(metrics, dict) and "mtu" in metrics]
    return parse.checked_route(
        Route(
            parse.prefix(dst, family, "dst"),
            _gateway(value),
            _text(value, "dev") if "dev" in value else None,
            RouteType(kind),
            parse.table(str(value.get("table", "main"))),
            _number(value, "metric"),
            str(value.get("scope", "global")),
            str(value.get("protocol", "boot")),
            _address(value, "prefsrc"),
            "onlink" in flags,
            parse.number(str(mtus[0]), "mtu") if mtus else None,
            tuple(_read_hop(hop) for hop in _list(value, "nexthops")),
        )
    )


def _gateway(value: Object) -> IPAddress | None:
    via = _object(value, "via")
    return parse.address(_text(via, "host"), "via") if via else _address(value, "gateway")


def _read_hop(value: Any) -> NextHop:
    if not isinstance(value, dict):
        raise InputError([Problem("an object is expected here", field="nexthops")])
    _refuse(value, "a next hop", ("encap",))
    device = _text(value, "dev") if "dev" in value else None
    return NextHop(_gateway(value), device, _number(value, "weight", 1, 256), "onlink" in _list(value, "flags"))


def read_rules(text: str, family: Family, file: str = "-") -> list[RoutingRule]:
    """``ip -j rule`` (``ip -6 -j rule``)."""
    return read_json(text, lambda value: read_rule(value, family), file)


def read_rule(value: Object, family: Family) -> RoutingRule:
    _refuse(value, "a routing rule", _RULE_UNKNOWN)
    action = _text(value, "action", "lookup")
    if action not in ("lookup", "to_tbl", *parse.RULE_ACTIONS):
        raise UnsupportedError(f"the action {action} of a routing rule is not modelled")
    source, destination = (_rule_prefix(value, key, family) for key in ("src", "dst"))
    mark, mask = value.get("fwmark"), value.get("fwmask", "0xffffffff")
    return RoutingRule(
        _number(value, "priority"),
        parse.table(str(value.get("table", "main"))),
        source,
        destination,
        _text(value, "iif") if "iif" in value else None,
        _text(value, "oif") if "oif" in value else None,
        None if mark is None else parse.number(str(mark), "fwmark"),
        parse.number(str(mask), "fwmask"),
        "not" in value,
        "lookup" if action == "to_tbl" else action,
        family=family,
    )


def _rule_prefix(value: Object, key: str, family: Family) -> Any:
    text = _text(value, key, "all")
    if text == "all":
        return None
    length = _number(value, f"{key}len", family.bits, family.bits)
    found = parse.prefix(f"{text}/{length}", family, key)
    return found if found.prefixlen else None


# -- neighbours and FDB ------------------------------------------------------------------------------------------------
def read_neighbours(text: str, file: str = "-") -> list[Neighbour]:
    """``ip -j neigh``; proxy entries are left, they resolve nothing."""
    return read_json(text, _neighbour, file)


def _neighbour(value: Object) -> Neighbour | None:
    if "proxy" in value:
        return None
    states = [str(state).lower() for state in _list(value, "state")]
    found = parse.address(_text(value, "dst"), "dst")
    mac = _text(value, "lladdr").lower() if "lladdr" in value else None
    return Neighbour(found, _text(value, "dev"), mac, states[0] if states else "none")


def read_fdb(text: str, file: str = "-") -> list[FdbEntry]:
    """``bridge -j fdb``, every entry once (a bridge with VLAN 1 lists its own addresses twice)."""
    return parse.unique(read_json(text, _fdb, file))


def _fdb(value: Object) -> FdbEntry:
    if value.get("vlan", 1) != 1:
        raise UnsupportedError("VLANs of a bridge are not modelled")
    _refuse(value, "a forwarding entry", ("nhid", "src_vni"))
    destination = parse.address(_text(value, "dst"), "dst") if "dst" in value else None
    return FdbEntry(
        _text(value, "mac").lower(),
        _text(value, "ifname"),
        destination,
        _text(value, "master") if "master" in value else None,
        _text(value, "state", "") or "reachable",
    )
