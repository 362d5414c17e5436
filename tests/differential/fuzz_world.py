"""The router that random cases are about: the same devices and addresses every time, all else drawn.

    xa0 ── a0 ┐                    ┌ p1 ── xp1
              R (VTEP on b0: vx0) br0
    xb0 ── b0 ┘                    └ p2 ── xp2        vx0 is routed, or a third port of br0

Overlapping prefixes, routes that end (blackhole, unreachable, prohibit, throw), policy rules by mark, source, destination
and device, MTUs that step down, sysctls, ipsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from netsim.linux.fib import default_rules
from netsim.linux.ipset import IpSet, parse_save
from netsim.linux.link import Link, LinkKind, VxlanOptions
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_MAIN, Address, FdbEntry, Neighbour, Route, RouteType, RoutingRule
from netsim.packet.address import Family, interface, ip, network
from tests.support.interpreter_worlds import mac

PORTS = (53, 80, 443, 8080, 9000, 9001, 9002, 9003)  # somebody swallows what comes here
ROUTED, BRIDGED = ("a0", "b0"), ("p1", "p2")
DEVICES = (*ROUTED, *BRIDGED)
MACS = {"a0": mac(1, 1), "b0": mac(1, 2), "p1": mac(1, 3), "p2": mac(1, 4), "br0": mac(1, 5), "vx0": mac(1, 6)}
FAR = {"a0": mac(2, 1), "b0": mac(2, 2), "p1": mac(2, 3), "p2": mac(2, 4), "vx0": mac(2, 6)}
VNI, VXLAN_PORT = 7, 8472


@dataclass(frozen=True)
class Plan:
    """The addresses of one family: the hosts beyond each device, R's own, and others."""

    family: Family
    hosts: dict[str, str]  # by device
    own: dict[str, str]  # R's, by device
    length: int
    beyond: tuple[str, str, str]  # networks behind b0's host: wide, in it, and one address in that
    far: tuple[str, ...]  # addresses in them
    service: str
    odd_sources: tuple[str, ...]
    odd_targets: tuple[str, ...]
    holes: dict[str, RouteType]

    @property
    def width(self) -> int:
        return self.family.bits


V4 = Plan(
    Family.IPV4,
    {"a0": "10.1.0.2", "b0": "10.2.0.2", "p1": "10.3.0.2", "p2": "10.3.0.3", "vx0": "10.8.0.2"},
    {"a0": "10.1.0.1", "b0": "10.2.0.1", "br0": "10.3.0.1", "vx0": "10.8.0.1"},
    24,
    ("10.9.0.0/16", "10.9.7.0/24", "10.9.7.7/32"),
    ("10.9.0.9", "10.9.7.7", "10.9.7.8"),
    "10.96.0.1",
    ("10.1.0.77", "10.9.0.5", "10.2.0.2", "10.3.0.2", "10.1.0.1", "172.16.0.1", "127.0.0.1", "224.0.0.1",
     "255.255.255.255", "10.1.0.255", "0.0.0.0"),
    ("10.1.0.255", "10.2.0.255", "10.3.0.255", "172.16.9.9", "10.66.1.1", "10.66.2.1", "10.66.3.1", "127.0.0.1",
     "10.2.0.1", "10.3.0.1", "255.255.255.255", "0.0.0.1", "10.66.4.1", "10.1.0.0"),
    {"10.66.1.0/24": RouteType.BLACKHOLE, "10.66.2.0/24": RouteType.UNREACHABLE, "10.66.3.0/24": RouteType.PROHIBIT,
     "10.66.4.0/24": RouteType.THROW},
)  # fmt: skip
V6 = Plan(
    Family.IPV6,
    {"a0": "fd00:1::2", "b0": "fd00:2::2", "p1": "fd00:3::2", "p2": "fd00:3::3", "vx0": "fd00:8::2"},
    {"a0": "fd00:1::1", "b0": "fd00:2::1", "br0": "fd00:3::1", "vx0": "fd00:8::1"},
    64,
    ("fd00:9::/32", "fd00:9:7::/48", "fd00:9:7::7/128"),
    ("fd00:9::9", "fd00:9:7::7", "fd00:9:7::8"),
    "fd00:96::1",
    ("fd00:1::77", "fd00:9::5", "fd00:2::2", "fd00:3::2", "fd00:1::1", "2001:db8::1", "::1", "ff02::1", "::", "fd00:1::"),
    ("2001:db8:9::9", "fd00:66:1::1", "fd00:66:2::1", "fd00:66:3::1", "::1", "fd00:2::1", "fd00:3::1", "fd00:66:4::1",
     "fd00:1::", "fd00:3::"),
    {
        "fd00:66:1::/48": RouteType.BLACKHOLE,
        "fd00:66:2::/48": RouteType.UNREACHABLE,
        "fd00:66:3::/48": RouteType.PROHIBIT,
        "fd00:66:4::/48": RouteType.THROW,
    },
)  # fmt: skip
PLANS = {Family.IPV4: V4, Family.IPV6: V6}


