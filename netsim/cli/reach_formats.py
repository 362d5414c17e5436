"""Reachability spelled as text, JSON, CSV, Markdown, DOT and HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsim_policies.algebra import PortSet
    from netsim_policies.reach import Edge, Exposure, Group
    from netsim_policies.services import Way


def edges(found: Sequence[Edge], sources: Sequence[Group], destinations: Sequence[Group], form: str) -> Iterator[str]:
    match form:
        case "json":
            yield json.dumps(_json(found, sources, destinations), indent=2)
        case "csv":
            yield from _csv(("from", "to", "protocol", "ports"), _rows(found))
        case "md":
            yield from _table(
                ("from", "to", "ports"), [(e.source.name, e.destination.name, str(e.ports)) for e in found]
            )
        case "dot":
            yield from _dot(found)
        case "html":
            yield from heat_map(found, sources, destinations)
        case _:
            yield from _text(found)


def _json(found: Sequence[Edge], sources: Sequence[Group], destinations: Sequence[Group]) -> dict[str, Any]:
    return {
        "apiVersion": "netsim/v1alpha1",
        "kind": "Reachability",
        "sources": [g.name for g in sources],
        "destinations": [g.name for g in destinations],
        "allowed": [
            {"from": e.source.name, "to": e.destination.name, "protocol": protocol, "ports": e.ports.texts(protocol)}
            for e in found
            for protocol, _ in e.ports.items()
        ],
    }


def _rows(found: Sequence[Edge]) -> Iterator[tuple[str, ...]]:
    for e in found:
        for protocol, _ in e.ports.items():
            yield e.source.name, e.destination.name, protocol, " ".join(e.ports.texts(protocol))


def _csv(header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    yield out.getvalue().rstrip("\n")


def _text(found: Sequence[Edge]) -> Iterator[str]:
    """Grouped by source; destinations with the same ports share a line."""
    by_source: dict[str, dict[str, list[str]]] = {}
    for e in found:
        by_source.setdefault(e.source.name, {}).setdefault(str(e.ports), []).append(e.destination.name)
    for source, by_ports in by_source.items():
        yield source
        for ports, names in by_ports.items():
            yield f"  {ports} -> {', '.join(names)}"
    if not found:
        yield "nobody reaches anybody there"


def _dot(found: Sequence[Edge]) -> Iterator[str]:
    yield "digraph reachability {"
    yield "  rankdir=LR; node [shape=box];"
    for e in found:
        yield f"  {json.dumps(e.source.name)} -> {json.dumps(e.destination.name)} [label={json.dumps(str(e.ports))}];"
    yield "}"


_STYLE = """
:root{--all:#14532d;--many:#4d9b68;--some:#c5e6cf}
body{font:13px system-ui,sans-serif;margin:1em;color:#222}
.m{overflow:auto;max-height:88vh;border:1px solid #ddd}
table{border-collapse:separate;border-spacing:0}
th{font-weight:400;text-align:left;white-space:nowrap;background:#fff;padding:0 .5em}
tbody th{position:sticky;left:0;z-index:1;border-right:1px solid #ccc}
thead th{position:sticky;top:0;z-index:2;writing-mode:vertical-rl;transform:rotate(180deg);padding:.5em 0;max-height:18em;
overflow:hidden;text-overflow:ellipsis}
thead td{position:sticky;top:0;left:0;z-index:3;background:#fff}
tbody td{min-width:1.3em;height:1.3em;border-right:1px solid #eee;border-bottom:1px solid #eee;text-align:center;color:#bbb}
tbody tr:hover th,tbody tr:hover td{outline:1px solid #2563eb}
.g>*{border-top:2px solid #888}.v{border-left:2px solid #888}
td.a{background:var(--all);color:#fff}td.w{background:var(--many);color:#fff}td.s{background:var(--some);color:#14532d}
.l span{display:inline-block;width:1.4em;text-align:center}
"""
_MANY = 1000  # ports: a range rather than a service or two


def heat_map(found: Sequence[Edge], sources: Sequence[Group], destinations: Sequence[Group]) -> Iterator[str]:
    """One self-contained page without scripts: rows send, columns receive; the darker the more ports, with a sign that says
    the same. Names stay in view while scrolling, lines part the namespaces, and a cell tells its ports when pointed at."""
    ports = {(e.source.name, e.destination.name): e.ports for e in found}
    columns = [(html.escape(d.name), " class=v" if new else "") for d, new in _with_breaks(destinations)]
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>Who reaches whom</title>"
    yield "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<style>{_STYLE}</style><h1>Who reaches whom</h1>"
    yield (
        f"<p class=l>{len(sources)} senders (rows), {len(destinations)} receivers (columns), {len(found)} pairs. "
        "<span style='background:var(--all);color:#fff'>●</span> every port "
        "<span style='background:var(--many);color:#fff'>◐</span> a range "
        "<span style='background:var(--some)'>○</span> a few <span>·</span> none</p>"
    )
    yield "<div class=m><table><thead><tr><td></td>"
    yield "".join(f'<th{mark} title="{name}">{name}</th>' for name, mark in columns) + "</tr></thead><tbody>"
    for source, new in _with_breaks(sources):
        name = html.escape(source.name)
        cells = []
        for destination, (shown, mark) in zip(destinations, columns, strict=True):
            held = ports.get((source.name, destination.name))
            if not held:
                cells.append(f"<td{mark}>·")
                continue
            kind, sign = ("a", "●") if str(held) == "all" else ("w", "◐") if _count(held) >= _MANY else ("s", "○")
            both = f'"v {kind}"' if mark else kind
            cells.append(f'<td class={both} title="{name} → {shown}: {html.escape(str(held))}">{sign}')
        yield f"<tr{' class=g' if new else ''}><th>{name}</th>{''.join(cells)}"
    yield "</table></div>"


def _with_breaks(groups: Sequence[Group]) -> Iterator[tuple[Group, bool]]:
    """Each group, and whether it begins another kind or namespace."""
    last = None
    for group in groups:
        here = group.kind, group.name.partition("/")[0].rpartition(" ")[2] if group.kind.value == "pod" else ""
        yield group, last is not None and here != last
        last = here


def _count(ports: PortSet) -> int:
    return sum(high - low + 1 for _, ranges in ports.items() for low, high in ranges)


def ways(found: Iterable[tuple[str, list[Way]]], form: str) -> Iterator[str]:
    """Ways in through Services and Ingress: by entrance, whom policy sees as the sender and what it sees behind."""
    if form == "json":
        items = [
            {
                "kind": each[0].entrance.kind,
                "name": each[0].entrance.name,
                "address": each[0].entrance.address,
                "behind": behind,
                "seenAs": each[0].entrance.seen_as,
                "source": str(each[0].entrance.source) if each[0].entrance.source else None,
                "from": [
                    {"sender": w.sender, "reaches": w.verdict, "endpoints": w.reached, "of": len(w.entrance.behind)}
                    for w in each
                ],
            }
            for behind, each in found
        ]
        yield json.dumps({"apiVersion": "netsim/v1alpha1", "kind": "ServiceReachability", "entrances": items}, indent=2)
    elif form in ("csv", "md"):
        header = ("through", "address", "policy sees", "from", "reaches")
        rows = [
            (w.entrance.name, w.entrance.address, behind, w.sender, w.verdict) for behind, each in found for w in each
        ]
        yield from _csv(header, iter(rows)) if form == "csv" else _table(header, rows)
    else:
        empty = True
        for behind, each in found:
            empty = False
            entrance = each[0].entrance
            yield f"{entrance.name} at {entrance.address}"
            yield f"  policy sees {behind}, and as the sender {entrance.seen_as}"
            for verdict, told in (("all", "reached by"), ("some", "some endpoints reached by"), ("none", "closed to")):
                names = [w.sender for w in each if w.verdict == verdict]
                if names:
                    yield f"  {told} {', '.join(names)}"
        if empty:
            yield "no Service or Ingress leads there"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table; a bar in a cell would end it."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def exposure(found: Sequence[Exposure], form: str) -> Iterator[str]:
    rows = [(e.group.name, str(e.to_cluster), str(e.to_outside), str(e.to_newcomers)) for e in found]
    header = ("workload", "to the whole cluster", "to the outside", "to pods to come")
    if form == "json":
        keys = ("workload", "cluster", "outside", "newcomers")
        items = [dict(zip(keys, row, strict=True)) for row in rows]
        yield json.dumps({"apiVersion": "netsim/v1alpha1", "kind": "Exposure", "workloads": items}, indent=2)
    elif form == "csv":
        yield from _csv(header, iter(rows))
    elif form == "md":
        yield from _table(header, rows)
    else:
        widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
        for row in [header, *rows]:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
