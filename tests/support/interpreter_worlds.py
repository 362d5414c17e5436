"""Hand-built networks for the interpreter's tests: two flannel nodes, an outside host, pods behind bridges."""

from __future__ import annotations

from dataclasses import replace

from netsim.linux.link import Link, LinkKind, VxlanOptions
from netsim.linux.netfilter.base import Verdict
from netsim.linux.netfilter.table import RulesetBuilder
from netsim.linux.netfilter.text import parse_rule
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import Address, FdbEntry, Neighbour, Route
from netsim.packet.address import Family, interface, ip, network

CLUSTER = "10.244.0.0/16"


def ruleset(rules: str, family: Family = Family.IPV4, drop: tuple[tuple[str, str], ...] = ()):  # type: ignore[no-untyped-def]
    """Rules as text, one a line: ``TABLE -A CHAIN …``."""
    builder = RulesetBuilder(family)
    for line in filter(None, map(str.strip, rules.splitlines())):
        table, _, text = line.partition(" ")
        chain, rule = parse_rule(text, family)
        builder.append(table, chain, rule)
    for table, chain in drop:
        builder.policy(table, chain, Verdict.DROP)
    return builder.build()


def flannel_masq(pods: str) -> str:
    return f"""
    nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
    nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
    nat -A FLANNEL-POSTRTG -s {pods} -d {CLUSTER} -j RETURN
    nat -A FLANNEL-POSTRTG -s {CLUSTER} -d {pods} -j RETURN
    nat -A FLANNEL-POSTRTG ! -s {CLUSTER} -d {pods} -j RETURN
    nat -A FLANNEL-POSTRTG -s {CLUSTER} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
    nat -A FLANNEL-POSTRTG ! -s {CLUSTER} -d {CLUSTER} -j MASQUERADE --random-fully
    filter -A FORWARD -s {CLUSTER} -j ACCEPT
    filter -A FORWARD -d {CLUSTER} -j ACCEPT
    """


def mac(*parts: int) -> str:
    return ":".join(f"{part:02x}" for part in (2, *([0] * (5 - len(parts))), *parts))


def pod(node: int, host: int) -> Namespace:
    """Pod ``10.244.NODE.HOST`` behind cni0 of its node."""
    return Namespace(
        f"pod/p{node}{host}",
        links=(
            Link("lo", LinkKind.LOOPBACK, mtu=65536),
            Link("eth0", LinkKind.VETH, mac(1, node, host), 1450, peer=(f"node/n{node}", f"veth{host}")),
        ),
        addresses=(Address("eth0", interface(f"10.244.{node}.{host}/24")),),
        routes=(
            Route(network("0.0.0.0/0"), ip(f"10.244.{node}.1"), "eth0"),
            Route(network(CLUSTER), ip(f"10.244.{node}.1"), "eth0"),
        ),
        node=f"n{node}",
    )


def node(
    number: int, rules: str = "", *, vxlan: bool = True, hosts: tuple[int, ...] = (2, 3), **sysctls: str
) -> Namespace:
    other = 3 - number
    pods = f"10.244.{number}.0/24"
    links = [
        Link("lo", LinkKind.LOOPBACK, mtu=65536),
        Link("ens3", LinkKind.PHYSICAL, mac(2, number), segment="lan"),
        Link("cni0", LinkKind.BRIDGE, mac(3, number), 1450),
    ]
    links += [
        Link(
            f"veth{h}",
            LinkKind.VETH,
            mac(4, number, h),
            1450,
            master="cni0",
            peer=(f"pod/p{number}{h}", "eth0"),
            hairpin=True,
        )
        for h in hosts
    ]
    addresses = [
        Address("ens3", interface(f"192.168.56.1{number}/24")),
        Address("cni0", interface(f"10.244.{number}.1/24")),
    ]
    routes = [Route(network("0.0.0.0/0"), ip("192.168.56.100"), "ens3")]
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    if vxlan:
        options = VxlanOptions(1, ip(f"192.168.56.1{number}"), "ens3")
        links.append(Link("flannel.1", LinkKind.VXLAN, mac(5, number), 1450, vxlan=options))
        addresses.append(Address("flannel.1", interface(f"10.244.{number}.0/32")))
        routes.append(Route(network(f"10.244.{other}.0/24"), ip(f"10.244.{other}.0"), "flannel.1", onlink=True))
        neighbours = (Neighbour(ip(f"10.244.{other}.0"), "flannel.1", mac(5, other)),)
        fdb = (FdbEntry(mac(5, other), "flannel.1", ip(f"192.168.56.1{other}")),)
    else:
        routes.append(Route(network(f"10.244.{other}.0/24"), ip(f"192.168.56.1{other}"), "ens3"))
    return Namespace(
        f"node/n{number}",
        tuple(links),
        tuple(addresses),
        tuple(routes),
        neighbours=neighbours,
        fdb=fdb,
        sysctls={"net.ipv4.ip_forward": "1", **sysctls},
        rulesets={Family.IPV4: ruleset(rules + flannel_masq(pods))},
        node=f"n{number}",
    )


def external() -> Namespace:
    return Namespace(
        "external",
        (Link("eth0", LinkKind.PHYSICAL, mac(9, 1), segment="lan"),),
        (Address("eth0", interface("192.168.56.100/24")),),
        (
            Route(network("10.244.1.0/24"), ip("192.168.56.11"), "eth0"),
            Route(network("10.244.2.0/24"), ip("192.168.56.11"), "eth0"),
        ),
    )


def cluster(rules: str = "", *, vxlan: bool = True, **sysctls: str) -> StaticNetwork:
    """Two nodes with two pods each (hosts 2 and 3), joined by ``lan``; ``rules`` come first on both nodes."""
    held = [node(1, rules, vxlan=vxlan, **sysctls), node(2, rules, vxlan=vxlan, **sysctls), external()]
    held += [pod(n, h) for n in (1, 2) for h in (2, 3)]
    return StaticNetwork({one.name: one for one in held})


def changed(net: StaticNetwork, name: str, device: str, **what: object) -> StaticNetwork:
    """The network with one link altered."""
    space = net.namespaces[name]
    links = tuple(replace(link, **what) if link.name == device else link for link in space.links)  # type: ignore[arg-type]
    return replace(net, namespaces={**net.namespaces, name: replace(space, links=links)})
