"""Names of places on the example cluster, with addresses handed out by a stand-in for the network plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.cli.places import Place, Places
from netsim.cli.words import read
from netsim.errors import UsageError
from netsim.kube import control
from netsim.kube.cluster import Cluster, Settings
from netsim.kube.load import load, store
from netsim.linux.network import StaticNetwork


def in_order(cluster: Cluster) -> Mapping[tuple[str, str], Iterable[str]]:
    """10.244.N.2, .3, … in the order of the pods' names."""
    used: dict[str, int] = {}
    found = {}
    for pod in sorted(cluster.pods.values(), key=lambda p: p.key):
        node = pod.spec.node_name
        if node and not pod.ips and not pod.spec.host_network:
            used[node] = used.get(node, 1) + 1
            found[pod.key] = [cluster.nodes[node].spec.pod_cidr.replace(".0/24", f".{used[node]}")]
    return found


@pytest.fixture(scope="module")
def places() -> Places:
    cluster = control.run(store(load(["@example"])), Settings(), in_order)
    return Places(cluster, StaticNetwork({}))


def first(places: Places, place: Place) -> str:
    return str(place.addresses[0])


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("pod/shop/web-0", "pod/shop/web-0", None),
        ("shop/web-0", "pod/shop/web-0", None),
        ("pods/shop/web-0:http", "pod/shop/web-0:http", 8080),
        ("sts/shop/web", "pod/shop/web-0", None),
        ("svc/shop/cart", "svc/shop/cart:http", 80),
        ("service/shop/cart:80", "svc/shop/cart:http", 80),
        ("svc/shop/cart:http", "svc/shop/cart:http", 80),
        ("svc/shop/cart:81", "svc/shop/cart:81", 81),
        ("svc/kube-system/kube-dns:53", "svc/kube-system/kube-dns:dns", 53),
        ("node/n1", "node/n1", None),
        ("node/n1:30081", "node/n1:30081", 30081),
        ("192.168.10.11:30081", "192.168.10.11:30081", 30081),
        ("[2001:db8::1]:443", "[2001:db8::1]:443", 443),
        ("external", "external", None),
        ("http://cart.shop/path?x", "svc/shop/cart:http", 80),
        ("https://203.0.113.9/", "203.0.113.9:443", 443),
    ],
)
def test_what_a_name_means(places: Places, text: str, name: str, port: int | None) -> None:
    place = places.destination(text)
    assert (place.name, place.port) == (name, port)


def test_names_can_be_pasted_back(places: Places) -> None:
    for text in ("shop/web-0", "sts/shop/web", "svc/shop/cart", "node/n1:80", "[2001:db8::1]:443", "external:53"):
        place = places.destination(text)
        assert places.destination(place.name) == place


def test_a_deployment_is_its_first_ready_pod(places: Places) -> None:
    assert places.cluster is not None
    names = sorted(name for space, name in places.cluster.pods if space == "shop" and name.startswith("cart-"))
    assert places.destination("deploy/shop/cart").name == f"pod/shop/{names[0]}"


@pytest.mark.parametrize(
    "name", ["cart", "cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local."]
)
def test_dns_searches_from_the_senders_namespace(places: Places, name: str) -> None:
    web = places.source("pod/shop/web-0")
    assert first(places, places.destination(f"{name}:80" if not name.endswith(".") else name, web)) == "10.96.3.7"
    if name == "cart":
        with pytest.raises(UsageError, match="could be: "):
            places.destination(name, places.source("pod/data/postgres-0"))


def test_dns_of_headless_services(places: Places) -> None:
    pod = places.source("pod/shop/web-1")
    assert places.destination("web-1.web.shop:8080").addresses == pod.addresses
    answer = places.destination("svc/shop/web")
    assert answer.port == 8080
    assert "DNS answers 2 addresses" in answer.notes[0]
    dashed = str(pod.addresses[0]).replace(".", "-")
    assert places.destination(f"{dashed}.shop.pod.cluster.local").addresses == pod.addresses


def test_an_external_name_is_outside(places: Places) -> None:
    place = places.destination("svc/shop/payments")
    assert (place.namespace, place.port) == ("external", 443)
    assert "api.payments.example" in place.notes[0]


def test_addresses_send_from_whoever_owns_them(places: Places) -> None:
    pod = places.source("pod/shop/web-0")
    assert places.source(first(places, pod)).namespace == "pod/shop/web-0"
    assert places.source("192.168.20.13").namespace == "node/n3"
    assert places.source("198.51.100.7").namespace == "external"


def test_a_host_network_pod_sends_from_its_node(places: Places) -> None:
    assert places.source("ds/kube-system/kube-flannel-ds").namespace in ("node/n1", "node/n2", "node/n3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pod/shop/web-9", "did you mean .*pod/shop/web-"),
        ("svc/shop/carts", "did you mean svc/shop/cart"),
        ("svc/data/cart", "did you mean svc/shop/cart"),
        ("node/n9", "did you mean node/n1 or node/n2 or node/n3"),
        ("deploy/shop/card", "did you mean deploy/shop/cart"),
        ("svc/kube-system/kube-dns", r"which port\? .*53/UDP \(dns\).*9153/TCP \(metrics\)"),
        ("svc/shop/cart:https", "no port called 'https'; it has: 80/TCP"),
        ("pod/shop/web-0:https", "no port called 'https'; its named ports are: http"),
        ("configmap/shop/x", "no kind that has a place"),
        ("node/kube/n1", "a node has no namespace"),
        ("svc/shop/cart:", "missing after the colon"),
        ("svc/shop/cart:70000", "between 1 and 65535"),
        ("svc/shop/cart:0", "between 1 and 65535"),
        ("http:///", "a URL is"),
        ("ftp://cart.shop", "a URL is"),
        ("", "names no place"),
        ("a//b", "names no place"),
        ("[10.0.0.1", "brackets"),
        ("fe80::1%eth0", "zone index"),
    ],
)
def test_a_wrong_name_says_what_would_be_right(places: Places, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        places.destination(text)


def test_a_service_does_not_send(places: Places) -> None:
    with pytest.raises(UsageError, match="only receives"):
        places.source("svc/shop/cart")


@given(st.text(max_size=30) | st.from_regex(r"[a-z/:.\[\]%]{1,20}", fullmatch=True))
def test_any_text_is_words_or_a_usage_error(text: str) -> None:
    try:
        words = read(text)
    except UsageError:
        return
    assert words.name or words.address or words.kind == "external"
