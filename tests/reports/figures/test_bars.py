from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from trimtab.core.values import Comparison, Reading
from trimtab.reports import lineup
from trimtab.reports.figures.bars import bars


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lengths(axes):
    return [bar.get_width() for held in axes.containers if isinstance(held, BarContainer) for bar in held]


def intervals(axes):
    """The ends of the whiskers, by row."""
    found = {}
    for held in axes.containers:
        if isinstance(held, ErrorbarContainer):
            ((start, row), (end, _)) = held.lines[2][0].get_segments()[0]
            found[int(row)] = (start, end)
    return found


def with_readings(result, *readings):
    """A comparison of two models with these readings of the second one only."""
    first, second, *_ = result.comparison.measurements
    return Comparison(measurements=(replace(first, readings=()), replace(second, readings=readings)))


def test_bars_are_as_long_as_the_readings_in_the_unit_of_the_axis(result):
    found = panels(bars(result))
    assert list(found) == ["median latency", "size", "peak memory"]
    assert lengths(found["median latency"]) == pytest.approx([2.9, 1.8, 1.0, 1.3])
    assert found["median latency"].get_xlabel() == "ms"
    assert lengths(found["size"]) == pytest.approx([1.69, 1.69, 0.47, 0.85])
    assert found["size"].get_xlabel() == "MB"


def test_whiskers_end_where_the_intervals_do(result):
    found = panels(bars(result))
    expected = {row: (value * 0.98, value * 1.02) for row, value in enumerate([2.9, 1.8, 1.0, 1.3])}
    shown = intervals(found["median latency"])
    assert set(shown) == set(expected)
    for row, ends in expected.items():
        assert shown[row] == pytest.approx(ends)
    assert intervals(found["size"]) == {}, "a size is counted: it has none"


def test_each_variant_has_its_row_its_colour_and_its_number(result):
    axes = panels(bars(result))["median latency"]
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == [
        entry.name for entry in lineup.finalists(result)
    ]
    bars_drawn = [bar for held in axes.containers if isinstance(held, BarContainer) for bar in held]
    assert [to_hex(bar.get_facecolor()) for bar in bars_drawn] == [e.colour for e in lineup.finalists(result)]
    assert [text.get_text() for text in axes.texts] == ["2.90 ms", "1.80 ms", "1.00 ms", "1.30 ms"]
    assert axes.yaxis_inverted(), "the first variant is on top"


def test_nothing_is_cut_off_on_the_right(result):
    for axes in bars(result).axes:
        assert axes.get_xlim()[1] > max([*lengths(axes), *(end for _, end in intervals(axes).values())])


def test_an_interval_that_misses_its_value_is_stretched_to_it(result):
    odd = Reading(name="latency_p50", value=2e-3, low=3e-3, high=4e-3, unit="s")
    axes = panels(bars(with_readings(result, odd)))["median latency"]
    assert intervals(axes) == {1: pytest.approx((2.0, 4.0))}


def test_what_is_modelled_is_hatched_and_said(result):
    assumed = Reading(name="peak_memory", value=1e8, unit="bytes", provenance="assumed")
    axes = panels(bars(with_readings(result, assumed)))["peak memory"]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [True]
    assert axes.get_xlabel() == "MB, hatched: modelled"
    assert [text.get_text() for text in axes.texts] == [" unavailable", "≈ 100 MB"]


def test_without_these_readings_there_are_no_bars(result):
    assert bars(with_readings(result, Reading(name="accuracy", value=0.9))) is None
