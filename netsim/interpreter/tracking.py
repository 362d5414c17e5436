"""Conntrack's hook functions: track and confirm (``nf_conntrack_core.c``, Linux 6.x).

PREROUTING, OUTPUT   -200 track
INPUT, POSTROUTING   last: confirm (the entry enters the table only if its first packet survives)
"""

from __future__ import annotations

from netsim.interpreter.machine import Flight, Machine
from netsim.interpreter.outcome import StepKind
from netsim.linux.conntrack import TIMEOUTS, Settings, begin, is_icmp_error, tuple_of, untracked, update
from netsim.linux.netfilter.base import CtState, Hook
from netsim.packet.icmp import quoted

_TIMEOUT_SYSCTL = "net.netfilter.nf_conntrack_"


def settings(flight: Flight) -> Settings:
    sysctls = flight.scene.sysctls

    def timeout(name: str) -> float:
        given = flight.scene.namespace.sysctls.get(_TIMEOUT_SYSCTL + name)
        return TIMEOUTS[name] if given is None else float(given)

    return Settings(
        be_liberal=bool(sysctls.number(_TIMEOUT_SYSCTL + "tcp_be_liberal")),
        loose=bool(sysctls.number(_TIMEOUT_SYSCTL + "tcp_loose")),
        timeout=timeout,
    )


def track(machine: Machine, flight: Flight, hook: Hook) -> bool:
    skb, packet = flight.skb, flight.packet
    if skb.ct is not None or skb.ct_state is CtState.UNTRACKED:
        return True  # seen before: looped back, or attached to the connection it reports about
    if untracked(packet):
        skb.ct_state = CtState.UNTRACKED
        return True
    if is_icmp_error(packet):
        _track_error(machine, flight, hook)
        return True
    table, now = machine.memory(flight).conntrack, machine.state.now
    rules = settings(flight)
    tuple_ = tuple_of(packet)
    if tuple_ is None:
        return _invalid(machine, flight, hook)
    found = table.find(tuple_, now)
    entry, reply = found if found else (begin(packet, tuple_, now, rules), False)
    if entry is None:
        return _invalid(machine, flight, hook)
    state = update(entry, packet, reply, now, rules)
    if entry.dying:
        table.remove(entry)
    if state is None:
        table.remove(entry)
        entry, reply = begin(packet, tuple_, now, rules), False
        if entry is None:
            return _invalid(machine, flight, hook)
        state = update(entry, packet, reply, now, rules)
    if state is None or state is CtState.INVALID:
        return _invalid(machine, flight, hook)
    skb.ct, skb.ct_state, skb.ct_reply = entry, state, reply
    machine.step(flight, StepKind.CONNTRACK, f"{state.value}{' (reply)' if reply else ''}: {entry}", hook=hook.value)
    return True


def _track_error(machine: Machine, flight: Flight, hook: Hook) -> None:
    """An ICMP error belongs to the connection of the packet it quotes (``nf_conntrack_inet_error``)."""
    inner = quoted(flight.packet)
    tuple_ = tuple_of(inner) if inner is not None else None
    found = machine.memory(flight).conntrack.find(tuple_.inverted(), machine.state.now) if tuple_ else None
    if found is not None:
        entry, reply = found
        wanted = (entry.reply if reply else entry.original).dst
        if flight.packet.dst == wanted:
            attach(flight, entry, reply)
            machine.step(flight, StepKind.CONNTRACK, f"RELATED: {entry}", hook=hook.value)
            return
    _invalid(machine, flight, hook)


def attach(flight: Flight, entry: object, reply: bool) -> None:
    """Make the flight an ICMP error about ``entry``, travelling in its original or reply direction."""
    flight.skb.ct, flight.skb.ct_state, flight.skb.ct_reply = entry, CtState.RELATED, reply
    flight.related = True


def _invalid(machine: Machine, flight: Flight, hook: Hook) -> bool:
    flight.skb.ct, flight.skb.ct_state = None, CtState.INVALID
    machine.step(flight, StepKind.CONNTRACK, "INVALID", hook=hook.value)
    return True


def confirm(machine: Machine, flight: Flight, hook: Hook) -> bool:
    entry = flight.skb.ct
    if entry is None or entry.confirmed or flight.skb.ct_reply:
        return True
    if machine.memory(flight).conntrack.confirm(entry, machine.state.now):
        return True
    machine.drop(flight, "conntrack clash: another connection took the same tuple", hook=hook.value)
    return False
