"""The TCP tracker as kernels over one record a connection: ``netsim.linux.conntrack_tcp.TcpTrack``, number for number.

The record is 36 bytes, so that it shares a cache line with a connection's tuple, timer and counters. ``original`` and
``reply`` are what each sender has sent and may send; whatever is not 32 bits wide is packed behind them:

    0       4        8        12       16                32     33     34      35
    ├ end ──┼ maxend ┼ maxwin ┼ maxack ┼── reply, same ──┼ state┼ flags┼ scales┼ spare ┤
                                                           index  below  4 bits a side, the original's the lower

A kernel takes a record of an array of ``TCP_TRACK`` (``tracks[i]``, or the field of a larger record) and writes into it.
Fields are read as ``record["end"]``: that is the one spelling which numba's records and numpy's have in common. All
arithmetic is in 64-bit integers and masked, since sequence numbers wrap.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import kernel
from netsim.linux.conntrack_tcp import MACHINE, STATES, Side, TcpTrack, row_of, valid_flags
from netsim.packet.model import TcpFlag

Int = Any  # an integer of any width: kernels widen what they are given

_SIDE = np.dtype([("end", np.uint32), ("maxend", np.uint32), ("maxwin", np.uint32), ("maxack", np.uint32)])
TCP_TRACK = np.dtype(
    [
        ("original", _SIDE),
        ("reply", _SIDE),
        ("state", np.uint8),  # index into STATES; also the class of the timeout, see TIMEOUTS
        ("flags", np.uint8),
        ("scales", np.uint8),
        ("spare", np.uint8),
    ],
    align=True,
)

# What ``tcp_advance`` answers. AGAIN: the connection is over and this SYN begins another.
OK, INVALID, AGAIN = 0, 1, 2

# Bits of ``flags``. SCALES and ACKED are the original sender's; shifted by one they are the other's.
PICKED_UP = 1  # the beginning was not seen
SCALES = 2  # it has sent a window scale
ACKED = 8  # ``maxack`` holds a number

TIMEOUTS: Final = tuple(f"tcp_timeout_{TcpTrack(code).timeout}" for code in STATES)
"""By ``state``: the name in ``netsim.linux.conntrack.TIMEOUTS`` that counts. No packet leaves a track in the first one."""

_NO, _SS, _SR, _ES, _TW, _CL = (STATES.index(code) for code in ("NO", "SS", "SR", "ES", "TW", "CL"))
_IGNORED, _REFUSED = 254, 255
_SPECIAL = {"IG": _IGNORED, "IV": _REFUSED}
_ROW_NAMES = tuple(MACHINE[False])
_SYN_ROW = _ROW_NAMES.index("syn")
# The row of every combination of the eight flags; _REFUSED where the combination makes no sense.
_ROWS = np.array(
    [_ROW_NAMES.index(row_of(TcpFlag(flags))) if valid_flags(TcpFlag(flags)) else _REFUSED for flags in range(256)],
    np.uint8,
)
# [reply, row, state before] → state after, _IGNORED or _REFUSED.
_NEXT = np.array(
    [
        [
            [_SPECIAL.get(after, STATES.index(after) if after in STATES else 0) for after in row.values()]
            for row in MACHINE[reply].values()
        ]
        for reply in (False, True)
    ],
    np.uint8,
)
_FIN, _SYN, _RST, _ACK = (int(flag) for flag in (TcpFlag.FIN, TcpFlag.SYN, TcpFlag.RST, TcpFlag.ACK))
_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_MAX_ACK_WINDOW = 66000
_MAX_SCALE = 14


@kernel
def _after(a: Int, b: Int) -> bool:
    """Sequence number ``a`` lies after ``b``, modulo 2**32."""
    distance = (a - b) & _MASK
    return bool(distance != 0 and distance < _HALF)


@kernel
def tcp_begin(record: Any, flags: Int, seq: Int, ack: Int, window: Int, wscale: Int, payload: Int, loose: bool) -> bool:
    """Make ``record`` the track of a first packet, still before it; False if it cannot start a connection (``tcp_new``).

    ``payload`` is the segment's data in bytes, ``wscale`` its window scale option or -1. Follow up with ``tcp_advance``."""
    row = _ROWS[flags]
    if row == _REFUSED:
        return False
    after = _NEXT[0, row, _NO]
    if after >= _IGNORED or (after != _SS and not loose):
        return False
    sender, receiver = record["original"], record["reply"]
    end = (np.int64(seq) + payload + ((flags & _SYN) != 0) + ((flags & _FIN) != 0)) & _MASK
    wide: Int = max(np.int64(window), 1)
    receiver["maxwin"] = 0
    sender["maxack"] = receiver["maxack"] = 0
    sender["end"] = end
    record["state"] = _NO
    record["spare"] = 0
    if after == _SS:
        sender["maxwin"] = wide
        sender["maxend"] = end
        receiver["end"] = receiver["maxend"] = 0
        record["scales"] = min(max(np.int64(wscale), 0), _MAX_SCALE)
        record["flags"] = SCALES if wscale >= 0 else 0
    else:  # picked up in mid-stream: assume the largest window scale on both sides
        sender["maxwin"] = wide << _MAX_SCALE
        sender["maxend"] = (end + (wide << _MAX_SCALE)) & _MASK
        receiver["end"] = receiver["maxend"] = ack
        record["scales"] = _MAX_SCALE | _MAX_SCALE << 4
        record["flags"] = PICKED_UP | SCALES | SCALES << 1
    return True


