"""The registers of the slow path: one packet as 32-bit numbers, the way compiled rules and routes look at it.

A register file is a ``uint32`` array of ``SIZE``. Every packet column of ``netsim.linux.netfilter.lowering.Column`` has a
register; names (devices, chains) are interned numbers, 0 the empty name. Addresses are *handles*: an IPv4 address is its own
number, an IPv6 address the number under which ``netsim.compiled.addresses`` keeps its two 64-bit words; ``FAMILY`` tells.

Registers past ``HAS`` are not packet columns: they carry the walk's account.
"""

from __future__ import annotations

SRC, DST = 0, 1  # address handles
SPORT, DPORT = 2, 3
PROTO = 4
TCP_FLAGS = 5
ICMP_TYPE, ICMP_CODE = 6, 7
TTL = 8
LENGTH = 9  # bytes of the IP packet
MARK = 10
IIF, OIF, PHYSIN, PHYSOUT = 11, 12, 13, 14  # interned device names, 0: none
CT_STATE = 15  # bit set of netsim.linux.netfilter.lowering.CT_BITS
CT_MARK = 16
SRC_TYPE, DST_TYPE = 17, 18  # one bit of ADDRESS_TYPES; 0: filled in when a rule asks
HAS = 19  # bit n: register n holds a value (columns that a packet may lack: ports, flags, ICMP type, connection mark)
FAMILY = 20  # 4 or 6
NAMESPACE = 21
EVALUATED = 22  # rules that the kernel would have evaluated so far, all hooks of the journey
HITS = 23  # how many entries of the ``hits`` scratch are in use
DRAWS = 24  # how many entries of the ``draws`` scratch are in use
NOTRACK = 25  # 1: a rule said so in the table walked last
BY_POLICY = 26  # 1: the walk ended with the built-in chain's policy
FAULT_A, FAULT_B = 27, 28  # what is missing, when a walk or look-up answers FAULT
SERIAL = 29  # low 32 bits of the packet's serial number, the key of its draws
FRAGMENT = 30  # where the fragment begins in its packet, in bytes; 0 for first fragments and whole packets
PLANNED = 31  # how many entries of the ``planned`` scratch are in use
VARIES = 32  # 1: a chain on the way asks what differs between packets of one flow (``programs.VARIES``)
SIZE = 33

# What ends a walk. The low byte of its answer; the rest is an argument.
ACCEPT, DROP, NAT, REJECT, BAIL, FAULT = 0, 1, 2, 3, 4, 5

ADDRESS_TYPES = {
    name: 1 << bit
    for bit, name in enumerate(
        ("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT")
    )
}
