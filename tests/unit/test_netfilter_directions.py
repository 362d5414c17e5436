"""Source is not destination: every match with two sides, on a packet and on the same packet turned round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from netsim.linux.netfilter.lowering import columns_of, holds
from netsim.linux.netfilter.text import rule
from netsim.linux.netfilter.walk import header_fits
from netsim.packet.address import Family, ip
from netsim.packet.model import Packet, Sctp, Tcp, Udp

BODIES: dict[str, Any] = {"tcp": (6, Tcp), "udp": (17, Udp), "sctp": (132, Sctp)}
ENV: Any = SimpleNamespace(
    address_type=lambda address, device=None: "LOCAL" if str(address) == "10.0.0.1" else "UNICAST"
)


def packet(name: str, turned: bool) -> Packet:
    proto, body = BODIES[name]
    hosts, ports = ("10.0.0.1", "10.0.0.2"), (1000, 80)
    if turned:
        hosts, ports = hosts[::-1], ports[::-1]
    return Packet(ip(hosts[0]), ip(hosts[1]), proto, body(*ports))


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    "text",
    [
        "-s 10.0.0.1",
        "-d 10.0.0.2",
        "-m {0} --sport 1000",
        "-m {0} --dport 80",
        "-m {0} ! --dport 1000",
        "-m multiport --sports 999,1000",
        "-m multiport --dports 80:90",
        "-m iprange --src-range 10.0.0.1-10.0.0.1",
        "-m iprange --dst-range 10.0.0.2-10.0.0.9",
        "-m addrtype --src-type LOCAL",
        "-m addrtype ! --dst-type LOCAL",
    ],
)
def test_a_rule_fits_one_direction_alone(name: str, text: str) -> None:
    found = rule(f"-p {name} {text.format(name)} -j ACCEPT", Family.IPV4)
    for turned in (False, True):
        skb: Any = SimpleNamespace(
            packet=packet(name, turned), iif="eth0", oif=None, physin=None, physout=None, mark=0, ct=None,
            ct_state="NEW", ct_reply=False,
        )  # fmt: skip
        fits = header_fits(found, skb.packet, skb.iif, skb.oif)
        assert (fits and all(m.evaluate(skb, ENV) for m in found.matches)) is not turned
        assert (fits and all(holds(m.lower(), columns_of(skb, ENV)) for m in found.matches)) is not turned
