"""iptables-save and iptables-restore text to values and back.

What is printed is what iptables-save 1.8.9 prints (both back ends; where they differ, the nf_tables one's chain order and
everything else they share). What is read is any order of options that iptables-restore accepts, except abbreviated long
options and host names. An option belongs to the match or target loaded last that knows it, as in ``xshared.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from socket import AF_INET6, inet_ntop
from typing import Any

from netsim.errors import InputError, Problem, Source, UnsupportedError
from netsim.linux.netfilter import registry
from netsim.linux.netfilter.arguments import Arguments, Option, tokenise
from netsim.linux.netfilter.base import TABLE_HOOKS, Verdict
from netsim.linux.netfilter.protocols import protocol_number, protocol_text
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Ruleset, Table
from netsim.linux.provenance import Provenance
from netsim.packet.address import Family, IPAddress, IPNetwork, network

# The order in which iptables-nft-save walks tables.
SAVE_ORDER = ("mangle", "security", "raw", "filter", "nat")

_HEADER = {
    "-s": "-s", "--source": "-s", "--src": "-s",
    "-d": "-d", "--destination": "-d", "--dst": "-d",
    "-i": "-i", "--in-interface": "-i",
    "-o": "-o", "--out-interface": "-o",
    "-p": "-p", "--protocol": "-p", "--proto": "-p",
    "-f": "-f", "--fragment": "-f", "--fragments": "-f",
    "-m": "-m", "--match": "-m",
    "-j": "-j", "--jump": "-j",
    "-g": "-g", "--goto": "-g",
    "-c": "-c", "--set-counters": "-c",
}  # fmt: skip
_IMPLICIT = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmp6"}


def address_text(address: IPAddress) -> str:
    """An address as the C library prints it (``::ffff:1.2.3.4`` keeps its dots)."""
    return str(address) if address.version == 4 else inet_ntop(AF_INET6, address.packed)


def network_text(prefix: IPNetwork) -> str:
    return f"{address_text(prefix.network_address)}/{prefix.prefixlen}"


# -- one rule ------------------------------------------------------------------------------------------------------------


def parse_rule(text: str, family: Family, *, provenance: Provenance | None = None) -> tuple[str, Rule]:
    """The chain and the rule of a line ``-A CHAIN …`` or ``-I CHAIN [NUMBER] …``. InputError says what is wrong."""
    tokens, counters = _split_counters(tokenise(text))
    if len(tokens) < 2 or tokens[0] not in ("-A", "-I", "--append", "--insert"):
        raise InputError(f'"{text}" is not a rule: it should start with -A CHAIN or -I CHAIN')
    at = 3 if tokens[0] in ("-I", "--insert") and len(tokens) > 2 and tokens[2].isdecimal() else 2
    parsed = _read(tokens, at, family, counters, provenance)
    _check(parsed)
    return tokens[1], parsed


def rule(text: str, family: Family, because: str | None = None, source: Source | None = None) -> Rule:
    """A rule written out without ``-A CHAIN``, as a component's code would write it; the same text is read once only, and
    nodes on which the same component writes the same rule for the same reason share it."""
    if because is None:
        return _cached_rule(text, family)
    return _explained(text, family, because, source)


def with_provenance(found: Rule, provenance: Provenance) -> Rule:
    return Rule(
        found.source, found.source_not, found.destination, found.destination_not, found.iif, found.iif_not, found.oif,
        found.oif_not, found.protocol, found.protocol_not, found.fragment, found.matches, found.target, found.jump,
        found.goto, found.counters, provenance,
    )  # fmt: skip


@lru_cache(maxsize=1 << 14)
def _cached_rule(text: str, family: Family) -> Rule:
    tokens, counters = _split_counters(tokenise(text))
    return _read(tokens, 0, family, counters, None)


@lru_cache(maxsize=1 << 14)
def _explained(text: str, family: Family, because: str, source: Source | None) -> Rule:
    return with_provenance(_cached_rule(text, family), Provenance(because, source))


def _split_counters(tokens: list[str]) -> tuple[list[str], tuple[int, int] | None]:
    if tokens and tokens[0][0:1] == "[":
        return tokens[1:], _counters(tokens[0])
    return tokens, None


def _counters(text: str) -> tuple[int, int]:
    packets, mark, octets = text.strip("[]").partition(":")
    if not (mark and packets.isdecimal() and octets.isdecimal() and text[0] == "[" and text[-1] == "]"):
        raise InputError(f'"{text}" is not a pair of counters like [0:0]')
    return int(packets), int(octets)


class _Slot:
    """A match or target being read: the options that belong to it, as they turn up."""

    __slots__ = ("kind", "name", "options")

    def __init__(self, kind: Any, name: str) -> None:
        self.kind = kind
        self.name = name
        self.options: tuple[Option, ...] = ()


@lru_cache(maxsize=1 << 16)
def _member(kind: Any, options: tuple[Option, ...], family: Family) -> Any:
    return kind.parse(Arguments(kind.name, family, options))


def _load_match(name: str, family: Family) -> _Slot:
    kind = registry.match(name)
    if kind is None:
        raise UnsupportedError(f'match "{name}" is not known')
    if family not in kind.families:
        raise InputError(f'match "{name}" does not exist for IPv{int(family)}')
    return _Slot(kind, name)


def _read(
    tokens: list[str], at: int, family: Family, counters: tuple[int, int] | None, provenance: Provenance | None
) -> Rule:
    source = destination = None
    source_not = destination_not = iif_not = oif_not = protocol_not = goto = negated = False
    iif = oif = jump = None
    protocol: int | None = None
    fragment: bool | None = None
    slots: list[_Slot] = []
    target: _Slot | None = None
    loaded: list[_Slot] = []
    count = len(tokens)
    while at < count:
        word = tokens[at]
        at += 1
        if word == "!":
            if negated:
                raise InputError("two ! in a row")
            negated = True
            continue
        header = _HEADER.get(word)
        if header is None:
            at = _option(tokens, at, word, negated, loaded, slots, protocol, family)
        elif header == "-f":
            if family is Family.IPV6:
                raise InputError("-f does not exist for IPv6")
            fragment = not negated
        else:
            if at >= count:
                raise InputError(f"{word} needs a value")
            value = tokens[at]
            at += 1
            if header == "-m":
                slot = _load_match(value, family)
                slots.append(slot)
                loaded.append(slot)
            elif header in ("-j", "-g"):
                if jump is not None or target is not None:
                    raise InputError(f"{word} is given more than once")
                if value in registry.UNMODELLED:
                    raise UnsupportedError(f'target "{value}" is not modelled')
                kind = None if header == "-g" else registry.target(value)
                if kind is None:
                    jump, goto = value, header == "-g"
                elif family not in kind.families:
                    raise InputError(f'target "{value}" does not exist for IPv{int(family)}')
                else:
                    target = _Slot(kind, value)
                    loaded.append(target)
            elif header == "-c":
                counters, at = _set_counters(tokens, at)
            elif header == "-p":
                if protocol is not None:
                    raise InputError("-p is given more than once")
                protocol, protocol_not = _protocol(value, negated), negated
            elif header == "-s":
                source, source_not = _prefix(value, source, word, family, negated), negated
            elif header == "-d":
                destination, destination_not = _prefix(value, destination, word, family, negated), negated
            elif header == "-i":
                iif, iif_not = _interface(value, iif, word, negated), negated
            else:
                oif, oif_not = _interface(value, oif, word, negated), negated
            if negated and header in ("-m", "-j", "-g", "-c"):
                raise InputError(f"{word} cannot be negated")
        negated = False
    if negated:
        raise InputError("a ! at the end negates nothing")
    return Rule(
        source, source_not, destination, destination_not, iif or None, iif_not, oif or None, oif_not,
        protocol or None, protocol_not, fragment,
        tuple([_member(slot.kind, slot.options, family) for slot in slots]),
        None if target is None else _member(target.kind, target.options, family),
        jump, goto, counters, provenance,
    )  # fmt: skip


def _option(
    tokens: list[str],
    at: int,
    word: str,
    negated: bool,
    loaded: list[_Slot],
    slots: list[_Slot],
    protocol: int | None,
    family: Family,
) -> int:
    """Give the option ``word`` to the member that knows it; returns where to read on."""
    word, equals, inline = word.partition("=") if word[:2] == "--" and "=" in word else (word, "", "")
    for slot in reversed(loaded):
        if word in slot.kind.options or word in slot.kind.aliases:
            break
    else:
        implied = _IMPLICIT.get(protocol) if protocol is not None else None
        if implied is None or not word.startswith("--") or any(slot.name == implied for slot in slots):
            raise UnsupportedError(f'option "{word}" is not known here')
        slot = _load_match(implied, family)
        if word not in slot.kind.options and word not in slot.kind.aliases:
            raise UnsupportedError(f'option "{word}" is not known here')
        slots.append(slot)
        loaded.append(slot)
    name = slot.kind.aliases.get(word, word)
    wanted: int = slot.kind.options[name]
    values = (inline,) if equals else ()
    end = at + wanted - len(values)
    if end > len(tokens) or end < at:
        raise InputError(f"{word} takes {wanted} value{'s' * (wanted != 1)}")
    slot.options += (Option(name, values + tuple(tokens[at:end]), negated),)
    return end


def _set_counters(tokens: list[str], at: int) -> tuple[tuple[int, int], int]:
    packets, octets = tokens[at - 1], tokens[at] if at < len(tokens) else ""
    if not (packets.isdecimal() and octets.isdecimal()):
        raise InputError("-c takes two numbers")
    return (int(packets), int(octets)), at + 1


def _protocol(text: str, negated: bool) -> int:
    try:
        number = protocol_number(text)
    except ValueError:
        raise InputError(f'-p: protocol "{text}" is not known') from None
    if negated and not number:
        raise InputError("-p: no packet has a protocol that is not one of all")
    return number


def _prefix(text: str, before: IPNetwork | None, option: str, family: Family, negated: bool) -> IPNetwork | None:
    if before is not None:
        raise InputError(f"{option} is given more than once")
    if "," in text:
        raise UnsupportedError(f"{option}: a list makes several rules; write them one by one")
    try:
        prefix = network(text)
    except ValueError:
        raise InputError(f'{option}: "{text}" is not an address or a prefix') from None
    if prefix.version != int(family):
        raise InputError(f'{option}: "{text}" is not IPv{int(family)}')
    return prefix if prefix.prefixlen or negated else None


def _interface(text: str, before: str | None, option: str, negated: bool) -> str:
    if before is not None:
        raise InputError(f"{option} is given more than once")
    if not text or len(text) > 15 or "/" in text:
        raise InputError(f'{option}: "{text}" is not the name of a device')
    return text if text != "+" or negated else ""


def _check(parsed: Rule, table: str | None = None) -> None:
    """What the kernel's checkentry functions refuse whatever the options say."""
    for match in parsed.matches:
        if match.protocols and (parsed.protocol_not or parsed.protocol not in match.protocols):
            names = " or ".join(protocol_text(number) for number in match.protocols)
            raise InputError(f'match "{match.name}" needs -p {names}')
    target = parsed.target
    if target is not None and table is not None and target.tables is not None and table not in target.tables:
        raise InputError(f'target "{target.name}" cannot be used in table {table}, only in {", ".join(target.tables)}')


