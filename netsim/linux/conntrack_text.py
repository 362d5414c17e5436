"""Conntrack entries as ``conntrack -L`` prints them (conntrack-tools 1.4.7), both ways.

    tcp      6 431999 ESTABLISHED src=… dst=… sport=… dport=… src=… dst=… sport=… dport=… [ASSURED] mark=0 use=1

The text holds what a reader of the table sees: both tuples, the timeout left, the TCP state, the flags and the mark. Windows
and the history of an entry are not part of it. Whether the entry translates follows from its tuples.
"""

from __future__ import annotations

import re

from netsim.errors import InputError, Problem, Source
from netsim.linux.conntrack import Entry, Tuple
from netsim.linux.conntrack_sctp import SctpTrack
from netsim.linux.conntrack_tcp import TcpTrack
from netsim.packet.address import ip
from netsim.packet.model import Proto

_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WORDS = re.compile(r"\[(?P<flag>[A-Z]+)\]|(?P<key>[a-z]+)=(?P<value>\S+)|(?P<word>\S+)")


def entry_text(entry: Entry, now: float = 0.0) -> str:
    """One line of the table as it stands at ``now``."""
    proto = entry.original.proto
    state = f"{entry.state} " if entry.state else ""
    unreplied = "" if entry.seen_reply else "[UNREPLIED] "
    assured = "[ASSURED] " if entry.assured else ""
    left = max(0, round(entry.expires - now))
    head = f"{_NAMES.get(proto, 'unknown'):<8} {proto} {left} {state}"
    return f"{head}{_tuple(entry.original)} {unreplied}{_tuple(entry.reply)} {assured}mark={entry.mark} use=1"


def _tuple(one: Tuple) -> str:
    if one.proto in (Proto.ICMP, Proto.ICMPV6):
        return f"src={one.src} dst={one.dst} type={one.dport >> 8} code={one.dport & 255} id={one.sport}"
    if one.proto in (Proto.TCP, Proto.UDP, Proto.SCTP):
        return f"src={one.src} dst={one.dst} sport={one.sport} dport={one.dport}"
    return f"src={one.src} dst={one.dst}"


def parse_entry(text: str, now: float = 0.0, source: Source | None = None) -> Entry:
    """The entry that a line of ``conntrack -L`` shows; InputError naming what is wrong with it."""
    flags: set[str] = set()
    pairs: list[tuple[str, str]] = []
    words: list[str] = []
    for found in _WORDS.finditer(text):
        if found["flag"]:
            flags.add(found["flag"])
        elif found["key"]:
            pairs.append((found["key"], found["value"]))
        else:
            words.append(found["word"])
    try:
        proto, left = int(words[1]), int(words[2])
        starts = [at for at, (key, _) in enumerate(pairs) if key == "src"]
        original, reply = (_read(proto, dict(pairs[a:b])) for a, b in zip(starts, (starts[1], len(pairs)), strict=True))
        mark = int(dict(pairs[starts[1] :]).get("mark", "0"))
        tcp = TcpTrack.in_state(words[3]) if proto == Proto.TCP else None
        # A connection that no chunk has moved yet is shown without a state.
        sctp = SctpTrack.in_state(words[3]) if proto == Proto.SCTP and len(words) > 3 else None
    except (IndexError, KeyError, ValueError):
        raise InputError([Problem(f'"{text.strip()}" is no line of conntrack -L', source)]) from None
    plain = original.inverted()
    return Entry(
        original,
        reply,
        expires=now + left,
        mark=mark,
        status_snat=(reply.dst, reply.dport if proto not in (1, 58) else 0)
        != (plain.dst, plain.dport if proto not in (1, 58) else 0),
        status_dnat=(reply.src, reply.sport) != (plain.src, plain.sport),
        seen_reply="UNREPLIED" not in flags,
        assured="ASSURED" in flags,
        confirmed=True,
        tcp=tcp,
        sctp=sctp,
    )


def _read(proto: int, pairs: dict[str, str]) -> Tuple:
    src, dst = ip(pairs["src"]), ip(pairs["dst"])
    if proto in (Proto.ICMP, Proto.ICMPV6):
        return Tuple(src, int(pairs["id"]), dst, int(pairs["type"]) << 8 | int(pairs["code"]), proto)
    return Tuple(src, int(pairs.get("sport", "0")), dst, int(pairs.get("dport", "0")), proto)
