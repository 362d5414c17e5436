"""The FIB beside the kernel's: random addresses, routes and rules, then `ip route get` for many destinations.

Each world is built in a network namespace of its own that ends with its process."""

from __future__ import annotations

import ipaddress
import json
import random
import subprocess
from pathlib import Path

import pytest

from netsim.linux.dump import read_dump
from netsim.linux.fib import Fib
from netsim.linux.iproute_parse import parse_all, parse_fdb, parse_neighbour
from netsim.linux.iproute_text import fdb_lines, neigh_lines, route_lines, rule_lines
from netsim.packet.address import Family, ip

pytestmark = pytest.mark.kernel
WORLDS = range(6)
LOOKUPS = 60

_SCRIPT = """
set -e
cd "$1"
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0
ip link set lo up
for n in 0 1 2; do
  ip link add dev$n type veth peer name far$n
  ip link set dev$n address 0a:00:00:00:00:0$n
  sysctl -qw net.ipv6.conf.far$n.disable_ipv6=1
  ip link set dev$n up
  ip link set far$n up
done
ip -force -batch setup >/dev/null 2>refused || true
for n in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr | grep -q tentative || break; sleep 0.1; done
bridge fdb replace 0a:00:00:00:00:77 dev dev1 self permanent
ip -j -d link > out/link.json
ip -j addr > out/addr.json
ip -j route show table all > out/route.json
ip -6 -j route show table all > out/route6.json
ip -j rule > out/rule.json
ip -6 -j rule > out/rule6.json
ip -j neigh > out/neigh.json
bridge -j fdb > out/fdb.json
ip route show table all > route.txt
ip -6 route show table all > route6.txt
ip rule > rule.txt
ip -6 rule > rule6.txt
ip neigh > neigh.txt
sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding > out/sysctl.txt
bridge fdb > fdb.txt
while read -r line; do
  ip -j route get $line 2>/dev/null || echo "error $(ip -j route get $line 2>&1 >/dev/null | head -1)"
done < lookups > answers
"""


def _prefix(rng: random.Random, six: bool) -> str:
    base, bits = (int(ip("fd00::")), 128) if six else (int(ip("10.0.0.0")), 32)
    length = rng.choice([16, 24, 32, 64, 96, 120, 128] if six else [8, 9, 10, 12, 16, 20, 24, 28, 32])
    value = base | _low(rng, six)
    return str(ipaddress.ip_network((value >> (bits - length) << (bits - length), length)))


def _low(rng: random.Random, six: bool) -> int:
    """Few distinct values, so that prefixes overlap and destinations hit them."""
    return rng.choice([0, 1, 2, 3]) << (64 if six else 16) | rng.choice([0, 1, 2]) << 8 | rng.choice([0, 1, 2, 5, 255])


def _address(rng: random.Random, six: bool) -> str:
    return str(ip("fd00::" if six else "10.0.0.0") + _low(rng, six))


def _setup(rng: random.Random) -> list[str]:
    lines = []
    for six in (False, True):
        for device in range(3):
            for _ in range(rng.randint(1, 3)):
                length = rng.choice([64, 120, 128] if six else [16, 24, 31, 32])
                extra = " noprefixroute" if rng.random() < 0.2 else ""
                extra += " brd +" if not six and length < 31 else ""
                lines.append(f"addr add {_address(rng, six)}/{length} dev dev{device}{extra}")
        ip6 = "-6 " if six else ""
        for _ in range(25):
            kind = rng.choice(["", "", "", "", "", "blackhole ", "unreachable ", "prohibit ", "throw "])
            line = f"{ip6}route add {kind}{_prefix(rng, six) if rng.random() < 0.9 else 'default'}"
            if not kind:
                via = f" via {_address(rng, six)}" if rng.random() < 0.7 else ""
                line += f"{via} dev dev{rng.randint(0, 2)}" + (" onlink" if via and rng.random() < 0.8 else "")
            if rng.random() < 0.4:
                line += f" metric {rng.choice([5, 100, 300, 2000])}"
            if rng.random() < 0.4:
                line += f" table {rng.choice([100, 200, 300])}"
            lines.append(line)
        for priority in rng.sample(range(1, 32000), rng.randint(0, 5)):
            wanted = [f"from {_prefix(rng, six)}", f"to {_prefix(rng, six)}", "fwmark 0x1/0x3", "iif dev1", "iif lo"]
            what = " ".join(rng.sample(wanted[:3], rng.randint(1, 2)) + rng.sample(wanted[3:], rng.randint(0, 1)))
            action = rng.choice(["lookup 100", "lookup 200", "lookup 300", "blackhole", "prohibit", "unreachable"])
            lines.append(f"{ip6}rule add {'not ' if rng.random() < 0.2 else ''}{what} {action} priority {priority}")
    for address in ("10.9.9.9", "fd09::9"):
        lines.append(f"neigh add {address} lladdr 0a:00:00:00:00:99 dev dev0 nud permanent")
    return lines


