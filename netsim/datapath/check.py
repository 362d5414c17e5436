"""What is wrong with the columns of a batch, in words that name the column and the packet.

Of each kind of complaint only the first packet is named, with a count of the others. A kernel goes over long batches first
(``netsim.compiled.screen_kernel``): most have no flaw, and are not looked at rule by rule.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.datapath.columns import (
    DONT_FRAGMENT,
    DTYPES,
    HEADERS,
    ICMP_TRACKED,
    ICMPV6_TRACKED,
    INTERPRETED,
    IPV6,
    LATEST,
    MOST_OPTIONS,
    MOST_SCALE,
)
from netsim.packet.describe import proto_text
from netsim.packet.model import Proto

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def misshapen(columns: Mapping[str, Any]) -> Iterator[str]:
    """Columns that are no arrays, not of their dtype or dimension, or not of one length."""
    lengths: dict[str, int] = {}
    for name, kind in DTYPES.items():
        column = columns[name]
        if not isinstance(column, np.ndarray):
            yield f"column {name} is a {type(column).__name__}: a numpy array of {kind} is needed"
        elif column.dtype != kind:
            yield f"column {name} has dtype {column.dtype}: it must be {kind}"
        elif column.ndim != 1:
            yield f"column {name} has shape {column.shape}: it must have one dimension"
        else:
            lengths[name] = len(column)
    usual = lengths.get("time")
    for name, length in lengths.items():
        if usual is not None and length != usual:
            yield f"column {name} holds {length} packets, column time {usual}: all columns must be of one length"


def nonsense(
    columns: Mapping[str, Column], extra: Collection[int], v6_addresses: int, origins: int | None
) -> Iterator[str]:
    """Values that contradict each other, or name what is not there. ``extra``: packets whose columns are not looked at but
    for time and origin; ``v6_addresses``: how many handles there are."""
    count = len(columns["time"])
    time, origin, flags = columns["time"], columns["origin"], columns["flags"]
    back = np.zeros(count, bool)
    back[1:] = time[1:] < time[:-1]
    yield from _first(back, lambda n: f"column time runs backwards, from {time[n - 1]} to {time[n]}; sort by time")
    yield from _first(
        (time < 0) | (time > LATEST),
        lambda n: (
            f"column time is {time[n]}, but the clock shows 0 to {LATEST} microseconds (49 days); count from the first"
        ),
    )
    if origins is not None:
        yield from _first(
            origin >= origins,
            lambda n: f"column origin is {origin[n]}, but only {origins} origins are known; ask Datapath.origin for it",
        )
    outside = [number for number in extra if not 0 <= number < count]
    if outside:
        yield f"extra holds a packet {outside[0]}, but there are only {count}"
    told = np.ones(count, bool)
    told[[number for number in extra if 0 <= number < count]] = False

    def complain(wrong: Mask, name: str, why: str) -> Iterator[str]:
        column = columns[name]
        return _first(wrong & told, lambda n: f"column {name} is {column[n]}, but {why.format(_protocol(columns, n))}")

    six = (flags & IPV6) != 0
    yield from complain(flags > IPV6 | DONT_FRAGMENT, "flags", "bits above 1 mean nothing")
    yield from complain(six & ((flags & DONT_FRAGMENT) != 0), "flags", "IPv6 has no don't-fragment bit")
    for name in ("src", "dst"):
        known = f"only {v6_addresses} IPv6 addresses have handles; ask Addresses.handle for it"
        yield from complain(six & (columns[name] >= v6_addresses), name, known)
    yield from _protocols(columns, complain, six)


_LONG = 2048  # packets from which the kernel is worth its call


@cache
def _protocol_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """``kinds``, ``headers`` and ``asked`` of ``screen_kernel.flawed``."""
    from netsim.compiled import screen_kernel as screen

    kinds, headers, asked = np.zeros(512, np.uint8), np.zeros(512, np.int64), np.zeros(512, np.bool_)
    for base, family, least, types in ((0, 4, 20, ICMP_TRACKED), (256, 6, 40, ICMPV6_TRACKED)):
        headers[base : base + 256] = least
        for number, size in HEADERS.items():
            headers[base + number] += size
        kinds[base + Proto.TCP], kinds[base + Proto.UDP] = screen.TCP, screen.UDP
        kinds[base + (Proto.ICMP if family == 4 else Proto.ICMPV6)] = screen.ICMP
        kinds[[base + number for number in INTERPRETED[family]]] = screen.INTERPRETED
        asked[[base + kind for kind in types]] = True
    return kinds, headers, asked


def flawless(
    columns: Mapping[str, Column], extra: Collection[int], v6_addresses: int, origins: int | None, least: int = _LONG
) -> bool:
    """True: ``nonsense`` has nothing to say (False: it may have, or there are fewer than ``least`` packets). The columns
    are not misshapen."""
    count = len(columns["time"])
    if count < least or extra:
        return False
    from netsim.compiled.screen_kernel import flawed  # numba: whoever has few packets does without

    given = [plain(column) for name, column in columns.items() if name not in ("ttl", "tos")]
    limits = LATEST, 1 << 32 if origins is None else origins, v6_addresses, MOST_SCALE, MOST_OPTIONS
    arguments: Any = *given, *limits, *_protocol_tables()
    return not flawed(*arguments)


def plain(column: Column) -> Column:
    """The column as kernels are compiled for it: a slice by steps or a read-only one (of a mapped file) is copied."""
    return column if column.flags.carray else column.copy()


def _protocols(columns: Mapping[str, Column], complain: Any, six: Mask) -> Iterator[str]:
    proto, length, options = columns["proto"], columns["length"], columns["tcp_options"]
    for family, mask in ((4, ~six), (6, six)):
        alone = np.isin(proto, np.array(sorted(INTERPRETED[family]), np.uint8))
        why = f"columns cannot hold {{}} over IPv{family}; give such packets in extra (Batch.of_packets does)"
        yield from complain(mask & alone, "proto", why)
    needed = np.where(six, 40, 20)
    for number, header in HEADERS.items():
        needed = needed + np.where(proto == number, header, 0)
    is_tcp = proto == Proto.TCP
    needed = needed + np.where(is_tcp, options, 0)
    yield from complain(length < needed, "length", "the headers of {} are longer")
    icmp = (proto == Proto.ICMP) | (proto == Proto.ICMPV6)
    for number, known in ((Proto.ICMP, ICMP_TRACKED), (Proto.ICMPV6, ICMPV6_TRACKED)):
        asked = np.isin(columns["dport"] >> 8, np.array(known, np.uint16))
        why = "of {} it is type<<8 | code, and columns hold requests and replies alone; give others in extra"
        yield from complain((proto == number) & ~asked, "dport", why)
    portless = ~(is_tcp | (proto == Proto.UDP) | icmp)
    for name in ("sport", "dport"):
        yield from complain(portless & (columns[name] != 0), name, "{} has no ports: it must be 0")
    for name in ("tcp_flags", "seq", "ack", "window", "tcp_options"):
        yield from complain(~is_tcp & (columns[name] != 0), name, "the packet is {}: it must be 0")
    wscale = columns["wscale"]
    yield from complain(~is_tcp & (wscale != -1), "wscale", "the packet is {}: it must be -1")
    wrong = ((wscale < -1) | (wscale > MOST_SCALE)) & is_tcp
    yield from complain(wrong, "wscale", f"a window scale is at most {MOST_SCALE}, and -1 for none")
    wrong = ((options % 4 != 0) | (options > MOST_OPTIONS)) & is_tcp
    yield from complain(wrong, "tcp_options", f"it is a multiple of 4 bytes and at most {MOST_OPTIONS}")
    yield from complain(is_tcp & (wscale >= 0) & (options < 4), "tcp_options", "the window scale needs 4 bytes of them")


def _first(wrong: Mask, tell: Any) -> Iterator[str]:
    """``packet N: …`` of the first that is wrong, and how many more are."""
    count = int(np.count_nonzero(wrong))
    if count:
        number = int(np.argmax(wrong))
        more = f" (and {count - 1} more)" if count > 1 else ""
        yield f"packet {number}: {tell(number)}{more}"


def _protocol(columns: Mapping[str, Column], number: int) -> str:
    name = proto_text(int(columns["proto"][number]))
    return f"{name} over IPv6" if columns["flags"][number] & IPV6 else name