@kernel
def tcp_advance(
    record: Any,
    reply: bool,
    flags: Int,
    seq: Int,
    ack: Int,
    window: Int,
    wscale: Int,
    payload: Int,
    liberal: bool,
) -> int:
    """One packet of the connection: OK, INVALID or AGAIN (``tcp_packet``). The
    state changes only when it is OK; the windows of a sender that began anew have changed even if it is INVALID."""
    row = _ROWS[flags]
    if row == _REFUSED:
        return INVALID
    state = np.int64(record["state"])
    if row == _SYN_ROW and state in (_TW, _CL):
        return AGAIN
    after = np.int64(_NEXT[1 if reply else 0, row, state])
    if after == _REFUSED:
        return INVALID
    if after == _IGNORED:
        return OK
    if after == _CL and _stale_reset(record, reply, flags, np.int64(seq)):
        return INVALID
    if state != _NO:
        lax = liberal or (record["flags"] & PICKED_UP) != 0
        verdict = _in_window(
            record,
            reply,
            flags,
            np.int64(seq),
            np.int64(ack),
            np.int64(window),
            np.int64(wscale),
            np.int64(payload),
            lax,
        )
        if verdict == _STOP:
            return OK
        if verdict == INVALID:
            return INVALID
    record["state"] = after
    return OK


_STOP = 3  # _in_window: a late segment, let through without a change of state


@kernel
def _stale_reset(record: Any, reply: bool, flags: Int, seq: Int) -> bool:
    """A reset of what the other side has acknowledged already, however liberal."""
    known = ACKED if reply else ACKED << 1
    if not record["flags"] & known or not flags & _RST or (seq == 0 and record["state"] != _ES):
        return False
    receiver = record["original"] if reply else record["reply"]
    return _after(np.int64(receiver["maxack"]), seq)


