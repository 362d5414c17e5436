"""What rules see of a packet at a hook, and what they remember; each a fact that the kernel comparison found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netsim.interpreter import Disposition, LocalOrigin, Outcome, State, WireOrigin, trace
from netsim.linux.conntrack_tcp import Side, TcpTrack
from netsim.linux.fib import default_rules
from netsim.linux.ipset import parse_save
from netsim.linux.link import Link, LinkKind
from netsim.linux.netfilter.text import parse_save as parse_rules
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import Address, Neighbour, Route, RouteType, RoutingRule
from netsim.packet.address import Family, interface, ip, network
from netsim.packet.model import BROADCAST_MAC, Frame, Packet, Proto, Tcp, TcpFlag, Udp
from tests.support.interpreter_worlds import mac, ruleset

A, B, P, Q = mac(2, 1), mac(2, 2), mac(2, 3), mac(2, 4)  # the hosts beyond a0 and b0, and beyond br0's ports


def router(rules: str = "", sets: str = "", routes: tuple[Route, ...] = (), **sysctls: str) -> StaticNetwork:
    links = (
        Link("lo", LinkKind.LOOPBACK, mtu=65536),
        Link("br0", LinkKind.BRIDGE, mac(1, 5)),
        Link("a0", LinkKind.VETH, mac(1, 1), peer=("outside", "xa0")),
        Link("b0", LinkKind.VETH, mac(1, 2), peer=("outside", "xb0")),
        Link("p1", LinkKind.VETH, mac(1, 3), master="br0", peer=("outside", "xp1")),
        Link("p2", LinkKind.VETH, mac(1, 4), master="br0", peer=("outside", "xp2")),
    )
    held = (("a0", "10.1.0"), ("b0", "10.2.0"), ("br0", "10.3.0"))
    addresses = tuple(Address(device, interface(f"{net}.1/24")) for device, net in held)
    neighbours = tuple(
        Neighbour(ip(f"{net}.2"), device, far) for (device, net), far in zip(held, (A, B, P), strict=True)
    )
    values = {"net.ipv4.ip_forward": "1", **{key.replace("_DOT_", "."): value for key, value in sysctls.items()}}
    space = Namespace(
        "R", links, addresses, routes, (), neighbours, (), values, {Family.IPV4: ruleset(rules)}, parse_save(sets)
    )
    return StaticNetwork({"R": space})


def udp(src: str, dst: str, sport: int = 1000, dport: int = 2000) -> Packet:
    return Packet(ip(src), ip(dst), Proto.UDP, Udp(sport, dport, b"x"))


def tcp(src: str, dst: str, flags: TcpFlag, seq: int = 1, ack: int = 0) -> Packet:
    return Packet(ip(src), ip(dst), Proto.TCP, Tcp(1000, 2000, flags, seq, ack))


def at(net: StaticNetwork, device: str | None, packet: Packet, state: State | None = None, to: str = "") -> Outcome:
    far = {"a0": A, "b0": B, "p1": P, "p2": Q}
    origin = LocalOrigin("R") if device is None else WireOrigin("R", device, far[device], to or None)
    (outcome,) = trace(net, origin, packet, state=state, only="R")
    return outcome


def rules_of(outcome: Outcome) -> list[str]:
    hops = (*outcome.hops, *outcome.error_hops)
    return [step.text for hop in hops for step in hop.steps if step.kind.value == "rule"]


def out(outcome: Outcome) -> list[tuple[str, str]]:
    """(device, destination MAC) of every frame that leaves."""
    wires = [wire for hop in (*outcome.hops, *outcome.error_hops) for wire in hop.wire]
    return [(device, what.dst) for device, direction, what in wires if direction == "out" and isinstance(what, Frame)]


def test_a_nat_table_without_nat_tracks_nothing() -> None:
    outcome = at(router("nat -A PREROUTING -j ACCEPT"), "a0", udp("10.1.0.2", "10.2.0.2"))
    assert isinstance(outcome.state, State)
    assert (len(outcome.state.of("R").conntrack), rules_of(outcome)) == (0, [])


def test_mac_and_pkttype_go_by_the_frame() -> None:
    net = router(f"mangle -A PREROUTING -m mac --mac-source {A}\nmangle -A PREROUTING -m pkttype --pkt-type broadcast")
    assert len(rules_of(at(net, "a0", udp("10.1.0.2", "10.2.0.2")))) == 1
    outcome = at(net, "a0", udp("10.1.0.2", "10.2.0.2"), to=BROADCAST_MAC)
    assert (len(rules_of(outcome)), outcome.disposition) == (2, Disposition.DROPPED)  # and is not forwarded


def test_output_keeps_its_device_until_it_is_over() -> None:
    net = router(
        "nat -A OUTPUT -d 10.2.0.2/32 -j DNAT --to-destination 10.1.0.2\n"
        "filter -A OUTPUT -o b0 -j ACCEPT\nfilter -A OUTPUT -o a0 -j DROP\nmangle -A POSTROUTING -o a0"
    )
    outcome = at(net, None, udp("10.1.0.1", "10.2.0.2"))
    assert [text.split()[1] for text in rules_of(outcome)] == ["OUTPUT", "OUTPUT", "POSTROUTING"]
    assert out(outcome) == [("a0", A)]


def test_owner_is_the_socket_wherever_the_packet_gets() -> None:
    net = router(
        "mangle -A POSTROUTING -m owner --uid-owner 0\nmangle -A POSTROUTING -m owner ! --socket-exists\n"
        "filter -A FORWARD -d 10.2.0.3/32 -j REJECT\nfilter -A OUTPUT -m owner --socket-exists"
    )
    assert [text.split()[-1] for text in rules_of(at(net, None, udp("10.1.0.1", "10.2.0.2")))] == [
        "--socket-exists",
        "0",
    ]
    assert [text.split()[-1] for text in rules_of(at(net, "a0", udp("10.1.0.2", "10.2.0.2")))] == ["--socket-exists"]
    told = rules_of(at(net, "a0", udp("10.1.0.2", "10.2.0.3")))  # the error has a socket of the kernel's, of no user
    assert [text.split()[1] for text in told] == ["FORWARD", "OUTPUT"]


def test_rules_written_alike_count_apart() -> None:
    rule = "filter -A FORWARD -m limit --limit 1/hour --limit-burst 1 -j ACCEPT\n"
    state = at(router(rule * 2), "a0", udp("10.1.0.2", "10.2.0.2")).state
    assert isinstance(state, State)
    second = at(router(rule * 2), "a0", udp("10.1.0.2", "10.2.0.2"), state)
    assert len(rules_of(second)) == 1
    third = at(router(rule * 2), "a0", udp("10.1.0.2", "10.2.0.2"), second.state)  # type: ignore[arg-type]
    assert rules_of(third) == []


def test_set_changes_what_later_rules_find() -> None:
    net = router(
        "filter -A FORWARD -m set --match-set seen src -j DROP\nfilter -A FORWARD -p udp -j SET --add-set seen src\n"
        "filter -A FORWARD -p tcp -j SET --del-set seen src",
        "create seen hash:ip family inet",
    )
    first = at(net, "a0", udp("10.1.0.2", "10.2.0.2"))
    second = at(net, "a0", udp("10.1.0.2", "10.2.0.2"), first.state)  # type: ignore[arg-type]
    assert (first.disposition, second.disposition) == (Disposition.LEFT, Disposition.DROPPED)
    assert at(net, "a0", udp("10.1.0.2", "10.2.0.2")).disposition is Disposition.LEFT  # the network itself is as it was


@pytest.mark.parametrize(("options", "matches"), [("", True), ("--invert", False)])
def test_rpfilter_passes_loopback(options: str, matches: bool) -> None:
    net = router(f"raw -A PREROUTING -m rpfilter {options}")
    assert bool(rules_of(at(net, None, udp("10.1.0.1", "10.2.0.1")))) is matches


def test_flooding_begins_with_the_latest_port() -> None:
    net = router("filter -A FORWARD -m statistic --mode nth --every 2 --packet 0 -j DROP")
    third = mac(9, 9)
    assert out(at(net, "p1", udp("10.3.0.2", "10.3.0.9"), to=third)) == []
    assert out(at(router(), "p1", udp("10.3.0.2", "10.3.0.9"), to=third)) == [("p2", third)]


def test_reject_of_a_frame_between_ports_answers_from_the_way_back() -> None:
    net = router("filter -A FORWARD -j REJECT --reject-with icmp-host-prohibited")
    outcome = at(net, "p1", udp("10.3.0.2", "10.1.0.1"), to=Q)
    assert outcome.icmp is not None
    assert str(outcome.icmp.packet.src) == "10.3.0.1"


def test_an_error_to_a_broadcast_address_goes_to_all_and_to_oneself() -> None:
    outcome = at(router(), "b0", udp("10.1.0.255", "10.9.9.9"))
    assert out(outcome) == [("a0", BROADCAST_MAC)]
    assert sum(len(hop.delivered) for hop in outcome.error_hops) == 1


def test_a_reset_closes_the_connection_that_it_answers() -> None:
    net = router(
        "filter -A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nfilter -A FORWARD -p tcp -j REJECT --reject-with tcp-reset"
    )
    syn = at(net, "a0", tcp("10.1.0.2", "10.2.0.2", TcpFlag.SYN))
    answer = Packet(ip("10.2.0.2"), ip("10.1.0.2"), Proto.TCP, Tcp(2000, 1000, TcpFlag.SYN | TcpFlag.ACK, 9, 2))
    rejected = at(net, "b0", answer, syn.state)  # type: ignore[arg-type]
    assert rejected.disposition is Disposition.REJECTED
    assert isinstance(rejected.state, State)
    assert [entry.state for entry in rejected.state.of("R").conntrack.entries()] == ["CLOSE"]


def test_a_flow_to_itself_is_found_as_a_reply() -> None:
    net = router("filter -A OUTPUT -m conntrack --ctstate ESTABLISHED")
    packet = udp("10.1.0.1", "10.1.0.1", 5000, 5000)
    first = at(net, None, packet)
    assert rules_of(first) == []
    assert len(rules_of(at(net, None, packet, first.state))) == 1  # type: ignore[arg-type]


def test_a_tunnel_that_leads_into_itself_ends() -> None:
    from netsim.linux.link import VxlanOptions
    from netsim.linux.route import FdbEntry

    space = router("nat -A OUTPUT -p udp -m udp --dport 8472 -j DNAT --to-destination 10.8.0.2").namespace("R")
    tunnel = Link("vx0", LinkKind.VXLAN, mac(1, 6), 1450, vxlan=VxlanOptions(7, ip("10.2.0.1"), "b0"))
    net = StaticNetwork({"R": Namespace(
        "R", (*space.links, tunnel), (*space.addresses, Address("vx0", interface("10.8.0.1/24"))),
        (Route(network("10.9.0.0/16"), ip("10.8.0.2"), "vx0"),), (),
        (*space.neighbours, Neighbour(ip("10.8.0.2"), "vx0", mac(2, 6))), (FdbEntry(mac(2, 6), "vx0", ip("10.2.0.2")),),
        space.sysctls, space.rulesets,
    )})  # fmt: skip
    outcome = at(net, "a0", udp("10.1.0.2", "10.9.0.1"))
    assert outcome.disposition is Disposition.DROPPED
    assert outcome.decided_by is not None
    assert "into itself" in outcome.decided_by.step.text


def test_a_sender_is_told_five_times_that_there_is_no_route_then_once_a_second() -> None:
    """``ip_error``; a broadcast frame, which gets no error, counts like all others."""
    net, state, told = router(), State(), []
    for number, when in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 1.1, 1.2)):
        state.now = when
        outcome = at(net, "a0", udp("10.1.0.2", "172.16.9.9"), state, BROADCAST_MAC if number == 2 else "")
        assert outcome.disposition is Disposition.UNREACHABLE
        assert isinstance(outcome.state, State)
        state = outcome.state
        told.append(outcome.icmp is not None)
    assert told == [True, True, False, True, True, False, False, True, False]
    other = at(net, "b0", udp("10.2.0.2", "172.16.9.9"), state)
    assert other.icmp is not None


def test_a_rule_that_is_unreachable_says_net_and_a_route_says_host() -> None:
    net = router(routes=(Route(network("10.66.2.0/24"), type=RouteType.UNREACHABLE),))
    space = net.namespace("R")
    rule = RoutingRule(100, destination=network("10.66.3.0/24"), action="unreachable")
    ruled = StaticNetwork({"R": replace(space, rules=(*default_rules(Family.IPV4), rule))})
    codes = [
        outcome.icmp.code
        for destination in ("10.66.2.1", "10.66.3.1")
        if (outcome := at(ruled, "a0", udp("10.1.0.2", destination))).icmp is not None
    ]
    assert codes == [1, 0]


@pytest.mark.parametrize("nft", [False, True])
def test_table_security_comes_before_source_translation_unless_it_is_iptables_nfts(nft: bool) -> None:
    rules = "nat -A INPUT -j SNAT --to-source 10.9.9.9\nsecurity -A INPUT -s 10.9.9.9/32 -j DROP"
    held = replace(ruleset(rules), nft=nft)
    net = StaticNetwork({"R": replace(router().namespace("R"), rulesets={Family.IPV4: held})})
    outcome = at(net, "a0", udp("10.1.0.2", "10.1.0.1"))
    assert outcome.disposition is (Disposition.DROPPED if nft else Disposition.DELIVERED)
    text = "".join(print_save(held))
    assert parse_rules(text, Family.IPV4) == held
    assert parse_rules(text.replace(" (nf_tables)", " v1.8.9"), Family.IPV4) == replace(held, nft=False)


def test_what_is_for_everybody_leaves_by_the_device_of_its_source() -> None:
    """``ip_route_output_key_hash_rcu``: no route is asked, and the sender hears it too."""
    outcome = at(router(), None, udp("10.2.0.1", "255.255.255.255"))
    assert out(outcome) == [("b0", BROADCAST_MAC)]
    assert [packet for hop in outcome.hops for packet in hop.delivered] == [udp("10.2.0.1", "255.255.255.255")]
    assert at(router(), None, udp("10.7.0.1", "255.255.255.255")).disposition is Disposition.UNREACHABLE


def test_masquerade_leaves_a_host_without_an_address_alone() -> None:
    net = router("nat -A POSTROUTING -j MASQUERADE", **{"net_DOT_bridge_DOT_bridge-nf-call-iptables": "1"})
    outcome = at(net, "p1", udp("0.0.0.0", "10.3.0.9"), None, Q)
    assert str(outcome.packet.src) == "0.0.0.0"


def test_windows_are_enforced_again_only_for_the_side_that_began_anew() -> None:
    """``nf_ct_tcp_state_reset``: a connection picked up in midstream that a SYN and its answer bring back in step."""
    track = TcpTrack.begin(Tcp(1, 2, TcpFlag.ACK, 1000, 5000), loose=True)
    assert track is not None
    said = (
        (TcpFlag.ACK, 1000, 5000, False), (TcpFlag.SYN, 500_000, 0, False),
        (TcpFlag.SYN | TcpFlag.ACK, 9000, 500_001, True),
    )  # fmt: skip
    for flags, seq, ack, reply in said:
        track.advance(Tcp(2 if reply else 1, 1 if reply else 2, flags, seq, ack), reply, False)
    assert [side.liberal for side in track.sides] == [False, True]
    far = Tcp(2, 1, TcpFlag.FIN | TcpFlag.ACK, 9_000_000, 500_001)
    assert track.copy().advance(far, True, False) == "ok"
    assert track.copy().advance(Tcp(1, 2, TcpFlag.FIN | TcpFlag.ACK, 9_000_000, 9001), False, False) == "invalid"


def test_a_syn_without_options_keeps_the_scale_of_an_earlier_one() -> None:
    """``tcp_options`` returns before it resets anything."""
    side, scaled = Side(), Tcp(1, 2, TcpFlag.SYN, 1, 0, options=b"\x01\x03\x03\x07")
    side.begin(scaled, Side(), False)
    side.begin(replace(scaled, options=b"", seq=5), Side(), False)
    assert (side.scale, side.scales) == (7, True)
    side.begin(replace(scaled, options=b"\x02\x04\x05\xb4", seq=9), Side(), False)
    assert (side.scale, side.scales) == (0, False)


def test_loopback_addresses_leave_only_where_route_localnet_says_so() -> None:
    rules = "nat -A OUTPUT -d 127.0.0.1/32 -j DNAT --to-destination 10.1.0.2"
    here = at(router(rules), None, udp("127.0.0.1", "127.0.0.1"))
    assert here.disposition is Disposition.UNREACHABLE
    assert "127.0.0.1 does not leave by a0" in [step.text for hop in here.hops for step in hop.steps][-1]
    let = at(
        router(rules, **{"net_DOT_ipv4_DOT_conf_DOT_all_DOT_route_localnet": "1"}), None, udp("127.0.0.1", "127.0.0.1")
    )
    assert out(let) == [("a0", A)]
