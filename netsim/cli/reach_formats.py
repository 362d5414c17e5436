"""Reachability spelled as text, JSON, CSV, Markdown, DOT and HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def heat_map(found: Sequence[Edge], sources: Sequence[Group], destinations: Sequence[Group]) -> Iterator[str]:
    """One self-contained page: rows send, columns receive; dark is every port, light some. Names stay in view while
    scrolling, and every cell tells its ports when pointed at."""
    ports = {(e.source.name, e.destination.name): e.ports for e in found}
    full = str(next((p for p in ports.values() if str(p) == "all"), "all"))
    yield "<!doctype html><meta charset=utf-8><title>Reachability</title>"
    yield (
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<style>body{font:13px system-ui;margin:1em}div{overflow:auto;max-height:90vh}table{border-collapse:collapse}"
        "th{font-weight:400;text-align:left;white-space:nowrap;background:#fff;position:sticky;left:0;padding:0 .5em}"
        "thead th{top:0;writing-mode:vertical-rl;left:auto;padding:.5em 0;z-index:1}"
        "td{min-width:1.2em;height:1.2em;border:1px solid #eee;text-align:center}"
        ".a{background:#1f6f43;color:#fff}.s{background:#b7e0c4}.n{background:#fff;color:#bbb}</style>"
    )
    yield "<h1>Who reaches whom</h1>"
    yield f"<p>{len(sources)} senders, {len(destinations)} receivers. ● every port, ○ some, · none.</p>"
    yield "<div><table><thead><tr><th></th>"
    yield "".join(f"<th>{html.escape(d.name)}</th>" for d in destinations) + "</tr></thead><tbody>"
    for s in sources:
        cells = []
        for d in destinations:
            held = ports.get((s.name, d.name))
            kind, sign = ("n", "·") if not held else ("a", "●") if str(held) == full else ("s", "○")
            title = html.escape(f"{s.name} -> {d.name}: {held or 'none'}", quote=True)
            cells.append(f'<td class={kind} title="{title}">{sign}</td>')
        yield f"<tr><th>{html.escape(s.name)}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


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
