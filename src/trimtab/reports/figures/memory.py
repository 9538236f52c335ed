"""What a training step holds in memory: over its phases, and at its peak by what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.reports import lineup, words
from trimtab.reports.figures import style
from trimtab.training.memory import Memory, Phase, StepMemory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWNERS = {
    "parameters": lineup.GIVEN,
    "optimizer": lineup.OTHERS[0],
    "gradients": lineup.UNTOUCHED,
    "activations": lineup.WINNER,
}


def memory(found: Memory) -> Figure:
    """Return bars of what the step as asked holds after each phase, and of the fullest phase under every measure.

    A diamond is the most that tensors take at one moment, a circle what the resident memory of a process rises by.
    """
    known = [step for step in found.steps if step.phases]
    phases = known[0].phases if known else ()
    largest = max((max(step.peak or 0, step.resident or 0) for step in known), default=0)
    scale = words.scale("memory", "B", largest)
    with style.styled():
        figure = style.blank(11.0, 1.5 + 0.42 * max(len(known), len(phases)))
        over, measured = figure.subplots(1, 2)
        for row, phase in enumerate(phases):
            wide = _bar(over, row, phase, scale.factor)
            text = words.quantity(phase.total, "B", "memory")
            over.annotate(text, (wide, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
        _names(
            over, [phase.name for phase in phases], f"after each phase ({known[0].name})" if known else "", scale.symbol
        )
        for row, step in enumerate(known):
            _bar(measured, row, max(step.phases, key=lambda phase: phase.total), scale.factor)
            _marks(measured, row, step, scale.factor)
        _names(measured, [step.name for step in known], "the fullest phase", scale.symbol)
        handles, labels = measured.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown))
    return figure


def _bar(axes: Axes, row: int, phase: Phase, factor: float) -> float:
    """Draw what each owner holds, one behind the other, and return where the last one ends."""
    end = 0.0
    for owner, colour in _OWNERS.items():
        wide = getattr(phase, owner) / factor
        axes.barh(row, wide, left=end, height=0.56, color=colour, linewidth=0, label=owner)
        end += wide
    return end


def _marks(axes: Axes, row: int, step: StepMemory, factor: float) -> None:
    for value, marker, name in ((step.peak, "D", "most in tensors"), (step.resident, "o", "resident")):
        if value is not None:
            looks: dict[str, Any] = {
                "color": style.INK,
                "markersize": 5,
                "linestyle": "none",
                "markerfacecolor": style.PAPER,
            }
            axes.plot(value / factor, row, marker=marker, label=name, **looks)


def _names(axes: Axes, names: list[str], title: str, symbol: str) -> None:
    axes.set_yticks(range(len(names)), [style.wrapped(name, 30) for name in names])
    axes.tick_params(axis="y", labelcolor=style.INK)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.18)
    axes.set_title(title)
    axes.set_xlabel(symbol)
    style.only_grid(axes, "x")
