"""bridge, ptp and portmap on one node; addresses for the pods of a cluster."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from netsim.errors import InputError, UsageError
from netsim.kube.objects import Pod
from netsim.linux.link import LinkKind
from netsim.packet.address import Family
from netsim_backends.cni import BRIDGE, PTP
from netsim_backends.cni.names import chain_name, comment, container_id
from tests.support.cni_clusters import (
    cluster,
    configured,
    node,
    node_state,
    pod,
    pod_state,
    saved,
    shown_routes,
    underlay,
)

WEB, API = pod("web", "n1", "10.244.1.3"), pod("api", "n1", "10.244.1.2")


def cid(name: str) -> str:
    return hashlib.sha256(f"shop/{name}".encode()).hexdigest()


# -- wiring ------------------------------------------------------------------------------------------------------------
def test_bridge_on_the_node() -> None:
    state = node_state(configured(BRIDGE, cluster(node(1), WEB, API)), "n1")
    bridge, *ports = state.links
    assert (bridge.name, bridge.kind, bridge.mtu) == ("cni0", LinkKind.BRIDGE, 1500)
    assert [port.peer for port in ports] == [("pod/shop/api", "eth0"), ("pod/shop/web", "eth0")]
    assert all(port.master == "cni0" and port.hairpin and port.kind is LinkKind.VETH for port in ports)
    assert [(str(a.interface), a.device) for a in state.addresses] == [("10.244.1.1/24", "cni0")]
    assert state.sysctls == {"net.ipv4.ip_forward": "1"}


@pytest.mark.parametrize("backend", [BRIDGE, PTP], ids=lambda b: b.name)
def test_both_ends_name_each_other(backend: object) -> None:
    plugin = configured(backend, cluster(node(1), WEB, API))  # type: ignore[arg-type]
    state = node_state(plugin, "n1")
    for one in (WEB, API):
        inside = next(link for link in pod_state(plugin, one).links if link.name == "eth0")
        assert inside.peer is not None
        outside = next(link for link in state.links if ("node/n1", link.name) == inside.peer)
        assert outside.peer == (f"pod/shop/{one.name}", "eth0")
        assert inside.mac != outside.mac


def test_bridge_in_the_pod() -> None:
    state = pod_state(configured(BRIDGE, cluster(node(1), WEB)), WEB)
    assert [(str(a.interface), a.noprefixroute) for a in state.addresses] == [("10.244.1.3/24", False)]
    assert shown_routes(state) == ["0.0.0.0/0 via 10.244.1.1 dev eth0"]


def test_ptp_on_the_node() -> None:
    state = node_state(configured(PTP, cluster(node(1), WEB, API)), "n1")
    assert [link.kind for link in state.links] == [LinkKind.VETH, LinkKind.VETH]
    first, second = (link.name for link in state.links)
    assert [(str(a.interface), a.device) for a in state.addresses] == [
        ("10.244.1.1/32", first),
        ("10.244.1.1/32", second),
    ]
    assert shown_routes(state) == [f"10.244.1.2/32 dev {first} scope host", f"10.244.1.3/32 dev {second} scope host"]


def test_ptp_in_the_pod() -> None:
    state = pod_state(configured(PTP, cluster(node(1), WEB)), WEB)
    assert [(str(a.interface), a.noprefixroute) for a in state.addresses] == [("10.244.1.3/24", True)]
    assert shown_routes(state) == [
        "10.244.1.1/32 dev eth0 scope link src 10.244.1.3",
        "10.244.1.0/24 via 10.244.1.1 dev eth0 src 10.244.1.3",
        "0.0.0.0/0 via 10.244.1.1 dev eth0",
    ]


def test_pods_with_the_hosts_network_are_not_wired() -> None:
    state = node_state(
        configured(BRIDGE, cluster(node(1), pod("agent", "n1", "192.168.56.11", hostNetwork=True))), "n1"
    )
    assert state.links == ()


def test_ip_masq() -> None:
    chain, said = chain_name("bridge", cid("web")), f'-m comment --comment "name: \\"bridge\\" id: \\"{cid("web")}\\""'
    assert saved(node_state(configured(BRIDGE, cluster(node(1), WEB), "masq"), "n1"), "nat") == [
        f"-A POSTROUTING -s 10.244.1.3/32 {said} -j {chain}",
        f"-A {chain} -d 10.244.1.0/24 {said} -j ACCEPT",
        f"-A {chain} ! -d 224.0.0.0/4 {said} -j MASQUERADE",
    ]
    assert len(chain) == 28


def test_modes_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match="the only mode is masq"):
        configured(BRIDGE, cluster(node(1)), "vxlan")


def test_the_network_between_the_nodes_is_told_its_routes() -> None:
    plugin = BRIDGE.configure(held := cluster(node(2), node(1)), None, underlay(held))
    assert [(str(prefix), name) for prefix, name in plugin.underlay_routes()] == [
        ("10.244.1.0/24", "n1"),
        ("10.244.2.0/24", "n2"),
    ]


# -- names -------------------------------------------------------------------------------------------------------------
def test_chain_names() -> None:
    digest = hashlib.sha512(b"cbr0abc").hexdigest()
    assert chain_name("cbr0", "abc", "DN-") == f"CNI-DN-{digest[:21]}"
    assert chain_name("cbr0", "abc") == f"CNI-{digest[:24]}"


def test_long_comments_are_cut() -> None:
    text = comment("n" * 300, "c", "dnat ")
    assert text == 'dnat name: "' + "n" * 241 + "..."


def test_the_container_id_follows_the_uid() -> None:
    with_uid = msgspec.structs.replace(WEB, metadata=msgspec.structs.replace(WEB.metadata, uid="u-1"))
    assert container_id(with_uid) == hashlib.sha256(b"u-1").hexdigest()
    assert container_id(WEB) == cid("web")


# -- portmap -----------------------------------------------------------------------------------------------------------
def ported(*ports: dict[str, object], ips: tuple[str, ...] = ("10.244.1.2",), **spec: object) -> Pod:
    return pod("web", "n1", *ips, ports=ports, **spec)


def rules(one: Pod, family: Family = Family.IPV4) -> list[str]:
    return saved(
        node_state(configured(BRIDGE, cluster(node(1, "10.244.1.0/24", "fd00:1::/64"), one)), "n1"), "nat", family
    )


DN = chain_name("bridge", cid("web"), "DN-")
SAID = f'-m comment --comment "dnat name: \\"bridge\\" id: \\"{cid("web")}\\""'


def test_one_host_port() -> None:
    assert rules(ported({"containerPort": 80, "hostPort": 8080})) == [
        "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        '-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
        f"-A {DN} -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        f"-A {DN} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        f"-A {DN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80",
        f"-A CNI-HOSTPORT-DNAT -p tcp {SAID} -m multiport --dports 8080 -j {DN}",
        "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
        '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
    ]


def test_entries_by_protocol_and_fifteen_ports() -> None:
    many = [{"containerPort": n, "hostPort": 9000 + n} for n in range(1, 17)]
    lines = rules(ported({"containerPort": 53, "hostPort": 53, "protocol": "UDP"}, *many))
    entries = [line.split("--dports ")[1].split(" ")[0] for line in lines if line.startswith("-A CNI-HOSTPORT-DNAT")]
    assert entries == [",".join(str(9000 + n) for n in range(1, 16)), "9016", "53"]


def test_a_host_ip_of_one_family() -> None:
    one = ported({"containerPort": 80, "hostPort": 80, "hostIP": "192.168.56.11"}, ips=("10.244.1.2", "fd00:1::2"))
    four, six = rules(one), rules(one, Family.IPV6)
    assert f"-A {DN} -d 192.168.56.11/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.2:80" in four
    assert not any(line.startswith(f"-A {DN}") for line in six)
    assert any(line.endswith(f"--dports 80 -j {DN}") for line in six)  # the entry is there in both families


def test_ipv6_has_no_localhost_rule() -> None:
    one = ported({"containerPort": 80, "hostPort": 80}, ips=("10.244.1.2", "fd00:1::2"))
    assert [line for line in rules(one, Family.IPV6) if line.startswith(f"-A {DN}")] == [
        f"-A {DN} -s fd00:1::/64 -p tcp -m tcp --dport 80 -j CNI-HOSTPORT-SETMARK",
        f"-A {DN} -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:1::2]:80",
    ]


def test_the_unspecified_host_ip_is_no_condition() -> None:
    plain = ported({"containerPort": 80, "hostPort": 80})
    assert rules(ported({"containerPort": 80, "hostPort": 80, "hostIP": "0.0.0.0"})) == rules(plain)


def test_ports_of_sidecars_but_not_of_init_containers() -> None:
    inits = [
        {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 7001}]},
        {"name": "i", "ports": [{"containerPort": 2, "hostPort": 7002}]},
    ]
    text = "\n".join(rules(ported(initContainers=inits)))
    assert "--dports 7001 " in text
    assert "7002" not in text


def test_loopback_is_routed_to_where_the_pod_is() -> None:
    one = ported({"containerPort": 80, "hostPort": 80})
    state = node_state(configured(BRIDGE, cluster(node(1), one)), "n1")
    assert state.sysctls["net.ipv4.conf.cni0.route_localnet"] == "1"
    routed = node_state(configured(PTP, cluster(node(1), one)), "n1")
    assert routed.sysctls[f"net.ipv4.conf.{routed.links[0].name}.route_localnet"] == "1"


def test_pods_without_host_ports_leave_no_rules() -> None:
    assert rules(ported({"containerPort": 80})) == []


# -- addresses ---------------------------------------------------------------------------------------------------------
def test_addresses_in_name_order_behind_those_that_are_held() -> None:
    held = cluster(node(1), pod("c", "n1"), pod("a", "n1"), pod("b", "n1", "10.244.1.2"), pod("d", "nowhere"))
    assert configured(BRIDGE, held).allocate() == {("shop", "a"): ("10.244.1.3",), ("shop", "c"): ("10.244.1.4",)}


def test_the_hosts_network_needs_no_address() -> None:
    assert configured(BRIDGE, cluster(node(1), pod("a", "n1", hostNetwork=True))).allocate() == {}


def test_one_address_per_family() -> None:
    held = cluster(node(1, "10.244.1.0/24", "fd00:1::/64"), pod("a", "n1"))
    assert configured(BRIDGE, held).allocate() == {("shop", "a"): ("10.244.1.2", "fd00:1::2")}


def test_a_full_range_names_the_node() -> None:
    held = cluster(node(1, "10.244.1.0/30"), pod("a", "n1"), pod("b", "n1"))
    words = (
        'Node "n1": failed to allocate for pod shop/b: no IP addresses available in range set: 10.244.1.1-10.244.1.2'
    )
    with pytest.raises(InputError) as caught:
        configured(BRIDGE, held).allocate()
    assert str(caught.value) == words


def test_a_subnet_too_small() -> None:
    with pytest.raises(InputError, match="too small to allocate from"):
        configured(BRIDGE, cluster(node(1, "10.244.1.0/31"), pod("a", "n1"))).allocate()
