"""Probe lists of one's own: what is read, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from netsim.cli.probe_file import read
from netsim.errors import InputError
from netsim.lab.probes import Manner, Probe
from netsim.packet.address import ip
from netsim.packet.model import Proto
from tests.support.lab_clusters import assembled, every_class

GOOD = """
probes:
  - {from: pod/shop/web-0, to: "svc/shop/cart:http", manner: connection, count: 20, name: shopping}
  - {from: external, to: "192.168.10.11:30081", size: 1500, df: true, manner: one}
  - {from: node/n1, to: pod/data/postgres-0, protocol: icmp, ttl: 2}
  - {from: pod/shop/web-0, to: "svc/shop/checkout:https"}
"""


def probes(folder: Path, text: str, *, dual: bool = False) -> list[Probe]:
    path = folder / "probes.yaml"
    path.write_text(text)
    made = every_class() if dual else assembled("@example")
    return read(str(path), made, made.network, None)


def test_places_become_addresses(tmp_path: Path) -> None:
    shopping, large, ping, sticky = probes(tmp_path, GOOD)
    assert (shopping.source, shopping.target, shopping.port) == ("pod/shop/web-0", ip("10.96.3.7"), 80)
    assert (shopping.manner, shopping.count, shopping.path) == (Manner.CONNECTION, 20, "shopping")
    assert (large.source, large.size, large.dont_fragment, large.manner) == ("external", 1500, True, Manner.ONE)
    assert (ping.protocol, ping.port, ping.ttl, ping.manner) == (Proto.ICMP, 0, 2, Manner.ANSWERED)
    assert sticky.sticky
    assert not shopping.sticky


def test_both_families_are_probed_unless_one_is_named(tmp_path: Path) -> None:
    line = '{from: pod/default/client, to: "svc/default/web:http"'
    both = probes(tmp_path, f"probes:\n  - {line}}}\n", dual=True)
    assert [one.family for one in both] == [4, 6]
    (six,) = probes(tmp_path, f"probes:\n  - {line}, family: 6}}\n", dual=True)
    assert six.family == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "probes.yaml:1: a probe list is"),
        ("probes:\n  - 7\n", "probes.yaml:2: probes[0]: a probe is an object"),
        ("probes:\n  - {from: pod/shop/web-0}\n", "probes.yaml:2: probes[0].to: Required value"),
        ("probes: [{from: external, to: node/n1, color: 1}]\n", "probes[0].color: unknown field; there are count, df"),
        (
            "probes: [{from: external, to: node/n1, ttl: 256}]\n",
            "probes[0].ttl: Invalid value: 256: must be between 1 and 255",
        ),
        ("probes: [{from: external, to: node/n1, df: 1}]\n", "probes[0].df: Invalid value: 1: true or false"),
        ("probes: [{from: external, to: node/n1, protocol: gre}]\n", 'probes[0].protocol: Unsupported value: "gre"'),
        ("probes: [{from: external, to: node/n1, manner: loud}]\n", 'probes[0].manner: Unsupported value: "loud"'),
        ("probes: [{from: external, to: node/n9, port: 1}]\n", "probes[0]: "),
        ("probes: [{from: external, to: node/n1}]\n", "probes[0]: which port of node/n1?"),
        ("probes: [{from: external, to: 'node/n1:9', protocol: udp, manner: reset}]\n", "UDP has no manner reset"),
        ("probes: []\n", "there is no probe in this file"),
        ("probes: [{from: external\n", "probes.yaml:"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        probes(tmp_path, text)
    assert said in str(caught.value)


def test_every_problem_is_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        probes(tmp_path, "probes:\n  - {from: external, to: node/n9, port: 1}\n  - {from: 3, to: node/n1, ttl: 0}\n")
    assert len(caught.value.problems) == 3


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    made = assembled("@example")
    with pytest.raises(InputError, match="cannot be read"):
        read(str(tmp_path / "none.yaml"), made, made.network, None)
