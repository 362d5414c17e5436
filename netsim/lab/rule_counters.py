"""``iptables-save -c`` before and after, next to the interpreter's account of the rules that matched."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Container, Iterable, Iterator, Mapping

from netsim.errors import PrivilegeError
from netsim.interpreter.counters import Counters, RuleKey, add
from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.linux.netfilter.text import print_rule
from netsim.linux.network import Network
from netsim.packet.address import Family
from netsim.packet.codec import wire_length
from netsim.packet.model import Packet, Proto

_POLICY = re.compile(r":(\S+) (\S+) \[(\d+):(\d+)\]")
_RULE = re.compile(r"\[(\d+):(\d+)\] -A (\S+)")
_TOOLS = {Family.IPV4: "iptables-save", Family.IPV6: "ip6tables-save"}


def places(network: Network, names: Iterable[str]) -> list[tuple[str, Family]]:
    """Where there are rules."""
    return [(name, family) for name in names for family in sorted(network.namespace(name).rulesets)]


def read(where: Iterable[tuple[str, Family]]) -> Counters:
    """The kernel's counters. PrivilegeError if the tool is missing."""
    found: Counters = {}
    for name, family in where:
        with within(netns(name)):
            try:
                words = [_TOOLS[family], "-c"]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise PrivilegeError(f"{' '.join(words)}: {error}") from None
        found.update(parse(done.stdout, name, family))
    return found


def parse(text: str, namespace: str, family: Family) -> Counters:
    """The counters of an ``iptables-save -c`` text. User chains have no policy and no counter."""
    found: Counters = {}
    numbers: dict[str, int] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:], {}
        elif policy := _POLICY.match(line):
            if policy[2] != "-":
                found[RuleKey(namespace, family, table, policy[1], 0)] = int(policy[3]), int(policy[4])
        elif rule := _RULE.match(line):
            number = numbers[rule[3]] = numbers.get(rule[3], 0) + 1
            found[RuleKey(namespace, family, table, rule[3], number)] = int(rule[1]), int(rule[2])
    return found


class Account:
    """What the interpreter says has been counted by a batch of packets.

    Tunnels' connections are shared: their packets pass the nat table only if no other flight's did before. So many passed as
    the kernel remembers connections afterwards; how many bytes the first ones had, nobody knows."""

    def __init__(self, tunnels: frozenset[int]) -> None:
        self._tunnels = tunnels
        self.counted: Counters = {}
        self.unsure: set[RuleKey] = set()
        self._first: dict[tuple[str, str, str], Counters] = {}

    def add(self, rules: Iterable[tuple[RuleKey, Packet]]) -> None:
        first: dict[tuple[str, str, str], Counters] = {}
        for key, packet in rules:
            outer = packet.proto == Proto.UDP and packet.dport in self._tunnels
            both_ways = packet.proto == Proto.IPIP or (outer and packet.sport == packet.dport)
            if both_ways and key.table in ("filter", "nat"):
                self.unsure.add(key)  # IPIP's and flanneld's one connection: NEW for some, ESTABLISHED for others
            elif outer and key.table == "nat":
                add(first.setdefault((key.namespace, str(packet.src), str(packet.dst)), {}), key, 1, 0)
            else:
                add(self.counted, key, 1, wire_length(packet))
        for way, counted in first.items():
            self._first.setdefault(way, counted)

    def differences(
        self,
        before: Counters,
        after: Counters,
        tunnels: Mapping[tuple[str, str, str], int] | None,
        chatter: Container[str],
        network: Network,
    ) -> Iterator[str]:
        """One line for each rule that counted otherwise since ``before``. ``tunnels``: how many connections they made; None
        if that cannot be told, then the rules they passed are not compared. ``chatter``: where IPv6 looked for neighbours
        meanwhile, which all its tables but nat (it is not tracked) have counted."""
        expected, loose = dict(self.counted), set[RuleKey]()
        for way, counted in self._first.items():
            for key in counted:
                loose.add(key)
                add(expected, key, tunnels.get(way, 0) * counted[key][0] if tunnels is not None else 0, 0)
        nothing = (0, 0)
        for key in sorted({*after, *expected} - self.unsure):
            first, last = before.get(key, nothing), after.get(key, nothing)
            grown = last[0] - first[0], last[1] - first[1]
            wanted = expected.get(key, nothing)
            if key.family is Family.IPV6 and key.table != "nat" and key.namespace in chatter:
                continue
            if key in loose:
                if tunnels is not None and grown[0] != wanted[0]:
                    yield f"{_text(key, network)}: netsim {wanted[0]} packets, kernel {grown[0]} packets"
            elif grown != wanted:
                yield (
                    f"{_text(key, network)}: netsim {wanted[0]} packets {wanted[1]} bytes, "
                    f"kernel {grown[0]} packets {grown[1]} bytes"
                )


def _text(key: RuleKey, network: Network) -> str:
    where = f"{key.namespace} IPv{int(key.family)} {key.table}"
    ruleset = network.namespace(key.namespace).rulesets.get(key.family)
    table = ruleset.tables.get(key.table) if ruleset else None
    chain = table.chains.get(key.chain) if table else None
    if not key.rule or chain is None or key.rule > len(chain.rules):
        return f"{where} {key.chain} {f'rule {key.rule}' if key.rule else 'policy'}"
    return f"{where} rule {key.rule}: {print_rule(key.chain, chain.rules[key.rule - 1], key.family)}"
