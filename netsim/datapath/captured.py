"""Packets of a capture: a block of records as the kernels leave them, and the batch that they become."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from netsim.compiled import capture_kernel as kernel
from netsim.compiled.addresses import Addresses
from netsim.datapath.batch import Batch
from netsim.datapath.columns import DONT_FRAGMENT, ICMP_TRACKED, ICMPV6_TRACKED, INTERPRETED, IPV6, LONGEST
from netsim.packet.codec import parse_packet
from netsim.packet.model import Packet, Proto

REASONS: Final = {
    kernel.NOT_IP: "not IP (ARP and the like)",
    kernel.SHORT: "too short for its headers",
    kernel.CUT: "the snap length cut its headers off; capture with a larger one",
    kernel.BAD_HEADER: "the IP header contradicts itself, the link layer or the packet's length",
    kernel.UNKNOWN_LINK: "of an interface whose link type is not read",
    kernel.BAD_TIME: "its time is after the year 2250",
}
_DIRECT: Final = ("sport", "dport", "proto", "tcp_flags", "ttl", "tos", "seq", "ack", "window", "wscale", "tcp_options")
_LITTLE = (
    kernel.FRAGMENT | kernel.EXTENDED | kernel.OPTIONS | kernel.MALFORMED
)  # columns say too little of such packets


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive packets of a capture: ``records`` is ``(n,)`` of SEEN; ``first`` the number of the first one, from 1."""

    data: npt.NDArray[np.uint8]
    first: int
    records: npt.NDArray[Any]

    def packet(self, number: int) -> Packet:
        """One packet (by its place in the block) as a value, zeros for what the snap length cut off.

        ValueError for a record that cannot be used."""
        record = self.records[number]
        if record["oddity"]:
            raise ValueError(f"packet {self.first + number} cannot be used: {REASONS[int(record['oddity'])]}")
        at, captured, wire = (int(record[name]) for name in ("at", "captured", "wire"))
        there = self.data[at : at + captured].tobytes()
        return parse_packet(there + bytes(max(0, wire - captured)))

    def batch(
        self,
        chosen: npt.NDArray[np.int64],
        time: npt.NDArray[np.int64],
        origin: npt.NDArray[np.uint32],
        addresses: Addresses,
    ) -> Batch:
        """The packets at places ``chosen`` (all of them usable) with these times (microseconds) and origins.

        Nothing of them is lost: ``extra`` and ``recall`` read from the file what columns do not hold."""
        records = self.records[chosen]
        six = (records["flags"] & IPV6) != 0
        made: dict[str, Any] = {name: records[name].copy() for name in _DIRECT}
        for name in ("src", "dst"):
            made[name] = _handles(records[name], six, addresses)
        made["flags"] = records["flags"] & np.uint8(IPV6 | DONT_FRAGMENT)
        made["length"] = np.minimum(records["length"], LONGEST).astype(np.uint16)

        def recall(number: int) -> Packet:
            return self.packet(int(chosen[number]))

        little = np.flatnonzero(_interpreted(records, six))
        extra = {number: recall(number) for number in little.tolist()}
        return Batch(**made, time=time, origin=origin, addresses=addresses, extra=extra, recall=recall)


def _interpreted(records: npt.NDArray[Any], six: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """As ``columns.row_of`` decides it for one packet."""
    proto, kind = records["proto"], records["dport"] >> 8
    little: npt.NDArray[np.bool_] = ((records["flags"] & _LITTLE) != 0) | (records["length"] > LONGEST)
    for family, mask in ((4, ~six), (6, six)):
        little |= mask & np.isin(proto, np.array(sorted(INTERPRETED[family]), np.uint8))
    little |= ~six & (proto == Proto.ICMP) & ~np.isin(kind, np.array(ICMP_TRACKED, np.uint16))
    little |= six & (proto == Proto.ICMPV6) & ~np.isin(kind, np.array(ICMPV6_TRACKED, np.uint16))
    return little


def _handles(
    halves: npt.NDArray[np.uint64], six: npt.NDArray[np.bool_], addresses: Addresses
) -> npt.NDArray[np.uint32]:
    """Address handles of ``(n, 2)`` halves."""
    found = halves[:, 1].astype(np.uint32)
    if six.any():
        known, which = np.unique(halves[six], axis=0, return_inverse=True)
        each = [addresses.handle(IPv6Address(int(high) << 64 | int(low))) for high, low in known]
        found[six] = np.array(each, np.uint32)[which.reshape(-1)]
    return found
