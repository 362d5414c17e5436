"""Conntrack entries through the text of ``conntrack -L`` and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.errors import InputError
from netsim.linux.conntrack import Entry, Tuple
from netsim.linux.conntrack_tcp import TcpTrack
from netsim.linux.conntrack_text import entry_text, parse_entry
from netsim.packet.address import ip

ports = st.integers(0, 65535)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    version = draw(st.sampled_from((4, 6)))
    hosts = ("10.0.0.1", "10.96.0.10", "192.168.1.5") if version == 4 else ("fd00::1", "fd00::a", "2001:db8::5")
    address = st.sampled_from([ip(h) for h in hosts])
    proto = draw(st.sampled_from((6, 17, 132, 1 if version == 4 else 58)))
    if proto in (1, 58):
        kinds = (8, 0) if version == 4 else (128, 129)
        number = draw(ports)
        original = Tuple(draw(address), number, draw(address), kinds[0] << 8, proto)
        reply = Tuple(draw(address), draw(st.sampled_from((number, 7))), draw(address), kinds[1] << 8, proto)
    else:
        original = Tuple(draw(address), draw(ports), draw(address), draw(ports), proto)
        reply = Tuple(draw(address), draw(ports), draw(address), draw(ports), proto)
    return Entry(
        original, reply, expires=float(draw(st.integers(0, 432000))), mark=draw(st.integers(0, 2**32 - 1)),
        seen_reply=draw(st.booleans()), assured=draw(st.booleans()), confirmed=True,
        tcp=TcpTrack.in_state(draw(st.sampled_from(("SYN_SENT", "ESTABLISHED", "TIME_WAIT")))) if proto == 6 else None,
    )  # fmt: skip


@given(entries())
def test_what_is_printed_is_parsed_back(entry: Entry) -> None:
    text = entry_text(entry)
    again = parse_entry(text)
    assert entry_text(again) == text
    shown = ("original", "reply", "expires", "mark", "seen_reply", "assured")
    assert [getattr(again, name) for name in shown] == [getattr(entry, name) for name in shown]


def test_a_line_of_the_real_tool() -> None:
    line = (
        "tcp      6 431999 ESTABLISHED src=10.244.1.5 dst=10.96.3.7 sport=40000 dport=80 "
        "src=10.244.2.7 dst=10.244.1.5 sport=8080 dport=40000 [ASSURED] mark=0 use=1"
    )
    entry = parse_entry(line)
    assert (entry.status_dnat, entry.status_snat, entry.assured, entry.seen_reply) == (True, False, True, True)
    assert entry_text(entry) == line


@pytest.mark.parametrize(
    "bad", ["", "tcp 6", "tcp 6 x ESTABLISHED src=1.2.3.4", "udp 17 30 src=nobody dst=1.1.1.1 src=a dst=b"]
)
def test_anything_else_is_refused(bad: str) -> None:
    with pytest.raises(InputError):
        parse_entry(bad)
