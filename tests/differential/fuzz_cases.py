"""Random cases for the comparison of netsim's engines with the kernel and with each other.

What other tests draw from (stable names):

``random_case(rng, family, packets=24)``  a ``Case`` drawn with any ``random.Random``
``cases(family)``                         a hypothesis strategy of the same; ``cases()`` draws the family too
``Case.network``                          a ``StaticNetwork`` with one namespace, called ``R``
``Case.probes``                           in order of arrival; ``trace`` takes ``probe.origin()`` and ``probe.packet``
``Case.router``, ``Case.family``          the namespace itself, with devices, routes, sysctls, sets, iptables
``smaller(case)``                         cases with one thing less, for shrinking what fails
``case_to_json``, ``case_from_json``      as text that people can read: rules and routes as their tools print them

A case holds values, no seed: it stays what it is when the generator changes. Packets are drawn along the
interpreter's story, so that there are answers, related errors and repetitions among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

from netsim.interpreter import Outcome, State, trace
from netsim.interpreter.outcome import StepKind
from netsim.interpreter.scene import World
from netsim.linux import ipset
from netsim.linux.iproute_parse import (
    parse_address,
    parse_fdb,
    parse_neighbour,
    parse_route,
    parse_rule,
)
from netsim.linux.iproute_text import fdb_text, neigh_text, route_text, rule_text
from netsim.linux.link import Link, LinkKind, VxlanOptions
from netsim.linux.netfilter.rule import Chain
from netsim.linux.netfilter.table import Ruleset, Table
from netsim.linux.netfilter.text import parse_save, print_save
from netsim.linux.network import Namespace, StaticNetwork
from netsim.packet.address import Family, ip
from netsim.packet.codec import packet_bytes, parse_packet
from netsim.packet.model import Frame, Icmp, Packet, Raw, Tcp, Udp
from tests.differential.fuzz_rules import random_ruleset
from tests.differential.fuzz_traffic import Probe, Traffic
from tests.differential.fuzz_world import BRIDGED, DEVICES, PLANS, PORTS, bare_router

PACKETS = 24
TICK = 0.001  # simulated seconds between packets


@dataclass(frozen=True)
class Case:
    """A router and what happens to it. ``engine``: the kernel's rule engine, ``nft`` or ``legacy``."""

    family: Family
    router: Namespace
    probes: tuple[Probe, ...]
    engine: str = "nft"

    @cached_property
    def network(self) -> StaticNetwork:
        return StaticNetwork({"R": self.router})

    @property
    def certain(self) -> bool:
        """No rule draws at random: one story, and one count for every rule."""
        return not any("--mode random" in line and "--probability 0.5" in line for line in self.rules())

    def rules(self) -> list[str]:
        ruleset = self.router.rulesets.get(self.family)
        return [line.rstrip("\n") for line in print_save(replace(ruleset, nft=False))] if ruleset else []


def random_case(rng: Random, family: Family, packets: int = PACKETS) -> Case:
    """A router and about ``packets`` packets for it, all drawn from ``rng``."""
    plan = PLANS[family]
    router = bare_router(rng, plan)
    ruleset = random_ruleset(rng, plan, bool(router.ipsets))
    engine = rng.choice(("nft", "legacy"))
    if _misread_by_nft(replace(router, rulesets={family: ruleset}), family):
        engine = "legacy"
    router = replace(router, rulesets={family: replace(ruleset, nft=engine == "nft")} if ruleset.tables else {})
    case = Case(family, router, (), engine)
    return replace(case, probes=tuple(_probes(rng, case, packets)))


def _misread_by_nft(router: Namespace, family: Family) -> bool:
    """Its rules may meet later fragments and ask for ports. iptables-nft's take what lies at that place of the fragment (of
    IPv6, of the header) for them: ``nft_payload_fast_eval`` does not ask for the fragment's offset, as ``nft_payload_eval``
    does (Linux 6.18). ``fragment-misread-by-nft`` shows it."""
    asked = any(
        match.name in ("tcp", "udp")
        for table in router.rulesets[family].tables.values()
        for chain in table.chains.values()
        for rule in chain.rules
        for match in rule.matches
    )
    return asked and not World(StaticNetwork({"R": router})).scene("R").defragments(family)


def cases(family: Family | None = None, packets: int = PACKETS) -> Any:
    """Cases as a hypothesis strategy. Hypothesis picks the seed; ``smaller`` shrinks better than it could, as it knows what
    a case is made of."""
    from hypothesis import strategies as st

    families = st.sampled_from(Family) if family is None else st.just(family)
    return st.builds(lambda seed, held: random_case(Random(seed), held, packets), st.integers(0, 2**48), families)


