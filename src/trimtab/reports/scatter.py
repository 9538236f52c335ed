"""The data behind the interactive scatter: for each variant and reading what is drawn and what is said."""

from __future__ import annotations

from typing import Any

from trimtab.core.values import Result
from trimtab.reports import lineup, words
from trimtab.reports.figures.style import TOKENS
from trimtab.reports.figures.tradeoff import allowed, axis_label, default_axes, extent, fitting_scale, marker
from trimtab.reports.lineup import Entry

_SHAPES = {"s": "square", "D": "diamond", "o": "circle", "^": "triangle", "X": "cross"}


def scatter(result: Result) -> dict[str, Any] | None:
    """Return axes and points, ready to be written as JSON; None when there are fewer than two points or axes."""
    entries = [entry for entry in lineup.lineup(result) if entry.readings]
    across, up = default_axes(result)
    bound = allowed(result, up)
    axes = _axes(entries, {} if bound is None else {up: bound})
    if len(entries) < 2 or across not in axes or up not in axes:
        return None
    return {
        "x": across,
        "y": up,
        "axes": list(axes.values()),
        "points": [_point(entry, axes) for entry in entries],
        "limit": None if bound is None else {"axis": up, "value": bound},
    }


def _axes(entries: list[Entry], bounds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return every reading of a whole model that at least two variants have, with its unit and where the axis ends."""
    found = {}
    for name in dict.fromkeys(reading.name for entry in entries for reading in entry.readings):
        readings = [reading for entry in entries if (reading := entry.reading(name))]
        if len(readings) > 1 and readings[0].direction != "none":
            scale = fitting_scale(readings)
            found[name] = {
                "name": name,
                "label": words.label(name),
                "title": axis_label(readings[0], scale),
                "factor": scale.factor,
                "ends": list(extent(readings, bounds.get(name))),
                "better": readings[0].direction,
            }
    return found


def _point(entry: Entry, axes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = {name: reading for name in axes if (reading := entry.reading(name))}
    return {
        "name": entry.name,
        "note": "winner" if entry.won else entry.state if entry.part in ("tried", "finalist") else "",
        "colour": f"var({TOKENS[entry.colour]})",
        "shape": _SHAPES[marker(entry)],
        "main": entry.part != "tried",
        "won": entry.won,
        "final": entry.final,
        "values": {name: [reading.value, reading.low, reading.high] for name, reading in found.items()},
        "texts": {name: words.with_interval(reading) for name, reading in found.items()},
    }
