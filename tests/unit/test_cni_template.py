"""The template in backends/netsim_backends/_template works as it stands: packets pass between its pods."""

from __future__ import annotations

import pytest

from netsim.backends import CniPlugin
from netsim.errors import InputError, UsageError
from netsim.linux.fib import Fib
from netsim.packet.address import ip
from netsim_backends._template import BACKEND
from tests.support.cni_clusters import cluster, configured, node, node_state, pod, pod_state, underlay


def test_it_is_what_the_core_asks_for() -> None:
    assert isinstance(configured(BACKEND, cluster(node(1))), CniPlugin)
    assert BACKEND.detect(cluster(node(1))) is None


def test_addresses() -> None:
    held = cluster(
        node(1, "10.244.1.0/24", "fd00:1::/64"), pod("b", "n1"), pod("a", "n1"), pod("c", "n1", "10.244.1.2")
    )
    assert configured(BACKEND, held).allocate() == {
        ("shop", "a"): ["10.244.1.3", "fd00:1::2"],
        ("shop", "b"): ["10.244.1.4", "fd00:1::3"],
    }


def test_a_full_subnet() -> None:
    with pytest.raises(InputError, match=r'Node "n1": no address left in 10\.244\.1\.0/30'):
        configured(BACKEND, cluster(node(1, "10.244.1.0/30"), pod("a", "n1"), pod("b", "n1"))).allocate()


@pytest.mark.parametrize(("one", "other"), [("10.244.1.2", "10.244.1.3"), ("fd00:1::2", "fd00:1::3")])
def test_the_way_from_pod_to_pod(one: str, other: str) -> None:
    first, second = pod("a", "n1", one), pod("b", "n1", other)
    plugin = configured(BACKEND, cluster(node(1), first, second))
    leaving = Fib(pod_state(plugin, first)).lookup(ip(other))
    assert (leaving.ok, leaving.device, leaving.prefsrc) == (True, "eth0", ip(one))
    host = node_state(plugin, "n1")
    passing = Fib(host).lookup(ip(other))
    arriving = next(link for link in host.links if link.name == passing.device)
    assert arriving.peer == ("pod/shop/b", "eth0")
    assert pod_state(plugin, second).links[0].peer == ("node/n1", passing.device)


def test_routes_for_the_router() -> None:
    held = cluster(node(2), node(1))
    routes = BACKEND.configure(held, None, underlay(held)).underlay_routes()
    assert [(str(prefix), name) for prefix, name in routes] == [("10.244.1.0/24", "n1"), ("10.244.2.0/24", "n2")]


def test_it_has_no_modes() -> None:
    with pytest.raises(UsageError, match="template has no modes"):
        configured(BACKEND, cluster(node(1)), "x")
