"""One rule as numbers: its constraints through each match's ``lower()``, its action through its target's.

What is pure comes first; see ``netsim.compiled.programs``. Lists of constraints, ranges, translations, marks and runs of
draws are kept once, however many rules have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

import msgspec

from netsim.compiled import programs as p
from netsim.compiled import registers as r
from netsim.compiled.addresses import Addresses
from netsim.compiled.names import Names
from netsim.compiled.staged import StagedRows
from netsim.compiled.words import Words
from netsim.linux.netfilter.base import Match, Nat, NatKind, Target, Verdict
from netsim.linux.netfilter.lowering import Column, Constraint, Effect, Kind, Opaque
from netsim.linux.netfilter.match.comment import Comment
from netsim.linux.netfilter.match.recent import Recent
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.target.connmark import ConnMark
from netsim.packet.address import Family, IPNetwork
from netsim.packet.model import TcpFlag

Code = tuple[int, int, int, int, int, int]  # kind, column, negated, mode, a, b

ALL = 0xFFFFFFFF
SET = "set "  # before the name of a set among the names of chains
HALF = 1 << 31  # what the kernel's random numbers are below
NAT_KINDS = tuple(NatKind)
_NAT_NUMBERS = {kind: number for number, kind in enumerate(NAT_KINDS)}
COLUMNS: Mapping[Column, int] = {column: number for number, column in enumerate(Column) if column is not Column.PACKET}
_MAY_LACK = {r.SPORT, r.DPORT, r.TCP_FLAGS, r.ICMP_TYPE, r.ICMP_CODE, r.CT_MARK}
_PORTS = (r.SPORT, r.DPORT)
_NAMED = {r.IIF, r.OIF, r.PHYSIN, r.PHYSOUT}
_NEVER: Code = (p.NEVER, 0, 0, 0, 0, 0)
_FIRST_IMPURE = p.RANDOM
_WIDE = frozenset(p.WIDE)


def encoded(codes: Sequence[Code]) -> list[int]:
    """Constraints as words."""
    words: list[int] = []
    for kind, column, negated, mode, a, b in codes:
        words += (kind | column << 8 | negated << 16 | mode << 24, a)
        if kind in _WIDE:
            words.append(b)
    return words


class Lowered(msgspec.Struct, frozen=True, gc=False):
    """A rule as numbers. (A struct like ``Rule``, and for the same reason.)"""

    codes: tuple[Code, ...]
    pure: int  # how many of them, from the first one on, are pure
    action: int
    argument: int
    varies: bool  # another packet of the same flow may be told something else


class _Tail(NamedTuple):
    """What the matches of a rule ask for, behind its header: a question for the columns that the pure ones need, which comes
    first of all, and the rest. ``pure``: how many of both are pure."""

    kept: Match | None  # known by identity, so it must not go
    having: tuple[Code, ...]
    rest: tuple[Code, ...]
    pure: int
    varies: bool


_NOTHING_MORE = _Tail(None, (), (), 0, False)


def _varies(code: Code) -> bool:
    """May two packets of one flow, neither of which begins or ends it, be told different things by this constraint?"""
    kind, column, _, _, _, mask = code
    if kind == p.RECENT:
        return True
    if kind >= _FIRST_IMPURE or kind in (p.HAVING, p.NEVER):
        return False
    return column in (r.TTL, r.LENGTH) or (column == r.TCP_FLAGS and (kind != p.MASKED or mask & TcpFlag.PSH != 0))


class Pools:
    """What rules refer to, each thing once. ``reasons``: why a rule is left to the interpreter."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self.addresses, self.devices = addresses, names
        self.names = Names()  # of chains and, behind ``SET``, of sets: no chain has a blank in its name
        self.code = Words()
        self.nats = StagedRows(p.nat_dtype)
        self.prefixes: dict[str, int] = {}
        self.reasons = list(p.REASONS)
        self.nat_values: list[Nat] = []
        self.rejects = Names()
        self.recent_names: dict[int, tuple[str, int]] = {}
        self._recent_numbers: dict[tuple[str, int], int] = {}
        self._recent_rules: dict[int, set[tuple[int, bool]]] = {}  # (seconds, reap) of the rules that ask, by list
        self._reasons: dict[str, int] = {}
        self.lists: dict[tuple[Code, ...], int] = {(): 0}  # addresses of lists of constraints
        self._ranges: dict[tuple[tuple[int, int], ...], int] = {}
        self._nats: dict[int, dict[tuple[int, ...], int]] = {version: {} for version in (0, 4, 6)}  # by IP version
        self._marks: dict[tuple[int, int, int], int] = {}
        self._runs: dict[tuple[int, ...], int] = {}

    def reason(self, text: str) -> int:
        found = self._reasons.get(text)
        if found is None:
            found = self._reasons[text] = len(self.reasons)
            self.reasons.append(text)
        return found

    def range_list(self, ranges: tuple[tuple[int, int], ...]) -> int:
        found = self._ranges.get(ranges)
        if found is None:
            found = self._ranges[ranges] = self.code.add([end for ends in ranges for end in ends])
        return found

    def prefix(self, text: str) -> int:
        return self.prefixes.setdefault(text, len(self.prefixes))

    def mark(self, clear: int, xor: int, other: int = ALL) -> int:
        row = clear & ALL, xor & ALL, other & ALL
        found = self._marks.get(row)
        if found is None:
            found = self._marks[row] = self.code.add(list(row))
        return found

    def nat(self, nat: Nat) -> int:
        flags = version = low = high = 0
        if nat.random or nat.fully_random or nat.persistent:
            flags = (
                p.NAT_RANDOM * nat.random | p.NAT_FULLY_RANDOM * nat.fully_random | p.NAT_PERSISTENT * nat.persistent
            )
        first, last = nat.low, nat.high
        if first is not None:
            flags |= p.NAT_ADDRESS
            version = first.version
            low = high = self.addresses.handle(first)
            if last is not None and last is not first:
                high = self.addresses.handle(last)
        if nat.port_low is not None:
            flags |= p.NAT_PORTS
        row = _NAT_NUMBERS[nat.kind], flags, nat.port_low or 0, nat.port_high or 0, 0, low, high
        known = self._nats[version]
        found = known.get(row)
        if found is None:
            found = known[row] = self.nats.append(row)
            self.nat_values.append(nat)
        return found

    def recent_list(self, name: str, family: int) -> int:
        """The address of a word: 1 if the list is left to the interpreter."""
        found = self._recent_numbers.get((name, family))
        if found is None:
            found = self._recent_numbers[name, family] = self.code.add([0])
            self.recent_names[found] = name, family
            self._recent_rules[found] = set()
        return found

    def note_recent(self, match: Recent, family: int) -> int:
        """A rule uses this list: are last stamps, never reaped, still all that its rules can see? The list's number."""
        number = self.recent_list(match.list_name, family)
        rules = self._recent_rules[number]
        if match.mode in ("rcheck", "update"):
            rules.add((match.seconds, match.reap))
        reaped = any(reap for _, reap in rules)
        if match.hitcount > 1 or match.mode == "remove" or (reaped and len({seconds for seconds, _ in rules}) > 1):
            self.code.array[number] = 1
        return number

    def run(self, chances: tuple[int, ...]) -> int:
        """Rules in a row that match with ``chances`` (of 2**31): threshold i is the exact chance, floored to a 2**64th,
        that the first i + 1 of them do not all fail."""
        found = self._runs.get(chances)
        if found is None:
            words, fails, scale = [len(chances)], 1, 1
            for chance in chances:
                fails, scale = fails * (HALF - chance), scale * HALF
                threshold = min(((scale - fails) << 64) // scale, (1 << 64) - 1)
                words += [threshold >> 32, threshold & ALL]
            found = self._runs[chances] = self.code.add(words)
        return found


class Lowering:
    """Lowers the rules of one family. Matches and targets are remembered by identity: backends share the common ones."""

    def __init__(self, pools: Pools, family: Family) -> None:
        self.pools, self.family = pools, family
        # Asked for by every rule:
        self._version, self._bits = int(family), family.bits
        self._networks = IPv4Network if family is Family.IPV4 else IPv6Network
        self._tails: dict[int, _Tail] = {}  # of rules with one match
        self._targets: dict[int, tuple[Target, tuple[int, int]]] = {}

    def rule(self, rule: Rule) -> Lowered:
        matches = rule.matches
        _, having, codes, pure, varies = self._tail(matches) if matches else _NOTHING_MORE
        header = self._header(rule)
        if header:
            codes = header + codes
            pure += len(header)
        if having:
            codes = having + codes
        if rule.jump is not None:
            action = p.TO_CHAIN_FOR_GOOD if rule.goto else p.TO_CHAIN
            argument = self.pools.names.number(rule.jump)
        elif rule.target is not None:
            action, argument = self._target(rule.target)
        else:
            action, argument = p.GO_ON, 0
        if len(codes) > 255:
            codes, pure = (self._opaque("more than 255 constraints in a rule"),), 0
        return Lowered(codes, pure, action, argument, varies)

    def _header(self, rule: Rule) -> tuple[Code, ...]:
        codes: tuple[Code, ...] = ()
        if rule.destination is not None:
            codes = self._prefix(r.DST, rule.destination, rule.destination_not)
        if rule.source is not None:
            codes += self._prefix(r.SRC, rule.source, rule.source_not)
        if rule.protocol is not None:
            codes += ((p.EQUAL, r.PROTO, int(rule.protocol_not), 0, rule.protocol, 0),)
        if rule.iif is not None:
            codes += self._device(r.IIF, rule.iif, rule.iif_not)
        if rule.oif is not None:
            codes += self._device(r.OIF, rule.oif, rule.oif_not)
        if rule.fragment is not None:
            codes += ((p.RANGE, r.FRAGMENT, int(not rule.fragment), 0, 1, ALL),)
        return codes

    def _prefix(self, column: int, network: IPNetwork, negated: bool) -> tuple[Code, ...]:
        length, no = network.prefixlen, 1 if negated else 0
        if not isinstance(network, self._networks):
            return () if negated else (_NEVER,)
        if not length:
            return (_NEVER,) if negated else ()
        first = self.pools.addresses.handle(network.network_address)
        if length == self._bits:
            return ((p.EQUAL, column, no, 0, first, 0),)
        if self._version == 4:
            return ((p.MASKED, column, no, 0, first, ALL << 32 - length & ALL),)
        return ((p.PREFIX6, column, no, 0, first, length),)

    def _device(self, column: int, pattern: str, negated: bool) -> tuple[Code, ...]:
        if pattern.endswith("+"):
            return ((p.NAME, column, int(negated), 0, self.pools.prefix(pattern[:-1]), 0),)
        return ((p.EQUAL, column, int(negated), 0, self.pools.devices.number(pattern), 0),)

    # -- matches ---------------------------------------------------------------------------------------------------------
    def _tail(self, matches: Sequence[Match]) -> _Tail:
        if len(matches) != 1:
            matches = [match for match in matches if type(match) is not Comment]
            if len(matches) != 1:
                return self._made(matches) if matches else _NOTHING_MORE
        match = matches[0]
        held = self._tails.get(id(match))
        if held is None:
            held = self._tails[id(match)] = self._made(matches)
        return held

    def _made(self, matches: Sequence[Match]) -> _Tail:
        codes = [
            code for match in matches for constraint in match.lower() for code in self._constraint(constraint, match)
        ]
        end = next((at for at, code in enumerate(codes) if code[0] >= _FIRST_IMPURE), len(codes))
        need = 0
        for code in codes[:end]:
            if code[0] == p.HAVING:
                need |= code[4]
        pure = [code for code in codes[:end] if code[0] != p.HAVING]
        having = ((p.HAVING, r.HAS, 0, 0, need, 0),) if need else ()
        varies = any(map(_varies, codes))
        return _Tail(matches[0], having, (*pure, *codes[end:]), len(having) + len(pure), varies)

    def _constraint(self, constraint: Constraint | Opaque, match: Match) -> Iterator[Code]:
        if isinstance(constraint, Opaque):
            yield self._opaque(constraint.reason)
            return
        kind, value, negated = constraint.kind, constraint.value, constraint.negated
        if kind is Kind.ALWAYS:
            if negated:
                yield _NEVER
        elif kind is Kind.RANDOM:
            chance = HALF - value if negated else value
            if chance <= 0:
                yield _NEVER
            elif chance < HALF:
                yield p.RANDOM, 0, 0, 0, chance << 1, 0
        elif isinstance(match, Recent) and kind is Kind.STATEFUL:
            yield self._recent(match)
        elif kind is Kind.LOOKUP:
            name, sides = value
            packed = len(sides) | sum(1 << 8 + place for place, side in enumerate(sides) if side == "dst")
            yield p.IN_SET, 0, int(negated), 0, self.pools.names.number(SET + name), packed
        elif kind is Kind.STATEFUL:
            yield self._opaque(f"{match.name} remembers from packet to packet")
        else:
            column = COLUMNS[constraint.column]
            if column in _MAY_LACK:
                yield p.HAVING, r.HAS, 0, 0, 1 << column, 0
            yield from self._column(kind, column, value, negated)

    def note_recent(self, chains: Iterable[Chain]) -> None:
        """Know which lists these chains use, and how, before one of them is compiled."""
        for chain in chains:
            for rule in chain.rules:
                for match in rule.matches:
                    if isinstance(match, Recent):
                        self.pools.note_recent(match, self.family)

    def _recent(self, match: Recent) -> Code:
        number = self.pools.note_recent(match, self.family)
        mode = {"rcheck": p.RCHECK, "update": p.UPDATE, "set": p.SET}.get(match.mode)
        if mode is None or match.mask or match.hitcount > 1 or (match.negated and match.mode == "update"):
            return self._opaque(f"recent --{match.mode} with --hitcount, --mask or !")
        column = r.DST if match.by_destination else r.SRC
        return p.RECENT, column, int(match.negated), mode, number, match.seconds

    def _column(self, kind: Kind, column: int, value: Any, negated: bool) -> Iterator[Code]:
        """The constraint on a column that the packet has."""
        no = int(negated)
        if kind is Kind.RANGES:
            yield from self._ranges(column, [tuple(found) for found in value], negated)
        elif kind is Kind.MASKED:
            wanted, mask = value
            if wanted & ~mask:
                yield from () if negated else (_NEVER,)
            elif mask:
                yield p.MASKED, column, no, 0, wanted, mask
            elif negated:
                yield _NEVER
        elif kind is Kind.EQUAL:
            number = self.pools.devices.number(value) if column in _NAMED else value
            yield p.EQUAL, column, no, 0, number, 0
        elif kind is Kind.ANY_BIT:
            yield p.ANY_BIT, column, no, 0, value, 0
        elif kind is Kind.PREFIX:
            yield p.NAME, column, no, 0, self.pools.prefix(value), 0
        elif kind is Kind.ONE_OF and column in (r.SRC_TYPE, r.DST_TYPE):
            yield p.TYPES, column, no, 0, sum(r.ADDRESS_TYPES[name] for name in value), 0
        else:
            yield self._opaque(f"{kind} of {Column(list(Column)[column])} is not compiled")

    def _ranges(self, column: int, ranges: Sequence[Any], negated: bool) -> Iterator[Code]:
        no = int(negated)
        ranges = sorted((low, high) for low, high in ranges if low <= high)
        address6 = column in (r.SRC, r.DST) and self.family is Family.IPV6
        if not ranges:
            if not negated:
                yield _NEVER
        elif address6:
            handles = tuple([(self._address6(low), self._address6(high)) for low, high in ranges])
            yield p.RANGES6, column, no, 0, self.pools.range_list(handles), len(handles)
        elif column in _PORTS and ranges == [(0, 65535)]:
            if negated:
                yield _NEVER
        elif len(ranges) > 1:
            yield p.RANGES, column, no, 0, self.pools.range_list(tuple(ranges)), len(ranges)
        elif ranges[0][0] == ranges[0][1]:
            yield p.EQUAL, column, no, 0, ranges[0][0], 0
        else:
            yield p.RANGE, column, no, 0, *ranges[0]

    def _address6(self, number: int) -> int:
        from ipaddress import IPv6Address

        return self.pools.addresses.handle(IPv6Address(number))

    def _opaque(self, reason: str) -> Code:
        return p.OPAQUE, 0, 0, 0, self.pools.reason(reason), 0

    # -- targets ---------------------------------------------------------------------------------------------------------
    def _target(self, target: Target) -> tuple[int, int]:
        held = self._targets.get(id(target))
        if held is not None:
            return held[1]
        effect = target.lower()
        if type(effect) is Effect and effect.kind == "nat":  # each endpoint has one of its own
            return p.TO_NAT, self.translation(effect.value)
        found = self._effect(effect)
        self._targets[id(target)] = target, found
        return found

    def translation(self, target: Any) -> int:
        """The row of ``nats`` for a target that translates."""
        nothing: Any = None  # what these targets set up does not depend on the packet
        return self.pools.nat(target.apply(nothing, nothing))

    def _effect(self, effect: Effect | Opaque) -> tuple[int, int]:
        pools = self.pools
        if isinstance(effect, Opaque):
            return p.TO_BAIL, pools.reason(effect.reason)
        value = effect.value
        match effect.kind:
            case "none":
                return p.GO_ON, 0
            case "verdict":
                return {Verdict.ACCEPT: p.TO_ACCEPT, Verdict.DROP: p.TO_DROP, Verdict.RETURN: p.TO_RETURN}[value], 0
            case "mark":
                return p.TO_MARK, pools.mark(*value)
            case "ct_mark":
                return _connection_mark(pools, value)
            case "reject":
                return p.TO_REJECT, pools.rejects.number(value)
            case "notrack":
                return p.TO_NOTRACK, 0
        return p.TO_BAIL, pools.reason(f"the effect {effect.kind} is not compiled")


def _connection_mark(pools: Pools, target: ConnMark) -> tuple[int, int]:
    if target.mode == "set":
        return p.TO_SET_CT_MARK, pools.mark(target.mask, target.value)
    if target.mode == "save":
        return p.TO_SAVE_MARK, pools.mark(target.mask, 0, target.nfmask)
    return p.TO_RESTORE_MARK, pools.mark(target.nfmask, 0, target.mask)
