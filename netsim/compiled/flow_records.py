"""Connections at rest: one record a flow for the conntrack entries of *all* namespaces on its way.

The entries that one connection has on its way (the sender's node, the receiver's node, …) are seen by the same packets,
so they share state and timers, and their tuples follow from two: ``s0`` as the first namespace sees the packets of the
original direction, ``s1`` behind the one namespace that translates (``s0`` everywhere before it, ``s1`` everywhere after
it). That is what a record holds, and the namespaces in order. A connection that does not fit (two namespaces
translate, or its packets stop reaching all of them) is *thawed*: it becomes ordinary entries of the interpreter's tables.

Where the bytes of a flow are that goes through a tunnel and has been answered:

    hot     64   one cache line: keys of both directions, ends, class, times, counters: all that an established packet
                 reads or writes (a line of the index and this line are the two lines that a packet costs)
    cold    64   one cache line: TCP's windows (the third line of its packets), and behind them the two namespaces and the
                 two outer entries, which first packets and changes of state touch
    rest    12   what first packets alone touch: links of the chains by source, a third namespace, the device of a masquerade
    index   13   two slots (s0, and s1 if it differs) of 4 bytes, 8 bits of tag | 24 bits of flow number, 5/8 in use
    sources  2   heads of the chains by source, one for two flows
    outer   32   two entries, one per tunnel's tuple and direction, shared by flows whose outer tuples collide; addresses and
                 namespaces are those of the tunnel's *ends*, each of which is kept once
    index   11   of those, 3/4 in use
            --
           198   and a few thousand rows of what many flows share: ends of tunnels, classes and their profiles

Numbers of flows, outer entries, namespaces and names have 24 bits. Times are milliseconds of simulated time, 32 bits:
49 days.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, shared
from netsim.compiled.tcp_kernel import TCP_TRACK

U = np.uint64
Array = Any  # a structured array; numba knows its fields

HOT = np.dtype(
    [
        ("s0_src", "u4"),
        ("s0_dst", "u4"),
        ("s0_ports", "u4"),  # source << 16 | destination; ICMP echo: identifier << 16 | type << 8 | code
        ("s1_src", "u4"),
        ("s1_dst", "u4"),
        ("s1_ports", "u4"),
        ("proto", "u1"),  # 0: the record is free
        ("state", "u1"),  # a column of ``FlowState.timeouts``
        ("status", "u2"),  # bits, see below
        ("end0", "u4"),  # origin of the original direction, receiver of replies
        ("end1", "u4"),
        ("class0", "u2"),  # row of ``FlowState.classes`` for packets of this direction; 0: take the slow path
        ("class1", "u2"),
        ("last0", "u4"),  # ms of the last packet of this direction
        ("last1", "u4"),
        ("packets0", "u2"),  # that took the fast path since they were last folded into ``packets`` and rule counters
        ("packets1", "u2"),
        ("packets", "u4"),  # of both directions, without those
        ("bytes0", "u4"),  # of ``packets0``: so few cannot have more
        ("bytes1", "u4"),
    ]
)
COLD = np.dtype(
    [
        ("tcp", TCP_TRACK),
        ("born", "u4"),
        ("low", "u2", 4),  # numbers of 24 bits: two namespaces, and the outer entries that packets of each direction
        ("high", "u1", 4),  # travel in (0: none)
    ]
)
NS0, NS1, OUTER0, OUTER1 = range(4)
REST = np.dtype(
    [
        (
            "low",
            "u2",
            4,
        ),  # the third namespace; the name of the device that the flow was masqueraded for (0: it was not);
        (
            "high",
            "u1",
            4,
        ),  # the flows behind this one in the chain by the source of ``s0``, and of ``s1`` if that is another
    ]
)
NS2, DEVICE, NEXT0, NEXT1 = range(4)
OUTER = np.dtype(
    [
        ("key", "u8"),  # the source port, the tunnel's ends and bits, see ``outer_key``; 0: the record is free
        ("born", "u4"),
        ("last", "u4"),  # ms of its last packet; or (OWNED) flow << 1 | direction whose last packet that is
    ]
)
END = np.dtype(  # one of the two ends of outer entries
    [
        ("address", "u4"),
        ("ns", "u4"),
        ("port", "u2"),  # that packets to either end have as their destination; 0: the protocol has none
        ("proto", "u1"),  # 0: the row is free; NOBODY: nobody's, it stands for no end
        ("ipv6", "u1"),
        ("settings", "u1"),  # row of ``FlowState.timeouts``; that of the near end counts
        ("spare", "u1", 3),
    ]
)
NOBODY = 255
CLASS = np.dtype(
    [
        ("verdict", "u1"),
        ("ttl", "u1"),  # what the way takes from the TTL
        ("longest", "u2"),  # bytes of the largest packet that passes untouched
        ("rules", "u4"),  # evaluated per packet
        ("timeout", "u4"),  # ms that the entries live on after a packet
        ("outer_timeout", "u4"),  # ms that the tunnel's entry does; the largest number without a tunnel
        ("tcp", "u1"),  # 1: the windows must be looked at
        ("outer_kept", "u1"),  # 1: the outer entry keeps its own time
        ("masqueraded", "u1"),
        ("hits", "u1"),  # rules that match such a packet
        ("least", "u1"),  # TTLs up to this end on the way
        ("spare", "u1", 3),
        (
            "profile",
            "u4",
        ),  # first row of ``FlowState.profiles``: (which of the flow's namespaces << 30 | table << 26 | rule) each
    ]
)
assert (HOT.itemsize, COLD.itemsize, REST.itemsize) == (64, 64, 12)
assert (OUTER.itemsize, END.itemsize) == (16, 16)

# Bits of ``Hot.status``; SEEN_REPLY, ASSURED and OWNED of an outer entry.
IPV6, SNAT, DNAT, SEEN_REPLY, ASSURED, OWNED = 1, 2, 4, 8, 16, 32
_COUNT, _NAT_AT, _SETTINGS = 5, 7, 9  # where the rest begins: see ``status_word``
SETTINGS = 64  # rows of ``FlowState.timeouts``

# Columns of ``timeouts``: what an entry's life depends on. The first ten are TCP's states.
TCP_STATES = ("NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2")
UDP, UDP_STREAM, ICMP_ECHO, ICMPV6_ECHO, GENERIC = 10, 11, 12, 13, 14
TIMEOUT_NAMES = (
    "tcp_timeout_none",
    "tcp_timeout_syn_sent",
    "tcp_timeout_syn_recv",
    "tcp_timeout_established",
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
    "tcp_timeout_close",
    "tcp_timeout_syn_sent",
    "udp_timeout",
    "udp_timeout_stream",
    "icmp_timeout",
    "icmpv6_timeout",
    "generic_timeout",
)

NUMBER = np.uint32(0x00FFFFFF)  # bits of a number
MOST = 0x00FFFFFE  # flows and outer entries
MOST_ENDS = (1 << 21) - 1


class FlowState(NamedTuple):
    """The arrays that kernels see. Flow and outer numbers start at 1."""

    slots: npt.NDArray[np.uint32]
    outer_slots: npt.NDArray[np.uint32]
    hot: Array
    cold: Array
    rest: Array
    outer: Array
    ends: Array  # a hash table, at most half full; an end's number is its row
    timeouts: npt.NDArray[np.uint32]  # (SETTINGS, 16) ms
    sources: npt.NDArray[np.uint32]  # heads of the chains by source: flows
    elsewhere: npt.NDArray[np.uint64]  # hashes of tuples that the interpreter's tables hold
    classes: Array
    profiles: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int64]  # see the places below


# Places in ``counts``.
(
    N_FLOWS,
    N_FREE,
    N_OUTERS,
    N_OUTER_FREE,
    N_CLASSES,
    N_ELSEWHERE,
    N_TOMBS,
    N_OUTER_TOMBS,
    HIGH,
    OUTER_HIGH,
    N_PROFILES,
    N_ENDS,
) = range(12)
COUNTS = 16


# -- packed fields -----------------------------------------------------------------------------------------------------
@shared
def number_at(record: Any, place: Int) -> Int:
    """One of the four numbers of a record of ``cold`` or ``rest``."""
    return np.int64(record["low"][place]) | np.int64(record["high"][place]) << 16


@shared
def set_number(record: Any, place: Int, number: Int) -> None:
    record["low"][place] = number & 0xFFFF
    record["high"][place] = number >> 16


@shared
def namespace_of(s: FlowState, flow: Int, place: Int) -> Int:
    """The first, second or third namespace that a flow has an entry in."""
    return number_at(s.rest[flow], NS2) if place == 2 else number_at(s.cold[flow], NS0 + place)


@shared
def set_namespace(s: FlowState, flow: Int, place: Int, number: Int) -> None:
    if place == 2:
        set_number(s.rest[flow], NS2, number)
    else:
        set_number(s.cold[flow], NS0 + place, number)


@shared
def outer_of(s: FlowState, flow: Int, direction: Int) -> Int:
    return number_at(s.cold[flow], OUTER1 if direction else OUTER0)


@shared
def set_outer(s: FlowState, flow: Int, direction: Int, number: Int) -> None:
    set_number(s.cold[flow], OUTER1 if direction else OUTER0, number)


@shared
def status_word(bits: Int, count: Int, nat_at: Int, settings: Int) -> Int:
    """``Hot.status``: its bits, how many namespaces the flow has entries in, which of them translates (``count`` if none
    does), and the row of ``FlowState.timeouts``."""
    return bits | count << _COUNT | nat_at << _NAT_AT | settings << _SETTINGS


@shared
def count_of(hot: Any) -> Int:
    return np.int64(hot["status"]) >> _COUNT & 3


@shared
def nat_at_of(hot: Any) -> Int:
    return np.int64(hot["status"]) >> _NAT_AT & 3


@shared
def settings_of(hot: Any) -> Int:
    return np.int64(hot["status"]) >> _SETTINGS & (SETTINGS - 1)


# -- outer entries -----------------------------------------------------------------------------------------------------
PORT_AT = 6  # bytes of the key below the source port


@shared
def outer_key(near: Int, far: Int, port: Int, bits: Int) -> Int:
    """``Outer.key``: the source port, the end that sent the first packet and the other one (rows, 21 bits each), 6 bits."""
    return U(port) << U(48) | U(near) << U(27) | U(far) << U(6) | U(bits)


@shared
def near_of(entry: Any) -> Int:
    return np.int64(entry["key"] >> U(27) & U(MOST_ENDS))


@shared
def far_of(entry: Any) -> Int:
    return np.int64(entry["key"] >> U(6) & U(MOST_ENDS))


@shared
def bits_of(entry: Any) -> Int:
    return np.int64(entry["key"] & U(0x3F))


@shared
def set_bits(entry: Any, bits: Int) -> None:
    entry["key"] = entry["key"] >> U(6) << U(6) | U(bits)


@shared
def ports_of(s: FlowState, entry: Any) -> Int:
    """As in a tuple: source << 16 | destination."""
    return np.int64(entry["key"] >> U(48)) << 16 | np.int64(s.ends[near_of(entry)]["port"])


@shared
def owner_of(entry: Any) -> Int:
    """The flow << 1 | direction whose ``last`` counts for the entry; 0: it keeps its own."""
    return np.int64(entry["last"]) if bits_of(entry) & OWNED else np.int64(0)


@shared
def set_owner(entry: Any, owner: Int) -> None:
    set_bits(entry, bits_of(entry) | OWNED)
    entry["last"] = owner


@shared
def keep_time(entry: Any, last: Int) -> None:
    """No flow owns the entry any more."""
    set_bits(entry, bits_of(entry) & ~OWNED)
    entry["last"] = last