def print_spec(rule: Rule, family: Family) -> str:
    """The rule without ``-A CHAIN``, with a blank in front of each part."""
    text = ""
    if rule.source is not None:
        text = f"{' ! -s' if rule.source_not else ' -s'} {network_text(rule.source)}"
    if rule.destination is not None:
        text += f"{' ! -d' if rule.destination_not else ' -d'} {network_text(rule.destination)}"
    if rule.iif is not None:
        text += f"{' ! -i' if rule.iif_not else ' -i'} {rule.iif}"
    if rule.oif is not None:
        text += f"{' ! -o' if rule.oif_not else ' -o'} {rule.oif}"
    if rule.protocol is not None:
        text += f"{' ! -p' if rule.protocol_not else ' -p'} {protocol_text(rule.protocol)}"
    if rule.fragment is not None:
        text += " -f" if rule.fragment else " ! -f"
    for match in rule.matches:
        text += " " + match.print(family)
    if rule.jump is not None:
        return f"{text} {'-g' if rule.goto else '-j'} {rule.jump}"
    if rule.target is not None:
        return f"{text} {rule.target.print(family)}"
    return text


def print_rule(chain: str, rule: Rule, family: Family) -> str:
    """``-A CHAIN …`` exactly as iptables-save prints it."""
    return f"-A {chain}{print_spec(rule, family)}"


