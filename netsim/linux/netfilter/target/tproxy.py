"""``-j TPROXY``: to a transparent proxy on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.packet.address import Family, IPAddress, ip


@dataclass(frozen=True, slots=True)
class Tproxy(Target):
    """Models ``net/netfilter/xt_TPROXY.c`` (Linux 6.1 and 6.18). No emulated process listens transparently, and without
    a socket to hand the packet to the kernel drops it."""

    name: ClassVar[str] = "TPROXY"
    options: ClassVar[dict[str, int]] = {"--on-port": 1, "--on-ip": 1, "--tproxy-mark": 1}
    tables: ClassVar[tuple[str, ...] | None] = ("mangle",)

    port: int
    address: IPAddress
    mark: int = 0
    mask: int = 0

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        arguments.need("--on-port")
        port = arguments.integer("--on-port", 65535) or 0
        text = arguments.text("--on-ip")
        address = ip("0.0.0.0" if arguments.family is Family.IPV4 else "::")
        if text is not None:
            address = arguments.address(text, "--on-ip")
        mark = arguments.text("--tproxy-mark")
        value, mask = (0, 0) if mark is None else arguments.mark(mark, "--tproxy-mark")
        return cls(port, address, value, mask)

    def print(self, family: Family) -> str:
        return f"-j TPROXY --on-port {self.port} --on-ip {self.address} --tproxy-mark {self.mark:#x}/{self.mask:#x}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        return Verdict.DROP

    def lower(self) -> Any:
        return Effect("verdict", Verdict.DROP)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        texts = ("0.0.0.0", "127.0.0.1") if family is Family.IPV4 else ("::", "::1")
        bits = st.integers(0, 0xFFFFFFFF)
        return st.builds(cls, st.integers(0, 65535), st.sampled_from([ip(text) for text in texts]), bits, bits)
