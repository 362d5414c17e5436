"""ipsets as values: membership in kernel semantics, and ``ipset save`` text.

Models ``net/netfilter/ipset`` of Linux 6.1 and 6.18 and the text of ipset 7.17: hash:ip, hash:net, hash:ip,port,
hash:ip,port,ip, hash:ip,port,net, hash:net,port, hash:net,iface, hash:net,net, bitmap:port, bitmap:ip and list:set. A lookup
with prefixes tries the most specific one first, and the first hit decides, ``nomatch`` included. Not modelled: counters,
skbinfo, forceadd, netmask, markmask; they are refused. Timeouts are carried and printed, nothing ever expires.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from netsim.errors import InputError, Problem, Source, UnsupportedError
from netsim.linux.netfilter.arguments import parse_int, tokenise
from netsim.linux.netfilter.protocols import protocol_number, protocol_text
from netsim.packet.address import Family, IPAddress, IPNetwork, host_network, ip, network

TYPES: Mapping[str, tuple[str, ...]] = {
    "hash:ip": ("ip",),
    "hash:net": ("net",),
    "hash:ip,port": ("ip", "port"),
    "hash:ip,port,ip": ("ip", "port", "ip"),
    "hash:ip,port,net": ("ip", "port", "net"),
    "hash:net,port": ("net", "port"),
    "hash:net,iface": ("net", "iface"),
    "hash:net,net": ("net", "net"),
    "bitmap:port": ("number",),
    "bitmap:ip": ("ip",),
    "list:set": ("set",),
}
_PORTED = (6, 17, 132, 136)  # protocols whose number is a port; ICMP's is type << 8 | code, any other's is 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. ``values`` by dimension: an address, a prefix, (protocol, number), a port number, a device name
    (``physdev:`` in front for a bridge port), or the name of a set."""

    values: tuple[Any, ...]
    nomatch: bool = False
    timeout: int | None = None
    comment: str | None = None

    def print(self) -> str:
        text = ",".join([_show(value) for value in self.values])
        if self.timeout is not None:
            text += f" timeout {self.timeout}"
        if self.nomatch:
            text += " nomatch"
        return text if self.comment is None else f'{text} comment "{self.comment}"'


@dataclass(frozen=True)
class IpSet:
    """One set; ``entries`` in any order (a hash has none). ``range`` belongs to bitmaps: two ports or two addresses."""

    name: str
    type: str
    family: Family = Family.IPV4
    entries: tuple[Entry, ...] = ()
    hashsize: int = 1024
    maxelem: int = 65536
    timeout: int | None = None
    comments: bool = False
    range: tuple[Any, Any] | None = None
    size: int = 8  # list:set

    @property
    def dimensions(self) -> tuple[str, ...]:
        return TYPES[self.type]

    @cached_property
    def _index(self) -> dict[tuple[Any, ...], bool]:
        """Every entry by its key (prefixes as (network, length) numbers) → does it match."""
        return {tuple([_key(value) for value in entry.values]): not entry.nomatch for entry in self.entries}

    @cached_property
    def _lengths(self) -> tuple[tuple[int, ...], ...]:
        """For each prefix dimension the lengths in use, longest first."""
        places = [at for at, kind in enumerate(self.dimensions) if kind == "net"]
        return tuple(
            tuple(sorted({entry.values[at].prefixlen for entry in self.entries}, reverse=True)) for at in places
        )

    def contains(self, elements: Sequence[Any], sets: Mapping[str, IpSet] | None = None) -> bool:
        """Is a packet's value in the set? ``elements``: one per src/dst of the rule, each a mapping with what the packet
        offers (``ip``, ``port``: (protocol, number) or None, ``iface``, ``physdev``) or the plain value itself.

        ``sets`` resolves the members of a list:set. Fewer elements than dimensions never match; more are ignored.
        """
        if self.type == "list:set":
            members = [(sets or {}).get(entry.values[0]) for entry in self.entries]
            return any(member is not None and member.contains(elements, sets) for member in members)
        if len(elements) < len(self.dimensions):
            return False
        choices: list[Sequence[Any]] = []
        lengths = iter(self._lengths)
        for kind, offered in zip(self.dimensions, elements, strict=False):
            value = _pick(kind, offered)
            if value is None:
                return False
            if kind in ("ip", "net") and value.version != int(self.family):
                return False
            if kind == "net":
                bits, number = self.family.bits, int(value)
                choices.append([(number >> (bits - n) << (bits - n), n) for n in next(lengths)])
            elif kind == "port" and value[0] not in (*_PORTED, 1, 58):
                choices.append([(value[0], 0)])
            elif kind == "iface":
                port = offered.get("physdev") if isinstance(offered, Mapping) else None
                choices.append([value] if port is None else [value, f"physdev:{port}"])
            else:
                choices.append([_key(value)])
        index = self._index
        for key in product(*choices):
            found = index.get(key)
            if found is not None:
                return found
            if self.type == "hash:net,iface" and key[0] in self._networks and key[1] == choices[1][-1]:
                return False  # ip_set_hash_gen.h (multi): the first prefix listed for any device ends the search
        return False

    def changed(self, elements: Sequence[Any], add: bool, timeout: int | None = None) -> IpSet:
        """The set with a packet's values (as for ``contains``) in it, or without them; itself if the packet lacks one."""
        values = []
        for kind, offered in zip(self.dimensions, elements, strict=False):
            value = _pick(kind, offered)
            if value is None or (kind in ("ip", "net") and value.version != int(self.family)):
                return self
            values.append(host_network(value) if kind == "net" else value)
        if len(values) < len(self.dimensions) or self.type == "list:set":
            return self
        others = tuple(entry for entry in self.entries if entry.values != tuple(values))
        if not add:
            return replace(self, entries=others)
        return replace(self, entries=(*others, Entry(tuple(values), timeout=timeout)))

    @cached_property
    def _networks(self) -> frozenset[Any]:
        return frozenset(key[0] for key in self._index)

    def header(self) -> str:
        """The ``create`` line, without bucketsize and initval, which differ from set to set."""
        text = f"create {self.name} {self.type}"
        if self.type.startswith("hash:"):
            text += f" family {'inet' if self.family is Family.IPV4 else 'inet6'}"
            text += f" hashsize {self.hashsize} maxelem {self.maxelem}"
        elif self.range is not None:
            text += f" range {self.range[0]}-{self.range[1]}"
        else:
            text += f" size {self.size}"
        if self.timeout is not None:
            text += f" timeout {self.timeout}"
        return f"{text} comment" if self.comments else text

    def print(self) -> Iterator[str]:
        """Lines of ``ipset save``, each with its line feed; entries in the order they are held."""
        yield f"{self.header()}\n"
        for entry in self.entries:
            yield f"add {self.name} {entry.print()}\n"


