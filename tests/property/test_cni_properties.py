"""What holds for any cluster: addresses are unique, order never matters, both ends of everything agree."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.backends import Backend
from netsim.kube.cluster import Cluster
from netsim.kube.objects import Object
from netsim.packet.address import ip, network
from netsim_backends.cni import BRIDGE, PTP
from netsim_backends.cni.host_local import RangeError, RangeSet, canonical
from netsim_backends.flannel import BACKEND as FLANNEL
from netsim_backends.flat import BACKEND as FLAT
from tests.support.cni_clusters import VXLAN, cluster, configured, net_conf, node, node_state, pod, pod_state

CHOICES: list[tuple[Backend, str | None]] = [
    (FLANNEL, "vxlan"), (FLANNEL, "host-gw"), (FLANNEL, "udp"), (FLANNEL, "ipip"), (FLANNEL, "alloc"),
    (BRIDGE, None), (BRIDGE, "masq"), (PTP, None), (PTP, "masq"), (FLAT, None),
]  # fmt: skip
choices = st.sampled_from(CHOICES)


@st.composite
def objects(draw: Any) -> list[Object]:
    count = draw(st.integers(1, 5))
    found: list[Object] = [node(n) for n in range(1, count + 1)]
    for index in range(draw(st.integers(0, 12))):
        on = draw(st.integers(1, count))
        # Some pods come with an address, as in a dump: where others would be put next.
        held = (f"10.244.{on}.{2 + index}",) if draw(st.booleans()) else ()
        ports = draw(st.lists(st.integers(1, 65535), max_size=3, unique=True))
        mapped = [{"containerPort": 80, "hostPort": p} for p in ports]
        found.append(pod(f"p{index}", f"n{on}", *held, ports=mapped, hostNetwork=draw(st.booleans())))
    return [*found, net_conf(VXLAN)]


def running(items: list[Object], choice: tuple[Backend, str | None]) -> tuple[Cluster, Any]:
    held = cluster(*items)
    return held, configured(choice[0], held, choice[1])


@given(items=objects(), choice=choices)
def test_no_address_is_given_twice(items: list[Object], choice: tuple[Backend, str | None]) -> None:
    held, plugin = running(items, choice)
    given_ = plugin.allocate()
    wanted = {key for key, one in held.pods.items() if not one.ips and not one.spec.host_network}
    assert set(given_) == wanted
    everything = [text for texts in given_.values() for text in texts]
    everything += [text for one in held.pods.values() if not one.spec.host_network for text in one.ips]
    assert len(everything) == len(set(everything))
    for key, (text,) in given_.items():
        subnet = network(held.nodes[held.pods[key].spec.node_name].spec.pod_cidr)
        assert ip(text) in subnet
        assert ip(text) not in (subnet.network_address, subnet.network_address + 1, subnet.broadcast_address)


@given(items=objects(), choice=choices, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_input_never_matters(
    items: list[Object], choice: tuple[Backend, str | None], seed: random.Random
) -> None:
    held, plugin = running(items, choice)
    shuffled = list(items)
    seed.shuffle(shuffled)
    _, other = running(shuffled, choice)
    assert plugin.allocate() == other.allocate()
    for name in held.nodes:
        assert node_state(plugin, name) == node_state(other, name)
    for one in held.pods.values():
        if one.ips and not one.spec.host_network:
            assert pod_state(plugin, one) == pod_state(other, one)


@given(items=objects(), choice=choices)
def test_names_and_hardware_addresses_are_unique(items: list[Object], choice: tuple[Backend, str | None]) -> None:
    held, plugin = running(items, choice)
    macs: list[str] = []
    for name in held.nodes:
        links = node_state(plugin, name).links
        assert len({link.name for link in links}) == len(links)
        assert all(len(link.name) <= 15 for link in links)
        macs += [link.mac for link in links if link.mac]
    assert len(macs) == len(set(macs))
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)


@given(count=st.integers(1, 6), mode=st.sampled_from(["vxlan", "host-gw", "ipip"]))
def test_every_node_reaches_every_other_subnet_once(count: int, mode: str) -> None:
    held, plugin = running([*(node(n) for n in range(1, count + 1)), net_conf(VXLAN)], (FLANNEL, mode))
    subnets = {name: network(one.spec.pod_cidr) for name, one in held.nodes.items()}
    for name in held.nodes:
        routes = [route.destination for route in node_state(plugin, name).routes]
        assert sorted(routes, key=str) == sorted((s for n, s in subnets.items() if n != name), key=str)


@settings(max_examples=200)
@given(
    subnet=st.sampled_from(["10.0.0.0/29", "10.0.0.0/30", "fd00::/125"]),
    steps=st.lists(st.tuples(st.sampled_from(["take", "free"]), st.integers(0, 7)), max_size=40),
)
def test_host_local_behaves_like_a_plain_book(subnet: str, steps: list[tuple[str, int]]) -> None:
    """Against the simplest model: try every address once, cyclically behind the last one given."""
    one = canonical(network(subnet))
    usable = [a for n in range(1, 8) if (a := one.subnet.network_address + n) <= one.end and a != one.gateway]
    pool, book, last = RangeSet([one]), {}, -1
    for what, who in steps:
        if what == "free":
            pool.release(str(who))
            book = {address: owner for address, owner in book.items() if owner != who}
            continue
        turn = [usable[(last + 1 + i) % len(usable)] for i in range(len(usable))]
        expected = None if who in book.values() else next((a for a in turn if a not in book), None)
        try:
            got, _ = pool.allocate(str(who))
        except RangeError:
            assert expected is None
        else:
            assert got == expected
            book[got], last = who, usable.index(got)
