"""What the kernel holds after ``lab up`` is what the model says: read back with the kernel's own tools."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from netsim.errors import PrivilegeError
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.lab import build, holder, netlink, state
from netsim.lab.holder import within
from netsim.lab.netlink import Netlink
from netsim.lab.plan import netns, plan
from netsim.linux import iproute_text
from netsim.linux.iproute_json import read_links
from netsim.linux.kernel_made import all_addresses, is_secondary, primaries
from netsim.linux.link import Link, LinkKind, TunnelOptions, UdpTunnelOptions, VxlanOptions
from netsim.linux.link_text import address_text
from netsim.linux.netfilter.text import parse_save
from netsim.linux.network import Namespace, Network, StaticNetwork
from netsim.linux.route import (
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    FdbEntry,
    Neighbour,
    NextHop,
    Route,
    RouteType,
    RoutingRule,
)
from netsim.packet.address import Family, interface, ip, network
from netsim.topology.assemble import assemble

pytestmark = pytest.mark.kernel
MAC = "02:00:00:00:00:{:02x}".format


def everything(*more: Link) -> StaticNetwork:
    """One of each kind of object that a lab makes, and every option of it that the model has."""
    links = (
        Link("lo", LinkKind.LOOPBACK, mtu=65536),
        Link("eth0", LinkKind.PHYSICAL, mac=MAC(1), segment="lan"),
        Link("br0", LinkKind.BRIDGE, mac=MAC(2), mtu=1450),
        Link("port", LinkKind.VETH, mac=MAC(3), mtu=1450, master="br0", hairpin=True, peer=("pod/a/b", "eth0")),
        Link("quiet", LinkKind.BRIDGE, mac=MAC(4), up=False),
        Link("vx4", LinkKind.VXLAN, mac=MAC(5), mtu=1400, vxlan=VxlanOptions(7, ip("192.168.7.1"), "eth0", 4789)),
        Link("vx6", LinkKind.VXLAN, mac=MAC(6), vxlan=VxlanOptions(8, ip("fd00:7::1"), None, 8472, True, False)),
        Link("tun0", LinkKind.TUN, mtu=1472, udp_tunnel=UdpTunnelOptions(ip("192.168.7.1"), 8285, ip("10.9.0.0"))),
        *more,
    )
    addresses = (
        Address("eth0", interface("192.168.7.1/24")),
        Address("eth0", interface("192.168.7.9/24")),
        Address("eth0", interface("fd00:7::1/64")),
        Address("br0", interface("10.9.1.1/24"), noprefixroute=True),
        Address("vx4", interface("10.9.1.0/32")),
        Address("tun0", interface("10.9.0.0/32"), scope="link"),
        Address("lo", interface("169.254.20.10/32"), scope="host"),
    )
    routes = (
        Route(network("0.0.0.0/0"), gateway=ip("192.168.7.254"), device="eth0", mtu=1400, metric=100),
        Route(network("10.9.1.0/24"), device="br0", scope="link", source=ip("10.9.1.1")),
        Route(network("10.9.2.0/24"), gateway=ip("10.9.2.0"), device="vx4", onlink=True, protocol="bird"),
        Route(network("10.9.0.0/16"), device="tun0", scope="link", protocol="boot"),
        Route(network("10.9.9.7/32"), device="br0", scope="host", protocol="80"),
        Route(network("10.8.0.0/16"), nexthops=(
            NextHop(ip("192.168.7.2"), "eth0", 3), NextHop(ip("192.168.7.3"), "eth0", 1), NextHop(None, "br0", 200),
        )),
        Route(network("10.7.0.0/16"), gateway=ip("192.168.7.5"), device="eth0", table=100),
        Route(network("10.6.0.0/16"), type=RouteType.BLACKHOLE),
        Route(network("10.5.0.0/16"), type=RouteType.UNREACHABLE, table=100),
        Route(network("10.4.0.0/16"), type=RouteType.THROW, table=1000),
        Route(network("fd00:9::/32"), gateway=ip("fd00:7::2"), device="eth0", metric=42),
        Route(network("fd00:8::/32"), gateway=ip("fd00:7::3"), device="eth0", table=100),
        Route(network("fd00:6::/32"), type=RouteType.PROHIBIT),
    )  # fmt: skip
    rules = (
        RoutingRule(0, TABLE_LOCAL),
        RoutingRule(10, 100, source=network("10.9.1.0/24"), destination=network("10.7.0.0/16"), family=Family.IPV4),
        RoutingRule(11, 100, iif="br0", mark=0x4000, mask=0xC000, family=Family.IPV4),
        RoutingRule(12, 1000, oif="eth0", invert=True, source=network("10.0.0.0/8"), family=Family.IPV4),
        RoutingRule(13, action="prohibit", source=network("10.66.0.0/16")),
        RoutingRule(32766, TABLE_MAIN),
        RoutingRule(32767, TABLE_DEFAULT, family=Family.IPV4),
    )
    neighbours = (
        Neighbour(ip("10.9.2.0"), "vx4", MAC(9)),
        Neighbour(ip("192.168.7.77"), "eth0", MAC(10)),
        Neighbour(ip("fd00:7::77"), "eth0", MAC(10)),
    )
    fdb = (FdbEntry(MAC(9), "vx4", ip("192.168.7.2")), FdbEntry("00:00:00:00:00:00", "vx4", ip("192.168.7.3")))
    node = Namespace("node/a", links, addresses, routes, rules, neighbours, fdb, {"net.ipv4.ip_forward": "1"})
    pod_links = (
        Link("lo", LinkKind.LOOPBACK, mtu=65536),
        Link("eth0", LinkKind.VETH, mac=MAC(8), mtu=1450, peer=("node/a", "port")),
    )
    pod = Namespace(
        "pod/a/b",
        pod_links,
        (Address("eth0", interface("10.9.1.7/24")),),
        (Route(network("0.0.0.0/0"), gateway=ip("10.9.1.1"), device="eth0"),),
        sysctls={"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"},
    )
    return StaticNetwork({"node/a": node, "pod/a/b": pod}, {"lan": 1500})


@contextmanager
def standing(value: Network, names: list[str], kernel: str = state.HOST) -> Iterator[state.Holder]:
    made = build.raised(plan(value, names), [], "read-back", kernel)
    try:
        held = made.holder()
        assert held is not None
        yield held
    finally:
        state.down(made)


TOOLS = {
    "links": "ip -j -d link",
    "addresses": "ip addr",
    "routes": "ip -4 route show table all",
    "rules": "ip rule",
    "neighbours": "ip neigh show nud permanent",
    "fdb": "bridge fdb",
    "routes, IPv6": "ip -6 route show table all",
    "rules, IPv6": "ip -6 rule",
}


def _said(name: str, held: state.Holder) -> dict[str, str]:
    """What each tool says in one namespace, all in one go: to start a process takes its time in the guest."""
    script = "; echo ====; ".join(TOOLS.values())
    words = ["ip", "netns", "exec", netns(name), "sh", "-c", script]
    said = holder.ask(held, partial(subprocess.check_output, words, text=True))
    return dict(zip(TOOLS, said.split("====\n"), strict=True))


def _differences(network: Network, name: str, held: state.Holder) -> dict[str, tuple[list[str], list[str]]]:
    """What only the model and only the kernel says of one namespace, in the words of the kernel's tools."""
    value, said = network.namespace(name), _said(name, held)
    addresses, first = all_addresses(value), primaries(value.addresses)
    four, six = Family.IPV4, Family.IPV6
    model = {
        "links": _links(value.links),
        "addresses": [address_text(one, is_secondary(one, first)) for own in addresses.values() for one in own],
        "routes": iproute_text.route_lines(value, four, local=True),
        "rules": iproute_text.rule_lines(value, four),
        "neighbours": iproute_text.neigh_lines(value),
        "fdb": iproute_text.fdb_lines(value),
    }
    if any(one.interface.version == 6 for own in addresses.values() for one in own):
        model["routes, IPv6"] = iproute_text.route_lines(value, six, local=True)
        model["rules, IPv6"] = iproute_text.rule_lines(value, six)
    kernel = {what: said[what].splitlines() for what in model}
    kernel["links"] = _links(read_links(said["links"], name))
    kernel["addresses"] = [line for line in kernel["addresses"] if line.strip().startswith("inet")]
    kernel["fdb"] = [line for line in kernel["fdb"] if " dst " in line]  # bridges fill in their own
    found = {}
    for what in model:
        ours = sorted(map(_plain, model[what]))
        theirs = sorted(_plain(line) for line in kernel[what] if not _random(line))
        if ours != theirs:
            found[what] = ([one for one in ours if one not in theirs], [one for one in theirs if one not in ours])
    return found


