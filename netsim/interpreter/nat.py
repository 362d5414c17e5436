"""Network address translation (``nf_nat_core.c``, ``nf_nat_masquerade.c``, ``nf_nat_redirect.c``, Linux 6.x).

The nat table is asked once for each direction of manipulation of a connection; its answer rewrites the *reply* tuple, and
packets are then made to agree with the tuples:

    PREROUTING, OUTPUT    destination (DNAT, REDIRECT, NETMAP)     of replies: undoes SNAT
    POSTROUTING, INPUT    source      (SNAT, MASQUERADE, NETMAP)   of replies: undoes DNAT

Where the kernel picks at random (``--random``, ``--random-fully``, the start of a search for a free port) this model is
deterministic: the port stays as it is if that is possible, otherwise the next free one above is taken. The choice from a
range of addresses is the kernel's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from msgspec import structs

from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import StepKind
from netsim.interpreter.quoting import requote
from netsim.linux.conntrack import Entry, Table, Tuple
from netsim.linux.jhash import jhash2
from netsim.linux.netfilter.base import CtState, Hook, Nat, NatKind
from netsim.packet.address import Family, IPAddress, ip
from netsim.packet.describe import destination_text, source_text
from netsim.packet.model import Icmp, Packet, Proto

_SOURCE_HOOKS = (Hook.POSTROUTING, Hook.INPUT)
_LOCALHOST = {Family.IPV4: ip("127.0.0.1"), Family.IPV6: ip("::1")}
_PORTED = (Proto.TCP, Proto.UDP, Proto.SCTP, Proto.UDPLITE)


def changes_source(hook: Hook) -> bool:
    return hook in _SOURCE_HOOKS


def wants_table(flight: Flight, hook: Hook) -> bool:
    """Does this packet go through the nat table at ``hook``? Only the first of a connection does, and a reset that REJECT
    answers it with."""
    entry = flight.skb.ct
    if entry is None or flight.related or flight.skb.ct_state not in (CtState.NEW, CtState.RELATED):
        return False
    if flight.skb.ct_reply and flight.skb.ct_state is CtState.NEW:
        return False
    return not (entry.snat_done if changes_source(hook) else entry.dnat_done)


def leaves_elsewhere(machine: Machine, flight: Flight) -> bool:
    """A connection that was masqueraded for one device and now leaves by another is forgotten, and the packet dropped
    (``nf_nat_oif_changed``). ICMP errors about it are spared (``nf_nat_ipv4_fn``)."""
    entry: Entry = flight.skb.ct
    if entry.masquerade_device in (None, flight.skb.oif) or flight.skb.ct_reply or flight.related:
        return False
    machine.memory(flight).conntrack.remove(entry)
    before, now = entry.masquerade_device, flight.skb.oif
    text = f"it was masqueraded for {before} and now leaves by {now}: the connection is forgotten"
    machine.drop(flight, text, hook=Hook.POSTROUTING.value, table="nat")
    return True


def setup(machine: Machine, flight: Flight, hook: Hook, action: Nat | None) -> bool:
    """Fix the translation of this connection as a rule said, or to nothing (None: ``nf_nat_alloc_null_binding``)."""
    entry: Entry = flight.skb.ct
    source = changes_source(hook)
    if entry.confirmed:
        return True  # too late
    current = entry.reply.inverted()
    nobody = flight.family is Family.IPV4 and entry.original.src.is_unspecified
    if action is not None and action.kind is NatKind.MASQUERADE and nobody:
        action = None  # nf_nat_masquerade_ipv4 leaves alone what a host without an address sends
    if action is None:
        address = current.src if source else current.dst
        action = Nat(NatKind.SNAT if source else NatKind.DNAT, address, address)
    elif action.kind in (NatKind.MASQUERADE, NatKind.REDIRECT):
        chosen = _own_address(flight, hook, action.kind)
        if chosen is None:
            machine.drop(flight, f"{action.kind.value}: the device has no address to use", hook=hook.value)
            return False
        action = structs.replace(action, low=chosen, high=chosen)
        if source:
            entry.masquerade_device = flight.skb.oif
    elif action.kind is NatKind.NETMAP:
        mapped = _netmap(current.src if source else current.dst, action)
        action = structs.replace(action, low=mapped, high=mapped)
    table = machine.memory(flight).conntrack
    unique = _unique(table, entry, current, action, source, machine.state.now, machine.memory(flight).first_ports)
    if unique != current:
        fixed = action.port_low is not None and action.port_low == action.port_high
        entry.port_drawn = entry.port_drawn or (source and unique.sport != current.sport and not fixed)
        entry.reply = unique.inverted()
        if source:
            entry.status_snat = True
        else:
            entry.status_dnat = True
    if source:
        entry.snat_done = True
    else:
        entry.dnat_done = True
    return True


def _own_address(flight: Flight, hook: Hook, kind: NatKind) -> IPAddress | None:
    """MASQUERADE: ``inet_select_addr`` of the egress device for the next hop. REDIRECT: the ingress device's first
    address, or localhost for packets made here."""
    packet, scene = flight.packet, flight.scene
    if kind is NatKind.MASQUERADE:
        gateway = flight.route.gateway if flight.route is not None else None
        if gateway is not None and gateway.version != packet.dst.version:
            gateway = None
        return scene.fib.select_source(flight.skb.oif or "lo", gateway or packet.dst)
    if hook is Hook.OUTPUT:
        return _LOCALHOST[flight.family]
    held = [a for a in scene.addresses_on(flight.skb.iif or "lo") if a.version == packet.dst.version]
    if flight.family is Family.IPV6:
        held = [a for a in held if not a.is_link_local] or held
    return held[0] if held else None


def _netmap(address: IPAddress, action: Nat) -> IPAddress:
    assert action.low is not None
    assert action.high is not None
    host = int(action.low) ^ int(action.high)
    return type(action.low)((int(action.low) & ~host) | (int(address) & host))


def _unique(table: Table, entry: Entry, current: Tuple, nat: Nat, source: bool, now: float, first: list[int]) -> Tuple:
    """``get_unique_tuple``: a translation that no other connection's replies could be mistaken for. ``first``: the ports at
    which searches begin, this one and later ones. If all are taken it is the last that was tried
    (``nf_nat_l4proto_unique_tuple`` answers nothing): behind a destination the source may still move out of the way, else
    the connection is not confirmed."""

    def free(candidate: Tuple) -> bool:
        return not table.taken(candidate.inverted(), entry, now)

    shuffled = nat.random or nat.fully_random
    if source and not shuffled:
        if _in_range(current, nat, source) and free(current):
            return current
        for known in () if _in_range(current, nat, source) else table.same_source(current, now):
            same = known.reply.inverted()
            reused = current._replace(src=same.src, sport=same.sport)
            if _in_range(reused, nat, source):
                if free(reused):
                    return reused
                break
    moved = _address(current, nat, source)
    port = moved.sport if source or moved.proto in (Proto.ICMP, Proto.ICMPV6) else moved.dport
    if nat.port_low is not None:
        low, high = nat.port_low, nat.port_high if nat.port_high is not None else nat.port_low
        if low <= port <= high and (low == high or free(moved)):
            return moved
    elif free(moved):
        return moved
    if moved.proto in (Proto.ICMP, Proto.ICMPV6):
        low, high = (nat.port_low, nat.port_high or nat.port_low) if nat.port_low is not None else (0, 0xFFFF)
    elif moved.proto not in _PORTED:
        return moved
    elif nat.port_low is not None:
        low, high = nat.port_low, nat.port_high if nat.port_high is not None else nat.port_low
    elif not source:
        return moved
    else:
        low, high = (1, 511) if port < 512 else (600, 1023) if port < 1024 else (1024, 65535)
    size = high - low + 1
    by_source = source or moved.proto in (Proto.ICMP, Proto.ICMPV6)
    start = low  # where the kernel begins with a destination
    if source or shuffled:
        start = port + 1 if low <= port < high else low
        if first and low <= first[0] <= high:
            start = first.pop(0)
    for offset in range(size):
        number = low + (start - low + offset) % size
        candidate = moved._replace(sport=number) if by_source else moved._replace(dport=number)
        if size == 1 or free(candidate):
            return candidate
    return candidate


def _in_range(tuple_: Tuple, nat: Nat, source: bool) -> bool:
    address = tuple_.src if source else tuple_.dst
    if nat.low is not None and not int(nat.low) <= int(address) <= int(nat.high or nat.low):
        return False
    if nat.port_low is None or tuple_.proto not in (*_PORTED, Proto.ICMP, Proto.ICMPV6):
        return True
    return nat.port_low <= (tuple_.sport if source else tuple_.dport) <= (nat.port_high or nat.port_low)


def _address(current: Tuple, nat: Nat, source: bool) -> Tuple:
    """``find_best_ips_proto``: one address of the range, by a hash of the source and, unless ``--persistent``, the
    destination. The hash is over words as a little-endian machine reads them."""
    if nat.low is None or nat.high is None or nat.low == nat.high:
        return current if nat.low is None else _with_address(current, nat.low, source)
    known = _words(current.dst.packed, "little")
    chosen = jhash2([*_words(current.src.packed, "little"), 0, 0, 0][:4], 0 if nat.persistent else known[-1])
    lows, highs = _words(nat.low.packed, "big"), _words(nat.high.packed, "big")
    words: list[int] = []
    anywhere = False  # once a word lies below the highest possible, those behind it may be anything
    for place, (low, high) in enumerate(zip(lows, highs, strict=True)):
        low, distance = (0, 0xFFFFFFFF) if anywhere else (low, (high - low + 1) & 0xFFFFFFFF)
        word = (low + (chosen * distance >> 32)) & 0xFFFFFFFF
        words.append(word)
        anywhere = anywhere or word != high
        if not nat.persistent:  # the tuple's destination, of which this word is new by now if that is what changes
            chosen ^= known[place] if source else int.from_bytes(word.to_bytes(4, "big"), "little")
    packed = b"".join(word.to_bytes(4, "big") for word in words)
    return _with_address(current, type(nat.low)(packed), source)


def _with_address(current: Tuple, address: IPAddress, source: bool) -> Tuple:
    return current._replace(src=address) if source else current._replace(dst=address)


def _words(packed: bytes, order: Literal["little", "big"]) -> list[int]:
    return [int.from_bytes(packed[at : at + 4], order) for at in range(0, len(packed), 4)]


def translate(machine: Machine, flight: Flight, hook: Hook) -> bool:
    """Make the packet agree with its connection's translation (``nf_nat_packet``, ``nf_nat_icmp_reply_translation``)."""
    entry: Entry = flight.skb.ct
    reply, source = flight.skb.ct_reply, changes_source(hook)
    if not (entry.status_snat if source != reply else entry.status_dnat):
        return True
    before = flight.packet
    target = (entry.original if reply else entry.reply).inverted()
    if flight.related:
        payload = requote(before, entry.original if reply else entry.reply, source_side=not source)
        if payload is None:
            machine.drop(flight, "the ICMP error quotes too little to be translated", hook=hook.value)
            return False
        assert isinstance(before.body, Icmp)
        quoting = replace(before, body=replace(before.body, payload=payload))
        after = replace(quoting, src=target.src) if source else replace(quoting, dst=target.dst)
    else:
        after = _rewrite(before, target, source)
    if after == before:
        return True
    flight.packet = after
    text = source_text if source else destination_text
    kind = "un-DNAT" if reply and source else "un-SNAT" if reply else "SNAT" if source else "DNAT"
    machine.step(
        flight,
        StepKind.NAT,
        f"{kind} {entry}",
        hook=hook.value,
        before=text(before),
        after=text(after),
        decisive=not reply,
    )
    if source and not reply and before.src != after.src:
        flight.journey.masqueraded = True
    return True


def _rewrite(packet: Packet, target: Tuple, source: bool) -> Packet:
    moved = replace(packet, src=target.src) if source else replace(packet, dst=target.dst)
    if isinstance(packet.body, Icmp):
        rest = target.sport << 16 | packet.body.rest & 0xFFFF
        return replace(moved, body=replace(packet.body, rest=rest))
    if packet.fragment_offset:
        return moved
    return moved.with_ports(sport=target.sport) if source else moved.with_ports(dport=target.dport)
