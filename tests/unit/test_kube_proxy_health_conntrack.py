"""Health check answers, and the UDP flows that are forgotten."""

from __future__ import annotations

import json

import pytest

from netsim_backends.kube_proxy.conntrack import udp_targets
from netsim_backends.kube_proxy.endpoints import Endpoint, EndpointSet
from netsim_backends.kube_proxy.health import health_answer
from netsim_backends.kube_proxy.service_ports import ServicePort

HERE = [
    Endpoint("10.244.1.5:80", "10.244.1.5", 80, "n1"),
    Endpoint("10.244.1.5:443", "10.244.1.5", 443, "n1"),
    Endpoint("10.244.1.6:80", "10.244.1.6", 80, "n1", ready=False, terminating=True),
    Endpoint("10.244.2.7:80", "10.244.2.7", 80, "n2"),
    Endpoint("192.0.2.9:80", "192.0.2.9", 80),
]


def test_local_ready_addresses_count_once() -> None:
    answer = health_answer("shop", "web", HERE, "n1")
    assert (answer.status, answer.headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "1")
    expected = {"service": {"namespace": "shop", "name": "web"}, "localEndpoints": 1, "serviceProxyHealthy": True}
    assert json.loads(answer.body) == expected


@pytest.mark.parametrize(
    ("node", "healthy", "status"), [("n1", False, 503), ("n3", True, 503), ("", True, 503), ("n2", True, 200)]
)
def test_status(node: str, healthy: bool, status: int) -> None:
    assert health_answer("shop", "web", HERE, node, healthy).status == status


def dns(protocol: str = "udp", *serving: Endpoint) -> tuple[ServicePort, EndpointSet]:
    port = ServicePort(
        "kube-system/dns", "kube-system", "dns", ("", protocol), protocol, "10.96.0.10", 53, 30053, ("192.0.2.1",)
    )
    return port, EndpointSet(serving)


ALIVE = Endpoint("10.244.1.5:53", "10.244.1.5", 53, ready=False)
GONE = Endpoint("10.244.1.6:53", "10.244.1.6", 53, serving=False)


@pytest.mark.parametrize(
    ("destination", "port", "replies_from", "stale"),
    [
        ("10.96.0.10", 53, "10.244.1.5", False),
        ("10.96.0.10", 53, "10.244.1.6", True),
        ("10.96.0.10", 53, "10.96.0.10", True),  # sent before there were endpoints
        ("192.0.2.1", 53, "10.244.1.6", True),
        ("172.18.0.3", 30053, "10.244.1.6", True),
        ("172.18.0.3", 30053, "10.244.1.5", False),
        ("8.8.8.8", 53, "8.8.8.8", False),
    ],
)
def test_stale_flows(destination: str, port: int, replies_from: str, stale: bool) -> None:
    assert udp_targets([dns("udp", ALIVE, GONE)]).is_stale(destination, port, replies_from) is stale


def test_other_protocols_are_left_alone() -> None:
    assert not udp_targets([dns("tcp", GONE)]).is_stale("10.96.0.10", 53, "10.244.1.6")
