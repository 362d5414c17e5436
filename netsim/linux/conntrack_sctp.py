"""The SCTP tracker: association states and verification tags (``nf_conntrack_proto_sctp.c`` of Linux 6.x)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from netsim.packet.model import Sctp

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN, SHUTDOWN_ACK, ERROR = range(10)
COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = 10, 11, 14

# Rows: the chunk. Columns: the state before. ``IV`` makes the packet INVALID; other chunks change nothing.
_STATES = ("NO", "CL", "CW", "CE", "ES", "SS", "SR", "SA", "HS")
_ORIGINAL = {
    INIT: "CL CL CW CE ES CL CL SA CW",
    INIT_ACK: "CL CL CW CE ES SS SR SA CL",
    ABORT: "CL CL CL CL CL CL CL CL CL",
    SHUTDOWN: "CL CL CW CE SS SS SR SA CL",
    SHUTDOWN_ACK: "SA CL CW CE ES SA SA SA SA",
    ERROR: "CL CL CW CE ES SS SR SA CL",
    COOKIE_ECHO: "CL CL CE CE ES SS SR SA CL",
    COOKIE_ACK: "CL CL CW ES ES SS SR SA CL",
    SHUTDOWN_COMPLETE: "CL CL CW CE ES SS SR CL CL",
    HEARTBEAT: "HS CL CW CE ES SS SR SA HS",
    HEARTBEAT_ACK: "CL CL CW CE ES SS SR SA HS",
}
_REPLY = {
    INIT: "IV CL CW CE ES SS SR SA IV",
    INIT_ACK: "IV CW CW CE ES SS SR SA IV",
    ABORT: "IV CL CL CL CL CL CL CL IV",
    SHUTDOWN: "IV CL CW CE SR SS SR SA IV",
    SHUTDOWN_ACK: "IV CL CW CE ES SA SA SA IV",
    ERROR: "IV CL CW CL ES SS SR SA IV",
    COOKIE_ECHO: "IV CL CE CE ES SS SR SA IV",
    COOKIE_ACK: "IV CL CW ES ES SS SR SA IV",
    SHUTDOWN_COMPLETE: "IV CL CW CE ES SS SR CL IV",
    HEARTBEAT: "IV CL CW CE ES SS SR SA HS",
    HEARTBEAT_ACK: "IV CL CW CE ES SS SR SA ES",
}
_MACHINE = {
    reply: {chunk: dict(zip(_STATES, cells.split(), strict=True)) for chunk, cells in table.items()}
    for reply, table in ((False, _ORIGINAL), (True, _REPLY))
}
_NAMES = {
    "NO": "NONE",
    "CL": "CLOSED",
    "CW": "COOKIE_WAIT",
    "CE": "COOKIE_ECHOED",
    "ES": "ESTABLISHED",
    "SS": "SHUTDOWN_SENT",
    "SR": "SHUTDOWN_RECD",
    "SA": "SHUTDOWN_ACK_SENT",
    "HS": "HEARTBEAT_SENT",
}
_ALONE = (INIT, INIT_ACK, SHUTDOWN_COMPLETE)  # no other chunk beside them
_OWN_TAG_CHECK = frozenset(
    {INIT, SHUTDOWN_COMPLETE, COOKIE_ECHO, ABORT, SHUTDOWN_ACK, HEARTBEAT, HEARTBEAT_ACK}
)  # chunks whose verification tag is looked at chunk by chunk, or not at all
_TAG_REFLECTED = 1  # the T flag of ABORT and SHUTDOWN_COMPLETE


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: int
    flags: int
    tag: int | None  # the initiate tag of INIT and INIT_ACK; None if the chunk is too short to hold one


def _chunks(body: Sctp) -> Iterator[_Chunk] | None:
    """The chunks; None if they cannot stand so (``do_basic_checks``): cookies first, INIT alone, none of length 0."""
    found: list[_Chunk] = []
    at, data, alone = 0, body.chunks, False
    while at + 4 <= len(data):
        kind, flags, length = data[at], data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        alone = alone or kind in _ALONE
        if ((kind in (COOKIE_ACK, COOKIE_ECHO) or alone) and found) or not length:
            return None
        tag = int.from_bytes(data[at + 4 : at + 8], "big") if at + 20 <= len(data) else None
        found.append(_Chunk(kind, flags, tag))
        at += (length + 3) & ~3
    return iter(found) if found else None


@dataclass(slots=True)
class SctpTrack:
    """``tags`` are the verification tags expected in original and reply packets; ``begun`` tells who sent an INIT."""

    code: str = "NO"
    tags: tuple[int, int] = (0, 0)
    begun: tuple[bool, bool] = (False, False)
    heartbeat_failed: bool | None = None  # a HEARTBEAT with a wrong tag was seen in this direction

    @property
    def state(self) -> str:
        return _NAMES[self.code]

    @property
    def timeout(self) -> str:
        """The part of nf_conntrack_sctp_timeout_NAME that counts in this state."""
        return "closed" if self.code == "NO" else self.state.lower()

    @classmethod
    def in_state(cls, name: str) -> SctpTrack:
        """A track in the state that the kernel calls ``name``; its tags are unknown. KeyError if there is none."""
        return cls({name: code for code, name in _NAMES.items()}[name])

    def copy(self) -> SctpTrack:
        return replace(self)

    @classmethod
    def begin(cls, body: Sctp) -> SctpTrack | None:
        """The track of a first packet, still before it; None if it cannot start an association (``sctp_new``)."""
        track, held = cls(), _chunks(body)
        for chunk in held or ():
            if chunk.kind in (ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK) or chunk.kind not in _ORIGINAL:
                return None
            if chunk.kind == INIT:
                if body.vtag or chunk.tag is None:
                    return None
                track._expect(True, chunk.tag)
            elif chunk.kind == HEARTBEAT:
                track._expect(False, body.vtag)
            elif chunk.kind == SHUTDOWN_ACK:
                track._expect(True, body.vtag)
        return track if held is not None else None

    def advance(self, body: Sctp, reply: bool) -> str:
        """``ok``; ``late``: let through without a new timeout; ``invalid`` (``nf_conntrack_sctp_packet``)."""
        held = _chunks(body)
        if held is None:
            return "invalid"
        chunks = list(held)
        kinds = {chunk.kind for chunk in chunks}
        if not kinds & _OWN_TAG_CHECK and body.vtag != self.tags[reply]:
            return "invalid"
        late = False
        for chunk in chunks:
            checked = self._check(chunk, body.vtag, reply, DATA in kinds, late)
            if checked == "invalid":
                return "invalid"
            if checked == "late":
                late = True
                continue
            table = _MACHINE[reply].get(chunk.kind)
            code = table[self.code] if table else self.code
            if code == "IV" or not self._note(chunk, reply):
                return "invalid"
            late = late or (chunk.kind == INIT and code == self.code == "CL")
            self.code = code
        return "late" if late else "ok"

    def _check(self, chunk: _Chunk, tag: int, reply: bool, data: bool, late: bool) -> str:
        """The verification tag of chunks with rules of their own (RFC 9260 8.5.1)."""
        kind, wanted = chunk.kind, self.tags[reply]
        if kind == INIT and tag:
            return "invalid"
        if kind in (ABORT, SHUTDOWN_COMPLETE):
            reflected = bool(chunk.flags & _TAG_REFLECTED)
            return "ok" if tag == self.tags[reply != reflected] else "invalid"
        if kind == COOKIE_ECHO:
            return "ok" if tag == wanted else "invalid"
        if kind == COOKIE_ACK:
            self.begun = (False, False)
        if kind not in (HEARTBEAT, HEARTBEAT_ACK):
            return "ok"
        if not wanted:
            self._expect(reply, tag)
        elif tag == wanted:
            self.heartbeat_failed = None
        elif data or late:
            return "invalid"
        elif kind == HEARTBEAT:
            self.heartbeat_failed = reply
            return "late"
        elif self.heartbeat_failed in (None, reply):
            return "invalid"
        else:
            self.heartbeat_failed = None
            self.tags = (0, tag) if reply else (tag, 0)
        return "ok"

    def _note(self, chunk: _Chunk, reply: bool) -> bool:
        """INIT and INIT_ACK say which tag the other side must use; False if that contradicts what is known."""
        if chunk.kind not in (INIT, INIT_ACK):
            return True
        if chunk.tag is None:
            return False
        known, mine, other = self.tags[not reply], self.begun[reply], self.begun[not reply]
        if chunk.kind == INIT:
            if self.code == "NO" or known != chunk.tag:
                other = other and not mine
                self.begun = (other, True) if reply else (True, other)
        elif (not other and known and known != chunk.tag) or (mine and other and known != chunk.tag):
            return False
        self._expect(not reply, chunk.tag)
        return True

    def _expect(self, reply: bool, tag: int) -> None:
        self.tags = (self.tags[0], tag) if reply else (tag, self.tags[1])
