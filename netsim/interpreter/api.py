"""Tracing packets, and the answers to them."""

from __future__ import annotations

from dataclasses import replace

from netsim.errors import UsageError
from netsim.interpreter.explore import LIMIT, explore
from netsim.interpreter.origin import LocalOrigin, Origin
from netsim.interpreter.outcome import Disposition, Outcome
from netsim.interpreter.state import State
from netsim.linux.network import Network
from netsim.packet.model import Icmp, Packet, Sctp, Tcp, TcpFlag, Udp

_ECHO = {8: 0, 128: 129}


def trace(
    network: Network,
    origin: Origin,
    packet: Packet,
    *,
    state: State | None = None,
    follow: str | int = "all",
    limit: int = LIMIT,
    only: str | None = None,
) -> list[Outcome]:
    """What becomes of ``packet``: every distinguishable outcome, most probable first; probabilities sum to 1.

    ``state`` is what earlier packets left behind; it is not changed, and each outcome carries the state after it.
    ``follow``: ``"all"`` branches, or a seed that picks one (its probability is still that of the way taken).
    ``only`` names a namespace: leaving it ends the trace with LEFT. UsageError past ``limit`` ways.
    """
    return [outcome for outcome, _ in trace_with_states(
        network, origin, packet, state=state, follow=follow, limit=limit, only=only
    )]  # fmt: skip


def trace_with_states(
    network: Network,
    origin: Origin,
    packet: Packet,
    *,
    state: State | None = None,
    follow: str | int = "all",
    limit: int = LIMIT,
    only: str | None = None,
) -> list[tuple[Outcome, State]]:
    """As ``trace``; each outcome comes with the state that the kernels are in afterwards."""
    found = explore(network, origin, packet, state=state, follow=follow, limit=limit, only=only)
    return [(replace(outcome, state=after), after) for outcome, after in found]


def trace_reply(
    network: Network, outcome: Outcome, *, follow: str | int = "all", limit: int = LIMIT, only: str | None = None
) -> list[Outcome]:
    """What becomes of the receiver's answer to a delivered packet, in the state that the packet left."""
    if outcome.disposition not in (Disposition.DELIVERED, Disposition.LEFT) or outcome.receiver is None:
        raise UsageError(f"a packet that was {outcome.disposition.value} has no receiver to answer it")
    state = outcome.state
    assert isinstance(state, State)
    origin = LocalOrigin(outcome.receiver)
    return trace(network, origin, answer_to(outcome.packet), state=state, follow=follow, limit=limit, only=only)


def answer_to(packet: Packet) -> Packet:
    """What a listening process answers: SYN/ACK to a SYN, swapped ports, an echo reply. UsageError if nothing."""
    body = packet.body
    swapped = replace(packet, src=packet.dst, dst=packet.src, ttl=64, ident=0, tos=0)
    if isinstance(body, Tcp):
        length = len(body.payload) + bool(body.flags & TcpFlag.SYN) + bool(body.flags & TcpFlag.FIN)
        acknowledged = (body.seq + length) & 0xFFFFFFFF
        flags = TcpFlag.ACK | (body.flags & (TcpFlag.SYN | TcpFlag.FIN))
        segment = Tcp(body.dport, body.sport, flags, seq=body.ack, ack=acknowledged, window=64240)
        return replace(swapped, body=segment)
    if isinstance(body, Udp):
        return replace(
            swapped, body=Udp(body.dport, body.sport, body.payload if isinstance(body.payload, bytes) else b"")
        )
    if isinstance(body, Sctp):
        init_ack = b"\x02\x00\x00\x14" + bytes(16)
        return replace(swapped, body=Sctp(body.dport, body.sport, body.vtag, init_ack))
    if isinstance(body, Icmp) and body.type in _ECHO:
        return replace(swapped, body=replace(body, type=_ECHO[body.type]))
    raise UsageError("nobody answers such a packet")
