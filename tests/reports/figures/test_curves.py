from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import Run, Trace
from trimtab.reports import figures
from trimtab.reports.figures.curves import curves

LOSSES, SCORES, TIMES = (2.0, 1.0, 0.5), (0.5, 0.7, 0.8), (3.0, 4.0, 5.0)


@pytest.fixture
def run(result):
    """Make a run of some epochs whose losses are so much higher and whose scores so much lower."""

    def make(apart: float = 0.0, epochs: int = 3) -> Run:
        given = {
            "accuracy": [score - apart for score in SCORES],
            "train_loss": [loss + apart for loss in LOSSES],
            "epoch_cpu_time": [time + apart for time in TIMES],
        }
        numbers = tuple(float(number + 1) for number in range(epochs))
        traces = tuple(Trace(name=name, times=numbers, values=tuple(all_[:epochs])) for name, all_ in given.items())
        return Run(
            configuration=(), traces=traces, readings=(), notes=(), model=None, finished=True,
            checkpoint=Path("work/checkpoint"), machine=result.machine, time="2026-11-22",
        )  # fmt: skip

    return make


def drawn(axes):
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]


def test_the_lines_hold_the_numbers_of_the_run(run):
    loss, score, cost = curves({"": [run()]}, "accuracy").axes
    assert drawn(loss) == [([1, 2, 3], list(LOSSES))]
    assert drawn(score) == [([1, 2, 3], list(SCORES))]
    assert drawn(cost) == [([3, 7, 12], list(SCORES))]
    assert all(axes.collections[:] == [] for axes in (loss, score, cost)), "one seed has no band"


def test_the_axes_say_what_they_show(run):
    axes = curves({"": [run()]}, "accuracy").axes
    assert [each.get_xlabel() for each in axes] == ["epoch", "epoch", "processor time (s)"]
    assert [each.get_ylabel() for each in axes] == ["loss on the train items", *["accuracy on the select items"] * 2]


def test_several_seeds_are_their_mean_in_a_band_from_the_lowest_to_the_highest(run):
    loss, score, cost = curves({"": [run(), run(0.1), run(0.5)]}, "accuracy").axes
    assert drawn(loss)[0][1] == pytest.approx([value + 0.2 for value in LOSSES])
    assert drawn(score)[0][1] == pytest.approx([value - 0.2 for value in SCORES])
    assert drawn(cost)[0][0] == pytest.approx([3.2, 7.4, 12.6])
    band = loss.collections[0].get_paths()[0].vertices
    for epoch, value in enumerate(LOSSES, 1):
        ys = band[np.isclose(band[:, 0], epoch), 1]
        assert (ys.min(), ys.max()) == pytest.approx((value, value + 0.5))


def test_every_recipe_has_a_line_of_its_own_and_its_name_in_the_legend(run):
    figure = curves({"sgd": [run(0.1)], "adam": [run()]}, "accuracy")
    assert [values for _, values in drawn(figure.axes[1])] == [pytest.approx([s - 0.1 for s in SCORES]), list(SCORES)]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sgd", "adam"]
    assert curves({"": [run()]}, "accuracy").legends == []


def test_seeds_that_stopped_early_end_the_line(run):
    loss, _, _ = curves({"": [run(), run(0.2, epochs=2)]}, "accuracy").axes
    assert drawn(loss)[0][0] == [1, 2]


def test_a_single_epoch_is_a_point(run):
    loss, _, _ = curves({"": [run(epochs=1)]}, "accuracy").axes
    assert loss.lines[0].get_marker() == "o"
    assert drawn(loss) == [([1], [2.0])]


def test_it_is_written_as_a_file(run, tmp_path):
    written = figures.save({"curves": curves({"": [run()]}, "accuracy")}, tmp_path)
    assert [path.name for path in written] == ["curves.png", "curves.svg"]
