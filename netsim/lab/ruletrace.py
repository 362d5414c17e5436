"""The kernel's own trace of rules next to netsim's, where iptables is nft's.

A table of the lab's own, hooked in before all others, marks every packet for tracing; the kernel then tells of each rule
that matched (NFT_MSG_TRACE, ``nf_tables_trace.c``). It names a rule by its handle, which ``nft -a`` lists in the order of
the chain. The table is gone again when the listening ends.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from netsim.errors import PrivilegeError
from netsim.interpreter import Disposition
from netsim.interpreter.counters import RuleKey
from netsim.lab.expected import Way
from netsim.lab.flights import Flight
from netsim.lab.holder import within
from netsim.lab.plan import netns
from netsim.linux.netfilter.base import TABLE_HOOKS
from netsim.packet.address import Family
from netsim.packet.model import Packet

_NETLINK_NETFILTER, _ADD_MEMBERSHIP, _NO_ENOBUFS, _SOL_NETLINK, _GROUP = 12, 1, 5, 270, 9  # NFNLGRP_NFTRACE
_SUBSYSTEM, _TRACE = 10, 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_TABLE, _CHAIN, _HANDLE, _TYPE, _TRANSPORT, _FAMILY, _POLICY = (
    1,
    2,
    3,
    4,
    8,
    14,
    16,
)  # NFTA_TRACE_…; the family is NFPROTO
_ID = 0
_BY_POLICY, _BY_RULE = 1, 3  # NFT_TRACETYPE_…
_FAMILIES = {2: Family.IPV4, 10: Family.IPV6}
_OWN = """
table inet netsim-trace {
  chain incoming { type filter hook prerouting priority -450; meta nftrace set 1; }
  chain outgoing { type filter hook output priority -450; meta nftrace set 1; }
}
"""

Path = list[RuleKey]  # the rules and policies of one namespace, in the order in which they matched


def usable(versions: str) -> bool:
    """Does this iptables keep its rules in nf_tables?"""
    return "nf_tables" in versions


@dataclass
class _Ear:
    """One namespace's socket, and where each rule stands in its chain."""

    name: str
    socket: socket.socket
    numbers: dict[tuple[Family, str, str, int], int]


class Listener:
    def __init__(self, names: Iterable[str]) -> None:
        self._ears = [_open(name) for name in names]

    def heard(self) -> dict[str, Path]:
        """What each kernel has told since the last call."""
        return {ear.name: list(_told(ear)) for ear in self._ears}

    def close(self) -> None:
        for ear in self._ears:
            ear.socket.close()
            with within(netns(ear.name)), suppress(PrivilegeError):
                _nft("-f", "-", given="delete table inet netsim-trace\n")


@contextmanager
def listening(names: Iterable[str]) -> Iterator[Listener]:
    listener = Listener(names)
    try:
        listener.heard()
        yield listener
    finally:
        listener.close()