# -- whole documents -----------------------------------------------------------------------------------------------------


class _Draft:
    """One table while its part of a document is read."""

    def __init__(self, name: str, line: int) -> None:
        if name not in TABLE_HOOKS:
            raise InputError(f'table "{name}" does not exist')
        self.name = name
        self.line = line
        self.policies: dict[str, Verdict] = {hook.value: Verdict.ACCEPT for hook in TABLE_HOOKS[name]}
        self.rules: dict[str, list[Rule]] = {hook.value: [] for hook in TABLE_HOOKS[name]}
        self.counters: dict[str, tuple[int, int]] = {}
        self.jumps: dict[str, int] = {}  # chain named by a rule → first line that names it

    def chain(self, name: str) -> list[Rule]:
        try:
            return self.rules[name]
        except KeyError:
            raise InputError(f'chain "{name}" does not exist in table {self.name}') from None

    def declare(self, words: list[str]) -> None:
        """``:CHAIN POLICY [packets:bytes]``: makes the chain, or empties it."""
        name, policy = words[0][1:], words[1] if len(words) > 1 else ""
        if name in self.policies:
            if policy not in ("ACCEPT", "DROP", "-"):
                raise InputError(f'"{policy}" cannot be the policy of {name}: only ACCEPT and DROP can')
            if policy != "-":
                self.policies[name] = Verdict(policy)
        elif policy != "-":
            raise InputError(f'chain "{name}" is not built in, so its policy must be "-"')
        if not name or len(name) > 28:
            raise InputError(f'"{name}" is not a chain name of 1 to 28 characters')
        if name in registry.UNMODELLED or registry.target(name) is not None:
            raise InputError(f'"{name}" is the name of a target, so no chain can have it')
        self.rules[name] = []
        if len(words) > 2:
            self.counters[name] = _counters(words[2])

    def command(self, line: str, family: Family, number: int) -> None:
        words, counters = _split_counters(tokenise(line))
        verb, name = words[0], words[1] if len(words) > 1 else ""
        if verb in ("-A", "--append", "-I", "--insert", "-D", "--delete"):
            rules = self.chain(name)
            numbered = verb[:3] not in ("-A", "--a") and len(words) > 2 and words[2].isdecimal()
            position = int(words[2]) if numbered else 1
            if verb in ("-D", "--delete") and numbered:
                if not 1 <= position <= len(rules):
                    raise InputError(f"chain {name} has no rule {position}")
                del rules[position - 1]
                return
            parsed = _read(words, 3 if numbered else 2, family, counters, None)
            _check(parsed, self.name)
            if parsed.jump is not None:
                self.jumps.setdefault(parsed.jump, number)
            if verb in ("-A", "--append"):
                rules.append(parsed)
            elif verb in ("-I", "--insert"):
                if not 1 <= position <= len(rules) + 1:
                    raise InputError(f"chain {name} has no place {position}")
                rules.insert(position - 1, parsed)
            elif parsed in rules:
                rules.remove(parsed)
            else:
                raise InputError(f"chain {name} has no such rule")
        elif verb in ("-N", "--new-chain"):
            if name in self.rules:
                raise InputError(f'chain "{name}" exists already')
            self.declare([f":{name}", "-"])
        elif verb in ("-F", "--flush"):
            self.chain(name).clear()
        elif verb in ("-X", "--delete-chain"):
            if self.chain(name) or name in self.policies:
                raise InputError(f'chain "{name}" cannot be deleted: it is built in or has rules')
            del self.rules[name]
        elif verb in ("-P", "--policy") and name in self.policies and words[2:] in (["ACCEPT"], ["DROP"]):
            self.policies[name] = Verdict(words[2])
        else:
            raise InputError(f'"{line}" is not a command of a restore document')

    def finish(self) -> Table:
        for name, line in self.jumps.items():
            if name in self.rules and name not in self.policies:
                continue
            if any(rule.jump == name for rules in self.rules.values() for rule in rules):
                reason = "is neither a chain of this table nor a known target"
                raise _At(line, f'"{name}" {reason}' if name not in self.rules else f'chain "{name}" is built in')
        return Table(
            self.name,
            {
                name: Chain(name, tuple(rules), self.policies.get(name), self.counters.get(name, (0, 0)))
                for name, rules in self.rules.items()
            },
        )


