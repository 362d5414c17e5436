"""What kube-proxy keeps of a Service."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.errors import InputError
from netsim.packet.address import Family, network
from netsim_backends.kube_proxy.names import endpoint_chain, service_hash
from netsim_backends.kube_proxy.service_ports import ServicePort, service_ports
from tests.support.kube_proxy_clusters import port, service


def only(spec: dict[str, Any], family: Family = Family.IPV4, vips: tuple[str, ...] = ()) -> ServicePort:
    spec = {"clusterIP": "10.96.0.1", "ports": [port(80)], **spec}
    (found,) = service_ports([service("shop/web", spec, vips)], family)
    return found


@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        ("default/kubernetes:https", "tcp", "NPX46M4PTMTKRN6Y"),
        ("kube-system/kube-dns:dns", "udp", "TCOU7JCQXEZGVUNU"),
        ("demo/web:http", "tcp", "XRY76EGRC3BSCIIJ"),
    ],
)
def test_service_hash(name: str, protocol: str, expected: str) -> None:
    assert service_hash(name, protocol) == expected


def test_endpoint_chain() -> None:
    assert endpoint_chain("demo/web:http", "tcp", "10.244.2.7:8080") == "KUBE-SEP-JPICTQTYOLMYNIJ7"


def test_a_port_without_a_name_has_no_colon() -> None:
    assert only({}).name == "shop/web"
    assert only({"ports": [port(80, "http")]}).name == "shop/web:http"


@pytest.mark.parametrize(
    ("spec", "metadata"),
    [
        ({"clusterIP": ""}, {}),
        ({"clusterIP": "None"}, {}),
        ({"type": "ExternalName"}, {}),
        ({"ports": []}, {}),
        ({}, {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}),
        ({}, {"labels": {"service.kubernetes.io/headless": ""}}),
    ],
)
def test_services_that_are_not_proxied(spec: dict[str, Any], metadata: dict[str, Any]) -> None:
    made = service("shop/web", {"clusterIP": "10.96.0.1", "ports": [port(80)], **spec}, **metadata)
    assert service_ports([made], Family.IPV4) == []


def test_each_family_sees_its_own() -> None:
    spec = {
        "clusterIPs": ["fd00:96::1", "10.96.0.1"],
        "externalIPs": ["192.0.2.1", "2001:db8::1"],
        "loadBalancerSourceRanges": ["203.0.113.0/24", " 2001:db8::1/32 "],
    }
    four, six = (
        only(spec, vips=("198.51.100.1", "2001:db8::9")),
        only(spec, Family.IPV6, ("198.51.100.1", "2001:db8::9")),
    )
    assert (four.cluster_ip, four.external_ips, four.load_balancer_ips) == (
        "10.96.0.1",
        ("192.0.2.1",),
        ("198.51.100.1",),
    )
    assert (six.cluster_ip, six.external_ips, six.load_balancer_ips) == (
        "fd00:96::1",
        ("2001:db8::1",),
        ("2001:db8::9",),
    )
    assert (four.source_ranges, six.source_ranges) == ((network("203.0.113.0/24"),), (network("2001:db8::/32"),))


def test_a_service_without_an_address_of_the_family_is_not_proxied() -> None:
    made = service("shop/web", {"clusterIP": "10.96.0.1", "ports": [port(80)]})
    assert service_ports([made], Family.IPV6) == []


def test_addresses_are_read_leniently_and_printed_canonically() -> None:
    spec = {
        "clusterIP": "172.30.0.041",
        "loadBalancerSourceRanges": ["203.0.113.000/025"],
        "externalIPs": ["::ffff:192.0.2.9"],
    }
    found = only(spec)
    assert found.cluster_ip == "172.30.0.41"
    assert found.source_ranges == (network("203.0.113.0/25"),)
    assert found.external_ips == ("192.0.2.9",)


def test_a_range_for_everybody_is_no_range() -> None:
    assert only({"loadBalancerSourceRanges": ["203.0.113.0/24", "0.0.0.0/0"]}).source_ranges == ()
    assert only({"loadBalancerSourceRanges": ["203.0.113.0/24", "::/0"]}).source_ranges == (network("203.0.113.0/24"),)


@pytest.mark.parametrize(
    ("spec", "external_local"),
    [
        ({"type": "ClusterIP"}, False),
        ({"type": "ClusterIP", "externalIPs": ["192.0.2.1"]}, True),
        ({"type": "NodePort"}, True),
        ({"type": "LoadBalancer"}, True),
    ],
)
def test_the_external_policy_needs_external_access(spec: dict[str, Any], external_local: bool) -> None:
    assert only({"externalTrafficPolicy": "Local", **spec}).external_local is external_local


@pytest.mark.parametrize(
    ("kind", "policy", "kept"),
    [("LoadBalancer", "Local", 31000), ("LoadBalancer", "Cluster", 0), ("NodePort", "Local", 0)],
)
def test_health_check_port(kind: str, policy: str, kept: int) -> None:
    found = only({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 31000})
    assert found.health_check_port == kept


def test_a_node_port_counts_whatever_the_type() -> None:
    assert only({"ports": [port(80, node_port=30000)]}).externally_accessible


@pytest.mark.parametrize(("mode", "kept"), [(None, ("198.51.100.1",)), ("VIP", ("198.51.100.1",)), ("Proxy", ())])
def test_load_balancers_that_proxy_are_not_short_cut(mode: str | None, kept: tuple[str, ...]) -> None:
    import msgspec

    from netsim.kube.objects import IngressStatus, LoadBalancerStatus, ServiceStatus

    ingress = [IngressStatus(ip="198.51.100.1", ip_mode=mode), IngressStatus(hostname="lb.example.com")]
    made = msgspec.structs.replace(
        service("shop/web", {"clusterIP": "10.96.0.1", "ports": [port(80)]}),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress)),
    )
    assert service_ports([made], Family.IPV4)[0].load_balancer_ips == kept


def test_affinity() -> None:
    assert only({}).affinity is None
    assert only({"sessionAffinity": "ClientIP"}).affinity == 10800
    spec = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}
    assert only(spec).affinity == 60


def test_every_bad_address_is_listed() -> None:
    bad = service(
        "shop/web",
        {
            "clusterIP": "10.96.0.1",
            "ports": [port(80)],
            "externalIPs": ["192.0.2.256"],
            "loadBalancerSourceRanges": ["203.0.113.0"],
        },
    )
    with pytest.raises(InputError) as raised:
        service_ports([bad], Family.IPV4)
    assert [p.field for p in raised.value.problems] == ["spec.externalIPs[0]", "spec.loadBalancerSourceRanges[0]"]
    assert all(p.object == 'Service "shop/web"' for p in raised.value.problems)