def _probes(rng: Random, case: Case, packets: int) -> Iterator[Probe]:
    traffic, state, drawn = Traffic(rng, PLANS[case.family], case.router), State(), 0
    for _ in range(packets * 3):
        if drawn >= packets:
            return
        for probe in traffic.next():
            probe = replace(probe, packet=from_bytes(packet_bytes(probe.packet)))
            outcome = trace(case.network, probe.origin(), probe.packet, state=state, only="R")[0]
            if unfit(case, probe, outcome) or _untold(outcome):
                break
            assert isinstance(outcome.state, State)
            state = outcome.state
            state.now += TICK
            drawn += 1
            yield probe
            traffic.let_out += [(device, packet) for device, _, packet in emitted(outcome) if device != "local"]


def _untold(outcome: Outcome) -> bool:
    """It gets no error because ip_error has sent five: unless a second has gone meanwhile, which nobody knows yet."""
    return any("told too often" in step.text for hop in outcome.hops for step in hop.steps)


def unfit(case: Case, probe: Probe, outcome: Outcome) -> bool:
    """What comes of it is not a matter of R's configuration and this packet alone."""
    if probe.packet.src.is_multicast and probe.device in BRIDGED:
        return True  # a bridge lets it pass, and REJECT answers to the group
    return probe.packet.dst.is_multicast or _speaks(outcome) or _discovers(case, outcome)


def _discovers(case: Case, outcome: Outcome) -> bool:
    """A neighbour has to be looked for first, which takes seconds to fail. IPv6 does so past every rule, and tells the
    sender of what leaves as it came (redirects, which no sysctl turns off)."""
    hops = (*outcome.hops, *outcome.error_hops)
    if any("nobody answers" in step.text for hop in hops for step in hop.steps):
        return True
    if outcome.packet.src.version == 4:
        return False
    left = sum(step.text.startswith("left by ") for hop in hops for step in hop.steps)
    if left > sum(direction == "out" and device in DEVICES for hop in hops for device, direction, _ in hop.wire):
        return True
    tunnel_bridged = any(link.name == "vx0" and link.master for link in case.router.links)
    for hop in outcome.hops:
        came, by_bridge, translated = {"br0" if hop.device in BRIDGED else hop.device}, hop.device in BRIDGED, False
        for step in hop.steps:
            if step.kind is StepKind.DECAP:
                came, by_bridge, translated = {"vx0", "br0"}, tunnel_bridged, False
            translated |= step.kind is StepKind.NAT and step.hook == "PREROUTING"
            if step.kind is StepKind.ROUTE and by_bridge and translated:
                return True  # what a bridge has routed counts as from where it goes
            if step.kind is StepKind.ROUTE and any(f" dev {one} " in f"{step.text} " for one in came):
                return True
    return False


def _speaks(outcome: Outcome) -> bool:
    """A process of R, or its kernel for want of one, would answer by itself: such packets are none of a case."""
    for device, _, packet in emitted(outcome):
        body = packet.body
        if device == "local" and isinstance(body, Tcp | Udp) and body.dport not in PORTS:
            return True
        if device == "local" and isinstance(body, Icmp) and body.type in (13, 15, 17):
            return True
        if device == "local" and isinstance(body, Icmp) and packet.proto == 58 and body.type == 2:
            return True  # whether a smaller MTU is believed is a matter of the sockets there are
    return False


def emitted(outcome: Outcome) -> list[tuple[str, str, Packet]]:
    """(device, destination MAC, packet) of all that R emits; the device of what it delivers to itself is ``local``."""
    found: list[tuple[str, str, Packet]] = []
    for hop in (*outcome.hops, *outcome.error_hops):
        for device, direction, what in hop.wire:
            if direction == "out" and device in DEVICES and isinstance(what, Frame):
                found.append((device, what.dst, what.packet))
        found += [("local", "", packet) for packet in hop.delivered]
    return found


