"""All readings of the finalists at once, each against the best of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from trimtab.core.values import Comparison, Reading, Result
from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.reports.lineup import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

_MOST = 12


def radar(source: Result | Comparison) -> Figure | None:
    """Return a radar over all readings; None when fewer than three can be compared.

    Outward is better on every axis: 1 is the best of the variants drawn, 0.5 is twice as slow, as large or half
    as good. A reading that one variant lacks leaves a gap in its line.
    """
    entries = lineup.finalists(source)[:4]
    scores = spokes(entries, lineup.metric(source))
    if len(entries) < 2 or len(scores) < 3:
        return None
    turns = [2 * math.pi * number / len(scores) for number in range(len(scores))]
    with style.styled():
        figure = style.blank(8.6, 5.2)
        figure.set_layout_engine("none")  # the other engine measures labels around a circle wrongly and cuts them off
        axes = cast("PolarAxes", figure.add_axes((0.16, 0.11, 0.46, 0.78), projection="polar"))
        axes.set_theta_offset(math.pi / 2)
        axes.set_theta_direction(-1)
        for entry in entries:
            heights = [found[entry.name] for found in scores.values()]
            looks: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 3.5, "clip_on": False}
            looks |= {"color": entry.colour, "label": style.wrapped(entry.name), "zorder": 4 if entry.won else 3}
            axes.plot([*turns, turns[0]], [*heights, heights[0]], **looks)
            if entry.won and not any(math.isnan(height) for height in heights):
                axes.fill(turns, heights, color=entry.colour, alpha=0.1)
        axes.set_xticks(turns, list(scores))
        axes.set_yticks([0.25, 0.5, 0.75, 1], ["", "½", "", ""])
        axes.tick_params(axis="x", labelcolor=style.INK, pad=3)
        axes.set_ylim(0, 1)
        axes.set_rlabel_position(180 / len(scores))
        _turn_outward(axes, turns)
        axes.spines["polar"].set_color(style.LINE)
        figure.legend(
            loc="upper right",
            title="outward is better;\n1 is the best drawn",
            alignment="left",
            title_fontproperties={"size": 8.5},
            labelspacing=0.9,
        )
    return figure


def spokes(entries: tuple[Entry, ...], metric: str) -> dict[str, dict[str, float]]:
    """Return for every comparable reading its label and the score of each variant: in (0, 1], NaN when unavailable.

    The metric comes first, then the throughput of the largest batch that two have; beyond twelve the rest is left out.
    """
    readings = [reading for entry in entries if entry.measurement for reading in entry.measurement.readings]
    names = dict.fromkeys(reading.name for reading in readings if reading.place is None)
    places = [reading.place for reading in readings if reading.name == "throughput" and reading.place]
    shared = [place for place in places if places.count(place) > 1]
    asked: list[tuple[str, str | None]] = [(metric, None), *(("throughput", place) for place in shared[-1:])]
    asked += [(name, None) for name in names if name != metric]
    found: dict[str, dict[str, float]] = {}
    for name, place in asked:
        if scores := _scores(entries, name, place):
            direction = next(reading.direction for entry in entries if (reading := entry.reading(name, place)))
            found[f"{words.label(name, place)}\n({direction} is better)"] = scores
    return dict(list(found.items())[:_MOST])


def _scores(entries: tuple[Entry, ...], name: str, place: str | None) -> dict[str, float]:
    """Return the score of each variant, or nothing when the reading can't be compared as a ratio."""
    readings: dict[str, Reading | None] = {entry.name: entry.reading(name, place) for entry in entries}
    values = [r.value for r in readings.values() if r is not None and r.value is not None]
    directions = {r.direction for r in readings.values() if r is not None}
    if len(values) < 2 or min(values) <= 0 or not all(map(math.isfinite, values)) or directions & {"none"}:
        return {}
    lower = directions == {"lower"}
    best = min(values) if lower else max(values)
    return {
        key: math.nan if r is None or r.value is None else best / r.value if lower else r.value / best
        for key, r in readings.items()
    }


def _turn_outward(axes: PolarAxes, turns: list[float]) -> None:
    """Let each label begin where its spoke ends."""
    for text, turn in zip(axes.get_xticklabels(), turns, strict=True):
        across, up = math.sin(turn), math.cos(turn)
        text.set_horizontalalignment("center" if abs(across) < 0.1 else "left" if across > 0 else "right")
        text.set_verticalalignment("center" if abs(up) < 0.9 else "bottom" if up > 0 else "top")
