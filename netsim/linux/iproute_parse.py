"""Reading what iproute2 prints: routes, rules, neighbours, FDB entries and addresses from text.

``parse(print(x)) == x`` for routes (``route_text``; IPv6 shows neither scope nor a metric of 0), rules (with their family),
neighbours, FDB entries and addresses. What would change the meaning but has no place in the model is refused
(``UnsupportedError``); what tells nothing about forwarding (expiry, counters, router preference medium) is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

from netsim.errors import InputError, Problem, Source, UnsupportedError
from netsim.linux.route import (
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    FdbEntry,
    Neighbour,
    NextHop,
    Route,
    RouteType,
    RoutingRule,
)
from netsim.packet.address import Family, IPAddress, IPNetwork, family_of, interface, ip, network

T = TypeVar("T")

TABLES = {"local": TABLE_LOCAL, "main": TABLE_MAIN, "default": TABLE_DEFAULT}
RULE_ACTIONS = ("blackhole", "unreachable", "prohibit")
ERROR_TYPES = (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW)
_FLAGS_PASSED = {"linkdown", "pervasive", "offload", "rt_offload", "trap", "rt_trap"}
_METRICS_PASSED = {"advmss", "window", "rtt", "rttvar", "ssthresh", "cwnd", "initcwnd", "initrwnd", "hoplimit", "quickack",
                   "reordering", "rto_min", "congctl", "expires", "error", "pref", "realm", "mfc_ttl"}  # fmt: skip


class Words:
    """The words of a line, taken one by one; InputError names what is missing or wrong."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self.words)

    def peek(self) -> str:
        return self.words[self._at] if self else ""

    def take(self, what: str) -> str:
        if not self:
            raise InputError(f"{what} is missing at the end of the line")
        self._at += 1
        return self.words[self._at - 1]

    def accept(self, word: str) -> bool:
        found = self.peek() == word
        self._at += found
        return found


def number(text: str, what: str, highest: int = 0xFFFFFFFF) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise InputError(f'{what}: "{text}" is not a number') from None
    if not 0 <= value <= highest:
        raise InputError(f"{what}: {value} is not between 0 and {highest}")
    return value


def address(text: str, what: str = "address") -> IPAddress:
    try:
        return ip(text)
    except ValueError:
        raise InputError(f'{what}: "{text}" is not an IP address') from None


def prefix(text: str, family: Family, what: str = "destination") -> IPNetwork:
    """A prefix of ``family``: an address, address/length, or ``default`` and ``all`` for everything."""
    if text in ("default", "all", "any"):
        return network("0.0.0.0/0" if family is Family.IPV4 else "::/0")
    try:
        found = network(text)
    except ValueError:
        raise InputError(f'{what}: "{text}" is not a prefix') from None
    if family_of(found) is not family:
        raise InputError(f'{what}: "{text}" is not IPv{family.value}')
    return found


def table(text: str) -> int:
    return (
        TABLES[text] if text in TABLES else number(text, "table (names other than local, main, default are not known)")
    )


def prefix_family(text: str) -> Family:
    return Family.IPV6 if ":" in text else Family.IPV4


# -- routes ----------------------------------------------------------------------------------------------------------
def parse_route(text: str, family: Family | None = None) -> Route:
    """One route with the lines of its next hops. ``family`` is needed for ``default`` only."""
    head, *hops = text.strip("\n").split("\n")
    words = Words(head)
    kind = RouteType.UNICAST
    if words.peek() in tuple(RouteType):
        kind = RouteType(words.take("type"))
    destination = words.take("destination")
    if family is None:
        family = prefix_family(text if destination == "default" else destination)
    route = Route(prefix(destination, family), type=kind, protocol="boot")
    while words:
        route = _route_word(route, words, family)
    if hops:
        route = replace(route, nexthops=tuple(_parse_hop(line, family) for line in hops))
    return checked_route(route)


def checked_route(route: Route) -> Route:
    """What iproute2 shows but nobody set is taken off again: lo as the device of an IPv6 error route."""
    if route.type in ERROR_TYPES and route.device == "lo":
        route = replace(route, device=None)
    if route.type is RouteType.UNICAST and not (route.gateway or route.device or route.nexthops):
        raise InputError(f"the route to {route.destination} has neither a device nor a gateway")
    return route


