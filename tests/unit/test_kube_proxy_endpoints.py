"""Which endpoints a node uses, case by case."""

from __future__ import annotations

import pytest

from netsim.errors import InputError
from netsim.packet.address import Family
from netsim_backends.kube_proxy.endpoints import Choice, Endpoint, categorize, collect
from tests.support.kube_proxy_clusters import endpoint, endpoint_slice

HTTP = [{"name": "http", "protocol": "TCP", "port": 80}]


def made(name: str, node: str = "", **state: object) -> Endpoint:
    return Endpoint(name, name.rpartition(":")[0], 80, node, **state)  # type: ignore[arg-type]


def choose(*endpoints: Endpoint, cluster: bool = True, local: bool = False, zone: str = "a", **more: bool) -> Choice:
    return categorize(endpoints, node="n1", zone=zone, uses_cluster=cluster, uses_local=local, **more)


def names(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [e.name for e in endpoints]


def test_order_is_that_of_the_text() -> None:
    found = collect([endpoint_slice("web", [endpoint("10.0.0.2"), endpoint("10.0.0.10")], HTTP)], Family.IPV4)
    assert names(found["http", "tcp"].endpoints) == ["10.0.0.10:80", "10.0.0.2:80"]


def test_ports_match_by_name_and_protocol_and_need_a_number() -> None:
    ports = [
        {"protocol": "UDP", "port": 53},
        {"name": None, "protocol": "TCP", "port": 53},
        {"name": "x", "protocol": "TCP"},
    ]
    found = collect([endpoint_slice("dns", [endpoint("fd00::1")], ports)], Family.IPV6)
    assert set(found) == {("", "udp"), ("", "tcp")}
    assert names(found["", "udp"].endpoints) == ["[fd00::1]:53"]


def test_only_the_first_address_counts_and_it_is_read_leniently() -> None:
    entry = {"addresses": ["010.0.00.9", "10.0.0.1"]}
    found = collect([endpoint_slice("web", [entry], HTTP)], Family.IPV4)
    assert names(found["http", "tcp"].endpoints) == ["10.0.0.9:80"]


def test_slices_of_the_other_family_are_not_seen() -> None:
    assert collect([endpoint_slice("web", [endpoint("fd00::1")], HTTP)], Family.IPV4) == {}


def test_one_endpoint_in_two_slices_is_one_and_a_local_word_wins() -> None:
    slices = [
        endpoint_slice("web", [endpoint("10.0.0.1", "n2")], HTTP, "a"),
        endpoint_slice("web", [endpoint("10.0.0.1", "n1", ready=False)], HTTP, "b"),
    ]
    found = collect(reversed(slices), Family.IPV4)["http", "tcp"]
    assert [e.node for e in found.seen_from("n3")] == ["n2"]
    assert [(e.node, e.ready) for e in found.seen_from("n1")] == [("n1", False)]


def test_a_bad_address_names_its_slice_and_field() -> None:
    with pytest.raises(InputError) as raised:
        collect([endpoint_slice("shop/web", [endpoint("10.0.0.300")], HTTP)], Family.IPV4)
    assert 'EndpointSlice "shop/web-1": endpoints[0].addresses[0]' in str(raised.value)


def test_ready_endpoints_serve() -> None:
    choice = choose(made("a", "n1"), made("b", "n2", ready=False), made("c"))
    assert (names(choice.cluster), choice.local, names(choice.reachable), choice.any) == (
        ["a", "c"],
        (),
        ["a", "c"],
        True,
    )


def test_draining_endpoints_serve_when_none_is_ready() -> None:
    draining = made("a", ready=False, terminating=True)
    stopped = made("b", ready=False, serving=False, terminating=True)
    assert names(choose(draining, stopped).cluster) == ["a"]
    assert choose(stopped) == Choice((), (), (), False)


def test_serving_but_neither_ready_nor_terminating_is_never_used() -> None:
    assert not choose(made("a", "n1", ready=False), local=True).any


def test_cluster_and_local_lists_fall_back_each_on_its_own() -> None:
    choice = choose(made("a", "n1", ready=False, terminating=True), made("b", "n2"), local=True)
    assert (names(choice.cluster), names(choice.local)) == (["b"], ["a"])
    assert names(choice.reachable) == ["a", "b"]


def test_no_local_endpoint_is_not_no_endpoint() -> None:
    choice = choose(made("b", "n2"), cluster=False, local=True)
    assert choice == Choice((), (), (), True)


@pytest.mark.parametrize(
    ("hints", "zone", "expected"),
    [
        ((("a",), ("b",)), "a", ["x"]),
        ((("a",), ("b",)), "c", ["x", "y"]),  # nobody is hinted here
        ((("a",), ()), "a", ["x", "y"]),  # one endpoint has no hint
        ((("a",), ("b",)), "", ["x", "y"]),  # this node states no zone
        ((("a", "b"), ("b",)), "b", ["x", "y"]),
    ],
)
def test_zone_hints(hints: tuple[tuple[str, ...], ...], zone: str, expected: list[str]) -> None:
    endpoints = [made(name, zone_hints=frozenset(hint)) for name, hint in zip("xy", hints)]
    assert names(choose(*endpoints, zone=zone).cluster) == expected


def test_node_hints_come_before_zone_hints_where_they_count() -> None:
    both = [
        made("x", zone_hints=frozenset("a"), node_hints=frozenset(["n2"])),
        made("y", zone_hints=frozenset("b"), node_hints=frozenset(["n1"])),
    ]
    assert names(choose(*both).cluster) == ["y"]
    assert names(choose(*both, same_node_hints=False).cluster) == ["x"]


def test_topology_is_not_for_local_endpoints() -> None:
    here, there = made("x", "n1", zone_hints=frozenset("b")), made("y", "n2", zone_hints=frozenset("a"))
    choice = choose(here, there, local=True)
    assert (names(choice.cluster), names(choice.local), names(choice.reachable)) == (["y"], ["x"], ["x", "y"])


def test_hints_of_endpoints_that_are_not_ready_do_not_matter() -> None:
    assert names(choose(made("x", zone_hints=frozenset("a")), made("y", ready=False)).cluster) == ["x"]
