"""Random routers and packets for the comparison with the kernel: what they are drawn from, by seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from netsim.interpreter import WireOrigin
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import Address, FdbEntry, Neighbour, Route, RouteType, RoutingRule
from netsim.packet.address import Family, IPAddress, interface, ip, network
from netsim.packet.codec import packet_bytes
from netsim.packet.fragment import fragment
from netsim.packet.icmp import echo, icmp_error, icmp_proto
from netsim.packet.model import Icmp, Packet, Proto, Tcp, TcpFlag, Udp
from tests.differential.fuzz_lab import PORTS
from tests.support.interpreter_worlds import mac, ruleset

MACS = {"a0": mac(1, 1), "b0": mac(1, 2), "p1": mac(1, 3), "p2": mac(1, 4), "br0": mac(1, 5)}
FAR = {"a0": mac(2, 1), "b0": mac(2, 2), "p1": mac(2, 3), "p2": mac(2, 4)}


@dataclass(frozen=True)
class Plan:
    """The addresses of one family: the hosts beyond each device, R's own, and others."""

    family: Family
    hosts: dict[str, str]  # by device
    own: dict[str, str]  # R's, by device
    length: int
    beyond: str  # a network behind b0's host
    far: tuple[str, ...]  # addresses in it
    odd_sources: tuple[str, ...]
    odd_targets: tuple[str, ...]
    holes: dict[str, RouteType]

    @property
    def width(self) -> int:
        return self.family.bits


V4 = Plan(
    Family.IPV4,
    {"a0": "10.1.0.2", "b0": "10.2.0.2", "p1": "10.3.0.2", "p2": "10.3.0.3"},
    {"a0": "10.1.0.1", "b0": "10.2.0.1", "br0": "10.3.0.1"},
    24,
    "10.9.0.0/16",
    ("10.9.0.9", "10.9.7.7"),
    ("10.1.0.77", "10.9.0.5", "10.2.0.2", "10.3.0.2", "10.1.0.1", "172.16.0.1", "127.0.0.1", "224.0.0.1",
     "255.255.255.255"),
    ("10.1.0.255", "10.2.0.255", "10.3.0.255", "172.16.9.9", "10.66.1.1", "10.66.2.1", "10.66.3.1", "127.0.0.1", "10.96.0.1",
     "10.2.0.1", "10.3.0.1", "255.255.255.255", "0.0.0.1"),
    {"10.66.1.0/24": RouteType.BLACKHOLE, "10.66.2.0/24": RouteType.UNREACHABLE, "10.66.3.0/24": RouteType.PROHIBIT},
)  # fmt: skip
V6 = Plan(
    Family.IPV6,
    {"a0": "fd00:1::2", "b0": "fd00:2::2", "p1": "fd00:3::2", "p2": "fd00:3::3"},
    {"a0": "fd00:1::1", "b0": "fd00:2::1", "br0": "fd00:3::1"},
    64,
    "fd00:9::/32",
    ("fd00:9::9", "fd00:9::77"),
    ("fd00:1::77", "fd00:9::5", "fd00:2::2", "fd00:3::2", "fd00:1::1", "2001:db8::1", "::1", "ff02::1"),
    ("2001:db8:9::9", "fd00:66:1::1", "fd00:66:2::1", "fd00:66:3::1", "::1", "fd00:96::1", "fd00:2::1", "fd00:3::1"),
    {
        "fd00:66:1::/48": RouteType.BLACKHOLE,
        "fd00:66:2::/48": RouteType.UNREACHABLE,
        "fd00:66:3::/48": RouteType.PROHIBIT,
    },
)
_REJECT4 = ("net-unreachable", "host-unreachable", "proto-unreachable", "port-unreachable", "net-prohibited",
            "host-prohibited", "admin-prohibited")  # fmt: skip
_REJECT6 = ("no-route", "adm-prohibited", "addr-unreachable", "port-unreachable")


