"""Port ranges shared by tcp, udp and sctp (``xt_tcpudp.c``, ``xt_sctp.c``)."""

from __future__ import annotations

from typing import Any

from netsim.linux.netfilter.arguments import Arguments, not_, ports_text
from netsim.linux.netfilter.lowering import Column, Constraint, Kind

Ports = tuple[int, int]
EVERY: Ports = (0, 65535)
OPTIONS = {"--sport": 1, "--dport": 1}
ALIASES = {"--source-port": "--sport", "--destination-port": "--dport"}


def read(arguments: Arguments, name: str) -> tuple[Ports, bool]:
    option = arguments.get(name)
    if option is None:
        return EVERY, False
    return arguments.range(option.value, name=name), option.negated


def show(option: str, ports: Ports, negated: bool) -> str:
    return "" if ports == EVERY and not negated else f"{not_(negated)}{option} {ports_text(*ports)}"


def ok(port: int | None, ports: Ports, negated: bool) -> bool:
    return port is not None and (ports[0] <= port <= ports[1]) != negated


def constraint(column: Column, ports: Ports, negated: bool) -> tuple[Constraint, ...]:
    return (Constraint(column, Kind.RANGES, (ports,), negated),)


def strategy() -> Any:
    """A range with its negation. Negated ranges keep off both ends: iptables-nft saves ``! 0:443`` as ``444:65535``
    (the same packets, another text), where iptables-legacy and this model keep what was written."""
    from hypothesis import strategies as st

    port = st.one_of(st.sampled_from((0, 53, 80, 443, 65535)), st.integers(0, 65535))
    ranges = st.tuples(port, port).map(lambda pair: (min(pair), max(pair)))
    some = st.tuples(st.one_of(port.map(lambda p: (p, p)), ranges), st.booleans())

    def tidy(found: tuple[Ports, bool]) -> tuple[Ports, bool]:
        (low, high), negated = found
        return (low, high), negated and (low == high or (low > 0 and high < 65535))

    return st.one_of(st.just((EVERY, False)), some).map(tidy)