class _At(Exception):
    def __init__(self, line: int, text: str) -> None:
        self.line = line
        self.text = text


def parse_save(text: str, family: Family, file: str = "-") -> Ruleset:
    """A document of iptables-save or for iptables-restore, onto empty tables. InputError lists every bad line.

    The first comment of iptables-nft-save says whose tables they are: "(nf_tables)"."""
    tables: dict[str, Table] = {}
    nft = False
    problems: list[Problem] = []
    draft: _Draft | None = None

    def attempt(number: int, action: Callable[[], object]) -> None:
        try:
            action()
        except InputError as error:
            problems.extend(
                Problem(p.text, Source(file, number), f"table {draft.name}" if draft else "") for p in error.problems
            )
        except _At as error:
            problems.append(Problem(error.text, Source(file, error.line), f"table {draft.name}" if draft else ""))

    number = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] == "#":
            nft |= line.startswith("# Generated by") and "(nf_tables)" in line
            continue
        if line[0] == "*":
            try:
                draft = _Draft(line[1:].strip(), number)
            except InputError as error:
                raise InputError([Problem(error.problems[0].text, Source(file, number))]) from None
        elif draft is None:
            raise InputError(
                [Problem(f'"{line}" stands outside a table: "*table" must come first', Source(file, number))]
            )
        elif line == "COMMIT":
            finished = draft
            attempt(number, lambda finished=finished: tables.__setitem__(finished.name, finished.finish()))  # type: ignore[misc]
            draft = None
        elif line[0] == ":":
            attempt(number, lambda draft=draft, line=line: draft.declare(line.split()))  # type: ignore[misc]
        else:
            try:  # the inner loop of big documents: no closure
                draft.command(line, family, number)
            except InputError as error:
                problems += [Problem(p.text, Source(file, number), f"table {draft.name}") for p in error.problems]
    if draft is not None:
        problems.append(Problem(f"table {draft.name} does not end with COMMIT", Source(file, number)))
    if problems:
        raise InputError(problems)
    return Ruleset(family, tables, nft)


