from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.values import Comparison, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.radar import radar, spokes

NAME = "static-int8 on openvino"


def compared(result, *series):
    measurements = [replace(m, readings=tuple(r)) for m, r in zip(result.comparison.measurements, series, strict=False)]
    return Comparison(measurements=tuple(measurements))


def lower(**values):
    return [Reading(name=name, value=value, direction="lower") for name, value in values.items()]


def test_the_best_scores_one_and_half_as_good_a_half(result):
    found = spokes(lineup.finalists(result)[:4], "accuracy")
    size = next(scores for label, scores in found.items() if label.startswith("size"))
    assert size[NAME] == 1.0
    assert size["as given"] == pytest.approx(0.47 / 1.69)
    rate = found["throughput, batch=32\n(higher is better)"]
    assert rate[NAME] == 1.0
    assert rate["as given"] == pytest.approx(1 / 2.9)
    assert next(iter(found)) == "accuracy\n(higher is better)", "what is protected comes first"
    assert not any(label.startswith("p99") for label in found)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=4), st.sampled_from(["lower", "higher"]))
def test_scores_are_shares_of_the_best(values, direction):
    readings = [Reading(name="x", value=value, direction=direction) for value in values]
    entries = tuple(
        lineup.Entry(name=str(number), part="finalist", colour="", against=(reading,))
        for number, reading in enumerate(readings)
    )
    (scores,) = spokes(entries, "x").values()
    assert max(scores.values()) == 1.0
    assert all(0 < score <= 1 for score in scores.values())
    ranked = sorted(scores, key=scores.get)
    assert [values[int(name)] for name in ranked] == sorted(values, reverse=direction == "lower")


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
def test_what_has_no_ratio_has_no_spoke(result, value):
    entries = lineup.finalists(compared(result, lower(a=1.0, b=value), lower(a=2.0, b=1.0)))
    assert [label.split("\n")[0] for label in spokes(entries, "accuracy")] == ["a"]


def test_a_reading_that_one_variant_lacks_leaves_a_gap(result):
    source = compared(result, lower(a=1.0, b=1.0, c=1.0), lower(a=2.0, b=2.0), lower(a=4.0, b=1.0, c=2.0))
    first, second, third = radar(source).axes[0].lines
    assert list(first.get_ydata()) == [1.0, 1.0, 1.0, 1.0]
    assert np.array_equal(second.get_ydata(), [0.5, 0.5, np.nan, 0.5], equal_nan=True)
    assert list(third.get_ydata()) == [0.25, 1.0, 0.5, 0.25]


def test_each_line_closes_and_goes_once_around(result):
    for line in radar(result).axes[0].lines:
        turns = line.get_xdata()
        assert turns[0] == turns[-1]
        assert np.allclose(np.diff(turns[:-1]), 2 * np.pi / (len(turns) - 1))


def test_only_the_winner_is_filled(result):
    assert len(radar(result).axes[0].patches) == 1
    assert len(radar(result.comparison).axes[0].patches) == 0


def test_every_spoke_says_which_way_is_better(result):
    labels = [label.get_text() for label in radar(result).axes[0].get_xticklabels()]
    assert 3 <= len(labels) <= 12
    assert all(label.endswith("is better)") for label in labels)


def test_two_spokes_or_one_variant_are_no_radar(result):
    assert radar(compared(result, lower(a=1.0, b=1.0), lower(a=2.0, b=2.0))) is None
    assert radar(compared(result, lower(a=1.0, b=1.0, c=1.0))) is None


def test_no_label_is_cut_off_or_lies_under_the_legend(result):
    figure = radar(result)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    for label in figure.axes[0].get_xticklabels():
        box = label.get_window_extent()
        assert figure.bbox.contains(box.x0, box.y0), label.get_text()
        assert figure.bbox.contains(box.x1, box.y1), label.get_text()
        assert not box.overlaps(legend), label.get_text()


def test_throughput_is_compared_at_the_largest_batch_that_two_have(result):
    def rates(*batches):
        return [Reading(name="throughput", value=9.0, direction="higher", place=f"batch={b}") for b in batches]

    entries = lineup.finalists(compared(result, rates(1, 2, 4), rates(1, 2, 4, 8, 16)))
    assert list(spokes(entries, "accuracy")) == ["throughput, batch=4\n(higher is better)"]
