"""What holds for every packet: chances add up, answers come back translated the other way, TTL is accounted for."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.interpreter import Disposition, LocalOrigin, source_for, trace, trace_reply
from netsim.packet.address import ip
from netsim.packet.model import Packet, Proto, Sctp, Tcp, Udp
from tests.support.interpreter_worlds import cluster

ENDPOINTS = ("10.244.1.2:80", "10.244.1.3:80", "10.244.2.2:80", "10.244.2.3:80")
PLACES = ("pod/p12", "pod/p13", "pod/p22", "node/n1", "node/n2", "external")
ADDRESSES = ("10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3", "192.168.56.11", "192.168.56.12", "10.96.0.10")
BODIES = {Proto.TCP: Tcp, Proto.UDP: Udp, Proto.SCTP: Sctp}


def rules(endpoints: list[str], chances: list[float]) -> str:
    lines = [f"nat -A {hook} -d 10.96.0.10/32 -j SVC" for hook in ("PREROUTING", "OUTPUT")]
    lines.append("nat -A SVC ! -s 10.244.0.0/16 -j MARK --set-xmark 0x4000/0x4000")
    for endpoint, chance in zip(endpoints, chances, strict=True):
        address = endpoint.partition(":")[0]
        lines += [
            f"nat -A SVC -m statistic --mode random --probability {chance:.11f} -j SEP{address}",
            f"nat -A SEP{address} -s {address}/32 -j MARK --set-xmark 0x4000/0x4000",
            *(
                f"nat -A SEP{address} -p {proto} -j DNAT --to-destination {endpoint}"
                for proto in ("tcp", "udp", "sctp")
            ),
        ]
    lines.append("nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
    return "\n".join(lines) + "\n"


@settings(max_examples=60, deadline=None)
@given(
    endpoints=st.lists(st.sampled_from(ENDPOINTS), max_size=4, unique=True),
    chances=st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    place=st.sampled_from(PLACES),
    dst=st.sampled_from(ADDRESSES),
    proto=st.sampled_from(sorted(BODIES)),
    sport=st.integers(1, 65535),
    ttl=st.integers(1, 6),
    vxlan=st.booleans(),
)
def test_every_packet(endpoints, chances, place, dst, proto, sport, ttl, vxlan) -> None:  # type: ignore[no-untyped-def]
    net = cluster(rules(endpoints, chances[: len(endpoints)]), vxlan=vxlan)
    source = source_for(net, place, ip(dst))
    if source is None:
        return
    packet = Packet(source, ip(dst), proto, BODIES[proto](sport, 80), ttl=ttl)
    outcomes = trace(net, LocalOrigin(place), packet)
    assert sum((outcome.probability for outcome in outcomes), Fraction(0)) == 1
    for outcome in outcomes:
        assert 0 < outcome.probability <= 1
        assert outcome.decided_by is not None
        if outcome.disposition not in (Disposition.DELIVERED, Disposition.LEFT):
            continue
        spent = ttl - outcome.packet.ttl
        routed = sum(any(step.hook == "FORWARD" for step in hop.steps) for hop in outcome.hops)
        assert 0 <= spent <= routed
        if outcome.receiver is None:
            continue
        (reply,) = trace_reply(net, outcome)
        assert reply.receiver == place
        assert (reply.packet.src, reply.packet.sport) == (packet.dst, 80)
        assert (reply.packet.dst, reply.packet.dport) == (packet.src, sport)
