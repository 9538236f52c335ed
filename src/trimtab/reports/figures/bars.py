"""Size and latency of the finalists as bars with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.core.values import Comparison, Reading, Result
from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def bars(source: Result | Comparison) -> Figure | None:
    """Return bars of median latency, size and peak memory; None when none was read.

    What was modelled or assumed is hatched; what is unavailable is said in words, never drawn as zero.
    """
    entries = lineup.finalists(source)
    shown = lineup.present(entries, ("latency_p50", "bytes", "peak_memory"))
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
    found = [reading for entry in entries if (reading := entry.reading(name))]
    top = max(max(reading.value or 0.0, reading.high or 0.0) for reading in found)
    scale = words.scale(name, found[0].unit, top)
    for row, entry in enumerate(entries):
        if reading := entry.reading(name):
            _bar(axes, row, entry.colour, reading, scale.factor)
        else:
            axes.text(0, row, " unavailable", va="center", color=style.MUTED, fontsize=8.5, style="italic")
    axes.set_xlim(0, top / scale.factor * 1.42)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(words.label(name))
    axes.set_xlabel(scale.symbol + (", hatched: modelled" if any(map(_modelled, found)) else ""))
    axes.grid(False)
    axes.tick_params(length=0)


def _bar(axes: Axes, row: int, colour: str, reading: Reading, factor: float) -> None:
    """Draw a reading with its interval, and write it where both end."""
    value, low, high = (bound / factor for bound in style.bounds(reading))
    looks: dict[str, Any] = {"color": colour, "linewidth": 0}
    if _modelled(reading):
        looks = {"color": style.PAPER, "edgecolor": colour, "hatch": "////", "linewidth": 1}
    axes.barh(row, value, height=0.56, **looks)
    if reading.low is not None and reading.high is not None:
        axes.errorbar(value, row, xerr=[[value - low], [high - value]], color=style.INK, elinewidth=1.3, capsize=2.5)
    text = words.value(reading)
    axes.annotate(text, (high, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)


def _modelled(reading: Reading) -> bool:
    return reading.provenance in ("modelled", "assumed")
