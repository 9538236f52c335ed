"""Which class is taken for which: the original, the other, and the difference between the two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.values import Comparison, Reading, Result
from trimtab.reports import lineup
from trimtab.reports.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

MOST_CLASSES = 30
"""With more classes than this, those whose answers changed most are drawn."""

Counts = NDArray[np.float64]
Side = tuple[str, Sequence[Reading]]
"""What one of two sides is called, and what was read of it."""


def confusion(source: Result | Comparison) -> Figure | None:
    """Return heat maps of the confusion matrices and of their difference; None when there are none.

    Cells count items; shades are shares of the true class on a square-root scale, so that rare confusions show.
    In the difference green is better (more right, fewer wrong answers) and purple is worse.
    """
    given, best = lineup.original(source), lineup.champion(source)
    if given.measurement is None or best is None or best.measurement is None:
        return None
    order = source.task.classes if isinstance(source, Result) else ()
    return between((given.name, given.measurement.readings), (best.name, best.measurement.readings), order)


def between(before: Side, after: Side, order: tuple[str, ...]) -> Figure | None:
    """Return the heat maps of two sides and of their difference; None when one of them has no matrix."""
    classes, first, second = matrices(before[1], after[1], order)
    if not first.any() or not second.any():
        return None
    classes, first, second, note = _most_changed(classes, first, second)
    with style.styled():
        figure = style.blank(9.8, 3.8)
        panels = figure.subplots(1, 3)
        peak = max(first.max(), second.max())
        for axes, counts, title in ((panels[0], first, before[0]), (panels[1], second, after[0])):
            shades = np.sqrt(_shares(counts))
            _heatmap(axes, shades, classes, title, cmap=_faded(style.INK), vmin=0, vmax=1)
            _write(axes, counts, shades, "{:,.0f}", peak)
        _draw_difference(panels[2], second - first, classes)
        panels[0].set_ylabel("true class")
        panels[1].set_xlabel(f"predicted class{note}")
    return figure


def matrices(
    before: Sequence[Reading], after: Sequence[Reading], order: tuple[str, ...]
) -> tuple[tuple[str, ...], Counts, Counts]:
    """Return the classes and both matrices of counts, shape (true, predicted), of cells placed "true→predicted"."""
    cells = [_cells(readings) for readings in (before, after)]
    seen = {name for found in cells for pair in found for name in pair}
    classes = tuple(name for name in order if name in seen) + tuple(sorted(seen - set(order)))
    index = {name: number for number, name in enumerate(classes)}
    made = []
    for found in cells:
        counts = np.zeros((len(classes), len(classes)))
        for (true, predicted), number in found.items():
            counts[index[true], index[predicted]] = number
        made.append(counts)
    return classes, made[0], made[1]


def _cells(readings: Sequence[Reading]) -> dict[tuple[str, str], float]:
    found = {}
    for reading in readings:
        true, _, predicted = (reading.place or "").partition("→")
        if reading.name == "confusion_matrix" and reading.value is not None and predicted:
            found[true, predicted] = reading.value
    return found


def _most_changed(
    classes: tuple[str, ...], before: Counts, after: Counts
) -> tuple[tuple[str, ...], Counts, Counts, str]:
    if len(classes) <= MOST_CLASSES:
        return classes, before, after, ""
    change = np.abs(after - before)
    keep = np.sort(np.argsort(-(change.sum(0) + change.sum(1)), kind="stable")[:MOST_CLASSES])
    note = f" (the {MOST_CLASSES} of {len(classes):,} classes that changed most)"
    grid = np.ix_(keep, keep)
    return tuple(classes[index] for index in keep), before[grid], after[grid], note


def _shares(counts: Counts) -> Counts:
    shares: Counts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _faded(colour: str, other: str | None = None) -> LinearSegmentedColormap:
    """Return a colour map from nothing at all to the colour, so that it lies well on any page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    ends = [to_rgba(other, 0.95), to_rgba(other, 0.0), to_rgba(colour, 0.0)] if other else [to_rgba(colour, 0.0)]
    steps = [0.0, 0.5, 0.5] if other else [0.0]
    return LinearSegmentedColormap.from_list(
        "faded", list(zip([*steps, 1.0], [*ends, to_rgba(colour, 0.95)], strict=True))
    )


def _draw_difference(axes: Axes, difference: Counts, classes: tuple[str, ...]) -> None:
    largest = float(np.abs(difference).max())
    strength = np.sqrt(np.abs(difference) / max(largest, 1.0))
    good = np.where(np.eye(len(classes), dtype=bool), difference, -difference)
    colours = _faded(style.BETTER, style.WORSE)
    _heatmap(axes, np.sign(good) * strength, classes, "difference", cmap=colours, vmin=-1, vmax=1)
    _write(axes, difference, strength, "{:+,.0f}", largest)
    if not largest:
        middle = len(classes) / 2
        axes.text(middle, middle, "no difference", ha="center", va="center", color=style.MUTED)


def _heatmap(axes: Axes, shades: Counts, classes: tuple[str, ...], title: str, **colours: Any) -> None:
    import seaborn

    seaborn.heatmap(
        shades,
        ax=axes,
        cbar=False,
        square=True,
        linewidths=0.6,
        linecolor=style.LINE,
        xticklabels=classes,
        yticklabels=classes,
        **colours,
    )
    axes.set_title(style.wrapped(title, 34))
    axes.grid(False)
    axes.tick_params(length=0, labelsize=8 if len(classes) <= 12 else 6 if len(classes) <= 20 else 5)
    axes.tick_params(axis="x", labelrotation=90 if max(map(len, classes)) > 3 else 0)
    axes.tick_params(axis="y", labelrotation=0)


def _write(axes: Axes, counts: Counts, shades: Counts, format: str, peak: float) -> None:
    """Write each count that is not zero into its cell, unless there are too many cells to read them."""
    if len(counts) > 20:
        return
    size = min(8.0, 64 / len(counts), 25 / max(math.log10(max(peak, 10)), 1))
    for (row, column), number in np.ndenumerate(counts):
        if number:
            text = format.format(number).replace("-", "−")
            colour = style.PAPER if shades[row, column] > 0.6 else style.INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)