def router(rng: Random, plan: Plan) -> Namespace:
    """R: its devices and addresses are always the same; routes, rules, sysctls and iptables are drawn."""
    links = [Link("lo", LinkKind.LOOPBACK, mtu=65536), Link("br0", LinkKind.BRIDGE, MACS["br0"])]
    mtus = {"b0": rng.choice((1500, 1500, 1400, 1300))}
    hairpin = rng.random() < 0.5
    for device in ("a0", "b0", "p1", "p2"):
        bridged = device.startswith("p")
        links.append(
            Link(device, LinkKind.VETH, MACS[device], mtus.get(device, 1500), master="br0" if bridged else None,
                 peer=("outside", f"x{device}"), hairpin=bridged and hairpin)
        )  # fmt: skip
    addresses = [Address(device, interface(f"{held}/{plan.length}")) for device, held in plan.own.items()]
    routes = [Route(network(plan.beyond), ip(plan.hosts["b0"]), "b0", mtu=rng.choice((None, None, 1280)))]
    for hole, kind in plan.holes.items():
        if rng.random() < 0.8:
            routes.append(Route(network(hole), type=kind, device="lo" if plan.width == 128 else None))
    if rng.random() < 0.4:
        default = "::/0" if plan.width == 128 else "0.0.0.0/0"
        device = rng.choice(("a0", "b0"))
        routes.append(Route(network(default), ip(plan.hosts[device]), device))
    rules = _policy(rng, plan)
    if rules:
        routes.append(Route(network(plan.beyond), ip(plan.hosts["p1"]), "br0", table=100))
        if rng.random() < 0.5:
            routes.append(Route(network(f"{plan.hosts['b0']}/{plan.width}"), type=RouteType.PROHIBIT, table=100,
                                device="lo" if plan.width == 128 else None))  # fmt: skip
    if plan.width == 128:
        routes = [replace(r, device=None) if r.type is not RouteType.UNICAST else r for r in routes]
    neighbours = tuple(
        Neighbour(ip(address), "br0" if device.startswith("p") else device, FAR[device])
        for device, address in plan.hosts.items()
    )
    fdb = tuple(FdbEntry(FAR[port], port, master="br0") for port in ("p1", "p2"))
    return Namespace(
        "R", tuple(links), tuple(addresses), tuple(routes), rules, neighbours, fdb, _sysctls(rng, plan),
        {plan.family: ruleset("\n".join(_ruleset(rng, plan)), plan.family, _policies(rng))},
    )  # fmt: skip


def _policy(rng: Random, plan: Plan) -> tuple[RoutingRule, ...]:
    if rng.random() < 0.5:
        return ()
    action = rng.choice(("lookup", "lookup", "lookup", "prohibit", "unreachable", "blackhole"))
    drawn = [
        RoutingRule(1000, 100, mark=rng.choice((1, 2)), mask=rng.choice((0xFFFFFFFF, 0xF)), family=plan.family),
        RoutingRule(1001, 100, source=network(f"{plan.hosts['a0']}/{plan.width}"), family=plan.family),
        RoutingRule(1002, 100, iif=rng.choice(("a0", "br0")), family=plan.family),
        RoutingRule(1003, 100, destination=network(plan.beyond), mark=3, action=action, family=plan.family),
    ]
    from netsim.linux.fib import default_rules

    chosen = rng.sample(drawn, rng.randint(1, 2))
    return tuple(sorted((*default_rules(plan.family), *chosen), key=lambda rule: rule.priority))


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
        "net.netfilter.nf_conntrack_tcp_loose": rng.choice("011"),
        "net.netfilter.nf_conntrack_tcp_be_liberal": rng.choice("001"),
    }
    if plan.width == 128:
        del found["net.ipv4.ip_forward"]
    return found


def _policies(rng: Random) -> tuple[tuple[str, str], ...]:
    return tuple(("filter", chain) for chain in ("INPUT", "FORWARD") if rng.random() < 0.1)


def _ruleset(rng: Random, plan: Plan) -> list[str]:
    """Rules ``TABLE -A CHAIN …``; a table that is not drawn is absent."""
    lines: list[str] = []
    if rng.random() < 0.9:
        lines += _filter(rng, plan)
    if rng.random() < 0.6:
        lines += _mangle(rng, plan)
    if rng.random() < 0.8:
        lines += _nat(rng, plan)
    if rng.random() < 0.2:
        lines.append(f"raw -A PREROUTING{_matches(rng, plan, 'raw')} -j {rng.choice(('NOTRACK', 'ACCEPT', 'DROP'))}")
    return lines