def _world(directory: Path, seed: int) -> list[dict[str, str | None]]:
    rng = random.Random(seed)
    asked: list[dict[str, str | None]] = []
    for _ in range(LOOKUPS):
        six = rng.random() < 0.5
        question: dict[str, str | None] = {
            "dst": _address(rng, six),
            "mark": str(rng.choice([0, 0, 1, 5])),
            "iif": None,
        }
        if rng.random() < 0.4:
            question |= {"iif": f"dev{rng.randint(0, 2)}", "src": "fd77::7" if six else "203.0.113.7"}
        asked.append(question)
    (directory / "out").mkdir()
    (directory / "setup").write_text("\n".join(_setup(rng)) + "\n")
    (directory / "lookups").write_text("".join(_question(question) + "\n" for question in asked))
    (directory / "script").write_text(_SCRIPT)
    command = ["unshare", "-n", "bash", "script", str(directory)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return asked


def _question(question: dict[str, str | None]) -> str:
    way = f" from {question['src']} iif {question['iif']}" if question["iif"] else ""
    return f"{question['dst']}{way} mark {question['mark']}"


_ERRORS = {"unreachable": "No route to host", "prohibit": "Permission denied", "blackhole": "Invalid argument"}


@pytest.mark.parametrize("seed", WORLDS)
def test_routes_are_found_as_the_kernel_finds_them(tmp_path, seed):
    asked = _world(tmp_path, seed)
    namespace = read_dump(tmp_path / "out")
    fib = Fib(namespace)
    wrong = []
    answered = 0
    for question, answer in zip(asked, (tmp_path / "answers").read_text().splitlines(), strict=True):
        dst = ip(str(question["dst"]))
        source = ip(str(question["src"])) if question["iif"] else None
        found = fib.lookup(dst, src=source, iif=question["iif"], mark=int(str(question["mark"])))
        if answer.startswith("error"):
            told = "error" if not found.ok else str(found)
            expected: object = "error"
        else:
            entry = json.loads(answer)[0]
            answered += 1
            kind = entry.get("type", "unicast")
            expected = (kind, entry.get("gateway"), entry["dev"] if kind == "unicast" else None, entry.get("prefsrc"))
            shown = found.type.value if found.type is not None and found.ok else "none"
            gateway = str(found.gateway) if found.gateway is not None else None
            prefsrc = str(found.prefsrc) if question["iif"] is None else None
            told = (shown, gateway, found.device if kind == "unicast" else None, prefsrc)
            if question["iif"] is not None:
                expected = (*expected[:3], None)  # type: ignore[index]
        if told != expected:
            wrong.append((_question(question), answer, told))
    assert not wrong
    assert answered > LOOKUPS // 5


@pytest.mark.parametrize("seed", WORLDS)
def test_the_same_words_as_iproute2(tmp_path, seed):
    _world(tmp_path, seed)
    namespace = read_dump(tmp_path / "out")
    for family, name in ((Family.IPV4, ""), (Family.IPV6, "6")):
        assert rule_lines(namespace, family) == (tmp_path / f"rule{name}.txt").read_text().splitlines()
        real = [r for r in (tmp_path / f"route{name}.txt").read_text().splitlines() if (" pref " in r) == (name == "6")]
        assert sorted(route_lines(namespace, family, local=True)) == sorted(real)
    assert sorted(neigh_lines(namespace)) == sorted((tmp_path / "neigh.txt").read_text().splitlines())
    assert sorted(fdb_lines(namespace)) == sorted((tmp_path / "fdb.txt").read_text().splitlines())
    assert parse_all((tmp_path / "fdb.txt").read_text(), parse_fdb) == list(namespace.fdb)
    assert parse_all((tmp_path / "neigh.txt").read_text(), parse_neighbour) == list(namespace.neighbours)
