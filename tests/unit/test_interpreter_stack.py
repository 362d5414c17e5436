"""The stack's parts one by one: NAT, conntrack, bridges, REJECT, routing checks, IPv6, branches."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from netsim.errors import UsageError
from netsim.interpreter import Disposition, LocalOrigin, State, WireOrigin, source_for, trace, trace_reply
from netsim.interpreter.outcome import StepKind
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import Address, Route
from netsim.packet.address import Family, interface, ip, network
from netsim.packet.model import Icmp, Packet, Proto, Tcp, TcpFlag, Udp
from tests.support.interpreter_worlds import changed, cluster, mac, ruleset

VIP = "10.96.0.10"
SERVICE = f"""
nat -A PREROUTING -d {VIP}/32 -p tcp -m tcp --dport 80 -j SVC
nat -A OUTPUT -d {VIP}/32 -p tcp -m tcp --dport 80 -j SVC
nat -A SVC ! -s 10.244.0.0/16 -j MARK --set-xmark 0x4000/0x4000
nat -A SVC -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.244.2.2:8080
nat -A SVC -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.3:8080
nat -A SVC -j SEP
nat -A SEP -s 10.244.1.2/32 -j MARK --set-xmark 0x4000/0x4000
nat -A SEP -p tcp -j DNAT --to-destination 10.244.1.2:8080
nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j PASS
nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
nat -A PASS -j RETURN
"""


def tcp(src: str, dst: str, sport: int = 40000, dport: int = 80, flags: TcpFlag = TcpFlag.SYN, **more) -> Packet:  # type: ignore[no-untyped-def]
    return Packet(ip(src), ip(dst), Proto.TCP, Tcp(sport, dport, flags), **more)


def one(net, origin, packet, **more):  # type: ignore[no-untyped-def]
    (outcome,) = trace(net, origin, packet, **more)
    return outcome


def test_a_service_has_one_branch_for_each_endpoint() -> None:
    found = trace(cluster(SERVICE), LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP))
    assert sum(outcome.probability for outcome in found) == 1
    assert {outcome.receiver for outcome in found} == {"pod/p12", "pod/p13", "pod/p22"}
    first = next(outcome for outcome in found if outcome.receiver == "pod/p22")
    assert first.probability == Fraction(715827883, 1 << 31)
    hairpin = next(outcome for outcome in found if outcome.receiver == "pod/p12")
    assert (str(hairpin.packet.src), hairpin.masqueraded) == ("10.244.1.1", True)
    for outcome in found:
        assert outcome.decided_by is not None
        assert outcome.decided_by.step.text.endswith("10.244." + str(outcome.packet.dst)[7:] + ":8080")
        (reply,) = trace_reply(cluster(SERVICE), outcome)
        assert (reply.receiver, str(reply.packet.src), reply.packet.sport) == ("pod/p12", VIP, 80)


def test_the_hairpin_needs_hairpin_mode() -> None:
    net = changed(cluster(SERVICE), "node/n1", "veth2", hairpin=False)
    found = trace(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP))
    assert [o.disposition for o in found].count(Disposition.DROPPED) == 1


def test_a_seed_follows_one_branch_and_always_the_same() -> None:
    net = cluster(SERVICE)
    origin, packet = LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP)
    ways = {seed: one(net, origin, packet, follow=seed).receiver for seed in range(20)}
    assert len(set(ways.values())) == 3
    assert ways == {seed: one(net, origin, packet, follow=seed).receiver for seed in range(20)}


def test_too_many_branches_are_refused() -> None:
    with pytest.raises(UsageError, match="seed"):
        trace(cluster(SERVICE), LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP), limit=2)


def test_a_service_from_its_own_node_is_rerouted_and_masqueraded() -> None:
    net = cluster(SERVICE)
    assert source_for(net, "node/n1", ip(VIP)) == ip("192.168.56.11")
    found = trace(net, LocalOrigin("node/n1"), tcp("0.0.0.0", VIP))
    seen = {outcome.receiver: str(outcome.packet.src) for outcome in found}
    assert seen == {"pod/p12": "10.244.1.1", "pod/p13": "10.244.1.1", "pod/p22": "10.244.1.0"}


def test_without_bridge_nf_a_sibling_is_not_reached_through_a_service() -> None:
    """The answer would go straight over the bridge, untranslated, and is not what the client waits for."""
    net = cluster(SERVICE, **{"net.bridge.bridge-nf-call-iptables": "0"})
    found = trace(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP))
    sibling = next(outcome for outcome in found if outcome.receiver == "pod/p13")
    assert sibling.packet.ttl == 63
    (reply,) = trace_reply(net, sibling)
    assert str(reply.packet.src) == "10.244.1.3"


@pytest.mark.parametrize(
    ("with_", "kind", "code"),
    [
        ("icmp-port-unreachable", 3, 3),
        ("icmp-net-unreachable", 3, 0),
        ("icmp-host-unreachable", 3, 1),
        ("icmp-proto-unreachable", 3, 2),
        ("icmp-net-prohibited", 3, 9),
        ("icmp-host-prohibited", 3, 10),
        ("icmp-admin-prohibited", 3, 13),
        ("tcp-reset", -1, 0),
    ],
)
@pytest.mark.parametrize("origin", ["pod/p12", "node/n1"])
def test_reject(with_: str, kind: int, code: int, origin: str) -> None:
    rules = "\n".join(
        f"filter -A {chain} -d {VIP}/32 -p tcp -j REJECT --reject-with {with_}" for chain in ("FORWARD", "OUTPUT")
    )
    outcome = one(cluster(rules), LocalOrigin(origin), tcp("0.0.0.0", VIP))
    assert outcome.disposition is Disposition.REJECTED
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, outcome.icmp.arrived) == (kind, code, True)
    if kind < 0:
        assert isinstance(outcome.icmp.packet.body, Tcp)
        assert outcome.icmp.packet.body.flags == TcpFlag.RST | TcpFlag.ACK
        assert outcome.icmp.packet.body.ack == 1


def test_a_reject_behind_dnat_is_translated_back() -> None:
    rules = SERVICE + "filter -A FORWARD -p tcp -m tcp --dport 8080 -j REJECT --reject-with icmp-port-unreachable"
    for outcome in trace(cluster(rules), LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP)):
        assert outcome.icmp is not None
        assert outcome.icmp.arrived
        assert str(outcome.icmp.packet.src) == VIP


def test_drop_and_policy() -> None:
    outcome = one(cluster("filter -A FORWARD -p tcp -j DROP"), LocalOrigin("pod/p12"), tcp("0.0.0.0", "10.244.2.2"))
    assert (outcome.disposition, outcome.icmp) == (Disposition.DROPPED, None)
    assert outcome.decided_by is not None
    step = outcome.decided_by.step
    assert (step.text, step.rule, step.hook, step.table) == ("-A FORWARD -p tcp -j DROP", 1, "FORWARD", "filter")


def test_conntrack_states() -> None:
    rules = """
    filter -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    filter -A FORWARD -m conntrack --ctstate INVALID -j DROP
    filter -A FORWARD -s 10.244.1.2/32 -j ACCEPT
    filter -A FORWARD -j DROP
    """
    net = cluster(rules)
    opened = one(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", "10.244.2.2"))
    assert opened.disposition is Disposition.DELIVERED
    assert trace_reply(net, opened)[0].disposition is Disposition.DELIVERED
    unasked = one(net, LocalOrigin("pod/p22"), tcp("10.244.2.2", "10.244.1.2"))
    assert unasked.disposition is Disposition.DROPPED
    stray = tcp("10.244.1.2", "10.244.2.2", flags=TcpFlag.SYN | TcpFlag.ACK)
    outcome = one(net, LocalOrigin("pod/p12"), stray)
    assert outcome.decided_by is not None
    assert "INVALID" in outcome.decided_by.step.text


def test_connections_expire() -> None:
    net = cluster(
        "filter -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nfilter -A FORWARD -d 10.244.1.2 -j DROP"
    )
    request = Packet(ip("10.244.1.2"), ip("10.244.2.2"), Proto.UDP, Udp(40000, 53))
    asked = one(net, LocalOrigin("pod/p12"), request)
    assert trace_reply(net, asked)[0].disposition is Disposition.DELIVERED
    assert isinstance(asked.state, State)
    asked.state.now += 31
    assert trace_reply(net, asked)[0].disposition is Disposition.DROPPED


def test_masquerade_moves_a_port_that_is_taken() -> None:
    net = cluster()
    outside = "192.168.56.100"
    first = one(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", outside))
    assert first.packet.sport == 40000
    second = one(net, LocalOrigin("pod/p13"), tcp("10.244.1.3", outside), state=first.state)
    assert second.packet.src == first.packet.src
    assert second.packet.sport not in (None, 40000)
    (reply,) = trace_reply(net, second)
    assert (reply.receiver, reply.packet.dport) == ("pod/p13", 40000)


def test_ping_ids_are_translated_too() -> None:
    net = cluster()
    echo = Icmp(8, 0, 7 << 16 | 1)
    first = one(net, LocalOrigin("pod/p12"), Packet(ip("10.244.1.2"), ip("192.168.56.100"), Proto.ICMP, echo))
    second = one(
        net,
        LocalOrigin("pod/p13"),
        Packet(ip("10.244.1.3"), ip("192.168.56.100"), Proto.ICMP, echo),
        state=first.state,
    )
    assert isinstance(second.packet.body, Icmp)
    assert second.packet.body.rest >> 16 != 7
    (reply,) = trace_reply(net, second)
    assert reply.receiver == "pod/p13"
    assert isinstance(reply.packet.body, Icmp)
    assert reply.packet.body.rest == 7 << 16 | 1


@pytest.mark.parametrize(("rule", "want"), [
    ("-j REDIRECT --to-ports 9000", ("node/n1", "10.244.1.1", 9000)),
    ("-j DNAT --to-destination 10.244.1.3", ("pod/p13", "10.244.1.3", 80)),
    ("-j DNAT --to-destination :9000", ("pod/p22", "10.244.2.2", 9000)),
])  # fmt: skip
def test_destination_targets(rule: str, want: tuple[str, str, int]) -> None:
    net = cluster(f"nat -A PREROUTING -s 10.244.1.2/32 -p tcp {rule}")
    outcome = one(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", "10.244.2.2"))
    assert (outcome.receiver, str(outcome.packet.dst), outcome.packet.dport) == want


def test_martians_and_forwarding() -> None:
    net = cluster()
    loopback = one(net, WireOrigin("node/n1", "ens3"), tcp("127.0.0.1", "192.168.56.11"))
    assert loopback.disposition is Disposition.DROPPED
    own = one(net, WireOrigin("node/n1", "ens3"), tcp("10.244.1.1", "192.168.56.11"))
    assert own.disposition is Disposition.DROPPED
    off = cluster(**{"net.ipv4.ip_forward": "0"})
    stuck = one(off, LocalOrigin("pod/p12"), tcp("10.244.1.2", "10.244.2.2"))
    assert (stuck.disposition, stuck.icmp) == (Disposition.UNREACHABLE, None)


def test_strict_reverse_path_filter() -> None:
    strict = cluster(**{"net.ipv4.conf.all.rp_filter": "1"})
    spoofed = one(strict, WireOrigin("node/n1", "ens3"), tcp("10.244.1.2", "192.168.56.11"))
    assert spoofed.disposition is Disposition.DROPPED
    loose = cluster(**{"net.ipv4.conf.all.rp_filter": "2"})
    assert (
        one(loose, WireOrigin("node/n1", "ens3"), tcp("10.244.1.2", "192.168.56.11")).disposition
        is Disposition.DELIVERED
    )


def test_only_one_node() -> None:
    net = cluster()
    alone = replace(net, namespaces={"node/n1": net.namespaces["node/n1"]})
    out = one(alone, WireOrigin("node/n1", "veth2"), tcp("10.244.1.2", "8.8.8.8"), only="node/n1")
    assert (out.disposition, str(out.packet.src)) == (Disposition.LEFT, "192.168.56.11")
    tunnelled = one(alone, WireOrigin("node/n1", "veth2"), tcp("10.244.1.2", "10.244.2.2"), only="node/n1")
    assert (tunnelled.disposition, tunnelled.packet.proto) == (Disposition.LEFT, Proto.UDP)
    pod = one(alone, WireOrigin("node/n1", "ens3"), tcp("192.168.56.100", "10.244.1.2"), only="node/n1")
    assert (pod.disposition, str(pod.packet.dst)) == (Disposition.LEFT, "10.244.1.2")


def router_loop() -> StaticNetwork:
    def router(name: str, own: str, other: str, far: str) -> Namespace:
        return Namespace(
            name,
            (Link("eth0", LinkKind.PHYSICAL, mac(7, int(own[-1])), segment="s"),),
            (Address("eth0", interface(f"{own}/24")),),
            (Route(network(far), ip(other), "eth0"),),
            sysctls={"net.ipv4.ip_forward": "1"},
        )

    far = "172.16.0.0/16"
    spaces = (router("a", "10.0.0.1", "10.0.0.2", far), router("b", "10.0.0.2", "10.0.0.1", far))
    return StaticNetwork({space.name: space for space in spaces})


def test_a_routing_loop_is_named() -> None:
    outcome = one(router_loop(), WireOrigin("a", "eth0"), tcp("10.0.0.9", "172.16.1.1"))
    assert outcome.disposition is Disposition.LOOPED


V6_RULES = """
nat -A PREROUTING -d fd00:96::a/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:2::2]:8080
nat -A POSTROUTING -s fd00:1::/64 -o up -j MASQUERADE
"""


def v6() -> StaticNetwork:
    client = Namespace(
        "client",
        (Link("eth0", LinkKind.VETH, mac(8, 1), peer=("gw", "down")),),
        (Address("eth0", interface("fd00:1::2/64")),),
        (Route(network("::/0"), ip("fd00:1::1"), "eth0"),),
    )
    gateway = Namespace(
        "gw",
        (
            Link("down", LinkKind.VETH, mac(8, 2), peer=("client", "eth0")),
            Link("up", LinkKind.VETH, mac(8, 3), 1280, peer=("server", "eth0")),
        ),
        (Address("down", interface("fd00:1::1/64")), Address("up", interface("fd00:2::1/64"))),
        sysctls={"net.ipv6.conf.all.forwarding": "1"},
        rulesets={Family.IPV6: ruleset(V6_RULES, Family.IPV6)},
    )
    server = Namespace(
        "server",
        (Link("eth0", LinkKind.VETH, mac(8, 4), 1280, peer=("gw", "up")),),
        (Address("eth0", interface("fd00:2::2/64")),),
    )
    return StaticNetwork({space.name: space for space in (client, gateway, server)})


def test_ipv6_nat_both_ways() -> None:
    outcome = one(v6(), LocalOrigin("client"), tcp("::", "fd00:96::a"))
    assert (outcome.receiver, str(outcome.packet.src), outcome.packet.dport) == ("server", "fd00:2::1", 8080)
    (reply,) = trace_reply(v6(), outcome)
    assert (reply.receiver, str(reply.packet.src), reply.packet.sport) == ("client", "fd00:96::a", 80)


def test_ipv6_routers_never_fragment() -> None:
    packet = Packet(ip("fd00:1::2"), ip("fd00:2::2"), Proto.UDP, Udp(1, 2, bytes(1400)))
    outcome = one(v6(), LocalOrigin("client"), packet)
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.mtu, outcome.icmp.arrived) == (2, 1280, True)
    again = one(v6(), LocalOrigin("client"), packet, state=outcome.state)
    assert again.disposition is Disposition.DELIVERED
    assert any(step.kind is StepKind.FRAGMENT for step in again.hops[0].steps)


@pytest.mark.parametrize(
    ("dst", "ttl", "kind", "code", "answer"),
    [
        ("fd00:2::2", 1, 3, 0, "fd00:1::1"),
        ("fd00:2::9", 64, 1, 3, "fd00:2::1"),  # the source was masqueraded before the neighbour failed
        ("fd99::1", 64, 1, 0, "fd00:1::1"),
    ],
)
def test_ipv6_errors(dst: str, ttl: int, kind: int, code: int, answer: str) -> None:
    outcome = one(v6(), LocalOrigin("client"), tcp("fd00:1::2", dst, ttl=ttl))
    assert outcome.icmp is not None
    assert (outcome.icmp.type, outcome.icmp.code, str(outcome.icmp.origin)) == (kind, code, answer)
    assert outcome.icmp.arrived


def test_untracked_packets_are_not_translated() -> None:
    net = cluster(SERVICE + f"raw -A PREROUTING -d {VIP}/32 -j CT --notrack")
    outcome = one(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", VIP))
    assert (outcome.disposition, str(outcome.packet.dst)) == (Disposition.LEFT, VIP)


def test_bridged_frames_pass_iptables_but_keep_their_ttl() -> None:
    net = cluster()
    sibling = one(net, LocalOrigin("pod/p12"), tcp("10.244.1.2", "10.244.1.3"))
    hop = sibling.hops[1]
    assert [(device, way) for device, way, _ in hop.wire] == [("veth2", "in"), ("veth3", "out")]
    assert sibling.packet.ttl == 64
    forward = [step for step in hop.steps if step.hook == "FORWARD"]
    assert forward
