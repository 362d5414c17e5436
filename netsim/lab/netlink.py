"""rtnetlink, through pyroute2: the one module that speaks it.

Each kernel object becomes one ``Request``, a value that says what is wanted in pyroute2's words and can be looked at without
a kernel; a ``Netlink`` sends requests in one network namespace. The numbers are those of include/uapi/linux (6.1):
rtnetlink.h, if_addr.h, neighbour.h, fib_rules.h.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from netsim.errors import PrivilegeError
from netsim.lab.holder import NETNS
from netsim.linux.kernel_made import SCOPES
from netsim.linux.link import Link, LinkKind
from netsim.linux.link_text import has_broadcast
from netsim.linux.route import Address, FdbEntry, Neighbour, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPNetwork, family_of

_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_AF_BRIDGE = 7
_NODAD, _NOPREFIXROUTE = 0x02, 0x200  # IFA_F_*
_ONLINK = 4  # RTNH_F_ONLINK
_INVERT = 2  # FIB_RULE_INVERT
_SELF, _MASTER = 2, 4  # NTF_*
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80  # NUD_*
# The rules a namespace is born with (fib_default_rules_init, fib6_rules_net_init): priority and table.
_DEFAULT_RULES = {Family.IPV4: ((0, 255), (32766, 254), (32767, 253)), Family.IPV6: ((0, 255), (32766, 254))}
_HINTS = {
    errno.EOPNOTSUPP: "this kernel does not have that; `netsim lab doctor` says which kernel does",
    errno.EPERM: "it is not permitted here; `netsim lab doctor` says what this machine allows",
    errno.ENETUNREACH: "its gateway is not reachable from this namespace",
    errno.EEXIST: "it is there already",
}


class Device(str):
    """A device by its name: the request carries the index that it has when the request is sent."""

    __slots__ = ()


@dataclass(frozen=True)
class Request:
    """``noun`` and ``verb`` are a method of pyroute2's IPRoute and its command. ``about`` names the object in an error."""

    about: str
    noun: str
    verb: str
    words: Mapping[str, Any]


# -- devices -----------------------------------------------------------------------------------------------------------
def veth(link: Link, far: Mapping[str, Any], place: str) -> Request:
    """A pair, each end made where it belongs: ``far`` (ifname, mtu …) in the namespace that the file ``place`` names."""
    peer = {**far, "net_ns_fd": f"{NETNS}/{place}"}
    return _made(link, "veth", peer=peer)


def end(link: Link) -> dict[str, Any]:
    """One end of a pair, as ``veth`` takes it."""
    return {"ifname": link.name, "mtu": link.mtu, **({"address": link.mac} if link.mac else {})}


def simple(link: Link) -> Request:
    """A bridge or a dummy: kinds without options of their own."""
    return _made(link, str(link.kind))


def switch(name: str, mtu: int) -> Request:
    """The bridge that stands for an L2 segment: it looks into nothing that it carries."""
    words = {"ifname": name, "kind": "bridge", "mtu": mtu, "br_mcast_snooping": 0}
    return Request(f"device {name} (bridge)", "link", "add", words)


def tun(link: Link) -> Request:
    return Request(f"device {link.name} (tun)", "link", "add", {"ifname": link.name, "kind": "tuntap", "mode": "tun"})


def vxlan(link: Link) -> Request:
    options = link.vxlan
    assert options is not None
    words: dict[str, Any] = {
        "vxlan_id": options.vni,
        "vxlan_port": options.port,
        "vxlan_learning": int(options.learning),
        "vxlan_udp_csum": int(options.udp_checksum),
    }
    if options.local is not None:
        words["vxlan_local" if options.local.version == 4 else "vxlan_local6"] = str(options.local)
    if options.device is not None:
        words["vxlan_link"] = Device(options.device)
    return _made(link, "vxlan", **words)


