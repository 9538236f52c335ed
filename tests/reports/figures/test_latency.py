from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from trimtab.core.values import Comparison, Trace
from trimtab.reports import lineup
from trimtab.reports.figures.latency import latency


def calls_of(result):
    return [np.array(m.traces[0].values) * 1e3 for m in result.comparison.measurements]


def drawn(axes, marker):
    """The x values of every line that is a mark (fliers), or that is none (boxes)."""
    lines = [line for line in axes.lines if (line.get_marker() == "o") == marker]
    return [np.asarray(line.get_xdata(), dtype=float) for line in lines]


def timed(result, *series):
    """A comparison of models that were timed with these seconds."""
    measurements = [
        replace(m, traces=(Trace(name="latency", times=(), values=tuple(values), unit="s"),))
        for m, values in zip(result.comparison.measurements, series, strict=False)
    ]
    return Comparison(measurements=tuple(measurements))


def test_each_box_has_the_median_of_its_calls(result):
    axes = latency(result).axes[0]
    flat = [values[0] for values in drawn(axes, marker=False) if len(set(values)) == 1]
    for values in calls_of(result):
        assert any(found == pytest.approx(np.median(values), rel=1e-12) for found in flat)


def test_boxes_hold_the_middle_half(result):
    edges = [sorted({x for x, _ in box.get_path().vertices}) for box in latency(result).axes[0].patches]
    expected = [np.quantile(values, [0.25, 0.75]) for values in calls_of(result)]
    assert np.allclose([(found[0], found[-1]) for found in edges], expected)


def test_every_call_beyond_the_whiskers_is_a_dot_and_none_is_lost(result):
    dots = np.concatenate(drawn(latency(result).axes[0], marker=True))
    beyond = [
        values[(values < np.percentile(values, 1)) | (values > np.percentile(values, 99))]
        for values in calls_of(result)
    ]
    assert sorted(dots) == pytest.approx(sorted(np.concatenate(beyond)))


def test_rows_are_named_and_coloured_like_everywhere(result):
    axes = latency(result).axes[0]
    entries = lineup.finalists(result)
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == [e.name for e in entries]
    assert [to_hex(box.get_facecolor()) for box in axes.patches] == [entry.colour for entry in entries]


def test_the_unit_is_that_of_the_median_call(result):
    assert latency(result).axes[0].get_xlabel() == "time of one call (ms), lower is better"
    micro = timed(result, [4e-5, 5e-5, 6e-5], [3e-5, 3e-5])
    assert latency(micro).axes[0].get_xlabel() == "time of one call (µs), lower is better"


def test_a_logarithmic_axis_says_so_and_has_plain_labels(result):
    figure = latency(timed(result, [1e-3, 2e-3], [3e-3, 0.5]))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert "logarithmic" in axes.get_xlabel()
    labels = [text.get_text() for text in (*axes.get_xticklabels(), *axes.get_xticklabels(minor=True))]
    assert not any("$" in label or "mathdefault" in label for label in labels)


def test_models_that_were_not_timed_have_no_row(result):
    figure = latency(timed(result, [], [1e-3, 2e-3, 3e-3]))
    assert len(figure.axes[0].get_yticklabels()) == 1
    assert latency(timed(result, [], [])) is None


def test_one_call_is_enough_to_draw(result):
    assert len(latency(timed(result, [1e-3])).axes[0].patches) == 1
