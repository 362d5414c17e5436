"""One pass over the columns of a batch: is there anything to complain of?

``netsim.datapath.check`` says what, packet by packet, with a numpy expression for each rule; they take some thirty
nanoseconds a packet, as much as processing does. Nearly every batch is flawless, and this says so in one or two: TCP and UDP
by arithmetic, which the compiler does for several packets at once, and only a block that holds something else packet by
packet. It must find fault exactly where those rules do: a property test holds the two to each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import Int, inner, kernel

U = np.uint64

# What ``kinds`` says of a protocol. Of OTHER, only the length is of interest.
OTHER, TCP, UDP, ICMP, INTERPRETED = range(5)
_TCP, _UDP = 6, 17


_BLOCK = U(1024)


@kernel
def flawed(
    time: Any, origin: Any, src: Any, dst: Any, sport: Any, dport: Any, proto: Any, flags: Any, tcp_flags: Any,
    length: Any, seq: Any, ack: Any, window: Any, wscale: Any, tcp_options: Any,
    latest: Int, origins: Int, v6_addresses: Int, most_scale: Int, most_options: Int,
    kinds: npt.NDArray[np.uint8], headers: npt.NDArray[np.int64], asked: npt.NDArray[np.bool_],
) -> bool:  # fmt: skip
    """Columns as in ``netsim.datapath.columns``. By family (IPv6: 256 further on) and protocol: ``kinds``, and the bytes of
    its ``headers``; by family and type: whether columns may hold such ICMP (``asked``). There is at least one packet."""
    count = U(time.shape[0])
    if time[0] < 0 or time[count - U(1)] > latest:
        return True
    for begin in range(U(0), count, _BLOCK):
        end = min(count, begin + _BLOCK)
        back: Int = False
        for i in range(begin + U(begin == 0), end):
            back |= time[i] < time[i - U(1)]
        strange: Int = back
        for i in range(begin, end):
            strange |= np.int64(origin[i]) >= origins
        if strange:
            return True
        odd: Int = False
        for i in range(begin, end):
            bits, kind = np.int64(flags[i]), np.int64(proto[i])
            scale, options = np.int64(wscale[i]), np.int64(tcp_options[i])
            six, tcp = bits & 1, np.int64(kind == _TCP)
            unused = (
                np.int64(tcp_flags[i]) | np.int64(window[i]) | np.int64(seq[i]) | np.int64(ack[i]) | options | scale + 1
            )
            odd |= bits > 2
            odd |= (six != 0) & ((np.int64(src[i]) >= v6_addresses) | (np.int64(dst[i]) >= v6_addresses))
            odd |= (kind != _TCP) & (kind != _UDP)
            odd |= (tcp == 0) & (unused != 0)
            odd |= (scale < -1) | (scale > most_scale) | (options & 3 != 0) | (options > most_options)
            odd |= (scale >= 0) & (options < 4)
            odd |= np.int64(length[i]) < 28 + 20 * six + 12 * tcp + options
        if odd and _flawed(
            src, dst, sport, dport, proto, flags, tcp_flags, length, seq, ack, window, wscale, tcp_options,
            v6_addresses, most_scale, most_options, kinds, headers, asked, begin, end,
        ):  # fmt: skip
            return True
    return False


@inner
def _flawed(
    src: Any, dst: Any, sport: Any, dport: Any, proto: Any, flags: Any, tcp_flags: Any, length: Any, seq: Any, ack: Any,
    window: Any, wscale: Any, tcp_options: Any, v6_addresses: Int, most_scale: Int, most_options: Int,
    kinds: Any, headers: Any, asked: Any, begin: Any, end: Any,
) -> bool:  # fmt: skip
    """All protocols, without time and origin."""
    bad: Int = False
    for i in range(begin, end):  # unsigned: numba looks at the sign of each other index
        bits = np.int64(flags[i])
        six = bits & 1
        # Bits above don't-fragment; an IPv6 packet has none of them.
        bad |= bits > 2
        bad |= (six != 0) & ((np.int64(src[i]) >= v6_addresses) | (np.int64(dst[i]) >= v6_addresses))
        which = six << 8 | np.int64(proto[i])
        kind = kinds[which]
        needed = headers[which]
        options = np.int64(tcp_options[i])
        scale = np.int64(wscale[i])
        if kind == TCP:
            needed += options
            bad |= (
                (scale < -1)
                | (scale > most_scale)
                | (options & 3 != 0)
                | (options > most_options)
                | ((scale >= 0) & (options < 4))
            )
        else:
            bad |= (
                (tcp_flags[i] != 0) | (seq[i] != 0) | (ack[i] != 0) | (window[i] != 0) | (options != 0) | (scale != -1)
            )
            if kind == ICMP:
                bad |= not asked[six << 8 | np.int64(dport[i]) >> 8]
            elif kind != UDP:
                bad |= (kind == INTERPRETED) | (sport[i] != 0) | (dport[i] != 0)
        bad |= np.int64(length[i]) < needed
    return bool(bad)


@kernel
def first_stranger(origin: npt.NDArray[np.uint32], given: npt.NDArray[np.bool_], more: Int, most: Int) -> Int:
    """The first packet whose origin is neither one of ``given`` nor from ``more`` to ``most - 1``; their number if none.
    ``given`` is not empty."""
    count, known = U(origin.shape[0]), U(given.shape[0])
    for begin in range(U(0), count, _BLOCK):
        end = min(count, begin + _BLOCK)
        strange: Int = False
        for i in range(begin, end):
            handle = U(origin[i])
            strange |= (handle >= known) | (not given[min(handle, known - U(1))])
        if strange:
            for i in range(begin, end):
                handle = U(origin[i])
                if not (given[handle] if handle < known else U(more) <= handle < U(most)):
                    return np.int64(i)
    return np.int64(count)
