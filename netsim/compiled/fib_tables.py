"""The layout of the routing tables, and the words that compiler and kernels have in common.

    NAMESPACE ─▶ RULE … ─slot─▶ TABLE ─┬▶ PREFIX PREFIX          the namespace's own, longest first: read in a row
            (shared by content)        └▶ LINK ─▶ BASE ─▶ SLOT   a run that many hold: one probe a prefix length
                                            │               └▶ ROUTE ROUTE   best first; more next hops: HOP
                                            └▶ places left out

A pod knows a dozen prefixes: they lie side by side, a few cache lines, where a hash would touch one line of a large table
for each prefix length. What flannel gives every node is one *base*, compiled once for the cluster (by the identity of the
shared run), so that a node adds only its own prefixes and the place that it leaves out. What depends on the namespace, a
device that is down, a gateway that is its own address, is settled when the namespace is added, not when a packet is routed:
an own route is written as it works there, and of a base there is one version for each set of devices that do not work. A
namespace whose own prefixes meet those of a base, or two bases each other's, has them written out as its own.

Addresses of both families are 128 bits aligned to the left (``hi``, ``lo``), so that one kernel serves both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled.memory import padded
from netsim.compiled.registers import ADDRESS_TYPES
from netsim.linux.route import RouteType

# Route types as numbers: where ADDRESS_TYPES has the type, it is bit ``1 << code``.
NO_ROUTE = 0
UNICAST, LOCAL, BROADCAST, ANYCAST, MULTICAST, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW = range(1, 10)
TYPE_CODES: dict[RouteType, int] = {
    RouteType.UNICAST: UNICAST,
    RouteType.LOCAL: LOCAL,
    RouteType.BROADCAST: BROADCAST,
    RouteType.ANYCAST: ANYCAST,
    RouteType.MULTICAST: MULTICAST,
    RouteType.BLACKHOLE: BLACKHOLE,
    RouteType.UNREACHABLE: UNREACHABLE,
    RouteType.PROHIBIT: PROHIBIT,
    RouteType.THROW: THROW,
}
TYPES: dict[int, RouteType] = {code: kind for kind, code in TYPE_CODES.items()}
assert all(ADDRESS_TYPES[kind.name] == 1 << code for kind, code in TYPE_CODES.items() if kind.name in ADDRESS_TYPES)

# What a look-up writes. After FAULT: OUT_DEVICE and OUT_GATEWAY hold the fault's a and b.
OUT_DEVICE = 0  # device name number; 0: none
OUT_GATEWAY = 1  # handle of the gateway; -1: none
OUT_MTU = 2  # of the route; 0: none
OUT_ROUTE = 3  # FibCompiler.route_of tells the Route; -1: a rule or the look-up itself decided
OUT_ONLINK = 4
OUT_RECORD = 5  # row of ROUTE; -1: none
OUT_SIZE = 6

FAULT_NAMESPACE = 1  # FAULT's a: namespace number b has not been added
FAULT_SIX = 2  # its IPv6 tables have not been made: nothing in it is configured for IPv6

# NAMESPACE.flags
PRESENT, FORWARDING4, FORWARDING6, CUSTOM_RULES, HASH_POLICY4, HASH_POLICY6, PRESENT6 = 1, 2, 4, 8, 16, 32, 64
# DEVICE.flags; the two bits of RP_FILTER hold its mode
EXISTS, UP, LOOPBACK, ACCEPT_LOCAL, ROUTE_LOCALNET, SRC_VALID_MARK, HAS_IPV4 = 1, 2, 4, 8, 16, 32, 64
RP_SHIFT, RP_MASK = 8, 3
# ROUTE.flags; RARE: only the interpreter says what it does
HAS_GATEWAY, ONLINK, RARE = 1, 2, 4
# RULE.flags; NEVER: a prefix of the other family
FROM, TO, MARKED, INVERT, NEVER = 1, 2, 4, 8, 16

NAMESPACE = padded(
    [
        ("flags", "u4"),
        ("rules4", "u4"), ("count4", "u4"), ("tables4", "u4"),
        ("rules6", "u4"), ("count6", "u4"), ("tables6", "u4"),
        ("own", "u4"), ("owned", "u4"),  # distinct IPv4 addresses, in ``number``
        ("source", "i8"),  # inet_select_addr when the device has none; -1: none
        ("six", "u4"), ("sixes", "u4"),  # candidates for an IPv6 source, rows of CANDIDATE
    ],
    64,
)  # fmt: skip
DEVICE = padded([("key", "u8"), ("flags", "u4"), ("first", "u4"), ("count", "u4"), ("pad", "u4")], 32)  # PRIMARY rows
RULE = np.dtype(
    [
        ("flags", "u4"), ("action", "u4"), ("slot", "u4"),  # action 0: look into the namespace's table ``slot``
        ("iif", "u4"), ("oif", "u4"), ("mark", "u4"), ("mask", "u4"), ("src_length", "u4"), ("dst_length", "u4"),
        ("src_hi", "u8"), ("src_lo", "u8"), ("dst_hi", "u8"), ("dst_lo", "u8"),
    ]
)  # fmt: skip
TABLE = np.dtype([("first", "u4"), ("count", "u4"), ("link", "u4"), ("links", "u4")])
LINK = padded([("base", "u4"), ("length", "u4"), ("lengths", "u4"), ("without", "u4"), ("count", "u4")], 32)
PREFIX = np.dtype([("hi", "u8"), ("lo", "u8"), ("length", "u4"), ("route", "u4"), ("count", "u4"), ("pad", "u4")])
SLOT = np.dtype([("hi", "u8"), ("lo", "u8"), ("base", "u4"), ("length", "u4"), ("route", "u4"), ("count", "u4")])
ROUTE = padded(
    [
        ("type", "u2"), ("flags", "u2"),
        ("hops", "u4"),  # those that work; 0: none, the route is passed over
        ("device", "u4"), ("gateway", "u4"),  # of the only next hop
        ("hop", "u4"),  # first row of HOP, if there are more
        ("near", "u4"),  # the device that the route names, whether it works or not
        ("metric", "u4"), ("mtu", "u4"), ("number", "u4"),
        ("place", "u4"),  # in the shared run
    ],
    64,
)  # fmt: skip
HOP = np.dtype([("device", "u4"), ("gateway", "u4"), ("flags", "u4"), ("weight", "u4")])
PRIMARY = np.dtype([("address", "u4"), ("mask", "u4")])
CANDIDATE = np.dtype(
    [("hi", "u8"), ("lo", "u8"), ("handle", "u4"), ("device", "u4"), ("length", "u4"), ("scope", "u4"), ("label", "u4"),
     ("pad", "u4")]
)  # fmt: skip

Rows = npt.NDArray[np.void]
Numbers = npt.NDArray[np.uint32]


class FibTables(NamedTuple):
    """What the kernels read. Rows past those in use are zero; take it afresh for each call."""

    namespace: Rows
    device: Rows  # hash of (namespace, device name number); a power of two
    rule: Rows
    table: Rows
    link: Rows
    prefix: Rows
    slot: Rows  # hash of (base, prefix length, prefix); a power of two
    route: Rows
    hop: Rows
    number: Numbers  # plain lists: prefix lengths of bases, places left out, own IPv4 addresses
    primary: Rows
    candidate: Rows
    lo: int  # lo's name number
