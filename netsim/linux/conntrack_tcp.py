"""The TCP tracker: connection states and window checks (``nf_conntrack_proto_tcp.c`` of Linux 6.x)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from netsim.packet.model import Tcp, TcpFlag

# ``MACHINE[reply][row][state before]`` is the state after. ``IG`` ignores the packet, ``IV`` makes it INVALID.
STATES = ("NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2")
_ORIGINAL = {
    "syn": "SS SS IG IG IG IG IG SS SS S2",
    "synack": "IV IV SR IV IV IV IV IV IV SR",
    "fin": "IV IV FW FW LA LA LA TW CL IV",
    "ack": "ES IV ES ES CW CW TW TW CL IV",
    "rst": "IV CL CL CL CL CL CL CL CL CL",
    "none": "IV IV IV IV IV IV IV IV IV IV",
}
_REPLY = {
    "syn": "IV S2 IV IV IV IV IV SS IV S2",
    "synack": "IV SR IG IG IG IG IG IG IG SR",
    "fin": "IV IV FW FW LA LA LA TW CL IV",
    "ack": "IV IG SR ES CW CW TW TW CL IG",
    "rst": "IV CL CL CL CL CL CL CL CL CL",
    "none": "IV IV IV IV IV IV IV IV IV IV",
}
MACHINE = {
    reply: {row: dict(zip(STATES, cells.split(), strict=True)) for row, cells in table.items()}
    for reply, table in ((False, _ORIGINAL), (True, _REPLY))
}
_NAMES = {
    "NO": "NONE",
    "SS": "SYN_SENT",
    "SR": "SYN_RECV",
    "ES": "ESTABLISHED",
    "FW": "FIN_WAIT",
    "CW": "CLOSE_WAIT",
    "LA": "LAST_ACK",
    "TW": "TIME_WAIT",
    "CL": "CLOSE",
    "S2": "SYN_SENT2",
}
# Flag combinations that make sense, without ECE, CWR and PSH (``tcp_valid_flags``).
_F = TcpFlag
_VALID = frozenset(
    {
        _F.SYN,
        _F.SYN | _F.URG,
        _F.SYN | _F.ACK,
        _F.RST,
        _F.RST | _F.ACK,
        _F.FIN | _F.ACK,
        _F.FIN | _F.ACK | _F.URG,
        _F.ACK,
        _F.ACK | _F.URG,
    }
)
_MAX_ACK_WINDOW = 66000


def valid_flags(flags: TcpFlag) -> bool:
    """False for combinations that only port scanners send; such packets are INVALID."""
    return flags & ~(_F.ECE | _F.CWR | _F.PSH) in _VALID


def row_of(flags: TcpFlag) -> str:
    """The row of ``MACHINE`` for a packet with these flags (``get_conntrack_index``)."""
    if flags & _F.RST:
        return "rst"
    if flags & _F.SYN:
        return "synack" if flags & _F.ACK else "syn"
    if flags & _F.FIN:
        return "fin"
    return "ack" if flags & _F.ACK else "none"


def window_scale(options: bytes) -> int | None:
    """The window scale among a segment's options, 14 at most; None without one or when the options are damaged."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return None
        if options[at] == 3 and length == 3:
            return min(options[at + 2], 14)
        at += length
    return None


def _after(a: int, b: int) -> bool:
    """Sequence number ``a`` lies after ``b``, modulo 2**32."""
    return 0 < (a - b) & 0xFFFFFFFF < 0x80000000


@dataclass(slots=True)
class Side:
    """What one sender has sent and may send (``struct ip_ct_tcp_state``)."""

    end: int = 0
    maxend: int = 0
    maxwin: int = 0
    scale: int = 0
    scales: bool = False
    maxack: int | None = None  # the highest number it has acknowledged


