"""Chains compiled together say what they say when each is compiled by itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from netsim.compiled import programs as p
from netsim.compiled.addresses import Addresses
from netsim.compiled.alike_chains import FEW, alike
from netsim.compiled.names import Names
from netsim.compiled.rule_compiler import RuleCompiler
from netsim.linux.netfilter.rule import Chain
from netsim.linux.netfilter.text import rule
from netsim.packet.address import Family

_ENDPOINTS = st.lists(st.tuples(st.integers(1, 250), st.integers(1, 65535)), min_size=1, max_size=40)
_KINDS = st.sampled_from(
    (
        "-s {a} -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
        "-s {a} -j TO-MARK\n-p udp -m udp -j DNAT --to-destination {a}:{port} --random",
        "-s {a} -p tcp -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
        "-s {a} -m mark --mark 0x4000/0x4000 -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
        "! -s {a} -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
        "-s 10.0.{x}.0/24 -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
        "-s {a} -g TO-MARK\n-p tcp -m tcp -m comment --comment x -j DNAT --to-destination {a}",
        "-d {a} -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}",
    )
)


def chains_of(text: str, endpoints: list[tuple[int, int]]) -> list[Chain]:
    made = []
    for number, (host, port) in enumerate(endpoints):
        lines = text.format(a=f"10.0.0.{host}", x=host, port=port).splitlines()
        made.append(Chain(f"SEP-{number}", tuple([rule(line, Family.IPV4) for line in lines])))
    return made


def said(compiler: RuleCompiler, address: int) -> Any:
    """What a short chain's words say: its policy and its rules with their constraints."""
    code = compiler.programs.code
    count, first, rules, index = (int(word) for word in code[address : address + 4])
    assert index == 0
    found: list[Any] = [count, [compiler.rule_of(first + place) for place in range(count)]]
    for place in range(count):
        run, meta, argument, at = (int(word) for word in code[rules + p.RULE * place : rules + p.RULE * (place + 1)])
        action = meta >> 16
        found.append((run, meta, compiler.nat(argument) if action == p.TO_NAT else argument))
        for _ in range(meta >> 8 & 0xFF):
            wide = int(code[at]) & 0xFF in p.WIDE
            found.append(code[at : at + (3 if wide else 2)].tolist())
            at += 3 if wide else 2
    return found


@given(_KINDS, _ENDPOINTS, _KINDS, _ENDPOINTS)
def test_together_as_alone(one: str, endpoints: list[tuple[int, int]], other: str, more: list[tuple[int, int]]) -> None:
    chains = chains_of(one, endpoints)
    chains += [Chain(f"OTHER-{number}", held.rules) for number, held in enumerate(chains_of(other, more))]
    together, alone = RuleCompiler(Addresses(), Names()), RuleCompiler(Addresses(), Names())
    names = [compiler._pools.names.number("TO-MARK") for compiler in (together, alone)]
    assert names[0] == names[1]
    first = together._chains(chains, Family.IPV4)
    second = [alone._chain(chain, Family.IPV4) for chain in chains]
    assert [said(together, address) for address in first] == [said(alone, address) for address in second]
    assert together._chains(chains, Family.IPV4) == first


def test_endpoints_are_compiled_together() -> None:
    text = "-s {a} -j TO-MARK\n-p tcp -m tcp -j DNAT --to-destination {a}:{port}"
    found = alike(chains_of(text, [(host, 80) for host in range(1, FEW + 1)]), {})
    assert [len(some) for some in found] == [FEW]
    assert not alike(chains_of(text, [(host, 80) for host in range(1, FEW)]), {})
