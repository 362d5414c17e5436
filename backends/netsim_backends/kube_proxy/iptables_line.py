"""One rule of kube-proxy's restore document: its text, and the kernel object that text makes, from one description.

A rule is put together from parts in the order in which kube-proxy writes them. Each part knows its own text and what it
adds to the kernel's rule, so that a node's hundreds of thousands of rules need not be printed and parsed again. Parts that
are rare are read by the ordinary parser; a property test holds the others to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

from netsim.linux.netfilter import registry
from netsim.linux.netfilter import text as netfilter
from netsim.linux.netfilter.arguments import Arguments, Option
from netsim.linux.netfilter.base import Match
from netsim.linux.netfilter.protocols import protocol_number
from netsim.linux.netfilter.rule import Rule
from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, network

_HEADER = tuple(f.name for f in fields(Rule) if f.name not in ("matches", "counters", "provenance"))
_DEFAULTS = Rule()
_NOTHING: Mapping[str, Any] = {}


class Part(NamedTuple):
    """``text`` in restore form; the fields of the rule's header and target, and the matches, that it sets."""

    text: str
    header: Mapping[str, Any]
    matches: tuple[Match, ...] = ()


class Line(NamedTuple):
    """``-A chain parts…`` in ``table``."""

    table: str
    chain: str
    parts: tuple[Part, ...]
    provenance: Provenance | None = None

    @property
    def text(self) -> str:
        return f"-A {self.chain} {' '.join([part.text for part in self.parts])}"

    def rule(self) -> Rule:
        header: dict[str, Any] = {}
        matches: tuple[Match, ...] = ()
        for part in self.parts:
            header.update(part.header)
            matches += part.matches
        return Rule(**header, matches=matches, provenance=self.provenance)


@lru_cache(maxsize=1 << 14)
def option(text: str, family: Family) -> Part:
    """Any options at all, read by the parser."""
    parsed = netfilter.rule(text, family)
    header = {name: getattr(parsed, name) for name in _HEADER if getattr(parsed, name) != getattr(_DEFAULTS, name)}
    return Part(text, header, parsed.matches)


# -- the parts of which there are many: no text is read for them -------------------------------------------------------
def _match(name: str, family: Family, *options: tuple[str, str] | tuple[str]) -> Match:
    kind = registry.match(name)
    assert kind is not None, name
    return kind.parse(Arguments(name, family, [Option(word[0], word[1:]) for word in options]))


@lru_cache(maxsize=1 << 12)
def _any_port(protocol: str, family: Family) -> Match:
    return _match(protocol, family)


@lru_cache(maxsize=1 << 14)
def _to_port(protocol: str, port: int, family: Family) -> Match:
    return _match(protocol, family, ("--dport", str(port)))


def comment(text: str, family: Family) -> Part:
    """Quoted where it holds a blank, as kube-proxy does; ``ns/svc:port`` alone stays bare."""
    shown = f'"{text}"' if " " in text else text
    return Part(f"-m comment --comment {shown}", _NOTHING, (_match("comment", family, ("--comment", text)),))


def jump(chain: str) -> Part:
    return Part(f"-j {chain}", {"jump": chain})


def source(address: str) -> Part:
    return Part(f"-s {address}", {"source": network(address)})


def towards(protocol: str, address: str, port: int, family: Family) -> Part:
    """Traffic to one address and port: ``-m tcp -p tcp -d 10.96.0.1 --dport 443``; any address if it is empty."""
    header: dict[str, Any] = {"protocol": protocol_number(protocol)}
    destination = ""
    if address:
        destination = f"-d {address} "
        header["destination"] = network(address)
    text = f"-m {protocol} -p {protocol} {destination}--dport {port}"
    return Part(text, header, (_to_port(protocol, port, family),))


def remembered(name: str, seconds: int, family: Family) -> Part:
    """Has this source been sent to the endpoint chain ``name`` of late?"""
    options = (("--name", name), ("--rcheck",), ("--seconds", str(seconds)), ("--reap",))
    text = f"-m recent --name {name} --rcheck --seconds {seconds} --reap"
    return Part(text, _NOTHING, (_match("recent", family, *options),))


def remember(name: str, family: Family) -> Part:
    return Part(f"-m recent --name {name} --set", _NOTHING, (_match("recent", family, ("--name", name), ("--set",)),))


def dnat(protocol: str, endpoint: str, family: Family) -> Part:
    """``endpoint`` is ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    kind = registry.target("DNAT")
    assert kind is not None
    target = kind.parse(Arguments("DNAT", family, [Option("--to-destination", (endpoint,))]))
    text = f"-m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"
    return Part(text, {"protocol": protocol_number(protocol), "target": target}, (_any_port(protocol, family),))