@dataclass(slots=True)
class TcpTrack:
    code: str = "NO"
    picked_up: bool = False  # its beginning was not seen: windows are unknown and not enforced
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))

    @property
    def state(self) -> str:
        return _NAMES[self.code]

    @property
    def timeout(self) -> str:
        """The part of nf_conntrack_tcp_timeout_NAME that counts in this state."""
        return "syn_sent" if self.code == "S2" else self.state.lower()

    @classmethod
    def in_state(cls, name: str) -> TcpTrack:
        """A track in the state that the kernel calls ``name``; its windows are unknown. KeyError if there is none."""
        return cls({name: code for code, name in _NAMES.items()}[name], picked_up=True)

    def copy(self) -> TcpTrack:
        return replace(self, sides=(replace(self.sides[0]), replace(self.sides[1])))

    @classmethod
    def begin(cls, body: Tcp, loose: bool) -> TcpTrack | None:
        """The track of a first packet, still before it; None if it cannot start a connection (``tcp_new``)."""
        if not valid_flags(body.flags):
            return None
        track = cls()
        next_code = MACHINE[False][row_of(body.flags)]["NO"]
        if next_code in ("IV", "IG"):
            return None
        sender, receiver = track.sides
        end = _end(body)
        if next_code == "SS":
            scale = window_scale(body.options)
            sender.end, sender.maxwin = end, max(body.window, 1)
            sender.maxend = end
            sender.scale, sender.scales = scale or 0, scale is not None
        elif not loose:
            return None
        else:  # picked up in mid-stream: assume the largest window scale on both sides
            sender.end, sender.maxwin = end, max(body.window, 1) << 14
            sender.maxend = (end + sender.maxwin) & 0xFFFFFFFF
            receiver.end = receiver.maxend = body.ack
            sender.scale = receiver.scale = 14
            sender.scales = receiver.scales = True
            track.picked_up = True
        return track

    def advance(self, body: Tcp, reply: bool, liberal: bool) -> str:
        """``ok``; ``invalid``; or ``again``: the connection is over and this SYN begins another (``tcp_packet``)."""
        if not valid_flags(body.flags):
            return "invalid"
        row = row_of(body.flags)
        if row == "syn" and self.code in ("TW", "CL"):
            return "again"
        code = MACHINE[reply][row][self.code]
        if code == "IV":
            return "invalid"
        if code == "IG":
            return "ok"
        if code == "CL" and self._stale_reset(body, reply):
            return "invalid"
        first = self.code == "NO"
        if not first and (refused := self._in_window(body, reply, liberal or self.picked_up)) is not None:
            return refused
        self.code = code
        return "ok"

    def _stale_reset(self, body: Tcp, reply: bool) -> bool:
        """A reset of what the other side has acknowledged already, however liberal."""
        known = self.sides[0 if reply else 1].maxack
        if known is None or not body.flags & _F.RST or (body.seq == 0 and self.code != "ES"):
            return False
        return _after(known, body.seq)

    def _in_window(self, body: Tcp, reply: bool, liberal: bool) -> str | None:
        """``tcp_in_window``, without SACK (the highest acknowledged number counts). None: inside;
        ``invalid``: too far ahead; ``ok``: late, which is let through and changes nothing."""
        sender, receiver = (self.sides[1], self.sides[0]) if reply else self.sides
        seq, ack, end, window = body.seq, body.ack, _end(body), body.window
        has_ack = bool(body.flags & _F.ACK)
        # A sender that begins anew while the connection is not yet up starts from its new number (RFC 793).
        opening = "SR" if reply else "SS"
        anew = bool(body.flags & _F.SYN) and self.code == opening and _after(end, sender.end)
        if sender.maxwin == 0 or anew:
            if body.flags & _F.SYN:
                scale = window_scale(body.options)
                sender.scale, sender.scales = scale or 0, scale is not None
                sender.end = sender.maxend = end
                sender.maxwin = max(window, 1)
                if not (sender.scales and receiver.scales):
                    sender.scale = receiver.scale = 0
                if reply and not has_ack:
                    return None
            else:  # the middle of a connection whose beginning was not seen
                sender.end = end
                sender.maxwin = max(window << sender.scale, 1)
                sender.maxend = (end + sender.maxwin) & 0xFFFFFFFF
                if receiver.maxwin == 0:
                    receiver.end = receiver.maxend = ack
        if not has_ack or (ack == 0 and body.flags & _F.RST):
            ack = receiver.end
        if body.flags & _F.RST and seq == 0 and self.code == "SS":
            seq = end = sender.end
        upper = not _after(seq, sender.maxend + 1)
        lower = _after(end, (sender.end - receiver.maxwin - 1) & 0xFFFFFFFF) or receiver.maxwin == 0
        ack_upper = not _after(ack, receiver.end)
        ack_lower = _after(ack, (receiver.end - max(sender.maxwin, _MAX_ACK_WINDOW) - 1) & 0xFFFFFFFF)
        if liberal and not (upper and ack_upper and lower and ack_lower):
            return None
        if not (upper and ack_upper):
            return "invalid"
        if not (lower and ack_lower):
            return "ok"
        scaled = window if body.flags & _F.SYN else window << sender.scale
        sender.maxwin = max(
            sender.maxwin, scaled + ((ack - receiver.end) & 0xFFFFFFFF if _after(ack, receiver.end) else 0)
        )
        if _after(end, sender.end):
            sender.end = end
        if has_ack and (sender.maxack is None or _after(ack, sender.maxack)):
            sender.maxack = ack
        limit = (ack + max(scaled, 1)) & 0xFFFFFFFF
        if has_ack and (_after(limit, receiver.maxend) or receiver.maxwin == 0):
            receiver.maxend = limit
        return None


def _end(body: Tcp) -> int:
    length = len(body.payload) + bool(body.flags & _F.SYN) + bool(body.flags & _F.FIN)
    return (body.seq + length) & 0xFFFFFFFF