@kernel
def _in_window(
    record: Any, reply: bool, flags: Int, seq: Int, ack: Int, window: Int, wscale: Int, payload: Int, liberal: bool
) -> int:
    """``tcp_in_window``. OK: inside; INVALID: too far ahead; _STOP: late. As ``TcpTrack._in_window``, which says why."""
    sender = record["reply"] if reply else record["original"]
    receiver = record["original"] if reply else record["reply"]
    side = 1 if reply else 0
    shift, other = 4 * side, 4 - 4 * side
    state, scales = np.int64(record["state"]), np.int64(record["scales"])
    is_syn, is_rst, has_ack = (flags & _SYN) != 0, (flags & _RST) != 0, (flags & _ACK) != 0
    end = (seq + payload + is_syn + ((flags & _FIN) != 0)) & _MASK
    anew = is_syn and state == (_SR if reply else _SS) and _after(end, np.int64(sender["end"]))
    if sender["maxwin"] == 0 or anew:
        if is_syn:
            known: Int = np.int64(record["flags"]) & ~(SCALES << side)
            if wscale >= 0:
                known |= SCALES << side
            record["flags"] = known
            sender["end"] = sender["maxend"] = end
            sender["maxwin"] = max(window, 1)
            if known & SCALES and known & SCALES << 1:
                scales = (scales & (15 << other)) | min(wscale, _MAX_SCALE) << shift
            else:
                scales = np.int64(0)
            record["scales"] = scales
            if reply and not has_ack:
                return OK
        else:  # the middle of a connection whose beginning was not seen
            wide: Int = max(window << (scales >> shift & 15), 1)
            sender["end"] = end
            sender["maxwin"] = wide
            sender["maxend"] = (end + wide) & _MASK
            if receiver["maxwin"] == 0:
                receiver["end"] = receiver["maxend"] = ack
    sender_end, sender_window = np.int64(sender["end"]), np.int64(sender["maxwin"])
    receiver_end, receiver_window = np.int64(receiver["end"]), np.int64(receiver["maxwin"])
    if not has_ack or (ack == 0 and is_rst):
        ack = receiver_end
    if is_rst and seq == 0 and state == _SS:
        seq = end = sender_end
    ack_window: Int = max(sender_window, _MAX_ACK_WINDOW)
    ahead = _after(seq, np.int64(sender["maxend"]) + 1) or _after(ack, receiver_end)
    late = (receiver_window != 0 and not _after(end, sender_end - receiver_window - 1)) or not _after(
        ack, receiver_end - ack_window - 1
    )
    if ahead or late:
        return OK if liberal else INVALID if ahead else _STOP
    scaled = window if is_syn else window << (scales >> shift & 15)
    sender["maxwin"] = max(sender_window, scaled)
    if _after(end, sender_end):
        sender["end"] = end
    if has_ack:
        known = np.int64(record["flags"])
        if not known & ACKED << side or _after(ack, np.int64(sender["maxack"])):
            sender["maxack"] = ack
            record["flags"] = known | ACKED << side
        limit = (ack + max(scaled, 1)) & _MASK
        if _after(limit, np.int64(receiver["maxend"])) or receiver_window == 0:
            receiver["maxend"] = limit
    return OK


# -- records and tracks ------------------------------------------------------------------------------------------------
def store(track: TcpTrack, record: Any) -> None:
    """Write ``track`` into a record of ``TCP_TRACK``."""
    flags = PICKED_UP * track.picked_up
    scales = 0
    for side, held in enumerate(track.sides):
        place = record["reply" if side else "original"]
        place["end"], place["maxend"], place["maxwin"], place["maxack"] = (
            held.end, held.maxend, held.maxwin, held.maxack or 0
        )  # fmt: skip
        flags |= (SCALES * held.scales | ACKED * (held.maxack is not None)) << side
        scales |= held.scale << 4 * side
    record["state"], record["flags"], record["scales"], record["spare"] = STATES.index(track.code), flags, scales, 0


def load(record: Any) -> TcpTrack:
    """The track that a record of ``TCP_TRACK`` holds."""
    flags, scales = int(record["flags"]), int(record["scales"])
    sides = []
    for side, name in enumerate(("original", "reply")):
        end, maxend, maxwin, maxack = (int(record[name][field]) for field in _SIDE.names or ())
        acked = maxack if flags & ACKED << side else None
        sides.append(Side(end, maxend, maxwin, scales >> 4 * side & 15, bool(flags & SCALES << side), acked))
    return TcpTrack(STATES[record["state"]], bool(flags & PICKED_UP), (sides[0], sides[1]))


def tracks(count: int) -> npt.NDArray[Any]:
    """``count`` records of zeros: ``(count,)`` of ``TCP_TRACK``, state NONE."""
    return np.zeros(count, TCP_TRACK)