def ipip(link: Link) -> Request:
    options = link.tunnel
    assert options is not None
    words: dict[str, Any] = {"ipip_ttl": options.ttl, "ipip_pmtudisc": int(options.pmtudisc)}
    for word, address in (("ipip_local", options.local), ("ipip_remote", options.remote)):
        if address is not None:
            words[word] = str(address)
    return _made(link, "ipip", **words)


def _made(link: Link, kind: str, **words: Any) -> Request:
    return Request(f"device {link.name} ({kind})", "link", "add", {**end(link), "kind": kind, **words})


def up(name: str, *, master: str | None = None) -> Request:
    words: dict[str, Any] = {"index": Device(name), "state": "up"}
    if master is not None:
        words["master"] = Device(master)
    return Request(f"device {name}", "link", "set", words)


def state(link: Link) -> Request:
    """What a device is told after it was made: its bridge, ARP, up or down."""
    words: dict[str, Any] = {"index": Device(link.name), "state": "up" if link.up else "down"}
    if link.kind is LinkKind.TUN:
        words["mtu"] = link.mtu  # the ioctl that makes it takes none
    if link.noarp:
        words["arp"] = False
    if link.master is not None:
        words["master"] = Device(link.master)
    return Request(f"device {link.name}", "link", "set", words)


def hairpin(link: Link) -> Request:
    return Request(f"hairpin of {link.name}", "brport", "set", {"index": Device(link.name), "mode": 1})


# -- addresses, routes, rules --------------------------------------------------------------------------------------------
def address(given: Address) -> Request:
    held = given.interface
    flags = (_NOPREFIXROUTE if given.noprefixroute else 0) | (_NODAD if held.version == 6 else 0)
    words: dict[str, Any] = {
        "index": Device(given.device),
        "family": _AF[family_of(held)],
        "address": str(held.ip),
        "prefixlen": held.network.prefixlen,
        "scope": SCOPES[given.scope],
    }
    if has_broadcast(given):
        words["broadcast"] = str(held.network.broadcast_address)
    if flags:
        words["flags"] = flags
    return Request(f"address {held} of {given.device}", "addr", "add", words)


def route(given: Route) -> Request:
    family = family_of(given.destination)
    words: dict[str, Any] = {
        "family": _AF[family],
        **_prefix("dst", given.destination),
        "type": str(given.type),
        "table": given.table,
        "proto": _number(given.protocol),
        "scope": SCOPES[given.scope] if family is Family.IPV4 else 0,
    }
    if given.metric:
        words["priority"] = given.metric
    if given.source is not None:
        words["prefsrc"] = str(given.source)
    if given.mtu:
        words["metrics"] = {"mtu": given.mtu}
    if given.nexthops:
        words["multipath"] = [{**_hop(hop, family), "hops": hop.weight - 1} for hop in given.nexthops]
    else:
        words.update(_hop(NextHop(given.gateway, given.device, 1, given.onlink), family))
    kind = "" if given.type is RouteType.UNICAST else f"{given.type} "
    way = f"{f' via {given.gateway}' if given.gateway else ''}{f' dev {given.device}' if given.device else ''}"
    return Request(f"route {kind}{given.destination}{way} table {given.table}", "route", "add", words)


def _hop(hop: NextHop, family: Family) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if hop.device is not None:
        words["oif"] = Device(hop.device)
    if hop.gateway is not None:
        own = family_of(hop.gateway)
        if own is family:
            words["gateway"] = str(hop.gateway)
        else:
            words["via"] = {"family": _AF[own], "addr": str(hop.gateway)}
    if hop.onlink:
        words["flags"] = _ONLINK
    return words


def _prefix(word: str, prefix: IPNetwork) -> dict[str, Any]:
    return {word: str(prefix.network_address), f"{word}_len": prefix.prefixlen}


def _number(protocol: str) -> int | str:
    return int(protocol) if protocol.isdecimal() else protocol


