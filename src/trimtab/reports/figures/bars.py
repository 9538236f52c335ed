"""Size and latency of the finalists as bars with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.core.values import Comparison, Result
from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = ("latency_p50", "bytes", "peak_memory")


def bars(source: Result | Comparison) -> Figure | None:
    """Return bars of median latency, size and peak memory; None when none was read.

    What was modelled or assumed is hatched; what is unavailable is said in words, never drawn as zero.
    """
    entries = lineup.finalists(source)
    shown = [name for name in _SHOWN if any(entry.reading(name) for entry in entries)]
    if not shown:
        return None
    with style.styled():
        figure = style.blank(8.6 if len(shown) < 3 else 10.4, 0.75 + 0.5 * len(entries))
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, shown, strict=True):
            _panel(axes, entries, name)
        panels[0].set_yticks(range(len(entries)), [style.wrapped(entry.name) for entry in entries])
        panels[0].tick_params(axis="y", labelcolor=style.INK)
        panels[0].invert_yaxis()
    return figure


def _panel(axes: Axes, entries: tuple[Entry, ...], name: str) -> None:
    readings = [entry.reading(name) for entry in entries]
    found = [reading for reading in readings if reading is not None]
    top = max(max(r.value or 0.0, r.high or 0.0) for r in found)
    scale = words.scale(name, found[0].unit, top)
    for row, (entry, reading) in enumerate(zip(entries, readings, strict=True)):
        if reading is None or reading.value is None:
            axes.text(0, row, " unavailable", va="center", color=style.MUTED, fontsize=8.5, style="italic")
            continue
        value = reading.value / scale.factor
        modelled = reading.provenance in ("modelled", "assumed")
        axes.barh(
            row,
            value,
            height=0.56,
            color=style.PAPER if modelled else entry.colour,
            edgecolor=entry.colour,
            hatch="////" if modelled else None,
            linewidth=1 if modelled else 0,
        )
        end = value
        if reading.low is not None and reading.high is not None:
            low, end = reading.low / scale.factor, max(reading.high / scale.factor, value)
            axes.errorbar(
                value, row, xerr=[[max(value - low, 0)], [end - value]], color=style.INK, elinewidth=1.3, capsize=2.5
            )
        axes.annotate(
            words.value(reading), (end, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_xlim(0, top / scale.factor * 1.42)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(words.label(name))
    axes.set_xlabel(scale.symbol + (", hatched: modelled" if any(r.provenance == "modelled" for r in found) else ""))
    axes.grid(False)
    axes.tick_params(length=0)
