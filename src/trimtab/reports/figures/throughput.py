"""Items per second over batch sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.core.values import Comparison, Reading, Result
from trimtab.reports import lineup
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def throughput(source: Result | Comparison) -> Figure | None:
    """Return throughput over batch size, a line for each variant; None when none was read at two sizes."""
    lines = [(entry, points) for entry in lineup.finalists(source) if len(points := by_batch(entry)) > 1]
    if not lines:
        return None
    sizes = sorted({batch for _, points in lines for batch in points})
    with style.styled():
        figure = style.blank(8.6, 3.7)
        axes = figure.add_subplot()
        for number, (entry, points) in enumerate(lines):
            rates, lows, highs = zip(*map(style.bounds, points.values()), strict=True)
            looks: dict[str, Any] = {"color": entry.colour, "marker": "sDo^vP*"[number % 7]}
            axes.plot(list(points), rates, markersize=5, linewidth=2, label=style.wrapped(entry.name), **looks)
            axes.fill_between(list(points), lows, highs, color=entry.colour, alpha=0.18, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("batch size (items per call)")
        axes.set_ylabel("items per second, higher is better")
        style.only_grid(axes, "y")
        figure.legend(loc="outside right upper", labelspacing=0.9)
    return figure


def by_batch(entry: Entry) -> dict[int, Reading]:
    """Return the throughput readings of a variant by batch size, smallest first."""
    readings = entry.measurement.named("throughput") if entry.measurement else ()
    found = {
        int((reading.place or "").removeprefix("batch=")): reading
        for reading in readings
        if reading.value is not None and (reading.place or "").startswith("batch=")
    }
    return dict(sorted(found.items()))