def print_save(ruleset: Ruleset, *, counters: bool = False) -> Iterator[str]:
    """The document iptables-save prints, line by line, each with its line feed. Of its dated comments only whose
    tables they are is left, and that only where it may matter."""
    family = ruleset.family
    if ruleset.nft:
        yield "# Generated by iptables-save (nf_tables)\n"
    for name in SAVE_ORDER:
        table = ruleset.tables.get(name)
        if table is None:
            continue
        yield f"*{name}\n"
        names = [*table.builtin, *sorted(set(table.chains) - set(table.builtin))]
        for chain_name in names:
            chain = table.chains.get(chain_name)
            packets, octets = chain.counters if counters and chain is not None else (0, 0)
            policy = "-" if chain_name not in table.builtin else ((chain and chain.policy) or Verdict.ACCEPT).value
            yield f":{chain_name} {policy} [{packets}:{octets}]\n"
        for chain_name in names:
            chain = table.chains.get(chain_name)
            if chain is None:
                continue
            start = f"-A {chain_name}"
            for rule in chain.rules:
                if counters:
                    packets, octets = rule.counters or (0, 0)
                    yield f"[{packets}:{octets}] {start}{print_spec(rule, family)}\n"
                else:
                    yield f"{start}{print_spec(rule, family)}\n"
        yield "COMMIT\n"
