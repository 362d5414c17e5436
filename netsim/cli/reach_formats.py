"""Reachability spelled as text, JSON, CSV, Markdown, DOT and HTML."""

from __future__ import annotations

import csv
import html
import io
import itertools
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
h1{font-size:1.4em}
.m{overflow:auto;max-height:calc(100vh - 7.5em);width:fit-content;max-width:100%;border:1px solid #ccc}
table{border-collapse:separate;border-spacing:0}
.big table{font-size:10px}
th{font-weight:400;text-align:left;white-space:nowrap;background:#fff;padding:0 .5em}
th small{color:#666}
thead{position:sticky;top:0;z-index:2}
thead .p th,thead td{vertical-align:bottom}
thead .p th{font-weight:600;max-width:0;overflow:hidden;text-overflow:ellipsis}
thead .p th,thead .n th,thead td{border-left:1px solid #eee}
thead .n th{padding:0;vertical-align:bottom;border-bottom:1px solid #999}
thead .n span,thead .k span{display:block;writing-mode:vertical-rl;transform:rotate(180deg);padding:.4em 0;margin:auto;
max-height:22em;overflow:hidden;text-overflow:ellipsis}
thead .p th.k{padding:0}
thead td{position:sticky;left:0;z-index:3;background:#fff;border-right:1px solid #999;border-bottom:1px solid #999}
thead td p{margin:.3em .5em;color:#666;text-align:right}
tbody th{position:sticky;left:0;z-index:1;border-right:1px solid #999;max-width:24em;overflow:hidden;text-overflow:ellipsis}
tbody tr.p th{font-weight:600;padding-top:.4em}
tbody td{min-width:1.4em;height:1.4em;padding:0;border-left:1px solid #eee;border-top:1px solid #eee;text-align:center;
color:#bbb}
th.v,td.v{border-left:1px solid #555!important}
td.a{background:var(--all);color:#fff}td.w{background:var(--many);color:#fff}td.s{background:var(--some);color:#14532d}
tbody tr:hover th{background:#dbeafe}
td:hover{position:relative;outline:2px solid #2563eb}
td:hover::after{content:"";position:absolute;left:0;width:100%;top:-100vh;height:200vh;background:#2563eb33;
pointer-events:none}
.l span{display:inline-block;width:1.4em;text-align:center}
"""
_MANY = 1000  # ports: a range rather than a service or two
_NARROW = 6  # columns too few for the name of their namespace to lie above them
_BIG = 60  # columns that a screen has no room for in the usual size


def heat_map(found: Sequence[Edge], sources: Sequence[Group], destinations: Sequence[Group]) -> Iterator[str]:
    """One self-contained page without scripts: rows send, columns receive; the darker the more ports, with a sign that says
    the same. Names stay in view while scrolling, namespaces are parted, a cell tells its ports when pointed at."""
    ports = {(e.source.name, e.destination.name): e.ports for e in found}
    columns = [(html.escape(d.name), new) for d, new in _with_breaks(destinations)]
    places = [(html.escape(place), len(list(same))) for place, same in itertools.groupby(destinations, _place)]
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>Who reaches whom</title>"
    yield "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<style>{_STYLE}</style><h1>Who reaches whom</h1>"
    yield (
        f"<p class=l>{len(sources)} senders (rows), {len(destinations)} receivers (columns), {len(found)} pairs. "
        "<span style='background:var(--all);color:#fff'>●</span> every port "
        "<span style='background:var(--many);color:#fff'>◐</span> a range "
        "<span style='background:var(--some)'>○</span> a few <span>·</span> none</p>"
    )
    yield f"<div class='m{' big' if len(destinations) > _BIG else ''}'><table><thead>"
    yield "<tr class=p><td rowspan=2><p>to →<p>from ↓</td>" + "".join(
        f'<th colspan={wide} class="v{" k" if wide < _NARROW else ""}" title="{place}"><span>{place}</span></th>'
        for place, wide in places
    )
    yield "<tr class=n>" + "".join(
        f'<th{" class=v" if new else ""} title="{name}"><span>{_short(d)}</span></th>'
        for d, (name, new) in zip(destinations, columns, strict=True)
    )
    yield "<tbody>"
    for source, new in _with_breaks(sources):
        name = html.escape(source.name)
        if new:
            yield f"<tr class=p><th>{html.escape(_place(source))}</th><td colspan={len(columns)}></td>"
        cells = []
        for destination, (shown, border) in zip(destinations, columns, strict=True):
            held = ports.get((source.name, destination.name))
            if not held:
                cells.append(f"<td{' class=v' if border else ''}>·")
                continue
            kind, sign = ("a", "●") if str(held) == "all" else ("w", "◐") if _count(held) >= _MANY else ("s", "○")
            both = f'"v {kind}"' if border else kind
            cells.append(f'<td class={both} title="{name} → {shown}: {html.escape(str(held))}">{sign}')
        yield f'<tr><th title="{name}">{_short(source)}</th>{"".join(cells)}'
    yield "</table></div>"


def _place(group: Group) -> str:
    """What a group stands under: its namespace, or what it is."""
    if group.kind.value == "pod":
        return group.name.partition("/")[0].rpartition(" ")[2]
    return "nodes" if group.kind.value == "node" else "outside"


def _short(group: Group) -> str:
    """Its name under that; the kind too, where it is not the usual one."""
    if group.kind.value != "pod":
        return html.escape(group.name)
    kind, _, name = group.name.partition(" ")
    short = html.escape(name.partition("/")[2])
    return short if kind == "Deployment" else f"{short} <small>{html.escape(kind)}</small>"


def _with_breaks(groups: Sequence[Group]) -> Iterator[tuple[Group, bool]]:
    """Each group, and whether it is the first under its place."""
    last = None
    for group in groups:
        here = _place(group)
        yield group, here != last
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
                "clients": None if each[0].entrance.clients is None else each[0].entrance.clients.texts(),
                "source": str(each[0].entrance.source) if each[0].entrance.source else None,
                "from": [{"sender": w.sender, "reaches": w.verdict, "endpoints": w.reached, "of": w.of} for w in each],
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
            if entrance.clients is not None:
                yield f"  kube-proxy lets in {entrance.clients} alone (loadBalancerSourceRanges)"
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
