"""Rules of iptables mode where they surprise: policies, missing endpoints, firewalls, node ports, large clusters."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.kube.cluster import Cluster
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.rule import Chain
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace
from netsim.packet.address import Family
from netsim_backends.kube_proxy import IPTABLES, IptablesBackend, restore_document
from netsim_backends.kube_proxy.iptables_line import option
from netsim_backends.kube_proxy.names import service_hash
from tests.support.kube_proxy_clusters import UNDERLAY, cluster, endpoint, endpoint_slice, node, port, service

SLICE = [{"name": "", "protocol": "TCP", "port": 8080}]
NODE1, NODE2 = (
    node("n1", "172.18.0.3", pod_cidrs=["10.244.1.0/24"]),
    node("n2", "172.18.0.4", pod_cidrs=["10.244.2.0/24"]),
)
WEB = service_hash("shop/web", "tcp")


def document(held: Cluster, on: str = "n1", family: Family = Family.IPV4, nfacct: bool = True) -> list[str]:
    return list(restore_document(IptablesBackend(nfacct).configure(held, None, UNDERLAY), on, family))


def starting(lines: list[str], prefix: str) -> list[str]:
    return [line for line in lines if line.startswith(prefix)]


def rules_of(held: Cluster, prefix: str, on: str = "n1") -> list[str]:
    """The rules of the chains that start with ``prefix``, comments left out."""
    found = []
    for line in starting(document(held, on), f"-A {prefix}"):
        words = line.split(" -m comment --comment ")
        rest = words[-1]
        if len(words) > 1:
            rest = rest.split('"', 2)[2] if rest.startswith('"') else rest.partition(" ")[2]
        found.append(rest.strip() if len(words) > 1 else line.split(" ", 2)[2])
    return found


def web(
    spec: dict[str, Any] | None = None,
    *,
    on: tuple[str, ...] = ("n2",),
    vips: tuple[str, ...] = (),
    config: dict[str, Any] | None = None,
    **state: bool,
) -> Cluster:
    """Service shop/web at 10.96.0.1:80 with one endpoint per node named."""
    endpoints = [endpoint(f"10.244.{i}.7", name, **state) for i, name in enumerate(on, 1)]
    return cluster(
        NODE1,
        NODE2,
        service("shop/web", {"clusterIP": "10.96.0.1", "ports": [port(80)], **(spec or {})}, vips),
        endpoint_slice("shop/web", endpoints, SLICE),
        config=config or {},
    )


def namespace(held: Cluster, backend: IptablesBackend = IPTABLES) -> Namespace:
    builder = NamespaceBuilder("node/n1", "n1")
    backend.configure(held, None, UNDERLAY).build_node("n1", builder)
    return builder.build()


def saved(held: Cluster, table: str, family: Family = Family.IPV4) -> list[str]:
    text = "".join(print_save(namespace(held).rulesets[family]))
    return text.split(f"*{table}\n")[1].split("COMMIT")[0].splitlines()


# -- hooks, kubelet, sysctls -------------------------------------------------------------------------------------------
def test_the_order_of_the_hooks() -> None:
    new = "-m conntrack --ctstate NEW -m comment --comment"
    firewall = f'{new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    portals = '"kubernetes service portals" -j KUBE-SERVICES'
    outside = f'{new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    rules = [line for line in saved(web(), "filter") if line.startswith(("-A INPUT", "-A FORWARD", "-A OUTPUT"))]
    assert rules == [
        f"-A INPUT {firewall}",
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        f"-A INPUT {outside}",
        "-A INPUT -j KUBE-FIREWALL",
        f"-A FORWARD {firewall}",
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f"-A FORWARD {new} {portals}",
        f"-A FORWARD {outside}",
        f"-A OUTPUT {firewall}",
        f"-A OUTPUT {new} {portals}",
        "-A OUTPUT -j KUBE-FIREWALL",
    ]
    assert starting(saved(web(), "nat"), "-A PREROUTING") == [f"-A PREROUTING -m comment --comment {portals}"]


def test_the_kubelets_chains_and_the_canaries() -> None:
    for family in Family:
        tables = namespace(web()).rulesets[family].tables
        assert "KUBE-IPTABLES-HINT" in tables["mangle"].chains
        for table in ("mangle", "nat", "filter"):
            for canary in ("KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"):
                assert tables[table].chains[canary] == Chain(canary)
        assert ("KUBE-FIREWALL" in tables["filter"].chains) is (family is Family.IPV4)


def test_the_martian_rule_is_there_once() -> None:
    for held in (web(), web(config={"iptables": {"localhostNodePorts": False}})):
        assert len(starting(saved(held, "filter"), "-A KUBE-FIREWALL")) == 1
        assert len([line for line in saved(held, "filter") if line.endswith("-j KUBE-FIREWALL")]) == 2


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, "1"), ({"iptables": {"localhostNodePorts": False}}, None), ({"nodePortAddresses": ["172.18.0.0/16"]}, None)],
)
def test_route_localnet(config: dict[str, Any], expected: str | None) -> None:
    assert namespace(web(config=config)).sysctls.get("net.ipv4.conf.all.route_localnet") == expected


def test_conntrack_sysctls() -> None:
    prefix = "net.netfilter.nf_conntrack_"
    sysctls = namespace(web()).sysctls
    assert {k: v for k, v in sysctls.items() if k.startswith(prefix)} == {
        f"{prefix}max": "131072",
        f"{prefix}tcp_timeout_established": "86400",
        f"{prefix}tcp_timeout_close_wait": "3600",
    }
    liberal = {"conntrack": {"tcpBeLiberal": True, "maxPerCore": 0, "udpTimeout": "10s"}}
    sysctls = namespace(web(config=liberal)).sysctls
    assert sysctls[f"{prefix}tcp_be_liberal"] == "1"
    assert sysctls[f"{prefix}udp_timeout"] == "10"
    assert f"{prefix}max" not in sysctls


def test_liberal_tracking_takes_away_the_rule_against_invalid_packets() -> None:
    assert len(rules_of(web(), "KUBE-FORWARD")) == 3
    assert len(rules_of(web(config={"conntrack": {"tcpBeLiberal": True}}), "KUBE-FORWARD")) == 2


def test_counters_are_there_where_the_kernel_has_them() -> None:
    def counted(lines: list[str]) -> int:
        return sum("nfacct" in line for line in lines)

    node_port = {"type": "NodePort", "ports": [port(80, node_port=30080)]}
    assert counted(document(web(node_port))) == 2
    assert counted(document(web(node_port), family=Family.IPV6)) == 1
    assert counted(document(web(node_port), nfacct=False)) == 0
    old = web(node_port)
    plugin = IPTABLES.configure(Cluster(old.store, type(old.settings)(kubernetes_version=(1, 31))), None, UNDERLAY)
    assert counted(list(restore_document(plugin, "n1", Family.IPV4))) == 0


def test_the_mark_follows_its_bit() -> None:
    lines = document(web(config={"iptables": {"masqueradeBit": 31}}))
    assert "-A KUBE-MARK-MASQ -j MARK --or-mark 0x80000000" in lines
    assert "-A KUBE-POSTROUTING -m mark ! --mark 0x80000000/0x80000000 -j RETURN" in lines


# -- policies and missing endpoints ------------------------------------------------------------------------------------
def test_no_endpoints_rejects() -> None:
    held = web({"type": "NodePort", "ports": [port(80, node_port=30080)], "externalIPs": ["192.0.2.1"]}, on=())
    where = "-m tcp -p tcp -d 10.96.0.1 --dport 80"
    comment = '-m comment --comment "shop/web has no endpoints"'
    lines = document(held)
    assert f"-A KUBE-SERVICES {comment} {where} -j REJECT" in lines
    assert starting(lines, "-A KUBE-EXTERNAL-SERVICES") == [
        f"-A KUBE-EXTERNAL-SERVICES {comment} -m tcp -p tcp -d 192.0.2.1 --dport 80 -j REJECT",
        f"-A KUBE-EXTERNAL-SERVICES {comment} -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j REJECT",
    ]
    assert not [line for line in lines if WEB in line]
    assert not starting(lines, "-A KUBE-NODEPORTS")


def test_no_local_endpoints_drops() -> None:
    held = web({"internalTrafficPolicy": "Local"})
    where = '"shop/web has no local endpoints" -m tcp -p tcp -d 10.96.0.1 --dport 80'
    assert f"-A KUBE-SERVICES -m comment --comment {where} -j DROP" in document(held, "n1")
    assert rules_of(held, "KUBE-SVL", "n2")
    assert not rules_of(held, "KUBE-SVC", "n2")


def test_external_policy_local_without_local_endpoints_keeps_the_short_cut() -> None:
    spec = {"type": "NodePort", "ports": [port(80, node_port=30080)], "externalTrafficPolicy": "Local"}
    short_cut = [
        f"-s 10.244.0.0/16 -j KUBE-SVC-{WEB}",
        "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
        f"-m addrtype --src-type LOCAL -j KUBE-SVC-{WEB}",
    ]
    assert rules_of(web(spec), "KUBE-EXT-", "n1") == short_cut
    assert rules_of(web(spec), "KUBE-EXT-", "n2") == [*short_cut, f"-j KUBE-SVL-{WEB}"]
    dropped = [line for line in document(web(spec)) if "has no local endpoints" in line]
    assert len(dropped) == 1
    assert dropped[0].endswith("-m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j DROP")
    assert rules_of(web(spec), "KUBE-NODEPORTS")


def test_the_two_policies_do_not_touch_each_other() -> None:
    spec = {"externalIPs": ["192.0.2.1"], "internalTrafficPolicy": "Local"}
    assert rules_of(web(spec), "KUBE-EXT-") == ["-j KUBE-MARK-MASQ", f"-j KUBE-SVC-{WEB}"]
    spec = {"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}
    assert f"-m tcp -p tcp -d 10.96.0.1 --dport 80 -j KUBE-SVC-{WEB}" in rules_of(web(spec), "KUBE-SERVICES")


def test_endpoints_of_both_lists_have_chains() -> None:
    spec = {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [port(80, node_port=30080)]}
    assert len(rules_of(web(spec, on=("n1", "n2")), "KUBE-SEP")) == 4


# -- masquerading ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({}, " ! -s 10.244.0.0/16"),
        ({"detectLocalMode": "NodeCIDR"}, " ! -s 10.244.1.0/24"),
        ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}}, " ! -i cni0"),
        ({"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "veth"}}, " ! -i veth+"),
        ({"iptables": {"masqueradeAll": True}}, ""),
    ],
)
def test_the_masquerade_rule_is_the_first_of_the_service_chain(config: dict[str, Any], match: str) -> None:
    rules = rules_of(web(config=config), f"KUBE-SVC-{WEB}")
    assert rules[0] == f"-m tcp -p tcp -d 10.96.0.1 --dport 80{match} -j KUBE-MARK-MASQ"
    assert len(rules) == 2


def test_without_a_detector_nothing_tells_pods_from_others() -> None:
    spec = {"type": "NodePort", "ports": [port(80, node_port=30080)], "externalTrafficPolicy": "Local"}
    held = web(spec, config={"clusterCIDR": ""})
    assert len(rules_of(held, f"KUBE-SVC-{WEB}")) == 1
    assert rules_of(held, "KUBE-EXT-")[0] == "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"


def test_masquerade_all_is_for_cluster_addresses_only() -> None:
    spec = {"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}
    held = web(spec, config={"iptables": {"masqueradeAll": True}})
    assert rules_of(held, "KUBE-EXT-")[0] == f"-s 10.244.0.0/16 -j KUBE-SVC-{WEB}"


# -- load balancers, node ports, health checks -------------------------------------------------------------------------
BALANCER: dict[str, Any] = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]}


def test_the_firewall_chain_ends_without_a_target() -> None:
    held = web(BALANCER, vips=("198.51.100.7",))
    assert rules_of(held, "KUBE-FW") == [f"-s 203.0.113.0/24 -j KUBE-EXT-{WEB}", ""]
    assert rules_of(held, "KUBE-PROXY-FIREWALL") == ["-m tcp -p tcp -d 198.51.100.7 --dport 80 -j DROP"]


def test_a_node_inside_the_ranges_may_come_by_way_of_its_own_load_balancer() -> None:
    spec = {**BALANCER, "loadBalancerSourceRanges": ["172.18.0.3/32"]}
    held = web(spec, vips=("198.51.100.7",))
    assert f"-s 198.51.100.7 -j KUBE-EXT-{WEB}" in rules_of(held, "KUBE-FW", "n1")
    assert f"-s 198.51.100.7 -j KUBE-EXT-{WEB}" not in rules_of(held, "KUBE-FW", "n2")


def test_node_ports_ignore_the_source_ranges() -> None:
    held = web({**BALANCER, "ports": [port(80, node_port=30080)]}, vips=("198.51.100.7",))
    assert rules_of(held, "KUBE-NODEPORTS")[-1] == f"-m tcp -p tcp --dport 30080 -j KUBE-EXT-{WEB}"


def test_ranges_without_endpoints_make_no_firewall() -> None:
    held = web(BALANCER, vips=("198.51.100.7",), on=())
    assert not rules_of(held, "KUBE-FW")
    assert not rules_of(held, "KUBE-PROXY-FIREWALL")


def test_health_checks_are_tcp_and_on_every_node() -> None:
    spec = {
        **BALANCER,
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000,
        "ports": [port(53, protocol="UDP")],
    }
    assert rules_of(web(spec, on=()), "KUBE-NODEPORTS") == ["-m tcp -p tcp --dport 31000 -j ACCEPT"]


@pytest.mark.parametrize(
    ("config", "family", "tail"),
    [
        ({}, Family.IPV4, ["-m addrtype --dst-type LOCAL"]),
        ({}, Family.IPV6, ["-m addrtype --dst-type LOCAL ! -d ::1/128"]),
        ({"iptables": {"localhostNodePorts": False}}, Family.IPV4, ["-m addrtype --dst-type LOCAL ! -d 127.0.0.0/8"]),
        ({"nodePortAddresses": ["primary"]}, Family.IPV4, ["-d 172.18.0.3"]),
        ({"nodePortAddresses": ["127.0.0.0/8", "172.18.0.0/16"]}, Family.IPV4, ["-d 127.0.0.1", "-d 172.18.0.3"]),
        ({"nodePortAddresses": ["10.0.0.0/8"]}, Family.IPV4, []),
        ({"nodePortAddresses": ["::1/128"]}, Family.IPV6, []),
    ],
)
def test_the_tail_of_the_services_chain(config: dict[str, Any], family: Family, tail: list[str]) -> None:
    text = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    start = f'-A KUBE-SERVICES -m comment --comment "{text}" '
    lines = starting(document(web(config=config), family=family), "-A KUBE-SERVICES")
    found = [line.removeprefix(start).removesuffix(" -j KUBE-NODEPORTS") for line in lines if line.startswith(start)]
    assert found == tail
    assert not tail or lines[-1].startswith(start)


def test_reachable_addresses_of_ipv6() -> None:
    held = cluster(
        NODE1,
        service("shop/web", {"clusterIP": "fd00:96::1", "ports": [port(80)]}),
        endpoint_slice("shop/web", [endpoint("fd00:244::7")], SLICE),
        config={},
    )
    lines = document(held, family=Family.IPV6)
    (dnat,) = [line for line in lines if "DNAT" in line]
    assert dnat.endswith("-m tcp -p tcp -j DNAT --to-destination [fd00:244::7]:8080")
    assert not [line for line in document(held) if "shop/web" in line]


# -- large clusters ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("count", "commented"), [(1000, True), (1001, False)])
def test_large_clusters_drop_the_endpoints_comments(count: int, commented: bool) -> None:
    many = [endpoint(f"10.244.{i // 250}.{i % 250 + 1}", ready=i < 2) for i in range(count)]
    held = cluster(
        NODE1,
        service(
            "shop/web", {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ports": [port(80)], "sessionAffinity": "ClientIP"}
        ),
        endpoint_slice("shop/web", many, SLICE),
        endpoint_slice("shop/web", [endpoint("fd00:244::7")], SLICE, "6"),
        config={},
    )
    lines = document(held)
    balanced = [line for line in lines if line.startswith("-A KUBE-S") and "KUBE-SEP" in line]
    assert len(balanced) == 2 + 2 + 2 * 2
    assert {"--comment" in line for line in balanced} == {commented}
    assert "--comment" in starting(lines, f"-A KUBE-SVC-{WEB}")[0]
    assert all("--comment" in line for line in document(held, family=Family.IPV6) if line.startswith("-A KUBE-SEP"))


# -- the kernel objects ------------------------------------------------------------------------------------------------
def test_chains_that_a_node_does_not_have_are_not_found() -> None:
    chains = namespace(web({"internalTrafficPolicy": "Local"})).rulesets[Family.IPV4].tables["nat"].chains
    for name in (
        f"KUBE-SVL-{WEB}",
        f"KUBE-SVC-{WEB}",
        "KUBE-SEP-AAAAAAAAAAAAAAAA",
        "KUBE-FOO",
        "nothing",
        f"OTHER-{WEB}",
    ):
        assert name not in chains
        with pytest.raises(KeyError):
            chains[name]


def test_nodes_share_what_they_see_alike() -> None:
    plugin = IPTABLES.configure(web(), None, UNDERLAY)
    chains = []
    for name in ("n1", "n2"):
        builder = NamespaceBuilder(f"node/{name}", name)
        plugin.build_node(name, builder)
        chains.append(builder.build().rulesets[Family.IPV4].tables["nat"].chains)
    shared = ["KUBE-SERVICES", "KUBE-NODEPORTS", f"KUBE-SVC-{WEB}"]
    shared.append(chains[0][f"KUBE-SVC-{WEB}"].rules[-1].jump or "")
    assert all(chains[0][name] is chains[1][name] for name in shared)


def test_every_rule_says_why_it_exists() -> None:
    tables = namespace(web()).rulesets[Family.IPV4].tables
    because = {
        r.provenance.because if r.provenance else "" for t in tables.values() for c in t.ordered() for r in c.rules
    }
    assert "" not in because
    assert {"Service shop/web", "Service shop/web, endpoint 10.244.1.7:8080"} <= because


def test_options_that_jump_to_a_chain_are_refused_rather_than_lost() -> None:
    with pytest.raises(ValueError, match="-j KUBE-MARK-MASQ: a line says by itself where it jumps to"):
        option("-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", Family.IPV4)
