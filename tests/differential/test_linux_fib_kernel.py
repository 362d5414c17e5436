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
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_MAIN, Address, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPAddress, IPNetwork
from tests.support.routing_worlds import DEVICES, LINKS, UPPER, World, worlds

pytestmark = pytest.mark.kernel

MARK = "----"


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


@pytest.mark.parametrize("table", [TABLE_MAIN, 100])
@pytest.mark.parametrize("error", [RouteType.UNREACHABLE, RouteType.BLACKHOLE, RouteType.PROHIBIT, RouteType.THROW])
def test_an_error_route_leads_to_lo_and_hides_no_gateway_behind_another_device(error: RouteType, table: int) -> None:
    gateway = ipaddress.IPv6Address("fd00:0:0:1::7")
    prefixes = [ipaddress.IPv6Network(text) for text in ("fd00::/62", "fd00::/8", "fd77::/64", "fd78::/64")]
    routes = (
        Route(prefixes[0], type=error, table=table),
        Route(prefixes[1], device="d2", table=table),
        Route(prefixes[2], gateway=gateway, device="d2", table=table),
        Route(prefixes[3], gateway=gateway, table=table),
    )
    world = World(Family.IPV6, (), routes, (), forwarding=True)
    _, log = accepted(world)
    assert [why for _, why in log] == [None, None, None, "No route to host"]
    assert kernel(world, [command for command, _ in log], []).refused == {3}


def test_a_throw_route_of_global_scope_hides_no_gateway() -> None:
    """IPv4 looks among routes of scope link alone for who reaches a gateway, before it sees what type they are."""
    routes = (
        Route(ipaddress.IPv4Network("10.0.4.0/24"), type=RouteType.THROW, metric=10),
        Route(ipaddress.IPv4Network("0.0.0.0/0"), device="d1", scope="link", metric=10),
        Route(ipaddress.IPv4Network("10.0.2.128/25"), gateway=ipaddress.IPv4Address("10.0.4.3"), metric=10),
    )
    world = World(Family.IPV4, (), routes, (), forwarding=True)
    _, log = accepted(world)
    assert [why for _, why in log] == [None] * 3
    assert not kernel(world, [command for command, _ in log], []).refused
