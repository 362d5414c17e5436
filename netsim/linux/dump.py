"""One real node's kernel, as its own tools dumped it into a directory (``netsim trace --node-rules DIR``).

    link.json      ip -j -d link                          needed
    addr.json      ip -j addr                             needed
    route.json     ip -j route show table all             needed
    route6.json    ip -6 -j route show table all
    rule.json      ip -j rule           rule6.json        ip -6 -j rule
    neigh.json     ip -j neigh          fdb.json          bridge -j fdb
    sysctl.txt     sysctl -a (any part of it)
    iptables-save  ip6tables-save  ipset-save             the output of these commands (``ipset save``)

A file that is missing stands for a node that has none of it; any other file is refused, so that nothing of a node is
overlooked in silence. The node is called as the directory is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from netsim.errors import InputError, Problem, Source
from netsim.linux import ipset
from netsim.linux.iproute_json import (
    read_addresses,
    read_fdb,
    read_links,
    read_neighbours,
    read_routes,
    read_rules,
)
from netsim.linux.kernel_made import kernel_routes, kernel_routes_of
from netsim.linux.link import Link
from netsim.linux.netfilter import text as netfilter
from netsim.linux.netfilter.table import Ruleset
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_LOCAL, TABLE_MAIN, Address, Route, RoutingRule
from netsim.linux.sysctl import DEFAULTS
from netsim.packet.address import Family, IPNetwork

T = TypeVar("T")

NEEDED = ("link.json", "addr.json", "route.json")
OPTIONAL = (
    "route6.json", "rule.json", "rule6.json", "neigh.json", "fdb.json", "sysctl.txt", "iptables-save", "ip6tables-save",
    "ipset-save",
)  # fmt: skip
_NUMERIC = {name.rpartition(".")[2] for name in DEFAULTS if ".conf.all." in name}


class _Directory:
    """The files of a dump; every problem of every file is kept until all are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        try:
            names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise InputError([Problem(f"cannot be read as a directory: {error.strerror}", Source(str(path)))]) from None
        self.names = set(names)
        wanted = ", ".join((*NEEDED, *OPTIONAL))
        for name in names:
            if name not in NEEDED and name not in OPTIONAL:
                self.complain(name, f"is no file of a dump; those are {wanted}")
        for name in NEEDED:
            if name not in self.names:
                self.complain(name, "is missing: a node has devices, addresses and routes")

    def complain(self, name: str, text: str) -> None:
        self.problems.append(Problem(text, Source(str(self.path / name))))

    def read(self, name: str, parse: Callable[[str, str], T], without: Callable[[], T]) -> T:
        """``parse(text, file)``; ``without()`` when there is no such file, or nothing in one that may be missing."""
        if name not in self.names:
            return without()
        file = self.path / name
        try:
            text = file.read_bytes().decode()
        except OSError as error:
            self.complain(name, f"cannot be read: {error.strerror}")
            return without()
        except UnicodeDecodeError:
            self.complain(name, "is not UTF-8 text")
            return without()
        if not text.strip() and name in OPTIONAL:
            return without()
        try:
            return parse(text, str(file))
        except InputError as error:
            self.problems += error.problems
            return without()


