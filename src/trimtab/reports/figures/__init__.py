"""The figures of a result or a comparison; each is a plain function that returns a matplotlib `Figure`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.core.errors import BadInput
from trimtab.core.files import make_folder, write_bytes
from trimtab.core.values import Comparison, Result
from trimtab.reports.figures import style
from trimtab.reports.figures.bars import bars
from trimtab.reports.figures.confusion import confusion
from trimtab.reports.figures.latency import latency
from trimtab.reports.figures.radar import radar
from trimtab.reports.figures.throughput import throughput
from trimtab.reports.figures.tradeoff import tradeoff

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "bars", "confusion", "every", "latency", "radar", "save", "throughput", "tradeoff"]

FIGURES: dict[str, Callable[[Result | Comparison], Figure | None]] = {
    draw.__name__: draw for draw in (tradeoff, confusion, bars, latency, radar, throughput)
}
"""Every figure by its name."""

_FORMATS = ("png", "svg", "pdf")


def every(source: Result | Comparison) -> dict[str, Figure]:
    """Return every figure that the source has readings for, by name."""
    drawn = {name: draw(source) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def save(figures: Mapping[str, Figure], folder: Path, formats: Iterable[str] = ("png", "svg")) -> list[Path]:
    """Write figures into a folder as `name.format` and return the paths; equal figures give equal files."""
    wanted = tuple(formats)
    for format in wanted:
        if format not in _FORMATS:
            raise BadInput(f"figures can't be written as {format!r}; choose from {', '.join(_FORMATS)}")
    make_folder(folder)
    written = []
    for name, figure in figures.items():
        for format in wanted:
            path = folder / f"{name}.{format}"
            write_bytes(path, style.to_bytes(figure, format))
            written.append(path)
    return written
