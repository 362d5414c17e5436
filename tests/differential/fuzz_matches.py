"""Random matches of a rule: how each one that netsim knows is written at a place, with values that packets meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from netsim.packet.address import Family, ip
from tests.differential.fuzz_world import DEVICES, FAR, PORTS, SETS, Plan

ACCOUNT = "counted"  # the nfacct counter that the lab makes


@dataclass(frozen=True)
class Place:
    """Where a rule stands: ``hooks`` are those it can be reached from, ``proto`` the protocol that it names."""

    rng: Random
    plan: Plan
    table: str
    chain: str
    hooks: frozenset[str]
    proto: str
    sets: bool

    @property
    def four(self) -> bool:
        return self.plan.width == 32

    def only(self, *hooks: str) -> bool:
        return self.hooks <= set(hooks)

    def negation(self) -> str:
        return self.rng.choice(("", "", "! "))

    def address(self) -> str:
        plan = self.plan
        return self.rng.choice([*plan.hosts.values(), *plan.own.values(), *plan.far, plan.service])

    def prefix(self) -> str:
        lengths = (self.plan.width, self.plan.width, self.plan.length, self.plan.length, self.plan.length - 8)
        return f"{self.address()}/{self.rng.choice(lengths)}"

    def port(self) -> int:
        return self.rng.choice(PORTS) + self.rng.choice((0, 0, 0, 0, 0, -1, 1))

    def ports(self) -> str:
        low, high = sorted((self.port(), self.port()))
        return self.rng.choice((f"{low}", f"{low}", f"{low}:{high}", f":{low}", f"{low}:"))

    def mark(self) -> str:
        return self.rng.choice(("0x1", "0x2", "0x3", "0x2/0xf", "0x0/0x3", "0x0", "0x4000/0x4000"))


Writer = Callable[[Place], "str | None"]


def _addrtype(at: Place) -> str | None:
    side = at.rng.choice(("src", "dst"))
    kinds = ["LOCAL", "UNICAST", "UNICAST,LOCAL"]
    kinds += ["BROADCAST", "MULTICAST", "BLACKHOLE", "PROHIBIT,UNREACHABLE"] if at.four else []
    limit = ""
    if at.rng.random() < 0.2:
        if at.only("PREROUTING", "INPUT"):
            limit = " --limit-iface-in"
        elif at.only("OUTPUT", "POSTROUTING"):
            limit = " --limit-iface-out"
    return f"-m addrtype {at.negation()}--{side}-type {at.rng.choice(kinds)}{limit}"


def _conntrack(at: Place) -> str | None:
    if at.table == "raw":
        return None
    states = ("INVALID", "NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "SNAT", "DNAT", "INVALID,NEW", "UNTRACKED")
    if at.rng.random() < 0.6:
        return f"-m conntrack {at.negation()}--ctstate {at.rng.choice(states)}"
    side = at.rng.choice(("orig", "repl"))
    end = at.rng.choice(("src", "dst"))
    options = [
        f"{at.negation()}--ct{side}{end} {at.prefix()}",
        f"{at.negation()}--ctproto {at.rng.choice((6, 17))}",
        f"{at.negation()}--ctstatus {at.rng.choice(('SEEN_REPLY', 'ASSURED', 'CONFIRMED', 'NONE', 'EXPECTED,CONFIRMED'))}",
        f"--ctdir {at.rng.choice(('ORIGINAL', 'REPLY'))}",
    ]
    if at.proto in ("tcp", "udp"):
        options.append(f"--ctproto {at.proto} {at.negation()}--ct{side}{end}port {at.port()}")
    return f"-m conntrack {at.rng.choice(options)}"


def _icmp(at: Place) -> str | None:
    kinds = ("8", "0", "3", "3/3", "3/4", "11", "11/0", "any")
    return f"-m icmp {at.negation()}--icmp-type {at.rng.choice(kinds)}" if at.proto == "icmp" else None


def _icmp6(at: Place) -> str | None:
    kinds = ("128", "129", "1", "1/4", "2", "3/0")
    return f"-m icmp6 {at.negation()}--icmpv6-type {at.rng.choice(kinds)}" if at.proto == "ipv6-icmp" else None


def _iprange(at: Place) -> str | None:
    low, high = sorted((ip(at.address()), ip(at.address())), key=int)
    return f"-m iprange {at.negation()}--{at.rng.choice(('src', 'dst'))}-range {low}-{high}"


def _mac(at: Place) -> str | None:
    if not at.only("PREROUTING", "INPUT", "FORWARD"):
        return None
    return f"-m mac {at.negation()}--mac-source {FAR[at.rng.choice(DEVICES)]}"


def _multiport(at: Place) -> str | None:
    if at.proto not in ("tcp", "udp", "sctp"):
        return None
    held = ",".join(map(str, sorted(at.rng.sample(PORTS, 3))))
    if at.rng.random() < 0.3:
        held = f"53,{9000}:{9002}"
    return f"-m multiport {at.negation()}--{at.rng.choice(('dports', 'sports', 'ports'))} {held}"


def _owner(at: Place) -> str | None:
    if not at.only("OUTPUT", "POSTROUTING"):
        return None
    asked = ("--uid-owner 0", "--gid-owner 0", "--socket-exists", "--uid-owner 1000", "--uid-owner 0-10")
    return f"-m owner {at.negation()}{at.rng.choice(asked)}"


def _physdev(at: Place) -> str | None:
    port = at.rng.choice(("p1", "p2", "p+", "vx0"))
    asked = [f"{at.negation()}--physdev-in {port}", f"{at.negation()}--physdev-is-in"]
    if at.only("FORWARD", "POSTROUTING"):
        asked.append(f"{at.negation()}--physdev-out {port} --physdev-is-bridged")
        asked.append(f"{at.negation()}--physdev-is-bridged")
    return f"-m physdev {at.rng.choice(asked)}"


def _recent(at: Place) -> str | None:
    name = f"--name {at.rng.choice(('r1', 'r2'))} {at.rng.choice(('--rsource', '--rsource', '--rdest'))}"
    mode = at.rng.choice(("--set", "--rcheck", "--update", "--remove"))
    more = ""
    if mode in ("--rcheck", "--update"):
        more = at.rng.choice(("", " --seconds 3600", " --hitcount 2", " --seconds 3600 --hitcount 3"))
    return f"-m recent {at.negation()}{mode}{more} {name}"


def _rpfilter(at: Place) -> str | None:
    if not (at.only("PREROUTING") and at.table in ("raw", "mangle")):
        return None
    words = [word for word in ("--loose", "--validmark", "--accept-local", "--invert") if at.rng.random() < 0.4]
    return " ".join(("-m rpfilter", *words))


def _set(at: Place) -> str | None:
    if not at.sets:
        return None
    name = at.rng.choice([*SETS])
    if name == "nets-by-device" and not at.only("FORWARD"):
        sides = "src,src" if at.only("PREROUTING", "INPUT") else "dst,dst"
    elif name == "any":
        sides = at.rng.choice(("src", "dst"))
    else:
        sides = ",".join(at.rng.choice(("src", "dst")) for _ in range(SETS[name]))
    return f"-m set {at.negation()}--match-set {name} {sides}"


def _statistic(at: Place) -> str | None:
    every = at.rng.choice((2, 3))
    nth = f"--mode nth {at.negation()}--every {every} --packet {at.rng.randrange(every)}"
    certain = f"--mode random {at.negation()}--probability {at.rng.choice(('0', '1'))}"
    return f"-m statistic {at.rng.choice((nth, nth, certain))}"


def _state(at: Place) -> str | None:
    if at.table == "raw":
        return None
    return f"-m state {at.negation()}--state {at.rng.choice(('NEW', 'ESTABLISHED', 'INVALID', 'NEW,RELATED', 'UNTRACKED'))}"


def _tcp(at: Place) -> str | None:
    flags = ("FIN,SYN,RST,ACK SYN", "RST RST", "SYN,ACK SYN,ACK", "FIN FIN", "ALL ACK", "ALL NONE")
    asked = (
        f"{at.negation()}--dport {at.ports()}", f"{at.negation()}--sport {at.ports()}",
        f"{at.negation()}--tcp-flags {at.rng.choice(flags)}", f"{at.negation()}--syn",
        f"{at.negation()}--tcp-option {at.rng.choice((2, 3, 8))}", f"--sport {at.ports()} --dport {at.ports()}",
    )  # fmt: skip
    return f"-m tcp {at.rng.choice(asked)}" if at.proto == "tcp" else None


def _ports_of(name: str) -> Writer:
    def write(at: Place) -> str | None:
        if at.proto != name:
            return None
        return f"-m {name} {at.negation()}--{at.rng.choice(('sport', 'dport'))} {at.ports()}"

    return write


def _length(at: Place) -> str | None:
    whole = at.rng.choice((28, 36, 48, 56, 68, 1280, 1300, 1400)) + at.rng.choice((-1, 0, 0, 0, 1))
    lengths = at.rng.choice((f"{whole}", f"{whole}:", f":{whole}", f"40:{max(whole, 40)}"))
    return f"-m length {at.negation()}--length {lengths}"


def _hops(match: str, family: Family) -> Writer:
    def write(at: Place) -> str | None:
        if at.plan.family is not family:
            return None
        mode = at.rng.choice((f"{at.negation()}--{match}-eq", f"--{match}-lt", f"--{match}-gt"))
        return f"-m {match} {mode} {at.rng.choice((1, 2, 63, 64))}"

    return write


def _pkttype(at: Place) -> str | None:
    return f"-m pkttype {at.negation()}--pkt-type {at.rng.choice(('unicast', 'broadcast', 'multicast'))}"


def _limit(at: Place) -> str | None:
    return f"-m limit --limit {at.rng.choice(('1/hour', '2/hour'))} --limit-burst {at.rng.randint(1, 6)}"


def _hashlimit(at: Place) -> str | None:
    mode = at.rng.choice(("srcip", "dstip", "srcip,dstport", "srcip,dstip", "srcport"))
    if "port" in mode and at.proto not in ("tcp", "udp", "sctp"):
        mode = "srcip"
    way, burst = at.rng.choice(("upto", "above")), at.rng.randint(1, 4)
    mask = at.rng.choice(("", f" --hashlimit-srcmask {at.plan.length}")) if "srcip" in mode else ""
    name = f"h{at.rng.randrange(10**6)}"
    rate = f"--hashlimit-{way} 1/hour --hashlimit-burst {burst}"
    return f"-m hashlimit {rate} --hashlimit-mode {mode} --hashlimit-name {name}{mask}"


def _marks(name: str) -> Writer:
    return lambda at: None if at.table == "raw" else f"-m {name} {at.negation()}--mark {at.mark()}"


MATCHES: dict[str, Writer] = {
    "addrtype": _addrtype,
    "comment": lambda at: '-m comment --comment "drawn"',
    "connmark": _marks("connmark"),
    "conntrack": _conntrack,
    "hashlimit": _hashlimit,
    "hl": _hops("hl", Family.IPV6),
    "icmp": _icmp,
    "icmp6": _icmp6,
    "iprange": _iprange,
    "length": _length,
    "limit": _limit,
    "mac": _mac,
    "mark": _marks("mark"),
    "multiport": _multiport,
    "nfacct": lambda at: f"-m nfacct --nfacct-name {ACCOUNT}",
    "owner": _owner,
    "physdev": _physdev,
    "pkttype": _pkttype,
    "recent": _recent,
    "rpfilter": _rpfilter,
    "sctp": _ports_of("sctp"),
    "set": _set,
    "state": _state,
    "statistic": _statistic,
    "tcp": _tcp,
    "ttl": _hops("ttl", Family.IPV4),
    "udp": _ports_of("udp"),
}
_OFTEN = ("tcp", "udp", "icmp", "icmp6", "multiport", "conntrack", "mark", "addrtype", "statistic")


def random_matches(at: Place) -> str:
    """The part of a rule before its target: addresses, devices, the protocol, and up to three matches."""
    rng, words = at.rng, []
    for option in ("-s", "-d"):
        if rng.random() < 0.25:
            words.append(f"{rng.choice(('', '! '))}{option} {at.prefix()}")
    if rng.random() < 0.1 and at.only("PREROUTING", "INPUT", "FORWARD"):
        words.append(f"{at.negation()}-i {rng.choice(('a0', 'b0', 'br0', 'b+', 'vx0'))}")
    if rng.random() < 0.1 and at.only("FORWARD", "OUTPUT", "POSTROUTING"):
        words.append(f"{at.negation()}-o {rng.choice(('a0', 'b0', 'br0', 'b+', 'vx0', 'lo'))}")
    if at.proto:
        words.append(f"-p {at.proto}")
    if at.four and rng.random() < 0.04:
        words.append(f"{rng.choice(('', '! '))}-f")
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        name = rng.choice(_OFTEN if rng.random() < 0.5 else [*MATCHES])
        text = MATCHES[name](at)
        if text is not None and not any(word.startswith(f"-m {name} ") for word in words):
            words.append(text)
    return " " + " ".join(words) if words else ""