# -- less of a case ----------------------------------------------------------------------------------------------------
def smaller(case: Case) -> Iterator[Case]:
    """Cases that lack one thing, the largest cuts first."""
    probes, router = case.probes, case.router
    size = len(probes) // 2
    while size:
        for at in range(0, len(probes), size):
            yield replace(case, probes=(*probes[:at], *probes[at + size :]))
        size //= 2
    ruleset = router.rulesets.get(case.family)
    tables = dict(ruleset.tables) if ruleset else {}
    for name in tables:
        yield _with_tables(case, {other: table for other, table in tables.items() if other != name})
    for name, table in tables.items():
        for chain in table.chains.values():
            for at in range(len(chain.rules)):
                less = Chain(chain.name, (*chain.rules[:at], *chain.rules[at + 1 :]), chain.policy)
                yield _with_tables(case, {**tables, name: Table(name, {**table.chains, chain.name: less})})
    for part in ("routes", "rules"):
        held = getattr(router, part)
        for at in range(len(held)):
            if part == "rules" and held[at].priority in (0, 32766, 32767):
                continue  # the kernel's own
            yield replace(case, router=replace(router, **{part: (*held[:at], *held[at + 1 :])}))
    for name in router.sysctls:
        if not any(word in name for word in ("disable_ipv6", "forward", "port_range")):
            less_sysctls = {key: value for key, value in router.sysctls.items() if key != name}
            yield replace(case, router=replace(router, sysctls=less_sysctls))
    if router.ipsets and "--match-set" not in "".join(case.rules()) and "-set seen" not in "".join(case.rules()):
        yield replace(case, router=replace(router, ipsets={}))


def _with_tables(case: Case, tables: dict[str, Table]) -> Case:
    rulesets = {case.family: Ruleset(case.family, tables, case.engine == "nft")}
    return replace(case, router=replace(case.router, rulesets=rulesets))


# -- as text -----------------------------------------------------------------------------------------------------------
def from_bytes(data: bytes) -> Packet:
    """A packet as it came off the wire. A fragment keeps its bytes: its header belongs to the whole."""
    packet = parse_packet(data)
    if not packet.is_fragment:
        return packet
    return replace(packet, body=Raw(data[20 + len(packet.options) if packet.src.version == 4 else 48 :]))


def case_to_json(case: Case) -> dict[str, Any]:
    router = case.router
    return {
        "family": case.family.name,
        "engine": case.engine,
        "links": [_link_to_json(link) for link in router.links],
        "addresses": [f"{one.interface} {one.device}" for one in router.addresses],
        "routes": [route_text(one) for one in router.routes],
        "rules": [rule_text(one) for one in router.rules],
        "neighbours": [neigh_text(one).strip() for one in router.neighbours],
        "fdb": [fdb_text(one) for one in router.fdb],
        "sysctls": dict(router.sysctls),
        "sets": [line.rstrip("\n") for line in ipset.print_save(router.ipsets)],
        "iptables": case.rules(),
        "probes": [[one.device, one.mac, one.mark, packet_bytes(one.packet).hex()] for one in case.probes],
    }


def case_from_json(given: dict[str, Any]) -> Case:
    family = Family[given["family"]]
    rules = [replace(parse_rule(text, family), family=family) for text in given["rules"]]
    ruleset = replace(parse_save("\n".join(given["iptables"]), family), nft=given["engine"] == "nft")
    router = Namespace(
        "R",
        tuple(map(_link_from_json, given["links"])),
        tuple(parse_address(f"inet {text.split()[0]}", text.split()[1]) for text in given["addresses"]),
        tuple(parse_route(text, family) for text in given["routes"]),
        tuple(rules),
        tuple(found for text in given["neighbours"] if (found := parse_neighbour(text)) is not None),
        tuple(map(parse_fdb, given["fdb"])),
        given["sysctls"],
        {family: ruleset} if given["iptables"] else {},
        ipset.parse_save("\n".join(given["sets"])),
    )
    probes = tuple(
        Probe(device, mac, from_bytes(bytes.fromhex(data)), mark) for device, mac, mark, data in given["probes"]
    )
    return Case(family, router, probes, given["engine"])


def _link_to_json(link: Link) -> dict[str, Any]:
    held: dict[str, Any] = {"name": link.name, "kind": link.kind.value, "mac": link.mac, "mtu": link.mtu}
    held |= {"master": link.master} if link.master else {}
    held |= {"hairpin": True} if link.hairpin else {}
    if link.vxlan is not None:
        held["vxlan"] = [link.vxlan.vni, str(link.vxlan.local), link.vxlan.device, link.vxlan.port]
    return held


def _link_from_json(given: dict[str, Any]) -> Link:
    vxlan = None
    if "vxlan" in given:
        vni, local, device, port = given["vxlan"]
        vxlan = VxlanOptions(vni, ip(local), device, port)
    kind = LinkKind(given["kind"])
    return Link(
        given["name"], kind, given["mac"], given["mtu"], master=given.get("master"), hairpin=given.get("hairpin", False),
        peer=("outside", f"x{given['name']}") if kind is LinkKind.VETH else None, vxlan=vxlan,
    )  # fmt: skip


__all__ = ["Case", "Probe", "case_from_json", "case_to_json", "cases", "emitted", "random_case", "smaller"]
