"""The sides of a benchmark as a picture: matplotlib, the optional extra ``plot``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from netsim.bench.kernel import Point
from netsim.bench.side import Side
from netsim.errors import UsageError

FORMATS = (".png", ".svg")
_INK, _SOFT = "#22303c", "#c9d1d9"
_COLOURS = ("#2f6db5", "#e08a1e", "#3a9a6b")


def check(path: str) -> None:
    """UsageError, before anything is measured, if no picture could be written there."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: the name of a picture ends in {' or '.join(FORMATS)}")
    if not Path(path).parent.is_dir():
        raise UsageError(f"--plot {path}: there is no such directory")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install 'kube-netsim[plot]'")


def write(path: str, sides: Sequence[Side], points: Sequence[Point]) -> None:
    """As many pictures in one as there are questions: rates, rules, bytes, and the kernel or the work on rules."""
    import_module("matplotlib").use("agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    style: Any = {
        "font.size": 10, "axes.edgecolor": _SOFT, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK,
        "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#eceff2", "axes.axisbelow": True, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "svg.hashsalt": "netsim",
    }  # fmt: skip
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(2, 2, figsize=(11, 3 + 2 * max(2.0, 0.42 * len(sides))), layout="constrained")
        rates = [
            ("established", [side.rates.established.rate / 1e6 for side in sides]),
            ("10% new flows", [side.rates.mixed.rate / 1e6 for side in sides]),
            ("new flows", [side.rates.new.rate / 1e6 for side in sides]),
        ]
        _bars(axes[0, 0], sides, rates, "packets a second, one thread (millions)")
        axes[0, 0].set_xscale("log")
        rules = [
            ("median", [float(s.first[0]) for s in sides]),
            ("99th percentile", [float(s.first[1]) for s in sides]),
        ]
        _bars(axes[0, 1], sides, rules, "rules evaluated per first packet")
        sizes = [
            ("pod's MTU", [float(s.pod_mtu) for s in sides]),
            ("tunnel headers", [float(s.overhead) for s in sides]),
        ]
        if points:
            _bars(axes[1, 0], sides, sizes, "bytes of a frame between nodes", stacked=True)
            _kernel(axes[1, 1], points)
        else:
            work = [
                ("derived", [side.derive * 1e3 for side in sides]),
                ("compiled", [side.compile * 1e3 for side in sides]),
                ("one Service changed", [(side.update or 0) * 1e3 for side in sides]),
            ]
            _bars(axes[1, 0], sides, work, "rules of a node, milliseconds")
            _bars(axes[1, 1], sides, sizes, "bytes of a frame between nodes", stacked=True)
        figure.savefig(path, dpi=144, metadata={"Date": None} if path.lower().endswith(".svg") else None)
        pyplot.close(figure)


def _bars(
    axis: Any, sides: Sequence[Side], series: Sequence[tuple[str, list[float]]], title: str, stacked: bool = False
) -> None:
    count = 1 if stacked else len(series)
    height = 0.8 / count
    left = [0.0] * len(sides)
    for number, (label, values) in enumerate(series):
        at = [place + (0 if stacked else (number - (count - 1) / 2) * height) for place in range(len(sides))]
        bars = axis.barh(at, values, height * 0.92, left=left if stacked else None, label=label, color=_COLOURS[number])
        if stacked:
            left = [a + b for a, b in zip(left, values)]
        else:
            axis.bar_label(bars, labels=[f" {value:,.3g}" for value in values], fontsize=8, color=_INK)
    axis.set_yticks(range(len(sides)), [side.name for side in sides])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.14)
    axis.set_title(title, fontsize=10.5)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(series))


def _kernel(axis: Any, points: Sequence[Point]) -> None:
    rules = [point.rules for point in points]
    axis.plot(rules, [point.new * 1e6 for point in points], "o-", color=_COLOURS[0], label="first packet")
    axis.plot(rules, [point.established * 1e6 for point in points], "s-", color=_COLOURS[1], label="established")
    for number, point in enumerate(points):
        last = number == len(points) - 1
        axis.annotate(
            f"{point.services:,} Services", (point.rules, point.new * 1e6), ha="right" if last else "left",
            xytext=(-8, 0) if last else (6, -10 if number % 2 else 7), textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.margins(x=0.1)
    axis.set_xlim(left=0)
    axis.set_xlabel("rules that netsim counts for the first packet")
    axis.set_title("this machine's kernel, microseconds a packet", fontsize=10.5)
    axis.legend(frameon=False, fontsize=8, loc="upper left")
