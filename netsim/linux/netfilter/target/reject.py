"""``-j REJECT``: drop, and say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Reject, Skb, Target
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family

# Printed name → the other name that is read; the first is what REJECT alone means.
_KINDS: dict[Family, dict[str, str]] = {
    Family.IPV4: {
        "icmp-port-unreachable": "port-unreach", "icmp-net-unreachable": "net-unreach",
        "icmp-host-unreachable": "host-unreach", "icmp-proto-unreachable": "proto-unreach",
        "icmp-net-prohibited": "net-prohib", "icmp-host-prohibited": "host-prohib",
        "tcp-reset": "tcp-rst", "icmp-admin-prohibited": "admin-prohib",
    },
    Family.IPV6: {
        "icmp6-port-unreachable": "port-unreach", "icmp6-no-route": "no-route",
        "icmp6-adm-prohibited": "adm-prohibited", "icmp6-addr-unreachable": "addr-unreach",
        "tcp-reset": "tcp-reset", "icmp6-policy-fail": "policy-fail", "icmp6-reject-route": "reject-route",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RejectTarget(Target):
    """Models ``net/ipv4/netfilter/ipt_REJECT.c`` and ``net/ipv6/netfilter/ip6t_REJECT.c`` (Linux 6.1 and 6.18)."""

    name: ClassVar[str] = "REJECT"
    options: ClassVar[dict[str, int]] = {"--reject-with": 1}
    tables: ClassVar[tuple[str, ...] | None] = ("filter",)

    with_: str

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        known = _KINDS[arguments.family]
        text = arguments.text("--reject-with", next(iter(known))) or ""
        for full, short in known.items():
            if text in (full, short):
                return cls(full)
        arguments.fail(f'--reject-with: "{text}" is none of {", ".join(known)}')

    def print(self, family: Family) -> str:
        return f"-j REJECT --reject-with {self.with_}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Reject(self.with_)

    def lower(self) -> Any:
        return Effect("reject", self.with_)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        return st.sampled_from([cls(kind) for kind in _KINDS[family] if kind != "tcp-reset"])
