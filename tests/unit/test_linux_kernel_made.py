"""What the kernel adds by itself, as it was seen to: the link-local address of an IPIP device (Linux 6.1)."""

from __future__ import annotations

import pytest

from netsim.linux.kernel_made import all_addresses, kernel_routes
from netsim.linux.link import Link, LinkKind, TunnelOptions
from netsim.linux.network import Namespace
from netsim.packet.address import ip


@pytest.mark.parametrize(
    ("local", "made"),
    [("192.168.7.1", "fe80::5efe:c0a8:701"), ("203.0.113.9", "fe80::200:5efe:cb00:7109"), (None, None)],
)
def test_an_ipip_device_makes_its_link_local_address_of_its_ipv4_one(local: str | None, made: str | None) -> None:
    tunnel = TunnelOptions(ip(local) if local else None)
    held = Namespace("node/a", (Link("ipip0", LinkKind.IPIP, mtu=1480, tunnel=tunnel),))
    assert [str(one.interface) for one in all_addresses(held)["ipip0"]] == ([f"{made}/64"] if made else [])
    routes = [str(one.destination) for one in kernel_routes(held)]
    assert routes == ([f"{made}/128", "fe80::/64"] if made else []) + ["ff00::/8"]