def read_dump(directory: str | Path) -> Namespace:
    """The namespace ``node/NAME`` that the files of ``directory`` describe. InputError lists every problem of every file."""
    held = _Directory(Path(directory))
    node = Path(directory).resolve().name
    name = f"node/{node}"
    tables = {
        Family.IPV4: held.read(
            "iptables-save", lambda text, file: netfilter.parse_save(text, Family.IPV4, file), _nothing
        ),
        Family.IPV6: held.read(
            "ip6tables-save", lambda text, file: netfilter.parse_save(text, Family.IPV6, file), _nothing
        ),
    }
    routes: dict[Family, list[Route]] = {
        Family.IPV4: held.read("route.json", lambda text, file: read_routes(text, Family.IPV4, file), list),
        Family.IPV6: held.read("route6.json", lambda text, file: read_routes(text, Family.IPV6, file), list),
    }
    rules: dict[Family, list[RoutingRule]] = {
        Family.IPV4: held.read("rule.json", lambda text, file: read_rules(text, Family.IPV4, file), list),
        Family.IPV6: held.read("rule6.json", lambda text, file: read_rules(text, Family.IPV6, file), list),
    }
    links: list[Link] = held.read("link.json", lambda text, file: read_links(text, name, file), list)
    addresses: list[Address] = held.read("addr.json", read_addresses, list)
    devices = {link.name for link in links}
    for device in sorted({a.device for a in addresses} - devices) if links else ():
        held.complain("addr.json", f"device {device} is not in link.json")
    families = {Family.IPV4} | ({Family.IPV6} if "route6.json" in held.names else set())
    namespace = Namespace(
        name,
        links=tuple(links),
        addresses=tuple(_with_prefix_routes(addresses, routes, families)),
        rules=(*rules[Family.IPV4], *rules[Family.IPV6]),
        neighbours=tuple(held.read("neigh.json", read_neighbours, list)),
        fdb=tuple(held.read("fdb.json", read_fdb, list)),
        sysctls={**_without_ipv6(links, addresses), **held.read("sysctl.txt", read_sysctls, dict)},
        rulesets={family: ruleset for family, ruleset in tables.items() if ruleset is not None},
        ipsets=held.read("ipset-save", ipset.parse_save, dict),
        node=node,
    )
    if held.problems:
        raise InputError(held.problems)
    return replace(namespace, routes=tuple(_configured(namespace, (*routes[Family.IPV4], *routes[Family.IPV6]))))


def _nothing() -> Ruleset | None:
    return None


def _key(route: Route) -> tuple[IPNetwork, str | None, int]:
    return route.destination, route.device, route.table


def _with_prefix_routes(
    addresses: Iterable[Address], routes: dict[Family, list[Route]], families: set[Family]
) -> Iterable[Address]:
    """Addresses whose connected route somebody took away (the ptp plugin does) bring none."""
    present = {_key(route) for family in families for route in routes[family] if route.protocol == "kernel"}
    for address in addresses:
        made = [_key(route) for route in kernel_routes_of(address) if route.table == TABLE_MAIN]
        known = Family(address.interface.version) in families
        loopback = address.interface.ip.is_loopback
        lost = known and not loopback and bool(made) and not any(key in present for key in made)
        yield replace(address, noprefixroute=True) if lost else address


def _without_ipv6(links: Iterable[Link], addresses: Iterable[Address]) -> dict[str, str]:
    """Every device that is up and may speak IPv6 has an address of its own: one without any is not meant to."""
    speaking = {a.device for a in addresses if a.interface.version == 6}
    silent = (link.name for link in links if link.up and link.name not in speaking)
    return {f"net.ipv6.conf.{name}.disable_ipv6": "1" for name in silent}


def _configured(namespace: Namespace, routes: Iterable[Route]) -> Iterable[Route]:
    """Those routes that do not follow from the addresses."""
    made = {_key(route) for route in kernel_routes(namespace)}
    for route in routes:
        if route.protocol != "kernel" or (route.table != TABLE_LOCAL and _key(route) not in made):
            yield route


def read_sysctls(text: str, file: str = "-") -> dict[str, str]:
    """``name = value`` lines. A dot in a device's name, which sysctl prints as a slash, is a dot again."""
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        name, sign, value = (part.strip() for part in line.partition("="))
        name = name.replace("/", ".")
        if not sign or not name:
            problems.append(Problem(f'"{line.strip()}" is not of the form name = value', Source(file, number)))
        elif (name in DEFAULTS or name.rpartition(".")[2] in _NUMERIC) and not _is_number(value):
            problems.append(Problem(f'"{value}" is not a number', Source(file, number), field=name))
        else:
            values[name] = value
    if problems:
        raise InputError(problems)
    return values


def _is_number(value: str) -> bool:
    """The first word of ``value`` is one: a few sysctls hold several."""
    words = value.split()
    return bool(words) and words[0].isascii() and words[0].removeprefix("-").isdecimal()
