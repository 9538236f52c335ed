"""Learning curves: loss and validation score over epochs, and the score over processor time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimtab.core.protocols import Array
from trimtab.core.values import Run
from trimtab.reports import lineup
from trimtab.reports.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (lineup.WINNER, lineup.UNTOUCHED, *lineup.OTHERS, lineup.GIVEN)


def curves(arms: Mapping[str, Sequence[Run]], metric: str) -> Figure:
    """Return the curves of trainings, by the name of what they share (several are the same with other seeds).

    A line is the mean over the seeds, the band around it goes from the lowest to the highest.
    """
    with style.styled():
        figure = style.blank(10.2, 3.4)
        loss, score, cost = figure.subplots(1, 3)
        for number, (name, runs) in enumerate(arms.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            epochs = min(len(_values(run, "train_loss")) for run in runs)
            steps = np.arange(1, epochs + 1)
            _line(loss, steps, _over_runs(runs, "train_loss", epochs), colour, name)
            _line(score, steps, _over_runs(runs, metric, epochs), colour, name)
            seconds = np.cumsum(_over_runs(runs, "epoch_cpu_time", epochs), axis=1).mean(axis=0)
            _line(cost, seconds, _over_runs(runs, metric, epochs), colour, name)
        shown = metric.rpartition(":")[2].replace("_", " ")
        for axes, label, across in (
            (loss, "loss on the train items", "epoch"),
            (score, f"{shown} on the select items", "epoch"),
            (cost, f"{shown} on the select items", "processor time (s)"),
        ):
            axes.set_ylabel(label)
            axes.set_xlabel(across)
            if across == "epoch":
                axes.locator_params(axis="x", integer=True)
            style.only_grid(axes, "y")
        if len(arms) > 1:
            handles, labels = loss.get_legend_handles_labels()
            figure.legend(handles, [style.wrapped(label) for label in labels], loc="outside right upper")
    return figure


def _values(run: Run, name: str) -> tuple[float, ...]:
    trace = run.trace(name)
    return () if trace is None else trace.values


def _over_runs(runs: Sequence[Run], name: str, epochs: int) -> Array:
    """Return the values of every run, shape (runs, epochs)."""
    return np.array([_values(run, name)[:epochs] for run in runs])


def _line(axes: Axes, across: Array, values: Array, colour: str, name: str) -> None:
    marker = "o" if len(across) < 2 else None
    axes.plot(across, values.mean(axis=0), color=colour, linewidth=2, marker=marker, label=name)
    if len(values) > 1:
        axes.fill_between(across, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)