def _route_word(route: Route, words: Words, family: Family) -> Route:
    word = words.take("word")
    match word:
        case "via":
            return replace(route, gateway=_gateway(words))
        case "dev":
            return replace(route, device=words.take("dev"))
        case "table":
            return replace(route, table=table(words.take("table")))
        case "proto":
            return replace(route, protocol=words.take("proto"))
        case "scope":
            return replace(route, scope=words.take("scope"))
        case "src":
            return replace(route, source=address(words.take("src"), "src"))
        case "metric":
            return replace(route, metric=number(words.take("metric"), "metric"))
        case "onlink":
            return replace(route, onlink=True)
        case "mtu":
            words.accept("lock")
            return replace(route, mtu=number(words.take("mtu"), "mtu"))
        case "dead":
            raise UnsupportedError("a dead route: its device is down; leave it out")
        case _ if word in _FLAGS_PASSED:
            return route
        case _ if word in _METRICS_PASSED:
            words.take(word)
            return route
    raise UnsupportedError(f'"{word}" of a route is not modelled')


def _gateway(words: Words) -> IPAddress:
    if words.peek() in ("inet", "inet6"):
        words.take("family")
    return address(words.take("via"), "via")


def _parse_hop(text: str, family: Family) -> NextHop:
    words = Words(text)
    if not words.accept("nexthop"):
        raise InputError(f'"{text.strip()}" is not a next hop')
    hop = NextHop()
    while words:
        word = words.take("word")
        if word == "via":
            hop = replace(hop, gateway=_gateway(words))
        elif word == "dev":
            hop = replace(hop, device=words.take("dev"))
        elif word == "weight":
            hop = replace(hop, weight=number(words.take("weight"), "weight", 256))
        elif word == "onlink":
            hop = replace(hop, onlink=True)
        elif word not in _FLAGS_PASSED:
            raise UnsupportedError(f'"{word}" of a next hop is not modelled')
    return hop


# -- rules -----------------------------------------------------------------------------------------------------------
def parse_rule(text: str, family: Family) -> RoutingRule:
    """One line of ``ip rule`` (``ip -6 rule``)."""
    priority, _, rest = text.partition(":")
    words = Words(rest)
    rule = RoutingRule(number(priority.strip(), "priority"), family=family)
    while words:
        rule = _rule_word(rule, words, family)
    return rule


def _rule_word(rule: RoutingRule, words: Words, family: Family) -> RoutingRule:
    word = words.take("word")
    match word:
        case "not":
            return replace(rule, invert=True)
        case "from":
            found = prefix(words.take("from"), family, "from")
            return replace(rule, source=found if found.prefixlen else None)
        case "to":
            return replace(rule, destination=prefix(words.take("to"), family, "to"))
        case "fwmark":
            value, _, mask = words.take("fwmark").partition("/")
            return replace(rule, mark=number(value, "fwmark"), mask=number(mask or "0xffffffff", "fwmark"))
        case "iif" | "oif":
            device = words.take(word)
            words.accept("[detached]")
            return replace(rule, iif=device) if word == "iif" else replace(rule, oif=device)
        case "lookup":
            return replace(rule, table=table(words.take("lookup")))
        case "proto":
            words.take("proto")
            return rule
        case _ if word in RULE_ACTIONS:
            return replace(rule, action=word)
    raise UnsupportedError(f'"{word}" of a routing rule is not modelled')


# -- neighbours, FDB, addresses ----------------------------------------------------------------------------------------
def parse_neighbour(text: str) -> Neighbour | None:
    """One line of ``ip neigh``; None for a proxy entry, which answers for others but resolves nothing."""
    words = Words(text)
    entry = Neighbour(address(words.take("address")), "", None, "none")
    while words:
        word = words.take("word")
        if word == "dev":
            entry = replace(entry, device=words.take("dev"))
        elif word == "lladdr":
            entry = replace(entry, mac=words.take("lladdr").lower())
        elif word == "proxy":
            return None
        elif word.isupper():
            entry = replace(entry, state=word.lower())
        elif word not in ("router", "extern_learn", "extern_valid", "managed", "offload"):
            raise UnsupportedError(f'"{word}" of a neighbour is not modelled')
    if not entry.device:
        raise InputError("dev is missing at the end of the line")
    return entry


