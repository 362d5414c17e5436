"""What a first packet carries along while the machine walks it: the scratch of one journey, and how it may end.

Nothing in the tables changes before the journey is over: a journey that meets something it cannot say is given up (``BAIL``)
or, if only a fact is missing, begun again (``FAULT``), and leaves no trace.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled import programs
from netsim.compiled.fast_kernels import RUN_WORDS
from netsim.compiled.registers import SIZE
from netsim.compiled.tcp_kernel import TCP_TRACK

# How a part of the walk ends.
GO_ON, ENDED, BAILED, FAULTED = 0, 1, 2, 3

# Where the packet is next (``machine``).
(AT_LOCAL_OUT, AT_OUTPUT, AT_FINISH, AT_TRANSMIT, AT_ARRIVE, AT_BRIDGE_IN, AT_BRIDGE_SEND, AT_RECEIVE, AT_ROUTED) = (
    range(9)
)
AT_END, AT_BAIL, AT_FAULT = 100, 101, 102

# Places in ``Scratch.j``.
(
    NS,
    DEVICE_IN,  # the device it came in by (number), 0: made here
    DEVICE_OUT,
    FRAME_TO,  # MAC number the frame is for
    ROUTED,  # 1: there is a route
    ROUTE_TYPE,
    ROUTE_DEVICE,  # name number
    ROUTE_GATEWAY,  # handle, -1: none
    ROUTE_MTU,
    BRIDGED,  # 1: PREROUTING was done by br_netfilter
    CT,  # row of ``stops`` + 1 of the packet's connection here; 0: none
    UNTRACKED,
    DEPTH,  # 1: inside a tunnel
    OVERHEAD,  # bytes that the tunnel adds
    TUNNEL_VNI,
    TUNNEL_FRAME_TO,  # MAC number of the inner frame
    ARRIVALS,
    STOPS,
    FAULT_KIND,
    FAULT_NUMBER,
    FAULT_VALUE,
    REASON,  # of a bail, see REASONS
    VERDICT,
    RECEIVER,
    DECIDED,  # global rule id + 1 that settled it, 0: none
    DECIDED_NS,
    TRANSLATED,  # the same, of the last destination translation
    TRANSLATED_NS,
    MASQUERADED,
    LONGEST,
    NOW,  # ms
    STATE_AFTER,  # column of timeouts that the flow is in after this packet
    STEPPED,  # 1: a new flow's tracker has taken this packet into account, 2: that of a known one
    ORIGIN,
    ONLY_OIF,  # device name a tunnel insists on
    TTL_IN,
    LENGTH_IN,
    OUTER_V6,  # 1: the tunnel's packets are IPv6
    FLOW,  # flow << 1 | direction that the packet belongs to; 0: none
    TUNNEL,  # kind of the device that made the packet around this one
    INHERITED,  # 1: that packet's TTL began as this one's
    SPENT,  # the most that a TTL which began as the packet's own has lost
) = range(42)
J_SIZE = 48

DELIVERED, LEFT, DROPPED = 0, 1, 2  # verdicts, in the order of netsim.interpreter.outcome.Disposition
UNREACHABLE = 4

REASONS = (
    "",
    "the interpreter holds its connection",
    "the packet is longer than an MTU on its way",
    "its TTL ends on the way",
    "no route",
    "the source is not believed",
    "it is not for this host",
    "nobody answers for the next hop",
    "a device is down or missing",
    "a rule that has a memory or looks into the packet",
    "a rule rejects it",
    "a translation that needs a search",
    "the connection tracker calls it invalid or begins anew",
    "its connection does not pass the same namespaces as before",
    "a bridge floods it",
    "a tunnel that only the interpreter knows",
    "it goes round",
    "a kind of packet that only the interpreter knows",
    "two namespaces translate it",
    "a connection mark",
    "its connection is replaced by another",
)
(
    R_NONE,
    R_ELSEWHERE,
    R_MTU,
    R_TTL,
    R_ROUTE,
    R_SOURCE,
    R_HOST,
    R_NEIGHBOUR,
    R_DEVICE,
    R_RULE,
    R_REJECT,
    R_NAT,
    R_TRACKER,
    R_STEP,
    R_FLOOD,
    R_TUNNEL,
    R_LOOP,
    R_KIND,
    R_TWICE,
    R_MARK,
    R_CLASH,
) = range(21)

# Kinds of faults beyond those of facts (``world``): what Python must supply.
FAULT_NAMESPACE_WANTED, FAULT_RULES, FAULT_FIB, FAULT_ROOM = 64, 65, 66, 67

STOP = np.dtype(
    [
        ("ns", "u4"),
        ("found", "u4"),  # flow or outer number << 1 | direction; 0: a new connection
        ("in_src", "u4"),
        ("in_dst", "u4"),
        ("in_ports", "u4"),
        ("out_src", "u4"),
        ("out_dst", "u4"),
        ("out_ports", "u4"),
        ("masquerade", "u4"),
        ("proto", "u1"),
        ("outer", "u1"),  # 1: the tunnel's packet
        ("status", "u1"),  # SNAT, DNAT of ``flows``
        ("asked", "u1"),  # 1: destination, 2: source translation is settled
        ("confirmed", "u1"),
        ("established", "u1"),
        ("spare", "u2"),
    ]
)
STOP_ROOM, HIT_ROOM, ARRIVAL_ROOM = 16, 1024, 24
TRAIL_BLOCK = (
    32  # packets that are on a trail together: their numbers stay in the cache, and enough loads are under way
)
TRAIL_WORDS = 16


class Scratch(NamedTuple):
    """One journey's memory; the engine makes one and uses it for every packet."""

    r: npt.NDArray[np.uint32]
    inner: npt.NDArray[np.uint32]  # the registers of the packet inside a tunnel
    j: npt.NDArray[np.int64]
    stops: Any  # connections met on the way, in order
    rules: Any  # the walk's own scratch (``programs.Scratch``): hits, draws, plans
    hit_ns: npt.NDArray[np.uint32]  # of each hit: namespace | table << 24, IPv6's tables five higher
    arrivals: npt.NDArray[np.uint32]  # (ARRIVAL_ROOM, 6): what has come in where
    out: npt.NDArray[np.int64]  # answers of the FIB
    tcp: Any  # the flow's tracker as this packet leaves it; another that is only tried
    segment: npt.NDArray[
        np.int64
    ]  # TCP: flags, sequence, acknowledged, window, window scale (-1, NO_OPTIONS), bytes of data
    told: npt.NDArray[
        np.int64
    ]  # to be noted of its sender: row of the table of allowances + 1 (0: nothing), the allowance
    seed: npt.NDArray[np.uint64]
    why: npt.NDArray[np.int64]  # why ``process`` stopped
    trails: npt.NDArray[np.int64]  # see ``along``
    takes: npt.NDArray[np.uint8]  # of a block's packets: 1 if the trail may take it
    room: npt.NDArray[np.int64]  # numbers of a block of packets on a trail
    run: npt.NDArray[np.uint32]  # see ``fast_kernels``


def scratch() -> Scratch:
    return Scratch(
        np.zeros(SIZE, np.uint32),
        np.zeros(SIZE, np.uint32),
        np.zeros(J_SIZE, np.int64),
        np.zeros(STOP_ROOM, STOP),
        programs.scratch(hits=HIT_ROOM),
        np.zeros(HIT_ROOM, np.uint32),
        np.zeros((ARRIVAL_ROOM, 6), np.uint32),
        np.zeros(8, np.int64),
        np.zeros(2, TCP_TRACK),
        np.zeros(6, np.int64),
        np.zeros(2, np.int64),
        np.zeros(1, np.uint64),
        np.zeros(1, np.int64),
        np.zeros(TRAIL_WORDS, np.int64),
        np.zeros(TRAIL_BLOCK + 1, np.uint8),
        np.zeros(0, np.int64),
        np.zeros(RUN_WORDS, np.uint32),
    )
