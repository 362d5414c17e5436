"""Probe lists of one's own, for ``lab verify --probes FILE``.

YAML or JSON: {probes: [{from, to, protocol?, port?, manner?, ttl?, size?, df?, count?, family?, name?}]}. ``from`` and
``to`` are places, as for ``netsim trace``; what has addresses of both families is probed in both unless ``family`` says
which.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netsim.cli.packets import Wish, packet_between
from netsim.cli.places import Places
from netsim.errors import InputError, Problem, Source, UsageError
from netsim.lab.probes import PROTOCOLS, Manner, Probe
from netsim.lab.turns import turns
from netsim.topology.assemble import Assembled, LazyNetwork

_NUMBERS = {"port": (1, 65535), "ttl": (1, 255), "size": (28, 65535), "count": (1, 10000)}
_KEYS = {"name", "from", "to", "protocol", "manner", "df", "family", *_NUMBERS}


def read(path: str, made: Assembled, network: LazyNetwork, namespace: str | None) -> list[Probe]:
    """InputError lists every problem of the file, each with its line and field."""
    from netsim.kube.yaml_reader import field_lines
    from netsim.kube.yaml_reader import read as documents

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError([Problem(f"cannot be read: {error.strerror}", Source(path))]) from None
    except UnicodeDecodeError:
        raise InputError([Problem("is not UTF-8 text", Source(path))]) from None
    places = Places(made.cluster, network, namespace or "default")
    problems: list[Problem] = []
    found: list[Probe] = []
    for document in documents(path, text):
        if isinstance(document, Problem):
            problems.append(document)
            continue
        items = document.value.get("probes") if isinstance(document.value, dict) else None
        if not isinstance(items, list):
            complaint = "a probe list is {probes: [{from, to, …}]}"
            problems.append(Problem(complaint, Source(path, document.line)))
            continue
        lines = field_lines(text)
        for index, item in enumerate(items):
            line = lines.get((document.line, ("probes", index)), document.line)
            place, field = Source(path, line), f"probes[{index}]"
            complaints = list(_complaints(item, place, field))
            problems += complaints
            if not complaints:
                try:
                    found += _probes(item, places, network)
                except (UsageError, ValueError) as error:
                    problems.append(Problem(str(error), place, field=field))
    if problems:
        raise InputError(problems)
    if not found:
        raise InputError([Problem("there is no probe in this file", Source(path))])
    return found


def _complaints(item: Any, place: Source, field: str) -> Iterator[Problem]:
    if not isinstance(item, dict):
        yield Problem("a probe is an object with from and to", place, field=field)
        return
    for key in item:
        if key not in _KEYS:
            known = ", ".join(sorted(_KEYS))
            yield Problem(f"unknown field; there are {known}", place, field=f"{field}.{key}")
    for key in ("from", "to"):
        if not isinstance(item.get(key), str):
            yield Problem("Required value: a place, as pod/NS/NAME", place, field=f"{field}.{key}")
    for key, (low, high) in _NUMBERS.items():
        value = item.get(key)
        if key in item and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
            text = f"Invalid value: {value}: must be between {low} and {high}, inclusive"
            yield Problem(text, place, field=f"{field}.{key}")
    if not isinstance(item.get("df", False), bool):
        yield Problem(f"Invalid value: {item['df']}: true or false", place, field=f"{field}.df")
    choices: dict[str, tuple[Any, ...]] = {
        "protocol": tuple(PROTOCOLS), "manner": tuple(m.value for m in Manner), "family": (4, 6),
    }  # fmt: skip
    for key, allowed in choices.items():
        value = item.get(key, allowed[0])
        if (value.upper() if key == "protocol" and isinstance(value, str) else value) not in allowed:
            listed = ", ".join(map(str, allowed))
            yield Problem(f'Unsupported value: "{value}": supported values: {listed}', place, field=f"{field}.{key}")


def _probes(item: dict[str, Any], places: Places, network: LazyNetwork) -> Iterator[Probe]:
    """One for each family. UsageError if a place is unknown or the two have no family in common."""
    source, target = places.source(item["from"]), places.destination(item["to"])
    protocol = item["protocol"].lower() if "protocol" in item else None
    common = {a.version for a in source.addresses} & {a.version for a in target.addresses}
    families: list[int | None] = [item["family"]] if "family" in item else [*sorted(common)] or [None]
    for family in families:
        packet = packet_between(network, source, target, Wish(protocol, item.get("port"), family=family))
        assert source.namespace is not None
        name = item.get("name") or f"{item['from']} to {item['to']}"
        known = PROTOCOLS["ICMP"] if packet.dport is None else PROTOCOLS[_name(int(packet.proto))]
        probe = Probe(
            str(name), source.namespace, packet.dst, known, packet.dport or 0, Manner(item.get("manner", "answered")),
            ttl=item.get("ttl", 64), size=item.get("size", 0), dont_fragment=item.get("df", False),
            count=item.get("count", 1), sticky=_sticky(places, packet.dst),
        )  # fmt: skip
        turns(probe)  # does the protocol have such a manner?
        yield probe


def _name(proto: int) -> str:
    return next(name for name, number in PROTOCOLS.items() if number == proto)


def _sticky(places: Places, address: Any) -> bool:
    """Does a Service with this address keep to one endpoint? By NodePort that cannot be told from the address."""
    assert places.cluster is not None
    return any(
        service.spec.session_affinity == "ClientIP"
        and str(address) in (*service.spec.cluster_ips, *service.spec.external_ips)
        for service in places.cluster.services.values()
    )
