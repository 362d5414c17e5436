"""Rule counters as the kernel would have them after a packet: ``iptables-save -c`` without a kernel.

A rule counts a packet when all its matches hold (``ipt_do_table``'s ADD_COUNTER; the ``counter`` that iptables-nft puts
between matches and target), a built-in chain when its policy decides. The nat table is asked for the first packet of a
connection only, so that is all it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netsim.interpreter.outcome import Hop, Outcome
from netsim.packet.address import Family
from netsim.packet.codec import wire_length
from netsim.packet.model import Packet


class RuleKey(NamedTuple):
    """A rule by its place: ``rule`` is its 1-based number in the chain, 0 the chain's policy."""

    namespace: str
    family: Family
    table: str
    chain: str
    rule: int


Counters = dict[RuleKey, tuple[int, int]]  # → packets, bytes


def counters(outcome: Outcome, *, answer: bool = True) -> Counters:
    """What one packet adds in every namespace it passed; ``answer``: with the ICMP error or reset it caused."""
    hops = [*outcome.hops, *outcome.error_hops] if answer else outcome.hops
    found: Counters = {}
    for key, packet in matched(hops):
        add(found, key, 1, wire_length(packet))
    return found


def matched(hops: Iterable[Hop]) -> Iterator[tuple[RuleKey, Packet]]:
    """Every rule and policy in the order of the walks, with the packet as it was there. Bytes count ``skb->len``, the length
    of that IP packet."""
    for hop in hops:
        for one in hop.counted:
            yield RuleKey(hop.namespace, one.packet.family, one.table, one.chain, one.rule), one.packet


def add(total: Counters, key: RuleKey, packets: int, octets: int) -> None:
    before = total.get(key, (0, 0))
    total[key] = before[0] + packets, before[1] + octets


def add_all(total: Counters, more: Counters) -> None:
    for key, (packets, octets) in more.items():
        add(total, key, packets, octets)
