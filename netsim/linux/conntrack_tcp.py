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
    closes: bool = False  # it sent the first FIN
    liberal: bool = False  # the connection's beginning was not seen: this side's windows are unknown and not enforced

    def begin(self, body: Tcp, receiver: Side, reply: bool) -> None:
        """From a SYN (``tcp_init_sender``). Windows are scaled only if both sides offer it. A SYN without any option leaves
        what an earlier one said of them (``tcp_options``)."""
        self.end = self.maxend = _end(body)
        self.maxwin = max(body.window, 1)
        if body.options:
            scale = window_scale(body.options)
            self.scale, self.scales = scale or 0, scale is not None
            self.maxack, self.closes = None, False
        if reply and not (self.scales and receiver.scales):
            self.scale = receiver.scale = 0


@dataclass(frozen=True, slots=True)
class Last:
    """The last packet that counted, or that was let through unseen."""

    row: str = "none"
    reply: bool = False
    ack: int = 0
    end: int = 0
    window: int = 0
    scale: int | None = None  # of a SYN that was let through
    challenged: bool = False  # such a SYN in LAST_ACK: the answer may be a challenge, not the last ACK


@dataclass(slots=True)
class TcpTrack:
    code: str = "NO"
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    last: Last = field(default_factory=Last)
    both_open: bool = False  # SYNs crossed

    @property
    def state(self) -> str:
        return _NAMES[self.code]

    @property
    def timeout(self) -> str:
        """The part of nf_conntrack_tcp_timeout_NAME that counts in this state. That unacknowledged data, retransmissions
        and segments let through unseen shorten or keep what is left is not modelled."""
        return "syn_sent" if self.code == "S2" else self.state.lower()

    @classmethod
    def in_state(cls, name: str) -> TcpTrack:
        """A track in the state that the kernel calls ``name``; its windows are unknown. KeyError if there is none."""
        code = {name: code for code, name in _NAMES.items()}[name]
        return cls(code, (Side(liberal=True), Side(liberal=True)))

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
        sender, _ = track.sides
        if next_code == "SS":
            sender.begin(body, track.sides[1], False)
        elif not loose:
            return None
        else:  # picked up in mid-stream
            sender.end, sender.maxwin = _end(body), max(body.window, 1)
            sender.maxend = (sender.end + sender.maxwin) & 0xFFFFFFFF
            for side in track.sides:
                side.liberal = True
        return track

    def advance(self, body: Tcp, reply: bool, liberal: bool, answered: bool = False, assured: bool = False) -> str:
        """``ok``; ``late``: let through, and nothing changes; ``invalid``; or ``again``: the connection is over and this SYN
        begins another (``nf_conntrack_tcp_packet``). ``answered``, ``assured``: the entry's, before the packet."""
        if not valid_flags(body.flags):
            return "invalid"
        row = row_of(body.flags)
        code = MACHINE[reply][row][self.code]
        if code == "IV":
            return "invalid"
        if code == "SS" and self.code in ("TW", "CL"):
            reset = self.last.row == "rst" and self.last.reply == reply
            if reset or any(side.closes for side in self.sides):
                return "again"
            code = "IG"
        if code == "IG":
            if not self._in_sync_again(body, row, reply):
                self._note_unseen(body, row, reply)
                return "late"
            self.code, code = "SS", "SR"
        elif code == "TW" and self._challenge(row, reply):
            self.last = replace(self.last, challenged=False)
            return "late"
        elif code == "S2":
            self.both_open = True
        elif code == "SR" and reply and row == "ack" and self.both_open:
            code = "ES"
        checked = True
        if code == "CL" and row == "rst":
            fate = self._reset(body, reply, answered, assured)
            if fate == "invalid":
                return "invalid"
            code, checked = (self.code if fate == "kept" else code), fate != "unchecked"
        if checked:
            refused = self._in_window(body, row, reply, liberal or self.sides[reply].liberal)
            if refused == "invalid":
                self._note_refused(row, reply, assured)
            if refused is not None:
                return refused
        self.last = replace(self.last, row=row, reply=reply)
        if code == "FW" and self.code != "FW":
            self.sides[reply].closes = True
        self.code = code
        return "ok"

    def _in_sync_again(self, body: Tcp, row: str, reply: bool) -> bool:
        """This SYN/ACK answers a SYN that was let through unseen: what was noted of that counts now. Whose windows were not
        enforced, his who answers still are not (``nf_ct_tcp_state_reset``)."""
        last = self.last
        if not (row == "synack" and last.row == "syn" and last.reply != reply and body.ack == last.end):
            return False
        other = self.sides[last.reply]
        other.end = other.maxend = last.end
        other.maxwin = max(last.window, 1)
        other.scale, other.scales = last.scale or 0, last.scale is not None
        other.maxack, other.closes, other.liberal = None, False, False
        mine = self.sides[reply]
        mine.end = mine.maxend = mine.maxwin = mine.scale = 0
        mine.maxack, mine.scales, mine.closes = None, False, False
        self.last = replace(last, challenged=False)
        return True

    def _note_unseen(self, body: Tcp, row: str, reply: bool) -> None:
        last = replace(self.last, row=row, reply=reply, end=_end(body), window=body.window)
        if row == "syn" and not reply:
            challenged = self.code == "LA"
            last = replace(last, scale=window_scale(body.options), challenged=challenged)
        if self.code == "SS" and row == "ack" and reply:
            last = replace(last, ack=body.ack)
        self.last = last

    def _challenge(self, row: str, reply: bool) -> bool:
        """RFC 5961: an answer to a spurious SYN that must not pass for the last ACK."""
        last = self.last
        return self.code == "LA" and row == "ack" and last.reply != reply and last.row == "syn" and last.challenged

    def _reset(self, body: Tcp, reply: bool, answered: bool, assured: bool) -> str:
        """What a reset does: ``closes``; ``unchecked`` (the same, whatever its window); ``kept``: too inexact to believe; or
        ``invalid``: of what the other side has acknowledged already."""
        if self.code in ("FW", "LA", "TW", "CL", "CW"):
            return "unchecked"
        last, known = self.last, self.sides[not reply].maxack
        established, fate = self.code == "ES" and assured, "closes"  # nf_conntrack_tcp_established
        if known is not None and last.row != "syn":
            if body.seq == 0 and not established:
                return "closes"
            if _after(known, body.seq):
                return "invalid"
            part_of_train = last.row == "ack" and last.reply == reply and body.seq == last.end
            if not established or body.seq == known or part_of_train:
                return "closes"
            fate = "kept"
        of_syn = answered and last.row == "syn" and last.reply != reply
        of_ack = not assured and last.row == "ack"
        if (of_syn or of_ack) and body.ack == last.end:
            return "unchecked" if fate == "closes" else "kept"
        if self.code == "SS" and last.row == "ack" and last.reply and body.seq == last.ack:
            return "unchecked"
        return fate

    def _note_refused(self, row: str, reply: bool, assured: bool) -> None:
        """``nf_tcp_handle_invalid``."""
        ending = ("rst", "fin")
        if assured and row in ending and not (self.last.reply != reply and self.last.row in ending):
            self.last = replace(self.last, row=row, reply=reply)

    def _in_window(self, body: Tcp, row: str, reply: bool, liberal: bool) -> str | None:
        """``tcp_in_window``, without SACK (the highest acknowledged number counts). None: inside;
        ``invalid``: too far ahead; ``late``: let through, and changes nothing."""
        sender, receiver = self.sides[reply], self.sides[not reply]
        seq, ack, end, window = body.seq, body.ack, _end(body), body.window
        has_ack, syn = bool(body.flags & _F.ACK), bool(body.flags & _F.SYN)
        if sender.maxwin == 0:
            if syn:
                sender.begin(body, receiver, reply)
                if not has_ack:
                    return None  # SYNs crossed
            else:  # the middle of a connection whose beginning was not seen
                sender.end = end
                sender.maxwin = max(window << sender.scale, 1)
                sender.maxend = (end + sender.maxwin) & 0xFFFFFFFF
                if receiver.maxwin == 0:
                    receiver.end = receiver.maxend = ack
                elif ack == (receiver.end + 1) & 0xFFFFFFFF:
                    receiver.end = ack  # likely an answer to a keep-alive
        elif syn and _after(end, sender.end) and self.code in ("SS", "SR"):
            sender.begin(body, receiver, reply)  # RFC 793: a sender that begins anew starts from its new number
            if reply and not has_ack:
                return None
        if not has_ack or (ack == 0 and body.flags & _F.RST):
            ack = receiver.end
        if body.flags & _F.RST and seq == 0 and self.code == "SS":
            seq = end = sender.end
        fate = self._place(sender, receiver, seq, ack, end)
        if fate is not None:
            return None if liberal else fate
        scaled = window if syn else window << sender.scale
        sender.maxwin = max(sender.maxwin, scaled)
        if _after(end, sender.end):
            sender.end = end
        if has_ack and (sender.maxack is None or _after(ack, sender.maxack)):
            sender.maxack = ack
        if receiver.maxwin and _after(end, sender.maxend):
            receiver.maxwin += (end - sender.maxend) & 0xFFFFFFFF
        limit = (ack + scaled) & 0xFFFFFFFF
        if _after(limit, (receiver.maxend - 1) & 0xFFFFFFFF):
            receiver.maxend = (limit + (scaled == 0)) & 0xFFFFFFFF
        if row == "ack":
            self.last = replace(self.last, reply=reply, ack=ack, end=end, window=window)
        return None

    @staticmethod
    def _place(sender: Side, receiver: Side, seq: int, ack: int, end: int) -> str | None:
        """Where a segment lies: None in the window, ``late`` below it, ``invalid`` above."""
        late_ack = (receiver.end - max(sender.maxwin, _MAX_ACK_WINDOW) - 1) & 0xFFFFFFFF
        late_end = (sender.end - receiver.maxwin - 1) & 0xFFFFFFFF
        if _after(seq, sender.maxend) or seq == (sender.maxend + 1) & 0xFFFFFFFF:
            overshot = (end - sender.maxend + 1) & 0xFFFFFFFF
            fits = receiver.maxwin and _after(end, late_end) and _after(ack, late_ack)
            if fits and overshot <= receiver.maxwin and not _after(ack, receiver.end):
                sender.end = end
                return "late"  # some stacks send more than they may
            return "invalid"
        if _after(ack, receiver.end):
            return "invalid"
        if receiver.maxwin and not _after(end, late_end):
            return "late"
        return None if _after(ack, late_ack) else "late"


def _end(body: Tcp) -> int:
    length = len(body.payload) + bool(body.flags & _F.SYN) + bool(body.flags & _F.FIN)
    return (body.seq + length) & 0xFFFFFFFF
