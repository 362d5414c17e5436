"""The FIB and its texts next to the kernel's: random devices, addresses, routes and rules, then ``ip`` asked about each.

Both sides get the same commands. What one refuses the other refuses too; ``ip route show table all`` and ``ip rule`` print
the same bytes; ``ip route get`` answers the same for addresses in and around everything configured.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from netsim.linux.fib import Fib, FibResult, default_rules, validate_route
from netsim.linux.iproute_text import route_lines, route_text, rule_lines, rule_text
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_MAIN, Address, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPAddress, IPNetwork, interface, network

pytestmark = pytest.mark.kernel

DEVICES = {"lo": None, "d0": "02:00:00:00:00:10", "d1": "02:00:00:00:00:11", "d2": "02:00:00:00:00:12"}
LINKS = tuple(
    Link(name, LinkKind.VETH if mac else LinkKind.LOOPBACK, mac=mac, mtu=1500 if mac else 65536)
    for name, mac in DEVICES.items()
)
UPPER = ("d0", "d1", "d2")
MARK = "----"


def _draw_host(draw: st.DrawFn, family: Family) -> IPAddress:
    """Addresses from a small, crowded space, so that prefixes nest and collide."""
    low = draw(st.sampled_from((0, 1, 2, 3, 9, 127, 128, 254, 255)))
    net = draw(st.integers(0, 4))
    if family is Family.IPV4:
        return ipaddress.IPv4Address((10 << 24) | (net << 8) | low)
    return ipaddress.IPv6Address((0xFD << 120) | (net << 64) | low)


def _draw_prefix(draw: st.DrawFn, family: Family) -> IPNetwork:
    lengths = (0, 8, 22, 23, 24, 25, 30, 31, 32) if family is Family.IPV4 else (0, 8, 62, 63, 64, 120, 127, 128)
    return network(f"{_draw_host(draw, family)}/{draw(st.sampled_from(lengths))}")


@dataclass(frozen=True)
class World:
    family: Family
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]
    forwarding: bool


@st.composite
def addresses(draw: st.DrawFn, family: Family) -> Address:
    length = draw(st.sampled_from((24, 25, 31, 32) if family is Family.IPV4 else (64, 120, 127, 128)))
    scope = draw(st.sampled_from(("global", "global", "global", "link"))) if family is Family.IPV4 else "global"
    host = _draw_host(draw, family)
    return Address(draw(st.sampled_from(UPPER)), interface(f"{host}/{length}"), scope, draw(st.integers(0, 9)) == 0)


@st.composite
def routes(draw: st.DrawFn, family: Family) -> Route:
    four = family is Family.IPV4
    kind = draw(st.sampled_from([RouteType.UNICAST] * 8 + [RouteType.BLACKHOLE, RouteType.UNREACHABLE,
                                                         RouteType.PROHIBIT, RouteType.THROW]))  # fmt: skip
    route = Route(
        _draw_prefix(draw, family),
        type=kind,
        table=draw(st.sampled_from((TABLE_MAIN, TABLE_MAIN, 100, 7))),
        metric=draw(st.sampled_from((0, 10, 2000))),
        protocol=draw(st.sampled_from(("boot", "static", "bird"))),
    )
    if kind is not RouteType.UNICAST:
        return route
    route = replace(route, mtu=draw(st.sampled_from((None, 1400))))
    device = st.sampled_from(UPPER)
    match draw(st.integers(0, 3)):
        case 0:
            return replace(route, device=draw(device), scope="link" if four else "global")
        case 1:
            # In another table the device depends on which routes were there when this one was added: a value has no past.
            device_of = None if route.table == TABLE_MAIN else draw(device)
            return replace(route, gateway=_draw_host(draw, family), device=device_of)
        case 2:
            onlink = draw(st.booleans())
            return replace(route, gateway=_draw_host(draw, family), device=draw(device), onlink=onlink)
    hops = tuple(
        NextHop(_draw_host(draw, family), draw(device), draw(st.integers(1, 4))) for _ in range(draw(st.integers(2, 3)))
    )
    return replace(route, nexthops=hops)


@st.composite
def rules(draw: st.DrawFn, family: Family, priority: int) -> RoutingRule:
    mark = draw(st.sampled_from((None, None, 1, 0x40)))
    return RoutingRule(
        priority,
        table=draw(st.sampled_from((TABLE_MAIN, 100, 7, 50))),
        source=_draw_prefix(draw, family) if draw(st.integers(0, 2)) == 0 else None,
        destination=_draw_prefix(draw, family) if draw(st.integers(0, 2)) == 0 else None,
        iif=draw(st.sampled_from((None, None, None, "d0", "lo", "gone"))),
        oif=draw(st.sampled_from((None, None, None, "d1"))),
        mark=mark,
        mask=draw(st.sampled_from((0xFFFFFFFF, 0xFF))) if mark is not None else 0xFFFFFFFF,
        invert=draw(st.integers(0, 5)) == 0,
        action=draw(st.sampled_from(["lookup"] * 6 + ["blackhole", "unreachable", "prohibit"])),
        family=family,
    )


@st.composite
def worlds(draw: st.DrawFn, family: Family) -> World:
    count = draw(st.integers(0, 4))
    return World(
        family,
        tuple(draw(st.lists(addresses(family), min_size=2, max_size=6, unique_by=lambda a: a.interface.ip))),
        tuple(draw(st.lists(routes(family), max_size=14, unique_by=lambda r: (r.destination, r.table, r.metric)))),
        tuple(draw(rules(family, 100 + 10 * i)) for i in range(count)),
        draw(st.booleans()),
    )


# -- the same as commands --------------------------------------------------------------------------------------------
def address_command(address: Address) -> str:
    words = f"addr add {address.interface} dev {address.device}"
    if address.interface.version == 4:
        words += f" scope {address.scope}"
    else:
        words += " nodad"
    return words + (" noprefixroute" if address.noprefixroute else "")


def route_command(route: Route) -> str:
    return "route add " + re.sub(r" pref medium|\n\t", " ", route_text(route)).replace(" dev lo ", " ")


def rule_command(rule: RoutingRule) -> str:
    priority, words = rule_text(rule).split(":\t")
    # By number: iproute2 6.1 forgets what a table name means when a number came in between (batch mode).
    return f"rule add {words} priority {priority}".replace("lookup main", f"lookup {TABLE_MAIN}")


@dataclass(frozen=True)
class Query:
    dst: IPAddress
    mark: int = 0

    def command(self) -> str:
        return f"route get {self.dst}" + (f" mark {self.mark}" if self.mark else "")


@dataclass(frozen=True)
class Answers:
    refused: set[int]  # numbers of commands
    routes: list[str]
    rules: list[str]
    gets: list[dict[str, object] | str]


def batch(option: str, commands: list[str]) -> str:
    return f"ip {option} -force -batch - <<'END'\n" + "\n".join(commands) + "\nEND\n"


def kernel(world: World, commands: list[str], queries: list[Query]) -> Answers:
    option = f"-{int(world.family)}"
    lines = ["exec 2>&1", "ip link set lo up"]
    for name in UPPER:
        lines.append(f"ip link add name {name} address {DEVICES[name]} type veth peer name p{name}")
    for name in UPPER:  # no link-local noise from the peers
        lines.append(f"sysctl -qw net.ipv6.conf.p{name}.disable_ipv6=1 net.ipv6.conf.{name}.dad_transmits=0")
    lines.append("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
    if world.forwarding:
        lines.append("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    for name in UPPER:
        lines.append(f"sysctl -qw net.ipv6.conf.{name}.accept_dad=0; ip link set p{name} up; ip link set {name} up")
    # A new IPv6 address gets its local route a moment later, from a work queue.
    settle = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; ip -6 addr | grep -q tentative || break; done"
    lines += [settle, batch(option, commands), settle, f"echo {MARK}", f"ip {option} route show table all", f"echo {MARK}",
              f"ip {option} rule", f"echo {MARK}", batch(f"{option} -j", [q.command() for q in queries])]  # fmt: skip
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120
    )
    made, routes_, rules_, gets = done.stdout.split(MARK + "\n")
    refused = {int(n) - 1 for n in re.findall(r"Command failed -:(\d+)", made)}
    return Answers(refused, routes_.splitlines(), rules_.splitlines(), _gets(gets, len(queries)))


def _gets(text: str, count: int) -> list[dict[str, object] | str]:
    """One answer a query; the complaint of a failed one stands before its "Command failed"."""
    answers: list[dict[str, object] | str] = []
    complaint = ""
    for line in text.splitlines():
        if line.startswith("[{"):
            answers.append(json.loads(line)[0])
        elif line.startswith("Command failed"):
            answers.append(complaint.removeprefix("RTNETLINK answers: ").removeprefix("Error: "))
        elif line.strip() not in ("", "[ ]", "[]"):
            complaint = line
    assert len(answers) == count, text
    return answers


_FAILURES = {
    None: "Network is unreachable",
    RouteType.BLACKHOLE: "Invalid argument",
    RouteType.UNREACHABLE: "No route to host",
    RouteType.PROHIBIT: "Permission denied",
}


def model_answer(fib: Fib, query: Query) -> FibResult | str:
    found = fib.lookup(query.dst, mark=query.mark)
    if found.ok:
        return found
    from_rule = found.rule is not None and found.rule.action != "lookup"
    return _FAILURES[None if from_rule and found.type is RouteType.UNREACHABLE else found.type]


def agree(found: FibResult | str, answer: dict[str, object] | str) -> bool:
    if isinstance(found, str) or isinstance(answer, str):
        return found == answer
    assert found.type is not None
    if str(answer.get("type", "unicast")) != found.type.value:
        return False
    if found.type not in (RouteType.UNICAST, RouteType.BROADCAST):
        return found.type is not RouteType.LOCAL or answer.get("prefsrc") in (None, str(found.prefsrc))
    hops = {(str(h.gateway) if h.gateway else None, h.device) for h in found.alternatives}
    if (answer.get("gateway"), answer["dev"]) not in hops:
        return False
    return len(hops) > 1 or answer.get("prefsrc") == (str(found.prefsrc) if found.prefsrc else None)


def accepted(world: World) -> tuple[Namespace, list[tuple[str, str | None]]]:
    """The namespace after all commands, and each command with why the model refuses it."""
    held = Namespace(
        "ns",
        LINKS,
        sysctls={"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"} if world.forwarding else {},
    )
    log: list[tuple[str, str | None]] = []
    for address in world.addresses:
        held = replace(held, addresses=(*held.addresses, address))
        log.append((address_command(address), None))
    connected = {a.interface.network for a in world.addresses if world.family is Family.IPV4}
    for route in world.routes:
        if route.destination in connected and not route.metric:
            continue  # "File exists"
        why = validate_route(held, route)
        log.append((route_command(route), why))
        if why is None:
            held = replace(held, routes=(*held.routes, route))
    added = []
    for rule in world.rules:
        log.append((rule_command(rule), None))
        added.append(rule)
    if added:
        held = replace(held, rules=(*default_rules(world.family), *added))
    return held, log


def clashes(world: World) -> bool:
    """Nobody numbers a network so: one subnet in two scopes on a device ("Invalid scope value"), a host with the address
    of a whole subnet (IPv6: its anycast address) or with another's broadcast address."""
    seen: dict[tuple[str, IPNetwork], str] = {}
    nets = [a.interface.network for a in world.addresses if a.interface.network.prefixlen < world.family.bits - 1]
    taken = {n.network_address for n in nets} | {n.broadcast_address for n in nets}
    return any(
        seen.setdefault((a.device, a.interface.network), a.scope) != a.scope or a.interface.ip in taken
        for a in world.addresses
    )


