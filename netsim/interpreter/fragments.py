"""Fragments inside a namespace: gathered before rules see them, and cut again on the way out.

Models ``ip_fragment.c``, ``inet_fragment.c``, ``nf_conntrack_reasm.c`` and, for the way out, the lists of fragments that
``ip_do_fragment`` and ``ip6_fragment`` send on as they came (Linux 6.x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import StepKind
from netsim.linux.link import LinkKind
from netsim.linux.netfilter.base import Hook
from netsim.packet.address import Family
from netsim.packet.codec import body_bytes, header_length, packet_bytes, parse_packet, wire_length
from netsim.packet.fragment import fragment, reassemble
from netsim.packet.model import Packet, Proto, Raw

_LEAST6 = 1280  # IPV6_MIN_MTU


def gather(machine: Machine, flight: Flight, hook: Hook) -> bool:
    """Hold fragments back until the datagram is whole. The last one to come goes on as the whole.

    Who asks has a queue of its own (``enum ip_defrag_users``): conntrack in and out, on a bridge, local delivery."""
    packet = flight.packet
    if not packet.is_fragment:
        return True
    user = f"bridge {hook.value}" if flight.skb.physin is not None else hook.value
    held = machine.memory(flight).fragments
    key = (user, packet.src, packet.dst, int(packet.proto), packet.ident)
    pieces = held.setdefault(key, [])
    fate = _fate(pieces, packet)
    if fate == "corrupt":
        del held[key]
        machine.drop(flight, "the fragment contradicts those before it: all of them are dropped", hook=hook.value)
        return False
    if fate == "new":
        pieces.append(packet)
    whole = _whole(pieces)
    if whole is None:
        text = "kept until the other fragments of the datagram come"
        if fate == "again":
            text = "came before: dropped, the first one is kept"
        kept = machine.step(flight, StepKind.FRAGMENT, text, hook=hook.value)
        flight.journey.waiting = machine.decided(flight, kept)
        return False
    del held[key]
    machine.step(flight, StepKind.FRAGMENT, f"reassembled from {len(pieces)} fragments", hook=hook.value)
    flight.packet, flight.ignore_df = whole, True
    flight.fragment_size = max(wire_length(piece) for piece in pieces)
    flight.fragment_cuts = tuple(_length(piece) for piece in sorted(pieces, key=lambda piece: piece.fragment_offset))
    return True


def _length(piece: Packet) -> int:
    return wire_length(piece) - header_length(piece)


def _end(piece: Packet) -> int:
    return piece.fragment_offset + _length(piece)


def _fate(pieces: Sequence[Packet], packet: Packet) -> str:
    """``ip_frag_queue``, ``inet_frag_queue_insert``: ``new``; ``again`` (inside what is there); or ``corrupt`` (part of
    it is there, or beyond the end), which ends the datagram."""
    start, end = packet.fragment_offset, _end(packet)
    known_end = max(map(_end, pieces), default=0)
    last_seen = any(not piece.more_fragments for piece in pieces)
    if end == start or (last_seen and end > known_end):
        return "corrupt"
    if not packet.more_fragments and (end < known_end or (last_seen and end != known_end)):
        return "corrupt"
    touched = [piece for piece in pieces if piece.fragment_offset < end and start < _end(piece)]
    if not touched:
        return "new"
    covered = start
    for piece in sorted(touched, key=lambda one: one.fragment_offset):
        if piece.fragment_offset > covered:
            return "corrupt"
        covered = _end(piece)
    return "again" if covered >= end else "corrupt"


def _whole(pieces: Sequence[Packet]) -> Packet | None:
    """The first fragment was read for its ports, which forgot the UDP length of the whole: it is written anew."""
    whole = reassemble(pieces)
    if whole is None or whole.proto != Proto.UDP or not isinstance(whole.body, Raw) or len(whole.body.data) < 8:
        return whole
    data = whole.body.data
    body = Raw(data[:4] + len(data).to_bytes(2, "big") + data[6:])
    return parse_packet(packet_bytes(replace(whole, body=body)))


def too_big(flight: Flight, mtu: int) -> bool:
    """Must the sender be told, instead of cutting the packet to ``mtu`` (``ip_exceeds_mtu``, ``ip6_pkt_too_big``)?"""
    packet = flight.packet
    if wire_length(packet) <= mtu or not (packet.dont_fragment or flight.family is Family.IPV6):
        return False
    return flight.fragment_size > mtu or not flight.ignore_df


def _needs_headroom(flight: Flight) -> bool:
    """Towards a VXLAN device fragments lack the room for its headers in front and are copied into new ones."""
    if flight.local and not flight.rerouted:
        return False  # its socket made them with the room that the route's device asks for (LL_RESERVED_SPACE)
    link, scene = flight.scene.link(flight.skb.oif), flight.scene
    ports = scene.ports.get(link.name, []) if link is not None else []
    return any(one is not None and one.kind is LinkKind.VXLAN for one in (link, *ports))


def cut(flight: Flight, mtu: int) -> list[Packet]:
    """The packet in pieces of at most ``mtu`` bytes; one that came in fragments goes in the same fragments if these fit."""
    packet = flight.packet
    if flight.fragment_size:
        mtu = min(mtu, max(flight.fragment_size, _LEAST6 if flight.family is Family.IPV6 else 0))
    whole = replace(packet, more_fragments=True) if flight.family is Family.IPV6 else packet
    room = mtu - header_length(whole)
    cuts = flight.fragment_cuts
    data = body_bytes(packet)
    if packet.is_fragment or _needs_headroom(flight) or sum(cuts) != len(data) or any(size > room for size in cuts):
        return fragment(packet, mtu)
    pieces, at = [], 0
    for size in cuts:
        more = at + size < len(data)
        pieces.append(replace(packet, body=Raw(data[at : at + size]), more_fragments=more, fragment_offset=at))
        at += size
    return pieces
