"""Random iptables rules over every match and target that netsim knows, with values that the packets of a case meet.

``TARGETS`` and ``MATCHES`` (``fuzz_matches``) say for each member how to write it: a function of the place where the rule
stands, which answers None where iptables would not have it. What is registered and has no line here fails a test, as does
what has one and is never drawn; ``NOT_HERE`` are those that this kernel cannot show, with the reason.
"""

from __future__ import annotations

import re
from random import Random

from netsim.linux.netfilter.base import TABLE_HOOKS, Hook, Verdict
from netsim.linux.netfilter.table import Ruleset, RulesetBuilder
from netsim.linux.netfilter.text import parse_rule
from netsim.packet.address import ip
from tests.differential.fuzz_matches import Place, Writer, random_matches
from tests.differential.fuzz_world import PORTS, Plan

NOT_HERE = {
    "match ipvs": "the kernel has no IPVS",
}
_USER = {"filter": ("ONE", "TWO"), "mangle": ("MARKS",), "nat": ("SERVICES",), "raw": (), "security": ()}


_REJECT4 = ("net-unreachable", "host-unreachable", "proto-unreachable", "port-unreachable", "net-prohibited",
            "host-prohibited", "admin-prohibited")  # fmt: skip
_REJECT6 = ("no-route", "adm-prohibited", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route")


def _reject(at: Place) -> str | None:
    if at.table != "filter":
        return None
    if at.proto == "tcp" and at.rng.random() < 0.5:
        return "REJECT --reject-with tcp-reset"
    code = f"icmp-{at.rng.choice(_REJECT4)}" if at.four else f"icmp6-{at.rng.choice(_REJECT6)}"
    return f"REJECT --reject-with {code}"


def _to(at: Place, where: str, pool: tuple[str, ...] | list[str], range_: bool = False) -> str:
    """An address or a range of them, with a port, or a range of ports so short that it collides."""
    address = at.rng.choice(pool)
    if at.rng.random() < 0.15:
        low, high = sorted((ip(address), ip(at.rng.choice(pool))), key=int)
        address = f"{low}-{high}"
    kind = at.rng.randrange(4)
    text = f"{where} {address}"
    if at.proto in ("tcp", "udp", "sctp") and kind:
        low_port = at.rng.choice((9000, 9001))
        ports = f"{low_port}" if kind < 3 and not range_ else f"{low_port}-{low_port + at.rng.choice((1, 1, 2))}"
        text = f"{where} {address}:{ports}" if at.four else f"{where} [{address}]:{ports}"
    return text + at.rng.choice(("", "", "", " --persistent"))


def _dnat(at: Place) -> str | None:
    if not (at.table == "nat" and at.only("PREROUTING", "OUTPUT")):
        return None
    plan = at.plan
    return "DNAT " + _to(at, "--to-destination", [*plan.hosts.values(), plan.far[0], *plan.own.values()])


def _snat(at: Place) -> str | None:
    if not (at.table == "nat" and at.only("POSTROUTING", "INPUT")):
        return None
    if at.proto == "udp" and not at.only("POSTROUTING"):
        return f"SNAT --to-source {at.rng.choice([*at.plan.own.values()])}"  # the tunnel hides what port it becomes
    return "SNAT " + _to(at, "--to-source", [*at.plan.own.values()], at.rng.random() < 0.5)


def _masquerade(at: Place) -> str | None:
    if not (at.table == "nat" and at.only("POSTROUTING")):
        return None
    ports = at.rng.choice(("", "", " --to-ports 9000-9002")) if at.proto in ("tcp", "udp", "sctp") else ""
    return f"MASQUERADE{ports}"


def _redirect(at: Place) -> str | None:
    if not (at.table == "nat" and at.only("PREROUTING", "OUTPUT")):
        return None
    return f"REDIRECT --to-ports {at.rng.choice(PORTS)}" if at.proto in ("tcp", "udp", "sctp") else "REDIRECT"


def _netmap(at: Place) -> str | None:
    if at.table != "nat" or not (at.only("PREROUTING", "OUTPUT") or at.only("POSTROUTING", "INPUT")):
        return None
    return f"NETMAP --to {at.rng.choice([*at.plan.hosts.values(), *at.plan.own.values()])}/{at.plan.width - 2}"


def _tproxy(at: Place) -> str | None:
    if not (at.table == "mangle" and at.only("PREROUTING") and at.proto in ("tcp", "udp")):
        return None
    return f"TPROXY --on-port {at.rng.choice(PORTS)} --tproxy-mark 0x1/0x1"


def _tcpmss(at: Place) -> str | None:
    """The kernel takes it only in a rule that asks for SYN: ``_table`` sees to that."""
    return (
        f"TCPMSS --set-mss {at.rng.choice((536, 1000, 1400))}" if at.table == "mangle" and at.proto == "tcp" else None
    )


def _connmark(at: Place) -> str | None:
    if at.table == "raw":
        return None
    ways = ("--set-xmark 0x1/0xffffffff", "--set-xmark 0x2/0xf", "--save-mark --nfmask 0xf --ctmask 0xf",
            "--restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")  # fmt: skip
    return f"CONNMARK {at.rng.choice(ways)}"


def _set_target(at: Place) -> str | None:
    if not at.sets:
        return None
    way = at.rng.choice(("--add-set", "--add-set", "--del-set"))
    return f"SET {way} seen {at.rng.choice(('src', 'dst'))}{' --exist' if way == '--add-set' else ''}"


def _nfqueue(at: Place) -> str | None:
    bypass = at.rng.choice(("", " --queue-bypass", " --queue-bypass"))
    return None if at.table == "nat" else f"NFQUEUE --queue-num 0{bypass}"  # there it leaves the connection undecided


def _in(table: str, text: str) -> Writer:
    return lambda at: text if at.table == table else None


def _mark(at: Place) -> str | None:
    if at.table != "mangle":
        return None
    return (
        f"MARK --set-xmark {at.rng.choice(('0x1/0xffffffff', '0x2/0xf', '0x3/0xffffffff', '0x4/0x0', '0x4000/0x4000'))}"
    )


TARGETS: dict[str, Writer] = {
    "ACCEPT": lambda at: "ACCEPT",
    "CHECKSUM": _in("mangle", "CHECKSUM --checksum-fill"),
    "CLASSIFY": lambda at: (
        "CLASSIFY --set-class 0001:0002"
        if at.table == "mangle" and at.only("FORWARD", "OUTPUT", "POSTROUTING")
        else None
    ),
    "CONNMARK": _connmark,
    "CT": _in("raw", "CT --notrack"),
    "DNAT": _dnat,
    "DROP": lambda at: None if at.table == "nat" else "DROP",
    "LOG": lambda at: 'LOG --log-prefix "fuzz "',
    "MARK": _mark,
    "MASQUERADE": _masquerade,
    "NETMAP": _netmap,
    "NFLOG": lambda at: "NFLOG --nflog-group 7",
    "NFQUEUE": _nfqueue,
    "NOTRACK": _in("raw", "NOTRACK"),
    "REDIRECT": _redirect,
    "REJECT": _reject,
    "RETURN": lambda at: "RETURN",
    "SET": _set_target,
    "SNAT": _snat,
    "TCPMSS": _tcpmss,
    "TPROXY": _tproxy,
    "TRACE": _in("raw", "TRACE"),
}
_USUAL = {
    "raw": ("NOTRACK", "CT", "ACCEPT", "DROP", "TRACE"),
    "mangle": ("MARK", "MARK", "MARK", "CONNMARK", "ACCEPT", "TCPMSS"),
    "nat": ("DNAT", "DNAT", "DNAT", "SNAT", "MASQUERADE", "MASQUERADE", "REDIRECT", "NETMAP", "ACCEPT"),
    "filter": ("ACCEPT", "ACCEPT", "ACCEPT", "RETURN", "DROP", "REJECT", "REJECT"),
    "security": ("ACCEPT", "DROP"),
}


def _target(at: Place) -> str | None:
    """``-j TARGET …`` or a jump; None: the rule only counts."""
    rng = at.rng
    jumps = [] if at.chain in ("TWO", "MARKS", "SERVICES") else [name for name in _USER[at.table] if name != at.chain]
    if at.table == "nat":
        jumps = jumps if at.only("PREROUTING", "OUTPUT") else []
    roll = rng.random()
    if jumps and roll < 0.25:
        return f"{rng.choice(('-j', '-j', '-g'))} {rng.choice(jumps)}"
    if roll < 0.28:
        return ""
    name = rng.choice(_USUAL[at.table] if roll < 0.85 else [*TARGETS])
    text = TARGETS[name](at)
    return None if text is None else f"-j {text}"


def _random_branch(rng: Random, plan: Plan) -> list[tuple[str, str, str]]:
    """A draw that the kernel makes: the same packet may fare in two ways that can be told apart."""
    where = rng.choice(("filter", "nat"))
    if where == "filter":
        return [("filter", "FORWARD", "-m statistic --mode random --probability 0.5 -j DROP")]
    to_service, half = f"-d {plan.service}/{plan.width}", "-m statistic --mode random --probability 0.5"
    return [
        ("nat", "PREROUTING", f"{to_service} {half} -j DNAT --to-destination {plan.hosts['b0']}"),
        ("nat", "PREROUTING", f"{to_service} -j DNAT --to-destination {plan.hosts['p1']}"),
    ]


_LIKELY = {"raw": 0.25, "mangle": 0.6, "nat": 0.8, "filter": 0.9, "security": 0.1}
_HOOKS_OF_USER = {"ONE": {"INPUT", "FORWARD", "OUTPUT"}, "TWO": {"INPUT", "FORWARD", "OUTPUT"},
                  "MARKS": {hook.value for hook in Hook}, "SERVICES": {"PREROUTING", "OUTPUT"}}  # fmt: skip


def random_ruleset(rng: Random, plan: Plan, sets: bool) -> Ruleset:
    """Tables that are drawn hold one to a dozen rules; the others are absent."""
    builder = RulesetBuilder(plan.family)
    for table, likely in _LIKELY.items():
        if rng.random() < likely:
            for chain, text in _table(rng, plan, table, sets):
                _append(builder, table, f"-A {chain}{text}")
    if rng.random() < 0.1:
        for table, chain, text in _random_branch(rng, plan):
            _append(builder, table, f"-A {chain} {text}")
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        if rng.random() < 0.06:
            builder.policy("filter", chain, Verdict.DROP)
    return builder.build()


def _table(rng: Random, plan: Plan, table: str, sets: bool) -> list[tuple[str, str]]:
    found = []
    chains = [*(hook.value for hook in TABLE_HOOKS[table]), *_USER[table]]
    icmp = "icmp" if plan.width == 32 else "ipv6-icmp"
    for chain in chains:
        hooks = frozenset(_HOOKS_OF_USER.get(chain, {chain}))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            protos = (
                ("", "tcp", "udp", "tcp", "udp", icmp, "sctp") if table != "nat" else ("tcp", "udp", "", "tcp", "udp")
            )
            at = Place(rng, plan, table, chain, hooks, rng.choice(protos), sets)
            target = _target(at)
            if target is None:
                continue
            matches = random_matches(at)
            if target.startswith("-j TCPMSS"):
                kept = [match for match in re.split(r"(?= -m )", matches) if not match.startswith(" -m tcp ")]
                matches = "".join(kept)
                matches += " -m tcp --tcp-flags SYN,RST SYN"
            if table == "nat" and rng.random() < 0.3 and chain != "POSTROUTING":
                matches = f" -d {plan.service}/{plan.width}" + (f" -p {at.proto}" if at.proto else "")
            found.append((chain, f"{matches} {target}"))
    if found:
        found += [(chain, " -p 254 -j RETURN") for chain in _USER[table]]
    return found


def _append(builder: RulesetBuilder, table: str, text: str) -> None:
    chain, rule = parse_rule(text, builder.family)
    builder.append(table, chain, rule)
