"""What every variant gives and costs: two readings, their intervals, and the front that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from trimtab.core.values import Comparison, Reading, Result
from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = {"given": "s", "untouched": "D"}
_BY_STATE = {"unproven": "^", "dropped": "X", "failed": "X"}


def tradeoff(source: Result | Comparison, x: str | None = None, y: str | None = None) -> Figure | None:
    """Return the scatter of two readings with intervals and the Pareto front; None when it has fewer than two points.

    Args:
        source: The result or comparison to draw.
        x: Name of the reading along the horizontal axis; by default what the goal improves.
        y: Name of the reading along the vertical axis; by default what the goal protects.
    """
    across, up = default_axes(source)
    across, up = x or across, y or up
    points = [
        (entry, right, high)
        for entry in lineup.lineup(source)
        if (right := entry.reading(across)) and (high := entry.reading(up))
    ]
    if len(points) < 2:
        return None
    with style.styled():
        figure = style.blank(8.6, 4.6)
        axes = figure.add_subplot()
        columns = [[right for _, right, _ in points], [high for _, _, high in points]]
        scales, bound = [fitting_scale(column) for column in columns], allowed(source, up)
        axes.set_xlim(*(end / scales[0].factor for end in extent(columns[0])))
        axes.set_ylim(*(end / scales[1].factor for end in extent(columns[1], bound)))
        _draw_front(axes, points, scales)
        for entry, right, high in reversed(points):
            _draw_point(axes, entry, (right, high), scales)
        if bound is not None:
            looks: dict[str, Any] = {"color": style.WORSE, "linewidth": 1, "linestyle": (0, (1, 2)), "zorder": 1}
            axes.axhline(bound / scales[1].factor, label="allowed loss", **looks)
        axes.set_xlabel(axis_label(points[0][1], scales[0]))
        axes.set_ylabel(axis_label(points[0][2], scales[1]))
        axes.tick_params(length=0)
        figure.legend(
            handles=_legend_handles(axes, points), loc="outside right upper", labelspacing=0.9, handletextpad=0.6
        )
    return figure


def default_axes(source: Result | Comparison) -> tuple[str, str]:
    """Return what the goal improves and what it protects, in the readings that most variants have.

    Every variant was timed and judged against the model as given; only finalists were measured by themselves.
    """
    objective, metric = lineup.objective(source), lineup.metric(source)
    timed = objective.startswith(("latency", "throughput")) and drawable(source, "relative_time")
    across = "relative_time" if timed else objective
    choices = (f"{metric}_change", metric, "bytes", "latency_p50")
    return across, next((name for name in choices if name != across and drawable(source, name)), "bytes")


def drawable(source: Result | Comparison, name: str) -> bool:
    """Say whether at least two variants have the reading."""
    return sum(entry.reading(name) is not None for entry in lineup.lineup(source)) >= 2


def axis_label(reading: Reading, scale: words.Scale) -> str:
    """Return what an axis shows, its unit and which way is better: "median latency (ms), lower is better"."""
    unit = f" ({scale.symbol})" if scale.symbol else ""
    better = f", {reading.direction} is better" if reading.direction != "none" else ""
    return f"{words.label(reading.name)}{unit}{better}"


def marker(entry: Entry) -> str:
    """Return the shape of a variant, so that it is known without its colour."""
    return _BY_STATE.get(entry.state or "", "o") if entry.part == "tried" else _MARKERS.get(entry.part, "o")


def fitting_scale(readings: Sequence[Reading]) -> words.Scale:
    """Return the unit that suits the reading in the middle."""
    middle = sorted(reading.value or 0.0 for reading in readings)[len(readings) // 2]
    return words.scale(readings[0].name, readings[0].unit, middle)


def extent(readings: Sequence[Reading], bound: float | None = None) -> tuple[float, float]:
    """Return where an axis begins and ends, around all values, the bound, and most of the intervals.

    An interval stretches the axis by at most three times the median one, or by half of what the values span where
    that is more. What reaches further is cut, lest one very wide interval squeezes all points.
    """
    found = [(value, low, high) for value, low, high in map(style.bounds, readings) if math.isfinite(value)]
    fixed = [value for value, _, _ in found] + ([] if bound is None else [bound])
    if not fixed:
        return 0.0, 1.0
    reaches = [reach for value, low, high in found for reach in (value - low, high - value)]
    reaches = sorted(reach for reach in reaches if 0 < reach < math.inf)
    usual = reaches[(len(reaches) - 1) // 2] if reaches else 0.0
    most = max(3 * usual, (max(fixed) - min(fixed)) / 2)
    first = min([*fixed, *(max(value - most, low) for value, low, _ in found)])
    last = max([*fixed, *(min(value + most, high) for value, _, high in found)])
    room = 0.07 * (last - first) or 0.1 * abs(last) or 1.0
    return first - room, last + room


def _draw_front(axes: Axes, points: Sequence[tuple[Entry, Reading, Reading]], scales: Sequence[words.Scale]) -> None:
    """Draw the front as steps to the borders: nothing that was measured lies beyond, not even between two points."""
    _, right, high = points[0]
    plain = [(a.value or 0.0, b.value or 0.0) for _, a, b in points]
    best = lineup.front(plain, (right.direction == "higher", high.direction == "higher"))
    xs, ys = ([plain[index][side] / scales[side].factor for index in best] for side in (0, 1))
    higher = right.direction == "higher"
    where: Literal["pre", "post"] = "pre" if higher else "post"
    worst = axes.get_ylim()[high.direction != "higher"]
    xs = [axes.get_xlim()[0], *xs, xs[-1]] if higher else [xs[0], *xs, axes.get_xlim()[1]]
    ys = [ys[0], *ys, worst] if higher else [worst, *ys, ys[-1]]
    looks: dict[str, Any] = {"color": style.INK, "linewidth": 1.5, "linestyle": (0, (4, 3)), "zorder": 1}
    axes.step(xs, ys, where=where, label="Pareto front", **looks)


def _draw_point(axes: Axes, entry: Entry, readings: tuple[Reading, Reading], scales: Sequence[words.Scale]) -> None:
    (x, left, right), (y, below, above) = (
        [bound / scale.factor for bound in style.bounds(reading)]
        for reading, scale in zip(readings, scales, strict=True)
    )
    main = entry.part != "tried"
    axes.errorbar(
        x,
        y,
        xerr=[[x - left], [right - x]],
        yerr=[[y - below], [above - y]],
        fmt=marker(entry),
        color=entry.colour,
        markersize=(10 if entry.won else 8) if main else 6,
        markeredgewidth=1.4,
        elinewidth=1.3,
        markerfacecolor=entry.colour if entry.final else style.PAPER,
        label=_legend(entry),
        zorder=4 if entry.won else 3 if main else 2,
    )
    _draw_cuts(axes, (x, left, right), (y, below, above), entry.colour)


def _draw_cuts(axes: Axes, across: tuple[float, ...], up: tuple[float, ...], colour: str) -> None:
    """Draw an arrow where an interval (value, low, high) goes on beyond the border."""
    (x, left, right), (y, below, above) = across, up
    (first, last), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ends = [
        (left < first, first, y, "<"), (right > last, last, y, ">"),
        (below < bottom, x, bottom, "v"), (above > top, x, top, "^"),
    ]  # fmt: skip
    for cut, at, height, shape in ends:
        if cut:
            axes.plot(at, height, marker=shape, markersize=6, color=colour, clip_on=False)


def _legend(entry: Entry) -> str:
    """Return what the legend calls a variant; the grey ones are called by their state, once each."""
    if entry.part == "tried":
        return f"_{entry.name}"
    notes = ["winner"] * entry.won + [entry.state or ""] * (entry.part == "finalist" and entry.state is not None)
    return style.wrapped(entry.name) + "".join(f"\n({note})" for note in notes)


def _legend_handles(axes: Axes, points: Sequence[tuple[Entry, Reading, Reading]]) -> list[Any]:
    """Return what the legend shows: the named variants first, then a shape for each state of the others, then lines."""
    from matplotlib.lines import Line2D

    artists, labels = axes.get_legend_handles_labels()
    by_name = dict(zip(labels, artists, strict=True))
    named = [by_name[_legend(entry)] for entry, _, _ in points if _legend(entry) in by_name]
    grey = {entry.state: entry for entry, _, _ in points if entry.part == "tried"}
    states = []
    for state, entry in grey.items():
        filling = entry.colour if entry.final else style.PAPER
        looks: dict[str, Any] = {"marker": marker(entry), "color": entry.colour, "markerfacecolor": filling}
        states.append(Line2D([], [], linestyle="", markersize=6, label=f"tried, {state}", **looks))
    return [*named, *states, *(artist for artist in artists if artist not in named)]


def allowed(source: Result | Comparison, up: str) -> float | None:
    """Return how far the protected reading may change, when `up` is that change."""
    if not isinstance(source, Result) or source.goal.max_drop is None or up != f"{lineup.metric(source)}_change":
        return None
    return -source.goal.max_drop