def parse_fdb(text: str) -> FdbEntry:
    """One line of ``bridge fdb``. VLANs are told apart by nobody here: an entry of VLAN 1 is one without."""
    words = Words(text)
    entry = FdbEntry(words.take("MAC").lower(), "", state="reachable")
    while words:
        word = words.take("word")
        if word == "dev":
            entry = replace(entry, device=words.take("dev"))
        elif word == "dst":
            entry = replace(entry, destination=address(words.take("dst"), "dst"))
        elif word == "master":
            entry = replace(entry, master=words.take("master"))
        elif word in ("permanent", "static", "stale"):
            entry = replace(entry, state=word)
        elif word == "vlan":
            if words.take("vlan") != "1":
                raise UnsupportedError("VLANs of a bridge are not modelled")
        elif word not in ("self", "extern_learn", "offload", "sticky", "router", "added_by_user"):
            raise UnsupportedError(f'"{word}" of a forwarding entry is not modelled')
    if not entry.device:
        raise InputError("dev is missing at the end of the line")
    return entry


def parse_address(text: str, device: str) -> Address:
    """The line ``inet …`` or ``inet6 …`` of an address on ``device``."""
    words = Words(text)
    family = words.take("family")
    if family not in ("inet", "inet6"):
        raise InputError(f'"{text.strip()}" is no address')
    held = words.take("address")
    try:
        found = Address(device, interface(held))
    except ValueError:
        raise InputError(f'"{held}" is not an address with its prefix length') from None
    while words:
        word = words.take("word")
        if word == "peer":
            raise UnsupportedError("point-to-point addresses (peer) are not modelled")
        if word in ("brd", "scope", "metric"):
            value = words.take(word)
            found = replace(found, scope=value) if word == "scope" else found
        elif word == "noprefixroute":
            found = replace(found, noprefixroute=True)
    return found


def parse_addresses(text: str, file: str = "-") -> list[Address]:
    """The addresses in the output of ``ip addr``."""
    device = ""
    found = []
    for place, line in enumerate(text.splitlines(), 1):
        if line[:1].isdigit():
            device = line.split(": ")[1].partition("@")[0]
        elif line.split()[:1] in (["inet"], ["inet6"]):
            found.append(_at(line, place, file, partial(parse_address, device=device)))
    return found


# -- whole outputs -----------------------------------------------------------------------------------------------------
def _at(text: str, place: int, file: str, parse: Callable[[str], T]) -> T:
    """``parse(text)``, with the file and line in front of every problem."""
    try:
        return parse(text)
    except InputError as error:
        problems = [replace(problem, source=problem.source or Source(file, place)) for problem in error.problems]
        raise type(error)(problems) from None


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Lines with the indented lines that continue them."""
    block: list[str] = []
    first = 1
    for place, line in enumerate(text.splitlines(), 1):
        if line[:1] not in ("\t", " ") and block:
            yield first, "\n".join(block)
            block = []
        if line.strip():
            first = first if block else place
            block.append(line)
    if block:
        yield first, "\n".join(block)


def parse_all(text: str, parse: Callable[[str], T | None], file: str = "-") -> list[T]:
    """Every entry of an output; all problems are told, each with its line."""
    found: list[T] = []
    problems: list[Problem] = []
    for place, block in _blocks(text):
        try:
            entry = _at(block, place, file, parse)
        except InputError as error:
            problems += error.problems
        else:
            if entry is not None:
                found.append(entry)
    if problems:
        raise InputError(problems)
    return found


def parse_routes(text: str, family: Family, file: str = "-") -> list[Route]:
    return parse_all(text, lambda block: parse_route(block, family), file)


def parse_rules(text: str, family: Family, file: str = "-") -> list[RoutingRule]:
    return parse_all(text, lambda block: parse_rule(block, family), file)


def unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
