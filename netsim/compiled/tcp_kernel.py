"""The TCP tracker as kernels over one record a connection: ``netsim.linux.conntrack_tcp.TcpTrack``, number for number.

The record is 48 bytes, the first of a line of the cache (``flow_records.COLD``). ``original`` and ``reply`` are what each
sender has sent and may send; then comes what the last packet was; whatever is not 32 bits wide is packed behind:

    0       4        8        12       16              32         36         40     41     42      43     44
    ├ end ──┼ maxend ┼ maxwin ┼ maxack ┼─ reply, same ─┼ last_ack ┼ last_end ┼ state┼ flags┼ scales┼ last ┼ last_window, …
                                                                               index  below  4 bits a side  row and bits

A kernel takes a record of an array of ``TCP_TRACK`` (``tracks[i]``, or the field of a larger record) and writes into it.
Fields are read as ``record["end"]``: that is the one spelling which numba's records and numpy's have in common. All
arithmetic is in 64-bit integers and masked, since sequence numbers wrap.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from netsim.compiled.jit import inner, kernel
from netsim.linux.conntrack_tcp import MACHINE, STATES, Last, Side, TcpTrack, row_of, valid_flags
from netsim.packet.model import TcpFlag

Int = Any  # an integer of any width: kernels widen what they are given

_SIDE = np.dtype([("end", np.uint32), ("maxend", np.uint32), ("maxwin", np.uint32), ("maxack", np.uint32)])
TCP_TRACK = np.dtype(
    [
        ("original", _SIDE),
        ("reply", _SIDE),
        ("last_ack", np.uint32),
        ("last_end", np.uint32),
        ("state", np.uint8),  # index into STATES; also the class of the timeout, see TIMEOUTS
        ("flags", np.uint8),
        ("scales", np.uint8),
        ("last", np.uint8),
        ("last_window", np.uint16),
        ("last_scale", np.uint8),  # NO_SCALE without one
        ("spare", np.uint8),
    ],
    align=True,
)

# What ``tcp_advance`` answers. AGAIN: the connection is over and this SYN begins another. LATE: let through, and nothing
# changes but what is noted of it.
OK, INVALID, AGAIN, LATE = 0, 1, 2, 3

# What ``tcp_advance`` is told of the entry before the packet.
ANSWERED, ASSURED = 1, 2

# Bits of ``flags``, those of the original sender; shifted by one they are the other's.
SCALES = 1  # it has sent a window scale
ACKED = 4  # ``maxack`` holds a number
CLOSES = 16  # it sent the first FIN
FREE = 64  # its windows are not enforced: the beginning was not seen

# Bits of ``last``: the row, and of it
ROW = 7
REPLY = 8  # it was a reply
CHALLENGED = 16  # a SYN in LAST_ACK: the answer may be a challenge
BOTH_OPEN = 32  # SYNs have crossed (of the connection, for want of room elsewhere)
NO_SCALE = 255

NO_OPTIONS = -2  # in place of the window scale of a segment without any option; -1: there are some, and no scale

TIMEOUTS: Final = tuple(f"tcp_timeout_{TcpTrack(code).timeout}" for code in STATES)
"""By ``state``: the name in ``netsim.linux.conntrack.TIMEOUTS`` that counts. No packet leaves a track in the first one."""

_NO, _SS, _SR, _ES, _FW, _CW, _LA, _TW, _CL, _S2 = (
    STATES.index(code) for code in ("NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2")
)
_IGNORED, _REFUSED = 254, 255
_SPECIAL = {"IG": _IGNORED, "IV": _REFUSED}
_ROW_NAMES = tuple(MACHINE[False])
_SYN_ROW, _SYNACK_ROW, _FIN_ROW, _ACK_ROW, _RST_ROW, _NONE_ROW = (
    _ROW_NAMES.index(name) for name in ("syn", "synack", "fin", "ack", "rst", "none")
)
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
_MAX_ACK_WINDOW = 66000
_MAX_SCALE = 14


@kernel
def _after(a: Int, b: Int) -> bool:
    """Sequence number ``a`` lies after ``b``, modulo 2**32."""
    return bool(np.int64(a - b) << 32 > 0)


@kernel
def tcp_begin(record: Any, flags: Int, seq: Int, ack: Int, window: Int, wscale: Int, payload: Int, loose: bool) -> bool:
    """Make ``record`` the track of a first packet, still before it; False if it cannot start a connection (``tcp_new``).

    ``payload`` is the segment's data in bytes, ``wscale`` its window scale option, -1 or NO_OPTIONS. Follow up
    with ``tcp_advance``."""
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
    record["last"] = _NONE_ROW
    record["last_ack"] = record["last_end"] = 0
    record["last_window"] = 0
    record["last_scale"] = NO_SCALE
    record["spare"] = 0
    receiver["end"] = receiver["maxend"] = 0
    if after == _SS:
        sender["maxwin"] = wide
        sender["maxend"] = end
        record["scales"] = min(max(np.int64(wscale), 0), _MAX_SCALE)
        record["flags"] = SCALES if wscale >= 0 else 0
    else:  # picked up in mid-stream
        sender["maxwin"] = wide
        sender["maxend"] = (end + wide) & _MASK
        record["scales"] = 0
        record["flags"] = FREE | FREE << 1
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
    known: Int,
) -> int:
    """One packet of the connection: OK, LATE, INVALID or AGAIN (``TcpTrack.advance``, which says why). ``known`` holds
    ANSWERED and ASSURED."""
    row = np.int64(_ROWS[flags])
    if row == _REFUSED:
        return INVALID
    side = 1 if reply else 0
    state = np.int64(record["state"])
    after = np.int64(_NEXT[side, row, state])
    if after == _REFUSED:
        return INVALID
    last = np.int64(record["last"])
    same_side = (last & REPLY != 0) == (side == 1)
    if after == _SS and (state == _TW or state == _CL):
        if (last & ROW == _RST_ROW and same_side) or record["flags"] & (CLOSES | CLOSES << 1):
            return AGAIN
        after = np.int64(_IGNORED)
    wide_ack, end = np.int64(ack), _end(flags, np.int64(seq), np.int64(payload))
    if after == _IGNORED:
        in_sync = row == _SYNACK_ROW and last & ROW == _SYN_ROW and not same_side and wide_ack == record["last_end"]
        if not in_sync:
            _note_unseen(record, row, side, wide_ack, end, np.int64(window), np.int64(wscale))
            return LATE
        _in_sync_again(record, side)
        state, after = np.int64(_SS), np.int64(_SR)
    elif (
        after == _TW
        and state == _LA
        and row == _ACK_ROW
        and not same_side
        and last & ROW == _SYN_ROW
        and last & CHALLENGED
    ):
        record["last"] = last & ~CHALLENGED
        return LATE
    elif after == _S2:
        record["last"] = last | BOTH_OPEN
    elif after == _SR and reply and row == _ACK_ROW and last & BOTH_OPEN:
        after = np.int64(_ES)
    checked = True
    if after == _CL and row == _RST_ROW:
        fate = _reset(record, side, np.int64(seq), wide_ack, known)
        if fate == _FALSE_RESET:
            return INVALID
        if fate == _KEPT:
            after = state
        checked = fate != _UNCHECKED
    if checked:
        lax = liberal or (record["flags"] & FREE << side) != 0
        verdict = _in_window(
            record, side, row, flags, np.int64(seq), wide_ack, np.int64(window), np.int64(wscale), end, lax
        )
        if verdict == INVALID:
            last = np.int64(record["last"])
            ended = last & ROW == _RST_ROW or last & ROW == _FIN_ROW
            if known & ASSURED and (row == _RST_ROW or row == _FIN_ROW) and not (not same_side and ended):
                record["last"] = (last & ~(ROW | REPLY)) | row | (REPLY if side else 0)
        if verdict != OK:
            return verdict
    record["last"] = (np.int64(record["last"]) & ~(ROW | REPLY)) | row | (REPLY if side else 0)
    if after == _FW and state != _FW:
        record["flags"] = np.int64(record["flags"]) | CLOSES << side
    record["state"] = after
    return OK


@inner
def tcp_established(record: Any, reply: bool, seq: Int, ack: Int, window: Int, payload: Int) -> bool:
    """``tcp_advance`` for what nearly every segment is: only ACK (and perhaps PSH) is set, the connection is established,
    and everything lies inside the windows. True: the record has moved on. False: it is something else, nothing has changed.

    ``seq``, ``ack``, ``window`` and ``payload`` are 64 bits wide."""
    side = 1 if reply else 0
    sender = record["reply"] if side else record["original"]
    receiver = record["original"] if side else record["reply"]
    sender_end, sender_most = np.int64(sender["end"]), np.int64(sender["maxend"])
    sender_window, receiver_window = np.int64(sender["maxwin"]), np.int64(receiver["maxwin"])
    receiver_end, receiver_most = np.int64(receiver["end"]), np.int64(receiver["maxend"])
    acked, flags = np.int64(sender["maxack"]), np.int64(record["flags"])
    end = (seq + payload) & _MASK
    ack_window: Int = max(sender_window, _MAX_ACK_WINDOW)
    late_ack = (receiver_end - ack_window - 1) & _MASK
    late_end = (sender_end - receiver_window - 1) & _MASK
    if (
        record["state"] != _ES
        or (sender_window == 0) | (receiver_window == 0)
        or _after(seq, sender_most)
        or _after(ack, receiver_end)
        or not _after(end, late_end)
        or not _after(ack, late_ack)
    ):
        return False
    scaled = window << (np.int64(record["scales"]) >> 4 * side & 15)
    sender["maxwin"] = max(sender_window, scaled)
    sender["end"] = end if _after(end, sender_end) else sender_end
    newer = (flags & ACKED << side) == 0 or _after(ack, acked)
    sender["maxack"] = ack if newer else acked
    if _after(end, sender_most):
        receiver["maxwin"] = (receiver_window + ((end - sender_most) & _MASK)) & _MASK
    limit = (ack + scaled) & _MASK
    further = _after(limit, (receiver_most - 1) & _MASK)
    receiver["maxend"] = (limit + (scaled == 0)) & _MASK if further else receiver_most
    record["flags"] = flags | ACKED << side
    record["last"] = (np.int64(record["last"]) & ~(ROW | REPLY)) | _ACK_ROW | (REPLY if side else 0)
    record["last_ack"], record["last_end"], record["last_window"] = ack, end, window
    return True


_CLOSES, _UNCHECKED, _KEPT, _FALSE_RESET = 0, 1, 2, 3  # what a reset does


@kernel
def _end(flags: Int, seq: Int, payload: Int) -> Int:
    return (seq + payload + ((flags & _SYN) != 0) + ((flags & _FIN) != 0)) & _MASK


@kernel
def _note_unseen(record: Any, row: Int, side: Int, ack: Int, end: Int, window: Int, wscale: Int) -> None:
    last = (np.int64(record["last"]) & ~(ROW | REPLY)) | row | (REPLY if side else 0)
    record["last_end"], record["last_window"] = end, window
    state = record["state"]
    if row == _SYN_ROW and not side:
        last = (last & ~CHALLENGED) | (CHALLENGED if state == _LA else 0)
        record["last_scale"] = min(wscale, _MAX_SCALE) if wscale >= 0 else NO_SCALE
    if state == _SS and row == _ACK_ROW and side:
        record["last_ack"] = ack
    record["last"] = last


@kernel
def _in_sync_again(record: Any, side: Int) -> None:
    """The answer to a SYN that was let through unseen: what was noted of that counts now."""
    mine = record["reply"] if side else record["original"]
    other = record["original"] if side else record["reply"]
    far = 1 - side
    other["end"] = other["maxend"] = record["last_end"]
    other["maxwin"] = max(np.int64(record["last_window"]), 1)
    mine["end"] = mine["maxend"] = mine["maxwin"] = mine["maxack"] = 0
    scale = np.int64(record["last_scale"])
    record["scales"] = (0 if scale == NO_SCALE else scale) << 4 * far
    kept = np.int64(record["flags"]) & (FREE << side)
    record["flags"] = kept | (0 if scale == NO_SCALE else SCALES << far)
    record["last"] = np.int64(record["last"]) & ~CHALLENGED
    record["state"] = _SS


@kernel
def _reset(record: Any, side: Int, seq: Int, ack: Int, known: Int) -> int:
    """``TcpTrack._reset``."""
    state = record["state"]
    if state == _FW or state == _LA or state == _TW or state == _CL or state == _CW:
        return _UNCHECKED
    last = np.int64(record["last"])
    row, same_side = last & ROW, (last & REPLY != 0) == (side == 1)
    receiver = record["original"] if side else record["reply"]
    established = state == _ES and known & ASSURED != 0
    fate = _CLOSES
    if record["flags"] & (ACKED << (1 - side)) and row != _SYN_ROW:
        if seq == 0 and not established:
            return _CLOSES
        acknowledged = np.int64(receiver["maxack"])
        if _after(acknowledged, seq):
            return _FALSE_RESET
        part_of_train = row == _ACK_ROW and same_side and seq == record["last_end"]
        if not established or seq == acknowledged or part_of_train:
            return _CLOSES
        fate = _KEPT
    of_syn = known & ANSWERED != 0 and row == _SYN_ROW and not same_side
    of_ack = known & ASSURED == 0 and row == _ACK_ROW
    if (of_syn or of_ack) and ack == record["last_end"]:
        return _UNCHECKED if fate == _CLOSES else _KEPT
    if state == _SS and row == _ACK_ROW and last & REPLY and seq == record["last_ack"]:
        return _UNCHECKED
    return fate


@kernel
def _sender_begins(record: Any, side: Int, window: Int, wscale: Int, end: Int) -> None:
    """``Side.begin``."""
    sender = record["reply"] if side else record["original"]
    sender["end"] = sender["maxend"] = end
    sender["maxwin"] = max(window, 1)
    flags, scales = np.int64(record["flags"]), np.int64(record["scales"])
    if wscale != NO_OPTIONS:
        flags &= ~((SCALES | ACKED | CLOSES) << side)
        scales &= 15 << 4 - 4 * side
        sender["maxack"] = 0
    if wscale >= 0:
        flags |= SCALES << side
        scales |= min(wscale, _MAX_SCALE) << 4 * side
    record["flags"] = flags
    if side and not (flags & SCALES and flags & SCALES << 1):
        scales = np.int64(0)
    record["scales"] = scales


@kernel
def _in_window(
    record: Any, side: Int, row: Int, flags: Int, seq: Int, ack: Int, window: Int, wscale: Int, end: Int, liberal: bool
) -> int:
    """``tcp_in_window``. OK: inside; INVALID: too far ahead; LATE. As ``TcpTrack._in_window``, which says why."""
    sender = record["reply"] if side else record["original"]
    receiver = record["original"] if side else record["reply"]
    state = np.int64(record["state"])
    is_syn, is_rst, has_ack = (flags & _SYN) != 0, (flags & _RST) != 0, (flags & _ACK) != 0
    if sender["maxwin"] == 0:
        if is_syn:
            _sender_begins(record, side, window, wscale, end)
            if not has_ack:
                return OK
        else:  # the middle of a connection whose beginning was not seen
            wide: Int = max(window << (np.int64(record["scales"]) >> 4 * side & 15), 1)
            sender["end"] = end
            sender["maxwin"] = wide
            sender["maxend"] = (end + wide) & _MASK
            if receiver["maxwin"] == 0:
                receiver["end"] = receiver["maxend"] = ack
            elif ack == (np.int64(receiver["end"]) + 1) & _MASK:
                receiver["end"] = ack
    elif is_syn and _after(end, np.int64(sender["end"])) and (state == _SS or state == _SR):
        _sender_begins(record, side, window, wscale, end)
        if side and not has_ack:
            return OK
    sender_end, sender_window = np.int64(sender["end"]), np.int64(sender["maxwin"])
    receiver_end, receiver_window = np.int64(receiver["end"]), np.int64(receiver["maxwin"])
    sender_most = np.int64(sender["maxend"])
    if not has_ack or (ack == 0 and is_rst):
        ack = receiver_end
    if is_rst and seq == 0 and state == _SS:
        seq = end = sender_end
    ack_window: Int = max(sender_window, _MAX_ACK_WINDOW)
    late_ack = (receiver_end - ack_window - 1) & _MASK
    late_end = (sender_end - receiver_window - 1) & _MASK
    fate = OK
    if _after(seq, sender_most) or seq == (sender_most + 1) & _MASK:
        overshot = (end - sender_most + 1) & _MASK
        fits = receiver_window != 0 and _after(end, late_end) and _after(ack, late_ack)
        if fits and overshot <= receiver_window and not _after(ack, receiver_end):
            sender["end"] = end
            fate = LATE
        else:
            fate = INVALID
    elif _after(ack, receiver_end):
        fate = INVALID
    elif (receiver_window != 0 and not _after(end, late_end)) or not _after(ack, late_ack):
        fate = LATE
    if fate != OK:
        return OK if liberal else fate
    scaled = window if is_syn else window << (np.int64(record["scales"]) >> 4 * side & 15)
    sender["maxwin"] = max(sender_window, scaled)
    if _after(end, sender_end):
        sender["end"] = end
    if has_ack:
        held = np.int64(record["flags"])
        if not held & ACKED << side or _after(ack, np.int64(sender["maxack"])):
            sender["maxack"] = ack
            record["flags"] = held | ACKED << side
    if receiver_window != 0 and _after(end, sender_most):
        receiver["maxwin"] = (receiver_window + ((end - sender_most) & _MASK)) & _MASK
    limit = (ack + scaled) & _MASK
    if _after(limit, (np.int64(receiver["maxend"]) - 1) & _MASK):
        receiver["maxend"] = (limit + (scaled == 0)) & _MASK
    if row == _ACK_ROW:
        record["last"] = (np.int64(record["last"]) & ~REPLY) | (REPLY if side else 0)
        record["last_ack"], record["last_end"], record["last_window"] = ack, end, window
    return OK


# -- records and tracks ------------------------------------------------------------------------------------------------
def store(track: TcpTrack, record: Any) -> None:
    """Write ``track`` into a record of ``TCP_TRACK``."""
    flags = scales = 0
    for side, held in enumerate(track.sides):
        place = record["reply" if side else "original"]
        place["end"], place["maxend"], place["maxwin"], place["maxack"] = (
            held.end, held.maxend, held.maxwin, held.maxack or 0
        )  # fmt: skip
        own = SCALES * held.scales | ACKED * (held.maxack is not None) | CLOSES * held.closes | FREE * held.liberal
        flags |= own << side
        scales |= held.scale << 4 * side
    last = track.last
    record["state"], record["flags"], record["scales"], record["spare"] = STATES.index(track.code), flags, scales, 0
    bits = REPLY * last.reply | CHALLENGED * last.challenged | BOTH_OPEN * track.both_open
    record["last"] = _ROW_NAMES.index(last.row) | bits
    record["last_ack"], record["last_end"], record["last_window"] = last.ack, last.end, last.window
    record["last_scale"] = NO_SCALE if last.scale is None else last.scale


def load(record: Any) -> TcpTrack:
    """The track that a record of ``TCP_TRACK`` holds."""
    flags, scales, bits = int(record["flags"]), int(record["scales"]), int(record["last"])
    sides = []
    for side, name in enumerate(("original", "reply")):
        end, maxend, maxwin, maxack = (int(record[name][field]) for field in _SIDE.names or ())
        acked = maxack if flags & ACKED << side else None
        scaling, closes, free = (bool(flags & bit << side) for bit in (SCALES, CLOSES, FREE))
        sides.append(Side(end, maxend, maxwin, scales >> 4 * side & 15, scaling, acked, closes, free))
    last = Last(
        _ROW_NAMES[bits & ROW], bool(bits & REPLY), int(record["last_ack"]), int(record["last_end"]),
        int(record["last_window"]), None if record["last_scale"] == NO_SCALE else int(record["last_scale"]),
        bool(bits & CHALLENGED),
    )  # fmt: skip
    code = STATES[record["state"]]
    return TcpTrack(code, (sides[0], sides[1]), last, bool(bits & BOTH_OPEN))


def tracks(count: int) -> npt.NDArray[Any]:
    """``count`` records of zeros: ``(count,)`` of ``TCP_TRACK``, state NONE."""
    return np.zeros(count, TCP_TRACK)
