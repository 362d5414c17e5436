"""The dump of one node: what is derived is not taken twice, and every mistake names its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netsim.errors import InputError
from netsim.linux.dump import read_dump, read_sysctls

LINKS = [
    {"ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "link_type": "loopback", "mtu": 65536},
    {"ifname": "eth0", "flags": ["UP", "LOWER_UP"], "link_type": "ether", "address": "02:00:00:00:00:01", "mtu": 1500},
]
HELD = {"family": "inet", "local": "192.0.2.1", "prefixlen": 24, "scope": "global"}
CONNECTED = {"dst": "192.0.2.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "flags": []}
DEFAULT = {"dst": "default", "gateway": "192.0.2.254", "dev": "eth0", "flags": []}


def write(directory: Path, routes: list[dict[str, object]], **files: str) -> Path:
    node = directory / "n1"
    node.mkdir()
    (node / "link.json").write_text(json.dumps(LINKS))
    (node / "addr.json").write_text(json.dumps([{"ifname": "eth0", "addr_info": [HELD]}]))
    (node / "route.json").write_text(json.dumps(routes))
    for name, text in files.items():
        (node / name.replace("__", "-").replace("_", ".")).write_text(text)
    return node


def test_the_node_is_called_as_its_directory_and_keeps_what_was_configured(tmp_path):
    held = read_dump(write(tmp_path, [DEFAULT, CONNECTED], sysctl_txt="net.ipv4.conf.flannel/1.rp_filter = 2\n"))
    assert (held.name, held.node) == ("node/n1", "n1")
    assert [str(route.destination) for route in held.routes] == ["0.0.0.0/0"]
    assert held.sysctls["net.ipv4.conf.flannel.1.rp_filter"] == "2"
    assert not held.addresses[0].noprefixroute


def test_a_connected_route_that_was_taken_away_stays_away(tmp_path):
    assert read_dump(write(tmp_path, [DEFAULT])).addresses[0].noprefixroute


def test_every_mistake_of_every_file_is_told(tmp_path):
    node = write(
        tmp_path,
        [CONNECTED, {"dst": "10.0.0.0/40", "dev": "eth0"}],
        sysctl_txt="net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.rp_filter = on\nnonsense\n",
        iptables__save="*filter\n-A INPUT -j NOWHERE\nCOMMIT\n",
        nft_json="{}",
    )
    (node / "link.json").unlink()
    with pytest.raises(InputError) as caught:
        read_dump(node)
    told = str(caught.value)
    for name in ("link.json: is missing", "nft.json: is no file", "route.json:1: ", "sysctl.txt:2: ", "sysctl.txt:3: "):
        assert f"{node}/{name}" in told
    assert "iptables-save:" in told


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a directory"):
        read_dump(tmp_path / "nowhere")


def test_text_that_is_not_utf8(tmp_path):
    node = write(tmp_path, [])
    (node / "route.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"route\.json: is not UTF-8"):
        read_dump(node)


@pytest.mark.parametrize("value", ["", "yes", "1.5", "²"])
def test_a_sysctl_that_decides_is_a_number(value):
    with pytest.raises(InputError, match=r"^f:1: "):
        read_sysctls(f"net.ipv4.ip_forward = {value}", "f")