def no_rules(family: Family) -> list[Request]:
    """Take away the rules that a namespace is born with."""
    return [
        Request(f"rule {priority}", "rule", "del", {"family": _AF[family], "priority": priority, "table": table})
        for priority, table in _DEFAULT_RULES[family]
    ]


def rule(given: RoutingRule, family: Family) -> Request:
    words: dict[str, Any] = {"family": _AF[family], "priority": given.priority}
    if given.action == "lookup":
        words |= {"action": "to_tbl", "table": given.table}
    else:
        words["action"] = given.action
    for word, prefix in (("src", given.source), ("dst", given.destination)):
        if prefix is not None and prefix.prefixlen:
            words |= _prefix(word, prefix)
    for word, device in (("iifname", given.iif), ("oifname", given.oif)):
        if device is not None:
            words[word] = device
    if given.mark is not None:
        words |= {"fwmark": given.mark, "fwmask": given.mask}
    if given.invert:
        words["flags"] = _INVERT
    return Request(f"rule {given.priority} ({family.name})", "rule", "add", words)


# -- neighbours, forwarding entries --------------------------------------------------------------------------------------
def neighbour(given: Neighbour) -> Request:
    words: dict[str, Any] = {
        "ifindex": Device(given.device),
        "family": _AF[family_of(given.address)],
        "dst": str(given.address),
        "state": given.state,
    }
    if given.mac is not None:
        words["lladdr"] = given.mac
    return Request(f"neighbour {given.address} of {given.device}", "neigh", "replace", words)


def fdb(given: FdbEntry) -> Request:
    words: dict[str, Any] = {
        "ifindex": Device(given.device),
        "family": _AF_BRIDGE,
        "lladdr": given.mac,
        "state": _PERMANENT | _NOARP if given.state == "permanent" else _REACHABLE,
        "flags": _SELF if given.destination is not None else _MASTER,
    }
    if given.destination is not None:
        words["dst"] = str(given.destination)
    return Request(f"forwarding entry {given.mac} of {given.device}", "neigh", "append", words)


# -- sending -------------------------------------------------------------------------------------------------------------
def warm() -> None:
    """Import pyroute2, which takes longer than the building of a small lab: for a moment when others work."""
    import pyroute2.iproute  # noqa: F401


class Netlink:
    """A netlink socket of the network namespace that this thread is in; use it there, for names become indices there."""

    def __init__(self, where: str) -> None:
        from pyroute2.iproute import IPRoute

        self._where = where
        self._route = IPRoute(groups=0, ext_ack=True)
        self._indices: dict[str, int] = {}

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._route.close()

    def send(self, requests: Iterable[Request]) -> None:
        """In order. PrivilegeError at the first that the kernel refuses: it names the object and the kernel's reason."""
        from pyroute2.netlink.exceptions import NetlinkError

        for request in requests:
            try:
                getattr(self._route, request.noun)(request.verb, **self._with_indices(request.words))
            except NetlinkError as error:
                raise self._refused(request, error.code, str(error.args[-1])) from None
            except OSError as error:  # a device that is not there; a TUN device is made by an ioctl
                raise self._refused(request, error.errno or errno.EIO, error.strerror or "") from None

    def _refused(self, request: Request, code: int, said: str) -> PrivilegeError:
        reason = os.strerror(code)
        told = f"{reason}: {said}" if said and said != reason else reason
        hint = f"; {_HINTS[code]}" if code in _HINTS else ""
        return PrivilegeError(f"{self._where}: {request.about}: the kernel refuses it ({told}){hint}")

    def _with_indices(self, value: Any) -> Any:
        if isinstance(value, Device):
            return self._index(value)
        if isinstance(value, Mapping):
            return {key: self._with_indices(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._with_indices(one) for one in value]
        return value

    def _index(self, name: str) -> int:
        if name not in self._indices:
            try:
                self._indices[name] = socket.if_nametoindex(name)
            except OSError:  # which says no more than that
                raise OSError(errno.ENODEV, name) from None
        return self._indices[name]
