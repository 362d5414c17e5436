"""Every match and target has all its parts, and names that iptables keeps for targets are never chains."""

from __future__ import annotations

import inspect

import pytest

from netsim.errors import InputError, UnsupportedError
from netsim.linux.netfilter import registry, text
from netsim.linux.netfilter.base import Match, Target
from netsim.packet.address import Family

MEMBERS: list[type[Match] | type[Target]] = [*registry.all_matches(), *registry.all_targets()]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__module__.split(".", 3)[-1])
def test_parts(member: type[Match] | type[Target]) -> None:
    meaning = "evaluate" if issubclass(member, Match) else "apply"
    assert {"name", "parse", "print", meaning, "lower", "strategy"} <= set(vars(member))
    assert "Linux" in (inspect.getdoc(member) or "")
    assert set(member.aliases.values()) <= set(member.options)


def test_names_are_unique() -> None:
    for members in (registry.all_matches(), registry.all_targets()):
        names = [member.name for member in members]
        assert len(set(names)) == len(names) > 20


@pytest.mark.parametrize("spec", ["-j TEE", "-j TTL --ttl-set 4", "-g SYNPROXY"])
def test_an_unmodelled_target_is_no_jump(spec: str) -> None:
    with pytest.raises(UnsupportedError, match="is not modelled"):
        text.rule(spec, Family.IPV4)


@pytest.mark.parametrize("name", ["TEE", "MARK"])
def test_no_chain_has_the_name_of_a_target(name: str) -> None:
    with pytest.raises(InputError, match="is the name of a target"):
        text.parse_save(f"*filter\n:{name} - [0:0]\nCOMMIT\n", Family.IPV4)
