"""The packet of a question: from two places and the options that describe it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from netsim.cli.places import Place
from netsim.errors import UsageError
from netsim.interpreter.origin import source_for
from netsim.linux.network import Network
from netsim.packet.address import IPAddress
from netsim.packet.model import Body, Icmp, Packet, Proto, Sctp, Tcp, TcpFlag, Udp

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
_MAX_SIZE = 65535


@dataclass(frozen=True)
class Wish:
    """``--protocol --port --sport --size --df --ttl --flags --family`` as given."""

    protocol: str | None = None
    port: int | None = None
    sport: int = 40000
    size: int | None = None
    df: bool = False
    ttl: int = 64
    flags: str | None = None
    family: int | None = None

    @classmethod
    def of(cls, options: Any) -> Wish:
        return cls(**{name: getattr(options, name) for name in cls.__dataclass_fields__})


def packet_between(network: Network, source: Place, target: Place, wish: Wish) -> Packet:
    """The packet that a process at ``source`` would send to ``target``."""
    protocol, port = _transport(target, wish)
    src, dst = _addresses(network, source, target, wish.family)
    number, body = _body(protocol, port, wish, src.version)
    packet = Packet(src, dst, number, body, ttl=wish.ttl, dont_fragment=wish.df)
    return packet if wish.size is None else _sized(packet, wish.size)


def _transport(target: Place, wish: Wish) -> tuple[str, int | None]:
    if wish.protocol == "icmp":
        if wish.port is not None or target.port is not None:
            raise UsageError("ICMP has no ports: drop --port, and the port of the destination")
        return "icmp", None
    port = target.port
    if wish.port is not None:
        if port is not None and port != wish.port:
            raise UsageError(f"the destination says port {port} and --port says {wish.port}")
        port = wish.port
    protocol = wish.protocol or (target.protocol or "tcp").lower()
    offers = sorted({offer for offer in target.offers if wish.protocol in (None, offer[1].lower())})
    if port is None and len(offers) == 1:
        port, protocol = offers[0][0], offers[0][1].lower()
    if port is None:
        listed = f"; it declares {', '.join(f'{number}/{name}' for number, name in offers)}" if offers else ""
        raise UsageError(f"which port of {target.name}? Add :PORT or --port (or --protocol icmp){listed}")
    return protocol, port


def _addresses(network: Network, source: Place, target: Place, family: int | None) -> tuple[IPAddress, IPAddress]:
    """One address of each in a family that both have: the target's first, as a resolver would offer it."""
    assert source.namespace is not None
    for dst in target.addresses:
        if family not in (None, dst.version):
            continue
        own = [address for address in source.addresses if address.version == dst.version]
        if not own:
            continue
        if source.name == str(own[0]) or source.namespace == "external":
            return own[0], dst  # an address that was asked for by name
        chosen = source_for(network, source.namespace, dst)
        return chosen if chosen is not None else own[0], dst
    wanted = f"IPv{family} address" if family else "address family"
    raise UsageError(
        f"{source.name} ({_listed(source)}) and {target.name} ({_listed(target)}) have no {wanted} in common"
    )


def _listed(place: Place) -> str:
    return ", ".join(map(str, place.addresses)) or "no address"


def _body(protocol: str, port: int | None, wish: Wish, version: int) -> tuple[int, Body]:
    if wish.flags is not None and protocol != "tcp":
        raise UsageError("--flags are TCP's")
    if protocol == "icmp" or port is None:
        return (Proto.ICMP, Icmp(8, rest=1 << 16 | 1)) if version == 4 else (Proto.ICMPV6, Icmp(128, rest=1 << 16 | 1))
    if protocol == "tcp":
        return Proto.TCP, Tcp(wish.sport, port, tcp_flags(wish.flags) if wish.flags is not None else TcpFlag.SYN)
    return (Proto.UDP, Udp(wish.sport, port)) if protocol == "udp" else (Proto.SCTP, Sctp(wish.sport, port))


def tcp_flags(text: str) -> TcpFlag:
    """``syn,ack``; ``none`` for no flag."""
    flags = TcpFlag(0)
    for name in text.lower().split(","):
        if name == "none":
            continue
        try:
            flags |= TcpFlag[name.strip().upper()]
        except KeyError:
            raise UsageError(f"--flags {text}: {name!r} is no TCP flag; there are {', '.join(_flag_names())}") from None
    return flags


def _flag_names() -> list[str]:
    return [(flag.name or "").lower() for flag in TcpFlag]


def _sized(packet: Packet, size: int) -> Packet:
    """``packet`` filled up to ``size`` bytes with its IP header, which is what an MTU counts."""
    from netsim.packet.codec import wire_length

    least = wire_length(packet)
    if not least <= size <= _MAX_SIZE:
        raise UsageError(f"--size {size}: such a packet has between {least} and {_MAX_SIZE} bytes, headers included")
    filling = bytes(size - least)
    body = packet.body
    if isinstance(body, Sctp):
        return replace(packet, body=replace(body, chunks=body.chunks + filling))
    assert isinstance(body, Tcp | Udp | Icmp)
    return replace(packet, body=replace(body, payload=filling))