def _plain(line: str) -> str:
    """Without what the lab adds for haste, addresses that work at once, and what passes: a bridge's carrier comes a moment
    after its port's."""
    return " ".join(line.replace(" nodad", "").replace(" linkdown", "").split())


def _random(line: str) -> bool:
    """A TUN device has no MAC address: its link-local address is a random one (addrconf_dev_config), left to the kernel."""
    own = re.match(r"(local|anycast) fe80::\S* dev (tun0|flannel0) ", line)
    return own is not None or line.rstrip().endswith("stable-privacy")


def _links(links: tuple[Link, ...] | list[Link]) -> list[str]:
    """What both sides can know: not the other end, nor which device of the lab stands for a physical one."""
    kinds = {LinkKind.PHYSICAL: LinkKind.VETH}
    silent = (LinkKind.TUN, LinkKind.IPIP, LinkKind.DUMMY)  # without ARP by their nature
    held = [
        replace(
            link, kind=kinds.get(link.kind, link.kind), peer=None, segment=None, udp_tunnel=None, provenance=None,
            mac=None if link.kind is LinkKind.LOOPBACK else link.mac,
            noarp=link.noarp or link.kind in silent,
        )
        for link in links
        if link.name not in ("tunl0",)  # which the ipip module brings into every namespace
    ]  # fmt: skip
    return [repr(link) for link in held]


