"""How figures look: one set of colours and fonts, no global state, and SVG that follows a page's light and dark."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from trimtab.core.values import Reading
from trimtab.reports import lineup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#1c2024", "#5f6670", "#dfe1e5", "#ffffff"
BETTER, WORSE = "#1b7f5c", "#9c3f86"
"""Green and purple stay apart for the colour-blind, and are no variant's colour."""

TOKENS = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PAPER: "--paper",
    BETTER: "--better",
    WORSE: "--worse",
    lineup.GIVEN: "--given",
    lineup.UNTOUCHED: "--untouched",
    lineup.WINNER: "--winner",
    lineup.TRIED: "--tried",
    **{colour: f"--other-{index}" for index, colour in enumerate(lineup.OTHERS, 1)},
}
"""The variable of the page that takes the place of each colour."""

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trimtab",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "hatch.linewidth": 1.2,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside the block with our style; what was set before is back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        yield


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, which no global list of figures knows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def only_grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Keep the grid lines of one axis."""
    axes.grid(False)
    axes.grid(True, axis=axis)
    axes.tick_params(length=0)


def to_bytes(figure: Figure, format: str, transparent: bool = False) -> bytes:
    """Return a figure as a file of that format; the same figure gives the same bytes."""
    no_date = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    made = io.BytesIO()
    with styled():
        figure.savefig(made, format=format, dpi=200, metadata=no_date.get(format), transparent=transparent)
    return made.getvalue()


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an `<svg>` element whose colours are the page's variables and whose ids begin with `name`."""
    text = to_bytes(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: _token(found[0]), text)
    text = re.sub(r"font: ([\d. ]*(?:bold )?[\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)
    start = f'role="img" aria-label="{escape(title)}"'
    text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {found[1]} {start}>", text, count=1)
    return text.strip()


def _token(colour: str) -> str:
    variable = TOKENS.get(colour.lower())
    return f"var({variable})" if variable else colour


def bounds(reading: Reading) -> tuple[float, float, float]:
    """Return the value of a reading and its interval around it (low, high); without one both are the value."""
    value = reading.value or 0.0
    low = value if reading.low is None else min(reading.low, value)
    high = value if reading.high is None else max(reading.high, value)
    return value, low, high


def wrapped(name: str, width: int = 24) -> str:
    """Return a name broken into lines that fit beside a figure."""
    return "\n".join(textwrap.wrap(name, width)) or name