def _key(value: Any) -> Any:
    if isinstance(value, IPNetwork):
        return int(value.network_address), value.prefixlen
    return int(value) if isinstance(value, IPAddress) else value


def _pick(kind: str, offered: Any) -> Any:
    if not isinstance(offered, Mapping):
        return offered[1] if kind == "number" and isinstance(offered, tuple) else offered
    if kind == "number":
        port = offered["port"]
        return port[1] if port is not None and port[0] in (6, 17) else None
    return offered["ip" if kind in ("ip", "net") else kind]


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        protocol, number = value
        if protocol in (1, 58):
            return f"{_icmp_name(protocol)}:{number >> 8}/{number & 255}"
        return f"{protocol_text(protocol)}:{number}"
    if isinstance(value, IPNetwork) and value.prefixlen == value.max_prefixlen:
        return str(value.network_address)
    return str(value)


def _icmp_name(protocol: int) -> str:
    return "icmp" if protocol == 1 else "icmpv6"


# -- reading -------------------------------------------------------------------------------------------------------------


@dataclass
class _Draft:
    header: dict[str, Any]
    entries: dict[tuple[Any, ...], Entry] = field(default_factory=dict)


def parse_entry(of: IpSet, text: str) -> Entry:
    """``10.0.0.1,tcp:80 nomatch`` as a member of a set of that type. InputError if it is none."""
    words = tokenise(text)
    if not words:
        raise InputError(f"set {of.name}: an entry is missing")
    parts = words[0].split(",")
    if len(parts) != len(of.dimensions):
        raise InputError(f'set {of.name}: "{words[0]}" is not an entry of a {of.type}')
    try:
        values = tuple([_value(kind, part, of) for kind, part in zip(of.dimensions, parts, strict=True)])
    except ValueError:
        raise InputError(f'set {of.name}: "{words[0]}" is not an entry of a {of.type}') from None
    nomatch, timeout, comment = False, None, None
    rest = iter(words[1:])
    for word in rest:
        if word == "nomatch" and "net" in of.dimensions:
            nomatch = True
        elif word == "timeout" and of.timeout is not None:
            timeout = _number(next(rest, ""), f"set {of.name}: timeout")
        elif word == "comment" and of.comments:
            comment = next(rest, "")
        else:
            raise UnsupportedError(f'set {of.name}: "{word}" is not known or not enabled for this set')
    return Entry(values, nomatch, timeout, comment)