def _nft(*words: str, given: str = "") -> str:
    try:
        done = subprocess.run(["nft", *words], input=given, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise PrivilegeError("nft is not installed: apt-get install nftables") from None
    if done.returncode:
        raise PrivilegeError(f"nft {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _open(name: str) -> _Ear:
    with within(netns(name)):
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        made.bind((0, 0))
        made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        made.setblocking(False)
        numbers: dict[tuple[Family, str, str, int], int] = {}
        counts: dict[tuple[Family, str, str], int] = {}
        for item in json.loads(_nft("-j", "-a", "list", "ruleset"))["nftables"]:
            rule = item.get("rule")
            if rule is not None and rule["family"] in ("ip", "ip6"):
                family = Family.IPV4 if rule["family"] == "ip" else Family.IPV6
                chain = family, rule["table"], rule["chain"]
                counts[chain] = counts.get(chain, 0) + 1
                numbers[(*chain, rule["handle"])] = counts[chain]
        _nft("-f", "-", given=_OWN)
    return _Ear(name, made, numbers)


def _told(ear: _Ear) -> Iterator[RuleKey]:
    with suppress(BlockingIOError):
        while True:
            data = ear.socket.recv(65535)
            for attributes in _messages(data):
                key = _key(ear, attributes)
                if key is not None:
                    yield key


def _messages(data: bytes) -> Iterator[dict[int, bytes]]:
    at = 0
    while at + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if kind == _SUBSYSTEM << 8 | _TRACE:
            attributes = _attributes(data[at + 20 : at + length])
            attributes[_ID] = data[at + 16 : at + 17]  # nfgenmsg's family
            yield attributes
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _key(ear: _Ear, attributes: dict[int, bytes]) -> RuleKey | None:
    family = _FAMILIES.get(attributes[_ID][0])
    table, chain = (attributes.get(kind, b"").rstrip(b"\0").decode() for kind in (_TABLE, _CHAIN))
    kind = int.from_bytes(attributes.get(_TYPE, b""), "big")
    if family is None or table not in TABLE_HOOKS or kind not in (_BY_POLICY, _BY_RULE):
        return None
    if kind == _BY_POLICY:
        return RuleKey(ear.name, family, table, chain, 0)
    if _HANDLE not in attributes:
        return None  # the end of a chain, which the kernel tells of as of a rule
    handle = int.from_bytes(attributes[_HANDLE], "big")
    return RuleKey(ear.name, family, table, chain, ear.numbers[family, table, chain, handle])


def differences(flight: Flight, heard: dict[str, Path]) -> list[str]:
    """Both paths side by side where they differ: each namespace's own, for kernels tell in no common order."""
    found = []
    family = flight.course.probe.family
    turns = list(zip(flight.taken, flight.errors, strict=True))
    rules = [key for way, errors in turns for key in _told_order(way, errors)]
    racing = {way.rules[-1][0] for way, errors in turns if _comes_back(way, errors)}
    unsure = any(way.unsure for way in flight.taken)
    for name, kernel in heard.items():
        said = _settled([key for key in rules if key.namespace == name and key.family is family], racing)
        told = _settled([key for key in kernel if key.family is family], racing)
        if said != told and not unsure and not (family is Family.IPV6 and _chatter(said, told)):
            found.append(_side_by_side(flight, name, said, told))
    return found


def _told_order(way: Way, errors: Iterable[tuple[RuleKey, Packet]]) -> Iterator[RuleKey]:
    """REJECT sends its answer while it is still at work: the kernel tells of the answer's rules on its way out first, then
    of REJECT's, then of those where the answer comes in again."""
    rules, answer = [key for key, _ in way.rules], [key for key, _ in errors]
    end = len(rules) - 1 if way.outcomes[-1].disposition is Disposition.REJECTED else len(rules)
    back = next((at for at, key in enumerate(answer) if _incoming(key)), len(answer))
    yield from (*rules[:end], *answer[:back], *rules[end:], *answer[back:])


def _incoming(key: RuleKey) -> bool:
    return key.chain in ("PREROUTING", "INPUT")


def _comes_back(way: Way, errors: Iterable[tuple[RuleKey, Packet]]) -> bool:
    """Does REJECT's answer come in where it was made? By loopback it does when the kernel's soft interrupts get their turn:
    before REJECT's rule is told of, or after."""
    rejected = way.outcomes[-1].disposition is Disposition.REJECTED
    return rejected and any(_incoming(key) and key.namespace == way.rules[-1][0].namespace for key, _ in errors)


def _settled(path: Path, racing: Container[RuleKey]) -> Path:
    """The path with those rules at its end whose place in it is chance."""
    return [key for key in path if key not in racing] + [key for key in path if key in racing]


def _chatter(said: Path, told: Path) -> bool:
    """Neighbour discovery is traced too: then all that netsim says must at least be there, in its order."""
    rest = iter(told)
    return all(key in rest for key in said)


def _side_by_side(flight: Flight, name: str, said: Path, told: Path) -> str:
    text = f"{flight.course.probe}: the rules of {name}\n"
    texts = [[f"{key.table} {key.chain} {key.rule or 'policy'}" for key in path] for path in (said, told)]
    for number in range(max(map(len, texts))):
        left, right = (path[number] if number < len(path) else "-" for path in texts)
        text += f"    {'both  ' if left == right else 'differ'}  netsim {left:<44} kernel {right}\n"
    return text
