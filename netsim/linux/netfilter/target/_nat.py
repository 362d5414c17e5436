"""Address and port ranges of NAT targets, in iptables's spelling (``libxt_NAT.c``)."""

from __future__ import annotations

from netsim.linux.netfilter.arguments import Arguments, ports_text
from netsim.packet.address import Family, IPAddress

Range = tuple[IPAddress | None, IPAddress | None, int | None, int | None]
FLAGS = {"--random": 0, "--random-fully": 0, "--persistent": 0}


def read(arguments: Arguments, text: str, name: str) -> Range:
    """``[ADDRESS[-ADDRESS]][:PORT[-PORT]]``, IPv6 addresses in brackets if ports follow."""
    if text.startswith("["):
        addresses, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":"):
            arguments.fail(f'{name}: "{text}" is not ADDRESS[:PORT]')
        ports = rest[1:]
    elif arguments.family is Family.IPV6 and (text[0:1] != ":" or text.count(":") > 1):
        addresses, ports = text, ""
    else:
        addresses, _, ports = text.partition(":")
    low, dash, high = addresses.partition("-")
    first = arguments.address(low, name) if low else None
    last = arguments.address(high, name) if dash else first
    if first is not None and last is not None and int(first) > int(last):
        arguments.fail(f'{name}: "{text}" ends before it starts')
    if "/" in ports:
        arguments.fail(f"{name}: a shifted port range is not modelled")
    low_port, high_port = arguments.range(ports, "-", name=name) if ports else (None, None)
    if low_port is not None and low_port < 1:
        arguments.fail(f"{name}: port 0 cannot be translated to")
    if first is None and low_port is None:
        arguments.fail(f'{name}: "{text}" names neither address nor port')
    return first, last, low_port, high_port


def show(found: Range) -> str:
    low, high, low_port, high_port = found
    text = "" if low is None else str(low) if high in (None, low) else f"{low}-{high}"
    if low_port is None or high_port is None:
        return text
    if low is not None and low.version == 6:
        text = f"[{text}]"
    return f"{text}:{ports_text(low_port, high_port, '-')}"