def queries(world: World) -> list[Query]:
    points: set[IPAddress] = set()
    for prefix in (*(a.interface.network for a in world.addresses), *(r.destination for r in world.routes)):
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        for value in (first, first + 1, last, last + 1, (first + last) // 2):
            if 0 < value < 2**world.family.bits - 1:
                points.add(type(prefix.network_address)(value))
    points |= {a.interface.ip for a in world.addresses}
    found = [Query(p) for p in sorted(points, key=int) if not p.is_multicast]
    return found + [replace(q, mark=0x40) for q in found[::3]]


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a smaller world costs another namespace every time
)
@given(st.sampled_from(list(Family)).flatmap(worlds).filter(lambda w: not clashes(w)))
def test_the_kernel_says_the_same(world: World) -> None:
    held, log = accepted(world)
    asked = queries(world)
    real = kernel(world, [command for command, _ in log], asked)
    assert {n for n, (_, why) in enumerate(log) if why is not None} == real.refused, [log[n] for n in real.refused]
    assert rule_lines(held, world.family) == real.rules
    ours = route_lines(held, world.family, local=True)
    assert sorted(ours) == sorted(real.routes)
    assert in_tables(ours) == in_tables(real.routes)
    fib = Fib(held)
    wrong = [
        (query.command(), found, answer)
        for query, answer in zip(asked, real.gets, strict=True)
        if not agree(found := model_answer(fib, query), answer)
    ]
    assert wrong == []


def in_tables(lines: list[str]) -> dict[str, list[str]]:
    """Lines by table, in order; a next hop belongs to the route above it."""
    tables: dict[str, list[str]] = {}
    name = "main"
    for line in lines:
        if not line.startswith("\t"):
            found = re.search(r" table (\S+)", line)
            name = found[1] if found else "main"
        tables.setdefault(name, []).append(line)
    return tables