def bare_router(rng: Random, plan: Plan) -> Namespace:
    """R without its iptables."""
    tunnel = rng.choice((None, None, "routed", "bridged"))
    mtus = {"b0": rng.choice((1500, 1500, 1400, 1300)), "p2": rng.choice((1500, 1500, 1500, 1400))}
    if tunnel and plan.width == 128:
        mtus["b0"] = max(mtus["b0"], 1400)
    hairpin = rng.random() < 0.5
    links = [Link("lo", LinkKind.LOOPBACK, mtu=65536), Link("br0", LinkKind.BRIDGE, MACS["br0"])]
    for device in DEVICES:
        bridged = device in BRIDGED
        links.append(
            Link(device, LinkKind.VETH, MACS[device], mtus.get(device, 1500), master="br0" if bridged else None,
                 peer=("outside", f"x{device}"), hairpin=bridged and hairpin)
        )  # fmt: skip
    addresses = [Address(device, interface(f"{plan.own[device]}/{plan.length}")) for device in ("a0", "b0", "br0")]
    neighbours = [
        Neighbour(ip(plan.hosts[device]), "br0" if device in BRIDGED else device, FAR[device]) for device in DEVICES
    ]
    fdb = [FdbEntry(FAR[port], port, master="br0") for port in BRIDGED]
    if tunnel:
        vxlan = VxlanOptions(VNI, ip(plan.own["b0"]), "b0", VXLAN_PORT)
        master = "br0" if tunnel == "bridged" else None
        room = mtus["b0"] - (50 if plan.width == 32 else 70)  # vxlan_config_apply
        mtu = min(room, rng.choice((1450, 1430, 1230 if plan.width == 32 else 1280)))
        links.append(Link("vx0", LinkKind.VXLAN, MACS["vx0"], mtu, master=master, vxlan=vxlan))
        fdb.append(FdbEntry(FAR["vx0"], "vx0", ip(plan.hosts["b0"])))
        if tunnel == "routed":
            addresses.append(Address("vx0", interface(f"{plan.own['vx0']}/{plan.length}")))
            neighbours.append(Neighbour(ip(plan.hosts["vx0"]), "vx0", FAR["vx0"]))
        else:
            fdb.append(FdbEntry(FAR["vx0"], "vx0", master="br0"))
            neighbours.append(Neighbour(ip(bridged_host(plan)), "br0", FAR["vx0"]))
    rules = tuple(_policy(rng, plan))
    return Namespace(
        "R", tuple(links), tuple(addresses), tuple(_routes(rng, plan, tunnel, bool(rules))), rules, tuple(neighbours),
        tuple(fdb), _sysctls(rng, plan), ipsets=_sets(rng, plan),
    )  # fmt: skip


def bridged_host(plan: Plan) -> str:
    """The host beyond vx0 where that is a port of br0."""
    return "10.3.0.8" if plan.width == 32 else "fd00:3::8"


def _routes(rng: Random, plan: Plan, tunnel: str | None, tables: bool) -> Iterator[Route]:
    everything = "::/0" if plan.width == 128 else "0.0.0.0/0"
    wide, narrow, one = (network(prefix) for prefix in plan.beyond)
    to_b0 = ip(plan.hosts["b0"])
    yield Route(wide, to_b0, "b0", mtu=rng.choice((None, None, 1280)))
    if rng.random() < 0.4:
        yield Route(narrow, ip(plan.hosts["p1"]), "br0")
    if rng.random() < 0.3:
        yield Route(one, to_b0, "b0", metric=rng.choice((5, 50)), source=ip(plan.own["a0"]))
        if rng.random() < 0.5:
            yield Route(one, ip(plan.hosts["a0"]), "a0", metric=20)
    if rng.random() < 0.2:
        yield Route(narrow, type=RouteType.UNREACHABLE, metric=rng.choice((10, 2000)))
    if tunnel == "routed" and rng.random() < 0.5:
        yield Route(network("10.88.0.0/16" if plan.width == 32 else "fd00:88::/32"), ip(plan.hosts["vx0"]), "vx0")
    for hole, kind in plan.holes.items():
        if rng.random() < 0.8 and (kind is not RouteType.THROW or plan.width == 32):
            yield Route(network(hole), type=kind)
    if rng.random() < 0.4:
        device = rng.choice(ROUTED)
        yield Route(network(everything), ip(plan.hosts[device]), device)
    if tables:
        yield Route(wide, ip(plan.hosts["p1"]), "br0", table=100)
        if rng.random() < 0.5:
            yield Route(network(f"{plan.hosts['b0']}/{plan.width}"), type=RouteType.PROHIBIT, table=100)
        if rng.random() < 0.3 and plan.width == 32:
            yield Route(narrow, type=RouteType.THROW, table=100)
        if rng.random() < 0.3:
            yield Route(network(everything), ip(plan.hosts["a0"]), "a0", table=100)


