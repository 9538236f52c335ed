"""The single calls behind a latency: how they scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.core.values import Comparison, Result
from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def latency(source: Result | Comparison) -> Figure | None:
    """Return a box plot of the latency samples; None when no variant has any.

    Boxes hold the middle half, whiskers reach from the 1st to the 99th percentile, and every call beyond is a dot.
    """
    found = [(entry, calls) for entry in lineup.finalists(source) if (calls := _calls(entry))]
    if not found:
        return None
    import seaborn

    values = [value for _, calls in found for value in calls]
    scale = words.scale("latency", "s", sorted(values)[len(values) // 2])
    rows = [style.wrapped(entry.name) for entry, _ in found]
    names = [name for name, (_, calls) in zip(rows, found, strict=True) for _ in calls]
    with style.styled():
        figure = style.blank(8.6, 0.8 + 0.44 * len(found))
        axes = figure.add_subplot()
        seaborn.boxplot(
            x=[value / scale.factor for value in values],
            y=names,
            hue=names,
            order=rows,
            hue_order=rows,
            ax=axes,
            palette=[entry.colour for entry, _ in found],
            legend=False,
            whis=(1, 99),
            width=0.55,
            saturation=1,
            linecolor=style.INK,
            medianprops={"color": style.PAPER, "linewidth": 1.6},
            linewidth=0.9,
            flierprops={"marker": "o", "markersize": 2.2, "alpha": 0.5},
        )
        wide = max(values) > 20 * min(values) > 0
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(f"time of one call ({scale.symbol}{', logarithmic' if wide else ''}), lower is better")
        axes.set_ylabel("")
        axes.tick_params(axis="y", labelcolor=style.INK)
        style.only_grid(axes, "x")
    return figure


def _calls(entry: Entry) -> list[float]:
    """Return the seconds of the single calls of a variant."""
    traces = entry.measurement.traces if entry.measurement else ()
    return [value for trace in traces if trace.name == "latency" for value in trace.values]