def test_every_kind_of_object_is_read_back_as_it_was_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    value = everything()
    with standing(value, list(value.namespaces)) as held:
        assert {name: _differences(value, name, held) for name in value.namespaces} == {"node/a": {}, "pod/a/b": {}}


@pytest.mark.uml
def test_so_are_the_devices_that_only_user_mode_linux_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    value = everything(
        Link("ipip0", LinkKind.IPIP, mtu=1480, tunnel=TunnelOptions(ip("192.168.7.1"))),
        Link("ipip1", LinkKind.IPIP, mtu=1400, tunnel=TunnelOptions(ip("192.168.7.1"), ip("192.168.7.2"), 33)),
        Link("ipip2", LinkKind.IPIP, mtu=1480, tunnel=TunnelOptions(ip("203.0.113.9"), ip("192.168.7.3"), 0, False)),
        Link("dummy0", LinkKind.DUMMY, mac=MAC(7)),
    )
    with standing(value, list(value.namespaces), state.UML) as held:
        assert {name: _differences(value, name, held) for name in value.namespaces} == {"node/a": {}, "pod/a/b": {}}


@pytest.mark.parametrize("cni", ["flannel:vxlan", "flannel:udp", "ptp", "flat"])
def test_a_clusters_namespaces_are_read_back(cni: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    objects = load(["@example"], recursive=False, lenient=False, namespace=None, stdin=None)
    made = assemble(store(objects), Settings(cni=cni))
    value, _ = build.for_lab(made)
    names = build.names_of(made)
    with standing(value, names) as held:
        asked = [name for name in names if name.startswith("node/")] + names[-3:]
        assert {name: found for name in asked if (found := _differences(value, name, held))} == {}
        for name in asked[:1]:
            words = ["ip", "netns", "exec", netns(name), "iptables-save"]
            loaded = holder.ask(held, partial(subprocess.check_output, words, text=True))
            meant = value.namespace(name).rulesets[Family.IPV4]
            kernels = parse_save(loaded, Family.IPV4, "-")
            assert {t: list(kernels.tables[t].chains) for t in kernels.tables if t in meant.tables}


def _refused(*requests: netlink.Request) -> int:
    with within(netns("node/a")), Netlink("node/a") as kernel:
        kernel.send(requests)
    return 0


def test_what_the_kernel_refuses_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    strange = replace(netlink.simple(Link("x0", LinkKind.DUMMY)), words={"ifname": "x0", "kind": "nonsense"})
    unreachable = netlink.route(Route(network("10.0.0.0/8"), gateway=ip("172.16.0.1"), device="lo"))
    lost = netlink.address(Address("eth7", interface("10.0.0.1/8")))
    again = netlink.address(Address("lo", interface("10.0.0.1/32")))
    with standing(StaticNetwork({"node/a": Namespace("node/a")}), ["node/a"]) as held:
        for requests, said in (
            ([strange], r"^node/a: device x0 \(dummy\): the kernel refuses it \(Operation not supported.*lab doctor"),
            ([unreachable], r"^node/a: route 10\.0\.0\.0/8 via 172\.16\.0\.1 dev lo .*\(Network is unreachable"),
            ([lost], r"^node/a: address 10\.0\.0\.1/8 of eth7: .*\(No such device: eth7\)"),
            ([again, again], r"^node/a: address 10\.0\.0\.1/32 of lo: .*\(File exists.*it is there already"),
        ):
            with pytest.raises(PrivilegeError, match=said):
                holder.in_lab(held, partial(_refused, *requests))
