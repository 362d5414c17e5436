"""What the lab will ask of the kernel, and the pieces of the lab that need no kernel."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from netsim.errors import UsageError
from netsim.lab import state
from netsim.lab.plan import UNDERLAY, netns, plan
from netsim.lab.udp_forwarder import one_less, unreachable
from netsim.linux.link import Link, LinkKind, VxlanOptions
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import TABLE_LOCAL, Address, FdbEntry, Neighbour, Route, RoutingRule
from netsim.packet.address import interface, ip, network
from netsim.packet.codec import packet_bytes, parse_packet
from netsim.packet.icmp import quoted
from netsim.packet.model import Icmp, Packet, Proto, Udp


def _pair() -> StaticNetwork:
    plug = Link("eth0", LinkKind.PHYSICAL, mac="02:00:00:00:00:01", segment="lan")
    tunnel = Link(
        "v1", LinkKind.VXLAN, mac="02:00:00:00:00:02", mtu=1450, vxlan=VxlanOptions(1, ip("10.0.0.1"), "eth0")
    )
    port = Link(
        "vethx", LinkKind.VETH, mac="02:00:00:00:00:03", mtu=1450, master="br", hairpin=True, peer=("pod/a/b", "eth0")
    )
    bridge = Link("br", LinkKind.BRIDGE, mac="02:00:00:00:00:04", mtu=1450)
    node = Namespace(
        "node/n1",
        (plug, tunnel, bridge, port),
        (Address("eth0", interface("10.0.0.1/24")), Address("v1", interface("10.9.1.0/32"))),
        (
            Route(network("0.0.0.0/0"), gateway=ip("10.0.0.254"), device="eth0"),
            Route(network("10.9.2.0/24"), gateway=ip("10.9.2.0"), device="v1", onlink=True, metric=7),
        ),
        neighbours=(Neighbour(ip("10.9.2.0"), "v1", "02:00:00:00:00:09"),),
        fdb=(FdbEntry("02:00:00:00:00:09", "v1", ip("10.0.0.2")),),
    )
    inside = Link("eth0", LinkKind.VETH, mac="02:00:00:00:00:05", mtu=1450, peer=("node/n1", "vethx"))
    return StaticNetwork({"node/n1": node, "pod/a/b": Namespace("pod/a/b", (inside,))}, {"lan": 1500})


def test_each_pair_is_made_once_with_both_ends_in_their_places() -> None:
    made = plan(_pair(), ["node/n1", "pod/a/b"])
    node, pod = made.batches["node/n1"], made.batches["pod/a/b"]
    assert pod.links == []
    plug, bridge, pair = node.links
    assert (pair.noun, pair.verb, pair.words["kind"]) == ("link", "add", "veth")
    assert {key: pair.words[key] for key in ("ifname", "address", "mtu")} == {
        "ifname": "vethx", "address": "02:00:00:00:00:03", "mtu": 1450,
    }  # fmt: skip
    far = {"ifname": "eth0", "address": "02:00:00:00:00:05", "mtu": 1450, "net_ns_fd": "/run/netns/pod.a.b"}
    assert pair.words["peer"] == far
    assert plug.words["peer"]["net_ns_fd"] == f"/run/netns/{UNDERLAY}"
    assert bridge.words["kind"] == "bridge"
    said = {request.about: request.words for request in node.rest}
    assert said["hairpin of vethx"] == {"index": "vethx", "mode": 1}
    assert said["device vethx"] == {"index": "vethx", "state": "up", "master": "br"}
    tunnelled = said["route 10.9.2.0/24 via 10.9.2.0 dev v1 table 254"]
    assert (tunnelled["flags"], tunnelled["priority"], tunnelled["oif"]) == (4, 7, "v1")
    entry = said["forwarding entry 02:00:00:00:00:09 of v1"]
    assert (entry["dst"], entry["flags"], entry["state"]) == ("10.0.0.2", 2, 0xC0)


def test_what_is_said_before_needs_nothing_said_after() -> None:
    """A device before what names it, a connected route before the gateway that it reaches."""
    said = [request.about for request in plan(_pair(), ["node/n1", "pod/a/b"]).batches["node/n1"].rest]
    order = ["device v1 (vxlan)", "device v1", "address 10.9.1.0/32 of v1", "neighbour 10.9.2.0 of v1"]
    assert [said.index(one) for one in order] == sorted(said.index(one) for one in order)
    assert said.index("address 10.0.0.1/24 of eth0") < said.index("route 0.0.0.0/0 via 10.0.0.254 dev eth0 table 254")


def test_a_pod_left_out_leaves_no_trace_on_its_node() -> None:
    node = plan(_pair(), ["node/n1"]).batches["node/n1"]
    assert not any("vethx" in request.about for request in [*node.links, *node.rest])


def test_routing_rules_replace_the_kernels_own_of_their_family_alone() -> None:
    rules = (RoutingRule(0, TABLE_LOCAL), RoutingRule(5, 100, source=network("10.9.0.0/16")))
    held = Namespace("node/n1", rules=(RoutingRule(5, 100, source=network("10.9.0.0/16")),))
    said = plan(StaticNetwork({"node/n1": held}), ["node/n1"]).batches["node/n1"].rest
    assert [(one.verb, one.words["priority"]) for one in said if one.noun == "rule"] == [
        ("del", 0), ("del", 32766), ("del", 32767), ("add", 5),
    ]  # fmt: skip
    assert {one.words["family"] for one in said if one.noun == "rule"} == {socket.AF_INET}
    both = Namespace("node/n1", rules=rules)
    said = plan(StaticNetwork({"node/n1": both}), ["node/n1"]).batches["node/n1"].rest
    added = [(one.words["family"], one.words["priority"]) for one in said if (one.noun, one.verb) == ("rule", "add")]
    assert added == [(socket.AF_INET, 0), (socket.AF_INET, 5), (socket.AF_INET6, 0)]


def test_long_names_stay_apart() -> None:
    first, second = (netns(f"pod/{'n' * 63}/{'p' * 250}{end}") for end in "ab")
    assert first != second
    assert len(first) < 255


def test_the_forwarder_costs_one_ttl_and_discards_the_last() -> None:
    packet = Packet(ip("10.9.1.2"), ip("10.9.2.2"), Proto.UDP, Udp(1, 2, b"x"), ttl=2)
    less = one_less(packet_bytes(packet))
    assert less is not None
    assert less == packet_bytes(parse_packet(less))  # the checksum is right
    assert parse_packet(less).ttl == 1
    assert one_less(less) is None


def test_the_forwarder_answers_for_a_missing_lease() -> None:
    packet = Packet(ip("10.9.1.2"), ip("10.9.7.2"), Proto.UDP, Udp(1, 2, b"x" * 40), ttl=9)
    message = unreachable(packet_bytes(packet), ip("10.9.1.0").packed)
    assert message is not None
    answer = parse_packet(message)
    assert (answer.src, answer.dst, answer.ttl) == (ip("10.9.1.0"), packet.src, 8)
    assert isinstance(answer.body, Icmp)
    assert (answer.body.type, answer.body.code) == (3, 0)
    inner = quoted(answer)
    assert inner is not None
    assert (inner.dst, inner.ttl) == (packet.dst, 9)
    ping = Packet(packet.src, packet.dst, Proto.ICMP, Icmp(8))
    assert unreachable(packet_bytes(ping), packet.dst.packed) is None
    header = bytearray(packet_bytes(packet))
    header[6:8] = struct.pack("!H", 1)  # a later fragment
    assert unreachable(bytes(header), packet.dst.packed) is None


def test_down_ends_only_what_the_lab_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lab = state.create("one")
    with pytest.raises(UsageError, match="already"):
        state.create("one")
    (lab.folder / "holder").write_text(f"{os.getpid()} 1\n")  # our own pid, of another process's time
    lab.write("holder", "intent")
    lab.journal.write_text(lab.journal.read_text() + '{"step": "li')
    assert [entry["step"] for entry in lab.entries()] == ["holder"]
    state.down(lab)
    state.down(lab)
    assert state.labs() == state.leftovers() == []


@pytest.mark.parametrize("name", ["", "../x", "A", "-a", "a" * 40, ".removed-x"])
def test_ids_that_could_be_anything_else_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        state.check_id(name)