def _policy(rng: Random, plan: Plan) -> list[RoutingRule]:
    if rng.random() < 0.5:
        return []
    action = rng.choice(("lookup", "lookup", "lookup", "prohibit", "unreachable", "blackhole"))
    a0 = network(f"{plan.hosts['a0']}/{plan.width}")
    drawn = [
        RoutingRule(1000, 100, mark=rng.choice((1, 2)), mask=rng.choice((0xFFFFFFFF, 0xF)), family=plan.family),
        RoutingRule(1001, 100, source=a0, family=plan.family),
        RoutingRule(1002, 100, iif=rng.choice(("a0", "br0", "lo")), family=plan.family),
        RoutingRule(
            1003,
            100 if action == "lookup" else TABLE_MAIN,
            destination=network(plan.beyond[0]),
            mark=3,
            action=action,
            family=plan.family,
        ),
        RoutingRule(1004, 100, source=a0, invert=True, destination=network(plan.beyond[1]), family=plan.family),
    ]
    chosen = rng.sample(drawn, rng.randint(1, 3))
    always = [replace(rule, family=plan.family) for rule in default_rules(plan.family)]
    return sorted((*always, *chosen), key=lambda rule: rule.priority)


def _sysctls(rng: Random, plan: Plan) -> dict[str, str]:
    on = "1" if rng.random() < 0.9 else "0"
    found = {
        "net.ipv4.ip_forward": on,
        "net.ipv6.conf.all.disable_ipv6": "0" if plan.width == 128 else "1",
        "net.ipv6.conf.default.disable_ipv6": "0" if plan.width == 128 else "1",
        "net.ipv6.conf.all.forwarding": on,
        "net.ipv4.conf.all.rp_filter": rng.choice(("0", "0", "1", "2")),
        "net.ipv4.conf.a0.rp_filter": rng.choice(("0", "0", "1", "2")),
        "net.ipv4.conf.all.src_valid_mark": rng.choice("01"),
        "net.ipv4.conf.all.accept_local": rng.choice("0001"),
        "net.ipv4.conf.all.route_localnet": rng.choice("0001"),
        "net.bridge.bridge-nf-call-iptables": rng.choice("011"),
        "net.bridge.bridge-nf-call-ip6tables": rng.choice("011"),
        "net.ipv4.ip_local_port_range": "40000 40000",  # VXLAN's source port, else a hash with a secret key
        "net.netfilter.nf_conntrack_tcp_loose": rng.choice("011"),
        "net.netfilter.nf_conntrack_tcp_be_liberal": rng.choice("001"),
    }
    if plan.width == 128:
        del found["net.ipv4.ip_forward"]
    return found


def _sets(rng: Random, plan: Plan) -> dict[str, IpSet]:
    """Sets of several types, with members that packets meet; what rules call them says what sides they take."""
    if rng.random() < 0.5:
        return {}
    four = plan.width == 32
    family = "inet" if four else "inet6"
    pool = [*plan.hosts.values(), *plan.own.values(), *plan.far, plan.service]
    a_port = f"{rng.choice(('tcp', 'udp'))}:{rng.choice(PORTS)}"
    host, other = rng.sample(pool, 2)
    wide, narrow, _ = plan.beyond
    lines = [
        f"create addresses hash:ip family {family}",
        *(f"add addresses {one}" for one in rng.sample(pool, 3)),
        f"create networks hash:net family {family}",
        f"add networks {wide}",
        f"add networks {narrow} nomatch",
        f"add networks {plan.hosts['a0']}",
        f"create services hash:ip,port family {family}",
        f"add services {plan.service},{a_port}",
        f"add services {host},{a_port}",
        f"create triples hash:ip,port,ip family {family}",
        f"add triples {host},{a_port},{other}",
        f"create nets-by-device hash:net,iface family {family}",
        f"add nets-by-device {wide},b0",
        f"add nets-by-device {plan.hosts['a0']},a0",
        f"create netports hash:net,port family {family}",
        f"add netports {wide},{a_port}",
        "create ports bitmap:port range 0-65535",
        *(f"add ports {port}" for port in sorted(rng.sample(PORTS, 3))),
        f"create seen hash:ip family {family}",
        "create any list:set size 8",
        "add any addresses",
        "add any networks",
    ]
    return parse_save("\n".join(lines))


SETS = {
    "addresses": 1, "networks": 1, "services": 2, "triples": 3, "nets-by-device": 2, "netports": 2, "ports": 1, "any": 1,
    "seen": 1,
}  # fmt: skip