def _value(kind: str, text: str, of: IpSet) -> Any:
    match kind:
        case "ip":
            address = ip(text)
            if address.version != int(of.family):
                raise ValueError(text)
            return address
        case "net":
            prefix = network(text)
            if prefix.version != int(of.family) or not prefix.prefixlen:
                raise ValueError(text)
            return prefix
        case "number":
            return _port(text)
        case "port":
            name, colon, number = text.rpartition(":")
            protocol = protocol_number(name) if colon else 6
            if protocol in (1, 58):
                high, _, low = number.partition("/")
                return protocol, int(high) << 8 | int(low or 0)
            return protocol, _port(number)
        case _:
            if not text:
                raise ValueError(text)
            return text


def _port(text: str) -> int:
    number = parse_int(text)
    if number is None or number > 65535:
        raise ValueError(text)
    return number


def _number(text: str, what: str) -> int:
    number = parse_int(text)
    if number is None:
        raise InputError(f'{what}: "{text}" is not a number')
    return number


def _create(words: list[str]) -> IpSet:
    if len(words) < 2 or words[1] not in TYPES:
        raise UnsupportedError(f'set type "{words[1] if len(words) > 1 else ""}" is not modelled')
    name, kind = words[0], words[1]
    if not 0 < len(name) < 32:
        raise InputError(f'"{name}" is not a set name of 1 to 31 characters')
    given: dict[str, Any] = {}
    rest = iter(words[2:])
    for word in rest:
        if word == "comment":
            given["comments"] = True
        elif word in ("hashsize", "maxelem", "timeout", "size"):
            given[word] = _number(next(rest, ""), f"set {name}: {word}")
        elif word == "family":
            family = next(rest, "")
            if family not in ("inet", "inet6"):
                raise InputError(f'set {name}: "{family}" is not a family')
            given["family"] = Family.IPV4 if family == "inet" else Family.IPV6
        elif word == "range":
            given["range"] = _range(kind, name, next(rest, ""))
        elif word in ("bucketsize", "initval"):
            next(rest, "")
        else:
            raise UnsupportedError(f'set {name}: option "{word}" is not modelled')
    if kind.startswith("bitmap:") and "range" not in given:
        raise InputError(f"set {name}: a {kind} needs a range")
    return IpSet(name, kind, **given)


def _range(kind: str, name: str, text: str) -> tuple[Any, Any]:
    try:
        if kind == "bitmap:port":
            low, _, high = text.partition("-")
            return _port(low), _port(high)
        if "/" in text:
            prefix = network(text)
            return prefix.network_address, prefix.broadcast_address
        low, _, high = text.partition("-")
        return ip(low), ip(high)
    except ValueError:
        raise InputError(f'set {name}: "{text}" is not a range') from None


def parse_save(text: str, file: str = "-") -> dict[str, IpSet]:
    """What ``ipset save`` prints or ``ipset restore`` reads (create, add). InputError lists every bad line."""
    drafts: dict[str, tuple[IpSet, dict[tuple[Any, ...], Entry]]] = {}
    problems: list[Problem] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        verb, _, rest = line.partition(" ")
        try:
            if verb in ("create", "-N"):
                made = _create(tokenise(rest))
                if made.name in drafts:
                    raise InputError(f"set {made.name} exists already")
                drafts[made.name] = made, {}
            elif verb in ("add", "-A"):
                name, _, entry_text = rest.strip().partition(" ")
                if name not in drafts:
                    raise InputError(f'set "{name}" does not exist')
                entry = parse_entry(drafts[name][0], entry_text)
                drafts[name][1][entry.values] = entry
            elif line != "COMMIT":
                raise InputError(f'"{verb}" is not a command of an ipset save document')
        except InputError as error:
            problems += [Problem(problem.text, Source(file, number)) for problem in error.problems]
    if problems:
        raise InputError(problems)
    return {
        name: IpSet(
            made.name, made.type, made.family, tuple(entries.values()), made.hashsize, made.maxelem, made.timeout,
            made.comments, made.range, made.size,
        )
        for name, (made, entries) in drafts.items()
    }  # fmt: skip


def print_save(sets: Mapping[str, IpSet]) -> Iterator[str]:
    """``ipset save`` of all sets; a list:set after its members, as the kernel's creation order would have it."""
    for made in sorted(sets.values(), key=lambda one: one.type == "list:set"):
        yield from made.print()