def _matches(rng: Random, plan: Plan, table: str = "filter", proto: str | None = None) -> str:
    words = []
    width = plan.width
    pool = [*plan.hosts.values(), *plan.own.values(), *plan.far]
    if rng.random() < 0.3:
        words.append(f"{rng.choice(('', '! '))}-s {rng.choice(pool)}/{rng.choice((width, plan.length))}")
    if rng.random() < 0.3:
        words.append(f"{rng.choice(('', '! '))}-d {rng.choice(pool)}/{rng.choice((width, plan.length))}")
    proto = proto or rng.choice(("", "tcp", "udp", "udp", "tcp", "icmp" if width == 32 else "ipv6-icmp"))
    if proto:
        words.append(f"-p {proto}")
    if proto in ("tcp", "udp"):
        kind = rng.randrange(5)
        if kind == 0:
            words.append(f"-m {proto} {rng.choice(('', '! '))}--dport {rng.choice(PORTS)}")
        elif kind == 1:
            words.append(f"-m {proto} --sport {rng.choice(PORTS)}:{65535 if rng.random() < 0.3 else 9003}")
        elif kind == 2:
            held = ",".join(map(str, sorted(rng.sample(PORTS, 3))))
            words.append(f"-m multiport --{rng.choice(('dports', 'sports', 'ports'))} {held}")
        elif kind == 3 and proto == "tcp":
            words.append("-m tcp " + rng.choice(("--tcp-flags FIN,SYN,RST,ACK SYN", "--tcp-flags RST RST")))
    if rng.random() < 0.15 and table != "raw":
        words.append(f"-m mark {rng.choice(('', '! '))}--mark {rng.choice(('0x1', '0x2/0xf', '0x0/0x3'))}")
    if rng.random() < 0.2 and table not in ("raw", "nat"):
        state = rng.choice(
            ("INVALID", "NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "SNAT", "DNAT", "INVALID,NEW", "UNTRACKED")
        )
        words.append(f"-m conntrack {rng.choice(('', '! '))}--ctstate {state}")
    if rng.random() < 0.15 and table != "raw":
        side, of = rng.choice(("src", "dst")), rng.choice(("LOCAL", "UNICAST", "UNICAST,LOCAL"))
        words.append(f"-m addrtype {rng.choice(('', '! '))}--{side}-type {of}")
    return " " + " ".join(words) if words else ""


def _filter(rng: Random, plan: Plan) -> list[str]:
    lines = []
    prefix = "icmp-" if plan.width == 32 else "icmp6-"
    for chain in ("INPUT", "FORWARD", "OUTPUT", "ONE", "TWO"):
        for _ in range(rng.randint(0, 4)):
            kind = rng.randrange(8) if chain != "OUTPUT" else rng.choice((0, 1, 2, 5))
            if kind < 3:
                lines.append(
                    f"filter -A {chain}{_matches(rng, plan)} -j {rng.choice(('ACCEPT', 'ACCEPT', 'RETURN', 'DROP'))}"
                )
            elif kind == 3:
                code = rng.choice(_REJECT4 if plan.width == 32 else _REJECT6)
                lines.append(f"filter -A {chain}{_matches(rng, plan)} -j REJECT --reject-with {prefix}{code}")
            elif kind == 4:
                lines.append(f"filter -A {chain}{_matches(rng, plan, proto='tcp')} -j REJECT --reject-with tcp-reset")
            elif kind == 5:
                lines.append(f"filter -A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
            elif chain != "TWO":
                target = "TWO" if chain == "ONE" else rng.choice(("ONE", "TWO"))
                lines.append(f"filter -A {chain}{_matches(rng, plan)} {rng.choice(('-j', '-g'))} {target}")
    if lines:
        lines += ["filter -A ONE -p 254 -j DROP", "filter -A TWO -p 254 -j DROP"]
    return lines


def _mangle(rng: Random, plan: Plan) -> list[str]:
    lines = []
    hops = "TTL --ttl-" if plan.width == 32 else "HL --hl-"
    del hops
    for _ in range(rng.randint(1, 4)):
        chain = rng.choice(("PREROUTING", "PREROUTING", "FORWARD", "POSTROUTING", "OUTPUT", "INPUT"))
        mark = rng.choice(("0x1/0xffffffff", "0x2/0xf", "0x3/0xffffffff", "0x4/0x0"))
        lines.append(f"mangle -A {chain}{_matches(rng, plan, 'mangle')} -j MARK --set-xmark {mark}")
    return lines


def _nat(rng: Random, plan: Plan) -> list[str]:
    lines = []
    hosts = [*plan.hosts.values(), plan.far[0], *plan.own.values()]
    service = "10.96.0.1/32" if plan.width == 32 else "fd00:96::1/128"

    def at(address: str, port: int | str) -> str:
        return f"{address}:{port}" if plan.width == 32 else f"[{address}]:{port}"

    for _ in range(rng.randint(1, 4)):
        proto = rng.choice(("tcp", "udp"))
        matches = f" -d {service} -p {proto}" if rng.random() < 0.4 else _matches(rng, plan, "nat", proto)
        kind = rng.randrange(5)
        target = {
            0: f"DNAT --to-destination {at(rng.choice(hosts), rng.choice(PORTS))}",
            1: f"DNAT --to-destination {at(rng.choice(hosts), rng.choice(PORTS))}",
            2: f"REDIRECT --to-ports {rng.choice(PORTS)}",
            3: f"DNAT --to-destination {rng.choice(hosts)}",
            4: "ACCEPT",
        }[kind]
        lines.append(f"nat -A PREROUTING{matches} -j {target}")
    for _ in range(rng.randint(0, 3)):
        proto = rng.choice(("tcp", "udp"))
        kind = rng.randrange(5)
        own = rng.choice(list(plan.own.values()))
        if kind < 2:
            where = f" -o {rng.choice(('a0', 'b0', 'br0'))}" if rng.random() < 0.5 else ""
            lines.append(f"nat -A POSTROUTING{where}{_matches(rng, plan, 'nat')} -j MASQUERADE")
        elif kind == 2:
            lines.append(
                f"nat -A POSTROUTING{_matches(rng, plan, 'nat', proto)} -j SNAT --to-source {at(own, '50-9100')}"
            )
        elif kind == 3:
            lines.append(f"nat -A POSTROUTING{_matches(rng, plan, 'nat')} -j SNAT --to-source {own}")
        else:
            lines.append(f"nat -A POSTROUTING{_matches(rng, plan, 'nat')} -j ACCEPT")
    return lines


@dataclass(frozen=True)
class Probe:
    """``packet`` arrives by ``device`` for ``mac``."""

    device: str
    mac: str
    packet: Packet

    def origin(self) -> WireOrigin:
        return WireOrigin("R", self.device, FAR[self.device], self.mac)


class Traffic:
    """Draws packets: new ones, and ones that answer or continue what R has let out before."""

    def __init__(self, rng: Random, plan: Plan, bridged_fragments: bool = False) -> None:
        """``bridged_fragments``: also fragments that come in by a bridge port."""
        self.bridged_fragments = bridged_fragments
        self.rng, self.plan, self.serial = rng, plan, 0
        self.let_out: list[tuple[str, Packet]] = []  # what R has sent by which device
        self.sent: list[Probe] = []

    def next(self) -> list[Probe]:
        """One packet, or the fragments of one."""
        self.serial += 1
        kind = self.rng.random()
        if kind < 0.3 and self.let_out:
            device, seen = self.rng.choice(self.let_out)
            packet = self._answer(seen)
            if packet is not None:
                return [self._to(device, packet)]
        if kind < 0.45 and self.sent:
            again = self.rng.choice(self.sent)
            if isinstance(again.packet.body, Tcp):
                flags = self.rng.choice((TcpFlag.ACK, TcpFlag.ACK | TcpFlag.FIN, TcpFlag.RST, TcpFlag.SYN))
                far = (0, 0, 0, -200_000, 200_000)
                seq, ack = (1001 + self.rng.choice(far)) & 0xFFFFFFFF, (5001 + self.rng.choice(far)) & 0xFFFFFFFF
                body = replace(again.packet.body, flags=flags, seq=seq, ack=ack)
                again = replace(again, packet=replace(again.packet, body=body))
            return [again]
        probe = self._fresh()
        self.sent.append(probe)
        if len(packet_bytes(probe.packet)) > 1200 and not probe.packet.dont_fragment and self.plan.width == 32:
            pieces = fragment(probe.packet, 800)
            wanted = self.bridged_fragments or probe.device in ("a0", "b0")
            if self.rng.random() < 0.7 and wanted:
                return [replace(probe, packet=piece) for piece in pieces]
        return [probe]

    def _to(self, device: str, packet: Packet) -> Probe:
        target = MACS["br0" if device.startswith("p") else device]
        if device.startswith("p") and self.rng.random() < 0.5:
            other = "p2" if device == "p1" else "p1"
            if str(packet.dst) == self.plan.hosts[other] or self.rng.random() < 0.1:
                target = FAR[other]
        return Probe(device, target, packet)

    def _fresh(self) -> Probe:
        rng, plan = self.rng, self.plan
        device = rng.choice(("a0", "a0", "a0", "b0", "p1", "p2"))
        src = plan.hosts[device] if rng.random() < 0.8 else rng.choice(plan.odd_sources)
        pool = [held for other, held in plan.hosts.items() if other != device or rng.random() < 0.1]
        roll = rng.random()
        service = "10.96.0.1" if plan.width == 32 else "fd00:96::1"
        target = (
            rng.choice(pool) if roll < 0.4
            else rng.choice(list(plan.own.values())) if roll < 0.55
            else service if roll < 0.7
            else rng.choice(plan.far) if roll < 0.85
            else rng.choice(plan.odd_targets)
        )  # fmt: skip
        size = rng.choice((8, 8, 8, 8, 8, 8, 1252, 1272, 1352, 1400))
        return self._to(device, self._packet(ip(src), ip(target), size))

    def _packet(self, src: IPAddress, dst: IPAddress, size: int) -> Packet:
        rng = self.rng
        payload = (f"{self.serial:08d}".encode() * (size // 8 + 1))[:size]
        sport, dport = rng.choice(PORTS), rng.choice(PORTS)
        proto: int = rng.choice((Proto.TCP, Proto.TCP, Proto.UDP, Proto.UDP, icmp_proto(self.plan.family)))
        body: Tcp | Udp | Icmp
        if proto == Proto.TCP:
            flags = rng.choice((TcpFlag.SYN, TcpFlag.SYN, TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST, TcpFlag.SYN | TcpFlag.ACK,
                                TcpFlag.FIN, TcpFlag.FIN | TcpFlag.ACK))  # fmt: skip
            body = Tcp(sport, dport, flags, 1000, 5000, payload=payload)
        elif proto == Proto.UDP:
            body = Udp(sport, dport, payload)
        else:
            body = echo(self.plan.family, self.rng.randint(1, 4), self.serial & 0xFFFF, payload)
        ttl = rng.choice((64, 64, 64, 64, 64, 64, 1, 2))
        four = self.plan.width == 32
        df = four and rng.random() < 0.4
        return Packet(src, dst, proto, body, ttl=ttl, ident=self.serial if four else 0, dont_fragment=df)

    def _answer(self, seen: Packet) -> Packet | None:
        body = seen.body
        if self.rng.random() < 0.25:
            kind = self.rng.choice(((3, 3), (11, 0), (3, 1)) if self.plan.width == 32 else ((1, 4), (3, 0), (1, 0)))
            sender = seen.dst if self.rng.random() < 0.7 else ip(self.plan.far[1])
            if seen.is_fragment or (isinstance(body, Icmp) and body.type not in (8, 128)):
                return None
            return icmp_error(seen, *kind, sender)
        back = replace(seen, src=seen.dst, dst=seen.src, ttl=64, ident=self.serial if self.plan.width == 32 else 0)
        if seen.is_fragment:
            return None
        if isinstance(body, Tcp):
            flags = TcpFlag.ACK | (
                TcpFlag.SYN if body.flags & TcpFlag.SYN else self.rng.choice((TcpFlag(0), TcpFlag.FIN))
            )
            if self.rng.random() < 0.1:
                flags = TcpFlag.RST | TcpFlag.ACK
            acknowledged = body.seq + len(body.payload) + bool(body.flags & TcpFlag.SYN)
            return replace(back, body=Tcp(body.dport, body.sport, flags, 5000, acknowledged))
        if isinstance(body, Udp):
            return replace(back, body=Udp(body.dport, body.sport, b"answer!!"))
        if isinstance(body, Icmp) and body.type in (8, 128):
            return replace(back, body=replace(body, type=0 if body.type == 8 else 129))
        return None
