"""What ``lower()`` says: a closed vocabulary of constraints on packet columns and of effects, for the compiled datapath.

A match lowers to a conjunction. A column that a packet does not have (ports of a non-first fragment) is None, and then no
constraint on it holds, negated or not: that is how the kernel's matches treat it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from netsim.packet.codec import wire_length
from netsim.packet.model import Icmp, Tcp

if TYPE_CHECKING:
    from netsim.linux.netfilter.base import Environment, Skb


class Column(enum.StrEnum):
    SRC = "src"
    DST = "dst"
    SPORT = "sport"
    DPORT = "dport"
    PROTO = "proto"
    TCP_FLAGS = "tcp_flags"
    ICMP_TYPE = "icmp_type"
    ICMP_CODE = "icmp_code"
    TTL = "ttl"
    LENGTH = "length"
    MARK = "mark"
    IIF = "iif"
    OIF = "oif"
    PHYSIN = "physin"
    PHYSOUT = "physout"
    CT_STATE = "ct_state"  # bit set, see ``CT_BITS``
    CT_MARK = "ct_mark"
    SRC_TYPE = "src_type"
    DST_TYPE = "dst_type"
    PACKET = "packet"  # the packet as a whole: look-ups, draws and counters


class Kind(enum.StrEnum):
    EQUAL = "equal"  # value
    MASKED = "masked"  # (value, mask)
    ANY_BIT = "any_bit"  # mask
    RANGES = "ranges"  # ((low, high), …): in one of them
    PREFIX = "prefix"  # an interface name up to ``+``
    ONE_OF = "one_of"  # a frozenset
    ALWAYS = "always"
    LOOKUP = "lookup"  # (ipset, dimensions)
    RANDOM = "random"  # threshold of 2**31
    STATEFUL = "stateful"  # the match itself: it has a memory


@dataclass(frozen=True, slots=True)
class Constraint:
    column: Column
    kind: Kind
    value: Any = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Opaque:
    """Not expressible; packets that get here are left to the interpreter."""

    reason: str


class Effect(msgspec.Struct, frozen=True):
    """A target's effect: ``mark``/``ct_mark`` with (clear mask, xor), or ``verdict``, ``nat``, ``reject``, ``notrack`` …"""

    kind: str
    value: Any = None


CT_BITS: Mapping[str, int] = {
    name: 1 << bit for bit, name in enumerate(("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"))
}


def ct_bits(skb: Skb) -> int:
    """The packet's state and its entry's NAT flags as a bit set (``xt_conntrack.c`` computes the same)."""
    bits = CT_BITS[skb.ct_state]
    if skb.ct is not None:
        bits |= CT_BITS["SNAT"] * bool(skb.ct.status_snat) | CT_BITS["DNAT"] * bool(skb.ct.status_dnat)
    return bits


def columns_of(skb: Skb, env: Environment) -> dict[Column, Any]:
    """The columns of one packet."""
    packet = skb.packet
    first = packet.fragment_offset == 0
    body = packet.body if first else None
    return {
        Column.SRC: int(packet.src),
        Column.DST: int(packet.dst),
        Column.SPORT: packet.sport if first else None,
        Column.DPORT: packet.dport if first else None,
        Column.PROTO: int(packet.proto),
        Column.TCP_FLAGS: int(body.flags) if isinstance(body, Tcp) else None,
        Column.ICMP_TYPE: body.type if isinstance(body, Icmp) else None,
        Column.ICMP_CODE: body.code if isinstance(body, Icmp) else None,
        Column.TTL: packet.ttl,
        Column.LENGTH: wire_length(packet),
        Column.MARK: skb.mark,
        Column.IIF: skb.iif or "",
        Column.OIF: skb.oif or "",
        Column.PHYSIN: skb.physin or "",
        Column.PHYSOUT: skb.physout or "",
        Column.CT_STATE: ct_bits(skb),
        Column.CT_MARK: None if skb.ct is None else skb.ct.mark,
        Column.SRC_TYPE: env.address_type(packet.src),
        Column.DST_TYPE: env.address_type(packet.dst),
    }


def holds(constraints: Sequence[Constraint | Opaque], columns: Mapping[Column, Any]) -> bool:
    """Reference meaning of a lowered match; ValueError for constraints that columns alone do not settle."""
    return all(_holds(constraint, columns) for constraint in constraints)


def _holds(constraint: Constraint | Opaque, columns: Mapping[Column, Any]) -> bool:
    if isinstance(constraint, Opaque):
        raise ValueError(constraint.reason)
    if constraint.kind is Kind.ALWAYS:
        return not constraint.negated
    have = columns.get(constraint.column)
    if constraint.kind in (Kind.LOOKUP, Kind.RANDOM, Kind.STATEFUL):
        raise ValueError(f"{constraint.kind} is not settled by columns")
    if have is None:
        return False
    value = constraint.value
    match constraint.kind:
        case Kind.EQUAL:
            found = have == value
        case Kind.MASKED:
            found = have & value[1] == value[0]
        case Kind.ANY_BIT:
            found = bool(have & value)
        case Kind.RANGES:
            found = any(low <= have <= high for low, high in value)
        case Kind.PREFIX:
            found = have.startswith(value)
        case _:
            found = have in value
    return bool(found) != constraint.negated
