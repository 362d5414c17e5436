"""One rule of kube-proxy's restore document: its text, and the kernel object that text makes, from one description.

A rule is put together from parts in the order in which kube-proxy writes them. Each part knows its own text and what it
adds to the kernel's rule, so that a node's hundreds of thousands of rules need not be printed and parsed again. Parts that
are rare are read by the ordinary parser; a property test holds the others to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from netsim.linux.netfilter import registry
from netsim.linux.netfilter import text as netfilter
from netsim.linux.netfilter.arguments import Arguments, Option
from netsim.linux.netfilter.base import Match, Target
from netsim.linux.netfilter.match.comment import Comment
from netsim.linux.netfilter.protocols import protocol_number
from netsim.linux.netfilter.rule import Rule
from netsim.linux.netfilter.target.dnat import Dnat
from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, IPNetwork, ip, network

_RARE = tuple([
    name for name in Rule.__struct_fields__
    if name not in ("source", "destination", "protocol", "target", "matches", "jump", "counters", "provenance")
])  # fmt: skip
_DEFAULTS = Rule()
_NOTHING: Mapping[str, Any] = {}


class Part(msgspec.Struct, frozen=True, gc=False):
    """``text`` in restore form; and what it adds to a rule: fields of the header, matches, the target. ``rare``: fields of
    the header that few rules have."""

    text: str
    matches: tuple[Match, ...] = ()
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    protocol: int | None = None
    target: Target | None = None
    rare: Mapping[str, Any] = _NOTHING


class Line(msgspec.Struct, frozen=True, gc=False):
    """``-A chain parts…`` in ``table``, and then ``-j jump`` if there is one."""

    table: str
    chain: str
    parts: tuple[Part, ...]
    provenance: Provenance | None = None
    jump: str | None = None

    @property
    def text(self) -> str:
        words = ["-A", self.chain, *[part.text for part in self.parts]]
        if self.jump is not None:
            words += ("-j", self.jump)
        return " ".join(words)

    def rule(self) -> Rule:
        matches: tuple[Match, ...] = ()
        source = destination = protocol = target = None
        rare = _NOTHING
        for part in self.parts:
            matches += part.matches
            if part.source is not None:
                source = part.source
            if part.destination is not None:
                destination = part.destination
            if part.protocol is not None:
                protocol = part.protocol
            if part.target is not None:
                target = part.target
            if part.rare:
                rare = {**rare, **part.rare}
        made = Rule(
            source=source,
            destination=destination,
            protocol=protocol,
            matches=matches,
            target=target,
            jump=self.jump,
            provenance=self.provenance,
        )
        return msgspec.structs.replace(made, **rare) if rare else made


@lru_cache(maxsize=1 << 14)
def option(text: str, family: Family) -> Part:
    """Any options at all but ``-j CHAIN``, read by the parser."""
    rule = netfilter.rule(text, family)
    if rule.jump is not None:
        raise ValueError(f"{text}: a line says by itself where it jumps to")
    rare = {name: getattr(rule, name) for name in _RARE if getattr(rule, name) != getattr(_DEFAULTS, name)}
    return Part(text, rule.matches, rule.source, rule.destination, rule.protocol, rule.target, rare)


# -- the parts of which there are many: no text is read for them -------------------------------------------------------
def _match(name: str, family: Family, *options: tuple[str, str] | tuple[str]) -> Match:
    kind = registry.match(name)
    assert kind is not None, name
    return kind.parse(Arguments(name, family, [Option(word[0], word[1:]) for word in options]))


@lru_cache(maxsize=1 << 14)
def _to_port(protocol: str, port: int, family: Family) -> Match:
    return _match(protocol, family, ("--dport", str(port)))


def comment(text: str) -> Part:
    """Quoted where it holds a blank, as kube-proxy does; ``ns/svc:port`` alone stays bare."""
    shown = f'"{text}"' if " " in text else text
    return Part(f"-m comment --comment {shown}", (Comment(text),))


@lru_cache(maxsize=1 << 12)
def one_of(left: int, family: Family) -> Part:
    """True for one packet in ``left``."""
    return option(f"-m statistic --mode random --probability {1 / left:.10f}", family)


def source(address: str) -> Part:
    return Part(f"-s {address}", source=network(address))


def towards(protocol: str, address: str, port: int, family: Family) -> Part:
    """Traffic to one address and port: ``-m tcp -p tcp -d 10.96.0.1 --dport 443``; any address if it is empty."""
    to = f"-d {address} " if address else ""
    return Part(
        f"-m {protocol} -p {protocol} {to}--dport {port}",
        (_to_port(protocol, port, family),),
        destination=network(address) if address else None,
        protocol=protocol_number(protocol),
    )


def remembered(name: str, seconds: int, family: Family) -> Part:
    """Has this source been sent to the endpoint chain ``name`` of late?"""
    options = (("--name", name), ("--rcheck",), ("--seconds", str(seconds)), ("--reap",))
    text = f"-m recent --name {name} --rcheck --seconds {seconds} --reap"
    return Part(text, (_match("recent", family, *options),))


def remember(name: str, family: Family) -> Part:
    return Part(f"-m recent --name {name} --set", (_match("recent", family, ("--name", name), ("--set",)),))


@lru_cache(maxsize=16)
def _dnat_protocol(protocol: str, family: Family) -> tuple[int, tuple[Match, ...]]:
    return protocol_number(protocol), (_match(protocol, family),)


def dnat(protocol: str, address: str, port: int, endpoint: str, family: Family) -> Part:
    """``endpoint`` is ``address`` and ``port`` as one text: ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    number, matches = _dnat_protocol(protocol, family)
    to = ip(address)
    text = f"-m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"
    return Part(text, matches, protocol=number, target=Dnat(to, to, port, port))
