"""The sides of a benchmark as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from netsim.bench.kernel import Point
from netsim.bench.side import Side, Workload
from netsim.report.json import API_VERSION
from netsim.report.style import Style, clean


def _rate(value: float) -> str:
    return f"{value / 1e6:.2f} M/s" if value >= 1e6 else f"{value / 1e3:,.0f} k/s"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def _bytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB" if value >= 1e3 else f"{value:.0f} B"


def _even(side: Side) -> str:
    even = side.evenness
    return f"{even.chi_square / even.freedom:.2f}" if even.freedom else "-"


ROWS: Final[tuple[tuple[str, Callable[[Side], str]], ...]] = (
    ("rules on the busiest node", lambda side: f"{side.rules:,}"),
    ("  as iptables-save", lambda side: _bytes(side.bytes)),
    ("  derived from objects", lambda side: _seconds(side.derive)),
    ("  compiled to tables", lambda side: _seconds(side.compile)),
    ("  one Service changed", lambda side: _seconds(side.update)),
    ("first packet, rules: median", lambda side: f"{side.first[0]:,}"),
    ("  99th percentile", lambda side: f"{side.first[1]:,}"),
    ("first packets delivered", lambda side: f"{side.delivered:.1%}"),
    ("endpoints: chi-square/freedom", _even),
    ("  largest share/fair share", lambda side: f"{side.evenness.largest:.2f}" if side.evenness.freedom else "-"),
    ("tunnel headers", lambda side: f"{side.overhead} B"),
    ("MTU of a pod", lambda side: f"{side.pod_mtu:,}"),
    ("packets: established", lambda side: _rate(side.rates.established.rate)),
    ("  new flows", lambda side: _rate(side.rates.new.rate)),
    ("  mixed (10% new)", lambda side: _rate(side.rates.mixed.rate)),
    ("tables", lambda side: _bytes(side.tables)),
    ("memory of a flow", lambda side: _bytes(side.flow_bytes)),
)


def lines(
    sides: Sequence[Side], left_out: Sequence[tuple[str, str]], load: Workload, points: Sequence[Point], style: Style
) -> Iterator[str]:
    popular = "uniform" if load.zipf is None else f"Zipf {load.zipf:g} over Services"
    popular += ", a tenth of the flows with nine tenths of the packets" if load.elephants else ""
    yield f"{load.flows:,} flows, {load.packets:,} packets, {load.new:,} new flows; {popular}; seed {load.seed}"
    compared = sum(side.compared for side in sides)
    yield f"{compared:,} packets held to the interpreter before: all the same"
    yield ""
    titles = [side.name for side in sides]
    width = max(len(title) for title, _ in ROWS)
    columns = [max(len(title), *(len(tell(side)) for _, tell in ROWS)) for title, side in zip(titles, sides)]
    yield style.bold(" " * width + "".join(f"  {title:>{size}}" for title, size in zip(titles, columns)))
    for title, tell in ROWS:
        cells = [f"  {tell(side):>{size}}" for side, size in zip(sides, columns)]
        yield f"{title:<{width}}{''.join(cells)}"
    for name, why in left_out:
        yield f"left out  {clean(name)}: {clean(why)}"
    if points:
        yield ""
        yield style.bold("this machine's kernel: UDP through one node's rules, as kube-proxy writes them")
        yield f"{'Services':>10}{'rules, first packet':>22}{'first packet':>16}{'established':>16}"
        for point in points:
            yield (
                f"{point.services:>10,}{point.rules:>22,.0f}{point.new * 1e6:>13.2f} us{point.established * 1e6:>13.2f} us"
            )
        yield from _slope(points)


def _slope(points: Sequence[Point]) -> Iterator[str]:
    few, many = min(points, key=lambda p: p.services), max(points, key=lambda p: p.services)
    if many.rules > few.rules:
        each = (many.new - few.new) / (many.rules - few.rules) * 1e9
        yield f"a first packet costs {each:.1f} ns for each rule that netsim counts, an established one none of them"


def document(
    sides: Sequence[Side], left_out: Sequence[tuple[str, str]], load: Workload, points: Sequence[Point]
) -> dict[str, Any]:
    """``kind: Bench``. Rates are packets per CPU second of one thread; seconds are CPU seconds; sizes are bytes."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Bench",
        "workload": {
            "flows": load.flows,
            "packets": load.packets,
            "newFlows": load.new,
            "zipf": load.zipf,
            "elephants": load.elephants,
            "seed": load.seed,
        },
        "backends": [_side(side) for side in sides],
        "leftOut": [{"name": name, "because": why} for name, why in left_out],
        "kernel": [
            {
                "services": point.services,
                "rulesEvaluated": point.rules,
                "newSeconds": point.new,
                "establishedSeconds": point.established,
            }
            for point in points
        ],
    }


def _side(side: Side) -> dict[str, Any]:
    rates, even = side.rates, side.evenness
    return {
        "name": side.name,
        "node": side.node,
        "rules": side.rules,
        "bytes": side.bytes,
        "seconds": {"derive": side.derive, "compile": side.compile, "update": side.update},
        "memory": {"tables": side.tables, "flow": side.flow_bytes},
        "packetsPerSecond": {
            "established": rates.established.rate,
            "new": rates.new.rate,
            "mixed": rates.mixed.rate,
        },
        "paths": rates.paths,
        "delivered": side.delivered,
        "rulesEvaluated": {"median": side.first[0], "p99": side.first[1]},
        "overhead": side.overhead,
        "mtu": {"pod": side.pod_mtu, "node": side.node_mtu},
        "balance": {"chiSquare": even.chi_square, "freedom": even.freedom, "largestShare": even.largest},
        "compared": side.compared,
    }
