from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from trimtab.core.values import Comparison, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.throughput import by_batch, throughput


def rates(result, *series):
    """A comparison of models with these throughputs by place."""
    measurements = [
        replace(m, readings=tuple(Reading(name="throughput", value=v, place=place) for place, v in given.items()))
        for m, given in zip(result.comparison.measurements, series, strict=False)
    ]
    return Comparison(measurements=tuple(measurements))


def test_each_line_runs_through_what_was_measured(result):
    axes = throughput(result).axes[0]
    for line, measurement in zip(axes.lines, result.comparison.measurements, strict=True):
        batches = [1, 2, 4, 8, 16, 32]
        assert list(line.get_xdata()) == batches
        assert list(line.get_ydata()) == [measurement.value("throughput", f"batch={batch}") for batch in batches]
    assert [to_hex(line.get_color()) for line in axes.lines] == [e.colour for e in lineup.finalists(result)]
    assert len({line.get_marker() for line in axes.lines}) == len(axes.lines), "known without their colours too"


def test_bands_are_the_intervals(result):
    band = throughput(result).axes[0].collections[0].get_paths()[0].vertices
    given = result.comparison.measurements[0]
    for batch in (1, 32):
        reading = given.reading("throughput", f"batch={batch}")
        ys = band[np.isclose(band[:, 0], batch), 1]
        assert (ys.min(), ys.max()) == pytest.approx((reading.low, reading.high))


def test_the_axis_starts_at_zero_and_names_the_sizes_measured(result):
    axes = throughput(rates(result, {"batch=1": 9.0, "batch=4": 20.0}, {"batch=2": 9.0, "batch=4": 30.0})).axes[0]
    assert axes.get_ylim()[0] == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]


def test_sizes_are_in_the_order_of_their_numbers(result):
    figure = throughput(rates(result, {"batch=16": 3.0, "batch=2": 2.0, "batch=1": 1.0}))
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 16]


def test_what_is_unavailable_or_no_batch_size_is_left_out(result):
    entry = lineup.original(rates(result, {"batch=1": 1.0, "batch=2": None, "streams=2": 5.0, None: 4.0}))
    assert list(by_batch(entry)) == [1]


def test_a_line_needs_two_sizes(result):
    assert throughput(rates(result, {"batch=1": 1.0}, {"batch=2": 2.0})) is None
    figure = throughput(rates(result, {"batch=1": 1.0}, {"batch=1": 2.0, "batch=2": 3.0}))
    assert len(figure.axes[0].lines) == 1
